"""A folder is written only as the record of its own run, by one process at a time; what is damaged is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import microtome
from microtome.core.errors import RecordError
from microtome.records import SCHEMA_VERSION, Record, StageOutput
from microtome.records.provenance import git_state, provenance

RUN = {
    "study": "toy",
    "config": {"layers": [0, 1], "sweep": {"rate": 0.5}},
    "seed": 0,
    "fingerprints": {"model": "b2:aa"},
}


def opened(folder, **changes) -> Record:
    return Record.open(folder, **RUN | changes)


def finished(folder) -> Path:
    with opened(folder) as record:
        record.stage("one", lambda: StageOutput({"t": [{"x": i} for i in range(50)]}, {"a": np.arange(50.0)}))
        record.add_artefact("notes.txt", lambda p: p.write_text("fifty"))
    return record.path


def refusal(act) -> str:
    with pytest.raises(RecordError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- whose folder it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": "other"}, "study = 'toy', asked for 'other'"),
        ({"seed": 1}, "seed = 0, asked for 1"),
        ({"config": {"layers": [0, 2], "sweep": {"rate": 0.5}}}, "config.layers[1] = 1, asked for 2"),
        ({"config": {"layers": [0, 1], "sweep": {"rate": 0.25}}}, "config.sweep.rate = 0.5, asked for 0.25"),
        ({"config": {"layers": [0, 1], "sweep": {}}}, "config.sweep.rate = 0.5, asked for nothing"),
        ({"config": RUN["config"] | {"new": None}}, "config.new = nothing, asked for None"),
        ({"config": {"layers": [0, True], "sweep": {"rate": 0.5}}}, "config.layers[1] = 1, asked for True"),
        ({"fingerprints": {"model": "b2:bb"}}, "fingerprints.model = 'b2:aa', asked for 'b2:bb'"),
    ],
)
def test_the_record_of_another_run_is_refused_by_its_first_key(tmp_path, changes, said):
    path = finished(tmp_path / "r")
    before = (path / "record.json").read_bytes()
    assert refusal(lambda: opened(path, **changes)) == (
        f"Record '{path}' was made with {said}; choose another folder (--out) or the same settings."
    )
    assert (path / "record.json").read_bytes() == before
    assert opened(path).status == "finished"  # the refusal let go of the folder


def test_a_config_is_its_content_whether_a_dataclass_or_plain(tmp_path):
    @dataclass(frozen=True)
    class Sweep:
        rate: float = 0.5

    @dataclass(frozen=True)
    class Config:
        layers: tuple[int, ...] = (0, 1)
        sweep: Sweep = Sweep()

    path = finished(tmp_path / "r")
    with opened(path, config=Config(), passed={"seed": 0}) as record:
        assert record.stage("one", StageOutput).reused
    with pytest.raises(RecordError, match=r"config.layers = \[0, 1\], asked for \[5\]"):
        opened(path, config=Config((5,)))


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    for name in ("notes.txt", "tables", ".git"):
        folder = tmp_path / f"with {name}"
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.parquet").write_text("mine")
        assert refusal(lambda folder=folder: opened(folder)) == (
            f"Record '{folder}' was asked for, found '{name}' and no record.json there; choose another folder (--out)."
        )
        assert [p.name for p in folder.rglob("*")] == [name, "mine.parquet"]
    file = tmp_path / "file"
    file.write_text("mine")
    assert refusal(lambda: opened(file)) == (
        f"Record '{file}' was asked for, found a file there; choose another folder (--out)."
    )
    assert file.read_text() == "mine"


def test_an_empty_folder_and_what_an_opening_killed_at_once_left_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").touch()
    (tmp_path / "killed" / ".part-record.json").write_text('{"form')
    for name in ("empty", "killed", "deep/in/new"):
        path = finished(tmp_path / name)
        assert not list(path.glob(".part-*"))
        Record.load(path).check()


def test_what_a_killed_run_left_by_halves_is_removed(tmp_path):
    path = finished(tmp_path / "r")
    whole = sorted(path.rglob("*"))
    (path / "tables" / ".part-gone.parquet").touch()
    (path / "artefacts" / ".part-gone" / "deep").mkdir(parents=True)
    opened(path).finish()
    assert sorted(path.rglob("*")) == whole


# -- one writer ----------------------------------------------------------------------------------------------------

HOLD = """
import sys
from microtome.records import Record
record = Record.open(sys.argv[1], study="toy", config={}, seed=0)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_record_another_process_writes_is_refused_until_that_process_is_gone(tmp_path):
    path = tmp_path / "r"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert refusal(lambda: Record.open(path, study="toy", config={}, seed=0)) == (
            f"Record '{path}' is being written by another process (or another Record of this one); wait for it or "
            "choose another folder (--out)."
        )
        assert Record.load(path).status == "running"  # reading needs no lock
        holder.kill()
    with Record.open(path, study="toy", config={}, seed=0) as record:
        assert record.status == "running"


