"""Opening: whether a folder may be written as the record of a run."""

from collections.abc import Mapping
from pathlib import Path

from microtome.core.errors import RecordError
from microtome.core.files import PART
from microtome.records.schema import Manifest
from microtome.records.values import apart

__all__ = ["refuse_foreign", "same_run"]


def refuse_foreign(path: Path) -> None:
    """Refuse a folder that holds something other than a record (or what an opening killed at once left).

    Args:
        path: the folder asked for.

    Raises:
        RecordError: it is a file, or holds files but no record.json.
    """
    if path.exists() and not path.is_dir():
        raise RecordError(f"Record '{path}' was asked for, found a file there; choose another folder (--out).")
    if not path.exists() or (path / "record.json").exists():
        return
    found = sorted(p.name for p in path.iterdir() if p.name not in (".lock", f"{PART}record.json"))
    if found:
        raise RecordError(
            f"Record '{path}' was asked for, found '{found[0]}' and no record.json there; choose another folder "
            "(--out)."
        )


def same_run(path: Path, manifest: Manifest, asked: Mapping) -> Manifest:
    """Return the manifest if it is of the run that is asked for.

    Args:
        path: the record's folder.
        manifest: what it holds.
        asked: study, seed, config and fingerprints as they would be written.

    Raises:
        RecordError: one of them differs; the message names the first key.
    """
    for part in ("study", "seed", "config", "fingerprints"):
        for key, held, now in apart(getattr(manifest, part), asked[part], part):
            raise RecordError(
                f"Record '{path}' was made with {key} = {held!r}, asked for {now!r}; choose another folder (--out) or "
                "the same settings."
            )
    return manifest
