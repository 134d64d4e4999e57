"""Checkpoints of a pretraining run: folders that plain transformers loads and from which training goes on exactly.

    folder/
      step-00000400/
        config.json  model.safetensors ...   what save_pretrained writes
        checkpoint.json                      recipe (fingerprint and spelt out), updates, tokens, loss, sizes of files
        training/state.pt                    optimizer, random number generators; absent from thinned ones
        training/journal.json                losses so far, rollbacks, state of the data

A folder is written under a hidden name, forced to disk and moved into place, so it is whole or not there: after kill
-9, a full disk or a power cut the one before it stands. Its name counts updates done. Which checkpoints there are is
read from the disk and nowhere else written down.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from microtome.core.config import differences
from microtome.core.errors import ModelError, RecordError
from microtome.core.files import PART, replace_with
from microtome.training.pretraining_recipe import Checkpoints

__all__ = ["Snapshot", "checkpoint_path", "checkpoints_in", "drop_after", "prune", "read", "refuse_other", "write"]

FORMAT, VERSION = "microtome pretraining checkpoint", 1
_STATE = "training"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds beside the model.

    Attributes:
        step: updates done.
        fingerprint: of the recipe.
        told: the recipe, the run and the model's config, spelt out.
        journal: what JSON holds.
        state: what torch saves: tensors, numbers and containers of them.
    """

    step: int
    fingerprint: str
    told: Mapping[str, object]
    journal: Mapping[str, Any]
    state: Mapping[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint after so many updates is, or would be.

    Args:
        folder: of the run.
        step: updates done.
    """
    return folder / f"step-{step:08d}"


def checkpoints_in(folder: Path, *, resumable: bool = False) -> list[int]:
    """Return after how many updates there is a checkpoint, in order.

    Args:
        folder: of the run; it need not exist.
        resumable: only those from which training can go on.
    """
    found = [p.parent for p in folder.glob("step-*/checkpoint.json")]
    return sorted(int(p.name.removeprefix("step-")) for p in found if not resumable or (p / _STATE).is_dir())


def write(folder: Path, snapshot: Snapshot, save_model: Callable[[Path], object], size: int) -> Path:
    """Write a checkpoint, whole or not at all, and return where it is.

    Args:
        folder: of the run.
        snapshot: what to keep beside the model.
        save_model: writes the model into a folder that exists.
        size: bytes it will take, about.

    Raises:
        RecordError: the disk is full; the checkpoints before are as they were.
    """
    path = checkpoint_path(folder, snapshot.step)
    folder.mkdir(parents=True, exist_ok=True)

    def fill(part: Path) -> None:
        (part / _STATE).mkdir(parents=True)
        save_model(part)
        with (part / _STATE / "state.pt").open("wb") as file:
            torch.save(dict(snapshot.state), file)
        (part / _STATE / "journal.json").write_text(json.dumps(snapshot.journal, allow_nan=False))
        (part / "checkpoint.json").write_text(json.dumps(_manifest(snapshot, part), indent=1))

    if shutil.disk_usage(folder).free < size:
        raise _full(folder, path, size)
    try:
        replace_with(path, fill)
    except (OSError, RuntimeError, SafetensorError) as error:  # each library reports a full disk in its own way
        if _says_full(error):
            raise _full(folder, path, size) from error
        raise
    return path


def _says_full(error: BaseException) -> bool:
    """Tell whether an error is of a full disk: by its number, that of the error it hides, or safetensors' words."""
    numbers = {getattr(e, "errno", None) for e in (error, error.__context__)}
    return bool(numbers & {errno.ENOSPC, errno.EDQUOT}) or os.strerror(errno.ENOSPC) in str(error)


def _manifest(snapshot: Snapshot, part: Path) -> dict:
    losses = snapshot.journal["losses"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": snapshot.fingerprint,
        "step": snapshot.step,
        "tokens": snapshot.journal["tokens"],
        "loss": losses[-1] if losses else None,
        "told": snapshot.told,
        "files": {str(p.relative_to(part)): p.stat().st_size for p in sorted(part.rglob("*")) if p.is_file()},
    }


def _full(folder: Path, path: Path, size: int) -> RecordError:
    free, last = shutil.disk_usage(folder).free, checkpoints_in(folder, resumable=True)
    stands = f"'{checkpoint_path(folder, last[-1]).name}' is whole" if last else "there is none yet"
    return RecordError(
        f"Checkpoint '{path}' needs about {size / 1e6:,.0f} MB, the disk is full ({free / 1e6:,.0f} MB free); make "
        f"room and start again: of the checkpoints before, {stands}."
    )


def read(folder: Path, step: int) -> Snapshot:
    """Return what the checkpoint after so many updates holds beside the model.

    Args:
        folder: of the run.
        step: updates done.

    Raises:
        RecordError: a file of it is missing or cut, or it is of another version.
    """
    path = checkpoint_path(folder, step)
    manifest = _read_manifest(path)
    for name, size in manifest["files"].items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            raise RecordError(
                f"Checkpoint '{path}' is damaged: '{name}' has {found} bytes, its checkpoint.json says {size}; remove "
                "that folder, and training goes on from the one before."
            )
    state = torch.load(path / _STATE / "state.pt", weights_only=True, map_location="cpu")
    journal = json.loads((path / _STATE / "journal.json").read_text())
    return Snapshot(step, manifest["fingerprint"], manifest["told"], journal, state)


def _read_manifest(path: Path) -> dict:
    manifest = json.loads((path / "checkpoint.json").read_text())
    found = (manifest.get("format"), manifest.get("version"))
    if found != (FORMAT, VERSION):
        raise RecordError(
            f"Checkpoint '{path}' is {found[0]} {found[1]}, this program reads {FORMAT} {VERSION}; use another folder."
        )
    return manifest


def refuse_other(folder: Path, step: int, fingerprint: str, told: Mapping[str, object]) -> None:
    """Refuse a checkpoint that is of another recipe.

    Args:
        folder: of the run.
        step: updates done at that checkpoint.
        fingerprint: of the recipe that is to be resumed.
        told: the same, spelt out.

    Raises:
        ModelError: it is; the message names both fingerprints and what differs.
    """
    manifest = _read_manifest(checkpoint_path(folder, step))
    if manifest["fingerprint"] == fingerprint:
        return
    changed = differences(told, manifest["told"]) | differences(manifest["told"], told)
    raise ModelError(
        f"Asked to resume recipe {fingerprint} in '{folder}'; found checkpoints of recipe {manifest['fingerprint']} "
        f"(they differ in {', '.join(sorted(changed))}); use another folder or remove this one."
    )


def prune(folder: Path, plan: Checkpoints) -> None:
    """Take the optimizer from old checkpoints, and remove the oldest, as the plan says.

    Args:
        folder: of the run.
        plan: how many to keep.
    """
    for step in checkpoints_in(folder)[: -plan.keep] if plan.keep else ():
        _remove(checkpoint_path(folder, step))
    for step in checkpoints_in(folder, resumable=True)[: -plan.resumable]:
        _remove(checkpoint_path(folder, step) / _STATE)


def drop_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later updates: what they hold is given up.

    Args:
        folder: of the run.
        step: updates done at the newest to keep.
    """
    for later in checkpoints_in(folder):
        if later > step:
            _remove(checkpoint_path(folder, later))


def _remove(path: Path) -> None:
    """Remove a folder so that no reader ever sees half of it."""
    if path.is_dir():
        part = path.with_name(PART + path.name)
        shutil.rmtree(part, ignore_errors=True)
        path.rename(part)
        shutil.rmtree(part)
