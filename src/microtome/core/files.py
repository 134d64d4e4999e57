"""Files that are whole: a reader, or the next run after kill -9, sees the old file or the new one, never half of one.

A file is written beside its place under a hidden name, forced to disk, and renamed over the old one; then the folder
is forced to disk, so the rename itself survives a power cut.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from microtome.core.errors import RecordError

__all__ = ["PART", "clean", "replace_with", "write_atomic"]

PART = ".part-"
"""How the name of a half-written file begins; it keeps its ending, which some writers go by."""


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, atomically and durably.

    Args:
        path: the file; its folder is made if absent.
        data: its whole content.
    """
    replace_with(path, lambda part: part.write_bytes(data))


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder, then put it at `path`; if `write` raises, nothing of it is left.

    Args:
        path: where it ends up; an existing file is replaced in one step, an existing folder is removed first.
        write: called with the hidden path at which it must leave a file or a folder.

    Raises:
        RecordError: `write` left nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(PART + path.name)
    _remove(part)
    try:
        write(part)
        if not part.exists():
            raise RecordError(f"'{path.name}' was to be written to '{part}', found nothing there; write to that path.")
        for each in (part, *part.rglob("*")):
            _sync(each)
        if path.is_dir() or part.is_dir():
            _remove(path)
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise
    _sync(path.parent)


def clean(folder: Path) -> None:
    """Remove what a killed run left half written, in a folder and its subfolders."""
    for part in [*folder.glob(f"{PART}*"), *folder.glob(f"*/{PART}*")]:
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
