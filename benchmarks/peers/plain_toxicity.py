"""What the toxicity study's benchmarks work on, and plain references: an exact factorisation, a hook at the head.

Texts: lengths of 64 kinds; half of the neurons know the class, longer texts have higher values and more of them are
positive, so areas within lengths are others than over all; every other neuron is cut off at 0, which makes long ties.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from benchmarks.workload import POSITIONS, Size, Work, make_work

__all__ = [
    "Screened",
    "head_axes",
    "head_weight",
    "quarter",
    "right_vectors",
    "screened_texts",
    "speaking",
    "spoken",
]

POSITIVE = 10  # of the texts, one in so many
KINDS = 64  # of lengths
SHARE = 4  # of the head's singular vectors, one in so many is chosen
CONDITION = 1e3


@dataclass(frozen=True, eq=False)
class Screened:
    """Pooled activations of texts of two classes.

    Attributes:
        values: [neurons, texts], float16.
        labels: 0 or 1, [texts].
        lengths: tokens, [texts].
    """

    values: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray

    def strata(self) -> list[np.ndarray]:
        """Return the texts of each length that has both classes."""
        groups = [np.flatnonzero(self.lengths == n) for n in np.unique(self.lengths)]
        return [g for g in groups if 0 < self.labels[g].sum() < len(g)]

    def some(self, most: int) -> np.ndarray:
        """Return neurons, evenly spaced."""
        return np.linspace(0, len(self.values) - 1, min(most, len(self.values))).astype(int)


def screened_texts(size: Size) -> Screened:
    """Return the texts; the same numbers in every process."""
    draw = torch.Generator().manual_seed(4)
    labels = torch.arange(size.texts) % POSITIVE == 0
    waited = -12 * torch.rand(size.texts, generator=draw).log() + 4 * labels
    lengths = waited.long().clamp(max=KINDS - 1) + 5
    values = torch.empty(size.screened, size.texts, dtype=torch.float16)
    for rows in values.split(500):
        effects = torch.randn(len(rows), 1, generator=draw).relu() / 2
        drawn = torch.randn(len(rows), size.texts, generator=draw) + effects * labels + lengths.log() / 4 - 1
        drawn[1::2].relu_()
        rows.copy_(drawn)
    return Screened(values.numpy(), labels.numpy().astype(int), lengths.numpy())


def head_weight(work: Work) -> Tensor:
    """Return W = U S V' [vocabulary, 2 x width] in float32, its singular values evenly spaced on a logarithmic scale.

    Rounding W turns its singular vectors by far more than an exact factorisation errs, so V is not the truth to compare
    with; `right_vectors` of W is.
    """
    draw, width = torch.Generator().manual_seed(5), 2 * work.size.hidden
    left, right = (
        torch.linalg.qr(torch.randn(n, width, generator=draw).to(work.device)).Q for n in (work.size.words, width)
    )
    values = torch.logspace(0, -float(np.log10(CONDITION)), width, device=work.device)
    return (left * values) @ right.T


def right_vectors(weight: Tensor) -> Tensor:
    """Return the right singular vectors as columns, by falling singular value, in float64: R of a QR, then its SVD."""
    return torch.linalg.svd(torch.linalg.qr(weight.double(), mode="r").R).Vh.T


def quarter(width: int) -> Tensor:
    """Return which singular vectors are chosen: a quarter of them, drawn."""
    return torch.randperm(width, generator=torch.Generator().manual_seed(6))[: width // SHARE]


# -- generation


def speaking(work: Work) -> Work:
    """Return the work with a vocabulary of a real model's size, generating greedily, with a cache and without end."""
    large = make_work(work.device, work.scratch, replace(work.size, vocabulary=work.size.words))
    large.model.generation_config = GenerationConfig(use_cache=True, do_sample=False, pad_token_id=0)
    return large


def head_axes(work: Work) -> Tensor:
    """Return the chosen singular vectors of the model's head as columns."""
    weight = work.model.lm_head.weight
    return right_vectors(weight)[:, quarter(weight.shape[1])].to(weight.dtype)


def spoken(work: Work, axes: Tensor | None = None) -> Tensor:
    """Return the tokens that follow each prompt, [prompts, new], with some directions projected out before the head."""
    with torch.no_grad(), _before(work.model.lm_head, axes):
        ids = work.clean
        out = work.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=work.size.new)
    return out[:, POSITIONS:]


@contextmanager
def _before(head: nn.Module, axes: Tensor | None):
    if axes is None:
        yield
        return
    handle = head.register_forward_pre_hook(_projecting(axes))
    try:
        yield
    finally:
        handle.remove()


def _projecting(axes: Tensor) -> Callable:
    return lambda module, args: (args[0] - (args[0] @ axes) @ axes.T,)
