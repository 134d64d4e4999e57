"""Latent space topography: what a model would predict for embeddings it never had, over a plane of its own table.

    embedding(x, y) = origin + x axis_1 + y axis_2 + rest        value(x, y) = model(embedding(x, y), all else held)

from arXiv 2405.17425 (IAIFI's "latent space topography"): the plane of two principal components, everything off the
plane at its mean, the other inputs fixed. Here the plane may be any - two components or through three items - and what
lies off it can be that of one item or of the nearest item on the plane. With the nearest, the map passes through the
model's own prediction at every real row; the map is then not continuous, and says where one item gives way to another.
Off the rows it extrapolates: a landscape far from any item shows the network, not the data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.principal import Principal

__all__ = ["Plane", "Topography", "plane_of_components", "plane_of_items", "topography"]

Predict = Callable[[np.ndarray], Any]
Rest = Literal["mean", "nearest"] | int


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in embedding space.

    Args:
        origin: [d].
        axes: what one unit of each coordinate adds, [2, d]; independent, not necessarily orthogonal.
        names: of the coordinates.
    """

    origin: np.ndarray
    axes: np.ndarray
    names: tuple[str, str]

    def coordinates(self, x: np.ndarray) -> np.ndarray:
        """Return the coordinates of the nearest points on the plane, [..., d] -> [..., 2]."""
        return (x - self.origin) @ np.linalg.pinv(self.axes)

    def points(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the points with some coordinates, [..., 2] -> [..., d]."""
        return self.origin + coordinates @ self.axes


def plane_of_components(axes: Principal, first: int = 0, second: int = 1) -> Plane:
    """Return the plane of two principal components, through the mean.

    Args:
        axes: of the table (`principal`).
        first: component along x, from 0.
        second: component along y.

    Raises:
        MeasureError: components that are not there, or twice the same.
    """
    if first == second or not all(0 <= k < len(axes.components) for k in (first, second)):
        raise MeasureError(
            f"The plane of components {first} and {second} was asked for; give two different ones of "
            f"0 to {len(axes.components) - 1}."
        )
    return Plane(axes.mean, axes.components[[first, second]], (f"PC{first + 1}", f"PC{second + 1}"))


def plane_of_items(embedding: Any, origin: int, first: int, second: int) -> Plane:
    """Return the plane through three rows: (0, 0), (1, 0) and (0, 1) are those rows.

    Args:
        embedding: [items, d].
        origin: row at (0, 0).
        first: row at (1, 0).
        second: row at (0, 1).

    Raises:
        MeasureError: rows that are not there, or on one line.
    """
    x = numbers(embedding, "Embedding", ndim=2)
    if not all(0 <= row < len(x) for row in (origin, first, second)):
        raise MeasureError(f"Rows {origin}, {first} and {second} were asked for; the table has 0 to {len(x) - 1}.")
    axes = x[[first, second]] - x[origin]
    if np.linalg.matrix_rank(axes) < 2:
        raise MeasureError(f"Rows {origin}, {first} and {second} lie on one line; give three that span a plane.")
    return Plane(x[origin], axes, (f"row {origin} to {first}", f"row {origin} to {second}"))


@dataclass(frozen=True, eq=False)
class Topography:
    """A map of predictions over a plane, and the real rows on it.

    Args:
        plane: the plane.
        x: coordinates of the columns, [columns].
        y: coordinates of the rows of the map, [rows].
        values: predictions, [rows, columns] or [rows, columns, outputs].
        nearest: the item whose place on the plane is nearest, [rows, columns].
        items: coordinates of the real rows, [items, 2].
        on_map: what the map says at the real rows' own places, [items] or [items, outputs].
        predicted: what the model says of the real rows, the same shape: the two part by what lies off the plane.
    """

    plane: Plane
    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    nearest: np.ndarray
    items: np.ndarray
    on_map: np.ndarray
    predicted: np.ndarray

    @property
    def regions(self) -> np.ndarray:
        """The output that is largest at each place, [rows, columns].

        Raises:
            MeasureError: the model has a single output.
        """
        if self.values.ndim == 2:
            raise MeasureError("Regions need a class to win at each place, found one output; read `values`.")
        return self.values.argmax(-1)

    @property
    def gradient(self) -> np.ndarray:
        """The slope along x and y by differences of the map, [2, rows, columns(, outputs)]."""
        along_y, along_x = np.gradient(self.values, self.y, self.x, axis=(0, 1))
        return np.stack([along_x, along_y])


def topography(
    embedding: Any,
    plane: Plane,
    predict: Predict,
    *,
    rest: Rest = "mean",
    points: int = 120,
    margin: float = 0.1,
    chunk: int = 4096,
) -> Topography:
    """Return the map of a model's predictions over a plane of its embedding table.

    Args:
        embedding: the rows to stand on the map, [items, d], trained rows only.
        plane: where to look.
        predict: takes embeddings [m, d] and returns predictions [m] or [m, outputs], all other inputs held fixed.
        rest: what lies off the plane: "mean" nothing, "nearest" that of the item nearest on the plane, or a row whose
            own is taken everywhere.
        points: places along each side.
        margin: how far the map goes beyond the rows, as a share of their range.
        chunk: embeddings handed to `predict` at once.

    Raises:
        MeasureError: shapes that do not fit, no such row, fewer than two points, or predictions of another length.

    Example:
        >>> from microtome.measures.principal import principal
        >>> table = np.random.default_rng(0).normal(size=(20, 8))
        >>> found = topography(table, plane_of_components(principal(table)), lambda e: e.sum(1), rest="nearest")
        >>> bool(np.allclose(found.on_map, table.sum(1)))
        True
    """
    from scipy.spatial import KDTree

    table = numbers(embedding, "Embedding", ndim=2)
    if plane.origin.shape != table.shape[1:] or points < 2:
        raise MeasureError(
            f"A map of {points} points a side on a plane in {len(plane.origin)} dimensions was asked for, rows have "
            f"{table.shape[1]}; give at least 2 points and a plane of this table."
        )
    items = plane.coordinates(table)
    low, high = items.min(0), items.max(0)
    pad = margin * np.where(high > low, high - low, 1.0)
    x, y = (np.linspace(low[a] - pad[a], high[a] + pad[a], points) for a in (0, 1))
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    of_item = KDTree(items)
    off, nearest = _off_plane(table, plane, items, rest), of_item.query(grid)[1]

    def mapped(places: np.ndarray, beside: np.ndarray) -> np.ndarray:
        which = beside if rest == "nearest" else np.zeros_like(beside)
        parts = (slice(start, start + chunk) for start in range(0, len(places), chunk))
        return _predictions(predict, (plane.points(places[part]) + off[which[part]] for part in parts))

    values = mapped(grid, nearest)
    return Topography(
        plane=plane,
        x=x,
        y=y,
        values=values.reshape(points, points, *values.shape[1:]),
        nearest=nearest.reshape(points, points),
        items=items,
        on_map=mapped(items, of_item.query(items)[1]),
        predicted=_predictions(predict, (table[start : start + chunk] for start in range(0, len(table), chunk))),
    )


def _off_plane(table: np.ndarray, plane: Plane, items: np.ndarray, rest: Rest) -> np.ndarray:
    """Return what may be added to a point of the plane, [1 or items, d]."""
    if rest == "mean":
        return np.zeros((1, table.shape[1]))
    off = table - plane.points(items)
    if rest == "nearest":
        return off
    if isinstance(rest, str) or not 0 <= rest < len(table):
        raise MeasureError(f"The rest of row {rest!r} was asked for; give 'mean', 'nearest' or 0 to {len(table) - 1}.")
    return off[[rest]]


def _predictions(predict: Predict, tables: Iterator[np.ndarray]) -> np.ndarray:
    found = []
    for table in tables:
        values = numbers(predict(table), "Predictions", length=len(table))
        if values.ndim > 2:
            raise MeasureError(f"Predictions have shape {list(values.shape)}; return [m] or [m, outputs].")
        found.append(values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values)
    return np.concatenate(found)
