"""Generators and loaders of data; no torch."""
