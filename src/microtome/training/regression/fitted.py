"""Regressors that were fitted together: their weights, how they got there, and what they predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import ModelError
from microtome.core.seeds import derive
from microtome.training.regression.network import EmbeddingRegressor, Shape
from microtome.training.regression.stacked import Stacked

__all__ = ["Fitted", "untrained"]

_ROWS = 1 << 15


@dataclass(frozen=True)
class Judged:
    """What one evaluation found.

    Attributes:
        epoch: passes over the training rows so far.
        seed: whose.
        train: root mean squared error over the batches since the last evaluation, standardised, weighted.
        held: the same on the held-out rows; None where there are none.
    """

    epoch: int
    seed: int
    train: float
    held: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """Regressors of one shape, one for each seed.

    Attributes:
        shape: of all of them.
        seeds: one each.
        weights: parameters, a row for each seed (`stacked`).
        epoch: how many passes each had seen when its weights were kept.
        history: every evaluation.
        snapshots: epoch -> parameters of the tables of Z and N, "z" and "n" [seed, rows, embedding].
    """

    shape: Shape
    seeds: tuple[int, ...]
    weights: Float[Tensor, "seed parameter"]
    epoch: tuple[int, ...]
    history: tuple[Judged, ...] = ()
    snapshots: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def module(self, place: int) -> EmbeddingRegressor:
        """Return one of them as a module, in evaluation mode.

        Args:
            place: which, from 0.

        Raises:
            ModelError: there are not so many.
        """
        if not 0 <= place < len(self.seeds):
            raise ModelError(
                f"Regressor {place} was asked for; {len(self.seeds)} were fitted: give 0 or more below it."
            )
        module = EmbeddingRegressor(self.shape)
        parts = Stacked(EmbeddingRegressor(self.shape)).parts(self.weights[place : place + 1])
        module.load_state_dict({name: part[0] for name, part in parts.items()})
        return module.eval()

    def predict(
        self, z: Sequence[int] | np.ndarray, n: Sequence[int] | np.ndarray, task: int = 0
    ) -> Float[np.ndarray, "seed row"]:
        """Return every seed's standardised prediction of a task.

        Args:
            z: protons.
            n: neutrons.
            task: which column.

        Raises:
            ModelError: a nucleus beyond the tables.
        """
        z, n = (torch.as_tensor(np.asarray(x), dtype=torch.int64).reshape(-1) for x in (z, n))
        for name, asked, rows in (("Z", z, self.shape.protons), ("N", n, self.shape.neutrons)):
            if len(asked) and not 0 <= int(asked.min()) <= int(asked.max()) < rows:
                raise ModelError(
                    f"{name} = {int(asked.max() if asked.max() >= rows else asked.min())} was asked for; this model's "
                    f"table of {name} has 0 to {rows - 1}: ask within it."
                )
        forward = Stacked(EmbeddingRegressor(self.shape))
        found = []
        with torch.no_grad():
            for some in torch.arange(len(z)).split(_ROWS):
                found.append(forward(self.weights, z[some], n[some], torch.full_like(some, task)))
        return torch.cat(found, 1).double().numpy()


def untrained(shape: Shape, seeds: Sequence[int]) -> Fitted:
    """Return regressors as they are before any training, the same that `fit_seeds` starts from.

    Args:
        shape: of all of them.
        seeds: one each.
    """
    rows = [Stacked(EmbeddingRegressor(shape)).row(begun(shape, seed)) for seed in seeds]
    return Fitted(shape, tuple(seeds), torch.stack(rows), (0,) * len(seeds))


def begun(shape: Shape, seed: int) -> EmbeddingRegressor:
    """Return the network a seed begins with."""
    return EmbeddingRegressor(shape, torch.Generator().manual_seed(derive(seed, "regressor")))
