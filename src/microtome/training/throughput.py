"""How much of a machine a training run uses: model FLOPs per token, and the FLOPs a second the machine can do.

    FLOPs of a token = 6 N + 12 L d T       (PaLM, arXiv 2204.02311, appendix B)
    MFU              = tokens per second * FLOPs of a token / peak FLOPs per second

N counts the parameters that are multiplied with: all but an embedding table that is only looked up. L layers with d
dimensions of heads attend over T tokens; that the mask leaves out more than half of them is not taken off, as is usual.
Recomputed activations do not count. Of a mixture of experts all count as if used, so its figures are too high.
"""

import time
from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

__all__ = ["Meter", "measured_peak", "model_flops"]


def model_flops(module: nn.Module, seq: int) -> int:
    """Return the floating-point operations of one token in training: the forward pass and twice that backward.

    Args:
        module: a transformers causal language model.
        seq: tokens of a row.
    """
    config = module.config
    head, table = module.get_output_embeddings(), module.get_input_embeddings().weight
    looked_up = 0 if head is not None and head.weight is table else table.numel()
    multiplied = sum(p.numel() for p in module.parameters()) - looked_up
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 6 * multiplied + 12 * config.num_hidden_layers * width * seq


@cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs a second of one device, as its fastest of a few large matrix products shows.

    It is measured once in a process. A vendor's figure is higher: no product reaches it.

    Args:
        device: where.
        dtype: of the matrices.
    """
    size = 768 if device.type == "cpu" else 8192
    draw = torch.Generator(device).manual_seed(0)  # the run's own generators are left alone
    left = torch.randn(size, size, device=device, generator=draw).to(dtype)
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        (left @ left).flatten()[0].item()  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


class Meter:
    """Tokens a second, share of the peak, and the time that is left.

    Args:
        flops: of a token, apart from attention, and those of attention for each token of a row.
        peak: FLOPs a second of one device.
        world: devices.
        steps: updates in all.
    """

    def __init__(self, flops: tuple[int, int], peak: float, world: int, steps: int):
        self._flops, self._peak, self._steps = flops, peak * world, steps
        self._tokens, self._updates, self._seconds, self._done = 0, 0, 0.0, 0

    def count(self, tokens: int, seq: int, seconds: float) -> None:
        """Add an update.

        Args:
            tokens: of the update, all processes together.
            seq: tokens of a row.
            seconds: it took.
        """
        self._tokens += tokens
        self._done += tokens * (self._flops[0] + self._flops[1] * seq)
        self._updates += 1
        self._seconds += seconds

    @property
    def speed(self) -> float:
        """Tokens a second, all processes together; 0 before the first update."""
        return self._tokens / self._seconds if self._seconds else 0.0

    @property
    def mfu(self) -> float:
        """Share of the peak; 0 before the first update."""
        return self._done / (self._seconds * self._peak) if self._seconds else 0.0

    def line(self, losses: Sequence[float]) -> str:
        """Say in one line how it goes.

        Args:
            losses: of all updates so far.
        """
        recent, left = losses[-20:], self._seconds / self._updates * (self._steps - len(losses))
        return (
            f"loss {sum(recent) / len(recent):.3f}, {self.speed:,.0f} tokens/s, MFU {100 * self.mfu:.0f} %, "
            f"about {left / 60:.1f} min left"
        )
