"""Artefacts: what a stage of a build leaves, in a folder named by the digest of all that went into it.

    store/
      filter-3f9c0a1b2c3d4e5f/         what the stage wrote, and manifest.json; read, never changed
      dedup-8811aa...work/             a stage that has not ended; the next run goes on in it

    key = SHA-256 of (stage, what it was told, the keys of its inputs)

So nothing is made twice, a recipe that differs in its last stage shares all others, and one look at a manifest says
what made a model. A stage gets its unfinished folder back after kill -9 and is to go on from what it finds there; the
folder takes its final name in one step. One process at a time works in a folder. Of the processes of a torchrun, the
first makes the artefacts and the others wait, but for stages that they are to make together.
"""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from microtome.core.errors import RecordError
from microtome.core.files import write_atomic
from microtome.records.lock import hold
from microtome.training.processes import rank

__all__ = ["Artefact", "Store"]

FORMAT, VERSION = "microtome artefact", 1
_MANIFEST, _WORK, _LOCK = "manifest.json", ".work", ".lock"
_PATIENCE = 2.0  # seconds between looks of a process that waits
_PACKAGES = ("microtome", "torch", "transformers", "tokenizers", "trl")


@dataclass(frozen=True)
class Artefact:
    """A finished stage.

    Attributes:
        path: its folder.
        manifest: what made it, what it measured, its files.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Digest of what went into it."""
        return self.manifest["key"]

    @property
    def values(self) -> Mapping[str, Any]:
        """What the stage measured."""
        return self.manifest["values"]


class Store:
    """A folder of artefacts.

    Args:
        folder: made if absent.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def make(
        self,
        stage: str,
        told: Mapping[str, Any],
        inputs: Sequence[Artefact],
        fill: Callable[[Path], Mapping[str, Any]],
        *,
        together: bool = False,
    ) -> Artefact:
        """Return an artefact: the one that is there, or one made now.

        Args:
            stage: its name.
            told: everything but the inputs that its content depends on, as JSON holds it.
            inputs: the artefacts it is made from.
            fill: writes into a folder, going on from what a killed run left in it; returns what it measured.
            together: all processes of a torchrun call `fill`, not the first one alone.

        Raises:
            RecordError: the artefact is damaged, or another process is making it.
        """
        about = {"stage": stage, "told": dict(told), "inputs": {a.manifest["stage"]: a.key for a in inputs}}
        key = hashlib.sha256(json.dumps(about, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
        path = self.folder / f"{stage}-{key}"
        if path.is_dir():
            return opened(path)
        work = path.with_name(path.name + _WORK)
        if rank():
            if together:
                fill(work)
            return _awaited(path)
        work.mkdir(parents=True, exist_ok=True)
        lock, begun = hold(work), time.perf_counter()
        try:
            values = fill(work)
            (work / _LOCK).unlink(missing_ok=True)
            _seal(work, about | {"key": key, "values": values, "seconds": time.perf_counter() - begun})
            os.rename(work, path)
        finally:
            lock.release()
        return opened(path)

    def unfinished(self) -> list[Path]:
        """Return the folders of stages that were begun and have not ended."""
        return sorted(self.folder.glob(f"*{_WORK}"))


def opened(path: Path) -> Artefact:
    """Return the artefact in a folder.

    Raises:
        RecordError: the folder is none, or a file of it is missing or of another size.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        sizes = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"'{path}' was to be an artefact, found no whole manifest ({error}); remove it.") from error
    for name, size in sizes.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            told = "is missing" if found is None else f"has {found} bytes, {size} were written"
            raise RecordError(f"Artefact '{path}' is damaged: '{name}' {told}; remove the folder to make it again.")
    return Artefact(path, manifest)


def _seal(work: Path, manifest: dict[str, Any]) -> None:
    files = {str(p.relative_to(work)): p.stat().st_size for p in sorted(work.rglob("*")) if p.is_file()}
    files.pop(_MANIFEST, None)  # of a run that was killed between here and the rename
    made = {"made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "versions": _versions()}
    whole = {"format": FORMAT, "version": VERSION} | manifest | made | {"files": files}
    write_atomic(work / _MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False).encode())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:  # what is not installed took no part
            continue
    return found


def _awaited(path: Path) -> Artefact:
    """Return the artefact once the first process has made it."""
    while not path.is_dir():
        time.sleep(_PATIENCE)
    return opened(path)


def remove(folder: Path) -> None:
    """Remove a folder of a stage's scratch files, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
