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
from safetensors.torch import save
from torch import Tensor

from microtome.core.discovery import Loader, discover
from microtome.core.errors import DataError, EditError, did_you_mean
from microtome.core.protocols import Featurizer
from microtome.core.site import Site

__all__ = ["featurizers", "load_featurizer", "pack", "save_featurizer", "unpack", "write_tensors"]

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
    path = Path(path)
    tensors, described = pack(basis)
    header = {
        "format": _PREFIX + described["kind"],
        "version": _VERSION,
        "site": "" if site is None else str(Site.parse(site)),
        "width": str(basis.width),
        "fields": json.dumps(described["fields"]),
    }
    part = path.with_name(path.name + ".part")
    write_tensors(tensors, part, header)
    os.replace(part, path)
    return path


def write_tensors(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone (the library writes metadata in any order)."""
    data = save(dict(tensors), metadata=dict(header))
    size = int.from_bytes(data[:8], "little")
    ordered = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_bytes(data[:8] + ordered.encode().ljust(size) + data[8 + size :])


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
    basis = unpack({"kind": kind, "fields": json.loads(header.get("fields", "{}"))}, tensors, path)
    if width is not None and basis.width != width:
        raise EditError(
            f"Featurizer '{path}' was asked for at width {width}, found one fitted at width {basis.width}; "
            "fit one on these activations."
        )
    return basis


def pack(basis: Featurizer, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a basis as tensors, under names that begin with `prefix`, and the rest of it as JSON: kind and fields.

    Raises:
        DataError: discovery does not find the kind.
    """
    kind = _name(basis)
    tensors: dict[str, Tensor] = {}
    fields: dict[str, Any] = {}
    for name in (f.name for f in dataclasses.fields(basis)):
        value = getattr(basis, name)
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.detach().cpu().contiguous().clone()
        elif dataclasses.is_dataclass(value):
            inner, fields[name] = pack(value, f"{prefix}{name}.")
            tensors |= inner
        else:
            fields[name] = value
    return tensors, {"kind": kind, "fields": fields}


def unpack(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path, prefix: str = ""
) -> Featurizer:
    """Return the basis that `pack` took apart.

    Args:
        described: its kind and fields.
        tensors: named as by `pack`; others are left alone.
        path: the file they came from, for errors.
        prefix: as for `pack`.

    Raises:
        DataError: the kind is not known here, or a field is absent.
    """
    if described["kind"] not in featurizers():
        raise DataError(
            f"'{path}' holds a basis of kind '{described['kind']}'; known are {', '.join(featurizers())}."
            f"{did_you_mean(described['kind'], featurizers())}"
        )
    cls, fields, values = featurizers()[described["kind"]](), described["fields"], {}
    for field in dataclasses.fields(cls):
        if prefix + field.name in tensors:
            values[field.name] = tensors[prefix + field.name]
        elif isinstance(fields.get(field.name), dict):
            values[field.name] = unpack(fields[field.name], tensors, path, f"{prefix}{field.name}.")
        elif field.name in fields:
            values[field.name] = fields[field.name]
        elif field.default is dataclasses.MISSING:
            raise DataError(
                f"'{path}' was asked for as a {cls.__name__}, found no '{field.name}' in it; save it again."
            )
    return cls(**values)


def _name(basis: Featurizer) -> str:
    for name, loader in featurizers().items():
        if loader.module == type(basis).__module__ and loader() is type(basis):
            return name
    raise DataError(
        f"Saving a basis of type {type(basis).__name__} was asked for, found no such kind among "
        f"{', '.join(featurizers())}; assign FEATURIZER = {type(basis).__name__} in its file."
    )


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
