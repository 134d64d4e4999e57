"""Edit: where, in which basis, which units, what new value. Patching, ablation, steering, interchange are values of it.

Delta form: with a basis (encode, decode) the edited activation is ``x + (decode(f') - decode(f))``, f = encode(x), so a
lossy basis keeps what it does not explain and editing nothing is bit-exact identity. Without a basis the units are
coordinates of x itself and are replaced directly, so taking a value from another run is bit-exact too.

An edit acts token by token: it is given activations [n, *unit shape] with the (row, position) of each token. So one
edit works in a plain forward, in a packed sweep and in a generation loop alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.protocols import Featurizer
from microtome.core.site import Site

__all__ = ["Add", "Constant", "Custom", "Edit", "From", "Scale", "Value", "Zero", "edit_tokens"]


class Value(Protocol):
    """What an edit puts in. `new` gets the chosen features [n, k, ...] and returns their replacement."""

    def new(self, f: Tensor, units: Tensor | None, rows: Tensor, positions: Tensor, encode: Callable) -> Tensor:
        """Return the new features for the tokens at (rows, positions)."""
        ...


@dataclass(frozen=True)
class Zero:
    """Replace by zero."""

    def new(self, f, units, rows, positions, encode):
        """Return zeros like f."""
        return torch.zeros_like(f)


@dataclass(frozen=True, eq=False)
class Constant:
    """Replace by a constant: a number, or a tensor over all units of the site (e.g. their mean over data)."""

    value: Tensor | float

    def new(self, f, units, rows, positions, encode):
        """Return the constant, broadcast over tokens."""
        return _over_units(self.value, f, units).expand_as(f)


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply by a factor: a number, or a tensor over all units of the site. Scale(1.0) is identity."""

    factor: Tensor | float

    def new(self, f, units, rows, positions, encode):
        """Return the scaled features."""
        return f * _over_units(self.factor, f, units)


@dataclass(frozen=True, eq=False)
class Add:
    """Add a vector (steering): a number, or a tensor over all units of the site."""

    vector: Tensor | float

    def new(self, f, units, rows, positions, encode):
        """Return the shifted features."""
        return f + _over_units(self.vector, f, units)


@dataclass(frozen=True, eq=False)
class From:
    """Take the value from another run: activations of the site, [batch or 1, seq or 1, *unit shape]."""

    activations: Tensor

    def new(self, f, units, rows, positions, encode):
        """Return the source's features at the same (row, position)."""
        source = self.activations
        row = rows if source.shape[0] > 1 else torch.zeros_like(rows)
        position = positions if source.shape[1] > 1 else torch.zeros_like(positions)
        taken = encode(source[row.to(source.device), position.to(source.device)].to(f.device, f.dtype))
        return taken if units is None else taken[:, units]


@dataclass(frozen=True, eq=False)
class Custom:
    """Apply a function to the chosen features [n, k, ...] (a fitted curve, a damping rule)."""

    function: Callable[[Tensor], Tensor]

    def new(self, f, units, rows, positions, encode):
        """Return the function's value."""
        return self.function(f)


def _over_units(value: Tensor | float, f: Tensor, units: Tensor | None) -> Tensor:
    """Return `value` shaped to broadcast over tokens and, where it has one entry per unit, restricted to `units`."""
    value = torch.as_tensor(value, device=f.device, dtype=f.dtype)
    if value.ndim == 0:
        return value
    if units is not None:
        value = value[units]
    return value.reshape(1, *value.shape, *[1] * (f.ndim - 1 - value.ndim))


