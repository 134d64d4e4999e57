"""Addresses, units, protocols, configuration, errors: the vocabulary of every room. Loads no torch."""
