"""Heat map: a number by two coordinates - layer x position with the tokens on the axis, or layer x head.

Signed numbers are blue-orange with white at 0, others viridis; all facets share one scale. Layer 0 lies at the bottom,
as depth grows upward. A dot marks the cells whose `flag` is true.
"""

from collections import Counter

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.marks import channel_tips, faceted, in_order, joined, panel, wordy
from microtome.reports.theme import CELL_INK, colour_scale
from microtome.reports.views import View

__all__ = ["KIND"]


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    rows = joined(data.rows, "x", ("x", "x_name")) if data.has("x_name") else data.rows
    across = in_order([r["x"] for r in sorted(data.rows, key=_key)])
    if data.has("x_name"):
        across = list(dict.fromkeys(r["x"] for r in joined(sorted(data.rows, key=_key), "x", ("x", "x_name"))))
    up = in_order([r["y"] for r in rows])
    if not wordy(up[0]):
        up = up[::-1]
    own = data.has("x_name")  # names of places differ from panel to panel
    most = _most(rows) if own else len(across)
    width, columns = panel(view, data, columns=2 if most > 6 else 3 if most > 4 else 4, room=56)
    step = max(12, min(64, width // most))
    high = max(14, min(34, 380 // len(up)))
    scale, signed = colour_scale(data.numbers("color"), KIND.option(view, "scale"))
    turned = 0 if max(len(str(x)) for x in across) * 7 <= step else -35 if step >= 22 else -90
    base = alt.Chart().encode(
        x=alt.X("x:N", sort=across, title=view.label("x"), axis=alt.Axis(labelAngle=turned, domain=False)),
        y=alt.Y("y:N", sort=up, title=view.label("y"), axis=alt.Axis(domain=False)),
    )
    layers = [
        base.mark_rect(stroke="white", strokeWidth=0.5).encode(
            color=alt.Color(
                "color:Q", scale=scale, legend=alt.Legend(title=_broken(view.label("color")), orient="right")
            ),
            tooltip=channel_tips(view, KIND, Columns(rows, {})),
        )
    ]
    if KIND.option(view, "text") and step >= 34:
        layers.append(_written(base, scale, signed))
    if data.has("flag"):
        layers.append(_dots(rows, across, up))
    sized = alt.layer(*layers).properties(width=step * most, height=high * len(up))
    return faceted(view, data, sized, rows, columns, own_x=own)


def _most(rows: list[dict]) -> int:
    """Return the number of places of the panel that has most."""
    return max(Counter(facet for facet, _ in {(r.get("facet"), r["x"]) for r in rows}).values())


def _broken(label: str) -> list[str]:
    """Return a legend's title in two lines, the unit on the second."""
    name, bracket, unit = label.partition(" (")
    return [name, f"({unit}"] if bracket else [name]


def _dots(rows: list[dict], across: list, up: list) -> alt.Chart:
    """Return a dot in the upper right corner of the cells whose flag is true."""
    return (
        alt.Chart()
        .transform_filter("datum.flag")
        .mark_point(filled=True, size=24, color=CELL_INK, opacity=1, stroke="white", strokeWidth=0.8)
        .encode(
            x=alt.X("x:N", sort=across, bandPosition=0.88),
            y=alt.Y("y:N", sort=up, bandPosition=0.2),
        )
    )


def _key(row: dict) -> object:
    return 0 if wordy(row["x"]) else row["x"]


def _written(base: alt.Chart, scale: alt.Scale, signed: bool) -> alt.Chart:
    """Return the cells' numbers, in whichever of black and white is read on their colour."""
    low, high = scale.domain
    dark = f"abs(datum.color) > {0.72 * high}" if signed else f"datum.color < {low + 0.62 * (high - low)}"
    return base.mark_text(fontSize=11).encode(
        text=alt.Text("color:Q", format=".2f"), color=alt.condition(dark, alt.value("white"), alt.value(CELL_INK))
    )


KIND = Kind(
    name="heatmap",
    summary="a number by two coordinates, e.g. layer x position or layer x head",
    draw=_draw,
    required={"x": "position, head, ...", "y": "layer", "color": "the number"},
    optional={
        "x_name": "token written beside x",
        "facet": "one panel per task or cell",
        "flag": "true where the cell passes its test",
        "low": "interval's lower end, on pointing",
        "high": "interval's upper end, on pointing",
        "n": "items, on pointing",
        "null": "control's value, on pointing",
    },
    options={"scale": "auto", "text": True},
    names=frozenset({"x", "y", "x_name", "facet", "flag"}),
)
