"""Display: what several commands print alike - a wide enough page, a verdict table, progress with an estimate."""

import os
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from microtome.records import Claim, Verdict

__all__ = ["open_page", "progress_bar", "screen", "verdict_table"]

COLOURS = {"reproduced": "green", "same direction": "yellow", "not reproduced": "red", "not testable here": "dim"}
MARKS = {"reproduced": "✔", "same direction": "≈", "not reproduced": "✘", "not testable here": "○"}
PIPED_WIDTH = 240


def screen() -> Console:
    """Return the terminal to print to; into a pipe or file a line is wide, so that no address is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, PIPED_WIDTH))


def open_page(path: Path) -> None:
    """Open a file in the browser where there is a desktop to show it on; elsewhere do nothing (its path is printed)."""
    desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if desktop:
        webbrowser.open(path.as_uri())


def verdict_table(claims: "Sequence[tuple[Claim, Verdict]]") -> Table:
    """Return the claims as a table for the terminal: ours beside the paper's, with interval, n and control."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("claim", "paper", "ours", "interval", "n", "control", "verdict"):
        table.add_column(name, justify="right" if name in ("ours", "interval", "n") else "left")
    for claim, verdict in claims:
        colour = COLOURS[verdict.outcome]
        table.add_row(
            escape(claim.id),
            escape(_short(claim.paper_number)),
            escape(_short(verdict.measured)),
            "-" if verdict.interval is None else escape(f"[{verdict.interval[0]:.3g}, {verdict.interval[1]:.3g}]"),
            _short(verdict.n),
            escape("; ".join(f"{name} {_short(value)}" for name, value in verdict.control.items()) or "-"),
            f"[{colour}]{MARKS[verdict.outcome]} {verdict.outcome}[/]",
        )
    return table


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


EVERY = 10.0
"""Seconds between lines of progress where there is no terminal to draw a bar on."""


@contextmanager
def progress_bar() -> Iterator[Callable[[float, int, str], None]]:
    """Show a bar with an estimate of the time left on stderr, and yield `progress(done, total, message)`.

    Another total, or a count that starts again, starts a new bar. On something that is no terminal a line is written
    every ten seconds.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    words = TextColumn("{task.description}", markup=False)
    percent = TextColumn("{task.percentage:>3.0f}%")
    with Progress(words, BarColumn(), percent, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                  console=console) as bars:  # fmt: skip
        bar, last = None, (0.0, 0)

        def progress(done: float, total: int, message: str) -> None:
            nonlocal bar, last
            if bar is None or total != last[1] or done < last[0]:
                bar = bars.add_task(message, total=total)
            bars.update(bar, completed=done, description=message)
            last = (done, total)

        yield progress


class _Lines:
    """Progress as plain lines."""

    def __init__(self):
        self.start = self.told = time.monotonic()

    def __call__(self, done: float, total: int, message: str) -> None:
        """Write a line where the last one is long enough ago."""
        now = time.monotonic()
        if now - self.told < EVERY:
            return
        self.told, spent = now, now - self.start
        left = f", about {spent * (total - done) / done:.0f} s left" if done else ""
        typer.echo(f"microtome: {done / total:4.0%} {message}, {spent:.0f} s{left}", err=True)
