"""Measures: activations, gradients and outputs in; numbers with their nulls out. One family a file."""
