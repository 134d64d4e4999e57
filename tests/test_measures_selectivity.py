"""Selectivity: planted task units found, template units not, nulls at their level; the paper's own test fails there."""

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.engine.run import run
from microtome.measures.expertise import cohens_d
from microtome.measures.paper_statistics import mann_whitney, paper_criteria, paper_head_criteria
from microtome.measures.selectivity import beyond_null, paired_difference, replication, selectivity
from microtome.measures.variance import variance_decomposition
from microtome.models import Model

ITEMS, SKELETONS = 20, 8  # every item under both tasks in a skeleton of its own


def rng(seed=0):
    return np.random.default_rng(seed)


def design():
    item = np.repeat(np.arange(SKELETONS * ITEMS), 2)
    return item, np.tile([0, 1], SKELETONS * ITEMS), item % SKELETONS


def world(seed, units=300, task=(), skeleton=(), length=()):
    """Normal noise, plus units that respond to task, skeleton or length."""
    g = rng(seed)
    item, label, skel = design()
    words = g.integers(5, 15, len(item)) + 2.0 * label
    x = g.normal(size=(len(item), units)) + 0.5 * g.normal(size=(ITEMS * SKELETONS, units))[item]
    x[:, list(task)] += 1.0 * label[:, None]
    x[:, list(skeleton)] += 3 * g.normal(size=(SKELETONS, 1))[skel]
    x[:, list(length)] += 0.5 * words[:, None]
    return x, dict(task=label, item=item, skeletons=skel, factors={"length": words})


def test_planted_task_units_are_found_and_confounded_ones_are_not():
    x, known = world(1, task=range(10), skeleton=range(10, 40), length=range(40, 70))
    found = selectivity(x, **known, rng=rng(), draws=999)
    assert found.selective[:10].all()
    assert found.selective[10:].mean() < 0.02
    assert (found.q[40:70] <= 0.05).mean() > 0.5  # task and length go together: the permutation test alone is fooled
    assert found.variance.eta["length"][40:70].min() > 0.3 > found.variance.eta["task"][40:70].max()
    assert (found.family[:10] <= 0.05).all() and found.auroc.low[:10].min() > 0.5
    assert found.d[:10].min() > 0.5 and found.paired.d_z[:10].min() > 0.3
    assert found.paired.pairs == ITEMS * SKELETONS and found.paired.dropped == 0
    assert found.share.estimate == found.selective.mean()


def test_shuffled_labels_flag_at_most_five_percent():
    x, known = world(2, task=range(100))
    flagged = []
    for seed in range(3):
        pairs = rng(seed).integers(0, 2, ITEMS * SKELETONS)
        shuffled = known["task"] ^ np.repeat(pairs, 2)  # which of the pair is which: within item, so within skeleton
        found = selectivity(x, **{**known, "task": shuffled, "factors": {}}, rng=rng(seed), draws=999)
        flagged.append(found.selective.mean())
        assert (found.p <= 0.05).mean() < 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 300)
    assert max(flagged) <= 0.05


def test_replication_holds_for_planted_units_and_not_for_chance():
    first, known = world(3, task=range(20))
    second, again = world(4, task=range(15))  # five of them do not come back
    found = replication(
        selectivity(first, **known, rng=rng(), draws=999), selectivity(second, **again, rng=rng(), draws=999)
    )
    assert found.replicated[:15].all() and found.replicated[15:].sum() <= 1
    assert found.flagged >= 20 and found.rate.estimate == pytest.approx(found.replicated.sum() / found.flagged)
    mirrored = selectivity(-second, **again, rng=rng(), draws=999)
    assert replication(selectivity(first, **known, rng=rng(), draws=999), mirrored).replicated[:15].sum() == 0
    nothing = selectivity(world(5)[0], **known, rng=rng(), draws=99)  # no p below 1 / 100: nothing survives BH
    assert nothing.selective.sum() == 0 and replication(nothing, mirrored).rate is None


def test_effects_are_measured_against_a_null():
    null = rng(1).normal(size=4000)
    same = beyond_null(rng(2).normal(size=2000), null)
    assert 0.05 in same.share and same.threshold == pytest.approx(1.96, abs=0.1)
    assert abs((same.p <= 0.05).mean() - 0.05) < 0.02
    found = beyond_null([10.0, 0.0], null)
    assert found.p.tolist() == [1 / 4001, 1.0] and found.ratio[0] == pytest.approx(10 / found.threshold)


