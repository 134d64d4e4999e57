"""Bars: a count or share by category, with an interval where there is one and the control as a grey tick."""

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.marks import channel_tips, faceted, in_order, legend, panel
from microtome.reports.theme import GREY, INK, PALETTE, by_name
from microtome.reports.views import View

__all__ = ["KIND"]


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    width, columns = panel(view, data)
    across = in_order([r["x"] for r in data.rows])
    named = data.values("series") if "series" in view.encodings else []
    step = min(64 * max(1, len(named)) + 20, width // len(across))
    turned = -35 if max(len(str(x)) for x in across) * 7 > step else 0
    axis = alt.Axis(labelAngle=turned, ticks=False, labelPadding=6)
    base = alt.Chart().encode(x=alt.X("x:N", sort=across, title=view.label("x"), axis=axis))
    colour = alt.value(PALETTE[0])
    if named:
        base = base.encode(xOffset=alt.XOffset("series:N", sort=named))
        colour = alt.Color("series:N", scale=by_name(named), sort=named, legend=legend(view, named))
    title = view.label("y")
    layers = [
        base.mark_bar(opacity=0.85).encode(
            y=alt.Y("y:Q", title=title), color=colour, tooltip=channel_tips(view, KIND, data)
        )
    ]
    if data.has("low") and data.has("high"):
        layers.append(base.mark_rule(color=INK, strokeWidth=1.6).encode(y=alt.Y("low:Q", title=title), y2="high:Q"))
    if data.has("control"):
        layers.append(base.mark_tick(color=GREY, thickness=4, size=30).encode(y=alt.Y("control:Q", title=title)))
    sized = alt.layer(*layers).properties(width=step * len(across), height=260)
    return faceted(view, data, sized, data.rows, columns)


KIND = Kind(
    name="bars",
    summary="a count or share by category",
    draw=_draw,
    required={"x": "category", "y": "the number"},
    optional={
        "low": "interval's lower end",
        "high": "interval's upper end",
        "series": "one colour each, side by side",
        "facet": "one panel each",
        "control": "the control's value",
        "n": "items, on pointing",
    },
    options={},
    names=frozenset({"x", "series", "facet"}),
)
