"""Edits: the usual ways of changing a set of units, as lists of `Edit`; and making a change of weights permanent."""

from microtome.edits.export import export_edited
from microtome.edits.make import ablate, mean_ablate, patch, path_patch, resample

__all__ = ["ablate", "export_edited", "mean_ablate", "patch", "path_patch", "resample"]
