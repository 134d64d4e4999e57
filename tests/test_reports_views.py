"""A declaration of a view that does not fit is refused before anything is drawn, by name, with the nearest there is."""

import itertools
import re

import pyarrow as pa
import pytest

import synthetic
from microtome.core.errors import RecordError
from microtome.reports import parse_view
from microtome.reports.columns import Columns
from microtome.reports.drawing import draw_view
from microtome.reports.labels import CORNERS, GAP, LETTER, LINE, place
from microtome.reports.marks import panel
from microtome.reports.numbers import cell, interval, number, signed
from microtome.reports.theme import to_svg

TABLES = synthetic.tables()
VIEWS = {v["title"]: v for v in synthetic.views()}
HEATMAP = next(v for v in VIEWS.values() if v["kind"] == "heatmap")
CURVE = next(v for v in VIEWS.values() if v["kind"] == "curve")
BARS = next(v for v in VIEWS.values() if v["kind"] == "bars")
SPLIT = next(v for v in VIEWS.values() if v["kind"] == "dissociation")
TABLE = next(v for v in VIEWS.values() if v["kind"] == "table")


def drawn(view: dict):
    return draw_view(view, list(TABLES), TABLES.__getitem__)


def changed(view: dict, **fields) -> dict:
    """The view with fields replaced; None takes one away, a dictionary is merged into the one there."""
    merged = {k: {**view.get(k, {}), **v} if isinstance(v, dict) else v for k, v in fields.items()}
    whole = {**view, **merged}
    for field in ("encodings", "options", "where"):
        if field in whole:
            whole[field] = {k: v for k, v in whole[field].items() if v is not None}
    return {k: v for k, v in whole.items() if v is not None}


@pytest.mark.parametrize("title", VIEWS)
def test_what_is_declared_well_is_drawn(title):
    drawing = drawn(VIEWS[title])
    assert (drawing.chart is None) == (drawing.kind.name in ("table", "text"))


