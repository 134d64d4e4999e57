"""Probe inputs: the smallest batch that makes a model show its structure."""

import inspect

import torch
from torch import Tensor, nn

from microtome.core.errors import AnatomyError

__all__ = ["accepted_arguments", "input_device", "probe_inputs"]


def accepted_arguments(module: nn.Module) -> set[str]:
    """Return the names of the arguments that the model's forward takes (through `**kwargs` nothing is promised)."""
    return set(inspect.signature(module.forward).parameters)


def input_device(module: nn.Module) -> torch.device:
    """Return the device inputs belong on; a model placed by accelerate names the one its first part runs on."""
    first = next(module.parameters()).device
    if first.type != "meta":
        return first
    hooks = [m._hf_hook for m in module.modules() if hasattr(m, "_hf_hook")]
    placed = next((h.execution_device for h in hooks if getattr(h, "execution_device", None) is not None), first)
    return torch.device(placed) if not isinstance(placed, int) else torch.device("cuda", placed)


def probe_inputs(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Return inputs for one small forward pass: two rows of six tokens, or two images.

    Raises:
        AnatomyError: the forward takes neither `input_ids` nor `pixel_values`.
    """
    takes = accepted_arguments(module)
    config = getattr(module, "config", None)
    text = getattr(config, "text_config", config)
    if "input_ids" in takes:
        tables = [m for m in module.modules() if isinstance(m, nn.Embedding)]
        vocab = getattr(text, "vocab_size", None) or max(t.num_embeddings for t in tables)
        ids = torch.arange(12).reshape(2, 6) * 7919 % int(vocab)
        inputs = {"input_ids": ids.to(device)}
        if "attention_mask" in takes:  # a square mask is used as it is: on meta no value can be inspected
            meta = device.type == "meta"
            shape, dtype = ((2, 1, 6, 6), torch.bool) if meta else ((2, 6), torch.long)
            inputs["attention_mask"] = torch.ones(shape, dtype=dtype, device=device)
        return inputs
    if "pixel_values" in takes:
        size = getattr(config, "image_size", 64)
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.linspace(-1, 1, 2 * config.num_channels * height * width)
        dtype = next(module.parameters()).dtype
        return {"pixel_values": pixels.reshape(2, config.num_channels, height, width).to(device, dtype)}
    raise AnatomyError(
        f"{type(module).__name__}.forward takes {sorted(takes)}, neither 'input_ids' nor 'pixel_values'; pass "
        "example={...} with inputs for one forward pass."
    )
