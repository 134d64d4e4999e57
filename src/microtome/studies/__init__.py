"""Studies: one folder per paper; each declares a `STUDY`, found by discovery. They never import each other."""
