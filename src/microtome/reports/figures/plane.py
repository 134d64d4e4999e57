"""Plane: points where they lie, coloured by a number or by group, on a background that another table gives.

For embeddings in two components coloured by a third, a chart of nuclides (squares, rules at magic numbers), and maps of
predictions over a plane (`field`: rectangles from x to x2 and y to y2). Names stand where they have room; points may be
joined in the order of the table. Signed colours are blue-orange with white at 0, others viridis; `limit` cuts off the
colours' scale, so that a few far points do not make the others pale.
"""

from functools import partial

import altair as alt

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.labels import CORNERS, GAP, LINE, place
from microtome.reports.marks import channel_tips, faceted, legend, panel
from microtome.reports.theme import GREY, INK, PALETTE, as_data, by_name, colour_scale
from microtome.reports.views import View

__all__ = ["KIND"]

FIELD = ("field_x", "field_x2", "field_y", "field_y2", "field")


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    width, columns = panel(view, data, columns=KIND.option(view, "columns"))
    width = min(width, 640)
    height = round(width * (0.66 if KIND.option(view, "squares") else 0.7))
    ends = {c: _ends(data.numbers(c) + list(_edges(data, c))) for c in ("x", "y")}
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=view.label("x"), scale=alt.Scale(domain=ends["x"], nice=False), axis=_axis(width)),
        y=alt.Y("y:Q", title=view.label("y"), scale=alt.Scale(domain=ends["y"], nice=False), axis=_axis(height)),
    )
    rows = [{**row, "order": k} for k, row in enumerate(data.rows)]
    layers = [*_field(view, data), *_rules(data)]
    if KIND.option(view, "join"):
        layers.append(base.mark_line(color=GREY, strokeWidth=1, opacity=0.6).encode(order="order:Q"))
    layers.append(_points(view, data, base, width))
    if data.has("label"):
        rows = _cornered(rows, partial(_pixels, ends=ends, size=(width, height)), (width, height))
        layers += _names(base, halo=bool(data.others.get("field")))
    sized = alt.layer(*layers).properties(width=width, height=height)
    return faceted(view, data, sized, rows, columns)


def _ends(numbers: list[float]) -> list[float]:
    low, high = min(numbers), max(numbers)
    margin = 0.04 * (high - low) or 1.0
    return [low - margin, high + margin]


def _edges(data: Columns, channel: str) -> list[float]:
    return [*data.others.get(f"field_{channel}", []), *data.others.get(f"field_{channel}2", [])]


