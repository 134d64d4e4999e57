"""Render: a record to one HTML file that opens from disk, offline; and each of its figures to SVG and PNG.

The file holds everything inline (style, script, figures). All text from data goes through the template's escaping or
into SVG text nodes written by the renderer; a content security policy in the page forbids what would load anything.
"""

import re
from pathlib import Path

import jinja2

from microtome.core.errors import RecordError
from microtome.core.files import write_atomic
from microtome.core.study import Study
from microtome.records import Record
from microtome.reports.contents import contents_of
from microtome.reports.drawing import draw_view
from microtome.reports.page import page_of
from microtome.reports.theme import to_png, to_svg

__all__ = ["export_figures", "render"]

HERE = Path(__file__).parent


def render(record: "Record | str | Path", study: Study | None = None) -> Path:
    """Write `report.html` beside `record.json` and return its path.

    Args:
        record: a record, or the folder of one.
        study: the study it is of, for title and question.

    Raises:
        RecordError: no readable record, or a view that does not fit it; no file is written then.

    Example:
        >>> render("runs/recall/quick-atlas-0")
    """
    record = record if isinstance(record, Record) else Record.load(record)
    loader = jinja2.FileSystemLoader(HERE / "template")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                               undefined=jinja2.StrictUndefined)  # fmt: skip
    html = pages.get_template("report.html").render(page_of(contents_of(record), study))
    path = record.path / "report.html"
    write_atomic(path, html.encode("utf-8"))
    return path


def export_figures(record: "Record | str | Path", folder: str | Path) -> list[Path]:
    """Write each figure as SVG and PNG, with its title, and return the paths.

    Args:
        record: a record, or the folder of one.
        folder: where to write; made when absent.

    Raises:
        RecordError: no readable record, a view that does not fit it, or `folder` is a file.
    """
    record = record if isinstance(record, Record) else Record.load(record)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"Cannot write figures to '{folder}': found a file there. Give a folder.")
    drawings = [draw_view(v, record.tables, record.table) for v in record.manifest.views]
    written = []
    for place, drawing in enumerate(drawings):
        if drawing.chart is None:
            continue
        notes = ["; ".join(drawing.notes), f"control: {drawing.view.control}"]
        chart = drawing.chart.properties(title={"text": drawing.view.title, "subtitle": notes})
        slug = re.sub(r"[^a-z0-9]+", "-", drawing.view.title.lower()).strip("-")[:50]
        stem = f"{place + 1:02d}-{drawing.kind.name}-{slug}"
        for suffix, data in (("svg", to_svg(chart, stem).encode()), ("png", to_png(chart))):
            path = folder / f"{stem}.{suffix}"
            write_atomic(path, data)
            written.append(path)
    return written
