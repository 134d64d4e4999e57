"""`zoo:planted`: entities whose attributes lie in known, linear places, to see whether a method finds them.

An entity's only token holds 24 numbers, h = Q [code of its color, code of its shape, code of its size, noise], Q a
rotation, the codes corners of a simplex. A prompt's last token gathers h and the attribute asked for, and the logit of
a value is its code's product with h. Nothing else is computed, so what a swap in h should do is known:

    independent   three blocks, three attributes that have nothing to do with each other: each can be swapped alone
    correlated    the shape follows from the color, but has a block of its own and is read from there: likewise
    shared        the shape is read from the color's block: who swaps one swaps the other, no basis parts them

`planted()` gives module, tokenizer, table (`data.ravel`) and truth. The world is ours; RAVEL's paper (arXiv 2402.17700)
has none.
"""

from typing import TYPE_CHECKING

from microtome.models.zoo.catalog import ZooEntry
from microtome.models.zoo.planted.world import SITE, VALUES, WORLDS, planted_table

if TYPE_CHECKING:
    import torch
    from torch import nn

    from microtome.models.zoo.planted.weights import PlantedModel

__all__ = ["ENTRY", "SITE", "VALUES", "WORLDS", "planted", "planted_table"]


def planted(world: str = "independent", dtype: "torch.dtype | None" = None, *, seed: int = 0) -> "PlantedModel":
    """Return the planted model: its module, tokenizer, table and truth.

    Args:
        world: one of `WORLDS`.
        dtype: type of the weights; None means float32.
        seed: of the table, the noise and the rotation.

    Raises:
        ModelError: there is no such world.

    Example:
        made = planted("correlated")
        model = Model.load(made.module, tokenizer=made.tokenizer)
        pairs, power = draw_pairs(gold_instance(made.table), target="color")
    """
    from microtome.models.zoo.planted.weights import build_planted

    return build_planted(world, planted_table(world, seed=seed), dtype, seed)


def load_planted(name: str, dtype: "torch.dtype | None" = None) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) of `planted` or `planted-WORLD`."""
    made = planted(name.partition("-")[2] or "independent", dtype)
    return made.module, made.tokenizer


ENTRY = ZooEntry(
    "planted",
    "entities whose attributes lie in known linear blocks: what swapping them should do is known",
    load_planted,
    tuple(w for w in WORLDS if w != "independent"),
)
