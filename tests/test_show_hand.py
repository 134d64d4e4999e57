"""Show 3: on zoo:hand, where the truth is known, every method must say it - and say nothing where nothing is.

True units first (exact patching, AtP, EAP-IG); the dissociation in closed form and random twins at 0; the three traps;
and statistics that flag almost no unit of an untrained network or of shuffled labels, where the authors' flag half.
"""

import numpy as np
import pytest
import torch

from close import FLOAT64
from microtome.core.units import Units
from microtome.edits import ablate
from microtome.engine.edit import Edit, From
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.attribution import attribution_patching, edge_attribution, integrated_gradients
from microtome.measures.dissociation import Outcomes, dissociation_index, double_dissociation
from microtome.measures.faithfulness import against_truth
from microtome.measures.outputs import LogitDiff
from microtome.measures.paper_statistics import paper_criteria
from microtome.measures.selectivity import beyond_null, replication, selectivity
from microtome.models import Model
from microtome.models.zoo.hand import HAND_TRUTH, hand_items
from microtome.models.zoo.untrained import untrained

TASKS, VARIANTS = ("recall", "lookup"), tuple(HAND_TRUTH)
SITES = ["blocks.*.mlp.neurons", "blocks.*.attn.heads"]
ITEMS = {t: hand_items(t, 24) for t in TASKS}  # every fact once
MODELS = {v: Model.load("zoo:hand" + ("" if v == "plain" else f"-{v}"), dtype=torch.float64) for v in VARIANTS}


class Share:
    """Expected accuracy: credit shared among the item's best options."""

    positions = "last"

    def __init__(self, items):
        self.options = torch.tensor([i.options for i in items])
        self.right = torch.tensor([i.options.index(i.answer) for i in items])

    def __call__(self, logits, rows):
        x = logits[:, -1].gather(1, self.options[rows])
        best = x >= x.amax(1, keepdim=True) - 1e-4
        return best.gather(1, self.right[rows][:, None])[:, 0].double() / best.sum(1)


def batches(model, task):
    return tuple(model.batch([getattr(i, w) for i in ITEMS[task]]) for w in ("prompt", "counterfactual"))


def difference(task):
    return LogitDiff(*(torch.tensor([getattr(i, n) for i in ITEMS[task]]) for n in ("answer", "cf_answer")))


def outcomes(model, task, sets, n=24) -> np.ndarray:
    """Accuracy by item without each set, [sets, items], on the first n items."""
    batch = batches(model, task)[0].select(slice(n))
    return sweep(model, batch, [ablate(s) for s in sets], Share(ITEMS[task])).effects.numpy()


def intact(model, task) -> np.ndarray:
    return Share(ITEMS[task])(run(model, batches(model, task)[0], logits="last").logits, torch.arange(24)).numpy()


# ---- true units first


@pytest.mark.parametrize("variant", ["plain", "shared", "correlated"])
@pytest.mark.parametrize("task", TASKS)
def test_every_method_puts_the_true_units_first(task, variant):
    model, truth, metric = MODELS[variant], HAND_TRUTH[variant], difference(task)
    clean, corrupt = batches(model, task)
    true = getattr(truth, task) | truth.shared
    source = run(model, clean, read=SITES, logits="none")
    exact = {}
    for site in source:
        cells = [Edit(site, From(source[site]), units=[u]) for u in range(source[site].shape[2])]
        found = sweep(model, corrupt, cells, metric)
        exact[site] = (found.effects - found.base).T
    scores = {
        "exact": exact,
        "AtP": attribution_patching(model, clean, corrupt, SITES, metric),
        "EAP-IG": integrated_gradients(model, clean, corrupt, SITES, metric, steps=5),
    }
    for name, by_site in scores.items():
        means = {s: x.abs().mean(0).numpy() for s, x in by_site.items()}
        assert against_truth(means, true).auroc == 1.0, name
    noise = {s: np.random.default_rng(0).random(len(x)) for s, x in means.items()}
    assert against_truth(noise, true).auroc < 0.8  # the yardstick can fail


