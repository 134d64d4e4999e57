"""Filters of documents, one a file: called with a document, they return None to keep it or why it is dropped.

A filter is a frozen dataclass whose fields are its thresholds. A file of this folder that assigns `FILTER` is found by
its name; other packages add theirs through the entry point group `microtome.corpus_filters`. A class's `rank` is its
place among the default filters (None: not one of them, since it has to be fitted or given words), its `needs` the
package it works with. A reason names the rule and nothing of the document, so that reasons can be counted.
"""

import importlib.util
import logging
from typing import ClassVar, Protocol

from microtome.core.discovery import Loader, discover, pick
from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document

__all__ = ["Filter", "available_filters", "default_filters", "find_filter", "installed", "require_shares"]

_LOG = logging.getLogger(__name__)


class Filter(Protocol):
    """What a filter is.

    Attributes:
        rank: place among the default filters, low first; None for none.
        needs: package it cannot work without; None for none.
    """

    rank: ClassVar[int | None]
    needs: ClassVar[str | None]

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        ...


def available_filters() -> dict[str, Loader]:
    """Return the filters there are, by name, not yet imported."""
    return discover(__name__, "FILTER", "microtome.corpus_filters")


def find_filter(name: str) -> type[Filter]:
    """Return the class of a filter by its name, e.g. `length`.

    Args:
        name: the file's.

    Raises:
        ConfigError: there is none of that name.
    """
    return pick(available_filters(), name, "filter of documents")


def default_filters() -> tuple[Filter, ...]:
    """Return the filters that need neither fitting nor word lists, at their default thresholds, in order.

    One whose package is not installed is left out, and the log says so.

    Example:
        chain = Chain(default_filters())
    """
    kinds = [find_filter(name) for name in available_filters()]
    chosen = []
    for kind in sorted((k for k in kinds if k.rank is not None), key=lambda k: (k.rank, k.__name__)):
        if installed(kind.needs):
            chosen.append(kind())
        else:
            _LOG.warning("Left %s out of the default filters: it needs %s (pip install).", kind.__name__, kind.needs)
    return tuple(chosen)


def installed(package: str | None) -> bool:
    """Say whether a package can be imported; None is none to import."""
    return package is None or importlib.util.find_spec(package) is not None


def require_shares(filter: Filter, *names: str) -> None:
    """Check that thresholds are shares.

    Args:
        filter: the one they are fields of.
        names: of the fields.

    Raises:
        DataError: one is not from 0 to 1.
    """
    for name in names:
        value = getattr(filter, name)
        if not 0 <= value <= 1:
            raise DataError(f"{type(filter).__name__} was given {name}={value!r}; it is a share, from 0 to 1.")
