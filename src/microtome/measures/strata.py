"""Strata: groups of items within which two classes may be compared without a confound standing between them.

The maximum over tokens grows with their number, so where toxic texts are longer every neuron, pure noise included,
"tells" the classes apart. Comparing only texts of equal (or nearly equal) length takes that away. It costs next to
nothing: with b even strata the null variance of an AUROC grows from (n + 1) to (n + b) parts.
"""

from typing import Any

import numpy as np

from microtome.measures.arrays import group_codes, numbers

__all__ = ["crossed", "length_strata"]


def length_strata(lengths: Any, *, most: int = 64) -> np.ndarray:
    """Return a stratum for every item: neighbouring lengths, joined until a stratum holds 1 / most of the items.

    Args:
        lengths: length of every item (tokens, for pooled activations).
        most: most strata; where there are no more different lengths than that, each is a stratum.

    Returns:
        Codes 0, 1, ... in order of length; items of one length are never parted.

    Raises:
        MeasureError: missing lengths.
    """
    values, place, counts = np.unique(numbers(lengths, "Lengths", ndim=1), return_inverse=True, return_counts=True)
    if len(values) <= most:
        return place.reshape(-1)
    codes, code, held = np.empty(len(values), np.int64), 0, 0
    for i, count in enumerate(counts):
        codes[i], held = code, held + count
        if held * most >= len(place):
            code, held = code + 1, 0
    if held:
        codes[codes == code] = max(code - 1, 0)
    return codes[place.reshape(-1)]


def crossed(n: int, *labels: Any) -> np.ndarray | None:
    """Return the strata in which items agree on every labelling given; None where all of them are None.

    Args:
        n: number of items.
        labels: labellings, a label per item each, or None.

    Raises:
        MeasureError: a labelling of another length.
    """
    given = [group_codes(x, n, "Strata") for x in labels if x is not None]
    return np.unique(np.stack(given, 1), axis=0, return_inverse=True)[1].reshape(-1) if given else None
