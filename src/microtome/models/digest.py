"""A digest of a module's weights: what a record names to say which model it is about."""

import hashlib

import torch
from torch import nn

__all__ = ["weights_digest"]


def weights_digest(module: nn.Module) -> str:
    """Return a digest of the names and bits of a module's weights and buffers, as `blake2b:` and 16 bytes in hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"blake2b:{digest.hexdigest()}"
