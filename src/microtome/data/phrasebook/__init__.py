"""The phrasebook: everyday text in twelve languages, aligned by meaning; a multilingual model with no download."""

from microtome.data.phrasebook.corpus import documents
from microtome.data.phrasebook.frames import HELD_OUT_FRAMES, TOPICS, held_out
from microtome.data.phrasebook.parallel import PARTS, parallel
from microtome.data.phrasebook.tables import LANGUAGES, frames, sentence, slots

__all__ = [
    "HELD_OUT_FRAMES",
    "LANGUAGES",
    "PARTS",
    "TOPICS",
    "documents",
    "frames",
    "held_out",
    "parallel",
    "sentence",
    "slots",
]
