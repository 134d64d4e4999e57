"""Dissociation: what ablating each set costs each task, and where the index falls among matched random sets.

    DD = [drop_r(S_r) - drop_q(S_r)] + [drop_q(S_q) - drop_r(S_q)]

Left, the drops of two sets x two tasks with their intervals: a double dissociation is a coloured diagonal on a white
ground. Right, the index of every matched random pair of sets in grey, the observed one as a line with its interval
and p-value. The numbers come from the record; nothing is estimated here.
"""

import altair as alt
import numpy as np

from microtome.reports.columns import Columns
from microtome.reports.kinds import Kind
from microtome.reports.numbers import signed
from microtome.reports.theme import CELL_INK, GREY, PALETTE, as_data, colour_scale
from microtome.reports.views import View

__all__ = ["KIND"]

ABOVE = -5
"""Pixels from the frame up to what is said of the line, so that no bar lies behind it."""


def _draw(view: View, data: Columns) -> alt.TopLevelMixin:
    joined = alt.hconcat(_matrix(view, data), _null(view, data), spacing=70)
    return joined.resolve_scale(color="independent")


def _matrix(view: View, data: Columns) -> alt.LayerChart:
    rows = [{**r, "lines": _lines(r)} for r in data.rows]
    scale, _ = colour_scale(data.numbers("drop"), "signed")
    limit = scale.domain[1]
    base = alt.Chart(as_data(rows)).encode(
        x=alt.X("task:N", sort=data.values("task"), title=view.label("task"),
                axis=alt.Axis(labelAngle=0, orient="top", domain=False, ticks=False, labelPadding=6)),
        y=alt.Y("set:N", sort=data.values("set"), title=view.label("set"),
                axis=alt.Axis(domain=False, ticks=False, labelPadding=8)),
    )  # fmt: skip
    legend = alt.Legend(title=view.label("drop"), orient="bottom", gradientLength=200)
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(color=alt.Color("drop:Q", scale=scale, legend=legend))
    ink = alt.condition(f"abs(datum.drop) > {0.72 * limit}", alt.value("white"), alt.value(CELL_INK))
    big = base.mark_text(fontSize=19, fontWeight="bold", dy=-16).encode(
        text=alt.Text("drop:Q", format="+.3f"), color=ink
    )
    small = base.mark_text(fontSize=11, lineBreak="\n", dy=6).encode(text="lines:N", color=ink)
    return alt.layer(cells, big, small).properties(
        width=150 * len(data.values("task")), height=110 * len(data.values("set"))
    )


def _lines(row: dict) -> str:
    """Return the small print of a cell: interval, control, n."""
    parts = [f"[{signed(row['low'])}, {signed(row['high'])}]"]
    if row.get("control") is not None:
        parts.append(f"matched random {signed(row['control'])}")
    if row.get("n") is not None:
        parts.append(f"n = {row['n']:,}")
    return "\n".join(parts)


def _null(view: View, data: Columns) -> alt.LayerChart:
    """Return the histogram of the matched random indices with the observed one marked."""
    draws = data.others["null"]
    observed = {c: data.one(c) for c in ("observed", "observed_low", "observed_high", "p")}
    ends = draws + [v for k, v in observed.items() if k != "p" and v is not None]
    margin = 0.08 * (max(ends) - min(ends) or 1.0)
    scale = alt.Scale(domain=[min(ends) - margin, max(ends) + margin], nice=False)
    counts, edges = np.histogram(draws, bins=50, range=tuple(scale.domain))
    bars = [
        {"null": float(a), "to": float(b), "count": int(c)} for a, b, c in zip(edges, edges[1:], counts, strict=False)
    ]
    layers = [
        alt.Chart(as_data(bars))
        .mark_rect(color=GREY, opacity=0.85)
        .encode(
            x=alt.X("null:Q", title=view.label("null"), scale=scale, axis=alt.Axis(grid=False)),
            x2="to:Q",
            y2=alt.datum(0),
            y=alt.Y("count:Q", title=f"matched random sets (of {len(draws):,})", axis=alt.Axis(tickMinStep=1)),
        )
    ]
    at = alt.Chart(as_data([{**observed, "said": _said(observed)}]))
    if observed["observed_low"] is not None and observed["observed_high"] is not None:
        span = at.mark_rect(color=PALETTE[1], opacity=0.18)
        layers.append(span.encode(x=alt.X("observed_low:Q", scale=scale), x2="observed_high:Q"))
    layers.append(at.mark_rule(color=PALETTE[1], strokeWidth=2.5).encode(x=alt.X("observed:Q", scale=scale)))
    right = observed["observed"] > (scale.domain[0] + scale.domain[1]) / 2
    side = "right" if right else "left"
    words = at.mark_text(
        align=side, baseline="bottom", dx=4 if right else -4, fontSize=13, fontWeight="bold", color=PALETTE[1]
    )
    layers.append(words.encode(x=alt.X("observed:Q", scale=scale), y=alt.value(ABOVE), text="said:N"))
    return alt.layer(*layers).properties(width=400, height=220)


def _said(observed: dict) -> str:
    p = observed["p"]
    return f"observed {signed(observed['observed'])}" + (f", p = {p:.3g}" if p is not None else "")


KIND = Kind(
    name="dissociation",
    summary="drops of two sets x two tasks, and the index among matched random sets",
    draw=_draw,
    required={
        "set": "the ablated set",
        "task": "the task measured",
        "drop": "what the ablation cost",
        "low": "interval's lower end",
        "high": "interval's upper end",
        "null": "table.column: the index of each matched random draw",
        "observed": "table.column: the observed index (one row)",
    },
    optional={
        "control": "mean drop under matched random sets",
        "n": "items",
        "observed_low": "table.column",
        "observed_high": "table.column",
        "p": "table.column: matched-random p-value",
    },
    options={},
    single=frozenset({"observed", "observed_low", "observed_high", "p"}),
    draws=frozenset({"null"}),
    names=frozenset({"set", "task"}),
)
