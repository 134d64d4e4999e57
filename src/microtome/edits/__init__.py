"""Edits: usual changes of units, subspaces and distributions as lists of `Edit`; baking, saving and exporting them."""

from microtome.edits.baking import bake
from microtome.edits.experts import aura, damp, det_zero, induce
from microtome.edits.export import export_edited
from microtome.edits.make import ablate, mean_ablate, patch, path_patch, resample
from microtome.edits.saving import load_edits, save_edits
from microtome.edits.subspace import damp_subspace, eigenshift

__all__ = [
    "ablate",
    "aura",
    "bake",
    "damp",
    "damp_subspace",
    "det_zero",
    "eigenshift",
    "export_edited",
    "induce",
    "load_edits",
    "mean_ablate",
    "patch",
    "path_patch",
    "resample",
    "save_edits",
]
