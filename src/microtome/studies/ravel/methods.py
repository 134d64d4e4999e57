"""The methods under comparison, by name: what each is called, what it is told, and what it swaps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from microtome.core.protocols import Featurizer
from microtome.training.evaluate import Arm

__all__ = ["CONTROLS", "LABELS", "METHODS", "Candidate", "Method"]


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        label: its name in the report.
        told: the supervision it takes: none, the attribute's value of each entity, or counterfactual answers.
        swaps: what it swaps, in words.
    """

    label: str
    told: str
    swaps: str


METHODS = {
    "pca": Method("PCA", "values", "principal components that a sparse probe of the attribute uses"),
    "sae": Method("SAE", "values", "autoencoder features that a sparse probe of the attribute uses"),
    "mean_difference": Method("mean difference", "values", "span of the differences between class means"),
    "lda": Method("LDA", "values", "span of the discriminant directions"),
    "logistic": Method("logistic probe", "values", "span of a logistic readout"),
    "rlap": Method("RLAP", "values", "subspace whose removal leaves a linear probe least"),
    "dbm": Method("DBM", "cause", "coordinates chosen by a mask that brings the source's answer"),
    "mdbm": Method("MDBM", "cause and isolate", "the same, and leaves the other answers"),
    "das": Method("DAS", "cause", "subspace rotated to bring the source's answer"),
    "mdas": Method("MDAS", "cause and isolate", "the same, and to leave the other answers"),
    "joint": Method("joint MDAS", "cause and isolate", "one rotation, a disjoint block for each attribute"),
}

CONTROLS = {
    "empty": Method("swap nothing", "control", "nothing"),
    "full": Method("full representation", "control", "the whole activation"),
    "random": Method("random subspace", "control", "a random subspace of MDAS's rank"),
    "complement": Method("all but MDAS", "control", "the orthogonal complement of MDAS's subspace"),
    "shuffled": Method("MDAS, shuffled sources", "control", "MDAS fitted on pairs whose sources are shuffled"),
    "majority": Method("commonest answer", "control", "no model: the commonest training answer is always given"),
    "untrained": Method("MDAS, untrained model", "control", "MDAS in an untrained network, on its own answers"),
}

LABELS = {name: method.label for name, method in (METHODS | CONTROLS).items()}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to swap one attribute.

    Attributes:
        method: one of `METHODS` or `CONTROLS`.
        target: the attribute it swaps.
        setting: what was set, e.g. `rank 16`; empty where nothing was.
        basis: name of the basis, or empty for the coordinates themselves.
        units: which of its features; None for all.
        size: how many features or dimensions.
    """

    method: str
    target: str
    setting: str
    basis: str
    units: tuple[int, ...] | None
    size: int

    def arm(self, bases: Mapping[str, Featurizer]) -> Arm:
        """Return what is put in."""
        units = None if self.units is None else torch.tensor(self.units, dtype=torch.long)
        return Arm(bases[self.basis] if self.basis else None, units)

    def row(self) -> dict[str, object]:
        """Return it as a row of a table."""
        return {**vars(self), "units": None if self.units is None else list(self.units)}

    @classmethod
    def of(cls, row: dict) -> "Candidate":
        """Return the candidate that a row stands for."""
        names = ("method", "target", "setting", "basis", "size")
        units = row["units"]
        return cls(**{n: row[n] for n in names}, units=None if units is None else tuple(units))
