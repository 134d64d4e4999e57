"""Evaluation: each number beside what it has to beat, lm-evaluation-harness agrees, the report's slips are found."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binom
from transformers import LlamaConfig, LlamaForCausalLM

from close import FLOAT64, OTHER
from microtome.core.errors import ConfigError, DataError
from microtome.core.seeds import generator
from microtome.data.benchmarks import Choice
from microtome.data.benchmarks.cloze import cloze
from microtome.data.corpus.decontaminate import Contamination
from microtome.measures.bits import text_bits
from microtome.measures.choices import score_choices
from microtome.models import Model
from microtome.models.zoo.hand import hand_items
from microtome.models.zoo.hand.world import VOCAB
from microtome.models.zoo.untrained import untrained
from microtome.records import Record, StageOutput
from microtome.reports import render
from microtome.studies.multilingual import published
from microtome.studies.multilingual.evaluation import agreement, bits_by_language, option_rows, questions
from microtome.studies.multilingual.evaluation_views import (
    accuracy_table,
    accuracy_view,
    agreement_view,
    bits_table,
    bits_view,
    published_view,
)
from microtome.studies.multilingual.harness import HarnessRun, run_harness, write_tasks
from microtome.training.tokenizer import train_tokenizer

NOUNS = ["river", "sea", "bridge", "market", "teacher", "garden", "winter", "letter", "mountain", "window"]
VERBS = ["follows", "reaches", "forgets", "crosses", "paints", "remembers", "leaves", "finds"]
PLACES = ["in the old town", "before the first snow", "behind the grey house", "after a long day", "near the harbour"]
KANA = "あいうえおかきくけこさしすせそたちつてと"


def parallel_text(n=24):
    """Sentences of a small grammar, and as many of kana, which are not parted by spaces."""
    rng = generator(0, "text")
    drawn = [[str(rng.choice(words)) for words in (NOUNS, VERBS, NOUNS, PLACES)] for _ in range(n)]
    english = [f"The {who} {does} the {what} {where}, {i}." for i, (who, does, what, where) in enumerate(drawn)]
    japanese = ["".join(rng.choice(list(KANA), 30)) + "。" for _ in range(n)]
    return {"en": tuple(english), "ja": tuple(japanese)}


@pytest.fixture(scope="module")
def text():
    return parallel_text()


@pytest.fixture(scope="module")
def model(text):
    """A random model with a real tokenizer."""
    tokenizer = train_tokenizer(text, size=380)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    return Model.load(LlamaForCausalLM(config), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def twin(model):
    return Model.load(untrained(model.module, 1), tokenizer=model.tokenizer)


@pytest.fixture(scope="module")
def choices(text):
    """Questions of one context in two languages, and of several contexts with and without a space."""
    asked = cloze(text, count=12)
    for language, delimiter in (("en", " "), ("ja", "")):
        for i, line in enumerate(text[language][:8]):
            at = line.index(" ", 14) if language == "en" else 12
            contexts = (line[: at - 3] + "sea", line[: at - 2] + "river")
            ending = line[at:].strip()
            asked.append(Choice("winograd", language, str(i), contexts, (ending,), i % 2, delimiter if i else ""))
    return asked


# -- bits per byte


def test_bits_stand_beside_what_they_have_to_beat(model, twin, text):
    shares = []
    found = bits_by_language(model, twin, text, shares.append, draws=200)
    assert [r["language"] for r in found.tables["bits"]] == ["en", "ja"]
    for row in found.tables["bits"]:
        lines = text[row["language"]]
        assert row["bits_per_byte"] == pytest.approx(text_bits(model, lines).per_byte, rel=FLOAT64)
        assert row["untrained"] == pytest.approx(text_bits(twin, lines).per_byte, rel=FLOAT64)
        assert row["low"] <= row["bits_per_byte"] <= row["high"] and row["n"] == 24
        counts = np.unique([t for ids in model.tokenizer(list(lines))["input_ids"] for t in ids], return_counts=True)[1]
        entropy = -(counts / counts.sum() * np.log2(counts / counts.sum())).sum()
        assert row["unigram"] == pytest.approx(entropy * row["tokens"] / row["bytes"], rel=FLOAT64)
        assert not row["below_unigram"]  # a random model is none the wiser
        assert row["uniform_bytes"] == 8
    assert shares[-1] == 1 and shares == sorted(shares)


def test_mean_and_worst_are_over_the_languages_resampled_together(model, twin, text):
    found = bits_by_language(model, twin, text, draws=400)
    rows, values = found.tables["bits"], found.values
    own = [r["bits_per_byte"] for r in rows]
    assert values["bits_mean"] == pytest.approx(np.mean(own))
    assert values["bits_worst"] == max(own) and values["bits_worst_language"] == rows[int(np.argmax(own))]["language"]
    assert values["bits_mean_low"] < values["bits_mean"] < values["bits_mean_high"]
    same = bits_by_language(model, twin, {"a": text["en"], "b": text["en"]}, draws=400)
    first, second = same.tables["bits"]
    assert (first["low"], first["high"]) == (second["low"], second["high"])  # the same sentences were drawn
    assert same.values["bits_mean_low"] == pytest.approx(first["low"])


def test_text_that_is_not_parallel_is_refused(model, twin):
    with pytest.raises(DataError, match=r"as many lines in each language, 2 or more, found \[2, 3\]"):
        bits_by_language(model, twin, {"en": ("a", "b"), "de": ("a", "b", "c")})
    with pytest.raises(DataError, match=r"found \[1\]"):
        bits_by_language(model, twin, {"en": ("a",)})


# -- questions


def test_accuracies_stand_beside_chance_and_the_twin(model, twin, choices):
    found = questions(model, twin, choices, contaminated=[Contamination("cloze.ja", 12, 10, 3, 4)])
    rows = {(r["benchmark"], r["language"]): r for r in found.tables["accuracy"]}
    assert set(rows) == {(b, x) for b in ("cloze", "winograd") for x in ("en", "ja")}
    ours, theirs = score_choices(model, choices), score_choices(twin, choices)
    for name, row in rows.items():
        cell = [i for i, c in enumerate(choices) if (c.benchmark, c.language) == name]
        right, other = np.array([ours[i].acc for i in cell]), np.array([theirs[i].acc for i in cell])
        assert row["acc"] == right.mean() and row["untrained"] == other.mean() and row["n"] == len(cell)
        gained, lost = (right & ~other).sum(), (other & ~right).sum()
        assert (row["gained"], row["lost"]) == (gained, lost)
        exact = min(1.0, 2 * binom.cdf(min(gained, lost), gained + lost, 0.5)) if gained + lost else 1.0
        assert row["p"] == pytest.approx(exact) and row["q"] >= row["p"] - FLOAT64
        assert row["chance"] == (0.25 if name[0] == "cloze" else 0.5)
        assert row["above_chance"] == (row["low"] > row["chance"])
    assert rows["cloze", "ja"]["contaminated"] == 0.3 and rows["cloze", "en"]["contaminated"] is None
    assert len(found.tables["options"]) == sum(c.options for c in choices)


def test_a_model_that_knows_the_answers_is_told_from_its_twin():
    hand = Model.load("zoo:hand")
    items = hand_items("lookup", 48, seed=2)
    asked = [
        Choice("lookup", "en", str(i), (item.prompt,), tuple(VOCAB[o] for o in item.options),
               item.options.index(item.answer)) for i, item in enumerate(items)
    ]  # fmt: skip
    twin = Model.load(untrained(hand.module, 0), tokenizer=hand.tokenizer)
    (row,) = questions(hand, twin, asked).tables["accuracy"]
    assert row["acc"] == 1 and row["above_chance"] and row["p"] < 1e-4 and row["q"] == row["p"]
    (null,) = questions(twin, hand, asked).tables["accuracy"]
    assert null["gained"] == 0 and null["lost"] == row["gained"]


# -- the harness


def test_tasks_are_files_that_say_all(choices, tmp_path):
    import yaml

    names = write_tasks(choices, tmp_path)
    assert names["cloze", "en"] == "microtome_cloze_en"
    tasks = {name: yaml.safe_load((tmp_path / f"{name}.yaml").read_text(encoding="utf-8")) for name in names.values()}
    assert tasks["microtome_cloze_en"]["target_delimiter"] == " "
    assert tasks["microtome_cloze_ja"]["target_delimiter"] == ""
    several = tasks["microtome_winograd_en"]
    assert (several["doc_to_choice"], several["target_delimiter"]) == ("contexts", "")
    rows = [json.loads(x) for x in (tmp_path / "microtome_winograd_en.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [c for c in choices if (c.benchmark, c.language) == ("winograd", "en")]
    for row, choice in zip(rows, own, strict=True):  # delimiters differ, so each ending brings its own
        assert [(c, row["ending"]) for c in row["contexts"]] == list(choice.pairs)
        assert row["answer"] == choice.answer


def test_questions_that_one_task_cannot_hold_are_refused(choices, tmp_path):
    with pytest.raises(DataError, match="two questions called '1'"):
        write_tasks([Choice("b", "en", "1", ("x",), ("y", "z"), 0)] * 2, tmp_path)
    mixed = [Choice("b", "en", "1", ("x",), ("y", "z"), 0), Choice("b", "en", "2", ("x", "w"), ("y",), 0)]
    with pytest.raises(DataError, match="mixes questions of one context"):
        write_tasks(mixed, tmp_path)
    with pytest.raises(DataError, match="Tasks of no questions"):
        write_tasks([], tmp_path)


def test_without_lm_eval_it_is_said_how_to_get_it(choices, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name))
    with pytest.raises(ConfigError, match=r"pip install microtome\[eval\]"):
        run_harness(tmp_path, choices, tmp_path / "tasks")


def test_a_folder_without_a_model_is_refused(choices, tmp_path):
    pytest.importorskip("lm_eval")
    with pytest.raises(DataError, match=r"found no config\.json in it"):
        run_harness(tmp_path, choices, tmp_path / "tasks")


@pytest.mark.slow  # lm-eval and datasets take seconds to import
@pytest.mark.parametrize("length", [64, 24])  # with 24, contexts lose their beginnings
def test_the_harness_gives_the_same_accuracies_and_log_likelihoods(model, choices, tmp_path, capfd, length):
    pytest.importorskip("lm_eval")
    model.module.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(
        config.read_text().replace('"max_position_embeddings": 64', f'"max_position_embeddings": {length}')
    )
    capfd.readouterr()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    there = run_harness(tmp_path / "model", choices, tmp_path / "tasks")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(before[0], torch.random.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    assert {p.suffix for p in (tmp_path / "tasks").iterdir()} == {".yaml", ".jsonl"}
    ours = score_choices(Model.load(str(tmp_path / "model")), choices)
    found = agreement(there, option_rows(ours))
    assert len(found.tables["agreement"]) == 4 and found.values["harness_questions"] == len(choices)
    for row in found.tables["agreement"]:
        assert row["harness"] == row["ours"] and row["chosen_alike"] == 1 and row["largest_difference"] < OTHER
    assert found.values["harness_agrees"] is True
    for row in there.accuracies:
        cell = [s for s in ours if (s.choice.benchmark, s.choice.language) == (row["benchmark"], row["language"])]
        assert row["acc_norm"] in (None, pytest.approx(np.mean([s.acc_norm for s in cell])))


def test_a_scorer_that_differs_is_found_out(model, choices):
    rows = option_rows(score_choices(model, choices))
    accuracies = [
        {"benchmark": b, "language": x, "acc": 0.5, "acc_norm": None, "n": 1}
        for b, x in dict.fromkeys((c.benchmark, c.language) for c in choices)
    ]
    other = [r | {"log_likelihood": -r["log_likelihood"] - 1000} for r in rows]
    found = agreement(HarnessRun(accuracies, other), rows)
    assert found.values["harness_agrees"] is False and found.values["harness_largest_difference"] > 1
    assert all(r["chosen_alike"] < 1 for r in found.tables["agreement"])
    with pytest.raises(DataError, match="was not scored here with as many options"):
        agreement(HarnessRun(accuracies, rows), rows[4:])


# -- the report


def test_all_views_are_drawn(model, twin, text, choices, tmp_path):
    ours = option_rows(score_choices(model, choices))
    accuracies = [{"benchmark": "cloze", "language": "en", "acc": 0.5, "acc_norm": 0.5, "n": 12}]
    there = HarnessRun(accuracies, [r for r in ours if (r["benchmark"], r["language"]) == ("cloze", "en")])
    with Record.open(tmp_path / "run", study="multilingual", config={}, seed=0) as record:
        record.stage("bits", lambda: bits_by_language(model, twin, text, draws=100))
        record.stage("questions", lambda: questions(model, twin, choices))
        record.stage("harness", lambda: agreement(there, ours))
        record.stage("published", published.report_arithmetic)
        record.views([
            bits_view(record), bits_table(record), accuracy_view(record), accuracy_table(record),
            agreement_view(record), published_view(record),
        ])  # fmt: skip
    page = render(tmp_path / "run").read_text(encoding="utf-8")
    assert "2 of its means do not add up" in page and "No corpus was searched" in page
    assert "Bits per byte: mean" in page and "above chance in" in page


# -- the report's arithmetic


def test_the_two_slips_of_the_report_are_found_and_nothing_else():
    found = published.report_arithmetic()
    assert isinstance(found, StageOutput) and found.values["published_slips"] == 2
    wrong = {(r["model"], r["benchmark"]) for r in found.tables["published"] if not r["consistent"]}
    assert wrong == {("Llama-2-7B", "XCOPA"), ("Mistral-7B-v0.1", "XStoryCloze")}
    right = [r for r in found.tables["published"] if r["consistent"]]
    assert [r["place"] for r in right] == ["Table 12, read as 53.9"]


def test_means_are_recomputed_as_by_hand():
    row = [50.0, 60.0, 70.0, 83.9]
    mean = sum(row) / 4
    assert published.mean_of_rest(mean, 83.9, 4) == pytest.approx(60)
    assert published.mean_with(mean, 83.9, 53.9, 4) == pytest.approx((50 + 60 + 70 + 53.9) / 4)
    assert published.mean_with(60.2, 83.9, 53.9, 10) == pytest.approx(57.2)


def test_every_model_has_a_number_or_none_for_every_benchmark():
    assert len(published.AVERAGES) == 13
    for row in published.AVERAGES.values():
        assert len(row) == len(published.BENCHMARKS) and all(x is None or 0 < x < 100 for x in row)
    assert published.average("FuxiTranyu-8B", "XCOPA") == 60.5
    assert published.average("FuxiTranyu-8B", "XL-Sum") is None


def test_the_harness_module_imports_nothing_heavy():
    code = (
        "import sys, microtome.studies.multilingual.harness; "
        "sys.exit(any(name in sys.modules for name in ('lm_eval', 'datasets', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
