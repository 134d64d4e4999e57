"""Drawing: from a declared view and a record's tables to a chart with its notes.

The notes stand under the title: n, interval, control, then what the kind itself has to say (correlations) and how many
rows could not be drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import pyarrow as pa

from microtome.reports.columns import Columns, read_columns
from microtome.reports.kinds import Kind, check_view
from microtome.reports.views import View, parse_view

__all__ = ["Drawing", "draw_view"]


@dataclass(frozen=True)
class Drawing:
    """A view ready for the page.

    Attributes:
        view: what was declared.
        kind: its kind.
        chart: the chart, or None for tables and text.
        data: the drawn data, or None for text.
        notes: n, interval and what else must be known to read it.
    """

    view: View
    kind: Kind
    chart: alt.TopLevelMixin | None
    data: Columns | None
    notes: tuple[str, ...]


def draw_view(declared: object, tables: Sequence[str], read: Callable[[str], pa.Table]) -> Drawing:
    """Return a view as a chart with its notes.

    Args:
        declared: the view, or the mapping that declares it.
        tables: the names of the record's tables.
        read: gives a table by name.

    Raises:
        RecordError: the declaration does not fit its kind or the tables.
    """
    view = parse_view(declared)
    kind = check_view(view)
    if not view.encodings:
        return Drawing(view, kind, None, None, _notes(view))
    data = read_columns(view, kind, tables, read)
    if kind.draw is None:
        return Drawing(view, kind, None, data, _notes(view))
    further = list(kind.notes(view, data)) if kind.notes else []
    if data.dropped:
        further.append(f"{data.dropped:,} rows without a value are not drawn")
    return Drawing(view, kind, kind.draw(view, data), data, (*_notes(view), *further))


def _notes(view: View) -> tuple[str, ...]:
    n = f"{view.n:,}" if isinstance(view.n, int) else view.n
    stated = (("n", " = ", n), ("interval", ": ", view.interval))
    return tuple(f"{name}{said}{value}" for name, said, value in stated if value is not None)
