"""Interventions at the output head's input: EigenShift and everything that is the same edit with other directions.

    h -> h (I - s Q Q')        s from 0 (nothing) over 1 (projected out) to 2 (turned round)

All are fitted at the places where a flagged word comes next, of the discovery half.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from microtome.core.seeds import derive
from microtome.edits.subspace import damp_subspace, eigenshift
from microtome.engine.edit import Edit, Scale
from microtome.features.free_directions import difference_basis, random_basis, whitened_basis
from microtome.features.head_basis import HeadBasis, head_basis, head_weight
from microtome.features.inlp import InlpFitter
from microtome.features.leace import LeaceFitter
from microtome.measures.head_scores import Contexts, head_scores, vocabulary_scores
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.methods.family import Family, Found, Maker
from microtome.studies.toxicity.subject import Subject

__all__ = ["FAMILIES", "contexts_of", "direction_scores"]

PAPER = "arXiv 2509.16660"
INVARIANT = ("abs", "benefit", "benefit_cost")
TURNED = 2.0  # the strength that turns a direction round


def contexts_of(subject: Subject) -> Contexts:
    """Return hidden states at the head's input, at the toxic and clean places."""
    return Contexts(*subject.states(subject.head))


def direction_scores(subject: Subject, contexts: Contexts, read: Tensor, write: Tensor | None = None) -> dict:
    """Return every score of directions at the head, name -> [directions]."""
    weight = head_weight(subject.model)
    bias = getattr(subject.model.module.get_submodule(subject.model.anatomy.head), "bias", None)
    votes = vocabulary_scores(contexts, weight, subject.flagged, read, write, bias=bias)
    return head_scores(contexts, read) | votes


def _sizes(subject: Subject) -> list[int]:
    return [k for k in subject.config.arms.ks if k < subject.model.anatomy.d_model]


def _chosen(scores: Mapping[str, Tensor], names: Sequence[str], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Return told setting -> the k directions of most score, for each score and k."""
    return {
        f"{name}, {k} directions": torch.sort(scores[name], descending=True, stable=True).indices[:k]
        for name in names
        for k in sizes
    }


def _shift(subject: Subject, name: str, label: str, settings: dict, basis: HeadBasis, **more) -> Family:
    def make(units: Tensor, strength: float) -> Arm:
        return Arm(subject.model, (eigenshift(subject.model, basis, units, 1 - strength),))

    return Family(name, label, "output head", settings, make, TURNED, source=PAPER, **more)


def _eigenshift(subject: Subject, found: Found) -> Family:
    basis = subject.basis
    scores = direction_scores(subject, contexts_of(subject), basis.axes)
    return _shift(subject, "eigenshift", "EigenShift", _chosen(scores, INVARIANT, _sizes(subject)), basis)


def _signed(subject: Subject, found: Found) -> Family:
    basis = subject.basis
    scores = direction_scores(subject, contexts_of(subject), basis.axes)
    settings = _chosen(scores, ("signed",), _sizes(subject))
    return _shift(subject, "eigenshift_signed", "EigenShift, signed as in the paper", settings, basis)


def _code(subject: Subject, found: Found) -> Family:
    basis = head_basis(head_weight(subject.model), centre=False)
    scores = direction_scores(subject, contexts_of(subject), basis.axes)
    settings = _chosen(scores, ("code_axis",), _sizes(subject))
    return _shift(subject, "eigenshift_code", "EigenShift, on the released code's axis", settings, basis)


def _shuffled(subject: Subject, found: Found) -> Family:
    """The same, its scores those of places whose labels were shuffled."""
    contexts = contexts_of(subject)
    rows = torch.cat([contexts.toxic, contexts.clean])
    rng = torch.Generator().manual_seed(derive(subject.config.seed, "shuffled"))
    order, n = torch.randperm(len(rows), generator=rng), len(contexts.toxic)
    basis = subject.basis
    scores = direction_scores(subject, Contexts(rows[order[:n]], rows[order[n:]]), basis.axes)
    settings = _chosen(scores, ("abs",), _sizes(subject))
    return _shift(subject, "shuffled", "EigenShift, labels shuffled", settings, basis, control=True)


def _span(subject: Subject, name: str, label: str, settings: Mapping[str, Tensor], **more) -> Family:
    def make(axes: Tensor, strength: float) -> Arm:
        return Arm(subject.model, (damp_subspace(subject.head, axes, 1 - strength),))

    return Family(name, label, "output head", settings, make, TURNED, **more)


def _difference(subject: Subject, found: Found) -> Family:
    axes = difference_basis(*subject.states(subject.head)).axes
    return _span(subject, "difference", "difference of means at the head", {"1 direction": axes})


def _random(subject: Subject, found: Found) -> Family:
    width = subject.model.anatomy.d_model
    settings = {
        f"{k} directions, draw {i}": random_basis(width, k, derive(subject.config.seed, "subspace", k, i)).axes
        for k in _sizes(subject)
        for i in range(subject.config.arms.random)
    }
    return _span(subject, "random", "random directions at the head", settings, control=True)


def _inlp(subject: Subject, found: Found) -> Family:
    toxic, clean = subject.states(subject.head)
    settings = {}
    for rounds in _sizes(subject):
        fitter = InlpFitter(2, rounds=rounds)
        fitter.update(torch.cat([toxic, clean]), labels=torch.tensor([1] * len(toxic) + [0] * len(clean)))
        axes = fitter.finish().axes
        settings[f"{axes.shape[1]} directions"] = axes
    return _span(subject, "inlp", "INLP at the head", settings, source="arXiv 2004.07667")


def _erased(subject: Subject, name: str, label: str, settings: Mapping[str, tuple], source: str) -> Family:
    """Oblique projections: (basis, its units or None)."""

    def make(chosen: tuple, strength: float) -> Arm:
        basis, units = chosen
        return Arm(subject.model, (Edit(subject.head, Scale(1 - strength), units=units, basis=basis),))

    return Family(name, label, "output head", settings, make, TURNED, source=source)


def _leace(subject: Subject, found: Found) -> Family:
    toxic, clean = subject.states(subject.head)
    fitter = LeaceFitter(2)
    fitter.update(torch.cat([toxic, clean]), labels=torch.tensor([1] * len(toxic) + [0] * len(clean)))
    return _erased(subject, "leace", "LEACE at the head", {"1 direction": (fitter.finish(), None)}, "arXiv 2306.03819")


def _whitened(subject: Subject, found: Found) -> Family:
    contexts = contexts_of(subject)
    covariance = torch.cat([contexts.toxic, contexts.clean]).T.cov()
    basis = whitened_basis(subject.basis, covariance, shrinkage=0.1)
    scores = direction_scores(subject, contexts, basis.read, basis.write)
    settings = {told: (basis, units) for told, units in _chosen(scores, ("benefit",), _sizes(subject)).items()}
    return _erased(subject, "whitened", "EigenShift in a whitened basis", settings, "ours")


FAMILIES = {
    "eigenshift": Maker(_eigenshift),
    "eigenshift_signed": Maker(_signed),
    "eigenshift_code": Maker(_code, default=False),
    "whitened": Maker(_whitened),
    "difference": Maker(_difference),
    "inlp": Maker(_inlp),
    "leace": Maker(_leace),
    "random": Maker(_random, control=True),
    "shuffled": Maker(_shuffled, control=True),
}
