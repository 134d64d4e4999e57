"""A run killed at any instant, then started again, ends with the record of a run that nobody killed.

This file is also the script that is killed: `python test_records_killed.py FOLDER [HOW [BIG]]`. It dies by its own
hand, at an exact place, of signals that no code of ours catches: SIGKILL while a stage computes or before the n-th file
operation of the interpreter, SIGXFSZ in the middle of a write (the kernel's limit on file size; half is there).
"""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from microtome.core.seeds import generator
from microtome.records import Claim, Missing, Record, StageOutput, Verdict, differences

BIG = 20_000  # bytes; by some margin, only the file called for is larger than half of it


def pipeline(folder: Path, at=lambda place: None, big: str = "", draws: int = 10) -> None:
    """Three stages, an artefact, a verdict and a view; `at` is told where it is, `big` makes one kind of file large."""
    size = {kind: BIG if kind == big else 10 for kind in ("arrays", "artefacts", "record.json")}
    draws = BIG if big == "tables" else draws
    with Record.open(folder, study="toy", config={"big": big}, seed=4) as record:

        def draw():
            at("stage draw")
            drawn = generator(4, "draw").normal(size=draws)
            return StageOutput({"draws": [{"i": i, "x": float(x)} for i, x in enumerate(drawn)], "other": [{"y": 1}]})

        def fit(drawn):
            x = np.array([row["x"] for row in drawn.rows("draws")])
            at("stage fit")
            return StageOutput(arrays={"fitted": np.resize(x, size["arrays"])}, values={"mean": float(x.mean())})

        def total(fitted):
            at("stage total")
            told = {"total": fitted.value("mean") * 3, "auc": Missing("one class only")}
            return StageOutput(values=told | {"digits": list(range(size["record.json"]))})

        def write(path):
            path.mkdir()
            (path / "a.txt").write_text("a" * size["artefacts"])
            at("artefact")
            (path / "b.txt").write_text("b")

        drawn = record.stage("draw", draw, {"draws": draws})
        fitted = record.stage("fit", lambda: fit(drawn), {"drawn": drawn})
        record.add_artefact("basis", write, {"fitted": fitted})
        totalled = record.stage("total", lambda: total(fitted), {"fitted": fitted})
        claim = Claim("c", "It is so.", "arXiv 0", "Table 1", 0.5)
        record.judge(claim, Verdict("reproduced", "it is", totalled.value("total"), 3, (-9, 9), {"random": 0.0}))
        record.views([{"kind": "bar", "table": "draws"}])


def die_at(place: str):
    return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == place else None


