"""datatrove: signatures, buckets and clusters by its local executor, words by spaCy, its default, or by str.split.

(Its own WhitespaceTokenizer is spaCy too.) The reader is ours, so that nobody reads files; the last step, which
filters, is left out.
"""

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig
from loguru import logger

from benchmarks.candidates import Candidate
from benchmarks.peers.plain_dedup import BANDS, ROWS, WORDS, Planted

__all__ = ["minhash"]

SPACY, SPLIT = "words by spaCy", "words by str.split"
CONFIG = MinhashConfig(
    n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=64, hash_fc="xxhash")
)


def minhash(documents: Planted, scratch: Path) -> list[Candidate]:
    """Both ways of cutting words, with one worker, as ours is one process."""
    turns = itertools.count()

    def way(words: str) -> list[Candidate]:
        def run() -> np.ndarray:
            return _first(documents.texts, scratch / f"datatrove-{next(turns)}", words)

        return [Candidate(f"datatrove, {words}", metric, run) for metric in ("in memory", "by way of the disk")]

    return [*way(SPACY), *way(SPLIT)]


def _first(texts: Sequence[str], home: Path, words: str) -> np.ndarray:
    """Return the first text of each one's cluster, from the pairs (text, cluster) that its third step writes."""
    logger.disable("datatrove")
    paths = [str(home / name) for name in ("signatures", "buckets", "clusters")]
    sign = MinhashDedupSignature(paths[0], CONFIG)
    if words == SPLIT:
        sign.word_tokenizer = SimpleNamespace(word_tokenize=str.split)
    steps = (
        ([_reader(texts), sign], 1),
        ([MinhashDedupBuckets(paths[0], paths[1], config=CONFIG)], BANDS),
        ([MinhashDedupCluster(paths[1], paths[2], config=CONFIG, save_cluster_id=True)], 1),
    )
    for number, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(home / "logs" / str(number))).run()
    first, seen = np.arange(len(texts)), {}
    for text, cluster in struct.iter_unpack("<2I", (home / "clusters" / "000000.clusters").read_bytes()):
        first[text] = seen.setdefault(cluster, text)
    return first


def _reader(texts: Sequence[str]) -> Callable[..., Iterator[Document]]:
    """Return the step that gives the texts."""
    return lambda data, rank=0, world_size=1: (Document(text=text, id=str(i)) for i, text in enumerate(texts))
