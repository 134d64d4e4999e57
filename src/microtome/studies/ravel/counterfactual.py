"""Featurizers from counterfactual answers: DAS, MDAS, joint MDAS, DBM, MDBM, and MDAS on shuffled sources.

All attributes, ranks and methods at a site go through the blocks above it together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from microtome.core.protocols import Featurizer
from microtome.core.seeds import derive
from microtome.records import Told
from microtome.studies.ravel.config import Fitting
from microtome.studies.ravel.methods import Candidate
from microtome.studies.ravel.sides import Side
from microtome.training.interchange import MaskFit, RotationFit, Schedule, fit_interchange
from microtome.training.swaps import Swaps

__all__ = ["fit_all", "layer_fits", "mdas_of", "shuffled"]

Fits = dict[tuple[str, str, str], RotationFit | MaskFit]  # (method, target, setting) -> fit
KINDS = {"das": ("cause",), "dbm": ("cause",), "mdas": ("cause", "isolate"), "mdbm": ("cause", "isolate")}


def fit_all(
    side: Side, swaps: Sequence[Swaps], targets: Sequence[str], fitting: Fitting, width: int, *, seed: int, told: Told
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return the candidates of every method that learns from answers, and the bases they name.

    Args:
        side: the training pairs.
        swaps: them, recorded at the site.
        targets: the attributes.
        fitting: settings to choose from.
        width: of the site.
        seed: of first rotations and of the order of pairs.
        told: called with the share done.
    """
    turning: Fits = {}
    for rank in (r for r in fitting.ranks if r <= width):
        turning |= _rotations(side, swaps, dict.fromkeys(targets, rank), seed)
    joint = _joint(side, swaps, targets, [r for r in fitting.ranks if r * len(targets) <= width], seed)
    masking = _masks(side, swaps, targets, fitting.penalties, seed)
    made, bases = _fitted(turning | joint, _schedule(fitting, fitting.lr), lambda x: told(0.7 * x))
    more, others = _fitted(masking, _schedule(fitting, fitting.mask_lr), lambda x: told(0.7 + 0.3 * x))
    return [c for c in made if c.method != "joint"] + _shared_out(made, targets) + more, bases | others


def _rotations(
    side: Side, swaps: Sequence[Swaps], ranks: Mapping[str, int], seed: int, methods: Sequence[str] = ("das", "mdas")
) -> Fits:
    """Return the DAS and MDAS fits of every target, each at its rank."""
    made: Fits = {}
    for target, rank in ranks.items():
        for method in methods:
            train = side.wanted(swaps, target, kinds=KINDS[method])
            made[method, target, f"rank {rank}"] = RotationFit(train, rank, seed=derive(seed, "rotation", target))
    return made


def layer_fits(
    side: Side, by_site: Mapping[str, Sequence[Swaps]], targets: Sequence[str], rank: int, fitting: Fitting,
    *, seed: int, told: Told,
) -> tuple[list[Candidate], dict[str, Featurizer]]:  # fmt: skip
    """Return DAS and MDAS of one rank at several sites, fitted together; the setting names the site."""
    made: Fits = {}
    for site, swaps in by_site.items():
        found = _rotations(side, swaps, dict.fromkeys(targets, rank), seed)
        made |= {(method, target, site): fit for (method, target, _), fit in found.items()}
    schedule = replace(_schedule(fitting, fitting.lr), epochs=fitting.layer_epochs)
    return _fitted(made, schedule, told)


def mdas_of(
    side: Side, swaps: Sequence[Swaps], ranks: Mapping[str, int], fitting: Fitting, *, seed: int, told: Told
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return MDAS alone, each target at its own rank.

    Args:
        side: the training pairs.
        swaps: them, recorded at the site.
        ranks: target -> rank.
        fitting: how to fit.
        seed: of the fits.
        told: called with the share done.
    """
    return _fitted(_rotations(side, swaps, ranks, seed, ("mdas",)), _schedule(fitting, fitting.lr), told)


def shuffled(
    side: Side, swaps: Sequence[Swaps], ranks: Mapping[str, int], fitting: Fitting, *, seed: int, told: Told
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return MDAS fitted where each base got the source of another pair: what it finds without anything to find.

    Args: as of `mdas_of`; the seed is also of the shuffle.
    """
    made: Fits = {}
    for (_, target, setting), fit in _rotations(side, swaps, ranks, seed, ("mdas",)).items():
        draw = torch.Generator().manual_seed(derive(seed, "shuffled sources", target))
        mixed = [
            replace(s, source=s.source[torch.randperm(len(s), generator=draw).to(s.source.device)]) for s in fit.train
        ]
        made["shuffled", target, setting] = replace(fit, train=mixed)
    return _fitted(made, _schedule(fitting, fitting.lr), told)


def _schedule(fitting: Fitting, lr: float) -> Schedule:
    return Schedule(epochs=fitting.epochs, batch=fitting.batch, lr=lr, rows_at_once=fitting.rows_at_once)


def _joint(side: Side, swaps: Sequence[Swaps], targets: Sequence[str], ranks: Sequence[int], seed: int) -> Fits:
    """One rotation with a block of the same rank for every target; each pair stands once under every target."""
    train = [s for k, target in enumerate(targets) for s in side.wanted(swaps, target, block=k)]
    start = derive(seed, "rotation", "joint")
    return {("joint", "", f"rank {r}"): RotationFit(train, dict.fromkeys(targets, r), seed=start) for r in ranks}


def _masks(side: Side, swaps: Sequence[Swaps], targets: Sequence[str], penalties: Sequence[float], seed: int) -> Fits:
    made: Fits = {}
    for penalty in penalties:
        for target in targets:
            for method in ("dbm", "mdbm"):
                train = side.wanted(swaps, target, kinds=KINDS[method])
                fit = MaskFit(train, penalty, seed=derive(seed, "mask", target))
                made[method, target, f"penalty {penalty:g}"] = fit
    return made


def _fitted(fits: Fits, schedule: Schedule, told: Told) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Fit them together and return each as a candidate with its basis."""
    found = fit_interchange(list(fits.values()), schedule, progress=lambda done, total, _line: told(done / total))
    made, bases = [], {}
    for (method, target, setting), fitted in zip(fits, found, strict=True):
        name = "-".join(filter(None, (method, setting.replace(" ", ""), target.replace(" ", "_"))))
        bases[name] = fitted.basis
        made.append(Candidate(method, target, setting, name, None, fitted.basis.n_features))
    return made, bases


def _shared_out(made: Sequence[Candidate], targets: Sequence[str]) -> list[Candidate]:
    """Return a joint rotation as one candidate for each target: its own block."""
    blocks = []
    for joint in (c for c in made if c.method == "joint"):
        size = joint.size // len(targets)
        for k, target in enumerate(targets):
            units = tuple(range(k * size, (k + 1) * size))
            blocks.append(replace(joint, target=target, units=units, size=size))
    return blocks
