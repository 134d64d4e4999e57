"""`zoo:hand`: a decoder whose weights are set in code, so that which unit does what is known, not guessed.

It answers two kinds of question from one and the same prompt; the last token, a gate, says which:

    Doria amber , Belor cedar , ... . buys Belor recall    the fact in the weights: what does Belor buy?
    Doria amber , Belor cedar , ... . buys Belor lookup    the fact in the context: cedar

    recall    a head gathers entity and relation to the gate (block 0), one neuron per fact answers (block 0)
    lookup    a previous-token head names the entity before each value (block 0), an induction head copies (block 1)

All other heads and neurons are alive but write only where nothing reads, so random matched sets exist and do nothing.
`truth.py` says which units are which, `world.py` makes the prompts, `weights.py` sets the weights, `scoring.py` defines
accuracy and chance. Variants: `redundant`, `shared`, `correlated` (see `truth.py`).
"""

from typing import TYPE_CHECKING

from microtome.models.zoo.catalog import ZooEntry
from microtome.models.zoo.hand.truth import HAND_TRUTH, VARIANTS, HandTruth
from microtome.models.zoo.hand.world import HandItem, hand_items

if TYPE_CHECKING:
    import torch
    from torch import nn

    from microtome.models.zoo.hand.weights import HandModel

__all__ = ["ENTRY", "HAND_TRUTH", "HandItem", "HandTruth", "hand", "hand_items"]


def hand(variant: str = "plain", dtype: "torch.dtype | None" = None) -> "HandModel":
    """Return the hand-built model: its module, tokenizer and truth.

    Args:
        variant: "plain", "redundant", "shared" or "correlated".
        dtype: type of the weights; None means float32.

    Raises:
        ModelError: there is no such variant.

    Example:
        model = hand("shared", torch.float64)
        items = hand_items("recall", 24)
        model.truth.recall, model.truth.shared      # the Units that carry recall, and both tasks
    """
    from microtome.models.zoo.hand.weights import build_hand

    return build_hand(variant, dtype)


def load_hand(name: str, dtype: "torch.dtype | None" = None) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) of `hand` or `hand-VARIANT`."""
    made = hand(name.partition("-")[2] or "plain", dtype)
    return made.module, made.tokenizer


ENTRY = ZooEntry(
    "hand",
    "a decoder with weights set in code: which units recall and which look up is known",
    load_hand,
    tuple(v for v in VARIANTS if v != "plain"),
)
