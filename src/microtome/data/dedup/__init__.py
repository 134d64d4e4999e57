"""Deduplication: exact by digest, near by MinHash in one pass or in many turns, in memory or from signatures on disk.

A corpus in memory: `near_duplicates(texts).kept`. One that is read once: `write_signatures(texts, folder).near().kept`.
One whose keys do not fit into memory either: `multi_turn(SignatureStore.open(folder), "turns").kept`.
"""

from microtome.data.dedup.canonical import canonical
from microtome.data.dedup.clusters import Clusters, near_duplicates
from microtome.data.dedup.exact import exact_duplicates
from microtome.data.dedup.minhash import MinHash, recall
from microtome.data.dedup.multi_turn import MultiTurn, Turn, multi_turn
from microtome.data.dedup.shingles import Shingling, jaccard
from microtome.data.dedup.store import SignatureStore, write_signatures

__all__ = [
    "Clusters",
    "MinHash",
    "MultiTurn",
    "Shingling",
    "SignatureStore",
    "Turn",
    "canonical",
    "exact_duplicates",
    "jaccard",
    "multi_turn",
    "near_duplicates",
    "recall",
    "write_signatures",
]
