"""Ours. The plain ways are timed here too, in one process with ours; they are the rows "plain hooks".

`capture` into a store computes no logits, so it stands under both disk metrics.
"""

import shutil

import torch
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.peers import plain
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work
from microtome.core.site import Site
from microtome.engine import Edit, From, run, sweep
from microtome.engine.gradients import gradients
from microtome.engine.store import ActivationStore
from microtome.engine.store import capture as capture_to_disk
from microtome.measures.attribution import attribution_patching, integrated_gradients
from microtome.measures.outputs import LogitDiff
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["attribution", "capture", "head_sweep", "residual_sweep"]

SITES = ["blocks.*.mlp.neurons", "blocks.*.resid_post"]


def _loaded(work: Work, *inputs: Tensor) -> tuple[Model, list[Batch]]:
    model = Model.load(work.copied_model(), device=work.device)
    return model, [model.batch_ids(ids.tolist()) for ids in inputs]


# -- capture


def capture(work: Work) -> list[Candidate]:
    """run with reads, with logits and without; capture into a store on disk."""
    model, batches = _loaded(work, *work.batches)
    folder = work.scratch / "store"

    def kept(logits: str) -> list[dict[Site, Tensor]]:
        return [run(model, batch, read=SITES, logits=logits).activations for batch in batches]

    def stored() -> ActivationStore:
        shutil.rmtree(folder, ignore_errors=True)
        return capture_to_disk(model, batches, SITES, folder)

    def disk(metric: str, note: str = "") -> Candidate:
        return Candidate("microtome", metric, stored, lambda s: _read_back(s, work), rounding=2**-8, note=note)

    return [
        Candidate("microtome", "memory", lambda: kept("all"), _joined),
        Candidate("microtome", "memory, no logits", lambda: kept("none"), _joined),
        disk("disk", "capture() never computes logits"),
        disk("disk, no logits"),
        *plain.capture(work),
    ]


def _joined(batches: list[dict[Site, Tensor]]) -> dict[str, Tensor]:
    return plain.joined([{_name(site): x for site, x in batch.items()} for batch in batches])


def _name(site: Site) -> str:
    return f"{'neurons' if site.kind == 'mlp.neurons' else 'resid'}.{site.block}"


def _read_back(store: ActivationStore, work: Work) -> dict[str, Tensor]:
    shape = (-1, work.batches[0].shape[1])
    return {_name(site): torch.cat(list(store.stream(site))).unflatten(0, shape) for site in store.sites}


# -- patching grids


def residual_sweep(work: Work) -> list[Candidate]:
    """The whole grid as one sweep."""
    places = [(f"blocks.{i}.resid_pre", {"positions": p}) for i in range(BLOCKS) for p in range(POSITIONS)]
    return [_sweep(work, "blocks.*.resid_pre", places)]


def head_sweep(work: Work) -> list[Candidate]:
    """The whole grid as one sweep."""
    places = [(f"blocks.{i}.attn.heads", {"units": [h]}) for i in range(BLOCKS) for h in range(HEADS)]
    return [_sweep(work, "blocks.*.attn.heads", places)]


def _sweep(work: Work, sites: str, places: list[tuple[str, dict]]) -> Candidate:
    model, (clean, corrupt) = _loaded(work, work.clean, work.corrupt)
    metric = LogitDiff(work.right, work.wrong)

    def grid() -> Tensor:
        source = run(model, clean, read=sites, logits="none")
        cells = [Edit(site, From(source[site]), **where) for site, where in places]
        return sweep(model, corrupt, cells, metric).effects.unflatten(0, (BLOCKS, -1))

    return Candidate("microtome", "grid", grid, lambda effects: {"effects": effects})


# -- attribution


def attribution(work: Work) -> list[Candidate]:
    """run and gradients for scores at each position; the packaged estimates, which sum over positions."""
    model, (clean, corrupt) = _loaded(work, work.clean, work.corrupt)
    metric, neurons = LogitDiff(work.right, work.wrong), SITES[0]

    def each_position() -> dict[str, Tensor]:
        source = run(model, clean, read=neurons, logits="none")
        here = gradients(model, corrupt, neurons, metric)
        return {s: (source[s] - here.values[s]) * here.grads[s] for s in here.values}

    def summed() -> dict[str, Tensor]:
        return attribution_patching(model, clean, corrupt, neurons, metric)

    def integrated(at_once: int) -> dict[str, Tensor]:
        return integrated_gradients(model, clean, corrupt, neurons, metric, steps=plain.STEPS, points_per_pass=at_once)

    points = f"EAP-IG, {plain.STEPS} points"
    return [
        Candidate("microtome, run and gradients", "each position", each_position, _by_layer),
        Candidate("microtome, attribution_patching", "summed over positions", summed, _by_layer),
        Candidate("microtome, integrated_gradients", points, lambda: integrated(plain.STEPS), _by_layer),
        Candidate("the same a point at a time", points, lambda: integrated(1), _by_layer),
        *plain.attribution(work),
    ]


def _by_layer(scores: dict) -> dict[str, Tensor]:
    return {_name(site): x for site, x in scores.items()}