def _axis(pixels: float) -> alt.Axis:
    return alt.Axis(tickCount=max(3, min(8, int(pixels // 70))), grid=False)


def _points(view: View, data: Columns, base: alt.Chart, width: float) -> alt.Chart:
    colour = alt.value(PALETTE[0])
    if "series" in view.encodings:
        named = data.values("series")
        colour = alt.Color("series:N", scale=by_name(named), sort=named, legend=legend(view, named))
    elif "color" in view.encodings:
        colour = _colour(view, data.numbers("color"), "color")
    if KIND.option(view, "squares"):
        across = max(data.numbers("x")) - min(data.numbers("x")) + 1
        size = max(4.0, (0.92 * width / across) ** 2)
        return base.mark_square(size=size, opacity=1).encode(color=colour, tooltip=channel_tips(view, KIND, data))
    drawn = base.mark_circle(size=46, opacity=0.95, stroke=GREY if _signed(view, data) else "white", strokeWidth=0.6)
    return drawn.encode(color=colour, tooltip=channel_tips(view, KIND, data))


def _signed(view: View, data: Columns) -> bool:
    """Whether points may be as white as the page."""
    return "color" in view.encodings and colour_scale(data.numbers("color"), KIND.option(view, "scale"))[1]


def _colour(view: View, numbers: list[float], channel: str) -> alt.Color:
    limit = KIND.option(view, "limit") or 0
    shown = [max(-limit, min(limit, x)) for x in numbers] if limit else numbers
    scale, _ = colour_scale(shown, KIND.option(view, "scale"))
    scale.clamp = True
    return alt.Color(f"{channel}:Q", scale=scale, legend=alt.Legend(title=view.label(channel), orient="right"))


def _field(view: View, data: Columns) -> list[alt.Chart]:
    """Return the background's rectangles, without the words for screen readers that would make the page heavy."""
    if not data.others.get("field"):
        return []
    cells = zip(*(data.others[c] for c in FIELD), strict=True)
    rows = [dict(zip(("x", "x2", "y", "y2", "field"), cell, strict=True)) for cell in cells]
    scale, _ = colour_scale([r["field"] for r in rows])
    fill = alt.Fill(
        "field:Q", scale=scale, legend=alt.Legend(title=view.label("field"), orient="right", type="gradient")
    )
    marks = alt.Chart(as_data(rows)).mark_rect(
        aria=False, strokeWidth=0.7
    )  # a stroke of its own colour hides the seams
    stroke = alt.Stroke("field:Q", scale=scale, legend=None)
    return [marks.encode(x="x:Q", x2="x2:Q", y="y:Q", y2="y2:Q", fill=fill, stroke=stroke)]


def _rules(data: Columns) -> list[alt.Chart]:
    rules = []
    for channel, axis in (("rule_x", alt.X), ("rule_y", alt.Y)):
        if places := data.others.get(channel):
            drawn = alt.Chart(as_data([{"at": at} for at in places])).mark_rule(color=GREY, strokeDash=[3, 3])
            rules.append(drawn.encode(**{channel[-1]: axis("at:Q")}))
    return rules


def _pixels(x: float, y: float, *, ends: dict, size: tuple[float, float]) -> tuple[float, float]:
    (left, right), (bottom, top) = ends["x"], ends["y"]
    return (x - left) / (right - left) * size[0], (top - y) / (top - bottom) * size[1]


def _cornered(rows: list[dict], at: partial, size: tuple[float, float]) -> list[dict]:
    """Return the rows with `corner` saying where a name stands, as far as there is room in each panel."""
    corners: dict[int, str | None] = {}
    for facet in dict.fromkeys(r.get("facet") for r in rows):
        own = [i for i, r in enumerate(rows) if r.get("facet") == facet]
        places = {i: at(rows[i]["x"], rows[i]["y"]) for i in own}
        named = [i for i in own if rows[i]["label"] is not None]
        found = place([(*places[i], str(rows[i]["label"])) for i in named], list(places.values()), *size)
        corners |= zip(named, found, strict=True)
    return [{**r, "corner": corners.get(i)} for i, r in enumerate(rows)]


def _names(base: alt.Chart, *, halo: bool) -> list[alt.Chart]:
    """Return the names, on a background with white around them."""
    layers = []
    for corner, (across, down) in CORNERS.items():
        own = base.transform_filter(f"datum.corner == '{corner}'").encode(text="label:N")
        placed = {"align": "left" if across > 0 else "right", "dx": GAP * across, "dy": LINE / 2 * down, "fontSize": 10}
        if halo:
            layers.append(own.mark_text(**placed, stroke="white", strokeWidth=2.5, opacity=0.85, aria=False))
        layers.append(own.mark_text(**placed, color=INK))
    return layers


KIND = Kind(
    name="plane",
    summary="points in a plane coloured by a number or a group, with names and a background",
    draw=_draw,
    required={"x": "one coordinate", "y": "the other"},
    optional={
        "color": "a number, as a colour",
        "series": "a group, as a colour",
        "label": "name of the point, written where it has room",
        "facet": "one panel each",
        "n": "items, on pointing",
        "rule_x": "places of upright rules, in another table",
        "rule_y": "places of level rules, in another table",
        "field": "the background's number, in another table",
        "field_x": "left of its rectangles",
        "field_x2": "right of them",
        "field_y": "bottom of them",
        "field_y2": "top of them",
    },
    options={"squares": False, "join": False, "scale": "auto", "limit": 0, "columns": 3},
    draws=frozenset({"rule_x", "rule_y", *FIELD}),
    names=frozenset({"series", "label", "facet"}),
)
