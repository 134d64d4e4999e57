"""The errors a caller can cause, drawn as one tree.

    MicrotomeError
    |- SiteError      an address that names no tensor of this model
    |- UnitsError     coordinates that do not fit the site, empty selections
    |- ConfigError    unknown key, wrong type, unreadable TOML
    |- ModelError     a model that cannot be loaded safely
    |  `- AnatomyError  a model whose parts cannot be found from its structure
    |- DataError      missing, empty or malformed input data
    |- EditError      an edit that cannot be applied where it was asked for
    |- MeasureError   a score that is undefined on the data given
    |- RecordError    a record that cannot be read, written or resumed
    `- StoreError     an activation store that is damaged or does not hold what was asked

Every message is one line with three parts: what was asked, what was found, what to do. Unexpected errors are
left to fly.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "AnatomyError",
    "ConfigError",
    "DataError",
    "EditError",
    "MeasureError",
    "MicrotomeError",
    "ModelError",
    "RecordError",
    "SiteError",
    "StoreError",
    "UnitsError",
    "did_you_mean",
]


class MicrotomeError(Exception):
    """Base of every error a caller can cause; the command prints it as one line and exits with 2."""


class SiteError(MicrotomeError):
    """An address that names no tensor of this model, or does not parse."""


class UnitsError(MicrotomeError):
    """Unit coordinates that do not fit their site."""


class ConfigError(MicrotomeError):
    """A configuration with an unknown key or a value of the wrong type."""


class ModelError(MicrotomeError):
    """A model that cannot be loaded, or not safely."""


class AnatomyError(ModelError):
    """A model whose parts cannot be found from its structure."""


class DataError(MicrotomeError):
    """Input data that is missing, empty or malformed."""


class EditError(MicrotomeError):
    """An edit that cannot be applied where it was asked for."""


class MeasureError(MicrotomeError):
    """A score that is undefined on the data given."""


class RecordError(MicrotomeError):
    """A record that cannot be read, written or resumed."""


class StoreError(MicrotomeError):
    """An activation store that is damaged or does not hold what was asked for."""


def did_you_mean(asked: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string when none is near."""
    near = difflib.get_close_matches(asked, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