def test_paired_differences_by_hand():
    x = np.array([[1.0, 0], [3, 0], [2, 1], [7, 1], [5, 5], [9, 1]])
    found = paired_difference(x, [0, 1, 0, 1, 1, 1], ["a", "a", "b", "b", "c", "b"])  # b has two rows of task 1
    np.testing.assert_allclose(found.difference, [(2 + 6) / 2, 0])
    np.testing.assert_allclose(found.d_z, [4 / np.std([2, 6], ddof=1), 0])
    assert found.pairs == 2 and found.dropped == 1


def ols(y, columns):
    X = np.column_stack([np.ones(len(y)), *columns])
    return ((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2).sum(0), np.linalg.matrix_rank(X)


def test_decomposition_is_that_of_nested_regressions():
    g = rng(7)
    y = g.normal(size=(90, 4))
    task, skel, length = g.integers(0, 2, 90), g.integers(0, 5, 90), g.normal(size=90)
    y[:, 1] += 2 * task
    dummies = [(skel == k).astype(float) for k in range(5)]
    full, rank = ols(y, [task, *dummies, length])
    found = variance_decomposition(y, {"task": task, "skeleton": np.array(list("abcde"))[skel], "length": length})
    assert found.residual_df == 90 - rank and found.df == {"task": 1, "skeleton": 4, "length": 1}
    for name, rest in (("task", [*dummies, length]), ("skeleton", [task, length]), ("length", [task, *dummies])):
        without, _ = ols(y, rest)
        np.testing.assert_allclose(found.eta[name], (without - full) / without, atol=FLOAT64)
        ratio = (without - full) / found.df[name] / (full / found.residual_df)
        p = scipy.stats.f.sf(ratio, found.df[name], found.residual_df)
        np.testing.assert_allclose(found.p[name], p, atol=FLOAT64)


def test_two_balanced_groups_give_the_t_test_and_a_confounded_task_gives_nothing():
    y, task = rng(8).normal(size=(30, 5)), np.arange(30) % 2
    expected = scipy.stats.ttest_ind(y[task == 1], y[task == 0]).pvalue
    np.testing.assert_allclose(variance_decomposition(y, {"task": task}).p["task"], expected, atol=FLOAT64)
    template = task * 3 + (np.arange(30) % 6) // 2 % 3  # every template belongs to one task, as in the paper
    found = variance_decomposition(y + 100 * task[:, None], {"task": task, "template": template})
    assert found.df["task"] == 0 and (found.p["task"] == 1).all() and (found.eta["task"] == 0).all()


def test_constant_and_perfectly_explained_units():
    task = np.arange(12) % 2
    found = variance_decomposition(np.stack([np.full(12, 3.3), task * 2.0], 1), {"task": task, "n": np.arange(12.0)})
    np.testing.assert_allclose(found.eta["task"], [0, 1], atol=FLOAT64)
    np.testing.assert_allclose(found.p["task"], [1, 0], atol=FLOAT64)


def untrained(model):
    """Gate values of a random network at the last token of 30 + 30 prompts in two templates that differ in wording."""
    g = rng(3)
    names = g.integers(40, 60, (30, 2))
    recall = [[3, 4, 5, 6, 7, int(a), 8] for a, _ in names]
    reasoning = [[9, 10, 11, 6, 7, int(a), 12, 13, int(a), 14, int(b), 15, 16, 17] for a, b in names]
    rows = []
    for prompts in (recall, reasoning):
        acts = run(model, model.batch_ids(prompts), read="blocks.*.mlp.gate", logits="none")
        rows.append(np.concatenate([acts[f"blocks.{i}.mlp.gate"][:, -1].numpy() for i in range(3)], 1))
    return np.concatenate(rows).astype(np.float64), np.repeat([0, 1], 30)


def test_the_papers_criteria_flag_an_untrained_network_and_ours_do_not(tiny_model):
    gates, task = untrained(tiny_model("llama"))
    paper = paper_criteria(gates, task)
    assert paper.flagged.mean() > 0.3  # a network that knows nothing; the spec's larger one has 48.5 %
    half = paper_criteria(gates[:30], np.arange(30) % 2)  # within one template: nothing to detect
    assert half.flagged.sum() == 0
    with pytest.raises(MeasureError, match="labels and groups cannot be told apart"):
        selectivity(gates, task, skeletons=task, rng=rng())
    by_template = variance_decomposition(gates, {"task": task, "skeleton": task * 2})
    assert by_template.df["task"] == 0 and (by_template.p["task"] == 1).all()


def test_the_effects_of_one_untrained_network_do_not_stand_out_from_those_of_others():
    effects, flagged = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        gates, task = untrained(Model.load(LlamaForCausalLM(LlamaConfig(**tiny.GATED)).eval()))
        effects.append(cohens_d(gates, task))
        flagged.append(paper_criteria(gates, task).flagged.mean())
    others = [np.concatenate([e for j, e in enumerate(effects) if j != i]) for i in range(4)]
    shares = [beyond_null(own, null).share.estimate for own, null in zip(effects, others, strict=True)]
    assert min(flagged) > 0.5 and np.mean(shares) < 0.08 and max(shares) < 0.15
    planted = np.where(np.arange(len(effects[0])) < 10, 3 * np.abs(effects[0]).max(), effects[0])
    assert (beyond_null(planted, others[0]).ratio[:10] > 1.5).all()


def test_on_crossed_skeletons_an_untrained_network_passes_at_most_five_percent(tiny_model):
    model, g = tiny_model("llama"), rng(4)
    prompts, label, skel = [], [], []
    for s in range(8):
        filler = g.integers(3, 40, 6).tolist()
        for _ in range(10):
            a, b = g.integers(40, 60, 2).tolist()
            for t in (0, 1):  # same skeleton, same count; the task is which of two random fillers stands first
                prompts.append([*filler[:3], a, *filler[3:], b] if t else [*filler[:3], b, *filler[3:], a])
                label.append(t), skel.append(s)
    acts = run(model, model.batch_ids(prompts), read="blocks.*.mlp.neurons", logits="none")
    x = torch.cat([acts[f"blocks.{i}.mlp.neurons"][:, -1] for i in range(3)], 1)
    found = selectivity(x, label, skeletons=skel, rng=rng(), draws=999)
    assert found.selective.mean() <= 0.05


def test_mann_whitney_is_scipys_and_specificity_is_counted():
    x = np.round(rng(9).normal(size=(40, 6)), 1)
    x[:, 5] = 1.0
    labels = np.arange(40) % 2
    found = paper_criteria(x, labels, alpha=0.05, least_d=0.0)
    for unit in range(5):
        a, b = x[labels == 1, unit], x[labels == 0, unit]
        assert found.p[unit] == pytest.approx(scipy.stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
        assert found.specificity[unit] == abs((a > 0).mean() - (b > 0).mean())
    assert found.p[5] == 1 and found.d[5] == 0 and not found.flagged[5]
    np.testing.assert_array_equal(found.d, cohens_d(x, labels))
    assert (mann_whitney(-x, labels) == mann_whitney(x, labels)).all()


def test_full_separation_of_30_and_30_is_the_specs_p():
    assert mann_whitney(np.arange(60.0), np.arange(60) >= 30)[0] == pytest.approx(3.0e-11, rel=0.02)


def test_head_criteria_vote_and_clip():
    g, labels = rng(10), np.repeat([0, 1], 30)
    strong, inverse = np.where(labels, 4.0, 0.0), np.where(labels, -4.0, 0.0)
    statistics = {
        name: np.stack([strong, inverse if name == "entropy" else strong, 10 * strong, 0 * strong], 1)
        + g.normal(size=(60, 4))
        for name in ("entropy", "max", "gini")
    }
    found = paper_head_criteria(statistics, labels)
    assert found.flagged.tolist() == [True, True, False, False]  # the most separated head is thrown away by the clip
    assert found.side.tolist() == [1, 1, 0, 0]
    assert paper_head_criteria(statistics, labels, clip=None).flagged.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: variance_decomposition(np.zeros((4, 2)), {}), "got no factor"),
        (lambda: variance_decomposition(np.zeros((4, 2)), {"task": [0, 1]}), "Factor 'task' labels have shape \\[2\\]"),
        (lambda: variance_decomposition(np.eye(4), {"item": np.arange(4)}), "use up all 4 items"),
        (lambda: paired_difference(np.zeros((3, 1)), [0, 1, 1], [1, 1, 2]), "1 of 2 items occur under both tasks"),
        (
            lambda: selectivity(
                np.zeros((4, 1)), [0, 1, 0, 1], skeletons=[0] * 4, factors={"task": [1] * 4}, rng=rng()
            ),
            "Factor 'task' is there already",
        ),
        (lambda: beyond_null([1.0, np.inf], [1.0]), "1 NaN or infinite"),
        (lambda: beyond_null([1.0], [0.0, 0.0]), "95th percentile of 2 null effects is 0"),
        (lambda: paper_head_criteria({}, [0, 1]), "got no statistic"),
        (
            lambda: paper_head_criteria({"a": np.zeros((4, 1)), "b": np.zeros((4, 2))}, [0, 0, 1, 1]),
            "give the same heads",
        ),
        (lambda: paper_criteria(np.zeros((4, 1)), [1, 1, 1, 1]), "All 4 labels are 1"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
