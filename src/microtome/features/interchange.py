"""The interchange: give a base activation some features of a source activation, hard or soft.

In delta form, ``swap(b, s) = b + decode(f') - decode(f)`` with f = encode(b) and f' = f but for the chosen units, which
are encode(s)'s. What the basis does not explain stays the base's; swapping nothing, or a thing with itself, is
bit-exact identity. Wu et al. 2023 (arXiv 2303.02536), Huang et al. 2024 (arXiv 2402.17700, section 3).

These act on tensors at hand and are differentiable; `engine.Edit` with `From` does the same inside a model's run.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.protocols import Featurizer
from microtome.features.precision import wide

__all__ = ["soft_swap", "swap", "swap_subspace"]


def swap(
    base: Float[Tensor, "*lead d"],
    source: Float[Tensor, "*lead d"],
    basis: Featurizer | None = None,
    units: Sequence[int] | Tensor | None = None,
    *,
    keep_error: bool = True,
) -> Float[Tensor, "*lead d"]:
    """Return the base with the chosen features taken from the source.

    Args:
        base: activations to change.
        source: activations to take from, of one shape with the base.
        basis: in which the units count; None means the coordinates themselves (replaced bit by bit).
        units: which features; None means all, an empty list none.
        keep_error: keep what the basis does not explain of the base. False gives ``decode(f')``, as RAVEL's own SAE
            code does: then a lossy basis changes the activation even where nothing is swapped.

    Raises:
        EditError: the shapes differ, the basis is of another width, or a unit does not exist.
    """
    _check(base, source, basis)
    own, other = (base, source) if basis is None else (basis.encode(base), basis.encode(source))
    if units is not None:
        index = _index(units, own)
        other = own.index_copy(-1, index, other[..., index])
    return _rebuild(base, own, other, basis, keep_error)


def soft_swap(
    base: Float[Tensor, "*lead d"],
    source: Float[Tensor, "*lead d"],
    basis: Featurizer | None,
    gate: Float[Tensor, " m"],
    *,
    keep_error: bool = True,
) -> Float[Tensor, "*lead d"]:
    """Return the base with a share of each feature taken from the source: f' = f + gate * (f_source - f).

    Args:
        base: activations to change.
        source: activations to take from, of one shape with the base.
        basis: in which the gate counts; None means the coordinates themselves.
        gate: share of each feature, from 0 (the base's) to 1 (the source's).
        keep_error: as for `swap`.

    Raises:
        EditError: the shapes differ, the basis is of another width, or the gate has not one entry for each feature.
    """
    _check(base, source, basis)
    own, other = (wide(base), wide(source)) if basis is None else (basis.encode(base), basis.encode(source))
    if gate.shape[-1] != own.shape[-1]:
        raise EditError(f"A gate of {gate.shape[-1]} was asked for over {own.shape[-1]} features; give one for each.")
    return _rebuild(base, own, own + gate.to(own) * (other - own), basis, keep_error)


def swap_subspace(
    base: Float[Tensor, "*lead d"], source: Float[Tensor, "*lead d"], axes: Float[Tensor, "d k"]
) -> Float[Tensor, "*lead d"]:
    """Return ``b + (s - b) R R'``: the swap of all of an orthonormal basis R, in two products, for fitting R.

    Raises:
        EditError: the shapes differ.
    """
    _check(base, source)
    axes = axes.to(base.device, wide(base).dtype)
    return base + ((wide(source) - wide(base)) @ axes @ axes.mT).to(base.dtype)


def _check(base: Tensor, source: Tensor, basis: Featurizer | None = None) -> None:
    if base.shape != source.shape:
        raise EditError(
            f"A swap into activations {list(base.shape)} was asked for, found a source {list(source.shape)}; "
            "give one source for each base."
        )
    width = getattr(basis, "width", base.shape[-1])
    if width != base.shape[-1]:
        raise EditError(
            f"A swap in a basis, {type(basis).__name__}, of width {width} was asked for, found activations of width "
            f"{base.shape[-1]}; fit one on these."
        )


def _index(units: Sequence[int] | Tensor, features: Tensor) -> Tensor:
    index = torch.as_tensor(units, dtype=torch.long, device=features.device).reshape(-1)
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < features.shape[-1]:
        raise EditError(
            f"A swap of units {int(index.min())}..{int(index.max())} was asked for, found {features.shape[-1]} "
            f"features (0-{features.shape[-1] - 1}); choose among those."
        )
    return index


def _rebuild(base: Tensor, own: Tensor, new: Tensor, basis: Featurizer | None, keep_error: bool) -> Tensor:
    if basis is None:
        return new.to(base.dtype)
    if not keep_error:
        return basis.decode(new).to(base.dtype)
    return base + (basis.decode(new) - basis.decode(own)).to(base.dtype)
