"""Marks: pieces that several kinds of figure share: axes in order, legends, facets, what pointing at a mark shows."""

import math
from collections.abc import Sequence

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.theme import PLOT_WIDTH, as_data
from microtome.reports.views import View

__all__ = ["Shape", "channel_tips", "faceted", "in_order", "joined", "legend", "panel", "wordy"]

Shape = alt.LayerChart | alt.Chart


def wordy(value: object) -> bool:
    """Whether a value is a name rather than a number."""
    return isinstance(value, str | bool)


def in_order(values: Sequence[object]) -> list:
    """Return names in order of appearance, numbers ascending."""
    distinct = list(dict.fromkeys(values))
    return distinct if any(wordy(v) or v is None for v in distinct) else sorted(distinct)


def joined(rows: list[dict], into: str, parts: Sequence[str], glue: str = "  ") -> list[dict]:
    """Return the rows with channel `into` holding several channels' values as one text."""
    return [{**r, into: glue.join(str(r[p]) for p in parts if r.get(p) is not None)} for r in rows]


def channel_tips(view: View, kind: Kind, data: Columns, *, digits: int = 3) -> list[alt.Tooltip]:
    """Return what a reader sees on pointing at a mark: every encoded channel, by its label."""
    tips = []
    for channel in (*kind.required, *kind.optional):
        if channel in view.encodings and data.rows and channel in data.rows[0]:
            numeric = any(isinstance(r[channel], float) for r in data.rows)
            form = {"type": "quantitative", "format": f".{digits}f"} if numeric else {"type": "nominal"}
            tips.append(alt.Tooltip(field=channel, title=view.label(channel), **form))
    return tips


def legend(view: View, named: Sequence[object], **symbol: object) -> alt.Legend:
    """Return the legend of a view's series above the plot: in one line, or in columns where that has no room."""
    longest, whole = max(len(str(x)) for x in named), sum(len(str(x)) * 6.2 + 30 for x in named)
    room = PLOT_WIDTH - 200
    columns = {} if whole <= room else {"columns": max(1, int(room // (longest * 6.2 + 30))), "labelLimit": 300}
    return alt.Legend(
        title=view.label("series"), orient="top", direction="horizontal", symbolOpacity=1, **columns, **symbol
    )


def panel(view: View, data: Columns, *, columns: int = 3, room: int = 90) -> tuple[int, int]:
    """Return (width of one panel, panels in a row) so that a facetted figure fits the page.

    Args:
        view: the view.
        data: its data.
        columns: most panels in a row.
        room: pixels each panel's axis takes.
    """
    if "facet" not in view.encodings:
        return PLOT_WIDTH - 200, 1
    facets = len(data.values("facet"))
    count = math.ceil(facets / math.ceil(facets / columns))  # rows of equal length: four in 2 x 2, not 3 + 1
    return max(180, (PLOT_WIDTH - 110) // count - room), count


def faceted(
    view: View, data: Columns, chart: Shape, rows: list[dict], columns: int, *, own_x: bool = False, own_y: bool = False
) -> alt.TopLevelMixin:
    """Return a chart with its data, split in panels where the view encodes a facet; `own_x`, `own_y`: of each panel."""
    if "facet" not in view.encodings:
        return chart.properties(data=as_data(rows))
    header = alt.Header(title=None, labelAnchor="start")
    split = alt.Facet(field="facet", type="nominal", sort=data.values("facet"), header=header)
    panels = chart.facet(split, data=as_data(rows), columns=columns).resolve_axis(x="independent", y="independent")
    own = {axis: "independent" for axis, wanted in (("x", own_x), ("y", own_y)) if wanted}
    return panels.resolve_scale(**own) if own else panels
