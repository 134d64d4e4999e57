"""`zoo:atlas`: a small trained language model of countries and cities; its card is README.md beside the weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from microtome.core.errors import ModelError
from microtome.models.zoo.catalog import ZooEntry

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ENTRY", "FOLDER"]

FOLDER = Path(__file__).parent


def load_atlas(name: str, dtype: "torch.dtype | None" = None, *, folder: Path = FOLDER) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) read by plain transformers.

    Args:
        name: what was asked for, for the error.
        dtype: type of the weights; None keeps what the file says.
        folder: where config, weights and tokenizer are; the package's own folder.

    Raises:
        ModelError: the weights are not in the package.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"'zoo:{name}' has no weights: '{weights.name}' is not in {folder}; make it with "
            "`microtome zoo build atlas --seed 0`."
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {} if dtype is None else {"dtype": dtype}
    module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)
    return module.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


ENTRY = ZooEntry("atlas", "a trained Llama-style model of countries and cities, with in-context lookup", load_atlas)
