"""Ours: `pretrain`, `importance_by_group`, `near_duplicates` and signatures on disk, the corpus stages of a build."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate.state import AcceleratorState
from torch import tensor

from benchmarks.candidates import Candidate
from benchmarks.peers import plain_importance
from benchmarks.peers import plain_multilingual as plain
from benchmarks.peers.plain_dedup import Planted
from benchmarks.peers.trainer import trainer
from microtome.data.dedup import near_duplicates, write_signatures
from microtome.measures.importance import importance_by_group
from microtome.models.model import Model
from microtome.studies.multilingual.analysis import COMPONENTS
from microtome.training.packing import Rows
from microtome.training.pretraining import pretrain
from microtome.training.pretraining_recipe import Recipe

__all__ = ["growth", "importance", "minhash", "pretraining"]

ROOT = Path(__file__).parents[2]


# -- training


class _Batches:
    """A stream over the batches of a run."""

    def __init__(self, task: plain.Training):
        self._parts = itertools.chain.from_iterable(task.updates)

    def __next__(self) -> Rows:
        part = next(self._parts)
        return Rows(part.ids, part.documents)

    def state(self) -> int:
        return 0


def pretraining(task: plain.Training, metric: str) -> list[Candidate]:
    """The loop, without checkpoints; and what transformers offers by itself."""
    sizes = task.sizes
    recipe = Recipe(
        steps=len(task.updates),
        batch_tokens=sizes.parts * sizes.rows * sizes.seq,
        peak=task.rate,
        floor=1.0,
        warm_up=1,
        weight_decay=task.decay,
        betas=task.betas,
        eps=task.eps,
        clip=task.clip,
        bf16=sizes.bf16,
    )

    def run() -> plain.Trained:
        AcceleratorState._reset_state(reset_partial_state=True)  # the Trainer leaves its precision to whoever is next
        found = pretrain(task.fresh(), lambda _: _Batches(task), recipe)
        return plain.Trained(tensor(found.losses), found.seconds)

    return [Candidate("microtome", metric, run), trainer(task, metric)]


# -- importance


def importance(texts: plain_importance.Texts) -> list[Candidate]:
    """All neurons, and the eight components of the study, in every language at once; and plain hooks."""
    model = Model.load(texts.model)
    batches = [model.batch_ids(batch) for batch in texts.batches]

    def ours(metric: str, components: Sequence[str]) -> Candidate:
        sites = [f"blocks.*.{name}" for name in components]
        return Candidate(
            "microtome",
            metric,
            lambda: importance_by_group(model, batches, sites, texts.groups),
            lambda found: {str(site): values for site, values in found.sites.items()},
        )

    def hooks(metric: str, components: Sequence[str]) -> Candidate:
        return Candidate("plain hooks", metric, lambda: plain_importance.importances(texts, components))

    wanted = {"neurons": ("mlp.neurons",), "eight components": COMPONENTS}
    return [way(metric, components) for metric, components in wanted.items() for way in (hooks, ours)]


# -- corpus


def minhash(documents: Planted, scratch: Path) -> list[Candidate]:
    """Keys in memory, and signatures on disk; neither verifies, since datatrove does not."""
    turns = itertools.count()

    def stored() -> np.ndarray:
        return write_signatures(documents.texts, scratch / f"signatures-{next(turns)}").near().first

    return [
        Candidate("microtome", "in memory", lambda: near_duplicates(documents.texts).first),
        Candidate("microtome", "by way of the disk", stored),
    ]


def growth(stage: str, documents: int) -> float:
    """Return by how many MiB a stage of a build's corpus raises a process of its own at most.

    Args:
        stage: one of `corpus_memory.STAGES`.
        documents: of the corpus.
    """
    command = [sys.executable, "-m", "benchmarks.peers.corpus_memory", stage, str(documents)]
    plain_malloc = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, cwd=ROOT, env=plain_malloc, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
