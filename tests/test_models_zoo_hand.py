"""zoo:hand: every claim of its truth is checked by plain hooks, with no part of the engine."""

from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch

from microtome.core.errors import DataError, ModelError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.models import Model
from microtome.models.zoo.hand import HAND_TRUTH, hand, hand_items
from microtome.models.zoo.hand.scoring import expected_accuracy, greedy_accuracy, logit_difference
from microtome.models.zoo.hand.world import ENTITIES, RELATIONS, VALUES, fact, token_id

SITES = {"blocks.0.attn.heads": 8, "blocks.0.mlp.neurons": 256, "blocks.1.attn.heads": 8, "blocks.1.mlp.neurons": 256}
TASKS = ("recall", "lookup")
VARIANTS = tuple(HAND_TRUTH)
MODELS = {v: hand(v, torch.float64) for v in VARIANTS}
ITEMS = {t: hand_items(t, 48) for t in TASKS}


def encode(model, texts):
    return dict(model.tokenizer(list(texts), padding=True, return_tensors="pt"))


def last_logits(model, texts, *hooks):
    with ExitStack() as stack, torch.no_grad():
        for hook in hooks:
            stack.enter_context(hook)
        return model.module(**encode(model, texts)).logits[:, -1]


def reader(model, site):
    """The module that reads the units of a site, and how many numbers make one unit."""
    block, kind = model.module.blocks[int(site.split(".")[1])], site.split(".", 2)[2]
    return (block.attn.o, 24) if kind == "attn.heads" else (block.mlp.down, 1)


@contextmanager
def replaced(model, units, values=None):
    """Set units to zero, or to their values in another run (site -> the reader's whole input)."""
    handles = []
    for site, indices in units.items():
        module, width = reader(model, str(site))
        columns = torch.cat([torch.arange(i * width, (i + 1) * width) for i in indices])

        def hook(_, args, columns=columns, site=str(site)):
            x = args[0].clone()
            x[..., columns] = 0.0 if values is None else values[site][..., columns]
            return (x,)

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured(model, store):
    handles = []
    for site in SITES:
        module, _ = reader(model, site)
        handles.append(module.register_forward_pre_hook(lambda _, args, s=site: store.__setitem__(s, args[0])))
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()


def accuracy(model, task, units=None, score=expected_accuracy):
    hooks = [] if units is None else [replaced(model, units)]
    return score(last_logits(model, [i.prompt for i in ITEMS[task]], *hooks), ITEMS[task])


def drop(model, task, units):
    return float(accuracy(model, task).mean() - accuracy(model, task, units).mean())


def dissociation(model, recall, lookup):
    first = drop(model, "recall", recall) - drop(model, "lookup", recall)
    return first + drop(model, "lookup", lookup) - drop(model, "recall", lookup)


def per_unit(site, by_number):
    """Sum a [batch, seq, numbers] tensor over positions and within units; mean over items."""
    return by_number.sum(1).unflatten(-1, (SITES[site], -1)).sum(-1).mean(0)


def attribution(model, task, steps, items=None):
    """Mean over points of the gradient x (counterfactual - clean); one point is AtP, more is IG over the embeddings."""
    items, clean, other = items or ITEMS[task], {}, {}
    with captured(model, clean):
        last_logits(model, [i.prompt for i in items])
    with captured(model, other):
        last_logits(model, [i.counterfactual for i in items])
    towards = model.module.embed(encode(model, [i.counterfactual for i in items])["input_ids"]).detach()
    scores = {site: torch.zeros(n, dtype=torch.float64) for site, n in SITES.items()}
    for alpha in torch.arange(steps, dtype=torch.float64) / steps:
        store = {}
        hook = model.module.embed.register_forward_hook(lambda _, a, out, w=alpha: (1 - w) * out + w * towards)
        with captured(model, store):
            logits = model.module(**encode(model, [i.prompt for i in items])).logits[:, -1]
        hook.remove()
        total = logit_difference(logits, items).sum()
        grads = torch.autograd.grad(total, [store[s] for s in SITES])
        for site, grad in zip(SITES, grads, strict=True):
            scores[site] += per_unit(site, grad * (other[site] - clean[site])) / steps
    return scores


