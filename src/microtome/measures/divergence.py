"""Clean KL: how far an edit moves next-token distributions on clean text, and what bounds that.

KL(p || p') = log E_p[exp(dz - E_p dz)]       dz = z' - z, the change of the logits, p = softmax(z)
<= (max dz - min dz)^2 / 8        always (Hoeffding's lemma)
~ Var_p(dz) / 2                  for small edits
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import MeasureError

__all__ = ["CleanKL", "Divergence"]


@dataclass(frozen=True)
class Divergence:
    """Divergence of next-token distributions, in nats, means over positions.

    Args:
        kl: KL(before || after).
        bound: of (max dz - min dz)^2 / 8, which is never less.
        second_order: of Var(dz) / 2 under the distribution before; close to `kl` for small edits.
        largest: largest KL of a position.
        positions: how many.
    """

    kl: float
    bound: float
    second_order: float
    largest: float
    positions: int


class CleanKL:
    """Running sums of the divergence at every real token, as a `Measure`."""

    def __init__(self):
        self.sums, self.largest, self.positions = np.zeros(3), 0.0, 0

    def update(self, before: Tensor, *, after: Tensor, mask: Tensor | None = None) -> None:
        """Take in logits of the unedited and of the edited model.

        Args:
            before: [..., vocab].
            after: the same shape.
            mask: which positions count, [...]; None: all.

        Raises:
            MeasureError: logits of other shapes, or that are not finite.
        """
        if before.shape != after.shape:
            raise MeasureError(
                f"Logits {list(before.shape)} before and {list(after.shape)} after an edit differ in shape; run both "
                "on the same batch."
            )
        z, dz = (x if mask is None else x[mask] for x in (before, after.to(before.device)))
        z, dz = z.reshape(-1, z.shape[-1]).double(), dz.reshape(-1, dz.shape[-1]).double()
        if not (z.isfinite().all() and dz.isfinite().all()):
            raise MeasureError(f"Logits at {len(z)} positions hold NaN or infinity; compare finite ones.")
        log_p, dz = z.log_softmax(1), dz - z
        p, spread = log_p.exp(), dz.amax(1) - dz.amin(1)
        dz = dz - (p * dz).sum(1, keepdim=True)
        small = spread < 1  # there log1p keeps the digits that a log of nearly 1 loses
        near = torch.log1p((p * torch.expm1(dz.where(small[:, None], torch.zeros_like(dz)))).sum(1))
        kl = near.where(small, (log_p + dz).logsumexp(1)).clamp_min(0)
        bound, second = spread**2 / 8, (p * dz**2).sum(1) / 2
        self.sums += torch.stack([kl.sum(), bound.sum(), second.sum()]).cpu().numpy()
        self.largest = max(self.largest, float(kl.max())) if len(kl) else self.largest
        self.positions += len(kl)

    def merge(self, other: "CleanKL") -> "CleanKL":
        """Return the sums of both shards together."""
        joined = CleanKL()
        joined.sums, joined.positions = self.sums + other.sums, self.positions + other.positions
        joined.largest = max(self.largest, other.largest)
        return joined

    def finish(self) -> Divergence:
        """Return the means over positions.

        Raises:
            MeasureError: nothing was taken in.
        """
        if not self.positions:
            raise MeasureError("CleanKL has seen no position; update it before finishing.")
        return Divergence(*(self.sums / self.positions).tolist(), self.largest, self.positions)