def test_one_process_does_not_write_a_record_twice_over(tmp_path):
    record = opened(tmp_path / "r")
    with pytest.raises(RecordError, match="is being written by another process"):
        opened(tmp_path / "r")
    record.finish()
    opened(tmp_path / "r").finish()
    del record
    opened(tmp_path / "dropped")
    opened(tmp_path / "dropped").finish()  # a Record nobody has any more holds nothing


# -- damage --------------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
@pytest.mark.parametrize(
    ("file", "called"),
    [
        ("tables/t.parquet", "Table 't'"),
        ("arrays/a.safetensors", "Array 'a'"),
        ("artefacts/notes.txt", "Artefact 'notes.txt'"),
    ],
)
def test_a_file_changed_or_cut_is_refused_whoever_asks(tmp_path, file, called, damage):
    path = finished(tmp_path / "r")
    Record.load(path).check()
    damage(path / file)

    def resume():
        with opened(path) as record:
            record.stage("one", StageOutput, {})
            record.add_artefact("notes.txt", Path.touch)

    for act in (Record.load(path).check, resume):
        line = refusal(act)
        assert line.startswith(f"{called} of record '{path}' is damaged: its checksum is ")
        assert line.endswith(f"; delete '{Path(file).name}' and run the study again.")
    (path / file).unlink()
    assert f"'{Path(file).name}' is missing; run the study again" in refusal(Record.load(path).check)
    finished(path)  # as the line says: deleted and run again, it is whole
    Record.load(path).check()


def edited(path: Path, edit) -> Path:
    file = path / "record.json"
    body = json.loads(file.read_text())
    edit(body)
    file.write_text(json.dumps(body))
    return path


def set_to(key, value):
    return lambda body: body.__setitem__(key, value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_to("schema_version", SCHEMA_VERSION + 1),
         f"has schema version {SCHEMA_VERSION + 1}, this microtome reads up to {SCHEMA_VERSION}; upgrade microtome."),
        (set_to("schema_version", str(SCHEMA_VERSION + 1)), "is damaged at 'schema_version': Input should be 1"),
        (set_to("format", "other"), "is not a Microtome record (no format 'microtome.record'); give the folder of a "
                                    "run."),
        (set_to("seed", "x"), "is damaged at 'seed': Input should be a valid integer"),
        (set_to("status", "done"), "is damaged at 'status': Input should be 'running', 'interrupted' or 'finished'"),
        (set_to("surprise", 1), "is damaged at 'surprise': Extra inputs are not permitted"),
        (set_to("config", {"rate": float("nan")}), "is damaged: it holds NaN, which a record never does"),
        (lambda body: body.pop("study"), "is damaged at 'study': Field required"),
        (lambda body: body["stages"][0].pop("key"), "is damaged at 'stages.0.key': Field required"),
        (lambda body: body["stages"][0]["tables"].update({"../x": body["stages"][0]["tables"]["t"]}),
         "is damaged at 'stages.0.tables.../x.[key]': String should match pattern"),
        (lambda body: body["stages"][0]["arrays"].update({"/etc/x": body["stages"][0]["arrays"]["a"]}),
         "is damaged at 'stages.0.arrays./etc/x.[key]': String should match pattern"),
        (lambda body: body["artefacts"].update({"..": body["artefacts"]["notes.txt"]}),
         "is damaged at 'artefacts....[key]': String should match pattern"),
    ],
)  # fmt: skip
def test_a_record_json_that_does_not_fit_is_refused_with_its_place(tmp_path, edit, message):
    path = edited(finished(tmp_path / "r"), edit)
    for act in (lambda: Record.load(path), lambda: opened(path)):
        assert f"'{path / 'record.json'}' {message}" in refusal(act)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}garbage', "[]", '"x"', "\ufeff{}", '{"seed": 1e999}', "[" * 100_000,
                                  '{"a": %s}' % ("9" * 5000), "\x00"])  # fmt: skip
