"""Features: bases an edit can act in. One a file; a fitter keeps running state, the fitted basis is frozen."""
