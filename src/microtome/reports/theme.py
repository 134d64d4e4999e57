"""Theme: the colours, sizes and words that all figures share, and the way from a chart to SVG or PNG.

Categories use the Okabe-Ito palette, sequential values viridis, signed values blue-orange with white at 0 - all told
apart with every common kind of colour blindness. Grey is kept for controls and nulls, everywhere. Rendering is done
by vl-convert, offline; identifiers inside the SVG are renamed in order, so the same data gives the same bytes and
several figures share one page.
"""

import re
from collections.abc import Sequence

import altair as alt

from microtome.core.errors import RecordError, did_you_mean

__all__ = [
    "CELL_INK",
    "GREY",
    "INK",
    "PALETTE",
    "PLOT_WIDTH",
    "as_data",
    "by_name",
    "colour_scale",
    "dashes",
    "to_png",
    "to_svg",
]

_DASHES = ([1, 0], [7, 3], [2, 2])
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
GREY = "#8A9099"
INK = "#1F2328"
CELL_INK = "#202327"  # on coloured cells: unlike INK it stays dark when a page turns dark
GRID = "#E4E7EB"
SCALES = ("auto", "signed", "sequential")
PLOT_WIDTH = 960
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"
VEGA_LITE = "6.4"


def as_data(rows: Sequence[dict]) -> alt.Data:
    """Return rows as inline chart data."""
    return alt.Data(values=list(rows))


def by_name(values: Sequence[object]) -> alt.Scale:
    """Return the colour scale of some named series, in their order of appearance."""
    return alt.Scale(domain=list(values), range=[PALETTE[i % len(PALETTE)] for i in range(len(values))])


def dashes(values: Sequence[object]) -> alt.Scale:
    """Return the dashes of categories: the palette's first round is drawn through, later rounds are not."""
    rounds = [_DASHES[i // len(PALETTE) % len(_DASHES)] for i in range(len(values))]
    return alt.Scale(domain=list(values), range=rounds)


def colour_scale(numbers: Sequence[float], scale: str = "auto") -> tuple[alt.Scale, bool]:
    """Return the colour scale of some numbers and whether it is signed.

    Args:
        numbers: what will be coloured.
        scale: "signed" (blue - white at 0 - orange), "sequential" (viridis), or "auto": signed if any is negative.

    Raises:
        RecordError: no such scale.
    """
    if scale not in SCALES:
        raise RecordError(f"No colour scale '{scale}'; there are {', '.join(SCALES)}.{did_you_mean(scale, SCALES)}")
    low, high = min(numbers), max(numbers)
    signed = scale == "signed" or (scale == "auto" and low < 0)
    if not signed:
        return alt.Scale(scheme="viridis", domain=[low, high if high > low else low + 1]), False
    limit = max(abs(low), abs(high)) or 1.0
    return alt.Scale(scheme="blueorange", domain=[-limit, limit], domainMid=0), True


def _styled(chart: alt.TopLevelMixin) -> dict:
    """Return the Vega-Lite specification of a chart in the house theme."""
    styled = (
        chart.configure(font=FONT, background="transparent", padding=4)
        .configure_axis(
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            gridColor=GRID,
            domainColor=GREY,
            tickColor=GREY,
            titlePadding=8,
            labelLimit=200,
            titleLimit=0,
        )
        .configure_axisQuantitative(tickCount=8, grid=True, labelSeparation=6)
        .configure_legend(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            titleLimit=0,
            labelLimit=260,
            symbolStrokeWidth=2,
            gradientLength=140,
        )
        .configure_header(
            labelFontSize=13,
            titleFontSize=13,
            labelColor=INK,
            titleColor=INK,
            titleFontWeight="normal",
            labelFontWeight="bold",
            labelLimit=0,
        )
        .configure_title(fontSize=15, anchor="start", color=INK, subtitleColor=INK, subtitleFontSize=12, offset=12)
        .configure_view(stroke=None)
    )
    return styled.to_dict()


def to_svg(chart: alt.TopLevelMixin, prefix: str) -> str:
    """Return a chart as SVG text whose inner identifiers start with `prefix`."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(_styled(chart), vl_version=VEGA_LITE)
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    for number, name in enumerate(names):
        new = f"{prefix}-{number}"
        svg = svg.replace(f'id="{name}"', f'id="{new}"').replace(f"url(#{name})", f"url(#{new})")
    return svg


def to_png(chart: alt.TopLevelMixin, scale: float = 2.0) -> bytes:
    """Return a chart as PNG bytes on white, `scale` times as large as on a page."""
    import vl_convert

    spec = _styled(chart)
    spec["config"]["background"] = "white"
    return vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=scale)
