"""Load from a Hub id, a local folder or the zoo: safetensors or `weights_only` unpickling; no remote code unasked."""

import pickle
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers
from torch import nn

from microtome.core.errors import ModelError
from microtome.models.quiet import without_progress_bars

__all__ = ["load_parts"]


def load_parts(
    source: str, *, dtype: torch.dtype | None, attn: str | None, device_map: object | None, trust_remote_code: bool
) -> tuple[nn.Module, object | None, str]:
    """Return (module, tokenizer or None, name).

    Raises:
        ModelError: the folder is missing or holds no model, the file is a pickle, or the zoo has no such model.
    """
    if source.startswith("zoo:"):
        from microtome.models.zoo.catalog import load_zoo

        module, tokenizer = load_zoo(source.removeprefix("zoo:"), dtype)
        if attn is not None and hasattr(module, "set_attn_implementation"):
            module.set_attn_implementation(attn)
        return module, tokenizer, source
    path = Path(source)
    _refuse_unusable(source, path)
    common = {"trust_remote_code": trust_remote_code}
    options = {k: v for k, v in (("dtype", dtype), ("attn_implementation", attn), ("device_map", device_map)) if v}
    if path.is_dir() and not list(path.glob("*.safetensors*")):
        options["use_safetensors"] = False
    try:
        config = transformers.AutoConfig.from_pretrained(source, **common)
        with without_progress_bars() if path.is_dir() else nullcontext():
            module = _class_for(config).from_pretrained(source, config=config, **common, **options)
    except pickle.UnpicklingError as error:
        raise ModelError(f"Model '{source}' holds a pickle that runs code; convert it to safetensors first.") from error
    except OSError as error:
        why = str(error).strip().splitlines()[0]
        raise ModelError(f"Model '{source}' could not be loaded: {why} Give a folder, a Hub id or zoo:NAME.") from error
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"Model '{source}' could not be loaded: {first}") from error
    return module, _tokenizer(source, common), source


def _refuse_unusable(source: str, path: Path) -> None:
    looks_local = path.is_absolute() or source.startswith((".", "~")) or path.exists()
    if path.is_file():
        raise ModelError(
            f"Model '{source}' is a file, not a folder: a lone checkpoint (perhaps a pickle) is not loaded; give the "
            "folder written by save_pretrained (config.json and model.safetensors)."
        )
    if looks_local and not path.is_dir():
        raise ModelError(f"No model folder '{source}'; give a folder with config.json, a Hub id, or zoo:NAME.")
    if path.is_dir() and not (path / "config.json").is_file():
        held = sorted(p.name for p in path.iterdir())[:5]
        raise ModelError(
            f"Folder '{source}' holds no config.json (found {held or 'nothing'}); write it with save_pretrained."
        )


def _class_for(config) -> type:
    """Return the class the checkpoint was saved from, or the causal LM of its kind."""
    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM


def _tokenizer(source: str, common: dict) -> object | None:
    """Return the tokenizer beside the weights, or None where the folder has none (vision models)."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model")
    path = Path(source)
    if path.is_dir() and not any((path / n).is_file() for n in names):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(source, **common)
    except (OSError, KeyError, ValueError):
        return None
