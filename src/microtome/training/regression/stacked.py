"""Several seeds of one network as a matrix: a row for each seed, all its parameters along it.

    weights [seed, parameter]        outputs[s] = module with the weights of row s, applied to the rows of seed s

A step of a small network is mostly the price of launching its operations; here each is launched once for all seeds:
outputs by `torch.func.vmap`, gradients by `Slopes`. The matrix makes the optimizer five operations in all, a seed that
stops early a row left out, and a checkpoint three tensors. A seed's rows never meet another's, so alone or among others
it learns the same.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

__all__ = ["AdamW", "Stacked"]


class Stacked:
    """The parameters of a module, laid out along a row.

    Args:
        module: whose parameters; its own values are not used.
    """

    def __init__(self, module: nn.Module):
        self.module = module.to("meta")
        self.names, shapes = zip(*((name, p.shape) for name, p in module.named_parameters()), strict=True)
        self.shapes = shapes
        self.sizes = [shape.numel() for shape in shapes]

    def row(self, module: nn.Module) -> Float[Tensor, "parameter"]:
        """Return a module's parameters as one row."""
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def parts(self, weights: Float[Tensor, "seed parameter"]) -> dict[str, Tensor]:
        """Return the parameters by name, each with the seeds in front: views of the matrix."""
        split = weights.split(self.sizes, 1)
        return {
            name: part.view(len(weights), *shape)
            for name, part, shape in zip(self.names, split, self.shapes, strict=True)
        }

    def each(self, value: Callable[[str, int], float]) -> Float[Tensor, "parameter"]:
        """Return a row that gives every parameter a number by its name and number of axes."""
        numbers = [value(name, len(shape)) for name, shape in zip(self.names, self.shapes, strict=True)]
        return torch.tensor(numbers).repeat_interleave(torch.tensor(self.sizes))

    def __call__(self, weights: Float[Tensor, "seed parameter"], *inputs: Tensor) -> Tensor:
        """Return the module's outputs for every seed; inputs have the seeds in front, or none and are shared."""
        shared = inputs[0].ndim == 1
        call = vmap(
            lambda p, *x: functional_call(self.module, p, x), in_dims=(0, *(None if shared else 0,) * len(inputs))
        )
        return call(self.parts(weights), *inputs)


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) of a matrix, rates and decays along its rows.

    Args:
        weights: changed in place by `step`.
        rates: learning rate of each parameter.
        decays: weight decay of each.
        betas: of the running means of gradient and square.
        epsilon: added to the root.
    """

    def __init__(
        self,
        weights: Float[Tensor, "seed parameter"],
        rates: Float[Tensor, "parameter"],
        decays: Float[Tensor, "parameter"],
        *,
        betas: Sequence[float] = (0.9, 0.98),
        epsilon: float = 1e-8,
    ):
        self.weights, self.rates, self.decays = weights, rates, decays
        self._shrink = rates * decays
        self.betas, self.epsilon, self.steps = tuple(betas), epsilon, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "seed parameter"], share: float = 1.0) -> None:
        """Take one step; `share` scales every rate."""
        self.steps += 1
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        # sqrt(v / c) + epsilon = (sqrt(v) + epsilon sqrt(c)) / sqrt(c): the correction joins the rates, which are a row
        root = math.sqrt(1 - second**self.steps)
        size = self.square.sqrt().add_(self.epsilon * root)
        step = self.mean * (self.rates * (share * root / (1 - first**self.steps)))
        self.weights.mul_(1 - self._shrink * share).addcdiv_(step, size, value=-1)

    def part(self, seeds: slice) -> "AdamW":
        """Return an optimizer of copies of some seeds, which `take` gives back."""
        part = AdamW(self.weights[seeds].clone(), self.rates, self.decays, betas=self.betas, epsilon=self.epsilon)
        part.mean, part.square, part.steps = self.mean[seeds].clone(), self.square[seeds].clone(), self.steps
        return part

    def take(self, parts: Sequence["AdamW"]) -> None:
        """Take over from the parts that all seeds were divided into, in order."""
        self.weights, self.mean, self.square = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("weights", "mean", "square")
        )
        self.steps = parts[0].steps

    def keep(self, seeds: Tensor) -> None:
        """Go on with some of the seeds."""
        self.weights, self.mean, self.square = self.weights[seeds], self.mean[seeds], self.square[seeds]
