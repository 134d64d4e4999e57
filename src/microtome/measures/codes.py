"""Ordered codes: floats as whole numbers in the same order.

    b = bits of x as a signed integer, m = b >> (width - 1)        code(x) = ((b & max) ^ m) - m

keeps the order of finite floats, and makes -0 and +0 the tie they are. Integers sort faster than halves, and a stratum
put above the code keeps strata apart in one sort (`placements`).
"""

from typing import Any

import numpy as np

from microtome.core.errors import MeasureError

__all__ = ["ordered_codes"]

_BITS = {"float16": np.int16, "float32": np.int32, "float64": np.int64}
_INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


def ordered_codes(values: Any, what: str = "Activations") -> np.ndarray:
    """Return values as signed integers of their own width, in the same order and with the same ties.

    Args:
        values: float16, float32 or float64 array, or a tensor of these or bfloat16; other numbers become float64.
        what: how the message names them.

    Raises:
        MeasureError: NaN or infinity.
    """
    bits, kind = _bits(values)
    sign = bits >> (8 * bits.dtype.itemsize - 1)
    codes = ((bits & np.iinfo(bits.dtype).max) ^ sign) - sign
    infinity = _INFINITY[kind]
    if codes.size and (codes.max() >= infinity or codes.min() <= -infinity):
        bad = int(((codes >= infinity) | (codes <= -infinity)).sum())
        raise MeasureError(f"{what} hold {bad} NaN or infinite values of {codes.size}; leave those items out first.")
    return codes


def _bits(values: Any) -> tuple[np.ndarray, str]:
    if hasattr(values, "detach"):
        import torch

        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            return values.contiguous().view(torch.int16).numpy(), "bfloat16"
        values = values.numpy()
    array = np.asarray(values)
    array = array if array.dtype.name in _BITS else array.astype(np.float64)
    return np.ascontiguousarray(array).view(_BITS[array.dtype.name]), array.dtype.name
