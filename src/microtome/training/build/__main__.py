"""`python -m microtome.training.build RECIPE --store FOLDER`: a build without a study, alone or under torchrun."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from microtome.core.config import with_settings
from microtome.core.errors import MicrotomeError
from microtome.training.build.recipe import load_recipe
from microtome.training.build.run import build
from microtome.training.processes import leave, rank


def main(
    recipe: Annotated[str, typer.Argument(help="quick, laptop, fuxitranyu-8b, or a TOML file")],
    store: Annotated[Path, typer.Option(help="folder of the artefacts")],
    until: Annotated[str, typer.Option(help="the last stage")] = "dpo",
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, any number of times")] = None,
    sharded: Annotated[bool, typer.Option("--sharded", help="divide the model among the processes")] = False,
) -> None:
    """Build a language model; the same command goes on with a build that was stopped."""
    logging.basicConfig(level=logging.INFO if rank() == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    said: dict[str, int] = {}

    def watch(stage: str, line: str, share: float) -> None:
        if rank() == 0 and said.get(stage) != int(20 * share):
            said[stage] = int(20 * share)
            logging.getLogger(__name__).info("%s %3.0f %%  %s", stage, 100 * share, line)

    try:
        chosen = with_settings(load_recipe(recipe), settings or [])
        made = build(chosen, store, until=until, watch=watch, sharded=sharded)
    except MicrotomeError as error:
        typer.secho(f"microtome: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    if rank() == 0:
        typer.echo(f"built: {made[until].path.resolve()}" if until in made else "built: nothing was asked for")
    leave()


if __name__ == "__main__":
    typer.run(main)
