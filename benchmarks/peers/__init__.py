"""One adapter a tool; see candidates.py for what an adapter defines."""
