"""Arrays: one ndarray a file, as safetensors. NaN is refused unless a reason for it is given by name."""

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from microtome.core.errors import RecordError

__all__ = ["array_bytes", "array_from"]

_NAME = "array"


def array_bytes(name: str, array: np.ndarray, *, announced: bool) -> bytes:
    """Return an array as the bytes of a safetensors file.

    Args:
        name: its name, for errors.
        array: booleans or numbers, of any shape.
        announced: a reason was given for its NaN and infinity.

    Raises:
        RecordError: it is not an ndarray of a storable type, or holds NaN or infinity without a reason.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biufc":
        found = array.dtype if type(array) is np.ndarray else type(array).__name__
        raise RecordError(f"Array '{name}' is {found}; give a numpy array of numbers or booleans.")
    if array.dtype.kind in "fc" and not announced and not (finite := np.isfinite(array)).all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise RecordError(
            f"Array '{name}' of shape {array.shape} holds {array[at]} at {at} ({int((~finite).sum())} in all): a "
            f"record holds no NaN or infinity unannounced; give StageOutput(reasons={{'{name}': 'the reason'}})."
        )
    try:
        return safetensors.numpy.save({_NAME: np.array(array, array.dtype.newbyteorder("="), order="C")})
    except SafetensorError as error:
        raise RecordError(f"Array '{name}' is {array.dtype}: {error}; convert it to a storable type.") from error


def array_from(data: bytes) -> np.ndarray:
    """Return the array in the bytes of a file that `array_bytes` made."""
    return safetensors.numpy.load(data)[_NAME]
