"""In which precision a basis computes: single at least, so that a bfloat16 model does not blunt its axes."""

import torch
from torch import Tensor

__all__ = ["wide"]


def wide(x: Tensor) -> Tensor:
    """Return the tensor in its own precision or in float32, whichever is finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
