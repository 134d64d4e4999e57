"""What every statistic here asks of its input: float64 numbers that are finite, labels of two classes, groups.

Tensors of any device and dtype are taken as they come. Missing values are refused, never skipped: the caller says
which items to leave out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError

__all__ = ["group_codes", "numbers", "two_classes", "unit_matrix"]


def numbers(values: Any, what: str, *, ndim: int | None = None, length: int | None = None) -> np.ndarray:
    """Return values as a finite float64 array.

    Args:
        values: an array, tensor or sequence.
        what: how the message names them.
        ndim: number of axes it must have.
        length: length of its first axis.

    Raises:
        MeasureError: NaN or infinity, nothing in it, or another shape.
    """
    array = np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=np.float64)
    if ndim is not None and array.ndim != ndim:
        raise MeasureError(f"{what} has shape {list(array.shape)}; give {ndim} ax{'i' if ndim == 1 else 'e'}s.")
    if length is not None and (array.ndim == 0 or len(array) != length):
        raise MeasureError(f"{what} has shape {list(array.shape)}; its first axis must hold {length} items.")
    if not array.size:
        raise MeasureError(f"{what} is empty; give at least one item.")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise MeasureError(f"{what} holds {bad} NaN or infinite values of {array.size}; leave those items out first.")
    return array


def unit_matrix(values: Any, what: str) -> np.ndarray:
    """Return values [items] or [items, units] as a finite float64 matrix [items, units].

    Raises:
        MeasureError: another shape, or values that are missing.
    """
    array = numbers(values, what)
    if array.ndim > 2 or array.ndim == 0:
        raise MeasureError(f"{what} has shape {list(array.shape)}; give [items] or [items, units].")
    return array.reshape(len(array), -1)


def two_classes(labels: Any, n: int) -> np.ndarray:
    """Return labels as booleans [n], both classes present.

    Raises:
        MeasureError: another length, values other than 0 and 1, or a single class.
    """
    array = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    if array.shape != (n,):
        raise MeasureError(f"Labels have shape {list(array.shape)} for {n} items; give one label per item.")
    if not np.isin(array, (0, 1)).all():
        raise MeasureError(f"Labels must be 0 or 1, found {np.unique(array)[:4].tolist()}; code the two classes so.")
    positive = array.astype(bool)
    if positive.all() or not positive.any():
        raise MeasureError(f"All {n} labels are {int(positive[0])}; a comparison needs items of both classes.")
    return positive


def group_codes(groups: Sequence[Any] | np.ndarray | None, n: int, what: str = "Groups") -> np.ndarray:
    """Return group labels as codes 0 .. g - 1, [n]; None puts every item in one group.

    Raises:
        MeasureError: another length, or a missing label.
    """
    if groups is None:
        return np.zeros(n, np.int64)
    array = np.asarray(groups.detach().cpu() if hasattr(groups, "detach") else groups)
    if array.shape != (n,):
        raise MeasureError(f"{what} have shape {list(array.shape)} for {n} items; give one label per item.")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise MeasureError(f"{what} hold {int(np.isnan(array).sum())} missing labels of {n}; label every item.")
    return np.unique(array, return_inverse=True)[1].reshape(-1).astype(np.int64)
