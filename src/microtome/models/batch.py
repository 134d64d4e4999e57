"""Batch: the inputs of one forward pass, left-padded, with explicit positions so that padding changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from microtome.core.errors import DataError

__all__ = ["Batch", "pad_left"]


@dataclass(frozen=True)
class Batch:
    """Inputs of a forward pass.

    Attributes:
        inputs: keyword arguments of the model's forward; every tensor has the batch axis first.
        mask: True at real tokens, [batch, seq]; None for inputs without a sequence (images).
    """

    inputs: dict[str, Tensor]
    mask: Bool[Tensor, "batch seq"] | None = None

    def __len__(self) -> int:
        return next(iter(self.inputs.values())).shape[0]

    @property
    def seq(self) -> int:
        """Length of the (padded) sequence; 0 for inputs without one."""
        return 0 if self.mask is None else self.mask.shape[1]

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """Position of the last real token of each row."""
        if self.mask is None:
            raise DataError("This batch has no sequence axis (images?), so no last position; use positions=None.")
        steps = torch.arange(self.seq, device=self.mask.device)
        return (self.mask * steps).amax(1)

    def select(self, rows: Sequence[int] | Tensor | slice) -> "Batch":
        """Return the batch of the chosen rows."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows, device=next(iter(self.inputs.values())).device)
        return Batch({k: v[rows] for k, v in self.inputs.items()}, None if self.mask is None else self.mask[rows])

    def repeat(self, times: int) -> "Batch":
        """Return the batch repeated whole, `times` times, along the batch axis."""
        again = {k: v.repeat(times, *[1] * (v.ndim - 1)) for k, v in self.inputs.items()}
        return Batch(again, None if self.mask is None else self.mask.repeat(times, 1))

    def split(self, size: int) -> list["Batch"]:
        """Return consecutive batches of at most `size` rows."""
        return [self.select(slice(i, i + size)) for i in range(0, len(self), size)]


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return (ids [batch, seq], mask [batch, seq]) with the rows aligned at their ends, 0 before them.

    Raises:
        DataError: no rows, or an empty row.
    """
    if len(rows) == 0 or any(len(r) == 0 for r in rows):
        empty = next((i for i, r in enumerate(rows) if len(r) == 0), None)
        found = "none" if empty is None else f"row {empty} with no tokens"
        raise DataError(f"A batch needs at least one non-empty prompt, found {found}; drop empty prompts first.")
    seq = max(map(len, rows))
    ids = torch.zeros((len(rows), seq), dtype=torch.long)
    mask = torch.zeros((len(rows), seq), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, seq - len(row) :] = torch.as_tensor(row)
        mask[i, seq - len(row) :] = True
    return ids, mask
