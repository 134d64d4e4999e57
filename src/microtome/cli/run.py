"""`microtome run STUDY`: run a study into a record, or go on with the record that is there; then render its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from microtome.cli.configured import Configured
    from microtome.core.study import Study

__all__ = ["OPEN_OPTIONS", "run"]

OPEN_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Typer's settings for a command that takes options it does not know: those of the study's config."""


def run(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="a study; see `microtome studies`")],
    preset: Annotated[str | None, typer.Option(help="quick (default): minutes on two cores; full: real models")] = None,
    model: Annotated[str | None, typer.Option(help="a Hub id, a folder, or zoo:NAME")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, any number of times")] = None,
    config: Annotated[Path | None, typer.Option(help="a whole configuration, as TOML, in place of a preset")] = None,
    out: Annotated[Path | None, typer.Option(help="the record's folder; default runs/STUDY/PRESET-MODEL-SEED")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of everything random")] = None,
    paper_compat: Annotated[bool, typer.Option("--paper-compat", help="also run the authors' own statistic")] = False,
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="open the report when done")] = False,
) -> None:
    """Run a study; the same command resumes one that was interrupted.

    Any further --key VALUE sets that key of the study's config, e.g. --batch 16 or --testing.draws 500.
    """
    from microtome.cli.catalog import study_named
    from microtome.cli.configured import configured
    from microtome.cli.options import further_settings
    from microtome.core.errors import ConfigError

    if study.startswith("-"):
        raise ConfigError(f"Option '{study}' stands before the study; write microtome run STUDY {study} ...")
    chosen = study_named(study)
    further = further_settings(chosen, context.args)
    asked = {"model": model, "seed": seed, "paper_compat": paper_compat or None}
    found = configured(chosen, preset, config, asked, [*(settings or []), *further])
    folder = out or Path("runs") / chosen.name / found.name
    try:
        _into_record(chosen, found, folder)
        _show(chosen, folder, open_report)
    except KeyboardInterrupt:
        typer.secho("microtome: interrupted; run the same command to resume", fg="yellow", err=True)
        raise typer.Exit(130) from None


def _into_record(study: "Study", found: "Configured", folder: Path) -> None:
    """Run the study's pipeline with the record open; what it has finished stays, whatever ends it."""
    from microtome.cli.display import progress_bar
    from microtome.core.config import to_dict
    from microtome.records import Record

    config = found.config
    seed = getattr(config, "seed", 0)
    record = Record.open(folder, study=study.name, config=to_dict(config), seed=seed, passed=found.passed)
    with record, progress_bar() as progress:
        study.run(config, record, progress)


def _show(study: "Study", folder: Path, open_report: bool) -> None:
    """Render the report, print the verdicts and where it is."""
    from microtome.cli.display import open_page, screen, verdict_table
    from microtome.records import Record
    from microtome.reports import render

    record = Record.load(folder)
    path = render(record, study).resolve()
    screen().print(verdict_table([(j.claim, j.verdict) for j in record.claims]))
    typer.echo(f"report: {path}")
    if open_report:
        open_page(path)
