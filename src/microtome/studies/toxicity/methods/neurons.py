"""Interventions on single neurons: AurA, Det-0 and Damp by detection, and Det-0 by generation.

AurA's strength goes from 0 (nothing) over 1 (its own factors) to 8, at which neurons with areas above 9/16 are off. For
the others it counts neurons: by the released code's default all that detect are zeroed or halved, which ruins a model;
here as many as the damage allows.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from microtome.core.seeds import generator
from microtome.core.units import Units
from microtome.edits.experts import aura_factor, damp, det_zero, experts
from microtome.engine.edit import Edit, Scale
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.methods.family import Family, Found, Maker
from microtome.studies.toxicity.subject import Subject

__all__ = ["FAMILIES"]

AURA = "arXiv 2407.12824"
CHANCE = 0.5


def _aura(subject: Subject, found: Found) -> Family:
    def make(_: object, strength: float) -> Arm:
        factors = {s: np.maximum(1 - strength * (1 - aura_factor(a)), 0.0) for s, a in found.areas.items()}
        return Arm(subject.model, tuple(Edit(s, Scale(torch.from_numpy(f))) for s, f in factors.items()))

    return Family("aura", "AurA", "neurons", {"all neurons": None}, make, 8.0, source=AURA)


def _counted(
    subject: Subject,
    name: str,
    label: str,
    settings: Mapping[str, Mapping[str, np.ndarray]],
    act: Callable[[Units], list[Edit]],
    least: float,
    **more,
) -> Family:
    """Edit the k neurons of most score, k being the strength; settings are scores, all above `least` may be edited."""
    most = min(sum(int((s > least).sum()) for s in scores.values()) for scores in settings.values())

    def make(scores: Mapping[str, np.ndarray], strength: float) -> Arm:
        k = round(strength)
        return Arm(subject.model, tuple(act(experts(scores, k))) if k else ())

    return Family(name, label, "neurons", settings, make, float(max(most, 1)), whole=True, **more)


def _det_zero(subject: Subject, found: Found) -> Family:
    return _counted(subject, "det_zero", "Det-0", {"by AUROC": found.areas}, det_zero, CHANCE, source=AURA)


def _damp(subject: Subject, found: Found) -> Family:
    return _counted(subject, "damp", "Damp (one half)", {"by AUROC": found.areas}, damp, CHANCE, source=AURA)


def _writers(subject: Subject, found: Found) -> Family:
    settings = {"by generation": found.writes}
    return _counted(subject, "writers", "neurons that generate, set to 0", settings, det_zero, 0.0, source="ours")


def _random(subject: Subject, found: Found) -> Family:
    draws = range(subject.config.arms.random)
    rngs = {f"draw {i}": generator(subject.config.seed, "random neurons", i) for i in draws}
    settings = {told: {s: rng.random(len(a)) for s, a in found.areas.items()} for told, rng in rngs.items()}
    return _counted(subject, "random_neurons", "random neurons, set to 0", settings, det_zero, 0.0, control=True)


FAMILIES = {
    "aura": Maker(_aura),
    "det_zero": Maker(_det_zero),
    "damp": Maker(_damp),
    "writers": Maker(_writers),
    "random_neurons": Maker(_random, control=True),
}
