"""Let a tool fit given tasks in its own environment: `python -m benchmarks.oracle TOOL FOLDER`.

Reads FOLDER/*.task (a training and a test `Task`, written by `ask`) and writes beside each what every way of the tool
made of it, on the tiny model in the precision of the task. For tests that hold another tool's fit beside ours.
"""

import importlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.das import Task
from benchmarks.workload import TINY, Work, make_work

__all__ = ["answers", "ask", "tiny_work"]


def tiny_work(folder: Path, dtype: torch.dtype) -> Work:
    """Return the tiny shared work with its model in some precision."""
    work = make_work("cpu", folder, TINY)
    torch.set_num_threads(1)  # nothing is timed here, and threads that wait for each other cost most on a busy machine
    return replace(work, model=work.model.to(dtype))


def ask(path: Path, train: Task, test: Task) -> None:
    """Write a question."""
    torch.save({"train": vars(train), "test": vars(test)}, path)


def answers(path: Path) -> dict[str, dict]:
    """Return what a tool made of a question: way -> losses, axes, and what is said of the test pairs under those."""
    return torch.load(path.with_suffix(".found"), weights_only=True)


def main() -> None:
    """Answer every question of a folder."""
    tool, folder = sys.argv[1], Path(sys.argv[2])
    adapter = importlib.import_module(f"benchmarks.peers.{tool}_das")
    for path in sorted(folder.glob("*.task")):
        train, test = (Task(**given) for given in torch.load(path, weights_only=True).values())
        with tempfile.TemporaryDirectory() as scratch:
            work = tiny_work(Path(scratch), train.start.dtype)
            found = {}
            for fitter in adapter.fitters(work):
                (fit,) = fitter.prepared_fit([train])
                said = fitter.said(test, fitter.prepare([test])[0], fit.axes)
                found[fitter.name] = {"losses": fit.losses, "axes": fit.axes, "said": said}
        torch.save(found, path.with_suffix(".found"))


if __name__ == "__main__":
    main()
