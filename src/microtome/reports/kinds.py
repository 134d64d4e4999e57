"""Kinds of view: what channels and options each takes, and the function that draws it.

A kind is one file in `reports/figures` that exposes `KIND`; adding one is adding a file. `check_view` holds a view
against its kind before any number is read, so a mistake in a declaration is named by view, channel and nearest name.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from microtome.core.errors import RecordError, did_you_mean
from microtome.reports.views import View

__all__ = ["Kind", "check_view", "kinds"]


TAKES = {
    bool: (bool,),
    int: (int, float, type(None)),
    str: (str,),
    dict: (dict,),
    type(None): (str, type(None)),
}
"""Type of an option's default -> what the option takes."""


@dataclass(frozen=True)
class Kind:
    """One kind of view.

    Attributes:
        name: what stands in a view's `kind`.
        summary: what it shows, in one line.
        draw: from (view, drawn data) to a chart, or None for views that the page itself lays out.
        required: channel -> meaning, for channels that must be encoded.
        optional: channel -> meaning, for those that may be.
        options: option -> default value.
        lists: the channels that take a list of columns; the others take one.
        single: the channels that take one row of another table, written `table.column`.
        draws: the channels that take all rows of another table, written `table.column`.
        names: the channels whose values are names, so that any type is right; the others hold numbers.
        measured: it shows numbers, so it must state n and control.
        notes: from (view, drawn data) to further sentences under the title.
    """

    name: str
    summary: str
    draw: Callable | None
    required: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    draws: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    measured: bool = True
    notes: Callable | None = None

    def option(self, view: View, name: str):
        """Return an option of a view, or this kind's default."""
        return view.options.get(name, self.options[name])


@cache
def kinds() -> Mapping[str, Kind]:
    """Return every kind by name, found by scanning `microtome.reports.figures`."""
    package = importlib.import_module("microtome.reports.figures")
    modules = (importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__))
    found = [m.KIND for m in modules if hasattr(m, "KIND")]
    return {kind.name: kind for kind in sorted(found, key=lambda k: k.name)}


def check_view(view: View) -> Kind:
    """Return the kind of a view after holding the view against it.

    Raises:
        RecordError: unknown kind, channel or option; a required channel, n, interval or control is missing.
    """
    known = kinds()
    if view.kind not in known:
        raise RecordError(
            f"View '{view.title}': no kind '{view.kind}'; the kinds are {', '.join(known)}."
            f"{did_you_mean(view.kind, known)}"
        )
    kind = known[view.kind]
    channels = {**kind.required, **kind.optional}
    for given, allowed, what in ((view.encodings, channels, "channel"), (view.options, kind.options, "option")):
        for name in given:
            if name not in allowed:
                listed = ", ".join(allowed) or "none"
                raise RecordError(
                    f"View '{view.title}': a {kind.name} has no {what} '{name}'; it has {listed}."
                    f"{did_you_mean(name, allowed)}"
                )
    _check_shapes(view, kind)
    _check_names(view, kind)
    for name, meaning in kind.required.items():
        if name not in view.encodings:
            raise RecordError(f"View '{view.title}': a {kind.name} needs the channel '{name}' ({meaning}); encode it.")
    _check_stated(view, kind)
    return kind


def _check_shapes(view: View, kind: Kind) -> None:
    """Refuse a list where a channel takes one column (and the reverse), and an option of another type."""
    for channel, column in view.encodings.items():
        if isinstance(column, list) is not (channel in kind.lists):
            takes = "a list of columns" if channel in kind.lists else "one column"
            raise RecordError(f"View '{view.title}': channel '{channel}' takes {takes}, found {column!r}; mend it.")
    for option, value in view.options.items():
        usual = kind.options[option]
        fits = TAKES[type(usual)]
        if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits):
            raise RecordError(
                f"View '{view.title}': option '{option}' of a {kind.name} was given {value!r}; it takes a value like "
                f"{usual!r}."
            )


def _check_names(view: View, kind: Kind) -> None:
    """Refuse names for a channel that is not encoded or holds numbers (of a table: for a column it does not show)."""
    listed = [c for channel in kind.lists for c in view.encodings.get(channel, [])]
    takes = [*listed, *(c for c in view.encodings if c in kind.names)]
    for channel in view.names:
        if channel not in takes:
            raise RecordError(
                f"View '{view.title}': `names` speaks of '{channel}'; this view names {', '.join(takes) or 'nothing'}."
                f"{did_you_mean(channel, takes)}"
            )


def _check_stated(view: View, kind: Kind) -> None:
    """Refuse a view of numbers that does not say its n, its control, or what its interval is."""
    if not kind.measured:
        return
    if any(c.endswith("low") for c in view.encodings) and not view.interval:
        raise RecordError(f"View '{view.title}' draws an interval but does not say which; give `interval`.")
    for name in ("n", "control"):
        if getattr(view, name) in (None, ""):
            raise RecordError(f"View '{view.title}' shows numbers without `{name}`; state it ('none: ...' with why).")