REFUSED = {
    "kind": (changed(HEATMAP, kind="heatmpa"), "no kind 'heatmpa'; the kinds are bars, .* Did you mean 'heatmap'?"),
    "channel": (
        changed(HEATMAP, encodings={"colour": "recovery"}),
        "a heatmap has no channel 'colour'; .*mean 'color'?",
    ),
    "option": (changed(CURVE, options={"logx": True}), "a curve has no option 'logx'; it has log_x.*mean 'log_x'?"),
    "option's type": (changed(CURVE, options={"log_x": "yes"}), "option 'log_x' of a curve was given 'yes'"),
    "scale": (changed(HEATMAP, options={"scale": "sined"}), "No colour scale 'sined'.*Did you mean 'signed'?"),
    "needed channel": (
        changed(HEATMAP, encodings={"color": None}),
        "a heatmap needs the channel 'color' \\(the number\\)",
    ),
    "column": (
        changed(HEATMAP, encodings={"color": "recvery"}),
        "column 'recvery' of table 'patching'.*mean 'recovery'?",
    ),
    "table": (changed(HEATMAP, table="patchin"), "asks for table 'patchin'; the record has .*mean 'patching'?"),
    "no table": (changed(HEATMAP, table=None), "encodes column 'position' but names no table"),
    "field": ({**HEATMAP, "captoin": "x"}, "captoin: .*Did you mean 'caption'?"),
    "n": (changed(HEATMAP, n=None), "shows numbers without `n`"),
    "control": (changed(HEATMAP, control=None), "shows numbers without `control`"),
    "interval": (changed(HEATMAP, interval=None), "draws an interval but does not say which"),
    "text as number": (
        changed(BARS, encodings={"y": "model"}),
        "channel 'y' takes numbers, column 'model' holds 'trained'",
    ),
    "nothing left": (
        changed(HEATMAP, where={"site": "resid_pre"}),
        "no rows of 'patching' where site = 'resid_pre'; it holds 'resid_post'",
    ),
    "where elsewhere": (
        changed(SPLIT, where={"dissociatoin.method": "zero"}),
        "`where` speaks of 'dissociatoin.method'.*mean 'dissociation'?",
    ),
    "own column": (
        changed(SPLIT, encodings={"null": "drop"}),
        "channel 'null' takes a column of another table, found 'drop'",
    ),
    "other table": (
        changed(BARS, encodings={"y": "accuracy.accuracy"}),
        "channel 'y' takes a column of table 'flagged'",
    ),
    "several rows": (
        changed(SPLIT, encodings={"observed": "null_dd.dd"}),
        "channel 'observed' .* takes one row, found 200",
    ),
    "list": (changed(BARS, encodings={"y": ["share"]}), "channel 'y' takes one column, found \\['share'\\]"),
    "names of no channel": (
        changed(CURVE, names={"sereis": {"recall": "facts"}}),
        "`names` speaks of 'sereis'; this view names series.*mean 'series'?",
    ),
    "names of numbers": (changed(CURVE, names={"x": {"1": "one"}}), "`names` speaks of 'x'; this view names series"),
    "names that merge": (
        changed(CURVE, names={"series": {"recall": "reasoning"}}),
        "`names` of 'series' show 'recall' and 'reasoning' both as 'reasoning'; give each its own name",
    ),
    "no list": (
        changed(TABLE, encodings={"columns": "unit"}),
        "channel 'columns' takes a list of columns, found 'unit'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_named(what):
    view, text = REFUSED[what]
    with pytest.raises(RecordError, match=text.removesuffix("?")) as caught:
        drawn(view)
    assert "\n" not in str(caught.value)


def test_what_a_table_shows_is_held_against_its_columns(tmp_path):
    from microtome.reports import render

    for options, text in (
        ({"sort": "-efect"}, "option 'sort' names column 'efect'.*mean 'effect'"),
        ({"formats": {"writs": "d"}}, "option 'formats' names column 'writs'.*mean 'writes'"),
        ({"formats": {"writes": ".2f"}}, "format '.2f' does not fit column 'writes'"),
    ):
        name = next(iter(options)) + str(len(text))
        with pytest.raises(RecordError, match=text):
            render(synthetic.write(tmp_path / name, [changed(TABLE, options=options)]))


def test_a_view_without_numbers_needs_no_n():
    assert parse_view({"kind": "text", "title": "Why", "caption": "words"}).n is None
    assert drawn({"kind": "text", "title": "Why", "caption": "words"}).notes == ()


def test_depth_grows_upward_and_signed_numbers_are_white_at_zero():
    chart = drawn(HEATMAP).chart.to_dict()
    cells = chart["spec"]["layer"][0]["encoding"]
    assert cells["y"]["sort"] == list(range(7, -1, -1))
    low, high = cells["color"]["scale"]["domain"]
    assert low == -high and cells["color"]["scale"]["scheme"] == "blueorange"
    heads = drawn(VIEWS["One head reads the context"]).chart.to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert heads["scheme"] == "viridis" and heads["domain"][0] >= 0


NAMED = {
    "facet": (changed(HEATMAP, names={"facet": {"recall": "facts"}}), ["recall", "reasoning"], ["facts", "reasoning"]),
    "series": (changed(BARS, names={"series": {"untrained": "fresh"}}), ["trained", "untrained"], ["trained", "fresh"]),
    "columns": (changed(TABLE, names={"writes": {"Paris": "capital"}}), None, None),
}


@pytest.mark.parametrize("channel", NAMED)
def test_a_reader_sees_names_where_the_table_holds_codes(channel):
    view, before, after = NAMED[channel]
    plain, named = drawn({k: v for k, v in view.items() if k != "names"}).data, drawn(view).data
    if channel == "columns":
        assert [r["writes"] for r in named.rows] == ["capital", *(r["writes"] for r in plain.rows[1:])]
    else:
        assert (plain.values(channel), named.values(channel)) == (before, after)
        assert [r | {channel: None} for r in named.rows] == [r | {channel: None} for r in plain.rows]
        svg = to_svg(drawn(view).chart, "v")
        assert all(name in svg for name in after) and not any(f">{b}<" in svg for b in set(before) - set(after))


def test_panels_stand_in_rows_of_equal_length():
    rows = [{"cell": f"c{i}"} for i in range(4)]
    view = parse_view(changed(CURVE, encodings={"facet": "cell"}))
    assert [panel(view, Columns([{"facet": r["cell"]} for r in rows[:n]], {}))[1] for n in (1, 2, 3, 4)] == [1, 2, 3, 2]


def test_each_panel_of_tokens_shows_its_own_tokens_alone():
    rows = [
        {"p": p, "t": t, "layer": layer, "v": 0.5, "task": task}
        for task, tokens in (("a", ["Lima", "is"]), ("b", ["Oslo", "was"]))
        for p, t in enumerate(tokens)
        for layer in (0, 1)
    ]
    view = {"kind": "heatmap", "title": "t", "table": "t", "n": 1, "control": "none: toy", "encodings": {
        "x": "p", "x_name": "t", "y": "layer", "color": "v", "facet": "task"}}  # fmt: skip
    svg = to_svg(draw_view(view, ["t"], lambda _: pa.Table.from_pylist(rows)).chart, "v")
    assert [svg.count(f">{name}<") for name in ("0  Lima", "1  is", "0  Oslo", "1  was")] == [1, 1, 1, 1]


def test_the_numbers_of_an_axis_do_not_touch():
    rows = [
        {"g": f"group {g}", "v": 0.5, "low": 0.0, "high": 1.0, "set": f"without set {s}"}
        for g in range(3)
        for s in range(2)
    ]
    view = {"kind": "intervals", "title": "t", "table": "t", "n": 1, "control": "none: toy", "interval": "all",
            "encodings": {"group": "g", "value": "v", "low": "low", "high": "high", "facet": "set"}}  # fmt: skip
    svg = to_svg(draw_view(view, ["t"], lambda _: pa.Table.from_pylist(rows)).chart, "v")
    axes = re.findall(r'<g[^>]*aria-label="X-axis[^>]*>(.*?)role-axis-title', svg, re.S)
    assert len(axes) == 2
    for axis in axes:
        found = re.findall(r'<text text-anchor="(\w+)" transform="translate\(([\d.-]+),[^>]*>([\d.]+)</text>', axis)
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}
        spans = [(float(x) - share[a] * LETTER * len(t), LETTER * len(t)) for a, x, t in found]
        assert len(spans) > 3 and [t for *_, t in found] == sorted(t for *_, t in found)
        assert all(left + width + 4 < right for (left, width), (right, _) in itertools.pairwise(spans))


def test_panels_of_different_groups_show_their_own_alone():
    groups = {"xcopa": ("id", "tr"), "cloze": ("id", "tr", "en")}
    rows = [{"g": g, "v": 0.5, "low": 0.0, "high": 1.0, "set": name} for name, held in groups.items() for g in held]
    view = {"kind": "intervals", "title": "t", "table": "t", "n": 1, "control": "none: toy", "interval": "all",
            "encodings": {"group": "g", "value": "v", "low": "low", "high": "high", "facet": "set"}}  # fmt: skip
    svg = to_svg(draw_view(view, ["t"], lambda _: pa.Table.from_pylist(rows)).chart, "v")
    assert [svg.count(f">{g}<") for g in ("id", "tr", "en")] == [2, 2, 1]


def test_the_null_histogram_counts_every_draw_once():
    bins = drawn(SPLIT).chart.to_dict()["hconcat"][1]["layer"][0]["data"]["values"]
    assert sum(b["count"] for b in bins) == TABLES["null_dd"].num_rows


def test_the_note_of_a_scatter_is_the_correlation_of_all_points():
    x = [0.0, 1.0, 2.0, 3.0]
    table = pa.table({"x": x, "y": [0.0, 1.0, 8.0, 27.0]})
    view = {"kind": "scatter", "title": "t", "table": "t", "encodings": {"x": "x", "y": "y"}, "options": {"most": 2}}
    view |= {"n": 4, "control": "none: toy"}
    notes = draw_view(view, ["t"], lambda _: table).notes
    # ranks agree; deviations (-1.5, -.5, .5, 1.5) and (-9, -8, -1, 18): products sum to 44, squares to 5 and 470
    assert notes[1] == f"Spearman 1.000, Pearson {44 / (5 * 470) ** 0.5:.3f}, 4 points"
    assert notes[2] == "2 evenly chosen points are drawn"


def boxes(named, corners):
    for (x, y, name), corner in zip(named, corners, strict=True):
        if corner:
            across, down = CORNERS[corner]
            x0, x1 = sorted((x + across * GAP, x + across * (GAP + LETTER * len(name))))
            yield x0, x1, *sorted((y, y + down * LINE))


def test_names_of_points_never_overlap_and_stay_inside():
    named = [(100 + 3 * i, 100 + 2 * i, f"unit {i}") for i in range(12)] + [(2, 2, "corner"), (398, 298, "corner")]
    corners = place(named, [(x, y) for x, y, _ in named], 400, 300)
    placed = list(boxes(named, corners))
    assert corners[0] and corners[-2:] == ["right below", "left above"]
    assert None in corners  # twelve names do not fit where the points crowd
    for i, (a0, a1, a2, a3) in enumerate(placed):
        assert 0 <= a0 and a1 <= 400 and 0 <= a2 and a3 <= 300
        assert all(a1 < b0 or b1 < a0 or a3 < b2 or b3 < a2 for b0, b1, b2, b3 in placed[:i])


def test_numbers_are_written_as_a_reader_expects():
    assert [number(v) for v in (None, True, 1234567, -0.5, 0.0, 0.00012, 123.456, 2.5e6)] == [
        "-", "True", "1,234,567", "−0.500", "0.000", "1.2e−04", "123.5", "2,500,000"
    ]  # fmt: skip
    assert interval((-0.1, 0.2)) == "[−0.100, 0.200]" and interval(None) == "" and signed(-0.07) == "−0.070"
    assert signed(-1e-9) == "+0.000" == cell(-0.0002, "+z.3f", "view", "c")
    assert cell(-0.5, "+.2f", "view", "c") == "−0.50" and cell("a-b", "s", "view", "c") == "a-b"
