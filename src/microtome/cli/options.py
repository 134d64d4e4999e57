"""Options: any further `--key value` of `microtome run` that is a field of the study's config.

    --data items.csv    --csv=a.csv    --testing.draws 500    --paper-compat    --no-paper-compat

So a study's own knobs are options without the command knowing them. Each becomes the setting `key=value` that `--set`
takes; the config's type decides how the value reads.
"""

import dataclasses
from collections.abc import Sequence
from typing import get_type_hints

from microtome.core.errors import ConfigError, did_you_mean
from microtome.core.study import Study

__all__ = ["FIXED", "further_settings"]

FIXED = ("preset", "model", "set", "config", "out", "seed", "paper-compat", "open", "no-open", "help")
"""The options that `microtome run` has for every study."""


def further_settings(study: Study, words: Sequence[str]) -> list[str]:
    """Return the settings that the words left over on the command line stand for.

    Args:
        study: the study, whose config says which options there are.
        words: what was neither the study nor one of the command's own options, in order.

    Raises:
        ConfigError: an option that the config does not have, one without a value or given twice, a word without one.
    """
    hints = get_type_hints(study.config)
    kinds = {f.name: hints[f.name] for f in dataclasses.fields(study.config)}
    settings: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            raise ConfigError(f"Found '{word}' after study '{study.name}', no option before it; write --key {word}.")
        option, equals, value = word.partition("=")
        key, flag = _key(study, option, kinds)
        if flag and not equals:
            value = left.pop(0) if flag == "true" and left[:1] in (["true"], ["false"]) else flag
        elif not equals:
            if not left or left[0].startswith("--"):
                raise ConfigError(f"Option '{option}' of study '{study.name}' has no value; write {option} VALUE.")
            value = left.pop(0)
        if key in settings:
            raise ConfigError(f"Option '{option}' was given twice, '{settings[key]}' and '{value}'; give it once.")
        settings[key] = value
    return [f"{key}={value}" for key, value in settings.items()]


def _key(study: Study, option: str, kinds: dict[str, object]) -> tuple[str, str]:
    """Return (config key, what it is set to when no value follows: "true", "false", or "" where one must)."""
    key = option.removeprefix("--").replace("-", "_")
    if option.startswith("--") and key.partition(".")[0] in kinds:
        return key, "true" if kinds.get(key) is bool else ""
    if option.startswith("--no-") and kinds.get(key.removeprefix("no_")) is bool:
        return key.removeprefix("no_"), "false"
    own = [k.replace("_", "-") for k in kinds]
    near = did_you_mean(option.lstrip("-"), [*own, *FIXED]).replace("'", "'--", 1)
    raise ConfigError(f"No option '{option}' in study '{study.name}'; its config takes --{', --'.join(own)}.{near}")
