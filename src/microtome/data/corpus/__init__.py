"""Corpora: documents read from what the user has, filtered, scrubbed and decontaminated as they stream, and accounted.

    chain = Chain([Decontaminate.against(sets), *default_filters()], scrub=Scrub())
    for document in chain(read_corpus("corpus", errors="drop", counts=chain.counts)):
        ...
    chain.report()

The rules are those of FuxiTranyu's pipeline (arXiv 2408.06273, 3.2), whose thresholds are not published: ours are
fields of the filters. Deduplication, mixing and the tokenizer are not here.
"""

from microtome.data.corpus.chain import Chain
from microtome.data.corpus.character_model import CharacterModel
from microtome.data.corpus.counts import Counts, Tally
from microtome.data.corpus.decontaminate import Contamination, Decontaminate, contamination
from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import Filter, available_filters, default_filters, find_filter
from microtome.data.corpus.privacy import KINDS, Scrub
from microtome.data.corpus.readers import read_corpus
from microtome.data.corpus.sampling import sample_documents
from microtome.data.corpus.source_code import PROGRAMMING, read_source

__all__ = [
    "KINDS",
    "PROGRAMMING",
    "Chain",
    "CharacterModel",
    "Contamination",
    "Counts",
    "Decontaminate",
    "Document",
    "Filter",
    "Scrub",
    "Tally",
    "available_filters",
    "contamination",
    "default_filters",
    "find_filter",
    "read_corpus",
    "read_source",
    "sample_documents",
]
