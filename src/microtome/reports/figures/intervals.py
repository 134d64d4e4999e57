"""Intervals: one dot with its interval per group, and the control's value beside it as a grey mark.

For accuracies by cell, or drops by ablated set and task. Groups run down the page in the table's order.
"""

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.marks import channel_tips, faceted, in_order, legend, panel
from microtome.reports.theme import GREY, PALETTE, by_name
from microtome.reports.views import View

__all__ = ["KIND"]


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    width, columns = panel(view, data, columns=2, room=170)
    groups = in_order([r["group"] for r in data.rows])
    named = data.values("series") if "series" in view.encodings else []
    step = 18 * max(1, len(named)) + 14
    base = alt.Chart().encode(
        y=alt.Y(
            "group:N",
            sort=groups,
            title=view.label("group"),
            axis=alt.Axis(labelLimit=280, domain=False, ticks=False, labelPadding=8),
        )
    )
    colour = alt.value(PALETTE[0])
    if named:
        base = base.encode(yOffset=alt.YOffset("series:N", sort=named))
        colour = alt.Color("series:N", scale=by_name(named), sort=named, legend=legend(view, named))
    layers = _rules(view)
    if data.has("control_low") and data.has("control_high"):
        wide = base.mark_rule(color=GREY, strokeWidth=9, opacity=0.35)
        layers.append(wide.encode(x=_along(view, "control_low", width), x2="control_high:Q"))
    if data.has("control"):
        tick = base.mark_tick(color=GREY, thickness=3, size=14)
        layers.append(tick.encode(x=_along(view, "control", width)))
    span = base.mark_rule(strokeWidth=2.4)
    layers.append(span.encode(x=_along(view, "low", width), x2="high:Q", color=colour))
    dot = base.mark_point(filled=True, size=85, opacity=1).encode(x=_along(view, "value", width), color=colour)
    layers.append(dot.encode(tooltip=channel_tips(view, KIND, data)))
    own = _differ(view, data)  # a panel is as high as its own groups
    height = {"step": step, "for": "position"} if own else max(60, step * len(groups))
    sized = alt.layer(*layers).properties(width=width, height=height)
    return faceted(view, data, sized, data.rows, columns, own_y=own)


def _differ(view: View, data: Columns) -> bool:
    """Whether panels hold different groups."""
    if "facet" not in view.encodings:
        return False
    held = {facet: frozenset(r["group"] for r in data.rows if r["facet"] == facet) for facet in data.values("facet")}
    return len(set(held.values())) > 1


def _along(view: View, channel: str, width: int) -> alt.X:
    """Return a channel on the axis that all of them share, with as many numbers as have room on it."""
    return alt.X(f"{channel}:Q", title=view.label("value"), axis=alt.Axis(tickCount=min(8, max(3, width // 50))))


def _rules(view: View) -> list[alt.Chart]:
    level = KIND.option(view, "reference")
    if level is None:
        return []
    return [alt.Chart().mark_rule(color=GREY, strokeWidth=1).encode(x=alt.X(datum=level))]


KIND = Kind(
    name="intervals",
    summary="one dot with its interval per group, the control beside it in grey",
    draw=_draw,
    required={"group": "what each row stands for", "value": "the number", "low": "lower end", "high": "upper end"},
    optional={
        "series": "one colour each",
        "facet": "one panel each",
        "control": "the control's value",
        "control_low": "lower end of the control's interval",
        "control_high": "upper end of the control's interval",
        "n": "items, on pointing",
    },
    options={"reference": 0},
    names=frozenset({"group", "series", "facet"}),
)