def exact_patching(model, task, units):
    """The change of the logit difference when one unit takes its value from the counterfactual run, for some units."""
    items = ITEMS[task][:24]
    prompts, other = [i.prompt for i in items], {}
    with captured(model, other):
        last_logits(model, [i.counterfactual for i in items])
    base = logit_difference(last_logits(model, prompts), items)
    effects = {}
    for site, index in units:
        logits = last_logits(model, prompts, replaced(model, Units({site: [index]}), other))
        effects[str(site), index] = float((logit_difference(logits, items) - base).mean())
    return effects


def separation(scores, true):
    """Smallest |score| of a true unit, largest |score| of any other."""
    inside = {s: torch.isin(torch.arange(n), torch.tensor(true.at(s).tolist())) for s, n in SITES.items()}
    flat = torch.cat([scores[s].abs() for s in SITES])
    mask = torch.cat([inside[s] for s in SITES])
    return float(flat[mask].min()), float(flat[~mask].max())


# ---- the world


def test_facts_are_two_permutations_that_never_agree():
    table = [[fact(e, r) for e in range(len(ENTITIES))] for r in range(len(RELATIONS))]
    assert all(sorted(row) == list(range(len(VALUES))) for row in table)
    assert all(a != b for a, b in zip(*table, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_counterfactual_changes_one_word_and_the_answer(task):
    for item in ITEMS[task]:
        words, other = item.prompt.split(), item.counterfactual.split()
        changed = [i for i, (a, b) in enumerate(zip(words, other, strict=True)) if a != b]
        assert changed == [len(words) - 2]
        assert len(set(item.options)) == 4
        assert {item.answer, item.cf_answer} <= set(item.options) and item.answer != item.cf_answer
        assert words[words.index(ENTITIES[item.fact[0]]) + 1] != VALUES[fact(*item.fact)]  # the context contradicts


def test_one_seed_gives_both_tasks_the_same_prompts_but_the_gate():
    for a, b in zip(ITEMS["recall"], ITEMS["lookup"], strict=True):
        assert a.prompt.removesuffix("recall") == b.prompt.removesuffix("lookup")
        assert a.answer == token_id(VALUES[fact(*a.fact)]) != b.answer
    assert {i.fact for i in ITEMS["recall"][:24]} == set(HAND_TRUTH["plain"].facts)


def test_another_seed_gives_other_prompts():
    assert hand_items("recall", 24) == hand_items("recall", 24) != hand_items("recall", 24, seed=1)


# ---- behaviour


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_right(variant, task, dtype):
    model = hand(variant, dtype)
    logits = last_logits(model, [i.prompt for i in ITEMS[task]])
    assert logits.dtype == dtype
    assert expected_accuracy(logits, ITEMS[task]).min() == 1
    assert greedy_accuracy(logits, ITEMS[task]).min() == 1
    swapped = logit_difference(last_logits(model, [i.counterfactual for i in ITEMS[task]]), ITEMS[task])
    assert swapped.max() < -5  # the counterfactual prompt has the other answer


def test_left_padding_changes_nothing():
    model, prompts = MODELS["plain"], [i.prompt for i in ITEMS["lookup"][:4]]
    assert len({len(p.split()) for p in prompts}) > 1
    alone = torch.cat([last_logits(model, [p]) for p in prompts])
    torch.testing.assert_close(last_logits(model, prompts), alone, atol=1e-9, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_anatomy_is_found_from_structure(variant):
    model = Model.load(MODELS[variant].module, tokenizer=MODELS[variant].tokenizer)
    assert {str(s): n for s, n in model.space(["blocks.*.attn.heads", "blocks.*.mlp.neurons"]).items()} == SITES
    MODELS[variant].truth.causal.check(model.space("blocks.*.*.*"))
    assert model.anatomy.tail == ("head",) and not model.anatomy.missing


# ---- ablation


@pytest.mark.parametrize("variant", ["plain", "shared"])
def test_a_fact_neuron_holds_one_fact(variant):
    model = MODELS[variant]
    for key in [(0, 0), (3, 1), (11, 0)]:
        unit = model.truth.fact_unit(key)
        asked = torch.tensor([i.fact == key for i in ITEMS["recall"]])
        assert asked.sum() == 2
        assert accuracy(model, "recall", unit).tolist() == torch.where(asked, 0.25, 1.0).tolist()
        assert accuracy(model, "recall", unit, greedy_accuracy).tolist() == (~asked).double().tolist()
        prompts = [i.prompt for i in ITEMS["lookup"]]
        assert torch.equal(last_logits(model, prompts, replaced(model, unit)), last_logits(model, prompts))


def test_the_lookup_heads_carry_lookup_and_nothing_of_recall():
    model = MODELS["plain"]
    prompts = [i.prompt for i in ITEMS["recall"]]
    for unit in model.truth.lookup:
        alone = Units({unit[0]: [unit[1]]})
        assert accuracy(model, "lookup", alone).tolist() == [0.25] * 48
        assert torch.equal(last_logits(model, prompts, replaced(model, alone)), last_logits(model, prompts))


@pytest.mark.parametrize("variant", VARIANTS)
def test_dissociation_is_two_minus_the_chance_rates(variant):
    truth = MODELS[variant].truth
    assert truth.chance == {"recall": 0.25, "lookup": 0.25} and truth.dissociation == 1.5
    assert dissociation(MODELS[variant], truth.recall, truth.lookup) == pytest.approx(truth.dissociation, abs=1e-12)


def test_matched_random_sets_do_not_dissociate():
    model, rng = MODELS["plain"], np.random.default_rng(0)
    truth, space = model.truth, {Site(s): n for s, n in SITES.items()}
    for _ in range(10):
        twins = [s.matched_random(space, rng, exclude=truth.causal) for s in (truth.recall, truth.lookup)]
        assert [len(t) for t in twins] == [len(truth.recall), len(truth.lookup)]
        assert dissociation(model, *twins) == 0


def test_inert_units_are_alive_and_as_large_as_the_true_ones():
    model, store = MODELS["plain"], {}
    with captured(model, store):
        last_logits(model, [i.prompt for i in ITEMS["recall"]])
    active = (store["blocks.0.mlp.neurons"] > 0).flatten(0, 1).any(0)
    assert active.double().mean() > 0.95
    norms = model.module.blocks[0].mlp.down.weight.norm(dim=0)
    torch.testing.assert_close(norms, torch.full_like(norms, 2.0))


# ---- attribution


@pytest.mark.parametrize("variant", ["plain", "shared", "correlated"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("steps", [1, 5], ids=["atp", "ig5"])
def test_first_order_attribution_ranks_the_true_units_first(variant, task, steps):
    truth = MODELS[variant].truth
    true = (truth.recall if task == "recall" else truth.lookup) | truth.shared
    lowest, highest_other = separation(attribution(MODELS[variant], task, steps), true)
    assert lowest > 0.1 and highest_other < 1e-9


@pytest.mark.parametrize("task", TASKS)
def test_exact_patching_ranks_the_true_units_first_and_agrees_with_atp(task):
    model, heads = MODELS["plain"], {s: range(n) for s, n in SITES.items() if s.endswith("heads")}
    true, approx = getattr(model.truth, task), attribution(model, task, 1, ITEMS[task][:24])
    exact = exact_patching(model, task, model.truth.causal | Units(heads) | Units({"blocks.1.mlp.neurons": range(9)}))
    assert min(abs(effect) for unit, effect in exact.items() if unit in true) > 0.1
    assert max(abs(effect) for unit, effect in exact.items() if unit not in true) < 1e-9
    for (site, index), effect in exact.items():
        if site in ("blocks.0.mlp.neurons", "blocks.1.attn.heads"):  # what reaches the logits linearly
            assert float(approx[site][index]) == pytest.approx(effect, abs=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_other_unit_together_changes_nothing(variant):
    model, inert = MODELS[variant], Units({s: range(n) for s, n in SITES.items()}) - MODELS[variant].truth.causal
    for task in TASKS:
        prompts = [i.prompt for i in ITEMS[task]]
        torch.testing.assert_close(
            last_logits(model, prompts, replaced(model, inert)), last_logits(model, prompts), atol=1e-9, rtol=0
        )


def test_every_unit_of_a_task_together_moves_the_answer_to_the_counterfactual():
    for task in TASKS:
        model, items, other = MODELS["plain"], ITEMS[task], {}
        with captured(model, other):
            target = last_logits(model, [i.counterfactual for i in items])
        hook = replaced(model, getattr(model.truth, task), other)
        torch.testing.assert_close(last_logits(model, [i.prompt for i in items], hook), target, atol=1e-9, rtol=0)


# ---- variants


def test_one_of_two_redundant_heads_may_go_but_not_both():
    model = MODELS["redundant"]
    pair, prompts = model.truth.redundant, [i.prompt for i in ITEMS["lookup"]]
    clean = last_logits(model, prompts)
    for site, index in pair:
        alone = last_logits(model, prompts, replaced(model, Units({site: [index]})))
        torch.testing.assert_close(alone, clean, atol=1e-9, rtol=0)
    assert len(pair) == 2 and pair <= model.truth.lookup
    assert accuracy(model, "lookup", pair).tolist() == [0.25] * 48
    assert accuracy(model, "recall", pair).min() == 1


def test_one_gradient_misses_redundant_heads_and_integrated_gradients_and_joint_patching_do_not():
    model, items, other = MODELS["redundant"], ITEMS["lookup"], {}
    heads = attribution(model, "lookup", 1)["blocks.1.attn.heads"]
    assert heads.abs().max() < 1e-9
    lowest, highest_other = separation(attribution(model, "lookup", 5), model.truth.lookup)
    assert lowest > 0.1 and highest_other < 1e-9  # points along the way leave the flat part
    with captured(model, other):
        last_logits(model, [i.counterfactual for i in items])
    hook = replaced(model, model.truth.redundant, other)
    assert logit_difference(last_logits(model, [i.prompt for i in items], hook), items).max() < -5


def test_the_shared_head_is_needed_by_both_tasks_and_only_in_its_variant():
    model = MODELS["shared"]
    assert len(model.truth.shared) == 1 and not len(model.truth.shared & (model.truth.recall | model.truth.lookup))
    assert [drop(model, t, model.truth.shared) for t in TASKS] == pytest.approx([0.75, 0.75])
    plain = MODELS["plain"]
    gather = Units({"blocks.0.attn.heads": [plain.truth.roles["gather"]]})
    assert [drop(plain, t, gather) for t in TASKS] == pytest.approx([0.75, 0.0])


def test_decoys_tell_the_tasks_apart_and_do_nothing():
    model, acts = MODELS["correlated"], {}
    for task in TASKS:
        with captured(model, {}) as acts[task]:
            last_logits(model, [i.prompt for i in ITEMS[task]])
    decoys = model.truth.decoys
    assert len(decoys) == 3
    for site, index in decoys:
        (recall, lookup) = (
            acts[t][str(site)][:, -1].unflatten(-1, (SITES[str(site)], -1))[:, index].sum(-1) for t in TASKS
        )
        assert recall.min() > lookup.max()  # AUROC 1
    for task in TASKS:
        prompts = [i.prompt for i in ITEMS[task]]
        assert torch.equal(last_logits(model, prompts, replaced(model, decoys)), last_logits(model, prompts))


def test_without_decoys_no_inert_neuron_differs_between_the_tasks():
    model, acts = MODELS["plain"], {}
    for task in TASKS:
        with captured(model, {}) as acts[task]:
            last_logits(model, [i.prompt for i in ITEMS[task]])
    for site in ("blocks.0.mlp.neurons", "blocks.1.mlp.neurons"):
        inert = np.setdiff1d(np.arange(256), model.truth.causal.at(site))
        recall, lookup = (acts[task][site][..., inert] for task in TASKS)
        torch.testing.assert_close(recall, lookup, atol=1e-9, rtol=0)


# ---- bad input


def test_errors_name_what_is_there():
    with pytest.raises(ModelError, match=r"no variant 'sharde'; it has plain, .*Did you mean 'shared'\?"):
        hand("sharde")
    with pytest.raises(DataError, match=r"No task 'lockup' .*Did you mean 'lookup'\?"):
        hand_items("lockup", 3)
    with pytest.raises(DataError, match=r"Skeletons \[7\] of zoo:hand: give some of 0-3"):
        hand_items("recall", 3, skeletons=[7])
    with pytest.raises(DataError, match="at most 24 tokens, found 25"):
        MODELS["plain"].module(torch.ones(1, 25, dtype=torch.long))
