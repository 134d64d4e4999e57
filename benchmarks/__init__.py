"""Our tool beside its peers: `python -m benchmarks.run` measures, goals.py holds the aims, RESULTS.md the outcome."""
