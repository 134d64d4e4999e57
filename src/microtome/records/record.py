"""Record: what a run leaves on disk, written so that a run killed at any instant goes on where it stopped.

    runs/recall/first/
      record.json          config, provenance, stages, values, claims and verdicts, views
      tables/*.parquet     arrays/*.safetensors     artefacts/

A stage counts once record.json names it, and record.json is replaced last and in one step. So after kill -9 the
record holds either the stage or nothing of it; files left without an entry are written over by the next run. What a
stage returns is read back from disk, so a resumed run goes on with the same types and numbers as an uninterrupted one.

Not done here: a stage, claim or artefact that the study no longer makes stays until its folder is removed.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from operator import index
from pathlib import Path

import numpy as np
import pyarrow as pa

from microtome.core.config import to_dict
from microtome.core.errors import RecordError, did_you_mean
from microtome.core.files import replace_with, write_atomic
from microtome.records.arrays import array_from
from microtome.records.claims import Claim, Verdict
from microtome.records.encode import Encoded, encode, refuse_taken
from microtome.records.files import checksum, read_checked, refuse_damaged
from microtome.records.keys import content_key
from microtome.records.ledger import Ledger, now
from microtome.records.schema import (
    ArtefactEntry,
    Judged,
    Manifest,
    StageEntry,
    array_file,
    artefact_file,
    check_name,
    table_file,
)
from microtome.records.stage import Stage, StageOutput
from microtome.records.tables import table_from
from microtome.records.values import Reason, plain

__all__ = ["Record"]


class Record:
    """A run's folder: `Record.open` to write or resume one, `Record.load` to read one.

    Example:
        >>> with Record.open("runs/recall/a", study="recall", config=config, seed=0) as record:
        ...     patching = record.stage("patching", lambda: StageOutput(tables={"effects": rows}))
        ...     record.stage("choose", lambda: choose(patching.table("effects")), inputs={"from": patching})
        ...     record.judge(claim, verdict)
    """

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._asked: list[str] = []  # stages asked for since it was opened, in order

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        study: str,
        config: object,
        seed: int,
        fingerprints: Mapping[str, object] | None = None,
        passed: Mapping[str, object] | None = None,
        device: str | None = None,
    ) -> "Record":
        """Create a record, or go on with the one of the same run; use it in a `with` block.

        The block's end marks the record finished; an exception marks it interrupted and goes on its way. Opening a
        finished record changes nothing until something new is written.

        Args:
            path: its folder; made if absent.
            study: the study's name.
            config: the whole config that is run: a dataclass, or plain data.
            seed: the run's seed.
            fingerprints: what model and data are, by content, e.g. ``{"model": "blake2b:...", "data": "..."}``.
            passed: what was set apart from the defaults (`core.config.differences`), for the reader.
            device: the device, in words.

        Raises:
            RecordError: the folder holds another run (study, config, seed or fingerprints differ), something else,
                a damaged record, or is being written by another process.
        """
        asked = {
            "study": study,
            "seed": index(seed),
            "config": plain(to_dict(config) if is_dataclass(config) else config, "config", []),
            "fingerprints": plain(dict(fingerprints or {}), "fingerprints", []),
        }
        return cls(Ledger.open(Path(path), asked, plain(dict(passed or {}), "passed", []), device))

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Open a record for reading; a table or array is held against its checksum when it is read.

        Args:
            path: its folder.

        Raises:
            RecordError: there is none, it is damaged, or a newer microtome wrote it.
        """
        return cls(Ledger.load(Path(path)))

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if self._ledger.writable:
            self._ledger.close("finished" if kind is None else "interrupted", None if kind is None else _line(error))

    def finish(self) -> None:
        """Mark the run as finished and let go of the folder."""
        self._ledger.must_write("finish")
        self._ledger.close("finished", None)

    def interrupt(self, how: str) -> None:
        """Mark the run as interrupted (it can be resumed) and let go of the folder.

        Args:
            how: what stopped it, e.g. ``KeyboardInterrupt``.
        """
        self._ledger.must_write("interrupt")
        self._ledger.close("interrupted", how)

    # -- writing ------------------------------------------------------------------------------------------------

    def stage(
        self,
        name: str,
        compute: Callable[[], StageOutput],
        inputs: Mapping[str, object] | None = None,
        *,
        code: str = "",
    ) -> Stage:
        """Return a stage's results: from disk where it was done with the same inputs, else computed and committed.

        Args:
            name: the stage's name, unique in the record.
            compute: makes the results; called only where they are not there yet.
            inputs: what `compute` depends on beyond study, config, seed and fingerprints: JSON values, arrays, tables,
                Units, configs, and earlier stages.
            code: version of the computation; change it to have the stage redone.

        Raises:
            RecordError: the results hold NaN, a name is taken by another stage, or a stored file is damaged.
        """
        self._ledger.must_write(f"stage '{check_name('stage', name)}'")
        self._asked.append(name)
        key = content_key(**self._identity(), stage=name, inputs=dict(inputs or {}), code=code)
        entry = next((s for s in self.manifest.stages if s.name == name), None)
        if entry and entry.key == key and all((self.path / file).is_file() for file in entry.files()):
            return self._stage(entry, reused=True)
        started, clock = now(), time.perf_counter()
        output = compute()
        if not isinstance(output, StageOutput):
            raise RecordError(f"Stage '{name}' returned a {type(output).__name__}; return a StageOutput.")
        seconds = round(time.perf_counter() - clock, 3)
        encoded = encode(name, key, output, {"started": started, "seconds": seconds})
        self._commit(encoded)
        return self._stage(encoded.entry, reused=False)

    def _commit(self, encoded: Encoded) -> None:
        """Withdraw the stage's old entry, write the files, enter the stage: in that order.

        Stages stand in the order this run asks for them, those it has not asked for yet behind.
        """
        entry = encoded.entry
        old = [s for s in self.manifest.stages if s.name == entry.name]
        others = [s for s in self.manifest.stages if s.name != entry.name]
        refuse_taken(entry, others)
        self._ledger.update(stages=others)
        for file, data in encoded.files.items():
            write_atomic(self.path / file, data)
        at = sum(s.name in self._asked for s in others)
        self._ledger.update(stages=[*others[:at], entry, *others[at:]])
        for file in {f for s in old for f in s.files()} - set(encoded.files):
            (self.path / file).unlink(missing_ok=True)

    def add_artefact(
        self, name: str, write: Callable[[Path], object], inputs: Mapping[str, object] | None = None
    ) -> Path:
        """Return the path of an artefact (a fitted basis, an edit, units), made now or by an earlier run.

        Args:
            name: file or folder name under ``artefacts/``.
            write: leaves the file or folder at the path it is called with; called only where needed.
            inputs: what it depends on, as for `stage`.

        Raises:
            RecordError: `write` left nothing, or a stored artefact is damaged.
        """
        self._ledger.must_write(f"artefact '{check_name('artefact', name)}'")
        path, held = self.path / artefact_file(name), self.manifest.artefacts
        key = content_key(**self._identity(), artefact=name, inputs=dict(inputs or {}))
        if name in held and held[name].key == key and path.exists():
            return self.artefact_path(name)
        others = {n: e for n, e in held.items() if n != name}
        self._ledger.update(artefacts=others)
        replace_with(path, write)
        self._ledger.update(artefacts={**others, name: ArtefactEntry(blake2b=checksum(path), key=key)})
        return path

    def judge(self, claim: Claim, verdict: Verdict) -> None:
        """Enter a claim with its verdict; an earlier verdict on the same claim is replaced.

        Args:
            claim: the paper's statement.
            verdict: what came out; `Missing(reason)` may stand for a control that could not be computed.

        Raises:
            RecordError: a number is NaN, or a field is of another type than Claim and Verdict declare.
        """
        self._ledger.must_write(f"claim '{claim.id}'")
        claims = {j.claim.id: j for j in self.manifest.claims} | {claim.id: Judged.of(claim, verdict)}
        self._ledger.update(claims=list(claims.values()))

    def views(self, views: Sequence[Mapping[str, object]]) -> None:
        """Declare the record's figures, replacing those declared before; read them from ``record.manifest.views``.

        Args:
            views: figures as data, in the order of the report (`microtome.reports.views` says what they may hold).

        Raises:
            RecordError: a view holds NaN or something JSON cannot hold.
        """
        self._ledger.must_write("views")
        self._ledger.update(views=[plain(dict(v), f"views[{i}]", []) for i, v in enumerate(views)])

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The record's folder."""
        return self._ledger.path

    @property
    def manifest(self) -> Manifest:
        """The whole of record.json."""
        return self._ledger.manifest

    @property
    def study(self) -> str:
        """The study's name."""
        return self.manifest.study

    @property
    def status(self) -> str:
        """``running`` (also after kill -9), ``interrupted`` or ``finished``."""
        return self.manifest.status

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables."""
        return tuple(n for s in self.manifest.stages for n in s.tables)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(n for s in self.manifest.stages for n in s.arrays)

    @property
    def values(self) -> dict[str, object]:
        """Every value by name."""
        return copy.deepcopy({n: v for s in self.manifest.stages for n, v in s.values.items()})

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why what is null is null."""
        return tuple(r for s in self.manifest.stages for r in s.reasons)

    @property
    def artefacts(self) -> tuple[str, ...]:
        """The names of the artefacts."""
        return tuple(self.manifest.artefacts)

    @property
    def claims(self) -> tuple[Judged, ...]:
        """The claims with their verdicts (``.claim``, ``.verdict``), in the order they were entered."""
        return tuple(self.manifest.claims)

    def table(self, name: str) -> pa.Table:
        """Return a table.

        Args:
            name: one of `tables`.

        Raises:
            RecordError: the record has none of this name, or its file is missing or damaged.
        """
        entry = self._find("table", name, {n: e for s in self.manifest.stages for n, e in s.tables.items()})
        return table_from(read_checked(self.path / table_file(name), entry.blake2b, self._called("Table", name)))

    def rows(self, name: str) -> list[dict]:
        """Return a table as dictionaries; a cell without a value is None, `reasons` says why.

        Args:
            name: one of `tables`.

        Raises:
            RecordError: as for `table`.
        """
        return self.table(name).to_pylist()

    def array(self, name: str) -> np.ndarray:
        """Return an array.

        Args:
            name: one of `arrays`.

        Raises:
            RecordError: the record has none of this name, or its file is missing or damaged.
        """
        entry = self._find("array", name, {n: e for s in self.manifest.stages for n, e in s.arrays.items()})
        return array_from(read_checked(self.path / array_file(name), entry.blake2b, self._called("Array", name)))

    def value(self, name: str) -> object:
        """Return a value; one without a value is None, `reasons` says why.

        Args:
            name: a name of `values`.

        Raises:
            RecordError: the record has none of this name.
        """
        return self._find("value", name, self.values)

    def artefact_path(self, name: str) -> Path:
        """Return the path of an artefact, checked.

        Args:
            name: one of `artefacts`.

        Raises:
            RecordError: the record has none of this name, or it is missing or damaged.
        """
        entry = self._find("artefact", name, self.manifest.artefacts)
        path = self.path / artefact_file(name)
        refuse_damaged(path, checksum(path), entry.blake2b, self._called("Artefact", name))
        return path

    def check(self) -> None:
        """Hold every file of the record against its checksum.

        Raises:
            RecordError: a file is missing or damaged.
        """
        for name in self.tables:
            self.table(name)
        for name in self.arrays:
            self.array(name)
        for name in self.artefacts:
            self.artefact_path(name)

    def __repr__(self) -> str:
        return f"Record('{self.path}', study='{self.study}', {self.status}, {len(self.manifest.stages)} stages)"

    # -- inside -------------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, object]:
        return self.manifest.model_dump(include={"study", "seed", "config", "fingerprints"})

    def _stage(self, entry: StageEntry, *, reused: bool) -> Stage:
        told = [*entry.tables.items(), *entry.arrays.items()]
        return Stage(
            name=entry.name,
            digest=content_key(files={n: e.blake2b for n, e in told}, values=entry.values),
            reused=reused,
            tables={n: self.table(n) for n in entry.tables},
            arrays={n: self.array(n) for n in entry.arrays},
            values=copy.deepcopy(entry.values),
        )

    def _find(self, kind: str, name: str, found: Mapping):
        if name not in found:
            listed = ", ".join(found) or "none"
            raise RecordError(
                f"No {kind} '{name}' in record '{self.path}'; it has {listed}.{did_you_mean(name, found)}"
            )
        return found[name]

    def _called(self, kind: str, name: str) -> str:
        return f"{kind} '{name}' of record '{self.path}'"


def _line(error: BaseException) -> str:
    """Say on one line what ended a run."""
    text = " ".join(str(error).split()).encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