def test_a_record_json_that_is_cut_or_nonsense_is_refused(tmp_path, text):
    path = finished(tmp_path / "r")
    (path / "record.json").write_text(text)
    assert f"'{path / 'record.json'}' is " in refusal(lambda: Record.load(path))
    (path / "record.json").write_bytes(b"\xff\xfe{")
    assert "is damaged: " in refusal(lambda: Record.load(path))


def test_a_number_too_large_to_be_finite_is_refused_like_infinity(tmp_path):
    file = finished(tmp_path / "r") / "record.json"
    file.write_text(file.read_text().replace('"rate": 0.5', '"rate": 1e999'))
    assert "record.json' is damaged: it holds 1e999, which a record never does" in refusal(
        lambda: Record.load(file.parent)
    )


def test_a_folder_without_a_record_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        assert refusal(lambda path=path: Record.load(path)) == (
            f"No record at '{path}': found no record.json there; give the folder that a run wrote."
        )


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", ".hidden", "a/b", "..", "a\\b", "x\n"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with opened(tmp_path / "r") as record:
        before = sorted(tmp_path.rglob("*"))
        for act, kind in (
            (lambda: record.stage(name, StageOutput), "stage"),
            (lambda: record.add_artefact(name, Path.touch), "artefact"),
        ):
            assert refusal(act).startswith(
                f"{name!r} cannot be the name of this {kind}; begin with a letter or digit and use only"
            )
        assert sorted(tmp_path.rglob("*")) == before


# -- where it comes from -------------------------------------------------------------------------------------------


def test_provenance_names_the_code_and_survives_having_no_git(tmp_path, monkeypatch):
    told = provenance("cpu")
    assert told["device"] == "cpu" and told["packages"]["numpy"] == np.__version__
    json.dumps(told, allow_nan=False)
    assert git_state(tmp_path) == {"commit": None, "dirty": None, "reason": "the package is not a git checkout"}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path)["reason"] == "git cannot be run (FileNotFoundError)"
    assert finished(tmp_path / "r").is_dir()


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *author, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_provenance_tells_a_clean_checkout_from_a_changed_one(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    git(tmp_path, "init")
    assert git_state(package)["reason"] == "the package is not a git checkout"  # surrounded, not tracked
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_state(package) == {"commit": head, "dirty": False}
    (tmp_path / "notes.txt").touch()  # beside the package
    assert git_state(package) == {"commit": head, "dirty": False}
    (package / "new.py").touch()
    assert git_state(package) == {"commit": head, "dirty": True}


LIGHT = """
import sys
from microtome.records import Record, StageOutput, query
with Record.open(sys.argv[1], study="toy", config={}, seed=0) as record:
    record.stage("one", lambda: StageOutput({"t": [{"x": 1}]}))
read = Record.load(sys.argv[1])
print(read.rows("t"), query(read, "select x from t").to_pylist(), "torch" in sys.modules)
print(read.manifest.provenance["git"])
"""


def test_an_installed_package_outside_git_writes_and_reads_records_without_torch(tmp_path):
    source = Path(microtome.__file__).parent
    for part in ("core", "records"):
        shutil.copytree(source / part, tmp_path / "site" / "microtome" / part)
    shutil.copy(source / "__init__.py", tmp_path / "site" / "microtome")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(tmp_path / "r")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[{'x': 1}] [{'x': 1}] False",
        "{'commit': None, 'dirty': None, 'reason': 'the package is not a git checkout'}",
    ]


def test_code_that_changed_between_two_sittings_is_told(tmp_path):
    path = finished(tmp_path / "r")
    edited(path, lambda body: (body["provenance"].update(python="3.0"), body.update(status="running")))
    for _ in range(2):  # the second sitting is of known code, and is not told again
        opened(path).interrupt("x")
    told = Record.load(path).manifest
    assert told.provenance["python"] == "3.0"
    assert [p["python"] for p in told.resumed_with] == [provenance()["python"]]
    assert len(told.times["resumed"]) == 2