@pytest.mark.parametrize("task", TASKS)
def test_edges_put_the_true_heads_first(task):
    model, truth = MODELS["plain"], HAND_TRUTH["plain"]
    edges = edge_attribution(model, *batches(model, task), difference(task), steps=5)
    strength = edges.scores.abs().sum(2).mean(0)
    by_unit = {unit: float(s) for unit, s in zip(edges.senders, strength, strict=True) if unit[0].kind == "attn.heads"}
    true = [unit for unit in by_unit if unit in getattr(truth, task)]
    assert min(by_unit[u] for u in true) > 0.1 > 1e-9 > max(s for u, s in by_unit.items() if u not in true)


# ---- dissociation


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_dissociation_is_its_closed_form_and_random_twins_are_at_0(variant):
    model, truth = MODELS[variant], HAND_TRUTH[variant]
    rng, space = np.random.default_rng(0), model.space(SITES)
    draws, n = (200, 6) if variant == "plain" else (20, 6)
    twins = {
        t: [getattr(truth, t).matched_random(space, rng, exclude=truth.causal) for _ in range(draws)] for t in TASKS
    }
    tasks, null = {}, {}
    for task, other in zip(TASKS, TASKS[::-1], strict=True):
        whole = intact(model, task)
        own, cross = outcomes(model, task, [getattr(truth, task), getattr(truth, other)])
        tasks[task] = Outcomes(whole, own, cross, [[i.skeleton for i in ITEMS[task]]])
        null[task] = Outcomes(whole[:n], *(outcomes(model, task, twins[t], n) for t in (task, other)))
    random_sets = dissociation_index(null["recall"], null["lookup"])
    assert random_sets.shape == (draws,) and not random_sets.any()
    found = double_dissociation(tasks["recall"], tasks["lookup"], rng=rng, null=random_sets)
    assert truth.dissociation == 2 - 0.25 - 0.25
    for value in (found.index.estimate, found.index.low, found.index.high):
        assert value == pytest.approx(truth.dissociation, abs=FLOAT64)
    assert found.both and found.p == 1 / (1 + draws) and found.q_other.estimate == found.r_other.estimate == 0


# ---- the three traps


def judged(model, units) -> dict:
    """Unit -> what single ablation says of it: recall, lookup, mixed or nothing."""
    singles = [Units({site: [index]}) for site, index in units]
    drops = {t: (intact(model, t) - outcomes(model, t, singles)).mean(1) > 1e-9 for t in TASKS}
    names = {(True, False): "recall", (False, True): "lookup", (True, True): "mixed", (False, False): "nothing"}
    return {u: names[bool(r), bool(q)] for u, r, q in zip(units, drops["recall"], drops["lookup"], strict=True)}


def sample(model, truth) -> list:
    """Every unit with a role, every head, and some of the other neurons."""
    others = Units({s: np.arange(0, n, 1 if s.kind == "attn.heads" else 20) for s, n in model.space(SITES).items()})
    return list(truth.causal | truth.decoys | others)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_unit_is_judged_by_what_its_loss_does(variant):
    model, truth = MODELS[variant], HAND_TRUTH[variant]
    clip = Units({"blocks.1.mlp.neurons": truth.roles["clip"]}) if variant == "redundant" else Units()
    want = {}
    for unit in sample(model, truth):
        role = next((n for n in ("recall", "lookup") if unit in getattr(truth, n)), "nothing")
        want[unit] = "mixed" if unit in truth.shared else "nothing" if unit in truth.redundant else role
    found = judged(model, list(want))
    assert {u: v for u, v in found.items() if u not in clip} == {u: v for u, v in want.items() if u not in clip}
    assert {found[u] for u in clip} <= {"lookup", "nothing"}  # one half of a clip may change no answer


def test_trap_redundant_heads_only_their_joint_loss_shows_them():
    model, pair = MODELS["redundant"], HAND_TRUTH["redundant"].redundant
    singles = [Units({site: [index]}) for site, index in pair]
    one, other, joint = outcomes(model, "lookup", [*singles, pair])
    assert (one == 1).all() and (other == 1).all() and (joint == 0.25).all()
    clean, corrupt = batches(model, "lookup")
    site, metric = pair.sites[0], difference("lookup")
    by_gradient = attribution_patching(model, clean, corrupt, site, metric)[site].abs().mean(0)
    along_the_way = integrated_gradients(model, clean, corrupt, site, metric, steps=5)[site].abs().mean(0)
    assert by_gradient.max() < 1e-9  # the known false negative of a single gradient
    true = pair.at(site).copy()
    assert along_the_way[true].min() > 0.1 > 1e-9 > np.delete(along_the_way.numpy(), true).max()
    assert (outcomes(model, "recall", [pair]) == 1).all()


