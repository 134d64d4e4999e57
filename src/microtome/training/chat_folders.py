"""What chat tuning leaves on disk, whole or not at all.

    out/                           model and tokenizer, as plain transformers loads them, and training.json, how it went
    out.work/asked.json            the key of what was asked; a run that asks something else is refused
             checkpoint-<n>/       TRL's own: weights, optimizer, random generators, losses so far
             checkpoint-<n>/whole  written last: a checkpoint without it is half of one and is removed

`out` is put in place in one step; then `out.work` is removed. A run whose `out` is there is not done again.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from microtome.core.errors import ModelError
from microtome.core.files import clean, write_atomic
from microtome.models.model import Model

__all__ = ["Tuned", "begin", "finished", "load_tuned", "mark_whole", "work_folder", "write_tuned"]

_LOG, _ASKED, _WHOLE = "training.json", "asked.json", "whole"


@dataclass(frozen=True)
class Tuned:
    """A tuned model and how its training went.

    Attributes:
        folder: where model, tokenizer and this log are.
        kind: `sft` or `dpo`.
        losses: of each update, before it, in nats.
        rates: learning rate of each update.
        norms: of each update's gradient, before it was clipped.
        margins: of DPO, how much more the chosen answers have gained than the rejected ones, times beta; each update.
        accuracies: of DPO, share of pairs whose chosen answer has gained more.
        counts: of conversations or pairs and tokens; see `chat_rows.TokenRows`.
        settings: what was asked.
    """

    folder: Path
    kind: str
    losses: list[float]
    rates: list[float]
    norms: list[float]
    margins: list[float]
    accuracies: list[float]
    counts: dict[str, int]
    settings: dict[str, object]


def load_tuned(folder: Path | str) -> Tuned:
    """Return how the training went that made a folder.

    Args:
        folder: as `sft` or `dpo` left it.

    Raises:
        ModelError: it is not such a folder.
    """
    log = Path(folder) / _LOG
    if not log.is_file():
        raise ModelError(f"No tuned model in '{folder}': it has no {_LOG}; give a folder that sft or dpo has written.")
    content = json.loads(log.read_text())
    content.pop("key")
    return Tuned(Path(folder), **content)


def finished(out: Path, key: str) -> Tuned:
    """Return the tuned model that is there already.

    Args:
        out: its folder.
        key: of what is asked for.

    Raises:
        ModelError: what is there is not that.
    """
    log = out / _LOG
    if not log.is_file() or json.loads(log.read_text()).get("key") != key:
        what = "a model tuned otherwise" if log.is_file() else "something else"
        raise ModelError(f"A tuned model was to be written to '{out}', found {what} there; give another folder.")
    return load_tuned(out)


def begin(work: Path, key: str) -> Path | None:
    """Make a work folder what it should be, and return the checkpoint to go on from.

    Args:
        work: the folder; half checkpoints in it are removed.
        key: of what is asked for.

    Raises:
        ModelError: it is of another run, or of none.
    """
    asked = work / _ASKED
    if asked.is_file() and json.loads(asked.read_text())["key"] != key:
        raise ModelError(
            f"A run was to go on in '{work}', found one of other data, weights or settings; remove that folder or give "
            "another one to write to."
        )
    if work.exists() and not asked.is_file() and any(work.iterdir()):
        raise ModelError(f"Checkpoints were to be written to '{work}', found something else there; move it away.")
    write_atomic(asked, json.dumps({"key": key}).encode())
    clean(work)
    checkpoints = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for half in [p for p in checkpoints if not (p / _WHOLE).exists()]:
        shutil.rmtree(half)
    return next((p for p in reversed(checkpoints) if p.exists()), None)


def work_folder(out: Path) -> Path:
    """Return where the checkpoints are of a run that is to write a folder."""
    return out.with_name(f"{out.name}.work")


def mark_whole(work: Path, step: int) -> None:
    """Say of a checkpoint that all of it is there."""
    write_atomic(work / f"checkpoint-{step}" / _WHOLE, b"")


def write_tuned(part: Path, model: Model, key: str, log: dict[str, object]) -> None:
    """Write a tuned model, its tokenizer and its log.

    Args:
        part: the folder to make.
        model: with the tuned weights.
        key: of what was asked for.
        log: the fields of `Tuned` but its folder.
    """
    part.mkdir()
    model.module.save_pretrained(part)
    model.tokenizer.save_pretrained(part)
    (part / _LOG).write_text(json.dumps({"key": key, **log}, allow_nan=False))
