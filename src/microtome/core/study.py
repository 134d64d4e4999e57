"""A study is one paper's system as data: its question, its configuration and presets, and where its pipeline lives.

Declaring a study imports nothing heavy: `pipeline` is the address of a function, "package.module:function", imported
when the study is run. So `microtome studies` lists them all without loading torch.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from microtome.core.config import from_dict
from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["Study"]


@dataclasses.dataclass(frozen=True)
class Study:
    """One paper's system, declared.

    Attributes:
        name: its name on the command line.
        title: its name in a report.
        paper: title and arXiv id of the paper.
        question: what it answers, in one sentence.
        config: the frozen dataclass of its knobs.
        presets: named configurations, each an instance of `config` or the values it sets apart from the defaults.
        pipeline: address of `run(config, record, progress)`, as "package.module:function".
    """

    name: str
    title: str
    paper: str
    question: str
    config: type
    presets: Mapping[str, Any]
    pipeline: str

    def preset(self, name: str) -> Any:
        """Return the configuration of a preset.

        Args:
            name: one of `presets`.

        Raises:
            ConfigError: no such preset, or it does not fit `config`.
        """
        if name not in self.presets:
            known = ", ".join(self.presets)
            near = did_you_mean(name, self.presets)
            raise ConfigError(f"No preset '{name}' in study '{self.name}'; it has {known}.{near}")
        chosen = self.presets[name]
        return chosen if isinstance(chosen, self.config) else from_dict(self.config, chosen)

    def run(self, config: Any, record: Any, progress: Callable[..., None] | None = None) -> None:
        """Run the pipeline; what it finds goes into the record.

        Args:
            config: an instance of this study's `config`.
            record: the open record that receives stages, claims and views.
            progress: called by the pipeline to tell how far it is; None tells nobody.

        Raises:
            ConfigError: a configuration of another class, or a pipeline address that names no function.
        """
        if not isinstance(config, self.config):
            raise ConfigError(
                f"Study '{self.name}' wants a {self.config.__name__}, found {type(config).__name__}. "
                f"Take one from study.preset(...)."
            )
        self._function()(config, record, progress)

    def _function(self) -> Callable[..., None]:
        module, _, name = self.pipeline.partition(":")
        function = getattr(_imported(module), name, None) if module and name else None
        if not callable(function):
            raise ConfigError(
                f"Study '{self.name}' has no pipeline at '{self.pipeline}': found no function there. "
                "Write it as 'package.module:function'."
            )
        return function


def _imported(name: str) -> ModuleType | None:
    """Return a module, or None where there is none of this name; what its own import raises flies."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise
