"""Save and load edits as one safetensors file: what a record keeps as an artefact, and `microtome edit export` reads.

    edits.safetensors     tensors  0.value.factor, 0.basis.axes, 0.units, 1.value.vector, ...
                          header   format microtome.edits, version; model, digest and dtype of its weights; edits (JSON)

An edit is its site, value, units, positions and basis. Bases are stored as `features.saving` stores them; a value is a
frozen dataclass of tensors and numbers, found again by name: the engine's own, and those that a file of this folder
assigns to ``VALUE`` (or an entry point of the group ``microtome.values``). So EigenShift is k columns and one number,
never a head. Values that hold a function or another run's activations are not stored.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from microtome.core.discovery import discover
from microtome.core.errors import DataError, EditError
from microtome.core.files import replace_with
from microtome.engine.edit import Add, Constant, Edit, Scale, Value, Zero
from microtome.features.saving import pack, unpack, write_tensors
from microtome.models.digest import weights_digest
from microtome.models.model import Model

__all__ = ["SavedEdits", "holds_edits", "load_edits", "save_edits"]

_FORMAT, _VERSION = "microtome.edits", "1"


class SavedEdits(NamedTuple):
    """What a file of edits holds.

    Attributes:
        edits: in order.
        model: name of the model they were made on, as `Model.load` takes it.
        digest: of that model's weights, which depends on their type.
        dtype: that type, e.g. "float32".
    """

    edits: list[Edit]
    model: str
    digest: str
    dtype: str


def save_edits(edits: Sequence[Edit], path: str | Path, model: Model) -> Path:
    """Write edits and return the path; the file appears whole or not at all.

    Args:
        edits: what to write.
        path: where to.
        model: the model they were made on.

    Raises:
        EditError: there are none, or a value cannot be stored.
        DataError: a basis is of a kind that discovery does not find.
    """
    if not edits:
        raise EditError("Saving edits was asked for, found none; give at least one.")
    tensors: dict[str, Tensor] = {}
    described = [_pack(edit, f"{i}.", tensors) for i, edit in enumerate(edits)]
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model.name,
        "digest": weights_digest(model.module),
        "dtype": str(model.dtype).removeprefix("torch."),
        "edits": json.dumps(described),
    }
    replace_with(Path(path), lambda part: write_tensors(tensors, part, header))
    return Path(path)


def load_edits(path: str | Path, *, model: Model | None = None) -> SavedEdits:
    """Read edits written by `save_edits`.

    Args:
        path: the file.
        model: the model they are to be used on; None does not ask.

    Raises:
        DataError: the file is missing, damaged, or not of this format and version.
        EditError: they were made on other weights.
    """
    path = Path(path)
    header, tensors = _read(path)
    try:
        described = json.loads(header["edits"])
        edits = [_unpack(d, f"{i}.", tensors, path) for i, d in enumerate(described)]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(
            f"'{path}' was asked for as saved edits, found it incomplete ({error}); save it again."
        ) from error
    found = SavedEdits(edits, header.get("model", ""), header.get("digest", ""), header.get("dtype", ""))
    if model is not None and (own := weights_digest(model.module)) != found.digest:
        raise EditError(
            f"Edits '{path}' were asked for on '{model.name}' ({own}), found them made on '{found.model}' "
            f"({found.digest}); load that model in the same type."
        )
    return found


def holds_edits(path: Path) -> bool:
    """Whether a file is one of saved edits."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == _FORMAT
    except (SafetensorError, OSError):
        return False


@functools.cache
def _values() -> dict[str, Callable[[], type]]:
    own = {cls.__name__: (lambda cls=cls: cls) for cls in (Zero, Constant, Scale, Add)}
    return own | {loader.name: loader for loader in discover("microtome.edits", "VALUE", "microtome.values").values()}


def _pack(edit: Edit, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    kind = _kind(edit)
    fields: dict[str, Any] = {}
    for name in (f.name for f in dataclasses.fields(edit.value)):
        value = getattr(edit.value, name)
        if isinstance(value, Tensor):
            tensors[f"{prefix}value.{name}"] = value.detach().cpu().contiguous().clone()
        else:
            fields[name] = value
    basis = None
    if edit.basis is not None:
        more, basis = pack(edit.basis, f"{prefix}basis.")
        tensors.update(more)
    for name in ("units", "positions"):
        if isinstance(getattr(edit, name), Tensor):
            tensors[prefix + name] = getattr(edit, name).cpu().contiguous().clone()
    plain = None if isinstance(edit.positions, Tensor) else edit.positions
    return {"site": str(edit.site), "value": kind, "fields": fields, "basis": basis, "positions": plain}


def _kind(edit: Edit) -> str:
    for name, cls in _values().items():
        if cls() is type(edit.value):
            return name
    raise EditError(
        f"Saving an edit of '{edit.site}' was asked for, found a value {type(edit.value).__name__}; known are "
        f"{', '.join(_values())} (a value that holds a function or another run's activations is not stored)."
    )


def _unpack(described: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor], path: Path) -> Edit:
    if described["value"] not in _values():
        raise DataError(f"'{path}' holds a value '{described['value']}'; known are {', '.join(_values())}.")
    begin = f"{prefix}value."
    stored = {n.removeprefix(begin): t for n, t in tensors.items() if n.startswith(begin)}
    value: Value = _values()[described["value"]]()(**described["fields"], **stored)
    basis = described["basis"] and unpack(described["basis"], tensors, path, f"{prefix}basis.")
    positions = tensors.get(f"{prefix}positions", described["positions"])
    return Edit(described["site"], value, units=tensors.get(f"{prefix}units"), positions=positions, basis=basis)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"No file of edits '{path}'; write one with save_edits.")
    try:
        with safe_open(path, "pt") as file:
            header, tensors = file.metadata() or {}, {n: file.get_tensor(n) for n in file.keys()}
    except SafetensorError as error:
        raise DataError(
            f"'{path}' was asked for as saved edits, found no safetensors ({error}); save it again."
        ) from error
    found = header.get("format", "none"), header.get("version", "none")
    if found != (_FORMAT, _VERSION):
        raise DataError(
            f"'{path}' was asked for as {_FORMAT} of version {_VERSION}, found {found[0]} of version {found[1]}; save "
            "it again."
        )
    return header, tensors
