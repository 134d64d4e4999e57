"""Config: a frozen dataclass, its TOML, and the `--set a.b=3` of the command line, each turned into the others.

    @dataclass(frozen=True)
    class Patching:
        layers: tuple[int, ...] = (0, 1)
        scale: float = 1.0

    @dataclass(frozen=True)
    class RecallConfig:
        model: str = "zoo:atlas"
        seed: int = 0
        patching: Patching = Patching()

    with_settings(RecallConfig(), ["patching.layers=2,3", "model=gpt2"])

Law: ``from_toml(type(c), to_toml(c)) == c``. Fields are int, float, bool, str, Path, Literal, Optional, tuples, unions
of these, and further frozen dataclasses. TOML has no null: None is written "none", and a string that reads "none" in
a field that also takes None is written with a backslash in front. Numbers must be finite. The config's type decides
how a value reads (``--set name=3`` gives a str field "3"), and a key that does not exist is an error naming the
nearest key.
"""

import dataclasses
import math
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["differences", "from_dict", "from_toml", "to_dict", "to_toml", "with_settings"]

C = TypeVar("C")

_NONE = re.compile(r"\\*none\Z")


@dataclasses.dataclass(frozen=True)
class _Typed:
    """Text of a `--set`, read only once the type of its key is known."""

    text: str


def to_dict(config: object) -> dict[str, Any]:
    """Return a config as plain data: nested dictionaries, lists, strings, numbers, booleans and None.

    Args:
        config: a dataclass value.
    """
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, PurePath) else value


