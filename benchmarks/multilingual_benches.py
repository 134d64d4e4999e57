"""The benchmarks of the multilingual study: a training loop, importance, near-duplicates, memory of a corpus.

Each takes an adapter (a module peers/*_multilingual.py), the shared work and the number of rounds. What transformers
offers by itself stands in our environment, so our adapter offers it too, as it does the plain hooks.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np

from benchmarks.agreement import Disagreement, agreement
from benchmarks.candidates import Candidate
from benchmarks.clock import Times, alternate
from benchmarks.environments import OURS
from benchmarks.measured import Measured, summary
from benchmarks.peers import plain_dedup, plain_importance, plain_multilingual
from benchmarks.peers.plain_dedup import Planted
from benchmarks.workload import Work

__all__ = ["corpus_memory", "importance", "minhash", "pretraining", "shortfall"]

NATS = {True: 1e-2, False: 1e-4}  # by which a loss may differ, when products are in bfloat16 or not
ERRORS = 3  # standard errors of a difference by which fewer planted pairs may be found
MIB = 1 << 20
TIMES = 4  # as many documents are to take no more memory


def pretraining(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Updates of the laptop recipe's model, set-up not counted: rows that are one text each, packed documents.

    Unit: a plain PyTorch loop. Compared are the losses of all updates.
    """
    measured = []
    for kind in plain_multilingual.KINDS:
        task = plain_multilingual.training(work, kind)
        unit = Candidate("the same in a plain PyTorch loop", kind, lambda task=task: plain_multilingual.trained(task))
        found, truth = adapter.pretraining(task, kind), {"losses": unit.run().losses}
        rounding = NATS[task.sizes.bf16] / float(truth["losses"].max())
        wrong = [agreement({"losses": c.run().losses}, truth, rounding) for c in found]
        times = _own_clocks((unit, *found), (rounds + 1) // 2, work.device)
        measured += [_counted(m, task.tokens, "tokens") for m in _entries("pretraining", unit, found, wrong, times)]
    return measured


def importance(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """|h dL/dh| of all neurons, and of all units of eight components, in each of twelve languages.

    Unit: the forward pass and the loss of the same batches, without gradients. Compared are all means.
    """
    texts = plain_importance.parallel_texts(work)
    unit = Candidate("the same without gradients", "", lambda: plain_importance.forward_and_loss(texts))
    found, truth = adapter.importance(texts), {}
    for c in found:  # the hooks come first
        truth.setdefault(c.metric, c.read(c.run()))
    wrong = [agreement(c.read(c.run()), truth[c.metric]) for c in found]
    measured = _timed("importance", unit, found, wrong, rounds, work.device)
    return [_counted(m, texts.tokens, "tokens") for m in measured]


def minhash(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Clusters of near-duplicates by 14 bands of 8 rows over words by fives, of documents some of which are planted.

    Unit: MinHash in plain NumPy, a document after another. Compared is the share of the planted pairs that is found.
    """
    sizes = plain_multilingual.shape(work)
    documents = plain_dedup.planted(sizes.documents, sizes.planted)
    unit = Candidate("plain NumPy, text by text", "", lambda: plain_dedup.near_duplicates(documents.texts))
    truth, found = unit.run(), adapter.minhash(documents, work.scratch)
    clusters = {run: run() for run in {c.run: None for c in found}}
    wrong = [shortfall(c.name, documents, clusters[c.run], truth) for c in found]
    noted = [replace(c, note=_told(documents, clusters[c.run])) for c in found]
    unit = replace(unit, note=_told(documents, truth))
    measured = _timed("minhash", unit, noted, wrong, (rounds + 1) // 2, work.device)
    return [_counted(m, len(documents.texts), "documents") for m in measured]


def corpus_memory(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """By how much a stage of a build's corpus raises a process at most, when there are four times as many documents.

    Unit: the same with a quarter of the documents. Each peak is of a process of its own that has taken the stage of a
    few documents before; once, since it hardly varies.
    """
    sizes = plain_multilingual.shape(work)
    measured = []
    for stage, documents in (("filter", sizes.filtered), ("deduplicate", sizes.deduplicated)):
        few, many = (max(1.0, adapter.growth(stage, n)) for n in (documents, TIMES * documents))
        each = (many - few) * MIB / ((TIMES - 1) * documents)
        note = f"{TIMES * documents:,} documents beside {documents:,}, {each:.0f} bytes more for each"
        found = (("the same with a quarter of the documents", few), ("microtome", many))
        for name, held in found:
            measured.append(summary("corpus_memory", stage, name, [held], [few], note=note, measure="MiB"))
    return measured


def shortfall(name: str, documents: Planted, first: np.ndarray, truth: np.ndarray) -> float:
    """Return by how much fewer of the planted pairs are found than another draw of permutations could explain: 0.

    Args:
        name: of who found them.
        documents: with the planted pairs.
        first: the first text of each one's cluster, [texts].
        truth: the reference's.

    Raises:
        Disagreement: it is more than 0, or more than one in fifty of the other texts were removed.
    """
    found, wanted = documents.recall(first), documents.recall(truth)
    others, pairs = len(documents.texts) - documents.pairs.size, len(documents.pairs)
    less = max(0.0, wanted - found - ERRORS * math.sqrt(2 * wanted * (1 - wanted) / pairs))
    if less or documents.others(first) > others / 50:
        raise Disagreement(f"{name}: {_told(documents, first)}; the reference: {_told(documents, truth)}")
    return less


# -- the parts


def _told(documents: Planted, first: np.ndarray) -> str:
    share, pairs = documents.recall(first), len(documents.pairs)
    return f"{share:.4f} of {pairs:,} planted pairs found, {documents.others(first)} other texts removed"


def _timed(
    bench: str, unit: Candidate, found: Sequence[Candidate], wrong: Sequence[float], rounds: int, device: str
) -> list[Measured]:
    """Time in turn with the unit; a `run` that is shared is timed once."""
    times = alternate({_key(c): c.run for c in (unit, *found)}, rounds, device)
    return _entries(bench, unit, found, wrong, times)


def _own_clocks(every: Sequence[Candidate], rounds: int, device: str) -> Times:
    """Let candidates run in turn, and return the seconds that each says of itself."""
    seconds: Times = {_key(c): [] for c in every}

    def run(c: Candidate) -> None:
        seconds[_key(c)].append(c.run().seconds)

    alternate({_key(c): lambda c=c: run(c) for c in every}, rounds, device)
    return {key: own[1:] for key, own in seconds.items()}  # the first is the warm-up


def _key(c: Candidate) -> str:
    return str(id(c.run))


def _entries(
    bench: str, unit: Candidate, found: Sequence[Candidate], wrong: Sequence[float], times: Times
) -> list[Measured]:
    """Return the measurements; the unit is an entry of every metric of ours too."""
    metrics = dict.fromkeys(c.metric for c in found if c.name.startswith(OURS))
    every = [*((replace(unit, metric=metric), 0.0) for metric in metrics), *zip(found, wrong, strict=True)]
    reference = times[_key(unit)]
    return [summary(bench, c.metric, c.name, times[_key(c)], reference, difference=w, note=c.note) for c, w in every]


def _counted(m: Measured, count: int, of: str) -> Measured:
    """Return the measurement with its speed in the note."""
    speed = f"{count / m.seconds:,.0f} {of}/s"
    return replace(m, note="; ".join(n for n in (m.note, speed) if n))
