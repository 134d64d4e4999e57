"""`microtome models`: the small models that come with the package."""

__all__ = ["models"]


def models() -> None:
    """List the models of the zoo."""
    from rich.table import Table

    from microtome.cli.display import screen
    from microtome.models.zoo.catalog import list_zoo

    table = Table("model", "what it is", box=None, header_style="bold")
    for entry in list_zoo():
        table.add_row(", ".join(f"zoo:{n}" for n in entry.names), entry.summary)
    console = screen()
    console.print(table)
    console.print("Any Hub id or local folder loads too: microtome inspect MODEL", markup=False, highlight=False)
