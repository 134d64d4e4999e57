"""`microtome studies`: the papers rebuilt here, the question of each and its presets."""

import typer

__all__ = ["studies"]


def studies() -> None:
    """List the studies."""
    from rich.markup import escape
    from rich.table import Table

    from microtome.cli.catalog import all_studies
    from microtome.cli.display import screen

    table = Table("study", "what it asks", "paper", "presets", box=None, header_style="bold")
    for study in all_studies():
        table.add_row(study.name, escape(study.title), escape(study.paper), ", ".join(study.presets))
    screen().print(table)
    typer.echo("Run one: microtome run STUDY --preset quick")
