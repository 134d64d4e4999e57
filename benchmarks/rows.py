"""Rows of results.json: one for each (benchmark, metric, other tool, device), replaced when measured again.

`ours` and `other` are both relative to the plain reference timed in the same process, so ratio = other / ours compares
two tools that never ran in one process, on a machine that drifts. Seconds stand in the note.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import OURS
from benchmarks.goals import BENCHES
from benchmarks.measured import Measured, amount

__all__ = ["RESULTS", "Row", "commit_now", "date_now", "join", "load", "store"]

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Row:
    """Ours beside one other tool.

    Attributes:
        bench, metric: what was measured; the unit is the benchmark's.
        ours, other: time relative to the plain reference of the same process.
        other_name: tool, version and way.
        ratio: other / ours; over 1 means ours is faster.
        device: what it ran on.
        commit: of this repository, with "+" when the tree had changes.
        date: UTC.
        note: seconds, differences, how quiet the machine was, and what was scaled.
        amount: what ours took, in seconds (or the MiB that it held).
        measure: "s" or "MiB".
    """

    bench: str
    metric: str
    ours: float
    other: float
    other_name: str
    ratio: float
    device: str
    commit: str
    date: str
    note: str
    amount: float | None = None
    measure: str = "s"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a newer measurement replaces."""
        return self.bench, self.metric, self.other_name, self.device


def load(path: Path = RESULTS) -> list[Row]:
    """Return the rows on disk; none where there is no file yet."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def store(new: Sequence[Row], path: Path = RESULTS) -> None:
    """Put rows into the file, replacing those of the same key; a killed process leaves the old file or the new one."""
    rows = {row.key: row for row in load(path)} | {row.key: row for row in new}
    text = json.dumps([asdict(rows[key]) for key in sorted(rows)], indent=1)
    part = path.with_suffix(".part")
    part.write_text(text + "\n")
    os.replace(part, path)


def join(found: Mapping[str, Sequence[Measured]], device: str, commit: str, date: str) -> list[Row]:
    """Return the rows of ours beside every other way of a metric, and beside the bare forward where it is the unit.

    Args:
        found: tool -> its measurements of one benchmark; ours under OURS.
        device, commit, date: what the rows carry.
    """
    ours = {m.metric: m for m in found.get(OURS, []) if m.name.startswith(OURS)}
    others = [m for measured in found.values() for m in measured if not m.name.startswith(OURS)]
    pairs = [(ours[m.metric], m) for m in others if m.metric in ours]
    rows = [_row(own, m.name, m.relative, _note(own, m), device, commit, date) for own, m in pairs]
    for own in ours.values():
        if "bare" in BENCHES[own.bench].unit:
            rows.append(_row(own, "bare forward", 1.0, _note(own), device, commit, date))
    return rows


def _row(own: Measured, name: str, other: float, note: str, device: str, commit: str, date: str) -> Row:
    mine, theirs, ratio = round(own.relative, 4), round(other, 4), round(other / own.relative, 3)
    held = (round(own.seconds, 6), own.measure)
    return Row(own.bench, own.metric, mine, theirs, name, ratio, device, commit, date, note, *held)


def _note(own: Measured, other: Measured | None = None) -> str:
    parts = [f"ours: {_timed(own)}"]
    return "; ".join(parts if other is None else [*parts, f"other: {_timed(other)}"])


def _timed(m: Measured) -> str:
    beside = f"{amount(m.seconds, m.measure)} beside {amount(m.reference, m.measure)} of the reference"
    text = f"{beside}, {m.rounds} rounds, "
    return text + f"difference {m.difference:.0e}" + (f", {m.note}" if m.note else "")


def commit_now() -> str:
    """Return the short hash of HEAD, with "+" when code differs from it; "none" before the first commit."""
    root = Path(__file__).parents[1]
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    if found.returncode:
        return "none"
    changed = subprocess.run(["git", "status", "--porcelain", "--", "*.py"], cwd=root, capture_output=True, text=True)
    return found.stdout.strip() + ("+" if changed.stdout else "")


def date_now() -> str:
    """Return the date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
