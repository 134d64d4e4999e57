"""Family: an intervention with a strength, so that all of them can be compared at the same damage to clean text.

A family has settings (how many directions, which block) and, under each, arms of any strength from 0, which changes
nothing, to a largest. Adding a method is adding a function to a file of this folder: each file lists in `FAMILIES` the
`Maker`s of them, by name.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import ConfigError, did_you_mean
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.subject import Subject

__all__ = ["Family", "Found", "Maker", "families", "left_out"]


@dataclass(frozen=True, eq=False)
class Found:
    """What screening and ablating neurons found, on the discovery half.

    Attributes:
        areas: site -> AUROC of each neuron, within strata of length.
        writes: site -> how much P(flagged word) falls without each neuron.
    """

    areas: Mapping[str, np.ndarray]
    writes: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Family:
    """An intervention with a strength.

    Attributes:
        name: short name.
        label: what a reader sees.
        place: what it acts on.
        settings: told name -> what `make` takes.
        make: from (setting, strength) to an arm; strength 0 changes nothing.
        most: the largest strength.
        whole: strength is a whole number (of neurons).
        control: what the others must beat.
        source: paper.
    """

    name: str
    label: str
    place: str
    settings: Mapping[str, object]
    make: Callable[[object, float], Arm]
    most: float = 1.0
    whole: bool = False
    control: bool = False
    source: str = ""


@dataclass(frozen=True)
class Maker:
    """How a family is made.

    Attributes:
        make: fits it; None where this model or these texts do not allow it.
        control: it runs whatever methods are asked for.
        default: it runs where none are named; else only by name or with `paper_compat`.
        needs: a package without which it is left out.
    """

    make: Callable[[Subject, Found], Family | None]
    control: bool = False
    default: bool = True
    needs: str = ""


def families(subject: Subject, found: Found) -> list[Family]:
    """Return the families that the configuration asks for, methods before controls; each is fitted here.

    Raises:
        ConfigError: a name in `arms.only` that none has.
    """
    makers = _makers()
    only, compat = subject.config.arms.only, subject.config.paper_compat
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise ConfigError(f"No method '{unknown[0]}'; there are {', '.join(makers)}.{did_you_mean(unknown[0], makers)}")
    asked = [m for n, m in makers.items() if m.control or ((n in only) if only else (m.default or compat))]
    made = [maker.make(subject, found) for maker in asked if not _lacking(maker)]
    return sorted((f for f in made if f is not None), key=lambda f: f.control)


def left_out() -> list[str]:
    """Return the names of methods that are left out because their package is not installed, with the package."""
    return [f"{name} ({maker.needs} is not installed)" for name, maker in _makers().items() if _lacking(maker)]


def _lacking(maker: Maker) -> bool:
    return bool(maker.needs) and importlib.util.find_spec(maker.needs) is None


def _makers() -> dict[str, Maker]:
    package = importlib.import_module("microtome.studies.toxicity.methods")
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {name: maker for module in modules for name, maker in getattr(module, "FAMILIES", {}).items()}
