"""`zoo:atlas`: a small trained language model of countries and cities; its card is README.md beside the weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from microtome.models.zoo.catalog import ZooEntry
from microtome.models.zoo.stored import load_stored

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ENTRY", "FOLDER"]

FOLDER = Path(__file__).parent


def load_atlas(name: str, dtype: "torch.dtype | None" = None, *, folder: Path = FOLDER) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) read by plain transformers.

    Args:
        name: what was asked for, for the error.
        dtype: type of the weights; None means float32 (the file holds float16, which CPUs compute slowly in).
        folder: where config, weights and tokenizer are; the package's own folder.

    Raises:
        ModelError: the weights are not in the package.
    """
    return load_stored(folder, name, "microtome zoo build atlas --seed 0", dtype)


ENTRY = ZooEntry("atlas", "a trained Llama-style model of countries and cities, with in-context lookup", load_atlas)
