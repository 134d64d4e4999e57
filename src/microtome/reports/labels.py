"""Labels: where the names of some points can stand so that none lies on another or leaves the plot.

Greedy, in the order given: each name takes that corner of its point where it covers the fewest points, among those
where it covers no other name; one that has no such corner is left out (pointing at the mark still tells it).
"""

from collections.abc import Sequence

__all__ = ["CORNERS", "place"]

CORNERS = {"right above": (1, -1), "left above": (-1, -1), "right below": (1, 1), "left below": (-1, 1)}
"""Corner -> direction of the text, in pixels to the right and down."""

LETTER, LINE, GAP = 6.2, 13, 6

Box = tuple[float, float, float, float]


def place(
    named: Sequence[tuple[float, float, str]], points: Sequence[tuple[float, float]], width: float, height: float
) -> list[str | None]:
    """Return the corner at which each name stands, None where it is left out.

    Args:
        named: (x, y, name) in pixels from the upper left, the most important first.
        points: every point drawn, (x, y) in pixels.
        width: of the plot, in pixels.
        height: of the plot, in pixels.
    """
    taken: list[Box] = []
    corners: list[str | None] = []
    for x, y, name in named:
        boxes = {corner: _box(x, y, name, way) for corner, way in CORNERS.items()}
        free = [c for c, b in boxes.items() if _inside(b, width, height) and not any(_meet(b, t) for t in taken)]
        best = min(free, key=lambda c: sum(_meet(boxes[c], (*p, *p)) for p in points), default=None)
        corners.append(best)
        taken += [boxes[best]] if best else []
    return corners


def _box(x: float, y: float, name: str, way: tuple[int, int]) -> Box:
    """Return (left, top, right, bottom) of a name at a corner of its point."""
    across, down = way
    near, far = x + across * GAP, x + across * (GAP + LETTER * len(name))
    upper, lower = sorted((y, y + down * LINE))
    return min(near, far), upper, max(near, far), lower


def _inside(box: Box, width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height


def _meet(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