@dataclass(frozen=True, eq=False)
class Edit:
    """One change to one tensor during a run.

    Args:
        site: which tensor (an activation or a weight; no glob).
        value: what to put in.
        units: which coordinates along the unit axis (of the basis, where there is one); None means all.
        positions: at which sequence positions: None (all), an int (negative counts from the end), several ints, or a
            tensor [batch] or [batch, n] with positions for each row.
        basis: a featurizer; None means the coordinates of the tensor itself.

    Raises:
        EditError: the site is a glob or a unit is negative.
    """

    site: Site | str
    value: Value = field(default_factory=Zero)
    units: Sequence[int] | Tensor | None = None
    positions: int | Sequence[int] | Tensor | None = None
    basis: Featurizer | None = None

    def __post_init__(self):
        object.__setattr__(self, "site", Site.parse(self.site))
        if self.site.is_glob:
            raise EditError(f"An edit changes one tensor, found the glob '{self.site}'; make one edit for each site.")
        if self.units is not None:
            units = torch.as_tensor(self.units, dtype=torch.long).reshape(-1)
            if units.numel() and int(units.min()) < 0:
                raise EditError(f"Edit at '{self.site}': unit {int(units.min())} does not exist, units count from 0.")
            object.__setattr__(self, "units", units)
        if self.positions is not None and not isinstance(self.positions, int | Tensor):
            object.__setattr__(self, "positions", tuple(int(p) for p in self.positions))

    def apply(self, x: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Return the edited activations of some tokens.

        Args:
            x: activations, [n, *unit shape].
            rows: the batch row of each token, [n].
            positions: the sequence position of each token, [n].

        Raises:
            EditError: a unit is out of range, the value does not fit, or the basis is of another width.
        """
        width = getattr(self.basis, "width", x.shape[-1])
        if width != x.shape[-1]:
            raise EditError(
                f"Edit at '{self.site}': its basis, {type(self.basis).__name__}, has width {width}, activations there "
                f"have {x.shape[-1]}; fit one at this site."
            )
        encode = self.basis.encode if self.basis is not None else _same
        f = encode(x)
        units = self.units.to(f.device) if self.units is not None else None
        if units is not None and units.numel() and int(units.max()) >= f.shape[1]:
            raise EditError(
                f"Edit at '{self.site}': unit {int(units.max())} does not exist, it has {f.shape[1]} "
                f"(0-{f.shape[1] - 1})."
            )
        old = f if units is None else f[:, units]
        try:
            new = self.value.new(old, units, rows, positions, encode).expand_as(old)
        except (RuntimeError, IndexError) as error:
            raise EditError(
                f"Edit at '{self.site}': {type(self.value).__name__} does not fit features {tuple(old.shape)} "
                f"({str(error).splitlines()[0]}); give a number or one entry per unit."
            ) from error
        if units is not None:
            new = f.index_copy(1, units, new.to(f.dtype))
        if self.basis is None:
            return new
        return x + (self.basis.decode(new) - self.basis.decode(f)).to(x.dtype)

    def touches(self, rows: Tensor, positions: Tensor, seq: int) -> Tensor:
        """Return a mask of the tokens (row, position) that this edit changes, in sequences of length `seq`.

        Raises:
            EditError: a position lies outside the sequence.
        """
        if self.positions is None:
            return torch.ones_like(positions, dtype=torch.bool)
        wanted = torch.as_tensor(self.positions, device=positions.device)
        if wanted.numel() and not -seq <= int(wanted.min()) <= int(wanted.max()) < seq:
            raise EditError(
                f"Edit at '{self.site}': positions {int(wanted.min())}..{int(wanted.max())} asked for, the "
                f"sequence has {seq} (0-{seq - 1})."
            )
        wanted = torch.where(wanted < 0, wanted + seq, wanted)
        if wanted.ndim == 0:
            return positions == wanted
        if isinstance(self.positions, Tensor):
            table = wanted.reshape(wanted.shape[0], -1)[rows]
            return (table == positions[:, None]).any(1)
        return torch.isin(positions, wanted)


def _same(x: Tensor) -> Tensor:
    return x


def edit_tokens(
    x: Tensor, edits: list[tuple[int, Edit]], cells: Tensor, rows: Tensor, positions: Tensor, seq: int
) -> Tensor:
    """Return packed tokens [tokens, ...] with each cell's edits made on its own tokens (copied once for all cells)."""
    order = cells.argsort(stable=True)
    present, counts = cells[order].unique_consecutive(return_counts=True)
    own = dict(zip(present.tolist(), order.split(counts.tolist()), strict=True))
    out = x
    for cell, edit in edits:
        at = own[cell][edit.touches(rows[own[cell]], positions[own[cell]], seq)]
        if at.numel():
            new = edit.apply(out[at], rows[at], positions[at])
            out = x.clone() if out is x else out
            out.index_copy_(0, at, new.to(x.dtype))
    return out
