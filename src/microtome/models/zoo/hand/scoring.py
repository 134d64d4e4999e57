"""How `zoo:hand` is scored: expected accuracy with ties shared, and the logit difference.

    accuracy = mean over items of  1[answer is among the best options] / (number of best options)

This is the expected accuracy of picking one of the best options at random. A model whose units are gone gives its four
options the same logit, so it scores exactly 1/4, without noise: chance has a closed form and so has the dissociation
index. Under greedy decoding over the whole vocabulary the same model says `<unk>` and scores 0.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.models.zoo.hand.world import HandItem

__all__ = ["expected_accuracy", "greedy_accuracy", "logit_difference"]


def expected_accuracy(
    logits: Float[Tensor, "batch vocab"], items: Sequence[HandItem], *, tie: float = 1e-4
) -> Float[Tensor, " batch"]:
    """Return for each item the probability of being right when one of its best options is picked at random.

    Args:
        logits: at the last position of each item's prompt.
        items: the items, in the same order.
        tie: two options whose logits differ by no more than this are equally good.
    """
    chosen = torch.stack([row[list(item.options)] for row, item in zip(logits, items, strict=True)])
    right = torch.tensor([[o == item.answer for o in item.options] for item in items], device=logits.device)
    best = chosen >= chosen.amax(1, keepdim=True) - tie
    return ((best & right).sum(1) / best.sum(1)).to(torch.float64)


def greedy_accuracy(
    logits: Float[Tensor, "batch vocab"], items: Sequence[HandItem], *, tie: float = 1e-4
) -> Float[Tensor, " batch"]:
    """Return the same with the whole vocabulary as options (`<unk>` included).

    Args:
        logits: at the last position of each item's prompt.
        items: the items, in the same order.
        tie: as in `expected_accuracy`.
    """
    answers = torch.tensor([item.answer for item in items], device=logits.device)
    best = logits >= logits.amax(1, keepdim=True) - tie
    right = best.gather(1, answers[:, None])[:, 0]
    return (right / best.sum(1)).to(torch.float64)


def logit_difference(logits: Float[Tensor, "batch vocab"], items: Sequence[HandItem]) -> Float[Tensor, " batch"]:
    """Return logit(answer) - logit(counterfactual answer) for each item.

    Args:
        logits: at the last position of each item's prompt (or of its counterfactual).
        items: the items, in the same order.
    """
    answers = torch.tensor([[item.answer, item.cf_answer] for item in items], device=logits.device)
    right, other = logits.gather(1, answers).unbind(1)
    return right - other
