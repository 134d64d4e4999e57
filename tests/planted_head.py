"""A head with a planted concept: directions of the hidden state, not singular vectors, that raise a set of tokens.

The set's rows share a 3-dimensional part; toxic contexts are shifted along it, clean ones are not. Nothing is trained,
so what a method ought to find is known. After the planted check of the toxicity specification, section 2.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

VOCAB, WIDTH, CONCEPT, TOKENS = 1200, 96, 3, 60


class Planted(NamedTuple):
    """The head, the set of tokens, and hidden states for choosing directions and for judging them."""

    weight: Tensor
    tokens: Tensor
    toxic: Tensor
    clean: Tensor
    held_toxic: Tensor
    held_clean: Tensor


def planted_head(seed: int) -> Planted:
    """Return a planted head with 400 contexts of each kind, half of them held out."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    spectrum = torch.linspace(1.6, 0.4, WIDTH, dtype=torch.float64)
    turn = torch.linalg.qr(draw(WIDTH, WIDTH)).Q
    weight = draw(VOCAB, WIDTH) * spectrum @ turn.T
    concept = torch.linalg.qr(draw(WIDTH, CONCEPT)).Q
    tokens = torch.randperm(VOCAB, generator=g)[:TOKENS]
    mean = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    weight[tokens] += 2 * (mean + 0.3 * draw(TOKENS, CONCEPT)) @ concept.T
    toxic, clean = (draw(400, WIDTH) * 2 / WIDTH**0.5 for _ in range(2))
    toxic += 2 * (mean + 0.3 * draw(400, CONCEPT)) @ concept.T
    return Planted(weight, tokens, toxic[::2], clean[::2], toxic[1::2], clean[1::2])


def toxic_mass(planted: Planted, hidden: Tensor) -> float:
    """Return the mean probability of the set."""
    return (hidden @ planted.weight.T).softmax(1)[:, planted.tokens].sum(1).mean().item()
