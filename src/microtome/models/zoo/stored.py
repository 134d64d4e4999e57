"""Trained models of the zoo: folders inside the package that plain transformers loads."""

from pathlib import Path
from typing import TYPE_CHECKING

from microtome.core.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load_stored", "require_weights"]

WEIGHTS = "model.safetensors"


def load_stored(folder: Path, name: str, recipe: str, dtype: "torch.dtype | None" = None) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) of a folder.

    Args:
        folder: config, weights and tokenizer.
        name: what was asked for, for the error.
        recipe: the command that makes it.
        dtype: type of the weights; None means float32 (the files hold float16, which CPUs compute slowly in).

    Raises:
        ModelError: the weights are not there.
    """
    require_weights(folder / WEIGHTS, name, recipe)
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    module = AutoModelForCausalLM.from_config(config, dtype=dtype or torch.float32)
    state = load_file(folder / WEIGHTS)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    module.load_state_dict(state)
    return module.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def require_weights(file: Path, name: str, recipe: str) -> None:
    """Refuse a file that is not in the package.

    Args:
        file: which.
        name: of the model that needs it.
        recipe: the command that makes it.

    Raises:
        ModelError: it is not there.
    """
    if not file.is_file():
        raise ModelError(
            f"'zoo:{name}' has no weights: '{file.name}' is not in {file.parent}; make it with `{recipe}`."
        )
