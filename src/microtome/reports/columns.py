"""Columns: what a view asks of a record's tables, read, filtered and renamed by channel.

Rows leave here as plain dictionaries {channel: value}, so the drawing functions never meet a column's name, and every
mistake (no such table, no such column, text where numbers belong, nothing left after `where`) is named before drawing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from microtome.core.errors import RecordError, did_you_mean
from microtome.reports.kinds import Kind
from microtome.reports.views import View

__all__ = ["Columns", "read_columns"]


@dataclass(frozen=True)
class Columns:
    """The data of one view.

    Attributes:
        rows: one {channel: value} per row of the view's table that can be drawn.
        others: channel -> values that are not null, for channels that come from another table.
        dropped: how many rows had no number in a required channel and are not drawn.
    """

    rows: list[dict[str, object]]
    others: Mapping[str, list[object]]
    dropped: int = 0

    def values(self, channel: str) -> list:
        """Return a channel's distinct values in order of first appearance."""
        return list(dict.fromkeys(row[channel] for row in self.rows))

    def has(self, channel: str) -> bool:
        """Whether any row has a value in this channel."""
        return any(row.get(channel) is not None for row in self.rows)

    def numbers(self, channel: str) -> list[float]:
        """Return a channel's numbers, without its nulls."""
        return [row[channel] for row in self.rows if row.get(channel) is not None]

    def one(self, channel: str) -> object:
        """Return the single value that another table gives for a channel, or None where it is not encoded."""
        return self.others[channel][0] if self.others.get(channel) else None


def read_columns(view: View, kind: Kind, tables: Sequence[str], read: Callable[[str], pa.Table]) -> Columns:
    """Return the data that a view asks for.

    Args:
        view: the view.
        kind: its kind.
        tables: the names of the record's tables.
        read: gives a table by name.

    Raises:
        RecordError: a table or column is missing, holds the wrong type, or `where` leaves no rows.
    """
    wanted = _wanted(view, kind, tables)
    found = {t: _rows(view, kind, t, columns, _table(view, t, tables, read)) for t, columns in wanted.items()}
    main = found.pop(view.table, [])
    others = {c: [row[c] for row in rows] for rows in found.values() for c in rows[0]}
    _check_others(view, kind, others)
    must = [c for c in kind.required if c not in kind.names and c in wanted.get(view.table, {})]
    kept = [_named(view, row) for row in main if all(row[c] is not None for c in must)]
    if main and not kept:
        raise RecordError(f"View '{view.title}': {len(main)} rows of table '{view.table}' hold no number in {must}.")
    _check_apart(view, main)
    told = {c: [v for v in values if v is not None] for c, values in others.items()}
    return Columns(kept, told, len(main) - len(kept))


