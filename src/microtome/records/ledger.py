"""Ledger: record.json of one folder, and the one way to open, change and close it.

Every change replaces the file in one step, and is in memory only once it is on disk. A run that goes on with a record
enters itself: at once where the record was left unfinished, with its first change where it was finished, so running a
finished study again changes nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from microtome.core.errors import RecordError
from microtome.core.files import clean, write_atomic
from microtome.records.lock import Lock, hold
from microtome.records.opening import refuse_foreign, same_run
from microtome.records.provenance import provenance
from microtome.records.schema import Manifest, read_manifest

__all__ = ["Ledger", "now"]


class Ledger:
    """A record's manifest, on disk and in memory; `Ledger.open` to change it, `Ledger.load` to read it."""

    def __init__(self, path: Path, manifest: Manifest, lock: Lock | None = None, origin: dict | None = None):
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._origin = origin  # provenance of this process, where it has yet to be entered

    @classmethod
    def open(cls, path: Path, asked: Mapping, passed: Mapping, device: str | None) -> "Ledger":
        """Create a record's folder, or go on with the one of the same run.

        Args:
            path: the folder.
            asked: study, seed, config and fingerprints as they are written.
            passed: what was set apart from the defaults.
            device: the device, in words.

        Raises:
            RecordError: the folder may not be written as the record of this run.
        """
        refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = hold(path)
        try:
            clean(path)
            origin = provenance(device)
            if not (path / "record.json").exists():
                times = {"started": now()}
                fresh = Manifest(**asked, status="running", passed=passed, provenance=origin, times=times)
                return cls(path, _written(path, fresh), lock)
            held = same_run(path, read_manifest(path), asked)
            if held.status == "finished":
                return cls(path, held, lock, origin)
            return cls(path, _written(path, _resumed(held, origin)), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """Read a record's manifest.

        Args:
            path: the folder.

        Raises:
            RecordError: there is none, it is damaged, or a newer microtome wrote it.
        """
        return cls(path, read_manifest(path))

    @property
    def writable(self) -> bool:
        """Whether it was opened to be changed, and is not closed yet."""
        return self._lock is not None

    def must_write(self, asked: str) -> None:
        """Refuse to change a record that is open for reading only.

        Args:
            asked: what was to be written, for the error.

        Raises:
            RecordError: it is.
        """
        if not self.writable:
            raise RecordError(
                f"Record '{self.path}' was asked for {asked}, found it open for reading; use Record.open."
            )

    def update(self, **changes: object) -> None:
        """Put changes on disk, then in memory; a change that changes nothing is not written.

        Args:
            changes: fields of the manifest.
        """
        new = self.manifest.model_copy(update=changes)
        if new.dumps() == self.manifest.dumps():
            return
        if self._origin is not None:
            new = _resumed(new, self._origin)
        self.manifest, self._origin = _written(self.path, new), None

    def close(self, status: str, stopped_by: str | None) -> None:
        """Say how the run ended and let go of the folder.

        Args:
            status: ``finished`` or ``interrupted``.
            stopped_by: what interrupted it.
        """
        try:
            if self.manifest.status == "running":
                self.update(status=status, stopped_by=stopped_by, times=self.manifest.times | {"ended": now()})
        finally:
            self._lock.release()
            self._lock = None


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _written(path: Path, manifest: Manifest) -> Manifest:
    write_atomic(path / "record.json", manifest.dumps())
    return manifest


def _resumed(manifest: Manifest, origin: Mapping) -> Manifest:
    """Return the manifest of a record that another process goes on with."""
    known = any(_same_code(origin, p) for p in (manifest.provenance, *manifest.resumed_with))
    times = {k: v for k, v in manifest.times.items() if k != "ended"}
    return manifest.model_copy(
        update={
            "status": "running",
            "stopped_by": None,
            "resumed_with": [*manifest.resumed_with, *([] if known else [origin])],
            "times": times | {"resumed": [*times.get("resumed", []), now()]},
        }
    )


def _same_code(a: Mapping, b: Mapping) -> bool:
    """Whether two provenances tell of the same code, packages, machine and device; the argv may differ."""
    return all(a.get(k) == b.get(k) for k in ("git", "packages", "python", "platform", "device"))
