"""LinEAS: affine maps at several sites, one a coordinate, trained together so that each knows what the others did.

The model runs on toxic rows with every map in place (a change at one site reaches the sites after it), and the maps
are moved so that, at the last token of a row, each coordinate has the distribution it has on clean rows:

    loss    = sum over sites and coordinates of  mean_i (x_(i) - y_(i))^2 / var(y)       x_(i), y_(i) sorted samples
    x       = the edited activations of toxic rows, y = the unedited ones of as many clean rows

that is the squared Wasserstein-2 distance in one dimension, in units in which all sites weigh alike. A map is trained
in those units, ``z -> a z + c`` with z = (x - mean(y)) / sd(y), from the identity, by Adam with half a cosine. With a
penalty, each update ends in the proximal step of a sparse-group lasso on (a - 1, c): every number falls towards 0 by
rate * penalty, then the numbers of a site together, their norm by sqrt(count) times that. An update of Adam is at most
about the rate, so a penalty from 0 to 1 says how steady a gradient must be to move a number at all, and which sites
are left alone; a penalty above that leaves the identity.

Source: Rodriguez et al. 2025, arXiv 2503.10679. Maps fitted site by site are `affine.transport`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import DataError, ModelError, SiteError
from microtome.core.seeds import derive
from microtome.edits.affine import Affine
from microtome.engine.edit import Edit
from microtome.engine.run import run
from microtome.models.model import Model

__all__ = ["fit_transport"]

_LEAST_SPREAD = 1e-3


class _Target(NamedTuple):
    """A site's activations on the clean rows, [rows, d], and the mean and spread of each coordinate."""

    rows: Tensor
    mean: Tensor
    spread: Tensor


