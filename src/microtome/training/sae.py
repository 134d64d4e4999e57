"""Train a sparse autoencoder on activations that fit in memory: AdamW, the rate falling as a cosine to its half.

The recipe of RAVEL's SAE baseline (arXiv 2402.17700, released demo: latents 4 x width, rate 1e-4, weight decay 1e-4,
batches of 32, 10 epochs, mean squared error + 0.8 x mean absolute latent), with its defaults as arguments. The error is
judged on rows held out from training (the released code judges on training rows, and on the last batch alone).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.seeds import derive
from microtome.features.sae import SAE, SAEModule

__all__ = ["SAERecipe", "TrainedSAE", "fit_sae"]


@dataclass(frozen=True)
class SAERecipe:
    """How an autoencoder is trained.

    Attributes:
        factor: features for each coordinate of the activations.
        k: keep the k largest features of each row (TopK); 0 for ReLU with a penalty.
        penalty: weight of the mean absolute feature, ReLU only.
        lr: first learning rate; the last is half of it.
        weight_decay: of AdamW.
        batch: rows an update.
        epochs: passes over the rows.
        held_out: share of the rows that judges.
    """

    factor: int = 4
    k: int = 0
    penalty: float = 0.8
    lr: float = 1e-4
    weight_decay: float = 1e-4
    batch: int = 32
    epochs: int = 10
    held_out: float = 0.1


@dataclass(frozen=True, eq=False)
class TrainedSAE:
    """An autoencoder and how good it is on the rows held out.

    Attributes:
        basis: the autoencoder.
        explained: 1 - squared error over variance.
        active: mean number of features above 0.
    """

    basis: SAE
    explained: float
    active: float


def fit_sae(
    rows: Float[Tensor, "n d"],
    recipe: SAERecipe,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> TrainedSAE:
    """Return an autoencoder of some activations.

    Args:
        rows: activations, on the device to train on.
        recipe: how.
        seed: of weights, split and order.
        progress: called with (epochs done, epochs, one line).

    Raises:
        MeasureError: fewer than two rows, a value that is not finite, or a k that does not fit.
    """
    if len(rows) < 2 or not torch.isfinite(rows).all():
        raise MeasureError(
            f"An autoencoder was asked for of {len(rows)} rows{'' if len(rows) < 2 else ', some not finite'}; give at "
            "least two, all finite."
        )
    draw = torch.Generator().manual_seed(derive(seed, "sae"))
    x = rows.float()
    order = torch.randperm(len(x), generator=draw).to(x.device)
    judged = max(1, round(len(x) * recipe.held_out))
    held_out, kept = x[order[:judged]], x[order[judged:]]
    width = x.shape[1]
    module = SAEModule(width, recipe.factor * width, draw, k=recipe.k or None, mean=kept.mean(0).cpu()).to(x.device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, foreach=True)
    updates = recipe.epochs * -(-len(kept) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, eta_min=recipe.lr / 2)
    with torch.inference_mode(False), torch.enable_grad():
        kept = kept.clone()
        for epoch in range(recipe.epochs):
            for items in torch.randperm(len(kept), generator=draw).to(x.device).split(recipe.batch):
                optimizer.zero_grad(set_to_none=True)
                module.loss(kept[items], penalty=recipe.penalty).backward()
                optimizer.step()
                schedule.step()
                module.normalise()
            if progress:
                progress(epoch + 1, recipe.epochs, "autoencoder")
    basis = module.freeze()
    return TrainedSAE(basis, *_judged(basis, held_out))


@torch.no_grad()
def _judged(basis: SAE, x: Tensor) -> tuple[float, float]:
    f = basis.encode(x)
    error = (basis.decode(f) - x).square().sum()
    spread = (x - x.mean(0)).square().sum().clamp(min=1e-12)
    return float(1 - error / spread), float((f > 0).sum(-1).float().mean())
