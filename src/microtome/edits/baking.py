"""Bake: the weights with which a model does by itself what an affine edit does by a hook.

An edit of what a projection reads, ``h -> h M + c``, is ``W' = W M', b' = b + W c``; one of what it writes,
``y -> y M + c``, is ``W' = M' W, b' = b M + c``. Neither M nor its size is needed: rows of W go through the edit's
transpose (backpropagation through it, exact for an affine map), columns through the edit itself, in float64, chunk by
chunk. So every affine edit bakes, whatever its basis: EigenShift and other subspaces at the head's input, AurA and its
kin at neurons, steering and LEACE where a projection has a bias to carry the shift.

Rounding to the storage type can lose a small edit: in bfloat16, damping five singular values by 0.9 leaves most entries
of W as they were. Where more than a share of the edit (Frobenius norm) would be lost, baking refuses.

Only the weight of the projection itself changes. A head tied to the embedding is given a weight of its own
(`export_edited` writes the config so).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from microtome.core.errors import EditError
from microtome.core.site import Site
from microtome.edits.affine import Affine
from microtome.engine.edit import Add, Constant, Custom, Edit, Scale, Zero
from microtome.engine.run import edited_weights
from microtome.models.model import Model
from microtome.models.sites import SiteInfo

__all__ = ["LOST", "bake"]

LOST = 0.05
"""The largest share of an edit that rounding may lose."""

_CHUNK = 4096  # rows or columns in float64 at a time
_NOTHING = 1e-13  # a change this much smaller than the weight is float64's own rounding
_FIXED = (Zero, Constant, Scale, Add, Affine, Custom)  # values that are one function for all tokens


@torch.no_grad()
def bake(model: Model, edits: Sequence[Edit], *, lost: float = LOST) -> list[Edit]:
    """Return weight edits that do what the edits do: the same logits, with no hooks but those `run` needs for weights.

    Args:
        model: the model; it stays as it is.
        edits: affine edits of what projections read or write, at all positions; weight edits are passed through.
        lost: share of an edit's change of a weight that rounding to the weight's type may lose.

    Returns:
        one edit for each changed parameter, to be given to `run` or `export_edited`; none for edits that do nothing.

    Raises:
        EditError: an edit is not at a projection, not affine, not the same at all tokens, needs a bias that is not
            there, or would be lost in rounding.
    """
    names = dict(model.module.named_parameters(remove_duplicate=False))
    changed = edited_weights(model, [e for e in edits if e.site in model.weights])
    for (path, place), acting in _by_projection(model, [e for e in edits if e.site not in model.weights]).items():
        module = model.module.get_submodule(path)
        old = {k: changed.get(f"{path}.{k}", names.get(f"{path}.{k}")) for k in ("weight", "bias")}
        new = _bake_one(path, module, old, acting, reads=place == "input")
        for kind, parts in new.items():
            kept = _rounded(f"{path}.{kind}", old[kind].detach(), parts, lost)
            if not torch.equal(kept, old[kind]):
                changed[f"{path}.{kind}"] = kept
    return [Edit(Site(name), Constant(tensor)) for name, tensor in changed.items()]


@dataclass(frozen=True)
class _Acting:
    """Edits of one tensor, in order, each with its site as the model has it: one map of rows [n, width]."""

    steps: tuple[tuple[SiteInfo, Edit], ...]

    def __call__(self, x: Tensor) -> Tensor:
        zero, width = torch.zeros(len(x), dtype=torch.long, device=x.device), x.shape
        for info, edit in self.steps:
            x = x.reshape(len(x), info.units, info.d_head) if info.unit_axis == "head" else x
            x = edit.apply(x, zero, zero).reshape(width)
        return x

    @property
    def site(self) -> Site:
        """The first of the sites, for errors."""
        return self.steps[0][0].site

    def check_affine(self, width: int, device: torch.device) -> None:
        drawn = torch.randn(2, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
        ends = self(torch.cat([drawn, drawn.sum(0, keepdim=True), torch.zeros_like(drawn[:1])]))
        gap, size = (ends[0] + ends[1] - ends[2] - ends[3]).abs().max(), ends.abs().max().clamp(min=1)
        if not gap <= 1e-9 * size:
            raise EditError(
                f"Baking an edit of '{self.site}' was asked for, found it not affine (off by {gap:.1e}); keep "
                "it as an edit of runs."
            )


def _by_projection(model: Model, edits: Sequence[Edit]) -> dict[tuple[str, str], _Acting]:
    """Group edits by the projection whose input or output they change, in the order in which a run makes them."""
    groups: dict[tuple[str, str], _Acting] = {}
    for edit in sorted(edits, key=lambda e: (str(e.site) != "final_norm", e.site)):
        info = model.select(edit.site)[0]
        key = _projection_of(model, info)
        _refuse_unfixed(edit)
        held = groups[key].steps if key in groups else ()
        groups[key] = _Acting((*held, (info, edit)))
    return dict(sorted(groups.items()))  # of one projection, what it reads comes before what it writes


def _projection_of(model: Model, info: SiteInfo) -> tuple[str, str]:
    path, place, tail = info.tap.module, info.tap.place, model.anatomy.tail
    if str(info.site) == "final_norm" and tail and tail[-2:] == (path, model.anatomy.head):
        path, place = model.anatomy.head, "input"
    module = model.module.get_submodule(path)
    if place not in ("input", "output") or not isinstance(module, nn.Linear | Conv1D):
        raise EditError(
            f"Baking an edit of '{info.site}' was asked for, found no plain projection there "
            f"({type(module).__name__}, {place}); bake at mlp.neurons, attn.heads, their outputs or the head's input."
        )
    if module.weight.device.type == "meta" or not module.weight.is_floating_point():
        raise EditError(
            f"Baking an edit of '{info.site}' was asked for, found the weight of '{path}' in {module.weight.dtype} on "
            f"{module.weight.device}; load it plain, onto a device."
        )
    return path, place


def _refuse_unfixed(edit: Edit) -> None:
    if edit.positions is not None or not isinstance(edit.value, _FIXED):
        why = (
            "chosen positions" if edit.positions is not None else f"{type(edit.value).__name__}, which varies by token"
        )
        raise EditError(
            f"Baking an edit of '{edit.site}' was asked for, found {why}; weights act on every token alike."
        )


def _bake_one(
    path: str, module: nn.Module, old: dict[str, Tensor | None], acting: _Acting, *, reads: bool
) -> dict[str, Iterator[Tensor]]:
    """Return the new weight, as float64 pieces of its own layout, and the new bias where it changes."""
    weight = old["weight"].detach()
    w = weight.T if isinstance(module, Conv1D) else weight  # [out, in]
    zero = torch.zeros(1, w.shape[1 if reads else 0], dtype=torch.float64, device=w.device)
    acting.check_affine(zero.shape[1], w.device)
    offset = acting(zero)[0]
    shift = _times(w, offset) if reads else offset
    found = {"weight": _read_side(w, acting, zero) if reads else _write_side(w, acting, offset)}
    if isinstance(module, Conv1D):
        found["weight"] = (piece.T for piece in found["weight"])
    if old["bias"] is not None:
        bias = old["bias"].detach().double()
        found["bias"] = iter([bias + shift if reads else acting(bias[None])[0]])
    elif bool(shift.abs().max() > 0):
        raise EditError(
            f"Baking an edit of '{acting.site}' was asked for, found a shift of {shift.norm():.1e} that '{path}' "
            "has no bias to carry; keep it as an edit of runs."
        )
    return found


def _read_side(w: Tensor, acting: _Acting, zero: Tensor) -> Iterator[Tensor]:
    for rows in w.split(_CHUNK):
        _, back = torch.func.vjp(acting, zero.expand(len(rows), -1))
        yield back(rows.double())[0]


def _write_side(w: Tensor, acting: _Acting, offset: Tensor) -> Iterator[Tensor]:
    for columns in w.T.split(_CHUNK):
        yield (acting(columns.double()) - offset).T


def _times(w: Tensor, offset: Tensor) -> Tensor:
    return torch.cat([rows.double() @ offset for rows in w.split(_CHUNK)])


def _rounded(name: str, old: Tensor, pieces: Iterator[Tensor], lost: float) -> Tensor:
    """Return the pieces joined along the axis they were cut, rounded once.

    Raises:
        EditError: more of the change than `lost` is gone.
    """
    kept, gone, change, size, start = torch.empty_like(old), 0.0, 0.0, 0.0, 0
    for exact in pieces:
        axis = next((i for i in range(old.ndim) if exact.shape[i] != old.shape[i]), 0)
        place = (kept.narrow(axis, start, exact.shape[axis]), old.narrow(axis, start, exact.shape[axis]).double())
        start += exact.shape[axis]
        place[0].copy_(exact)
        gone += float((place[0].double() - exact).square().sum())
        change += float((exact - place[1]).square().sum())
        size += float(place[1].square().sum())
    share = (gone / change) ** 0.5 if change > _NOTHING**2 * size else 0.0
    if share > lost:
        kind = str(old.dtype).removeprefix("torch.")
        raise EditError(
            f"Baking into '{name}' in {kind} was asked for, found {share:.0%} of the edit lost in rounding (at most "
            f"{lost:.0%} allowed); load the model in float32, or keep the edit as a hook."
        )
    return kept