def from_dict(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """Return the config that plain data stands for; absent keys take their defaults.

    Args:
        cls: the config's dataclass.
        mapping: key -> value, nested as the dataclass is.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    return _build(cls, mapping, "", toml=False)


def to_toml(config: object) -> str:
    """Return a config as TOML, every field written out.

    Args:
        config: a dataclass value.
    """
    return tomli_w.dumps(_encode(config, type(config)))


def from_toml(cls: type[C], text_or_path: "str | Path") -> C:
    """Return the config written in TOML; absent keys take their defaults.

    Args:
        cls: the config's dataclass.
        text_or_path: TOML text, or a file: a Path, or one line ending in ``.toml``.

    Raises:
        ConfigError: the file is missing, the TOML does not parse, or it does not fit the dataclass.
    """
    text, source = text_or_path, "The config text"
    if isinstance(text, Path) or (text.endswith(".toml") and "\n" not in text):
        source = f"The config file '{text}'"
        if not Path(text).is_file():
            raise ConfigError(f"{source} was asked for, found no such file; give the path of a TOML file.")
        text = Path(text).read_text(encoding="utf-8")
    try:
        mapping = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}; mend it or write one with to_toml.") from error
    return _build(cls, mapping, "", toml=True)


def with_settings(config: C, settings: Iterable[str]) -> C:
    """Return a config with some keys set from text, as `--set` gives them.

    Args:
        config: the config to start from.
        settings: ``key=value`` texts; the key is dotted, the value TOML or bare text; a tuple may be written ``1,2,3``.

    Raises:
        ConfigError: a setting has no ``=``, its key is unknown, or its value does not fit the key's type.
    """
    plain = to_dict(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Setting '{setting}' has no key and value; write it as key=value, e.g. seed=3.")
        path = key.strip().split(".")
        node = plain
        for i, name in enumerate(path[:-1]):
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                whole = ".".join(path[: i + 1])
                raise ConfigError(f"Setting '{setting}': '{whole}' holds {node!r}, not further keys; set '{whole}'.")
        node[path[-1]] = _Typed(text.strip())
    return from_dict(type(config), plain)


def differences(config: object, default: object) -> dict[str, Any]:
    """Return what a config changes: dotted key -> value, for each leaf that is not as in `default`.

    Args:
        config: a config, or plain data as `to_dict` gives it.
        default: the config (or plain data) it is compared with.
    """
    ours, theirs = _leaves(config), _leaves(default)
    return {k: v for k, v in ours.items() if k not in theirs or theirs[k] != v or type(theirs[k]) is not type(v)}


def _leaves(config: object, prefix: str = "") -> dict[str, Any]:
    plain = to_dict(config) if dataclasses.is_dataclass(config) else config
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = _plain(value)
    return found


@cache
def _types(cls: type) -> dict[str, Any]:
    """Field name -> type, with string annotations resolved."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _build(cls: type[C], mapping: object, prefix: str, toml: bool) -> C:
    """Construct the dataclass; `prefix` is the dotted path that led here, with its dot."""
    if not isinstance(mapping, Mapping):
        raise _mismatch(prefix[:-1], mapping, cls)
    hints = _types(cls)
    for key in mapping:
        if key not in hints:
            near = did_you_mean(f"{prefix}{key}", [prefix + k for k in hints])
            raise ConfigError(f"No key '{prefix}{key}' in {cls.__name__}; it has {', '.join(hints)}.{near}")
    values = {k: _read(v, hints[k], f"{prefix}{k}", toml) for k, v in mapping.items()}
    for field in dataclasses.fields(cls):
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and bare and field.name not in values:
            raise ConfigError(f"{cls.__name__} needs the key '{prefix}{field.name}', found none; give it a value.")
    return cls(**values)


def _read(value: object, kind: Any, key: str, toml: bool) -> object:
    """Return `value` as the type `kind`; `toml` says whether "none" stands for None."""
    if isinstance(value, _Typed):
        return _read_text(value.text, kind, key)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(value, kind, parts, key, toml)
    if origin is Literal:
        for allowed in parts:
            if type(value) is type(allowed) and value == allowed:
                return allowed
        near = did_you_mean(value, [p for p in parts if isinstance(p, str)]) if isinstance(value, str) else ""
        raise ConfigError(f"{_found(key, value)}; it takes {_describe(kind)}.{near}")
    if origin is tuple:
        return _read_tuple(value, kind, parts, key, toml)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _build(kind, value, key + ".", toml)
    return _read_scalar(value, kind, key)


def _read_scalar(value: object, kind: Any, key: str) -> object:
    if kind is type(None) and value is None:
        return None
    if kind is Path and isinstance(value, str | PurePath):
        return Path(value)
    if kind is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise ConfigError(f"{_found(key, value)}; it takes a finite number.")
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    if kind not in (int, float, bool, str, Path, type(None)):
        raise ConfigError(f"Key '{key}' is declared {kind}, which a config cannot hold; see microtome.core.config.")
    raise _mismatch(key, value, kind)


def _read_union(value: object, kind: Any, parts: tuple, key: str, toml: bool) -> object:
    if type(None) in parts:
        if value is None or (toml and value == "none"):
            return None
        if toml and isinstance(value, str) and _NONE.match(value):
            value = value[1:]
    arms = [p for p in parts if p is not type(None)]
    # An int in `float | int` must stay an int, so arms of exactly the value's type go first.
    arms.sort(key=lambda arm: arm is not type(value))
    first: ConfigError | None = None
    for arm in arms:
        try:
            return _read(value, arm, key, toml)
        except ConfigError as error:
            first = first or error
    raise first if len(arms) == 1 and first else _mismatch(key, value, kind)


def _read_tuple(value: object, kind: Any, parts: tuple, key: str, toml: bool) -> tuple:
    if not isinstance(value, list | tuple):
        raise _mismatch(key, value, kind)
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{_found(key, value)}, {len(value)} values; it takes {_describe(kind)}.")
    return tuple(_read(v, p, f"{key}[{i}]", toml) for i, (v, p) in enumerate(zip(value, parts, strict=True)))


def _read_text(text: str, kind: Any, key: str) -> object:
    """Read a `--set` text as TOML, as the items of a list, or as bare text: the first that fits the type."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    words = [part.strip() for part in text.split(",")]
    listed = [_toml_value(f"[{text}]"), [w if (v := _toml_value(w)) is None else v for w in words], words]
    readings = [_toml_value(text), *(listed if any(get_origin(p) is tuple for p in parts) else ()), text]
    readings = [r for r in readings if r is not None]
    if kind is str:  # 1_000 stays 1_000; only quotes are taken off
        readings = [r for r in readings if isinstance(r, str)]
    first: ConfigError | None = None
    for value in readings:
        try:
            return _read(value, kind, key, toml=True)
        except ConfigError as error:
            first = first or error
    raise first or _mismatch(key, text, kind)


def _toml_value(text: str) -> object:
    try:
        found = tomllib.loads(f"v = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return found["v"] if set(found) == {"v"} else None


def _encode(value: object, kind: Any) -> object:
    """Return what TOML holds for a value of the declared type `kind`."""
    if dataclasses.is_dataclass(value):
        hints = _types(type(value))
        return {k: _encode(getattr(value, k), hint) for k, hint in hints.items()}
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        arm = next((p for p in parts if get_origin(p) is tuple), tuple[Any, ...])
        inner = get_args(arm)
        many = len(inner) == 2 and inner[1] is Ellipsis
        return [_encode(v, inner[0] if many else inner[i]) for i, v in enumerate(value)]
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str) and type(None) in parts and _NONE.match(value):
        return "\\" + value
    return value


def _found(key: str, value: object) -> str:
    shown = repr(value)
    return f"Key '{key}' was given {shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"


def _mismatch(key: str, value: object, kind: Any) -> ConfigError:
    return ConfigError(f"{_found(key or 'the whole config', value)}; it takes {_describe(kind)}.")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def _describe(kind: Any) -> str:
    """Say in words what a type takes."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if p is type(None) else _describe(p) for p in parts)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"a list, each {_describe(parts[0])}"
        return f"a list of {len(parts)}: " + ", ".join(map(_describe, parts))
    if dataclasses.is_dataclass(kind):
        return f"a table with keys {', '.join(_types(kind))}"
    return _NAMES.get(kind, str(kind))
