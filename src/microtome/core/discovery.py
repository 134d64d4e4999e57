"""Discovery: what a folder of plugins offers, found without importing it, plus what other packages add.

A plugin is one file or folder of a package that assigns (or imports) an agreed name at its top level, e.g. ``STUDY``.
Listing reads the source and imports none of it, so `microtome studies` stays light; loading imports one. Other
packages join through an entry point group, e.g. in their pyproject.toml:

    [project.entry-points."microtome.studies"]
    colours = "my_package.colours:STUDY"
"""

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["Loader", "discover", "pick"]


@dataclass(frozen=True)
class Loader:
    """Where a plugin is, not yet imported; calling it imports the module and returns the plugin.

    Attributes:
        name: its name: the file's or folder's, or the entry point's.
        module: the module to import.
        attribute: the name in it that holds the plugin.
    """

    name: str
    module: str
    attribute: str

    def __call__(self) -> object:
        """Import the module and return the plugin.

        Raises:
            ConfigError: the module does not hold the attribute.
        """
        found: object = importlib.import_module(self.module)
        for part in self.attribute.split("."):
            if not hasattr(found, part):
                raise ConfigError(
                    f"Plugin '{self.name}' asked for {self.module}:{self.attribute}, found no '{part}'; "
                    f"assign {self.attribute} at the top of that module."
                )
            found = getattr(found, part)
        return found


def discover(package: str, attribute: str, group: str) -> dict[str, Loader]:
    """Return the plugins of a package and an entry point group, by name in order, without importing any.

    Args:
        package: the package whose files and folders are looked at, e.g. ``microtome.studies``.
        attribute: the name a plugin assigns at its top level, e.g. ``STUDY``.
        group: entry point group by which other packages add theirs, e.g. ``microtome.studies``.

    Raises:
        ConfigError: there is no such package, or two plugins have one name.
    """
    found: dict[str, Loader] = {}
    for loader in [*_scan(package, attribute), *_entry_points(group, attribute)]:
        twin = found.get(loader.name)
        if twin == loader:
            continue  # one distribution seen through two path entries
        if twin:
            raise ConfigError(
                f"Two plugins of '{group}' are called '{loader.name}': {twin.module} and {loader.module}; rename one."
            )
        found[loader.name] = loader
    return dict(sorted(found.items()))


def pick(found: Mapping[str, Loader], name: str, kind: str) -> object:
    """Return the plugin called `name`, imported.

    Args:
        found: what `discover` returned.
        name: the plugin asked for.
        kind: what it is called in the error, e.g. "study".

    Raises:
        ConfigError: there is no such plugin.
    """
    if name not in found:
        listed = ", ".join(found) or "none"
        raise ConfigError(f"No {kind} '{name}'; there are: {listed}.{did_you_mean(name, found)}")
    return found[name]()


def _scan(package: str, attribute: str) -> list[Loader]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(f"Plugins were asked for in '{package}', found no such package; check the name.")
    loaders = []
    for folder in map(Path, spec.submodule_search_locations):
        for path in sorted(folder.iterdir() if folder.is_dir() else ()):
            source = path / "__init__.py" if path.is_dir() else path
            name = path.stem if path.is_file() else path.name
            if name.startswith(("_", ".")) or source.suffix != ".py" or not source.is_file():
                continue
            if attribute in _top_level(source):
                loaders.append(Loader(name, f"{package}.{name}", attribute))
    return loaders


def _top_level(source: Path) -> set[str]:
    """The names a file assigns or imports at its top level, read from its text."""
    names: set[str] = set()
    for node in ast.parse(source.read_text(encoding="utf-8"), str(source)).body:
        if isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name for a in node.names}
    return names


def _entry_points(group: str, attribute: str) -> list[Loader]:
    return [Loader(p.name, p.module, p.attr or attribute) for p in entry_points(group=group)]
