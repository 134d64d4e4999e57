"""The embedding regressor: a table for each input, mixed by fixed attention, residual blocks, a linear readout.

    h = SiLU(V_z e_z + V_n e_n + V_t e_t + b)        h <- h + ReLU(W2 ReLU(W1 h)), `blocks` times
    prediction = base / width (u_t . h + c_t)

the network of arXiv 2405.17425's released code (specification, section 4), there of width 1024 to 2048. Concatenating
three embeddings and mapping them is a sum of one map for each token ("concat"), that is attention with constant
weights; "attention" makes that literal: one value map shared by the tokens, each with weight 1/3.

The readout's factor and the rates of inner matrices fall with width as muP has it (arXiv 2203.03466, table 8, Adam):
what was tuned at width `base` holds at other widths.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["MIXINGS", "EmbeddingRegressor", "Shape"]

MIXINGS = ("concat", "attention")


@dataclass(frozen=True)
class Shape:
    """The size of a regressor.

    Attributes:
        protons: rows of the table of Z; the largest Z that can be asked for is one less.
        neutrons: rows of the table of N.
        tasks: rows of the table of tasks, and outputs of the readout.
        embedding: numbers in an embedding.
        width: of the residual stream.
        blocks: residual blocks.
        mixing: `concat` or `attention`.
        base: the width at which learning rates are meant.
        spread: standard deviation of the embeddings before training.
    """

    protons: int
    neutrons: int
    tasks: int = 1
    embedding: int = 64
    width: int = 64
    blocks: int = 2
    mixing: str = "concat"
    base: int = 64
    spread: float = 1.0

    def __post_init__(self):
        if self.mixing not in MIXINGS:
            raise ConfigError(
                f"No mixing '{self.mixing}' of embeddings; there are {' and '.join(MIXINGS)}: use one."
                f"{did_you_mean(self.mixing, MIXINGS)}"
            )
        sizes = {n: getattr(self, n) for n in ("protons", "neutrons", "tasks", "embedding", "width", "base")}
        if wrong := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
            raise ConfigError(f"A regressor with {', '.join(wrong)} was asked for; give sizes of at least 1.")


class EmbeddingRegressor(nn.Module):
    """Predicts numbers of nuclei from Z, N and the task, all three by embedding.

    Args:
        shape: its size.
        draw: makes the first weights; torch's default generator if None.

    Example:
        >>> module = EmbeddingRegressor(Shape(protons=100, neutrons=160))
        >>> module(torch.tensor([26]), torch.tensor([30]), torch.tensor([0])).shape
        torch.Size([1])
    """

    def __init__(self, shape: Shape, draw: torch.Generator | None = None):
        super().__init__()
        self.shape = shape
        self.z = nn.Embedding(shape.protons, shape.embedding)
        self.n = nn.Embedding(shape.neutrons, shape.embedding)
        self.task = nn.Embedding(shape.tasks, shape.embedding)
        maps = 3 if shape.mixing == "concat" else 1
        self.values = nn.ModuleList(nn.Linear(shape.embedding, shape.width, bias=False) for _ in range(maps))
        self.offset = nn.Parameter(torch.zeros(shape.width))
        self.blocks = nn.ModuleList(Block(shape.width) for _ in range(shape.blocks))
        self.readout = nn.Linear(shape.width, shape.tasks)
        self._start(draw)

    @torch.no_grad()
    def _start(self, draw: torch.Generator | None) -> None:
        for name, parameter in self.named_parameters():
            if name in ("z.weight", "n.weight", "task.weight"):
                parameter.normal_(0, self.shape.spread, generator=draw)
            elif parameter.ndim > 1:
                bound = 1 / math.sqrt(parameter.shape[1])
                parameter.uniform_(-bound, bound, generator=draw)
            else:
                parameter.zero_()

    def forward(self, z: Int[Tensor, "row"], n: Int[Tensor, "row"], task: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        """Return one standardised prediction a row."""
        return self.read(self.features(z, n, task), task)

    def features(
        self, z: Int[Tensor, "row"], n: Int[Tensor, "row"], task: Int[Tensor, "row"]
    ) -> Float[Tensor, "row width"]:
        """Return what the readout reads."""
        # Whole tables are mapped and then looked up, for they are shorter than rows; a single task is added to all.
        of_z, of_n, of_task = (self._valued(k, t.weight) for k, t in enumerate((self.z, self.n, self.task)))
        look = nn.functional.embedding
        return self._deep(look(z, of_z) + look(n, of_n) + (of_task if self.shape.tasks == 1 else look(task, of_task)))

    def from_embeddings(
        self, z: Float[Tensor, "row embedding"], n: Float[Tensor, "row embedding"], task: Int[Tensor, "row"]
    ) -> Float[Tensor, "row"]:
        """Return predictions for embeddings that need not be those of any number."""
        mixed = self._valued(0, z) + self._valued(1, n) + self._valued(2, self.task(task))
        return self.read(self._deep(mixed), task)

    def read(self, features: Float[Tensor, "row width"], task: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        """Return each row's prediction for its task from its features."""
        outputs = nn.functional.linear(features, self.readout.weight, self.readout.bias) * self.output_scale
        return outputs[:, 0] if self.shape.tasks == 1 else outputs.gather(1, task[:, None])[:, 0]

    @property
    def output_scale(self) -> float:
        """The readout's factor, 1 at the base width."""
        return self.shape.base / self.shape.width

    def _valued(self, token: int, embedding: Tensor) -> Tensor:
        if self.shape.mixing == "concat":
            return self.values[token](embedding)
        return self.values[0](embedding) / 3

    def _deep(self, mixed: Tensor) -> Tensor:
        h = nn.functional.silu(mixed + self.offset)
        for block in self.blocks:
            h = block(h)
        return h

    def rate_of(self, name: str) -> float:
        """Return what a parameter's learning rate is times: the width's share for inner matrices, 1 for others."""
        return self.shape.base / self.shape.width if name.startswith(("values", "blocks")) and "bias" not in name else 1


class Block(nn.Module):
    """h + ReLU(W2 ReLU(W1 h)), without norm or dropout, as released.

    Args:
        width: of h.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """Return h with what the block adds."""
        return h + torch.relu(self.second(torch.relu(self.first(h))))
