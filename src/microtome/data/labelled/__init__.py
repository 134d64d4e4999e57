"""Labelled text: Jigsaw, ToxiCN, RealToxicityPrompts, or any CSV of the user's, all read into one schema.

No text of any of them is in the package; every loader takes a path. What was left out, and why, is in the set.
"""

from microtome.data.labelled.jigsaw import JIGSAW_LABELS, load_jigsaw
from microtome.data.labelled.real_toxicity import load_real_toxicity
from microtome.data.labelled.rows import LabelledSet, LabelledText
from microtome.data.labelled.table import load_labelled_csv
from microtome.data.labelled.toxicn import load_toxicn

__all__ = [
    "JIGSAW_LABELS",
    "LabelledSet",
    "LabelledText",
    "load_jigsaw",
    "load_labelled_csv",
    "load_real_toxicity",
    "load_toxicn",
]
