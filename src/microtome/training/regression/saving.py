"""Regressors on disk: one safetensors file, parameters by name with the seeds in front, shape and seeds as metadata."""

import json
from dataclasses import asdict
from pathlib import Path

from microtome.core.errors import ModelError
from microtome.core.files import replace_with
from microtome.training.regression.fitted import Fitted
from microtome.training.regression.network import EmbeddingRegressor, Shape
from microtome.training.regression.stacked import Stacked

__all__ = ["load_fitted", "save_fitted"]


def save_fitted(fitted: Fitted, path: Path | str, *, about: dict | None = None) -> Path:
    """Write regressors; return the path. History and snapshots are not kept.

    Args:
        fitted: what to save.
        path: a file; an old one is replaced.
        about: more to know about them, plain data: scaling, formula, table.

    Example:
        save_fitted(fitted, "direct.safetensors", about={"mean": 1050.0, "std": 510.0})
    """
    from safetensors.torch import save_file

    parts = Stacked(EmbeddingRegressor(fitted.shape)).parts(fitted.weights)
    told = {"shape": asdict(fitted.shape), "seeds": fitted.seeds, "epoch": fitted.epoch, "about": about or {}}
    tensors = {name: part.detach().contiguous() for name, part in parts.items()}
    replace_with(Path(path), lambda part: save_file(tensors, part, metadata={"regressor": json.dumps(told)}))
    return Path(path)


def load_fitted(path: Path | str) -> tuple[Fitted, dict]:
    """Return saved regressors and what was said about them.

    Args:
        path: the file.

    Raises:
        ModelError: no such file, or it holds no regressors.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), "pt") as file:
            told = json.loads((file.metadata() or {})["regressor"])
            parts = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(
            f"Regressors were asked for from '{path}', found {error!r}; give a file of save_fitted."
        ) from None
    shape = Shape(**told["shape"])
    order = Stacked(EmbeddingRegressor(shape)).names
    weights = torch.cat([parts[name].flatten(1) for name in order], 1)
    return Fitted(shape, tuple(told["seeds"]), weights, tuple(told["epoch"])), told["about"]
