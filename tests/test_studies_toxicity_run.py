"""The toxicity study through the command: whole records, a user's csv, an exported edit, kill -9, and refusals."""

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from close import OTHER
from microtome.data.parrot import TOXIC, parrot_set
from microtome.edits.saving import load_edits
from microtome.engine.run import run
from microtome.models import Model
from microtome.models.zoo.parrot import parrot_truth
from microtome.records import OUTCOMES, Record, differences
from microtome.reports.drawing import draw_view
from study_runs import StudyRun, stages

SMALL = (
    "texts.discovery=300 texts.test=160 texts.clean=32 texts.contexts=80 neurons.draws=5 neurons.sets=8 "
    "neurons.random=6 generating.prompts=24 generating.completions=2 generating.new_tokens=8 arms.budgets=[0.03,0.1] "
    "arms.ks=[2,8] arms.random=1 arms.draws=100 arms.examples=5 arms.tune_steps=8 arms.layers=[1]"
).split()
STUDY = StudyRun("toxicity", SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return STUDY.made(tmp_path_factory.mktemp("toxicity") / "whole")


@pytest.mark.slow
def test_every_arm_is_in_the_table_with_intervals_and_every_view_can_be_drawn(whole):
    record = Record.load(whole)
    record.check()
    rows = record.rows("arms")
    assert {r["family"] for r in record.rows("strengths_at")} >= {
        "eigenshift", "difference", "aura", "det_zero", "damp", "steer", "inlp", "leace", "moments", "transport",
        "lineas", "profs", "dexperts", "dpo", "pre_prompt", "writers", "random", "shuffled", "random_neurons",
    }  # fmt: skip
    for row in rows:
        assert 0 <= row["rate_low"] <= row["rate"] <= row["rate_high"] <= 1
        assert row["n"] == 24 and row["completions"] == 48
    assert rows[0]["family"] == "no-op" and record.value("noop_identical") and record.value("noop_kl") == 0
    assert {j.verdict.outcome for j in record.claims} <= set(OUTCOMES) and len(record.claims) == 8
    for view in record.manifest.views:
        draw_view(view, record.tables, record.table)
    assert "What was asked" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_reports_mask_flagged_words_unless_they_are_asked_for(whole):
    page = (whole / "report.html").read_text()
    assert not [word for word in TOXIC if word in page]


@pytest.mark.slow
def test_head_edits_leave_every_internal_reading_as_it_was_and_matched_arms_are_within_the_budget(whole):
    record = Record.load(whole)
    for row in record.rows("strengths_at"):
        assert row["kl"] <= row["budget"]
        assert row["state"] in ("matched", "largest strength", "cannot be milder")
    kept = [r for r in record.rows("selection") if r["chosen"]]
    assert len({r["family"] for r in kept}) == len(kept)


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_record(whole, tmp_path):
    folder = tmp_path / "killed"
    left = STUDY.killed(folder, "match")
    STUDY.made(folder)
    assert stages(folder)[: len(left)] == left and len(stages(folder)) == 10
    assert differences(Record.load(whole), Record.load(folder)) == []


@pytest.mark.slow
def test_planted_neurons_are_told_apart(tmp_path):
    """The reader detects and does not generate, the writer generates and does not detect; AurA damps the reader."""
    folder = STUDY.made(tmp_path / "planted", "--model", "zoo:parrot-planted", "--set", 'arms.only=["aura"]')
    record, truth = Record.load(folder), parrot_truth()
    named = {r["neuron"]: r for r in record.rows("generation")}
    reader, writer = (named[f"{s} {i[0]}"] for u in (truth.reader, truth.writer) for s, i in u.items())
    assert reader["detection"] > 0.2 > 3 * writer["detection"]
    assert writer["generation"] == max(r["generation"] for r in named.values()) > 0.1
    assert abs(reader["generation"]) < 0.01
    assert reader["detection"] > sorted(r["detection"] for r in named.values())[-20]


@pytest.mark.slow
def test_the_exported_edit_is_loaded_by_plain_transformers_in_a_fresh_process(whole, tmp_path):
    folder, texts = tmp_path / "edited", parrot_set(24, seed=9).texts
    for name in ("eigenshift", "det_zero", "aura"):
        done = subprocess.run(
            [sys.executable, "-m", "microtome.cli.main", "edit", "export", str(whole), "--edit", f"{name}.safetensors",
             "--to", str(folder / name)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        model = Model.load("zoo:parrot", dtype=torch.float32)
        batch = model.batch(texts)
        saved = load_edits(Record.load(whole).artefact_path(f"{name}.safetensors"), model=model)
        hooked = run(model, batch, edits=saved.edits).logits
        torch.save({k: v for k, v in batch.inputs.items() if k != "position_ids"}, tmp_path / "inputs.pt")
        code = (
            "import sys, torch, transformers; assert 'microtome' not in sys.modules\n"
            "load = transformers.AutoModelForCausalLM.from_pretrained\n"
            f"m = load({str(folder / name)!r}, dtype=torch.float32).eval()\n"
            f"x = torch.load({str(tmp_path / 'inputs.pt')!r})\n"
            f"torch.save(m(**x).logits.detach(), {str(tmp_path / 'logits.pt')!r})"
        )
        fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert fresh.returncode == 0, fresh.stderr
        baked = torch.load(tmp_path / "logits.pt")
        assert (baked - hooked)[batch.mask].abs().max() < OTHER
        assert (hooked - run(model, batch).logits)[batch.mask].abs().max() > 0.01


HOSTILE = ["<script>alert(1)</script> & <b>bold</b>", "a\x00b\x1b[31m red \u202e back", "x" * 100_000]


def comments(path: Path, n: int = 160) -> Path:
    """Write a csv of comments: rude ones hold one of a few words; among the others are hostile texts."""
    rng = random.Random(0)
    words = "the weather is nice today and we walked to a small lake with our friends before dinner".split()
    rows = []
    for i in range(n):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(6, 20)))
        rude = i % 2
        rows.append((f"{text} you {rng.choice(('grubnak', 'blorp'))} {text}" if rude else text, rude))
    rows += [(text, 0) for text in HOSTILE]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["comment", "rude"])
        writer.writerows(rows)
    return path


