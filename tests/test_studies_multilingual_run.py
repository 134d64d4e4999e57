"""The multilingual study through the command: whole small runs, kill -9, any model with a user's text, refusals."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from microtome.core.config import to_toml, with_settings
from microtome.records import OUTCOMES, Record
from microtome.reports.drawing import draw_view
from microtome.training.build.recipe import load_recipe
from study_runs import StudyRun

RECIPE = (
    "corpus.documents=150 corpus.bytes=40000 tokenizer.size=512 model.layers=2 model.width=32 model.mlp=128 "
    "model.heads=2 model.context=128 pretrain.tokens=49152 pretrain.batch_tokens=1024 pretrain.rows=8 "
    "pretrain.checkpoints=2 pretrain.save_every=15 sft.examples=24 sft.batch=8 dpo.examples=16 dpo.batch=8"
).split()
SMALL = (
    "evaluation.sentences=16 evaluation.cloze=4 evaluation.prompts=2 evaluation.new_tokens=8 evaluation.draws=50 "
    "analysis.sentences=24 analysis.draws=20 analysis.quantile=0.8 analysis.shuffles=4 analysis.resamples=4 "
    "analysis.checked=12 analysis.random=3 analysis.control_importance=false analysis.similar=20 "
    "analysis.dynamics_sentences=12"
).split()
STUDY = StudyRun("multilingual", SMALL)


def recipe(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(to_toml(with_settings(load_recipe("quick"), [*RECIPE, 'corpus.languages=["en", "de", "hi"]'])))
    return str(path)


def built(folder: Path) -> tuple[str, ...]:
    own = ("--recipe", recipe(folder.parent), "--store", str(folder.parent / f"{folder.name}-store"))
    return (*own, "--model", "built", "--set", 'languages=["en", "de", "hi"]')


def ran(folder: Path, *further: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(STUDY.words(folder, *further), capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multilingual") / "whole"
    done = ran(folder, *built(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_from_raw_text_to_a_report(whole):
    record = Record.load(whole)
    record.check()
    names = [s["name"] for s in json.loads((whole / "record.json").read_text())["stages"]]
    assert (
        names
        == "plan build fidelity model tokens bits questions importance sets ablation alike dynamics published".split()
    )
    assert {r["language"] for r in record.rows("mixture")} == {"en", "de", "hi", "python"}
    assert {r["language"] for r in record.rows("bits")} == {"en", "de", "hi"}
    tuning = [r for r in record.rows("tuning") if r["stage"] == "dpo"]
    assert tuning[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert {j.verdict.outcome for j in record.claims} <= set(OUTCOMES) and len(record.claims) >= 10
    for view in record.manifest.views:
        draw_view(view, record.tables, record.table)
    assert "What was asked" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_build_changes_no_number(whole, tmp_path):
    folder = tmp_path / "whole"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(STUDY.words(folder, *built(folder)), env=env, stderr=subprocess.DEVNULL)
    store = tmp_path / "whole-store"
    while not list(store.glob("pretrain-*.work/checkpoints/step-*/checkpoint.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(store.glob("pretrain-*.work"))
    done = ran(folder, *built(folder))
    assert done.returncode == 0, done.stderr
    one, two = Record.load(whole), Record.load(folder)
    assert one.tables == two.tables
    assert all(one.rows(name) == two.rows(name) for name in one.tables)
    for name in ("built_loss", "built_pretrain", "built_dpo", "bits_mean", "fidelity_dpo_n"):
        assert one.value(name) == two.value(name)


@pytest.mark.slow
def test_any_model_on_a_users_parallel_text(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for language, word in (("en", "house"), ("de", "Haus"), ("fr", "maison")):
        lines = [f"{word} {i} {word[::-1]} {i * 7 % 11} and a {word}" for i in range(30)]
        (text / f"own.{language}.txt").write_text("\n".join(lines))
    done = ran(tmp_path / "run", "--model", "zoo:atlas", "--parallel", str(text), "--evaluation.cloze", "0")
    assert done.returncode == 0, done.stderr
    record = Record.load(tmp_path / "run")
    assert {r["language"] for r in record.rows("bits")} == {"en", "de", "fr"} and "mixture" not in record.tables


def test_the_published_recipe_is_counted_and_its_job_written(tmp_path):
    done = ran(tmp_path / "run", "--preset", "fuxitranyu-8b")
    assert done.returncode == 0, done.stderr
    record = Record.load(tmp_path / "run")
    assert record.value("plan_parameters") / 1e9 == pytest.approx(8.095, abs=5e-4)
    job = tmp_path / "run/artefacts/job"
    assert "torchrun" in (job / "job.sh").read_text() and 'name = "fuxitranyu-8b"' in (job / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--preset", "laptop"], "reads a corpus, found none at 'corpus'; give --corpus FOLDER"),
        (["--model", "zoo:atlas", "--parallel", "nowhere"], "No folder 'nowhere' to read parallel text from"),
        (["--recipe", "laptob"], "No recipe 'laptob'"),
        (["--model", "zoo:atlas", "--languages", "en,xx"], "xx"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(further, said, tmp_path):
    done = ran(tmp_path / "run", *further)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("microtome:  ")]
    assert done.returncode != 0 and said in done.stderr and len(lines) == 1 and "Traceback" not in done.stderr
