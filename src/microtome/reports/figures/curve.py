"""Curve: a number along an ordered axis - effect by number of ablated units, or by layer - with interval bands.

The grey band is the control (matched random sets, an untrained model); a curve inside it shows nothing.
"""

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.marks import channel_tips, faceted, legend, panel
from microtome.reports.theme import GREY, PALETTE, by_name, dashes
from microtome.reports.views import View

__all__ = ["KIND"]

CONTROL = ("null", "null_low", "null_high")


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    width, columns = panel(view, data)
    rows = _with_shared(sorted(data.rows, key=lambda r: r["x"]))
    log = KIND.option(view, "log_x")
    whole = all(float(r["x"]).is_integer() for r in rows)
    axis = alt.Axis(grid=False, tickMinStep=1, format="~d") if whole else alt.Axis(grid=False)
    scale = alt.Scale(zero=False, nice=False, padding=8)
    if log:
        scale = alt.Scale(type="log" if rows[0]["x"] > 0 else "symlog", nice=False, padding=8)
        axis.values = sorted({r["x"] for r in rows})
    x = alt.X("x:Q", title=view.label("x"), axis=axis, scale=scale)
    y_title = view.label("y")
    series, dash = alt.value(PALETTE[0]), alt.value([1, 0])
    if "series" in view.encodings:
        named = data.values("series")
        key = legend(view, named, symbolType="stroke", symbolStrokeWidth=2.5, symbolSize=250)
        series = alt.Color("series:N", scale=by_name(named), sort=named, legend=key)
        if len(named) > len(PALETTE):
            dash = alt.StrokeDash("series:N", scale=dashes(named), sort=named, legend=key)
    base = alt.Chart().encode(x=x)
    layers = _controls(base, view, data, rows)
    if data.has("low") and data.has("high"):
        layers.append(base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q", color=series))
    line = base.encode(y=alt.Y("y:Q", title=y_title), color=series)
    layers += [
        line.mark_line(strokeWidth=2.2).encode(strokeDash=dash),
        line.mark_point(filled=True, size=38, opacity=1).encode(tooltip=channel_tips(view, KIND, data)),
    ]
    return faceted(
        view, data, alt.layer(*layers).properties(width=width, height=300 if columns == 1 else 220), rows, columns
    )


def _with_shared(rows: list[dict]) -> list[dict]:
    """Mark the rows that draw the control: the first at each place where all series share one, else every row."""
    seen: dict[tuple, set] = {}
    for row in rows:
        seen.setdefault((row.get("facet"), row["x"]), set()).add(tuple(row.get(c) for c in CONTROL))
    shared = all(len(values) == 1 for values in seen.values())
    first = {place: True for place in seen}
    return [{**r, "draws": not shared or first.pop((r.get("facet"), r["x"]), False), "apart": not shared} for r in rows]


def _controls(base: alt.Chart, view: View, data: Columns, rows: list[dict]) -> list[alt.Chart]:
    """Return the reference rule, the control's grey band and its dashed line."""
    y_title, level = view.label("y"), KIND.option(view, "reference")
    layers = []
    if level is not None:
        layers.append(alt.Chart().mark_rule(color=GREY, strokeWidth=1).encode(y=alt.Y(datum=level)))
    split = [alt.Detail("series:N")] if "series" in view.encodings and rows[0]["apart"] else []
    base = base.transform_filter("datum.draws")
    if data.has("null_low") and data.has("null_high"):
        band = base.mark_area(color=GREY, opacity=0.3)
        layers.append(band.encode(*split, y=alt.Y("null_low:Q", title=y_title), y2="null_high:Q"))
    if data.has("null"):
        layers.append(base.mark_line(color=GREY, strokeDash=[5, 4]).encode(*split, y=alt.Y("null:Q", title=y_title)))
    return layers


KIND = Kind(
    name="curve",
    summary="a number along an ordered axis with interval bands and a grey control band",
    draw=_draw,
    required={"x": "layer, number of units, ...", "y": "the number"},
    optional={
        "low": "interval's lower end",
        "high": "interval's upper end",
        "series": "one coloured line each",
        "facet": "one panel each",
        "null": "control's mean",
        "null_low": "lower end of the control's band",
        "null_high": "upper end of the control's band",
        "n": "items, on pointing",
    },
    options={"log_x": False, "reference": 0},
    names=frozenset({"series", "facet"}),
)
