"""Contents: what a report needs of a record, in one place, so that no drawing code knows how a record is stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from microtome.records import Claim, Record, Verdict

__all__ = ["Contents", "contents_of"]


@dataclass(frozen=True)
class Contents:
    """A record as a report sees it.

    Attributes:
        path: its folder.
        study: the study's name.
        status: running, interrupted or finished.
        seed: the run's seed.
        config: the whole config as plain data.
        changed: dotted key -> value, where it was set apart from the defaults.
        claims: the claims with their verdicts.
        views: the declared views.
        tables: the names of the tables.
        table: gives a table by name.
        reasons: (address, reason) of everything that is null.
        stages: (name, seconds, number of tables) of each stage.
        origin: where the numbers come from: times, code, packages, machine, fingerprints.
        command: the words of the command line.
    """

    path: Path
    study: str
    status: str
    seed: int
    config: Mapping[str, Any]
    changed: Mapping[str, Any]
    claims: Sequence[tuple[Claim, Verdict]]
    views: Sequence[Mapping[str, Any]]
    tables: Sequence[str]
    table: Callable[[str], pa.Table]
    reasons: Sequence[tuple[str, str]]
    stages: Sequence[tuple[str, float | None, int]]
    origin: Mapping[str, Any]
    command: Sequence[str]


def contents_of(record: Record) -> Contents:
    """Return a record as a report sees it."""
    manifest = record.manifest
    told = {k: v for k, v in manifest.provenance.items() if k != "argv"}
    again = {f"resumed {i + 1}": p for i, p in enumerate(manifest.resumed_with)}
    return Contents(
        path=record.path,
        study=manifest.study,
        status=manifest.status,
        seed=manifest.seed,
        config=manifest.config,
        changed=manifest.passed,
        claims=[(judged.claim, judged.verdict) for judged in record.claims],
        views=manifest.views,
        tables=record.tables,
        table=record.table,
        reasons=[(r.where, r.reason) for r in record.reasons],
        stages=[(s.name, s.times.get("seconds"), len(s.tables)) for s in manifest.stages],
        origin={"times": manifest.times, **told, **again, "fingerprints": manifest.fingerprints},
        command=manifest.provenance.get("argv", []),
    )
