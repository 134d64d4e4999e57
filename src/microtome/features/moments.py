"""Running moments of labelled activations: per class count and mean, and the scatter within classes, in float64.

All that mean-difference, ridge and LDA probes need, whatever the number of rows. Shards merge exactly (Chan et al.
1983): joining two means of one class adds ``n1 n2 / (n1 + n2) * gap gap'`` to the scatter.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError

__all__ = ["ClassMoments", "LabelledRows", "labelled"]


def labelled(
    x: Float[Tensor, "*lead d"], labels: Int[Tensor, "*lead"], classes: int
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Return rows in float64 on the CPU and their labels, checked.

    Args:
        x: activations.
        labels: the class of each, from 0.
        classes: how many there are.

    Raises:
        MeasureError: a value is not finite, a label is out of range, or there is not one label for each row.
    """
    rows = x.detach().reshape(-1, x.shape[-1]).double().cpu()
    y = torch.as_tensor(labels).reshape(-1).long().cpu()
    if len(rows) != len(y):
        raise MeasureError(f"A probe was asked for over {len(rows)} rows, found {len(y)} labels; give one for each.")
    if not rows.isfinite().all():
        raise MeasureError(f"A probe over {len(rows)} rows: {int((~rows.isfinite()).sum())} values are not finite.")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise MeasureError(
            f"A probe of {classes} classes was asked for, found labels {int(y.min())}..{int(y.max())}; "
            f"number them 0-{classes - 1}."
        )
    return rows, y


class LabelledRows:
    """Rows with their classes, kept whole: for fitters that have to see them all at once.

    Args:
        classes: how many classes there are.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self._parts: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: Float[Tensor, "*lead d"], *, labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each, from 0.

        Raises:
            MeasureError: as for `labelled`.
        """
        self._parts.append(labelled(batch, labels, self.classes))

    def joined(self, what: str) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """Return all rows and their classes.

        Args:
            what: what they are for, in the error.

        Raises:
            MeasureError: fewer than two classes have rows.
        """
        x, y = map(torch.cat, zip(*self._parts, strict=True)) if self._parts else (torch.zeros(0, 0), torch.zeros(0))
        if len(y.unique()) < 2:
            raise MeasureError(
                f"{what} of {self.classes} classes was asked for, found {len(y)} rows of {len(y.unique())} classes; "
                "give it rows of at least 2."
            )
        return x, y


class ClassMoments:
    """Counts, means and pooled scatter of classes.

    Args:
        classes: how many classes there are.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.means: Tensor | None = None
        self.within: Tensor | None = None

    def update(self, x: Float[Tensor, "*lead d"], labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each.

        Raises:
            MeasureError: as for `labelled`.
        """
        rows, y = labelled(x, labels, self.classes)
        member = torch.nn.functional.one_hot(y, self.classes).double()
        other = ClassMoments(self.classes)
        other.counts = member.sum(0)
        other.means = member.T @ rows / other.counts.clamp(min=1)[:, None]
        other.within = (rows - other.means[y]).T @ (rows - other.means[y])
        self.merge(other)

    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """Join the moments of another shard and return these."""
        if other.means is None:
            return self
        if self.means is None:
            self.counts, self.means, self.within = other.counts.clone(), other.means.clone(), other.within.clone()
            return self
        total, gap = (self.counts + other.counts).clamp(min=1), other.means - self.means
        self.within += other.within + gap.T @ (gap * (self.counts * other.counts / total)[:, None])
        self.means = self.means + gap * (other.counts / total)[:, None]
        self.counts = self.counts + other.counts
        return self

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean over all rows."""
        return self.counts @ self.means / self.counts.sum()

    @property
    def between(self) -> Float[Tensor, "d d"]:
        """Scatter of the class means about the mean over all rows, each class counted by its rows."""
        gap = self.means - self.mean
        return gap.T @ (gap * self.counts[:, None])

    def check(self) -> None:
        """Raise unless at least two classes and each class have rows.

        Raises:
            MeasureError: they have not.
        """
        empty = [c for c in range(self.classes) if self.counts[c] == 0]
        if self.classes < 2 or empty:
            raise MeasureError(
                f"A probe of {self.classes} classes was asked for, found {int(self.counts.sum())} rows and none of "
                f"classes {empty[:5]}; give each of at least 2 classes some rows."
            )
