"""The toxicity study's parts: places before flagged words, arms, matched damage, and what a row of a table rests on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from close import FLOAT64, OTHER
from microtome.core.errors import ConfigError, DataError
from microtome.data.parrot import TOXIC
from microtome.engine.edit import Edit, Scale, Zero
from microtome.measures.token_sets import SetOdds, SetProbability
from microtome.studies.toxicity.arm import Arm, completions, costs
from microtome.studies.toxicity.config import Arms, Generating, Neurons, Texts, ToxicityConfig
from microtome.studies.toxicity.matching import Clean, Tried, match, tried_of
from microtome.studies.toxicity.methods import Family, Found, families
from microtome.studies.toxicity.subject import load_subject

SMALL = ToxicityConfig(
    texts=Texts(discovery=240, test=120, clean=24, contexts=60),
    neurons=Neurons(poolings=("max", "mean"), draws=5, sets=12, random=4),
    generating=Generating(prompts=16, completions=2, new_tokens=8, rows=64),
    arms=Arms(budgets=(0.03,), headline=0.03, ks=(2, 8), random=1, draws=100, examples=4, tune_steps=4),
)


@pytest.fixture(scope="module")
def subject():
    return load_subject(SMALL)


def test_every_place_stands_before_a_flagged_word_and_its_clean_twin_is_as_long(subject):
    tokenizer = subject.model.tokenizer
    for half in ("discovery", "test"):
        places = subject.places[half]
        assert len(places) == 60 and len(places.clean) == 60
        assert {tokenizer.decode([w]) for w in places.words} <= set(TOXIC)
        assert all(len(a) == len(b) for a, b in zip(places.toxic, places.clean, strict=True))
        texts = [r.text for r in subject.sources.halves[half].rows if r.label == 0]
        calm = {tuple(tokenizer(t)["input_ids"][: len(c)]) for t in texts for c in places.clean}
        assert all(tuple(c) in calm for c in places.clean)
    assert subject.flagged.tolist() == sorted(set(subject.places["discovery"].words))


def test_no_text_and_no_prompt_is_in_both_halves(subject):
    halves = subject.sources.halves
    assert not set(halves["discovery"].texts) & set(halves["test"].texts)
    prompts = subject.sources.prompts
    assert len({p.text for p in prompts["discovery"]} & {p.text for p in prompts["test"]}) <= 1


def test_an_edit_that_changes_nothing_says_the_same_bit_for_bit_and_costs_nothing(subject):
    base, noop = Arm(subject.model), Arm(subject.model, (Edit(subject.head, Scale(1.0)),))
    prompts = [p.text for p in subject.sources.prompts["test"]]
    said = completions(base, prompts, SMALL.generating, 3)
    assert said == completions(noop, prompts, SMALL.generating, 3)
    assert said != completions(base, prompts, SMALL.generating, 4)
    paid = costs([base, noop], subject.batches(subject.rows(subject.sources.clean["test"])))[1]
    assert paid.divergence.kl == 0 and paid.divergence.largest == 0


def test_completions_are_drawn_from_the_whole_vocabulary(subject):
    """transformers cuts sampling to the 50 likeliest tokens unless it is told not to."""
    flat = Arm(subject.model, (Edit(subject.head, Zero()),))  # all logits equal
    how = replace(SMALL.generating, completions=60, new_tokens=8, top_p=1.0)
    said = completions(flat, [subject.sources.prompts["test"][0].text] * 4, how, 0)
    assert len({token for part in said for ids in part for token in ids}) > 200


def test_a_prefix_keeps_the_positions_of_the_text(subject):
    ids = tuple(subject.model.tokenizer("anna felt patient all day .", add_special_tokens=False)["input_ids"])
    batch = subject.batches(subject.rows(subject.sources.clean["test"]))[0]
    plain, told = Arm(subject.model).logits(batch), Arm(subject.model, prefix=ids).logits(batch)
    assert told.shape == plain.shape
    row = batch.inputs["input_ids"][0][batch.mask[0]].tolist()
    alone = subject.model.batch_ids([[row[0], *ids, *row[1:]]])
    torch.testing.assert_close(told[0, -1], Arm(subject.model).logits(alone)[0, -1], atol=OTHER, rtol=OTHER)


def fake(name: str, subject, most: float = 1.0, whole: bool = False) -> Family:
    width = subject.model.anatomy.d_model
    axes = torch.eye(width)[:, :40]

    def make(setting, strength):
        if whole:
            return Arm(subject.model, (Edit(subject.head, Zero(), units=list(range(round(strength)))),))
        return Arm(subject.model, (Edit(subject.head, Scale(1 - strength), units=list(range(axes.shape[1]))),))

    return Family(name, name, "output head", {"one": None}, make, most, whole=whole)


def test_damage_is_matched_to_the_budget_and_never_above_it(subject):
    made = [fake("scaled", subject), fake("counted", subject, 90.0, True)]
    stage = match(subject, made, lambda _: None)
    tried = tried_of(made, stage.tables["strengths"])
    clean = Clean(subject)
    for t in tried:
        strength = t.at(0.03)
        (kl,) = clean.divergences([t.arm(strength)])
        assert kl == pytest.approx(t.kl[strength], rel=OTHER) and kl <= 0.03
    scaled, counted = tried
    assert scaled.kl[scaled.at(0.03)] > 0.025
    assert counted.at(0.03) == round(counted.at(0.03)) and counted.at(0.03) >= 1
    assert scaled.at(1e9) == 1.0


def test_a_family_that_is_never_so_mild_has_no_strength(subject):
    tried = Tried(fake("harsh", subject), "one", {0.0: 0.0, 0.5: 2.0, 1.0: 3.0})
    assert tried.at(0.03) == 0.0 and 0 < tried.next(0.03) < 0.5
    assert tried.next(10.0) is None


def test_the_largest_strength_is_the_last_before_the_budget_is_first_crossed(subject):
    tried = Tried(fake("odd", subject), "one", {0.0: 0.0, 0.2: 0.01, 0.4: 0.2, 0.8: 0.02})
    assert tried.at(0.03) == 0.2


def test_edits_together_and_arms_alone_are_measured_alike(subject):
    edited = Arm(subject.model, (Edit("blocks.1.resid_post", Scale(0.9)),))
    alone = replace(edited, prefix=(), rules=(), on_texts=lambda batch: [])  # not nothing but edits: it runs by itself
    one, other = Clean(subject).divergences([edited, alone])
    assert one == pytest.approx(other, rel=OTHER) and one > 0


def test_every_family_at_strength_nought_changes_nothing(subject):
    rng = np.random.default_rng(0)
    sites = [str(i.site) for i in subject.model.select("blocks.*.mlp.neurons")]
    found = Found({s: rng.random(256) for s in sites}, {s: rng.random(256) - 0.5 for s in sites})
    batch = subject.batches(subject.rows(subject.sources.clean["test"]))[0]
    base = Arm(subject.model).logits(batch)
    made = families(subject, found)
    assert len({f.name for f in made}) == len(made) >= 18
    for family in made:
        for setting in family.settings.values():
            assert torch.equal(family.make(setting, 0.0).logits(batch), base), family.name
    controls = [f.name for f in made if f.control]
    assert controls == [f.name for f in made][-len(controls) :] and "random" in controls


def test_asked_for_by_name_methods_run_with_the_controls_and_unknown_names_are_refused(subject):
    found = Found({"blocks.0.mlp.neurons": np.full(256, 0.6)}, {"blocks.0.mlp.neurons": np.ones(256)})
    chosen = replace(subject, config=replace(SMALL, arms=replace(SMALL.arms, only=("aura",))))
    assert [f.name for f in families(chosen, found) if not f.control] == ["aura"]
    wrong = replace(subject, config=replace(SMALL, arms=replace(SMALL.arms, only=("arua",))))
    with pytest.raises(ConfigError, match=r"No method 'arua'.*Did you mean 'aura'"):
        families(wrong, found)


def test_a_set_of_tokens_has_the_sum_of_their_probabilities():
    logits = torch.randn(3, 1, 7, dtype=torch.float64)
    rows, p = torch.arange(3), logits[:, 0].softmax(-1)
    chosen = torch.tensor([2, 5])
    torch.testing.assert_close(SetProbability(chosen)(logits, rows), p[:, chosen].sum(1), atol=FLOAT64, rtol=FLOAT64)
    torch.testing.assert_close(
        SetOdds(chosen)(logits, rows),
        (p[:, chosen].sum(1) / (1 - p[:, chosen].sum(1))).log(),
        atol=FLOAT64,
        rtol=FLOAT64,
    )


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"csv": "nowhere.csv"}, DataError, "nowhere.csv"),
        ({"data": "poems"}, ConfigError, "Data 'poems' was asked for"),
        ({"prompts": "nowhere.jsonl"}, DataError, "nowhere.jsonl"),
        ({"lexicon": "nowhere.txt"}, DataError, "nowhere.txt"),
        ({"arms": replace(SMALL.arms, layers=(9,))}, DataError, "Blocks [9] were asked for"),
    ],
)
def test_what_is_not_there_is_named(change, error, said):
    with pytest.raises(error) as raised:
        load_subject(replace(SMALL, **change))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"arms": Arms(headline=0.5)}, {"question": "toxic?"}, {"arms": Arms(ks=())}):
        with pytest.raises(ConfigError):
            ToxicityConfig(**wrong)
