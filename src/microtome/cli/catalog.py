"""Catalog: the studies that are installed, found by discovery; none is imported before it is asked for."""

from typing import TYPE_CHECKING

from microtome.core.discovery import Loader, discover, pick
from microtome.core.errors import ConfigError
from microtome.core.study import Study

if TYPE_CHECKING:
    from microtome.records import Record

__all__ = ["all_studies", "study_named", "study_of"]

PACKAGE = "microtome.studies"


def _installed() -> dict[str, Loader]:
    return discover(PACKAGE, "STUDY", PACKAGE)


def _is_study(found: object, name: str) -> Study:
    if not isinstance(found, Study):
        raise ConfigError(f"Plugin '{name}' of '{PACKAGE}' is a {type(found).__name__}; make it a Study.")
    return found


def all_studies() -> list[Study]:
    """Return every study, by name."""
    return [_is_study(load(), name) for name, load in _installed().items()]


def study_named(name: str) -> Study:
    """Return a study.

    Raises:
        ConfigError: no study has that name; the message lists those there are.
    """
    return _is_study(pick(_installed(), name, "study"), name)


def study_of(record: "Record") -> Study | None:
    """Return the study that a record is of, or None where it is not installed (the report then has no question)."""
    found = _installed()
    return _is_study(found[record.study](), record.study) if record.study in found else None
