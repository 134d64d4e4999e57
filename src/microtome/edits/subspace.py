"""Damp a subspace of a tensor: EigenShift, projection of a mean difference, INLP, and random controls in one form.

    x -> x (I - (1 - a) Q Q')        a = 1 leaves every bit, 0 projects out, -1 reflects, and P_a P_b = P_ab

EigenShift (arXiv 2509.16660, section 2) scales singular values of the output head, W' = U S' V' = W P, so it is this
with Q some right singular vectors at the head's input: a hook of rank k, whatever the head is tied to or stored in, and
no left vectors. Every other orthonormal Q is an equally valid edit there, which is what makes controls fair.
`baking.py` turns it into weights.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.site import Site
from microtome.engine.edit import Edit, Scale
from microtome.features.head_basis import HeadBasis
from microtome.features.outside import Outside
from microtome.features.rotation import Rotation
from microtome.models.model import Model

__all__ = ["damp_subspace", "eigenshift", "head_input"]


def head_input(model: Model) -> Site:
    """Return the site of what the output head reads, after the final norm.

    Raises:
        EditError: the model has no output head.
    """
    if model.anatomy.head is None:
        raise EditError(
            f"The output head of '{model.name}' was asked for, found none in its anatomy ({model.anatomy.kind}); use a "
            "model with a projection to logits."
        )
    return Site(f"{model.anatomy.head}.input")


def damp_subspace(site: Site | str, axes: Float[Tensor, "d k"], a: float = 0.0, *, positions=None) -> Edit:
    """Return the edit that scales the part of a tensor within a subspace by a.

    Args:
        site: where.
        axes: orthonormal columns that span the subspace.
        a: what is left of it: 1 all, 0 nothing; below 0 it is turned round.
        positions: as for `Edit`.

    Raises:
        EditError: a is not finite.
        MeasureError: the columns are not orthonormal, or more than the width.
    """
    inside = Rotation(axes)
    return _scaled(site, inside, inside.complement().axes if _large(axes) else None, a, positions)


def eigenshift(
    model: Model, basis: HeadBasis, units: Sequence[int] | Int[Tensor, " k"], a: float = 0.0, *, positions=None
) -> Edit:
    """Return the edit that scales some singular values of the output head by a, at the head's input.

    Args:
        model: the model.
        basis: its factorised head (`features.head_basis`).
        units: which singular vectors.
        a: the factor; the paper's headline runs use 0 with a quarter of the vectors.
        positions: as for `Edit`.

    Raises:
        EditError: the basis is not of this head, a vector does not exist, or a is not finite.
    """
    site, chosen = head_input(model), torch.as_tensor(units, dtype=torch.long).reshape(-1).unique().cpu()
    width = getattr(model.module.get_submodule(model.anatomy.head), "in_features", basis.width)
    if basis.width != width:
        raise EditError(
            f"EigenShift of '{site}' was asked for, found a basis of width {basis.width} for a head of width {width}; "
            "factorise this model's head."
        )
    given = torch.as_tensor(units).numel()
    if given > basis.width or (given and not 0 <= int(chosen[0]) <= int(chosen[-1]) < basis.n_features):
        raise EditError(
            f"EigenShift of {given} vectors{f' from {int(chosen[0])} to {int(chosen[-1])}' if given else ''} was asked "
            f"for, found {basis.n_features} (0-{basis.n_features - 1}); choose among those."
        )
    rest = torch.ones(basis.n_features, dtype=torch.bool)
    rest[chosen] = False
    inside = basis.axes[:, chosen].contiguous()
    return _scaled(site, Rotation(inside), basis.axes[:, rest].contiguous() if _large(inside) else None, a, positions)


def _large(axes: Tensor) -> bool:
    return 2 * axes.shape[1] > axes.shape[0]


def _scaled(site: Site | str, inside: Rotation, rest: Tensor | None, a: float, positions) -> Edit:
    if not math.isfinite(a):
        raise EditError(f"A damping of '{site}' by {a} was asked for; give a finite number, 1 for none.")
    basis = inside if rest is None else Outside(rest)
    return Edit(site, Scale(float(a)), positions=positions, basis=basis)
