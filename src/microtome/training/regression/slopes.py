"""The gradient of every seed's loss, written down.

    loss_s = sum over the rows of seed s of w (prediction - value)^2 / sum of w

Autograd of so small a network is mostly its own book-keeping: views of the weight matrix, nodes, sums of parts. Written
down for `network.EmbeddingRegressor`, with the kernels that autograd calls, it takes two thirds of the time, and each
part is written where it belongs in the matrix.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.training.regression.network import Shape
from microtome.training.regression.stacked import Stacked

__all__ = ["Slopes"]

Rows = Int[Tensor, "seed row"]

_aten = torch.ops.aten
_TABLES = ("z", "n", "task")


class _Kept(NamedTuple):
    """What the way back needs of the way there; h enters each block, a and c leave its two ReLUs."""

    mixed: Tensor
    h: list[Tensor]
    a: list[Tensor]
    c: list[Tensor]


class Slopes:
    """Gradients of seeds whose weights change in place.

    Args:
        stacked: of an `EmbeddingRegressor`; says where parameters lie in `weights`.
        weights: of every seed.

    Attributes:
        gradient: d loss / d weights, of the last batch.
    """

    def __init__(self, stacked: Stacked, weights: Float[Tensor, "seed parameter"]):
        self.shape, self.gradient = stacked.module.shape, torch.zeros_like(weights)
        self._p, self._g = stacked.parts(weights), stacked.parts(self.gradient)

    def places(self, z: Rows, n: Rows, task: Rows) -> tuple[Rows, Rows, Rows]:
        """Return where each row's entries lie in the tables of all seeds, one after another."""
        seeds = torch.arange(len(self.gradient), device=z.device)[:, None]
        tables = (self._p[f"{name}.weight"].shape[1] for name in _TABLES)
        z, n, task = (index + seeds * entries for index, entries in zip((z, n, task), tables, strict=True))
        return z, n, task

    @torch.no_grad()
    def __call__(
        self,
        places: tuple[Rows, Rows, Rows],
        value: Float[Tensor, "seed row"],
        weight: Float[Tensor, "seed row"],
    ) -> Float[Tensor, "seed"]:
        """Find the gradient of a batch; return the weighted sum of squared errors.

        Args:
            places: of Z, N and task of each row.
            value: standardised targets.
            weight: of each row in the loss.
        """
        shape = self.shape
        kept, scale, task = _there(self._p, shape, places), shape.base / shape.width, None
        outputs = _affine(self._p, "readout", kept.h[-1]) * scale
        if shape.tasks > 1:
            task = (places[2] % shape.tasks)[..., None]
        error = (outputs if task is None else outputs.gather(-1, task))[..., 0] - value

        weighted = error * weight
        slope = (weighted * (2 * scale / weight.sum(1, keepdim=True)))[..., None]
        if task is not None:
            slope = torch.zeros_like(outputs).scatter_(-1, task, slope)
        self.gradient.zero_()
        _back(self._p, self._g, shape, places, kept, slope)
        return (weighted * error).sum(1)


def _there(p: Mapping[str, Tensor], shape: Shape, places: tuple[Rows, Rows, Rows]) -> _Kept:
    """The forward pass of `network.EmbeddingRegressor`, of all seeds."""
    mixed = None
    for k, name in enumerate(_TABLES):
        mapped = _shared(p[f"{name}.weight"] @ p[_map_of(k, shape)].mT, shape)
        one = name == "task" and shape.tasks == 1
        looked = mapped if one else F.embedding(places[k], mapped.flatten(0, 1))
        mixed = looked if mixed is None else mixed + looked
    mixed = mixed + p["offset"][:, None]
    kept = _Kept(mixed, [F.silu(mixed)], [], [])
    for k in range(shape.blocks):
        kept.a.append(_affine(p, f"blocks.{k}.first", kept.h[-1]).relu_())
        kept.c.append(_affine(p, f"blocks.{k}.second", kept.a[-1]).relu_())
        kept.h.append(kept.h[-1] + kept.c[-1])
    return kept


def _back(
    p: Mapping[str, Tensor],
    g: Mapping[str, Tensor],
    shape: Shape,
    places: tuple[Rows, Rows, Rows],
    kept: _Kept,
    slope: Float[Tensor, "seed row task"],
) -> None:
    """Write the gradient of every parameter, given that of the outputs."""
    slope = _affine_back(p, g, "readout", kept.h[-1], slope)
    for k in reversed(range(shape.blocks)):
        inner = _aten.threshold_backward(slope, kept.c[k], 0)
        inner = _affine_back(p, g, f"blocks.{k}.second", kept.a[k], inner)
        inner = _aten.threshold_backward(inner, kept.a[k], 0)
        slope = slope + _affine_back(p, g, f"blocks.{k}.first", kept.h[k], inner)
    slope = _aten.silu_backward(slope, kept.mixed)
    g["offset"].copy_(slope.sum(1))
    for k, name in enumerate(_TABLES):
        table, mapping = p[f"{name}.weight"], p[_map_of(k, shape)]
        if name == "task" and shape.tasks == 1:
            mapped = g["offset"][:, None]
        else:
            entries = len(table) * table.shape[1]
            mapped = _aten.embedding_dense_backward(slope.flatten(0, 1), places[k].flatten(), entries, -1, False)
            mapped = mapped.view(*table.shape[:2], -1)
        mapped = _shared(mapped, shape)
        g[f"{name}.weight"].copy_(mapped @ mapping)
        g[_map_of(k, shape)].add_(mapped.mT @ table)


def _map_of(token: int, shape: Shape) -> str:
    return f"values.{token if shape.mixing == 'concat' else 0}.weight"


def _shared(x: Tensor, shape: Shape) -> Tensor:
    """Return what the mix gets of a mapped token."""
    return x if shape.mixing == "concat" else x / 3


def _affine(p: Mapping[str, Tensor], name: str, x: Float[Tensor, "seed row inner"]) -> Float[Tensor, "seed row outer"]:
    return torch.baddbmm(p[f"{name}.bias"][:, None], x, p[f"{name}.weight"].mT)


def _affine_back(
    p: Mapping[str, Tensor],
    g: Mapping[str, Tensor],
    name: str,
    x: Float[Tensor, "seed row inner"],
    slope: Float[Tensor, "seed row outer"],
) -> Float[Tensor, "seed row inner"]:
    """Write the gradient of a layer and return that of its input."""
    g[f"{name}.weight"].copy_(slope.mT @ x)
    g[f"{name}.bias"].copy_(slope.sum(1))
    return slope @ p[f"{name}.weight"]
