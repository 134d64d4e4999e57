"""Configured: from a preset or a TOML file, options and `--set` to a study's config and the name of its record.

Later wins: preset or file, then `--set`, then options.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from microtome.core.config import differences, from_toml, to_toml, with_settings
from microtome.core.errors import ConfigError
from microtome.core.study import Study

__all__ = ["DEFAULT_PRESET", "Configured", "configured"]

DEFAULT_PRESET = "quick"


class Configured(NamedTuple):
    """What is to be run.

    Attributes:
        config: the study's config.
        name: the record's folder: preset-model-seed, and a hash where more was set.
        passed: dotted key -> value, where the config is unlike the preset (unlike `quick`, where a file was given).
    """

    config: object
    name: str
    passed: dict[str, object]


def configured(
    study: Study, preset: str | None, file: Path | None, options: Mapping[str, object], settings: Sequence[str]
) -> Configured:
    """Return the config that a command line asks for.

    Args:
        study: the study.
        preset: the preset that is the start, or None for the default one.
        file: a TOML file that is the start, or None.
        options: config key -> value, for keys with their own option; None where it was not given.
        settings: `key=value` texts.

    Raises:
        ConfigError: both a preset and a file, an unknown preset, key or file, or a value of the wrong type.
    """
    if preset and file:
        raise ConfigError(f"Both --preset {preset} and --config {file} were given; give one of them.")
    usual = study.preset(preset or DEFAULT_PRESET)
    start = usual if file is None else from_toml(study.config, file)
    known = {f.name for f in dataclasses.fields(study.config)}
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known:
            option = key.replace("_", "-")
            raise ConfigError(f"Study '{study.name}' takes no --{option}: its config has no '{key}'; leave it out.")
    texts = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in given.items()]
    config = with_settings(start, [*settings, *texts])
    origin = file.stem if file else preset or DEFAULT_PRESET
    return Configured(config, _name(origin, config, start), differences(config, usual))


def _name(origin: str, config: object, start: object) -> str:
    """Return a folder's name that says preset, model and seed; what else was set is told apart by a short hash."""
    words = [origin, str(getattr(config, "model", "")).removeprefix("zoo:"), str(getattr(config, "seed", ""))]
    if set(differences(config, start)) - {"model", "seed"}:
        words.append(hashlib.sha256(to_toml(config).encode()).hexdigest()[:8])
    return "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", w).strip("-.") for w in words)))