def die_before_operation(folder: Path, count: int) -> None:
    """Arrange for SIGKILL before the count-th opening for writing, renaming or removing of a file under `folder`."""
    left = count

    def watch(event, args):
        nonlocal left
        writes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (event == "open" and args[1] == "wb")
        if writes and str(args[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def die_halfway_through_a_large_file() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG // 2, BIG // 2))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and would raise OSError


def main(folder: str, how: str = "", big: str = "") -> None:
    at = die_at(how) if how else lambda place: None
    if how == "halfway":
        die_halfway_through_a_large_file()
    elif how == "ctrl-c":
        at = lambda place: os.kill(os.getpid(), signal.SIGINT) if place == "stage fit" else None  # noqa: E731
    pipeline(Path(folder), at, big)


def script(*arguments: object) -> int:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    assert done.returncode <= 1, done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The record of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    pipeline(folder)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file but record.json, which holds times, and the lock."""
    found = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    return {name: data for name, data in found.items() if name not in (".lock", "record.json")}


def assert_same(resumed: Path, whole: Path) -> None:
    a, b = Record.load(resumed), Record.load(whole)
    a.check()
    assert a.status == "finished"
    assert differences(a, b) == []
    assert [s.name for s in a.manifest.stages] == [s.name for s in b.manifest.stages]
    assert bytes_of(resumed) == bytes_of(whole)


@pytest.mark.parametrize(("place", "done"), [("stage draw", 0), ("stage fit", 1), ("artefact", 2), ("stage total", 2)])
def test_killed_while_a_stage_computes(tmp_path, whole, place, done):
    assert script(tmp_path / "killed", place) == -signal.SIGKILL
    killed = Record.load(tmp_path / "killed")
    assert killed.status == "running" and len(killed.manifest.stages) == done
    killed.check()  # what counts is whole
    assert differences(killed, Record.load(whole)) != []
    assert script(tmp_path / "killed") == 0
    assert_same(tmp_path / "killed", whole)


@pytest.mark.parametrize("big", ["tables", "arrays", "artefacts", "record.json"])
def test_killed_halfway_through_a_write(tmp_path, big):
    assert script(tmp_path / "killed", "halfway", big) == -signal.SIGXFSZ
    halves = [f for f in (tmp_path / "killed").rglob("*") if f.is_file() and ".part-" in str(f)]
    assert [f.stat().st_size for f in halves] == [BIG // 2]  # it did die in the middle of that file
    Record.load(tmp_path / "killed").check()
    pipeline(tmp_path / "killed", big=big)
    pipeline(tmp_path / "whole", big=big)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@contextmanager
def full_disk():
    """The same limit with the signal ignored: a write past it fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_the_run_can_go_on(tmp_path):
    with full_disk():
        pipeline(tmp_path / "r", big="arrays")
    stopped = Record.load(tmp_path / "r")
    assert (stopped.status, [s.name for s in stopped.manifest.stages]) == ("interrupted", ["draw"])
    assert stopped.manifest.stopped_by.startswith("OSError: [Errno 27] File too large")
    assert not [f for f in (tmp_path / "r").rglob("*") if ".part-" in f.name]
    pipeline(tmp_path / "r", big="arrays")
    pipeline(tmp_path / "whole", big="arrays")
    assert_same(tmp_path / "r", tmp_path / "whole")


def test_a_stage_stopped_while_it_is_redone_counts_for_nothing(tmp_path):
    """Its table is the new one and its array the old one: neither may be taken for a result."""

    def redo(n: int) -> None:
        with Record.open(tmp_path / "r", study="toy", config={}, seed=0) as record:
            made = record.stage("one", lambda: StageOutput({"t": [{"x": n}]}, {"a": np.full(n, 1.0)}), {"n": n})
            assert made.rows("t") == [{"x": n}] and made.array("a").shape == (n,)

    redo(1)
    with full_disk():
        redo(BIG)
    stopped = Record.load(tmp_path / "r")
    assert (stopped.status, stopped.manifest.stages) == ("interrupted", [])
    redo(1)
    redo(BIG)
    Record.load(tmp_path / "r").check()


def test_ctrl_c_marks_the_record_interrupted(tmp_path, whole):
    done = subprocess.run([sys.executable, __file__, str(tmp_path / "r"), "ctrl-c"], capture_output=True, text=True)
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr
    stopped = Record.load(tmp_path / "r")
    assert (stopped.status, stopped.manifest.stopped_by) == ("interrupted", "KeyboardInterrupt")
    pipeline(tmp_path / "r")
    assert_same(tmp_path / "r", whole)


# One process that forks a run for every n, killed before its n-th file operation, and then one that goes on with it.
EVERY_OPERATION = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from microtome.records import Record
from test_records_killed import die_before_operation, pipeline

def forked(folder, count=None, draws=10):
    child = os.fork()
    if child == 0:
        if (folder / "record.json").exists():
            Record.load(folder).check()  # what the one before left counts, and is whole
        if count:
            die_before_operation(folder, count)
        pipeline(folder, draws=draws)
        os._exit(0)
    return os.waitpid(child, 0)[1]

runs = Path(sys.argv[1])
runs.mkdir()
if sys.argv[2] == "redone":
    assert forked(runs / "other", draws=7) == 0
for count in range(1, 500):
    folder = runs / f"{count:03d}"
    if sys.argv[2] == "redone":
        shutil.copytree(runs / "other", folder)
    ended = forked(folder, count)
    assert ended in (0, signal.SIGKILL), ended
    assert forked(folder) == 0
    if ended == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["fresh", "redone"])
def test_killed_before_each_of_its_file_operations(tmp_path, whole, before):
    """Slow: some eighty runs, two for each operation of a run into a new folder, or over a record of other inputs."""
    code = [sys.executable, "-c", EVERY_OPERATION, str(Path(__file__).parent), str(tmp_path / "runs"), before]
    done = subprocess.run(code, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    folders = sorted(f for f in (tmp_path / "runs").iterdir() if f.name != "other")
    assert len(folders) > 25  # five files are made and renamed, and record.json with each step
    for folder in folders:
        assert_same(folder, whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
