"""The page: everything a report shows of a record, in reading order, as plain values for the template.

Question and headline numbers, verdicts, figures, then what only some readers open: tables, configuration, provenance,
how to run it again. A number of the headline carries its interval, n and control, or it is not in the headline.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import tomli_w

from microtome.core.errors import RecordError, did_you_mean
from microtome.core.study import Study
from microtome.records import Claim, Verdict
from microtome.reports.contents import Contents
from microtome.reports.drawing import Drawing, draw_view
from microtome.reports.numbers import cell, interval, number
from microtome.reports.theme import to_svg

__all__ = ["page_of"]

MARKS = {
    "reproduced": ("✔", "good"),
    "same direction": ("≈", "near"),
    "not reproduced": ("✘", "bad"),
    "not testable here": ("○", "open"),
}
ROWS_SHOWN = 40
HEADLINES = 4


def page_of(contents: Contents, study: Study | None = None) -> dict[str, Any]:
    """Return what the template shows of a record.

    Args:
        contents: the record.
        study: the study it is of, for title and question; without it the study's name stands there.

    Raises:
        RecordError: a view does not fit the record's tables.
    """
    claims = [_judged(claim, verdict) for claim, verdict in contents.claims]
    drawings = [draw_view(view, contents.tables, contents.table) for view in contents.views]
    return {
        "study": contents.study,
        "title": study.title if study else contents.study,
        "paper": study.paper if study else "",
        "question": study.question if study else "",
        "status": contents.status,
        "name": contents.path.name,
        "about": _about(contents),
        "headlines": [c for c in claims if c["headline"]][:HEADLINES],
        "claims": claims,
        "views": _numbered([_view(place, drawing) for place, drawing in enumerate(drawings)]),
        "tables": [_table(name, contents.table(name)) for name in contents.tables],
        "reasons": contents.reasons,
        "config": [(k, number(v), k in contents.changed) for k, v in _flat(contents.config)],
        "apart": [(k, number(v)) for k, v in contents.changed.items()],
        "provenance": [(k, str(v)) for k, v in _flat(contents.origin)],
        "stages": [(name, number(seconds), tables) for name, seconds, tables in contents.stages],
        "command": _command(contents.command),
        "toml": tomli_w.dumps(_without_none(contents.config)),
    }


def _judged(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """Return a row of the verdicts; a headline is a number with its interval, n and control."""
    mark, tone = MARKS[verdict.outcome]
    paper = "" if claim.paper_number is None else number(claim.paper_number)
    measured = isinstance(verdict.measured, int | float)
    return {
        "id": claim.id.replace("_", " "),
        "statement": claim.statement,
        "judged": claim.judged,
        "paper": paper,
        "place": claim.place,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "mark": mark,
        "tone": tone,
        "measured": number(verdict.measured),
        "interval": interval(verdict.interval),
        "n": number(verdict.n),
        "control": [(name, number(value)) for name, value in verdict.control.items()],
        "headline": measured and verdict.interval is not None and verdict.n is not None and bool(verdict.control),
    }


def _about(contents: Contents) -> list[tuple[str, str]]:
    model = [("model", str(contents.config["model"]))] if "model" in contents.config else []
    return [*model, ("seed", str(contents.seed))]


def _view(place: int, drawing: Drawing) -> dict[str, Any]:
    view = drawing.view
    shown: dict[str, Any] = {
        "number": None,
        "id": f"view-{place}",
        "kind": view.kind,
        "title": view.title,
        "paragraphs": [p for p in view.caption.split("\n\n") if p.strip()],
        "notes": drawing.notes,
        "control": view.control,
        "source": view.table,
        "svg": "",
        "head": [],
    }
    if drawing.chart is not None:
        shown["svg"] = to_svg(drawing.chart, f"view-{place}")
    elif drawing.data is not None:
        shown |= _listed(drawing)
    return shown


def _numbered(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the figures among the views, from 1."""
    for place, view in enumerate((v for v in views if v["svg"]), start=1):
        view["number"] = place
    return views


def _listed(drawing: Drawing) -> dict[str, Any]:
    """Return the head and rows of a `table` view: sorted, cut, formatted."""
    view, rows = drawing.view, drawing.data.rows
    columns = list(view.encodings["columns"])
    sort, limit = drawing.kind.option(view, "sort"), drawing.kind.option(view, "limit")
    formats = drawing.kind.option(view, "formats")
    for option, column in [*([("sort", sort.removeprefix("-"))] if sort else []), *(("formats", c) for c in formats)]:
        if column not in columns:
            raise RecordError(
                f"View '{view.title}': option '{option}' names column '{column}'; the view shows {', '.join(columns)}."
                f"{did_you_mean(column, columns)}"
            )
    rows = _sorted(rows, sort) if sort else rows
    body = [[cell(row[c], formats.get(c), view.title, c) for c in columns] for row in rows[:limit]]
    return {
        "head": [(view.labels.get(c, c.replace("_", " ")), _numeric(rows, c)) for c in columns],
        "body": body,
        "shown": f"{len(body):,} of {len(rows):,} rows" if len(body) < len(rows) else f"{len(rows):,} rows",
    }


def _sorted(rows: list[dict], sort: str) -> list[dict]:
    """Return the rows by a column, "-column" largest first; rows without a value come last."""
    key = sort.removeprefix("-")
    told = sorted((r for r in rows if r[key] is not None), key=lambda r: r[key], reverse=sort.startswith("-"))
    return told + [r for r in rows if r[key] is None]


def _numeric(rows: list[dict], column: str) -> bool:
    return all(isinstance(r[column], int | float) and not isinstance(r[column], bool) for r in rows)


def _table(name: str, table: pa.Table) -> dict[str, Any]:
    rows = table.slice(0, ROWS_SHOWN).to_pylist()
    head = [(c, _numeric(rows, c)) for c in table.column_names]
    body = [[number(value) for value in row.values()] for row in rows]
    return {"name": name, "rows": table.num_rows, "head": head, "body": body, "shown": len(body)}


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def _command(words: Sequence[str]) -> str:
    """Return the command as it was typed, with the launcher's path taken off."""
    if not words:
        return ""
    name = Path(words[0]).name
    first = "microtome" if name in ("microtome", "__main__.py", "main.py") else f"python {shlex.quote(name)}"
    return " ".join([first, shlex.join(words[1:])]).strip()


def _without_none(plain: Any) -> Any:
    """Return a configuration as TOML can hold it: None is written "none"."""
    if isinstance(plain, Mapping):
        return {k: _without_none(v) for k, v in plain.items()}
    if isinstance(plain, list):
        return [_without_none(v) for v in plain]
    return "none" if plain is None else plain
