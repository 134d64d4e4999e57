"""The warm-up of arXiv 2405.17425: a small network that adds modulo a prime, to look at its embedding's circles.

    logits = W2 ReLU(W1 (E_a + E_b) + b1) + b2        full batch, cross-entropy, AdamW with strong decay

On four fifths of the pairs it soon answers all others; its table of embeddings then turns with a few frequencies
(`measures.fourier_planes`). A table that has only been drawn has none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import ConfigError
from microtome.core.seeds import derive

__all__ = ["ModularAdder", "TrainedAdder", "fit_modular_addition"]


class ModularAdder(nn.Module):
    """Answers a + b modulo p.

    Args:
        p: the modulus.
        width: of embeddings.
        hidden: units of the layer between.
        draw: makes the first weights.
    """

    def __init__(self, p: int, width: int, hidden: int, draw: torch.Generator):
        super().__init__()
        self.embed = nn.Embedding(p, width)
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, p)
        with torch.no_grad():
            self.embed.weight.normal_(generator=draw)
            for layer in (self.inner, self.outer):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=draw)
                layer.bias.uniform_(-bound, bound, generator=draw)

    def forward(self, a: Int[Tensor, "row"], b: Int[Tensor, "row"]) -> Float[Tensor, "row p"]:
        """Return the logits of every answer."""
        return self.outer(torch.relu(self.inner(self.embed(a) + self.embed(b))))


@dataclass(frozen=True, eq=False)
class TrainedAdder:
    """A trained network and how it does on pairs it was not trained on.

    Attributes:
        module: the network.
        before: its embeddings before training, [p, width].
        after: after it.
        accuracy: on held-out pairs.
        held: how many they are.
        history: (step, training loss, held-out accuracy).
    """

    module: ModularAdder
    before: Float[np.ndarray, "p width"]
    after: Float[np.ndarray, "p width"]
    accuracy: float
    held: int
    history: tuple[tuple[int, float, float], ...]


def fit_modular_addition(
    p: int,
    *,
    seed: int,
    steps: int = 600,
    share: float = 0.8,
    width: int = 64,
    hidden: int = 128,
    lr: float = 3e-3,
    weight_decay: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedAdder:
    """Return a network trained on some of the pairs of Z_p.

    Args:
        p: the modulus, at least 5.
        seed: of weights and pairs.
        steps: of full-batch AdamW.
        share: of the pairs to train on.
        width: of embeddings.
        hidden: units between.
        lr: learning rate.
        weight_decay: of every parameter.
        progress: called with (steps done, steps).

    Raises:
        ConfigError: a modulus or share that leaves nothing to train on or to test.
    """
    if p < 5 or not 0 < share < 1 or steps < 1:
        raise ConfigError(
            f"Addition modulo {p} on {share:g} of the pairs in {steps} steps was asked for; give a modulus of at least "
            "5, a share between 0 and 1, and a step."
        )
    draw = torch.Generator().manual_seed(derive(seed, "modular"))
    pairs = torch.randperm(p * p, generator=draw)
    a, b = pairs // p, pairs % p
    answer, known = (a + b) % p, round(share * p * p)
    module = ModularAdder(p, width, hidden, draw)
    before = module.embed.weight.detach().double().numpy().copy()
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    history = []
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(1, steps + 1):
            loss = nn.functional.cross_entropy(module(a[:known], b[:known]), answer[:known])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % max(1, steps // 30) == 0 or step == steps:
                history.append((step, float(loss.detach()), _accuracy(module, a[known:], b[known:], answer[known:])))
                if progress is not None:
                    progress(step, steps)
    after = module.embed.weight.detach().double().numpy().copy()
    return TrainedAdder(module.eval(), before, after, history[-1][2], len(pairs) - known, tuple(history))


@torch.no_grad()
def _accuracy(module: ModularAdder, a: Tensor, b: Tensor, answer: Tensor) -> float:
    return float((module(a, b).argmax(1) == answer).float().mean())
