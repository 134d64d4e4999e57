"""Training: one readable loop, and the recipes of the zoo's trained models."""
