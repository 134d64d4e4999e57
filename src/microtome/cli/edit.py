"""`microtome edit export RECORD --to DIR`: make the edit that a record keeps permanent, as a folder of weights.

The record's artefacts are looked through for saved edits (`edits.saving`); the model is the one they were made on,
checked by its weights' digest. Edits of activations are baked into weights first.
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "export"]

app = typer.Typer(help="Edits that records keep.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `export` a command by name, though it is the only one."""


@app.command("export")
def export(
    record: Annotated[Path, typer.Argument(help="the folder of a record, or a file of saved edits")],
    to: Annotated[Path, typer.Option("--to", help="folder to write the edited model to")],
    edit: Annotated[str, typer.Option("--edit", help="which of the record's edits, where it keeps several")] = "",
    model: Annotated[str, typer.Option("--model", help="where the model is now, if it has moved")] = "",
    dtype: Annotated[
        str, typer.Option("--dtype", help="type to write weights in, e.g. float32; default: as the edit was made")
    ] = "",
    lost: Annotated[float, typer.Option("--lost", help="share of the edit that rounding may lose")] = 0.05,
) -> None:
    """Write the edited model as a folder that plain transformers loads."""
    path = record if record.is_file() else _edits_of(record, edit)

    from microtome.edits.baking import bake
    from microtome.edits.export import export_edited
    from microtome.edits.saving import load_edits
    from microtome.models import Model

    wanted, saved = _type(dtype), load_edits(path)
    loaded = Model.load(model or saved.model, dtype=_type(saved.dtype))
    edits = load_edits(path, model=loaded).edits
    if wanted is not None:
        loaded = Model.load(model or saved.model, dtype=wanted)
    folder = export_edited(loaded, bake(loaded, edits, lost=lost), to)
    typer.echo(f"exported: {len(edits)} edits of '{loaded.name}' to {folder.resolve()}")


def _edits_of(folder: Path, name: str) -> Path:
    """Return the file of a record's saved edits: the one of that name, or the only one."""
    from microtome.core.errors import RecordError, did_you_mean
    from microtome.edits.saving import holds_edits
    from microtome.records import Record

    record = Record.load(folder)
    paths = {n: record.artefact_path(n) for n in record.artefacts}
    found = {n: p for n, p in paths.items() if p.is_file() and holds_edits(p)}
    if not name and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        asked = f"Edit '{name}'" if name else "The edit"
        listed = ", ".join(found) or f"none among its artefacts ({', '.join(paths) or 'it has none'})"
        do = f"name one with --edit.{did_you_mean(name, found)}" if found else "run a study that keeps one."
        raise RecordError(f"{asked} of record '{folder}' was asked for, found {listed}; {do}")
    return found[name]


def _type(name: str):
    import torch

    from microtome.core.errors import ConfigError

    known = {n: getattr(torch, n) for n in ("float16", "bfloat16", "float32", "float64")}
    if name and name not in known:
        raise ConfigError(f"Weights of type '{name}' were asked for; choose {', '.join(known)}.")
    return known.get(name)
