"""Ours: `areas` and `screen`, `head_basis`, `generate` under `eigenshift`; what the libraries offer stands beside."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.peers import libraries, plain_toxicity
from benchmarks.peers.plain_toxicity import Screened
from benchmarks.workload import Work
from microtome.edits.subspace import eigenshift
from microtome.engine.generate import generate
from microtome.features.head_basis import head_basis as factorised
from microtome.features.head_basis import head_weight
from microtome.measures.placements import areas, layout
from microtome.measures.screening import Screen, screen
from microtome.models.model import Model

__all__ = ["auroc", "edit_overhead", "head_basis"]


def auroc(texts: Screened) -> list[Candidate]:
    """Areas over all texts, areas within lengths, and everything that a screening says."""
    plain, within = layout(texts.labels), layout(texts.labels, strata=texts.lengths)

    def some(metric: str, **found: np.ndarray) -> dict[str, Tensor]:
        return {name: torch.from_numpy(x[texts.some(libraries.SAMPLES[metric])]) for name, x in found.items()}

    def told(found: Screen) -> dict[str, Tensor]:
        own = {"areas": found.unadjusted.area, "within": found.ranking.area, "precision": found.precision}
        return some("screen", **own)

    return [
        *libraries.auroc(texts),
        *(
            Candidate(
                "microtome", metric, lambda d=design: areas(texts.values, d), lambda x, m=metric: some(m, areas=x)
            )
            for metric, design in (("areas", plain), ("areas within lengths", within))
        ),
        Candidate("microtome", "screen", lambda: screen(texts.values, texts.labels, lengths=texts.lengths), told),
    ]


def head_basis(weight: Tensor) -> list[Candidate]:
    """The factorisation, rows not centred, nothing cached."""
    own = Candidate("microtome", "axes", lambda: factorised(weight, centre=False), lambda found: {"axes": found.axes})
    return [*libraries.head_basis(weight), own]


def edit_overhead(work: Work, axes: Tensor) -> list[Candidate]:
    """EigenShift by our own factors, the same edit with a = 1, and plain hooks."""
    model = Model.load(work.copied_model(), device=work.device)
    batch = model.batch_ids(work.clean.tolist())
    basis = factorised(head_weight(model), centre=False)
    units = plain_toxicity.quarter(basis.width)

    def speaks(a: float, name: str, metric: str) -> Candidate:
        edit = eigenshift(model, basis, units, a)
        return Candidate(name, metric, lambda: generate(model, batch, work.size.new, edits=[edit]))

    return [
        speaks(0.0, "microtome", "eigenshift"),
        speaks(1.0, "microtome, a = 1", "identity edit"),
        Candidate("plain hooks", "eigenshift", lambda: plain_toxicity.spoken(work, axes)),
    ]
