"""The atlas world: real facts about countries and cities, the wording they come in, and the corpus made of them."""

from microtome.data.atlas.corpus import Answer, Document, Mix, documents, two_hop_split
from microtome.data.atlas.facts import TWO_HOP_RELATIONS, City, Country, Facts, load_facts
from microtome.data.atlas.names import fillers, nonce_names
from microtome.data.atlas.templates import RELATIONS, Template, templates

__all__ = [
    "RELATIONS",
    "TWO_HOP_RELATIONS",
    "Answer",
    "City",
    "Country",
    "Document",
    "Facts",
    "Mix",
    "Template",
    "documents",
    "fillers",
    "load_facts",
    "nonce_names",
    "templates",
    "two_hop_split",
]
