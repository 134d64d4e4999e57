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
        dtype: type of the weights; None means float32 (the file holds float16, which CPUs compute slowly in).
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
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    module = AutoModelForCausalLM.from_config(config, dtype=dtype or torch.float32)
    module.load_state_dict(load_file(weights))
    return module.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


ENTRY = ZooEntry("atlas", "a trained Llama-style model of countries and cities, with in-context lookup", load_atlas)
