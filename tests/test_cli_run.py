"""A study of another package through the command: run, resume, report, check, records, query; and each refusal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import toy_study
from microtome.cli.main import main
from microtome.records import Record

RECORD = Path("runs/toy/quick-none-0")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A caller of the command in this process, in a folder of its own where the toy study is installed."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "work").mkdir()
    toy_study.write(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.chdir(tmp_path / "work")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["microtome", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return end.value.code or 0, told.out, told.err

    yield call
    for name in [m for m in sys.modules if m.startswith("toy_package")]:
        del sys.modules[name]


@pytest.fixture
def process(command, tmp_path):
    """A starter of the command as a real process, in the same folder with the same studies."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MICROTOME_LAUNCHED", "OMP_WAIT_POLICY")}

    def start(*arguments, **settings) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "microtome.cli.main", *map(str, arguments)],
            env={**environment, "PYTHONPATH": str(tmp_path / "installed"), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def refused(told: tuple[int, str, str], *texts: str) -> None:
    code, out, err = told
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1, told
    assert all(t in err for t in texts), err


def test_a_run_leaves_a_record_that_every_command_reads(command):
    code, out, err = command("run", "toy")
    assert code == 0 and "✔ reproduced" in out and f"report: {RECORD.resolve()}" in out and err == ""
    assert command("check", RECORD)[1] == "ok: toy, 2 stages, 1 tables, 1 claims with their controls, 1 views\n"
    assert "1 reproduced" in command("records")[1] and "quick-none-0" in command("records", "runs")[1]
    assert command("query", RECORD)[1] == "counts (4 rows): item, value\n"
    assert command("query", RECORD, "select sum(value) as total from counts", "--csv")[1] == "total\n6\n"
    assert "2 of 4 rows" in command("query", RECORD, "select * from counts", "--limit", "2")[1]
    (RECORD / "report.html").unlink()
    code, out, _ = command("report", RECORD, "--figures", "figures")
    assert code == 0 and "figures: 2 files" in out and "Does a toy count?" in (RECORD / "report.html").read_text()
    assert "toy" in command("studies")[1] and "quick, full" in command("studies")[1]


def test_a_finished_run_is_not_computed_again(command, monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    for _ in range(2):
        assert command("run", "toy")[0] == 0
    assert (tmp_path / "log").read_text() == "counted\n"


def test_ctrl_c_exits_130_and_the_same_command_finishes(process, command, tmp_path):
    log = str(tmp_path / "log")
    cut = process("run", "toy", TOY_WAITS="1", TOY_LOG=log)
    assert cut.stdout.readline() == "False passive\n"  # no torch, and started once more with the settings
    assert cut.stdout.readline() == "waiting\n"
    cut.send_signal(signal.SIGINT)
    out, err = cut.communicate(timeout=60)
    assert (cut.returncode, out) == (130, "") and err == "microtome: interrupted; run the same command to resume\n"
    assert Record.load(RECORD).status == "interrupted" and not (RECORD / "report.html").exists()
    refused(command("check", RECORD), "is not finished: its status is 'interrupted' after 1 stages")
    assert command("report", RECORD)[0] == 0 and "not finished" in (RECORD / "report.html").read_text()
    rest = process("run", "toy", TOY_LOG=log)
    out, err = rest.communicate(timeout=60)
    assert rest.returncode == 0 and err == "" and "reproduced" in out
    assert Path(log).read_text() == "counted\n"  # the first stage was not computed again
    assert Record.load(RECORD).status == "finished" and command("check", RECORD)[0] == 0


def test_options_of_the_config_are_options_of_the_command(command):
    options = ["--data", "a=b.csv", "--entity=--town", "--layers", "2,3", "--strict=false", "--testing.draws", "5"]
    assert (
        command("run", "toy", *options, "--set", "items=2", "--seed", "7", "--model", "zoo:x", "--out", "here")[0] == 0
    )
    found = Record.load("here").manifest
    assert found.config == {"model": "zoo:x", "seed": 7, "items": 2, "data": "a=b.csv", "entity": "--town",
                            "layers": [2, 3], "strict": False, "testing": {"draws": 5}}  # fmt: skip
    assert set(found.passed) == {"model", "seed", "items", "data", "entity", "layers", "testing.draws"}


def test_a_record_is_named_by_preset_model_and_seed_and_by_a_hash_where_more_is_set(command):
    assert command("run", "toy", "--preset", "full", "--model", "org/Name-1.5", "--seed", "3")[0] == 0
    assert command("run", "toy", "--items", "5")[0] == 0
    assert command("run", "toy", "--items", "6")[0] == 0
    named, *hashed = sorted(p.name for p in Path("runs/toy").iterdir())
    assert named == "full-org-Name-1.5-3" and len(hashed) == 2 and all(h.startswith("quick-none-0-") for h in hashed)


def test_a_configuration_file_is_run_as_it_stands(command):
    Path("mine.toml").write_text('items = 3\nentity = "town"\n')
    assert command("run", "toy", "--config", "mine.toml")[0] == 0
    record = Record.load("runs/toy/mine-none-0")
    assert record.manifest.passed == {"items": 3, "entity": "town"}
    refused(
        command("run", "toy", "--config", "mine.toml", "--preset", "full"), "Both --preset full and --config mine.toml"
    )
    refused(command("run", "toy", "--config", "his.toml"), "'his.toml' was asked for, found no such file")


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("ty",), ("No study 'ty'; there are:", "Did you mean 'toy'?")),
        (("toy", "--preset", "quik"), ("No preset 'quik' in study 'toy'; it has quick, full. Did you mean 'quick'?",)),
        (("toy", "--set", "itms=3"), ("No key 'itms' in ToyConfig", "Did you mean 'items'?")),
        (("toy", "--set", "items"), ("Setting 'items' has no key and value",)),
        (("toy", "--set", "items=many"), ("Key 'items' was given", "it takes a whole number")),
        (("toy", "--dta", "x"), ("No option '--dta' in study 'toy'; its config takes --model,", "mean '--data'?")),
        (("toy", "--modle", "x"), ("No option '--modle'", "Did you mean '--model'?")),
        (("toy", "--prest", "full"), ("Did you mean '--preset'?",)),
        (("toy", "--testing.drws", "3"), ("No key 'testing.drws'", "Did you mean 'testing.draws'?")),
        (("toy", "-x", "3"), ("No option '-x' in study 'toy'",)),
        (("toy", "--items"), ("Option '--items' of study 'toy' has no value; write --items VALUE.",)),
        (("toy", "--items", "--entity", "x"), ("Option '--items' of study 'toy' has no value",)),
        (("toy", "--items", "1", "--items", "2"), ("Option '--items' was given twice, '1' and '2'",)),
        (("toy", "full"), ("Found 'full' after study 'toy', no option before it",)),
        (("toy", "--paper-compat"), ("Study 'toy' takes no --paper-compat: its config has no 'paper_compat'",)),
        (("--items", "3", "toy"), ("Option '--items' stands before the study",)),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(command, arguments, texts):
    refused(command("run", *arguments), *texts)
    assert not Path("runs").exists()


def test_a_flag_of_the_config_needs_no_value(command):
    code, _, err = command("run", "toy", "--strict")
    assert code == 2 and err == "microtome: Toy data was asked for, found none; give --data.\n"
    assert command("run", "toy", "--no-strict", "--out", "loose")[0] == 0


def test_a_record_of_another_run_is_left_as_it_is(command):
    assert command("run", "toy", "--out", "one")[0] == 0
    before = {p: p.read_bytes() for p in Path("one").rglob("*") if p.is_file()}
    refused(command("run", "toy", "--out", "one", "--items", "9"), "items = 4, asked for 9")
    assert {p: p.read_bytes() for p in Path("one").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", [("report",), ("check",), ("query",)])
def test_a_missing_or_damaged_record_is_one_line(command, name):
    refused(command(*name, "nowhere"), "No record at 'nowhere'")
    assert not Path("nowhere").exists()
    assert command("run", "toy", "--out", "one")[0] == 0
    Path("one/report.html").unlink()
    table = Path("one/tables/counts.parquet")
    table.write_bytes(table.read_bytes()[:-1])
    refused(command(*name, "one"), "Table 'counts' of record 'one' is damaged")
    Path("one/record.json").write_text('{"format": ')
    refused(command(*name, "one"), "'one/record.json' is damaged")
    assert not Path("one/report.html").exists()


def test_a_damaged_record_does_not_hide_the_others(command):
    for name in ("runs/a", "runs/b"):
        assert command("run", "toy", "--out", name)[0] == 0
    Path("runs/b/record.json").write_text(json.dumps({"format": "microtome.record", "schema_version": 99}))
    code, out, err = command("records")
    assert code == 2 and "runs/a" in out and "runs/b" not in out and "1 of 2 records" in err and "version 99" in err
    refused(command("records", "elsewhere"), "No records under 'elsewhere'")


def test_a_bad_query_is_one_line(command):
    assert command("run", "toy", "--out", "one")[0] == 0
    refused(
        command("query", "one", "select * from conts"), "Query 'select * from conts' failed", "the tables are counts"
    )


def test_a_plugin_that_is_no_study_is_named(command, tmp_path):
    (tmp_path / "installed" / "toy_package" / "__init__.py").write_text("STUDY = 3\n")
    refused(command("run", "toy"), "Plugin 'toy' of 'microtome.studies' is a int; make it a Study")