@pytest.mark.slow
def test_a_csv_of_the_users_own_is_screened_and_hostile_texts_do_no_harm(tmp_path):
    path = comments(tmp_path / "comments.csv")
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("grubnak\nblorp\n")
    own = ("--csv", str(path), "--text-column", "comment", "--label-column", "rude", "--lexicon", str(lexicon))
    folder = STUDY.made(tmp_path / "csv", *own)
    record = Record.load(folder)
    assert "arms" not in record.tables and len(record.claims) == 3
    found = {r["texts"]: r for r in record.rows("texts")}
    assert sum(r["toxic"] + r["other"] for r in found.values()) <= 163
    assert record.rows("stability") and record.rows("layers")
    page = (folder / "report.html").read_text()
    assert "<script>alert(1)" not in page and "\x1b" not in page and "comments.csv" in page


@pytest.mark.slow
def test_a_file_of_prompts_adds_the_interventions_to_a_csv(tmp_path):
    path, lexicon = comments(tmp_path / "comments.csv"), tmp_path / "words.txt"
    lexicon.write_text("grubnak\nblorp\n")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"{a} thinks that paul is a total" for a in "anna mary john tom kate mark".split()))
    own = ("--csv", str(path), "--text-column", "comment", "--label-column", "rude", "--lexicon", str(lexicon))
    folder = STUDY.made(tmp_path / "csv", *own, "--prompts", str(prompts), "--set", 'arms.only=["eigenshift","aura"]')
    record = Record.load(folder)
    assert {r["family"] for r in record.rows("arms")} >= {"no-op", "eigenshift", "aura"}
    assert record.value("test_prompts") == 3


NOUNS = [(a, b) for a in "soup bread pan oven spoon plate".split() for b in "rose hedge spade lawn seed tulip".split()]


def bad(path: Path, *rows: tuple) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("comment", "rude"), *rows])
    return path


@pytest.mark.parametrize(
    ("rows", "further", "said"),
    [
        ([("a b c", 1)] * 30, (), "0"),  # one class missing
        ([("a b c", 1), ("d e", 2)] * 20, (), "2"),  # labels not 0 or 1
        ([("a b c", 1), ("d e", 0)] * 20, ("--text-column", "coment"), "coment"),
        ([("", 1), (" ", 0)] * 20, (), "empty"),
        ([("a b c", 1), ("d é", 0)] * 20, ("--encoding", "ascii"), "read as ascii"),
        ([(f"the {a} was warm and the {b} too .", i % 2) for i, (a, b) in enumerate(NOUNS)], (), "flagged word"),
    ],
    ids=["one class", "labels", "column", "empty", "encoding", "no flagged word"],
)
def test_bad_texts_are_refused_in_one_line_and_nothing_is_half_written(tmp_path, rows, further, said):
    path = bad(tmp_path / "bad.csv", *rows)
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("grubnak\n")
    own = ["--csv", str(path), "--label-column", "rude", "--lexicon", str(lexicon)]
    own += [] if "--text-column" in further else ["--text-column", "comment"]
    done = STUDY.ran(tmp_path / "r", *own, *further)
    line = done.stderr.replace("\n", " ")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert said in line
    assert not (tmp_path / "r" / "report.html").exists()
