"""`microtome inspect MODEL`: the anatomy found - every address, its axes and units, and what was not found and why."""

from collections import defaultdict
from typing import Annotated

import typer

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(help="a Hub id, a folder, or zoo:NAME")],
    blocks: Annotated[bool, typer.Option("--all", help="list every block, not one line for all")] = False,
    attn: Annotated[str | None, typer.Option(help="attention implementation: sdpa or eager")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="run code that comes with the checkpoint")] = False,
) -> None:
    """Print the parts of a model: addresses, axes, units, parameters."""
    from rich.table import Column, Table

    from microtome.cli.display import screen
    from microtome.models import Model

    found = Model.load(model, attn=attn, trust_remote_code=trust_remote_code)
    console = screen()
    console.print(str(found), markup=False, highlight=False)
    site, place = Column("site", no_wrap=True, overflow="fold"), Column("tapped at", overflow="fold")
    table = Table(site, "axes", "units", place, box=None, header_style="bold", pad_edge=False)
    for name, axes, units, tap in _rows(found, blocks):
        table.add_row(name, axes, units, tap)
    console.print(table)
    for part, reason in found.anatomy.missing.items():
        console.print(f"not found: {part} - {reason}", markup=False, highlight=False)


def _rows(model, every: bool) -> list[tuple[str, str, str, str]]:
    """Return the table's rows; without `every`, blocks of one shape share a line `blocks.[a-b].kind`."""
    groups: dict[tuple, list] = defaultdict(list)
    for info in model.sites.values():
        key = info.site if every or info.site.block is None else (info.site.kind, info.axes, info.units)
        groups[key].append(info)
    rows = []
    for infos in groups.values():
        first, numbers = infos[0], [i.site.block for i in infos]
        together = len(infos) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
        name = (
            f"blocks.[{numbers[0]}-{numbers[-1]}].{first.site.kind}"
            if together
            else ", ".join(str(i.site) for i in infos)
        )
        place = first.tap.module or "model"
        rows.append((name, " ".join(first.axes), f"{first.units:,}", f"{place} ({first.tap.place})"))
    return rows