def test_trap_shared_unit_hurts_both_tasks_alike_and_so_dissociates_nothing():
    model, shared = MODELS["shared"], HAND_TRUTH["shared"].shared
    tasks = []
    for task in TASKS:
        gone = outcomes(model, task, [shared])[0]
        assert (gone == 0.25).all()
        tasks.append(Outcomes(intact(model, task), gone, gone))
    found = double_dissociation(*tasks, rng=np.random.default_rng(0))
    assert found.index.estimate == 0 and not found.both


def last_values(module, tokenizer, places, n=48, seed=0):
    """Values at the gate token for both tasks, [2 n, units], with labels, skeletons and items."""
    model, rows = Model.load(module, tokenizer=tokenizer), []
    for task in TASKS:
        items = hand_items(task, n, seed=seed)
        seen = run(model, model.batch([i.prompt for i in items]), read=places, logits="none")
        rows.append(torch.cat([x[:, -1].reshape(n, x.shape[2], -1).sum(2) for x in seen.values()], 1))
    known = dict(task=np.repeat([0, 1], n), skeletons=[i.skeleton for i in items] * 2, item=[*range(n)] * 2)
    return torch.cat(rows).numpy(), known


def test_trap_correlated_units_top_every_selectivity_statistic_and_do_nothing():
    model, truth = MODELS["correlated"], HAND_TRUTH["correlated"]
    values, known = last_values(model.module, model.tokenizer, SITES)
    found = selectivity(values, **known, rng=np.random.default_rng(0), draws=4999)
    owner = [(s, u) for s, n in model.space(SITES).items() for u in range(n)]
    decoys = np.array([unit in truth.decoys for unit in owner])
    area = np.abs(found.auroc.area - 0.5)
    assert decoys.sum() == 3 and found.selective[decoys].all() and (area[decoys] == 0.5).all()
    assert (found.family[decoys] <= 0.05).all() and (np.abs(found.paired.d_z[decoys]) > 1e6).all()
    assert paper_criteria(values, known["task"]).flagged[decoys].all()
    for task in TASKS:
        assert (outcomes(model, task, [truth.decoys]) == 1).all()
    inert = ~decoys & ~np.array([unit in truth.causal for unit in owner])
    assert found.selective[inert].mean() <= 0.05


# ---- where nothing was learned, nothing passes


def test_shuffled_labels_let_at_most_five_percent_pass():
    model = MODELS["correlated"]
    values, known = last_values(model.module, model.tokenizer, SITES)
    shares = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        swap = np.tile(rng.integers(0, 2, 48), 2)  # within items, so within skeletons
        found = selectivity(values, **{**known, "task": known["task"] ^ swap}, rng=rng, draws=999)
        shares.append(found.selective.mean())
    assert max(shares) <= 0.05


@pytest.fixture(scope="module")
def untrained_twins():
    """Selectivity of three untrained twins on discovery and held-out items, and what the authors' criteria flag."""
    model, twins = MODELS["plain"], []
    for seed in range(3):
        module = untrained(model.module, seed)
        found = []
        for items in (0, 1):
            values, known = last_values(module, model.tokenizer, SITES, seed=items)
            found.append(selectivity(values, **known, rng=np.random.default_rng(seed), draws=499))
        gates, known = last_values(module, model.tokenizer, ["blocks.*.mlp.up"])
        twins.append((*found, paper_criteria(gates, known["task"]).flagged))
    return twins


def test_the_authors_criteria_flag_about_half_of_an_untrained_network(untrained_twins):
    for _, _, flagged in untrained_twins:
        assert 0.3 < flagged.mean() < 0.7


def test_an_untrained_network_lets_at_most_five_percent_pass(untrained_twins):
    """The gate token alone makes most units differ; so the effect must also stand out from other untrained networks."""
    areas = [np.abs(found.auroc.area - 0.5) for found, _, _ in untrained_twins]
    for i, (found, again, _) in enumerate(untrained_twins):
        null = np.concatenate([a for j, a in enumerate(areas) if j != i])
        passed = replication(found, again).replicated & (areas[i] > beyond_null(areas[i], null).threshold)
        assert found.selective.mean() > 0.5  # without that gate most would pass: it is what the null is for
        assert passed.mean() <= 0.05
