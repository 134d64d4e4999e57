"""Scatter: one point per unit, e.g. an approximate effect against the exact one, with their correlation.

The correlations are of all points, also where only a part is drawn to keep the page light.
"""

from collections.abc import Callable, Sequence
from functools import partial

import altair as alt
import numpy as np

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.labels import CORNERS, GAP, LINE, place
from microtome.reports.marks import channel_tips, faceted, legend, panel
from microtome.reports.theme import GREY, INK, PALETTE, as_data, by_name
from microtome.reports.views import View

__all__ = ["KIND", "correlations"]


def correlations(x: list[float], y: list[float]) -> tuple[float, float] | None:
    """Return (Spearman, Pearson) of paired numbers, ties at their mean rank; None where either does not vary."""
    from scipy.stats import rankdata

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    ranked = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    return ranked, float(np.corrcoef(x, y)[0, 1])


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    width, columns = panel(view, data)
    width = min(width, 480)
    height = min(360, width)
    rows = _thinned(data.rows, KIND.option(view, "most"))
    colour = alt.value(PALETTE[0])
    if "series" in view.encodings:
        named = data.values("series")
        colour = alt.Color("series:N", scale=by_name(named), sort=named, legend=legend(view, named))
    ends = {c: _ends(data.numbers(c)) for c in ("x", "y")}
    x, y = (alt.Scale(domain=list(ends[c]), nice=False) for c in ("x", "y"))
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=view.label("x"), scale=x), y=alt.Y("y:Q", title=view.label("y"), scale=y)
    )
    dots = base.mark_circle(size=34, opacity=0.65).encode(color=colour, tooltip=channel_tips(view, KIND, data))
    line = _shared(data) if KIND.option(view, "identity") else []
    layers = [*([_diagonal(line)] if line else []), dots]
    if data.has("label"):
        at = partial(_pixels, ends=ends, size=(width, height))
        rows = _cornered(rows, at, line, (width, height), KIND.option(view, "name_most"))
        layers += _names(base)
    sized = alt.layer(*layers).properties(width=width, height=height)
    return faceted(view, data, sized, rows, columns)


def _ends(numbers: list[float]) -> tuple[float, float]:
    """Return an axis's ends: the numbers' with a margin."""
    low, high = min(numbers), max(numbers)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _pixels(x: float, y: float, *, ends: dict, size: tuple[float, float]) -> tuple[float, float]:
    """Return where a point lies in the plot, from the upper left."""
    (left, right), (bottom, top) = ends["x"], ends["y"]
    return (x - left) / (right - left) * size[0], (top - y) / (top - bottom) * size[1]


def _cornered(
    rows: list[dict], at: Callable, line: Sequence[float], size: tuple[float, float], most: int
) -> list[dict]:
    """Return the rows with `corner` saying where a name stands: at the largest, as far as they have room."""
    places = [at(r["x"], r["y"]) for r in rows]
    kept_free = [at(v, v) for v in np.linspace(*line, 60)] if line else []
    corners: dict[int, str | None] = {}
    for facet in dict.fromkeys(r.get("facet") for r in rows):
        own = [i for i, r in enumerate(rows) if r.get("facet") == facet]
        largest = [i for i in sorted(own, key=lambda i: -abs(rows[i]["y"])) if rows[i]["label"] is not None][:most]
        named = [(*places[i], str(rows[i]["label"])) for i in largest]
        taken = [*(places[i] for i in own), *kept_free]
        corners |= zip(largest, place(named, taken, *size), strict=True)
    return [{**r, "corner": corners.get(i)} for i, r in enumerate(rows)]


def _names(base: alt.Chart) -> list[alt.Chart]:
    layers = []
    for corner, (across, down) in CORNERS.items():
        words = base.transform_filter(f"datum.corner == '{corner}'").mark_text(
            align="left" if across > 0 else "right", dx=GAP * across, dy=LINE / 2 * down, fontSize=11, color=INK
        )
        layers.append(words.encode(text="label:N"))
    return layers


def _thinned(rows: list[dict], most: int) -> list[dict]:
    keep = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return [rows[i] for i in keep]


def _shared(data: Columns) -> list[float]:
    """Return the ends of the range that both axes share, nothing where they share none."""
    low = max(min(data.numbers("x")), min(data.numbers("y")))
    high = min(max(data.numbers("x")), max(data.numbers("y")))
    return [low, high] if high > low else []


def _diagonal(line: Sequence[float]) -> alt.Chart:
    """Return the line of equal values."""
    return (
        alt.Chart(as_data([{"x": v, "y": v} for v in line]))
        .mark_line(color=GREY, strokeDash=[5, 4])
        .encode(x="x:Q", y="y:Q")
    )


def _notes(view: View, data: Columns) -> list[str]:
    notes = []
    panels = data.values("facet") if "facet" in view.encodings else [None]
    for name in panels if KIND.option(view, "correlation") else []:
        rows = [r for r in data.rows if name is None or r["facet"] == name]
        found = correlations([r["x"] for r in rows], [r["y"] for r in rows])
        said = f"Spearman {found[0]:.3f}, Pearson {found[1]:.3f}" if found else "no correlation: an axis does not vary"
        notes.append(f"{f'{name}: ' if name is not None else ''}{said}, {len(rows):,} points")
    if len(data.rows) > KIND.option(view, "most"):
        notes.append(f"{KIND.option(view, 'most'):,} evenly chosen points are drawn")
    return notes


KIND = Kind(
    name="scatter",
    summary="one point per unit with rank and linear correlation",
    draw=_draw,
    required={"x": "one number", "y": "the other"},
    optional={
        "series": "one colour each",
        "facet": "one panel each",
        "label": "name of the point, written beside the largest |y|",
        "n": "items, on pointing",
    },
    options={"identity": True, "name_most": 5, "most": 3000, "correlation": True},
    names=frozenset({"series", "facet", "label"}),
    notes=_notes,
)
