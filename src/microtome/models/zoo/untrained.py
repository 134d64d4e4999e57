"""The untrained twin of a model: the same structure with freshly initialised weights, the null for every finding.

A statistic that also flags units of the untrained twin says nothing about learning. A transformers model is built
again from its config, so its own initialisation runs. Any other module is copied; each part with `reset_parameters`
runs it, and a tensor that no such part owns is drawn from a normal with the mean and spread it had. Buffers are kept
(they hold running statistics or constants, not choices of an initialisation), except where `reset_parameters` resets
them.
"""

import copy

import torch
from torch import Tensor, nn

__all__ = ["untrained"]


def untrained(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return a new module of the same structure, type and device, in eval mode, initialised from a seed.

    Args:
        module: the model; it is not changed.
        seed: seed of the initialisation. The global random state is the same afterwards as before.

    Source: the control of arXiv 1810.03292 (Sanity Checks for Saliency Maps, section 3): randomised parameters.
    """
    first = next(module.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _rebuilt(module) if hasattr(type(module), "from_pretrained") else _reinitialised(module)
    return fresh.to(first.device, first.dtype).eval()


def _rebuilt(module: nn.Module) -> nn.Module:
    """Build a transformers model from its own config (the constructor runs the family's initialisation)."""
    return type(module)(copy.deepcopy(module.config))


def _reinitialised(module: nn.Module) -> nn.Module:
    fresh = copy.deepcopy(module).cpu()
    done: set[Tensor] = set()
    for part in fresh.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
            done.update(part.parameters(recurse=False))
    for parameter in fresh.parameters():
        if parameter not in done:
            _redraw(parameter)
    return fresh


def _redraw(parameter: nn.Parameter) -> None:
    """Fill a tensor from a normal with its present mean and (population) standard deviation."""
    mean, spread = parameter.detach().mean(), parameter.detach().std(correction=0)
    with torch.no_grad():
        parameter.copy_(mean + spread * torch.randn_like(parameter))
