"""The recall study: on a network whose parts are known it finds them; on zoo:atlas it runs, resumes and repeats."""

import numpy as np
import pytest
import torch

from close import FLOAT32
from microtome.core.errors import ConfigError, DataError
from microtome.core.seeds import generator
from microtome.core.units import Units
from microtome.data.puzzles import Cell, Puzzle, Variant
from microtome.models import Model
from microtome.models.writes import write_norms
from microtome.models.zoo.hand import HAND_TRUTH, hand_items
from microtome.studies.recall import STUDY
from microtome.studies.recall.ablations import ABLATIONS, reference_of, unit_space, without
from microtome.studies.recall.choosing import ACCURACY, candidates, choose, task_claims
from microtome.studies.recall.naming import CELLS, SETS, SHORT
from microtome.studies.recall.prompts import TASKS, cases_of, draw_prompts
from microtome.studies.recall.scoring import METHODS, exact_scores, flat, shuffled_scores, unflat, unit_scores
from microtome.studies.recall.testing import dissociations, drop_rows, pair_drops, random_twins, sides

ENGINE = {"size": 16, "budget": "1GiB"}
QUIET = {"told": lambda share: None}
N = 48


def hand_puzzle(model: Model, task: str, item) -> Puzzle:
    """A question of zoo:hand as the study's prompts are."""
    ids, cf_ids = (tuple(model.tokenizer(text)["input_ids"]) for text in (item.prompt, item.counterfactual))
    changed = tuple(i for i, (a, b) in enumerate(zip(ids, cf_ids, strict=True)) if a != b)
    last = len(ids) - 1
    return Puzzle(
        item=f"{item.fact}", pair=f"{item.fact}", skeleton=f"s{item.skeleton}", cell=TASKS[task], relation="buys",
        variant=Variant.NONCE, entity="", cf_entity="", prompt=item.prompt, counterfactual=item.counterfactual,
        answer="", cf_answer="", ids=ids, cf_ids=cf_ids, answer_ids=(item.answer,), cf_answer_ids=(item.cf_answer,),
        changed=changed,
        positions={"entity": changed, "entity_last": changed[-1:], "relation": (last - 2,), "last": (last,)},
        answer_in_prompt=False, recalled=None, held_out_wording=False, two_hop=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def hand():
    """zoo:hand with discovery, validation and test prompts of both tasks, and its scores."""
    model = Model.load("zoo:hand")
    gates = {"recall": "recall", "reasoning": "lookup"}
    parts = {
        part: {
            t: cases_of(model, [hand_puzzle(model, t, i) for i in hand_items(g, N, seed=s)]) for t, g in gates.items()
        }
        for s, part in enumerate(("discovery", "validation", "test"))
    }
    space = unit_space(model)
    reference = reference_of(model, list(parts["discovery"].values()), list(space), 16)
    rng = generator(0, "halves")
    halves = np.stack([rng.permutation(np.arange(N) < N // 2) for _ in range(8)])
    scored = {
        t: unit_scores(model, c, space, reference, halves, steps=5, size=16, **QUIET)
        for t, c in parts["discovery"].items()
    }
    return model, parts, space, reference, scored


def norms_of(model, space):
    return {site: write_norms(model, site).numpy() for site in space}


def chosen_on(hand, shares=(0.02, 0.05, 0.1), neurons=(0.01, 0.05, 0.1)):
    model, parts, space, reference, scored = hand
    scores = np.stack([s.shares for s in scored.values()])
    found = candidates(scores, space, METHODS, shares, neurons)
    return choose(model, found, parts["validation"], reference, **ENGINE, **QUIET)


def test_the_chosen_sets_are_the_units_that_carry_the_tasks(hand):
    chosen, rows = chosen_on(hand)
    truth = HAND_TRUTH["plain"]
    sets = {t: c.units for t, c in chosen["heads and neurons"].items()}
    assert len(sets["reasoning"] & truth.lookup) > 0 and len(sets["reasoning"] & truth.recall) == 0
    assert len(sets["recall"] & truth.recall) > 0 and len(sets["recall"] & truth.lookup) == 0
    assert sum(r["chosen"] for r in rows) == 6  # one for each level and task


def test_the_index_is_that_of_two_tasks_with_nothing_in_common_and_random_sets_do_not_dissociate(hand):
    model, parts, space, reference, _ = hand
    sets = {t: c.units for t, c in chosen_on(hand)[0]["heads and neurons"].items()}
    pairs = random_twins(sets, space, norms_of(model, space), 20, generator(0, "twins"))
    null = sum(sides(pair_drops(model, pairs, parts["test"], reference, **ENGINE, **QUIET)).values())
    assert null.max() == 0 == np.median(null)  # now and then a twin is the head that only the other task needs
    found = dissociations(model, sets, parts["test"], reference, null, **ENGINE, seed=0, draws=200)["accuracy"]
    assert found.both and found.p == 1 / 21 and found.r_other.estimate == found.q_other.estimate == 0.0
    assert found.r_own.estimate == 1.0  # greedy over the vocabulary: without the facts, nothing
    assert 0.7 <= found.q_own.estimate <= 1.0  # the mean over prompts still names goods, one of four by luck


def test_twins_match_count_site_and_share_no_unit(hand):
    model, _, space, _, _ = hand
    sets = {t: c.units for t, c in chosen_on(hand)[0]["heads and neurons"].items()}
    norms = norms_of(model, space)
    for pair in random_twins(sets, space, norms, 10, generator(1, "twins")):
        for task, units in sets.items():
            assert {s: i.size for s, i in pair[task].items()} == {s: i.size for s, i in units.items()}
            assert len(pair[task] & (sets["recall"] | sets["reasoning"])) == 0
        assert len(pair["recall"] & pair["reasoning"]) == 0


def test_where_a_site_has_too_few_others_twins_may_hold_chosen_units():
    space = {s: n for s, n in unit_space(Model.load("zoo:hand")).items() if n == 8}
    site = next(iter(space))
    sets = {"recall": Units({site: [0, 1, 2]}), "reasoning": Units({site: [3, 4]})}
    for pair in random_twins(sets, space, {site: np.ones(8)}, 10, generator(0, "full")):
        assert len(pair["recall"]) == 3 and len(pair["reasoning"]) == 2
        assert len(pair["recall"] & pair["reasoning"]) == 0


def test_every_ablation_hits_the_same_units_and_the_no_op_hits_none(hand):
    model, parts, _, reference, _ = hand
    truth = HAND_TRUTH["plain"]
    sets = {"recall": truth.recall, "reasoning": truth.lookup}
    rows = drop_rows(model, sets, parts["test"], reference, **ENGINE, seed=0, draws=50, **QUIET)
    assert {r["ablation"] for r in rows} == {*ABLATIONS, "no-op"}
    for row in rows:
        if row["ablation"] == "no-op":
            assert row["drop"] == row["logit_drop"] == 0.0
        elif row["set"] != row["cell"]:
            assert row["drop"] == 0.0  # the other task's set
        elif row["ablation"] in ("zero", "mean"):
            assert row["drop"] == 1.0


def test_estimates_equal_exact_effects_where_units_act_linearly(hand):
    model, parts, space, reference, scored = hand
    induction = Units({"blocks.1.attn.heads": [HAND_TRUTH["plain"].roles["induction"]]})
    cases = parts["discovery"]["reasoning"]
    exact = exact_scores(model, cases, induction, reference, **ENGINE, **QUIET)
    held = flat({s: np.isin(np.arange(n), induction.at(s)) for s, n in space.items()}, space)
    estimates = dict(zip(METHODS, scored["reasoning"].shares[:, held][:, 0], strict=True))
    assert abs(estimates["AtP"] - exact["counterfactual"][0]) < FLOAT32
    assert abs(estimates["AtP to the mean"] - exact["mean"][0]) < FLOAT32


def test_shuffled_labels_leave_no_unit_with_a_claim_beyond_chance(hand):
    _, _, space, _, scored = hand
    mixed = shuffled_scores(*scored.values())
    own = task_claims(np.stack([s.shares[0] for s in scored.values()]))
    null = [task_claims(m[:, 0]) for m in mixed]
    true = flat({s: np.isin(np.arange(n), HAND_TRUTH["plain"].lookup.at(s)) for s, n in space.items()}, space)
    assert max(n["reasoning"][true].max() for n in null) < 0.5 * own["reasoning"][true].max()


def test_chunks_do_not_matter(hand):
    model, parts, _, reference, _ = hand
    sets = [HAND_TRUTH["plain"].lookup]
    cases = parts["test"]["reasoning"]
    whole, base = without(model, cases, sets, reference, kinds=("zero", "mean"), size=N, budget="1GiB")
    split, again = without(model, cases, sets, reference, kinds=("zero", "mean"), size=7, budget="1MiB")
    assert np.abs(whole - split).max() < FLOAT32 and np.abs(base - again).max() < FLOAT32
    assert whole.shape == (2, 1, N, 2) and (base[:, ACCURACY] == 1).all()


def test_units_by_site_and_as_one_vector_are_inverse(hand):
    _, _, space, _, _ = hand
    vector = np.arange(sum(space.values()), dtype=float)
    assert np.array_equal(flat(unflat(vector, space), space), vector)


def test_parts_share_no_pair_of_countries_and_unseen_wording_is_unseen(atlas):
    drawn = draw_prompts(atlas, STUDY.preset("quick").prompts, 0)
    pairs = {part: {p.pair for p in drawn[part, Cell.RECALL]} for part in ("discovery", "validation", "test", "unseen")}
    assert not pairs["discovery"] & pairs["validation"]
    assert not (pairs["discovery"] | pairs["validation"]) & (pairs["test"] | pairs["unseen"])
    for part in ("transfer", "replication"):
        own = {p.pair for p in drawn[part, Cell.RECALL]}
        assert not own & (pairs["discovery"] | pairs["validation"])
    wording = {part: {p.skeleton for p in drawn[part, Cell.RECALL]} for part in pairs}
    assert not wording["unseen"] & (wording["discovery"] | wording["validation"] | wording["test"])
    for part, cell in drawn:
        assert [p.item for p in drawn[part, cell]] == [p.item for p in drawn[part, Cell.RECALL]]


@pytest.fixture(scope="module")
def atlas():
    return Model.load("zoo:atlas")


def test_a_model_that_cannot_do_the_tasks_is_refused_with_the_count():
    from microtome.studies.recall.prompts import answer_prompts
    from microtome.studies.recall.subject import Subject

    config = STUDY.preset("quick")
    model = Subject(Model.load("zoo:atlas"), config).untrained
    drawn = draw_prompts(model, config.prompts, 0)
    with pytest.raises(DataError, match=r"answers 0 of 96 recall prompts of part 'discovery' right .*8 are needed"):
        answer_prompts(model, drawn, config)


def test_every_cell_has_a_name_of_its_own_for_readers():
    assert set(CELLS) == set(SHORT) == {str(c) for c in Cell} and set(SETS) == set(TASKS)
    for names in (CELLS, SHORT, SETS):
        assert len(set(names.values())) == len(names) and not [n for n in names.values() if "_" in n]
    assert [SHORT[str(TASKS[task])] for task in TASKS] == list(TASKS)


def test_unknown_keys_name_the_nearest():
    from microtome.core.config import with_settings

    with pytest.raises(ConfigError, match=r"No key 'prompts\.itms'.*Did you mean 'prompts\.items'"):
        with_settings(STUDY.preset("quick"), ["prompts.itms=3"])


def test_positions_are_those_of_the_prompt_after_padding(hand):
    _, parts, _, _, _ = hand
    cases = parts["test"]["recall"]
    for row, (puzzle, table) in enumerate(zip(cases.puzzles, cases.positions("entity"), strict=True)):
        seen = cases.batch.inputs["input_ids"][row, table[0]].item()
        assert seen == puzzle.ids[puzzle.changed[0]]
    assert torch.equal(cases.positions("last")[:, 0], cases.batch.last)
