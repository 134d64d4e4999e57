"""The catalogue of the zoo, found by scanning this package: a file or folder that exposes `ENTRY` is a zoo model.

    zoo:hand              the model as its entry makes it
    zoo:hand-redundant    one of the entry's variants

Adding a model is adding one file; nothing here changes. An entry builds or reads weights only when it is loaded, so
listing costs the imports of small modules.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from microtome.core.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ZooEntry", "list_zoo", "load_zoo"]


@dataclass(frozen=True)
class ZooEntry:
    """One model of the zoo.

    Attributes:
        name: its name after `zoo:`.
        summary: what it is, in one line.
        load: called with a full name (`name` or `name-variant`) and a dtype or None; returns (module, tokenizer).
        variants: the endings it also answers to, as `name-variant`.
    """

    name: str
    summary: str
    load: "Callable[[str, torch.dtype | None], tuple[nn.Module, object]]"
    variants: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name this entry answers to."""
        return (self.name, *(f"{self.name}-{v}" for v in self.variants))


def list_zoo() -> list[ZooEntry]:
    """Return the entries of the zoo, sorted by name."""
    package = importlib.import_module("microtome.models.zoo")
    modules = (importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__))
    entries = (getattr(module, "ENTRY", None) for module in modules)
    return sorted((e for e in entries if isinstance(e, ZooEntry)), key=lambda e: e.name)


def load_zoo(name: str, dtype: "torch.dtype | None" = None) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) of a zoo model.

    Args:
        name: an entry's name or `name-variant`, with or without the `zoo:` in front.
        dtype: type of the weights; None keeps the entry's own.

    Raises:
        ModelError: the zoo has no such model, or its weights are absent.
    """
    asked = name.removeprefix("zoo:")
    owners = {known: entry for entry in list_zoo() for known in entry.names}
    if asked not in owners:
        listed = ", ".join(f"zoo:{known}" for known in owners)
        raise ModelError(f"No zoo model 'zoo:{asked}'; the zoo has {listed}.{did_you_mean(asked, owners)}")
    return owners[asked].load(asked, dtype)
