"""`microtome zoo list` and `microtome zoo build NAME`: the models that come with the package, and training one again.

A recipe is a function `build_NAME(seed, out, progress=)` in `microtome.training.NAME`; one that also takes `data` and
`entity` learns a table of the caller's.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from microtome.cli.models import models

__all__ = ["app", "build"]

app = typer.Typer(help="The small models that come with the package.", no_args_is_help=True)
app.command("list")(models)


@app.command("build")
def build(
    name: Annotated[str, typer.Argument(help="a model with a recipe, e.g. atlas")],
    seed: Annotated[int, typer.Option(help="seed of weights and data")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder to write; default is the package's own")] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the data to learn, for recipes that ask for it")] = None,
    entity: Annotated[str | None, typer.Option(help="entity type to learn, likewise")] = None,
) -> None:
    """Train a model of the zoo by its recipe; a build that was interrupted goes on where it stopped."""
    from microtome.cli.display import progress_bar

    name = name.removeprefix("zoo:")
    recipe = _recipe(name)
    asked = _asked(name, recipe, {"data": data, "entity": entity})
    folder = out or _own_folder(name)
    try:
        with progress_bar() as progress:
            written = recipe(seed, folder, progress=progress, **asked)
    except KeyboardInterrupt:
        typer.secho("microtome: interrupted; run the same command to resume", fg="yellow", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"built: {Path(written).resolve()}")


def _asked(name: str, recipe: Callable, given: dict[str, object]) -> dict[str, object]:
    """Return the options that a recipe takes; all of them are needed, and no others."""
    from microtome.core.errors import ConfigError

    takes = [option for option in given if option in inspect.signature(recipe).parameters]
    if takes != [option for option, value in given.items() if value is not None]:
        found = ", ".join(f"--{option}" for option, value in given.items() if value is not None) or "none"
        wanted = ", ".join(f"--{option}" for option in takes) or "neither"
        raise ConfigError(
            f"The recipe of '{name}' takes {wanted} of {', '.join(f'--{o}' for o in given)}, found {found}; give what "
            "it takes."
        )
    return {option: given[option] for option in takes}


def _own_folder(name: str) -> Path:
    from microtome.core.errors import ConfigError

    module = f"microtome.models.zoo.{name}"
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"'{name}' has no folder in the package to be written to; give --out FOLDER.")
    return Path(importlib.import_module(module).__file__).parent


def _recipe(name: str) -> Callable[..., Path]:
    from microtome.core.errors import ModelError, did_you_mean
    from microtome.models.zoo.catalog import list_zoo

    module = f"microtome.training.{name}"
    found = importlib.import_module(module) if name.isidentifier() and importlib.util.find_spec(module) else None
    recipe = getattr(found, f"build_{name}", None)
    if recipe is None:
        entries = [e.name for e in list_zoo()]
        raise ModelError(
            f"No recipe for '{name}': found no build_{name} in {module}; models made in code need none. "
            f"The zoo has {', '.join(entries)}.{did_you_mean(name, entries)}"
        )
    return recipe
