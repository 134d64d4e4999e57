"""Keys: one digest for some inputs, by content. Equal inputs give equal keys, in any process, on any day.

A stage or artefact is done again when its key changes, so a key is made of what the inputs are and never of where they
lie in memory.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
import pyarrow as pa

from microtome.core.config import to_dict
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.records.files import digest
from microtome.records.values import Missing, plain, text_key

__all__ = ["content_key"]


def content_key(**parts: object) -> str:
    """Return the digest that stands for some inputs.

    Args:
        parts: JSON values, and also ndarrays, pyarrow Tables, Units, Sites, paths (as text), configs (dataclasses)
            and anything with a text `digest`, such as a Stage.

    Raises:
        RecordError: a part is something whose content cannot be told.
    """
    text = json.dumps(_content(parts, "inputs"), sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _content(value: object, where: str) -> object:
    """Return what stands for a value in the digest: plain, and under the name of its kind where it was not."""
    if isinstance(value, Mapping):
        return {text_key(k, where): _content(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_content(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return {"ndarray": [value.dtype.str, list(value.shape), digest(np.ascontiguousarray(value).tobytes())]}
    if isinstance(value, pa.Table):
        return {"table": [str(value.schema.remove_metadata()), _content(value.to_pydict(), where)]}
    if isinstance(value, Units):
        return {"units": {str(site): indices.tolist() for site, indices in value.items()}}
    if isinstance(value, Site):
        return {"site": str(value)}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(getattr(value, "digest", None), str):
        return {"digest": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Missing):
        return {type(value).__name__: _content(to_dict(value), where)}
    return plain(value, where, [])
