"""The multilingual study's own arithmetic: what a configuration asks for, what it reads, what balance gains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from microtome.core.errors import ConfigError, DataError
from microtome.data.benchmarks import available_benchmarks
from microtome.models.model import Model
from microtome.records import Record, StageOutput
from microtome.studies.multilingual import STUDY, thesis
from microtome.studies.multilingual.building import planned, within
from microtome.studies.multilingual.claims import judge
from microtome.studies.multilingual.config import Evaluation, MultilingualConfig, Thesis
from microtome.studies.multilingual.pipeline import SHARES, _readable, _wanted
from microtome.studies.multilingual.sources import _FILES, parallel_source, parallel_text, questions_of, recipe_of
from microtome.training.build.recipe import load_recipe


def test_what_is_asked_for_says_which_steps_run():
    steps = {name: list(_wanted(STUDY.preset(name))) for name in STUDY.presets}
    assert set().union(*steps.values()) <= set(SHARES)
    assert steps["quick"][:2] == ["plan", "build"] and "importance" in steps["quick"]
    assert steps["fuxitranyu-8b"] == ["plan", "published"]
    assert steps["thesis"] == ["plan", "thesis", "published"]
    assert "dynamics" in steps["laptop"] and "dynamics" not in steps["quick"]
    alone = list(_wanted(MultilingualConfig(model="gpt2", parallel="ntrex")))
    assert "build" not in alone and "plan" not in alone and "ablation" in alone


def test_a_model_that_is_not_built_is_not_built():
    assert MultilingualConfig().builds == "quick"
    assert MultilingualConfig(model="gpt2").builds is None
    assert MultilingualConfig(parallel="folder").builds is None
    assert MultilingualConfig(recipe="laptop").builds == "laptop"
    with pytest.raises(ConfigError, match="The built model was to be analysed, found recipe='none'"):
        MultilingualConfig(model="built", recipe="none")
    with pytest.raises(ConfigError, match=r"-1\.0 minutes and 0 seeds"):
        MultilingualConfig(minutes=-1.0)


def test_minutes_become_tokens_and_examples_at_the_measured_speed(monkeypatch):
    monkeypatch.setattr("microtome.studies.multilingual.building.measured_speed", lambda recipe: 1000.0)
    recipe = load_recipe("quick")
    plan = planned(recipe, MultilingualConfig(minutes=10))
    assert plan.values["plan_tokens"] == 10 * 60 * 500 // 4096 * 4096
    assert plan.values["plan_conversations"] == int(0.06 * 600_000 / 128) // 32 * 32
    assert plan.values["plan_pairs"] == int(0.0125 * 600_000 / 128) // 32 * 32
    found = within(recipe, 600_000)
    assert found.pretrain.tokens == plan.values["plan_tokens"] and found.model == recipe.model
    long = within(recipe, 1e9)
    assert (long.sft.examples, long.dpo.examples) == (recipe.sft.examples, recipe.dpo.examples)
    assert planned(recipe, MultilingualConfig()).values["plan_tokens"] == recipe.pretrain.tokens


def test_the_recipe_gets_the_corpus_and_keeps_its_parallel_text_out(tmp_path):
    (tmp_path / "corpus/parallel").mkdir(parents=True)
    config = MultilingualConfig(model="built", recipe="laptop", corpus=str(tmp_path / "corpus"), seed=4)
    found = recipe_of(config)
    assert found.corpus.path == str(tmp_path / "corpus") and found.seed == 4
    assert found.corpus.evaluation == (str(tmp_path / "corpus/parallel"),)
    with pytest.raises(
        DataError, match=r"Recipe 'laptop' reads a corpus, found none at 'corpus'; give --corpus FOLDER"
    ):
        recipe_of(replace(config, corpus=""))


def test_what_is_built_of_a_corpus_is_read_on_its_parallel_text(tmp_path):
    home = tmp_path / "parallel"
    home.mkdir()
    for language in ("de", "en", "xx"):
        (home / f"{language}.txt").write_text("".join(f"{language} {i}\n" for i in range(4)))
    config = MultilingualConfig(model="built", recipe="laptop", corpus=str(tmp_path))
    text = parallel_text(config, 3)
    assert text == {k: tuple(f"{k} {i}" for i in range(3)) for k in ("de", "en")}  # xx is none of the recipe's
    assert list(parallel_text(replace(config, languages=("xx", "en")), 3)) == ["xx", "en"]
    others = ({"model": "zoo:babel"}, {"corpus": str(home)}, {"languages": ("en", "fr")})
    for other in (replace(config, **x) for x in others):
        assert parallel_source(other)[0] == "" and parallel_text(other, 3)["en"][0] != "en 0"


def test_questions_are_of_the_languages_at_hand(tmp_path):
    config = MultilingualConfig(languages=("en", "de"), evaluation=Evaluation(cloze=5))
    text = parallel_text(config, 30)
    assert list(text) == ["en", "de"] and {len(lines) for lines in text.values()} == {30}
    found = questions_of(config, text)
    assert [c.language for c in found].count("de") == 5 and {c.benchmark for c in found} == {"cloze"}
    with pytest.raises(DataError, match=r"found none of xcopa, crosslingual_winograd\.tsv"):
        questions_of(replace(config, benchmarks=str(tmp_path)), text)
    with pytest.raises(DataError, match="Languages are compared, found 1"):
        parallel_text(replace(config, languages=("en",)), 10)


def test_the_benchmarks_looked_for_in_a_folder_are_those_there_are():
    assert set(_FILES) <= set(available_benchmarks())
    real = Path(__file__).parents[2] / "shared/data/benchmarks"
    if not real.is_dir():
        pytest.skip("XCOPA and XWinograd are not on this machine")
    config = MultilingualConfig(benchmarks=str(real), evaluation=Evaluation(cloze=0, questions=3))
    found = questions_of(config, ("en", "zh", "id"))
    assert {(c.benchmark, c.language) for c in found} >= {("winograd", "en"), ("winograd", "zh"), ("xcopa", "id")}


def test_a_lone_comma_is_left_out_in_every_language():
    model = Model.load("zoo:babel")
    text = {"en": ["The house is old.", ",", "We eat bread."], "de": ["Das Haus ist alt.", "Ja, gern.", ","]}
    assert _readable(model, text) == {"en": ["The house is old."], "de": ["Das Haus ist alt."]}


def test_what_balance_gains_by_hand():
    # three pairs of models, languages en and hi; balance costs English .1 and gives Hindi .5, .6, .7
    scores = {
        "balanced": np.array([[2.1, 2.0], [2.1, 2.0], [2.1, 2.0]]),
        "skewed": np.array([[2.0, 2.5], [2.0, 2.6], [2.0, 2.7]]),
    }
    rows = {r["of"]: r for r in thesis._gains(scores, ["en", "hi"], MultilingualConfig(thesis=Thesis(seeds=3)))}
    assert rows["en"]["gain"] == pytest.approx(-0.1) and rows["en"]["favoured"]
    assert rows["hi"]["gain"] == pytest.approx(0.6) == rows["neglected"]["gain"]
    assert rows["worst"]["gain"] == pytest.approx(0.5)  # 2.6 on average, and English is the worst one of the balanced
    assert rows["mean"]["gain"] == pytest.approx(0.25)
    half = 4.302653 * 0.1 / np.sqrt(3)  # t(.975, 2) * s / sqrt(n)
    assert (rows["hi"]["low"], rows["hi"]["high"]) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-6)
    one = {kind: values[:1] for kind, values in scores.items()}
    assert thesis._gains(one, ["en", "hi"], MultilingualConfig())[0]["low"] is None


@pytest.mark.parametrize(("judged", "outcome"), [(29, "not testable here"), (30, "reproduced")])
def test_few_answers_that_can_be_judged_give_no_verdict_on_fidelity(judged, outcome, tmp_path):
    rows = [{"model": stage, "language": "en", "passed": 0.5, "n": judged} for stage in ("pretrain", "dpo")]
    ends = {"": 0.8, "_low": 0.7, "_high": 0.9, "_null": 0.2}
    values = {f"fidelity_dpo{end}": value for end, value in ends.items()} | {"fidelity_pretrain": 0.4}
    with Record.open(tmp_path / "record", study="toy", config={}, seed=0) as record:
        record.stage("fidelity", lambda: StageOutput({"fidelity": rows}, {}, {**values, "fidelity_dpo_n": judged}))
        verdicts = {claim.id: verdict for claim, verdict in judge(record)}
    assert verdicts["tuning_keeps_the_language"].outcome == outcome