def fit_transport(
    model: Model,
    sites: Sequence[str],
    toxic: Sequence[Sequence[int]],
    clean: Sequence[Sequence[int]],
    *,
    steps: int,
    lr: float = 0.1,
    batch: int = 32,
    penalty: float = 0.0,
    seed: int,
) -> dict[str, Affine]:
    """Return site -> the affine map that takes its activations on toxic rows to those on clean ones.

    Args:
        model: the model; its weights are not trained.
        sites: activations [batch, seq, d]; globs allowed.
        toxic: rows of token ids; what is made of the last token is moved.
        clean: rows of token ids that say where to.
        steps: updates.
        lr: highest learning rate, in spreads of the clean activations.
        batch: rows of each side in one update; all of the smaller side where that has fewer.
        penalty: for maps that are not the identity (see the module's text).
        seed: of the rows drawn. The global random state takes no part.

    Raises:
        SiteError: no sites, or one whose activations are not [batch, seq, d].
        DataError: a side has fewer than two rows, an empty row, or a setting is out of range.
        ModelError: training diverged.

    Example:
        >>> maps = fit_transport(model, ["blocks.*.resid_post"], toxic, clean, steps=200, seed=0)
        >>> run(model, batch, edits=[Edit(site, m) for site, m in maps.items()])
    """
    _check(sites, toxic, clean, steps=steps, lr=lr, batch=batch, penalty=penalty)
    size = min(batch, len(toxic), len(clean))
    rng = torch.Generator().manual_seed(derive(seed, "transport"))
    with torch.inference_mode(False), torch.enable_grad():
        targets = _targets(model, sites, clean, batch)
        free = {site: torch.zeros_like(t.rows[:2]).requires_grad_() for site, t in targets.items()}
        optimizer = torch.optim.Adam(free.values(), lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            _update(optimizer, model, _drawn(toxic, size, rng), free, _some(targets, size, rng))
            _shrink(free.values(), rate * penalty)
    return {site: _affine(x.detach().cpu(), targets[site]) for site, x in free.items()}


def _check(sites: Sequence[str], toxic: Sequence, clean: Sequence, **settings: float) -> None:
    if not sites or isinstance(sites, str):
        raise SiteError(f"A transport at sites {sites!r} was asked for; give a list of at least one.")
    if min(len(toxic), len(clean)) < 2 or not all(len(row) for row in (*toxic, *clean)):
        raise DataError(
            f"A transport from {len(toxic)} toxic to {len(clean)} clean rows was asked for; give at least 2 on both "
            "sides, each with a token."
        )
    least = {"steps": 1, "batch": 2, "lr": 0, "penalty": 0}
    if wrong := [f"{name} {settings[name]}" for name, low in least.items() if not low <= settings[name] < math.inf]:
        raise DataError(
            f"A transport with {', '.join(wrong)} was asked for; give steps from 1, a batch from 2, and lr and penalty "
            "from 0."
        )


@torch.no_grad()
def _targets(model: Model, sites: Sequence[str], clean: Sequence[Sequence[int]], batch: int) -> dict[str, _Target]:
    """Return each site's clean activations at the last token, in block order of the sites."""
    seen: dict[str, list[Tensor]] = {str(info.site): [] for info in model.select(sites)}
    for start in range(0, len(clean), batch):
        found = run(model, model.batch_ids(clean[start : start + batch]), read=list(seen), logits="none")
        for site, parts in seen.items():
            parts.append(_at_end(found[site], site))
    return {site: _target(torch.cat(parts)) for site, parts in seen.items()}


def _at_end(x: Tensor, site: str) -> Float[Tensor, "batch d"]:
    """Return the activations at the last token (rows are aligned there), in float32 or what is finer."""
    if x.ndim != 3:
        raise SiteError(
            f"A transport at '{site}' was asked for, found activations {list(x.shape)}; give sites [batch, seq, d]."
        )
    return x[:, -1].to(torch.promote_types(x.dtype, torch.float32))


def _target(rows: Tensor) -> _Target:
    """A coordinate that all but never varies counts as if it varied a little: nothing is divided by 0."""
    spread = rows.std(0)
    typical = spread.square().mean().sqrt()
    return _Target(rows, rows.mean(0), spread.clamp(min=_LEAST_SPREAD * float(typical) or 1.0))


def _drawn(rows: Sequence[Sequence[int]], size: int, rng: torch.Generator) -> list[Sequence[int]]:
    return [rows[i] for i in torch.randperm(len(rows), generator=rng)[:size].tolist()]


def _affine(free: Float[Tensor, "2 d"], target: _Target) -> Affine:
    """Return the map ``z -> a z + c`` of standardised activations, given (a - 1, c), as one of the activations."""
    mean, spread = target.mean.to(free), target.spread.to(free)
    return Affine(1 + free[0], spread * free[1] - mean * free[0])


def _some(targets: dict[str, _Target], size: int, rng: torch.Generator) -> dict[str, _Target]:
    """Return the targets with as many of their rows, the same at every site."""
    kept = torch.randperm(len(next(iter(targets.values())).rows), generator=rng)[:size]
    return {site: t._replace(rows=t.rows[kept.to(t.rows.device)]) for site, t in targets.items()}


def _update(
    optimizer: torch.optim.Optimizer,
    model: Model,
    rows: Sequence[Sequence[int]],
    free: dict[str, Tensor],
    targets: dict[str, _Target],
) -> None:
    loss = _distance(model, rows, free, targets)
    if not math.isfinite(loss.item()):
        raise ModelError(f"A transport was asked for, its loss became {loss.item()}; give a lower learning rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _distance(
    model: Model, rows: Sequence[Sequence[int]], free: dict[str, Tensor], targets: dict[str, _Target]
) -> Float[Tensor, ""]:
    edits = [Edit(site, _affine(x, targets[site])) for site, x in free.items()]
    found = run(model, model.batch_ids(rows), read=list(free), edits=edits, logits="none", grad=True)
    distance = torch.zeros(())
    for site, (goal, _, spread) in targets.items():
        gap = (_at_end(found[site], site).sort(0).values - goal.sort(0).values) / spread
        distance = distance + gap.square().mean(0).sum().cpu()
    return distance


@torch.no_grad()
def _shrink(free: Iterable[Tensor], step: float) -> None:
    """Take the proximal step of ``step (|x|_1 + sqrt(count) |x|_2)`` for the numbers x of each site."""
    for x in free:
        x.copy_(x.sign() * (x.abs() - step).clamp(min=0))
        norm, least = x.norm(), step * math.sqrt(x.numel())
        x.mul_(torch.where(norm > least, 1 - least / norm, 0.0))