def _wanted(view: View, kind: Kind, tables: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return table -> channel -> column, after holding each channel against the tables it may draw from."""
    wanted: dict[str, dict[str, str]] = {}
    elsewhere = kind.single | kind.draws
    for channel, column in view.encodings.items():
        for part in [column] if isinstance(column, str) else column:
            table, name = _address(view, part, tables)
            if channel in elsewhere and table == view.table:
                raise RecordError(
                    f"View '{view.title}': channel '{channel}' takes a column of another table, found '{part}'; "
                    f"write table.column with one of {', '.join(tables)}.{did_you_mean(part.partition('.')[0], tables)}"
                )
            if channel not in elsewhere and table != view.table:
                raise RecordError(
                    f"View '{view.title}': channel '{channel}' takes a column of table '{view.table}', found '{part}'; "
                    "put both into one table."
                )
            wanted.setdefault(table, {})[channel if isinstance(column, str) else part] = name
    for column in view.where:
        prefix, dot, _ = column.partition(".")
        if dot and prefix not in wanted:
            raise RecordError(
                f"View '{view.title}': `where` speaks of '{column}'; it draws from {', '.join(wanted)}."
                f"{did_you_mean(prefix, wanted)}"
            )
    return wanted


def _check_others(view: View, kind: Kind, others: Mapping[str, list]) -> None:
    """Refuse an observed value that is not exactly one row, and a required channel without a number."""
    for channel, values in others.items():
        column = view.encodings[channel]
        if channel in kind.single and len(values) != 1:
            raise RecordError(
                f"View '{view.title}': channel '{channel}' ({column}) takes one row, found {len(values)}; filter it "
                "with `where`, e.g. {'table.column': value}."
            )
        if channel in kind.required and all(v is None for v in values):
            raise RecordError(f"View '{view.title}': channel '{channel}' ({column}) holds no number; drop the view.")


def _address(view: View, column: str, tables: Sequence[str]) -> tuple[str, str]:
    """Return (table, column) of `column` or `table.column`."""
    table, dot, name = column.partition(".")
    if dot and table in tables:
        return table, name
    if view.table is None:
        raise RecordError(f"View '{view.title}' encodes column '{column}' but names no table; give `table`.")
    return view.table, column


def _table(view: View, name: str, tables: Sequence[str], read: Callable[[str], pa.Table]) -> pa.Table:
    if name not in tables:
        raise RecordError(
            f"View '{view.title}' asks for table '{name}'; the record has {', '.join(tables) or 'none'}."
            f"{did_you_mean(name, tables)}"
        )
    return read(name)


def _rows(view: View, kind: Kind, name: str, columns: dict[str, str], table: pa.Table) -> list[dict]:
    """Return the filtered rows of one table, renamed by channel."""
    known = table.column_names
    conditions = {_address(view, c, [name])[1]: v for c, v in view.where.items() if _belongs(view, c, name)}
    for column in [*columns.values(), *conditions]:
        if column not in known:
            raise RecordError(
                f"View '{view.title}' asks for column '{column}' of table '{name}'; it has {', '.join(known)}."
                f"{did_you_mean(column, known)}"
            )
    rows = table.select(list(dict.fromkeys([*columns.values(), *conditions]))).to_pylist()
    for column, value in conditions.items():
        allowed = value if isinstance(value, list) else [value]
        kept = [row for row in rows if row[column] in allowed]
        if not kept:
            held = ", ".join(repr(v) for v in list(dict.fromkeys(row[column] for row in rows))[:8]) or "no rows"
            raise RecordError(f"View '{view.title}': no rows of '{name}' where {column} = {value!r}; it holds {held}.")
        rows = kept
    if not rows:
        raise RecordError(f"View '{view.title}': table '{name}' has no rows; drop the view or fill the table.")
    return [{c: _clean(view, kind, c, row[column]) for c, column in columns.items()} for row in rows]


def _named(view: View, row: dict[str, object]) -> dict[str, object]:
    """Return a row as a reader sees it: codes replaced by the view's names for them."""
    return {c: view.names[c].get(str(v), v) if c in view.names else v for c, v in row.items()}


def _check_apart(view: View, rows: list[dict]) -> None:
    """Refuse names that make one group of two."""
    for channel, names in view.names.items():
        seen: dict[object, object] = {}
        for value in dict.fromkeys(row[channel] for row in rows):
            shown = names.get(str(value), value)
            if seen.setdefault(shown, value) != value:
                raise RecordError(
                    f"View '{view.title}': `names` of '{channel}' show '{seen[shown]}' and '{value}' both as "
                    f"'{shown}'; give each its own name."
                )


def _belongs(view: View, column: str, table: str) -> bool:
    """Whether a condition speaks of this table: `table.column`, or a bare column of the view's own."""
    prefix, dot, _ = column.partition(".")
    return prefix == table if dot else table == view.table


def _clean(view: View, kind: Kind, channel: str, value: object) -> object:
    """Return a value that JSON can hold; refuse text in a channel of numbers; NaN counts as missing."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if kind.measured and channel not in kind.names and value is not None and not isinstance(value, int | float):
        raise RecordError(
            f"View '{view.title}': channel '{channel}' takes numbers, column '{view.encodings[channel]}' holds "
            f"{value!r}; encode a numeric column."
        )
    return value if value is None or isinstance(value, str | int | float) else str(value)
