"""The interventions compared: one family of arms a function, found by scanning this folder; see `family.py`."""

from microtome.studies.toxicity.methods.family import Family, Found, families, left_out

__all__ = ["Family", "Found", "families", "left_out"]
