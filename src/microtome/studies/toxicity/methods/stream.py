"""Interventions on the residual stream: steering, maps of moments, transport, and ProFS; the setting is the block.

All are fitted at the places where a flagged word comes next, toxic against clean, of the discovery half.
"""

from collections.abc import Callable

from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.edits.affine import match_moments, transport
from microtome.edits.steering import steer
from microtome.edits.subspace import damp_subspace
from microtome.engine.edit import Edit
from microtome.features.profs import profs_basis
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.methods.family import Family, Found, Maker
from microtome.studies.toxicity.subject import Subject

__all__ = ["FAMILIES"]

STREAM = "residual stream"


def _blocks(subject: Subject) -> dict[str, str]:
    return {f"block {i}": f"blocks.{i}.resid_post" for i in subject.layers}


def _steer(subject: Subject, found: Found) -> Family:
    states = {told: (site, *subject.states(site)) for told, site in _blocks(subject).items()}

    def make(setting: tuple[str, Tensor, Tensor], strength: float) -> Arm:
        site, toxic, clean = setting
        return Arm(subject.model, (steer(site, toxic, clean, strength),))

    return Family("steer", "steering by a difference of means", STREAM, states, make, 4.0, source="arXiv 2312.06681")


def _mapped(subject: Subject, name: str, label: str, fit: Callable[[Tensor, Tensor], object], source: str) -> Family:
    """One affine map of the stream, made at strength 1 and blended with what is there."""
    maps = {told: (site, fit(*subject.states(site))) for told, site in _blocks(subject).items()}

    def make(setting: tuple[str, object], strength: float) -> Arm:
        site, whole = setting
        return Arm(subject.model, (Edit(site, type(whole)(whole.factor, whole.offset, strength)),))

    return Family(name, label, STREAM, maps, make, 2.0, source=source)


def _moments(subject: Subject, found: Found) -> Family:
    def fit(toxic: Tensor, clean: Tensor) -> object:
        return match_moments(toxic, clean, covariance=len(toxic) > 2 * toxic.shape[1])

    return _mapped(subject, "moments", "matched moments", fit, "arXiv 2402.09631")


def _transport(subject: Subject, found: Found) -> Family:
    return _mapped(subject, "transport", "Lin-AcT", lambda t, c: transport(t, c, by="quantiles"), "arXiv 2410.23054")


def _profs(subject: Subject, found: Found) -> Family | None:
    """Project what the MLPs of the upper half write; as weights: their value matrices."""
    blocks = range(len(subject.model.anatomy.blocks) // 2, len(subject.model.anatomy.blocks))
    states = {site: subject.states(site) for site in (f"blocks.{i}.mlp.out" for i in blocks)}
    settings = {}
    for k in subject.config.arms.ks:
        try:
            settings[f"{k} directions"] = {site: profs_basis(*pair, k).axes for site, pair in states.items()}
        except MeasureError:  # the differences do not span so many
            break

    def make(axes: dict[str, Tensor], strength: float) -> Arm:
        return Arm(subject.model, tuple(damp_subspace(site, q, 1 - strength) for site, q in axes.items()))

    return Family("profs", "ProFS", STREAM, settings, make, 2.0, source="arXiv 2405.13967") if settings else None


FAMILIES = {
    "steer": Maker(_steer),
    "moments": Maker(_moments),
    "transport": Maker(_transport),
    "profs": Maker(_profs),
}
