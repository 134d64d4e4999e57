"""The same clusters through datatrove's executors, where it is installed (`pip install datatrove`).

Its four steps - signatures, buckets, clusters, filter - are run but for the last, by its local executor, with our
shingles in place of its words, so that what a text is made of does not depend on the engine. Permutations are its own:
which borderline pairs meet differs, how many does not. It keeps a file for every task and finished task, so a run that
was killed goes on in the same folder. It sets loguru's handlers anew, and several workers log to the terminal. Its
executors for Slurm and Ray take the same steps; they are not started from here.
"""

import importlib.util
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from microtome.core.errors import DataError
from microtome.data.dedup.clusters import Clusters
from microtome.data.dedup.minhash import MinHash

__all__ = ["datatrove_duplicates"]


def datatrove_duplicates(
    texts: Sequence[str], folder: str | Path, minhash: MinHash | None = None, *, tasks: int = 1, workers: int = 1
) -> Clusters:
    """Return the clusters of near-duplicates that datatrove finds.

    Args:
        texts: the texts; with several workers they are copied to each.
        folder: where its steps leave their files; a folder of one run.
        minhash: bands, rows, shingles and seed; None for the defaults.
        tasks: parts of the texts that are signed apart.
        workers: processes.

    Raises:
        DataError: datatrove is not installed, there are no texts, or no such number of tasks.
    """
    if importlib.util.find_spec("datatrove") is None:
        raise DataError(
            "Deduplication by datatrove was asked for, found it not installed; pip install datatrove, or use "
            "near_duplicates, which needs nothing."
        )
    if not texts or not 1 <= tasks <= len(texts) or workers < 1:
        raise DataError(
            f"datatrove was asked for {len(texts)} texts in {tasks} tasks on {workers} workers; give 1 text or more "
            "for each task, and 1 worker or more."
        )
    home, edges = Path(folder), [len(texts) * task // tasks for task in range(tasks + 1)]
    with _quiet():
        _run_steps(texts, home, minhash or MinHash(), edges, workers)
    return Clusters(_first(home / "clusters", edges))


def _run_steps(texts: Sequence[str], home: Path, minhash: MinHash, edges: list[int], workers: int) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer

    config = MinhashConfig(
        num_buckets=minhash.bands,
        hashes_per_bucket=minhash.rows,
        seed=minhash.seed,
        hash_config=HashConfig(precision=64, hash_fc="sha1"),  # unused, since the shingles are ours; needs no xxhash
    )
    paths = [str(home / name) for name in ("signatures", "buckets", "clusters")]
    sign = MinhashDedupSignature(paths[0], config, WhitespaceTokenizer())
    sign.get_shingles = lambda text: minhash.shingling.cut([text]).hashes.reshape(-1, 1)
    steps = (
        ([_reader(texts, edges), sign], len(edges) - 1),
        ([MinhashDedupBuckets(paths[0], paths[1], config=config)], minhash.bands),
        ([MinhashDedupCluster(paths[1], paths[2], config=config, save_cluster_id=True)], 1),
    )
    for number, (pipeline, tasks) in enumerate(steps):
        logs = str(home / "logs" / str(number))
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs).run()


def _reader(texts: Sequence[str], edges: list[int]) -> Any:
    """Return the step that gives each task its part of the texts."""

    def read(data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        from datatrove.data import Document

        return (Document(text=texts[i], id=str(i)) for i in range(edges[rank], edges[rank + 1]))

    return read


def _first(folder: Path, edges: list[int]) -> np.ndarray:
    """Return the first text of each one's cluster, from the pairs (text in task, cluster) of every task's file."""
    first, seen = np.arange(edges[-1]), {}
    for task, start in enumerate(edges[:-1]):
        file = folder / f"{task:06d}.clusters"
        pairs = struct.iter_unpack("<2I", file.read_bytes()) if file.is_file() else ()
        for text, cluster in sorted(pairs):
            first[start + text] = seen.setdefault(cluster, start + text)
    return first


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep datatrove's log off the terminal while it runs in this process."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
