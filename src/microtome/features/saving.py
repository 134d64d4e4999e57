"""Save and load any fitted basis as one safetensors file, found again by the name of its format.

A basis is a frozen dataclass. Its tensors are stored as tensors, a basis inside a basis (what a mask acts on) under
its field's name, everything else as JSON in the header, beside format, version, site and width. The format is
``microtome.`` and the name discovery lists the class by: its file in this folder, or an entry point of the group
``microtome.featurizers``. So a new basis is one new file, and no list of classes is kept anywhere.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.discovery import Loader, discover
from microtome.core.errors import DataError, EditError, did_you_mean
from microtome.core.protocols import Featurizer
from microtome.core.site import Site

__all__ = ["featurizers", "load_featurizer", "save_featurizer"]

_PREFIX, _VERSION = "microtome.", "1"


@functools.cache
def featurizers() -> dict[str, Loader]:
    """Return every kind of basis by name, not yet imported; looked up once in a process."""
    return discover("microtome.features", "FEATURIZER", "microtome.featurizers")


def save_featurizer(basis: Featurizer, path: str | Path, *, site: Site | str | None = None) -> Path:
    """Write a fitted basis and return the path; the file appears whole or not at all.

    Args:
        basis: a fitted basis of a kind that discovery finds.
        path: where to.
        site: where in the model it was fitted; loading it elsewhere is then an error.

    Raises:
        DataError: discovery does not find the kind.
    """
    path, kind = Path(path), _name(basis)
    tensors, fields = _pack(basis)
    header = {
        "format": _PREFIX + kind,
        "version": _VERSION,
        "site": "" if site is None else str(Site.parse(site)),
        "width": str(basis.width),
        "fields": json.dumps(fields),
    }
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=header)
    os.replace(part, path)
    return path


def load_featurizer(path: str | Path, *, site: Site | str | None = None, width: int | None = None) -> Featurizer:
    """Read a basis written by `save_featurizer`.

    Args:
        path: the file.
        site: where it is to be used; None does not ask.
        width: width of the activations it is to be used on; None does not ask.

    Raises:
        DataError: the file is missing, damaged, or of a format or version that nothing here reads.
        EditError: it was fitted at another site or width.
    """
    header, tensors = _read(Path(path))
    stored = str(header.get("site", ""))
    if site is not None and stored and Site.parse(stored) != Site.parse(site):
        raise EditError(
            f"Featurizer '{path}' was asked for at '{Site.parse(site)}', found one fitted at '{stored}'; fit one there."
        )
    kind = str(header["format"]).removeprefix(_PREFIX)
    basis = _unpack(kind, json.loads(header.get("fields", "{}")), tensors, "", path)
    if width is not None and basis.width != width:
        raise EditError(
            f"Featurizer '{path}' was asked for at width {width}, found one fitted at width {basis.width}; "
            "fit one on these activations."
        )
    return basis


def _name(basis: Featurizer) -> str:
    for name, loader in featurizers().items():
        if loader.module == type(basis).__module__ and loader() is type(basis):
            return name
    raise DataError(
        f"Saving a basis of type {type(basis).__name__} was asked for, found no such kind among "
        f"{', '.join(featurizers())}; assign FEATURIZER = {type(basis).__name__} in its file."
    )


def _pack(basis: Featurizer, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, fields = {}, {}
    for name in (f.name for f in dataclasses.fields(basis)):
        value = getattr(basis, name)
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.detach().cpu().contiguous().clone()
        elif dataclasses.is_dataclass(value):
            inner, plain = _pack(value, f"{prefix}{name}.")
            tensors |= inner
            fields[name] = {"kind": _name(value), "fields": plain}
        else:
            fields[name] = value
    return tensors, fields


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"No featurizer file '{path}'; write one with save_featurizer.")
    try:
        with safe_open(path, "pt") as f:
            header, tensors = f.metadata() or {}, {n: f.get_tensor(n) for n in f.keys()}
    except SafetensorError as error:
        raise DataError(
            f"'{path}' was asked for as a featurizer, found no safetensors ({error}); save it again."
        ) from error
    name, known = header.get("format", "none"), list(featurizers())
    if name.removeprefix(_PREFIX) not in known or not name.startswith(_PREFIX):
        near = did_you_mean(name, [_PREFIX + n for n in known])
        raise DataError(
            f"'{path}' was asked for as a featurizer, found format '{name}'; known are "
            f"{_PREFIX}{{{', '.join(known)}}}.{near}"
        )
    if header.get("version") != _VERSION:
        raise DataError(
            f"'{path}' was asked for in version {_VERSION} of {name}, found {header.get('version')}; save it again."
        )
    return header, tensors


def _unpack(kind: str, fields: dict, tensors: Mapping[str, Tensor], prefix: str, path: str | Path) -> Featurizer:
    cls, values = featurizers()[kind](), {}
    for field in dataclasses.fields(cls):
        if prefix + field.name in tensors:
            values[field.name] = tensors[prefix + field.name]
        elif isinstance(fields.get(field.name), dict):
            inner = fields[field.name]
            values[field.name] = _unpack(inner["kind"], inner["fields"], tensors, f"{prefix}{field.name}.", path)
        elif field.name in fields:
            values[field.name] = fields[field.name]
        elif field.default is dataclasses.MISSING:
            raise DataError(
                f"'{path}' was asked for as a {cls.__name__}, found no '{field.name}' in it; save it again."
            )
    return cls(**values)
