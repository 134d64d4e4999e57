"""Interventions that are trained: DPO on pairs of texts, and LinEAS, one affine map at every block trained together."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import torch

from microtome.core.seeds import derive, generator
from microtome.edits.activation_transport import fit_transport
from microtome.edits.affine import Affine
from microtome.engine.edit import Edit
from microtome.models.model import Model
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.methods.family import Family, Found, Maker
from microtome.studies.toxicity.subject import Places, Subject
from microtome.training.tuning import Preference, blended, preferred

__all__ = ["FAMILIES"]


def _dpo(subject: Subject, found: Found) -> Family:
    """Before each flagged word, what the model would say instead is preferred to it."""
    config = subject.config
    tuned = preferred(
        subject.model,
        _preferences(subject, subject.places["discovery"]),
        steps=config.arms.tune_steps,
        seed=derive(config.seed, "dpo"),
    )

    @lru_cache(maxsize=1)  # one copy at a time, however large the model
    def at(strength: float) -> Model:
        return blended(subject.model, tuned, strength)

    def make(_: object, strength: float) -> Arm:
        return Arm(subject.model, weights=partial(at, strength) if strength else None)

    settings = {f"{config.arms.tune_steps} steps": None}
    return Family("dpo", "DPO", "decoding or weights", settings, make, 1.5, source="arXiv 2401.01967")


def _preferences(subject: Subject, places: Places) -> list[Preference]:
    """Return a pair for each place: a token drawn from the model's own distribution without flagged words, the word."""
    rng = torch.Generator().manual_seed(derive(subject.config.seed, "preferences"))
    pairs = []
    rows = list(zip(places.toxic, places.words, strict=True))
    for batch, part in zip(subject.batches(places.toxic), _parts(rows, subject.config.batch), strict=True):
        p = Arm(subject.model).logits(batch, last=True)[:, -1].double().cpu().softmax(-1)
        p[:, subject.flagged] = 0
        said = torch.multinomial(p, 1, generator=rng)[:, 0].tolist()
        pairs += [Preference(list(row), [s], [word]) for (row, word), s in zip(part, said, strict=True)]
    order = generator(subject.config.seed, "preference order").permutation(len(pairs))
    return [pairs[i] for i in order]


def _parts(rows: Sequence, size: int) -> list[Sequence]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _lineas(subject: Subject, found: Found) -> Family:
    places, config = subject.places["discovery"], subject.config
    sites = [f"blocks.{i}.resid_post" for i in range(len(subject.model.anatomy.blocks))]
    settings = {
        told: fit_transport(
            subject.model,
            sites,
            places.toxic,
            places.clean,
            steps=config.arms.tune_steps,
            seed=derive(config.seed, "lineas"),
            **knobs,
        )
        for told, knobs in (("rate 0.03", {"lr": 0.03}), ("sparse, penalty 0.2", {"penalty": 0.2}))
    }

    def make(maps: dict[str, Affine], strength: float) -> Arm:
        return Arm(subject.model, tuple(Edit(s, replace(m, strength=strength)) for s, m in maps.items()))

    return Family("lineas", "LinEAS", "residual stream", settings, make, 2.0, source="arXiv 2503.10679")


FAMILIES = {"dpo": Maker(_dpo, needs="trl"), "lineas": Maker(_lineas)}
