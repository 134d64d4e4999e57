"""Fitting on frozen prefixes equals fitting with plain hooks, and finds what was planted - against its controls."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrizations import orthogonal

import tiny
from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import DataError, MeasureError
from microtome.features.interchange import swap
from microtome.features.rotation import Rotation, random_axes
from microtome.models import Model
from microtome.models.zoo.hand.weights import SLOTS
from microtome.models.zoo.hand.world import VALUES, fact, hand_items, token_id
from microtome.training.interchange import (
    MaskFit,
    RotationFit,
    Schedule,
    fit_interchange,
    minibatches,
    swap_loss,
)
from microtome.training.swaps import IGNORED, TokenPairs, chosen, record_swaps

SITE = "blocks.0.resid_post"
SHORT = Schedule(epochs=2, batch=4, lr=1e-2)


def token_pairs(n=14, answer=1, seed=0, lengths=(4, 7), **more):
    """Prompts of 4 to 7 tokens, edited somewhere in the middle, with random answers."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(3, 61) for _ in range(rng.randint(*lengths))] for _ in range(2 * n)]
    labels = [[rng.randrange(3, 61) for _ in range(rng.randint(1, answer))] for _ in range(n)]
    at = [[rng.randrange(1, len(p)) for p in side] for side in (prompts[:n], prompts[n:])]
    return TokenPairs(prompts[:n], prompts[n:], labels, *at, **more)


def recorded(model, pairs, site=SITE, **how):
    (swaps,) = record_swaps(model, pairs, site, **how).values()
    return swaps


# -- the same numbers as plain hooks


class Plain:
    """The naive way: a source and a base forward of the whole model for every pair, values put in by a hook."""

    def __init__(self, model, block):
        self.module, self.block = model.module, model.module.get_submodule(model.anatomy.blocks[block].path)

    def _forward(self, ids, hook):
        handle = self.block.register_forward_hook(lambda m, a, out: hook(out))
        try:
            return self.module(torch.tensor([ids]), use_cache=False).logits[0]
        finally:
            handle.remove()

    def loss(self, pairs, numbers, axes):
        total = [
            self._loss(*(getattr(pairs, f)[i] for f in ("bases", "sources", "labels", "base_at", "source_at")), axes)
            for i in numbers
        ]
        return torch.cat(total).mean()

    def _loss(self, base, source, label, base_at, source_at, axes):
        seen = []
        with torch.no_grad():
            self._forward(source, lambda out: seen.append(out[0, source_at]))

        def put(out):
            own = out[0, base_at]
            new = own + (seen[0] - own) @ axes @ axes.T
            return torch.cat([out[:, :base_at], new[None, None], out[:, base_at + 1 :]], 1)

        logits = self._forward([*base, *label[:-1]], put)[len(base) - 1 :]
        return F.cross_entropy(logits, torch.tensor(label), reduction="none")


def gram_rotation(start):
    """R = W L^-T, from its definition."""
    weight = start.clone().requires_grad_()
    return [weight], lambda: weight @ torch.linalg.inv(torch.linalg.cholesky(weight.T @ weight)).T


def householder_rotation(start):
    """Torch's own reflections, which complete the basis by columns drawn from the global generator."""
    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(start.clone())
    orthogonal(layer, "weight")
    return list(layer.parameters()), lambda: layer.weight


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(("kind", "rotation"), [("gram", gram_rotation), ("householder", householder_rotation)])
def test_eight_adam_steps_are_those_of_plain_hooks(tiny_model, family, kind, rotation):
    eager = family == "gemma2"  # whose masks make padded rows NaN, with or without us
    model, pairs = tiny_model(family), token_pairs(lengths=(6, 6)) if eager else token_pairs(answer=2)
    start = random_axes(32, 4, torch.Generator().manual_seed(3), dtype=torch.float64)
    fit = RotationFit(recorded(model, pairs), 4, start=start, kind=kind)
    (found,) = fit_interchange([fit], SHORT)

    plain, losses = Plain(model, 0), []
    parameters, axes = rotation(start)
    optimizer = torch.optim.Adam(parameters, lr=SHORT.lr)
    for epoch in range(SHORT.epochs):
        for swaps in minibatches(fit, SHORT, epoch):
            losses.append(plain.loss(pairs, swaps.pairs.tolist(), axes()))
            for p, g in zip(parameters, torch.autograd.grad(losses[-1], parameters), strict=True):
                p.grad = g
            optimizer.step()
    assert len(losses) == 8
    assert largest(found.losses, torch.stack(losses).detach()) < FLOAT32
    assert largest(found.basis.axes @ found.basis.axes.T, (axes() @ axes().T).detach()) < FLOAT32
    assert largest(found.basis.axes, start) > 1e-2


def test_several_fits_together_are_each_what_it_is_alone(tiny_model):
    model, pairs = tiny_model("gpt2"), token_pairs(blocks=[i % 2 for i in range(14)])
    swaps = recorded(model, pairs, memory_budget=80_000)
    some = chosen(swaps, [i % 3 > 0 for i in range(14)])
    assert len(swaps) > 1 and {s.suffix._prefix is None for s in swaps} == {True, False}
    fits = [
        RotationFit(swaps, 3, seed=1),
        RotationFit(some, 2, validation=swaps, seed=2),
        RotationFit(swaps, {"a": 2, "b": 1}),
        RotationFit(some, 3, kind="qr"),
        MaskFit(some, penalty=1e-2),
    ]
    together = fit_interchange(fits, SHORT)
    for fit, found in zip(fits, together, strict=True):
        (alone,) = fit_interchange([fit], SHORT)
        assert largest(alone.losses, found.losses) < FLOAT64
        assert alone.validation.tolist() == pytest.approx(found.validation.tolist(), abs=FLOAT64)
        assert alone.best == found.best and (len(found.validation) > 0) == bool(fit.validation)
    assert largest(together[0].losses[:4], together[2].losses[:4]) > 1e-3


def test_few_rows_at_once_change_no_number(tiny_model):
    swaps = recorded(tiny_model("gpt2"), token_pairs())
    fits = [RotationFit(swaps, 3, validation=swaps, seed=seed) for seed in range(3)]
    wide, narrow = (fit_interchange(fits, Schedule(2, 4, rows_at_once=n)) for n in (512, 3))
    for a, b in zip(wide, narrow, strict=True):
        assert largest(a.losses, b.losses) < FLOAT64 and largest(a.validation, b.validation) < FLOAT64


# -- what is recorded


@pytest.mark.parametrize("budget", ["1GiB", 40_000])
def test_the_loss_of_pairs_with_long_answers_is_that_of_plain_hooks(tiny_model, budget):
    model, pairs = tiny_model("mistral"), token_pairs(answer=3)
    axes = random_axes(32, 5, torch.Generator().manual_seed(0), dtype=torch.float64)
    total, count = 0.0, 0
    for swaps in recorded(model, pairs, memory_budget=budget):
        for i in range(len(swaps)):
            one = swaps.select([i])
            found = swap_loss(one, swap(one.base, one.source, Rotation(axes)))
            assert abs(found - Plain(model, 0).loss(pairs, one.pairs.tolist(), axes)) < FLOAT64
        total, count = total + len(swaps), count + int((swaps.labels != IGNORED).sum())
    assert (total, count) == (14, sum(len(x) for x in pairs.labels))


def test_every_different_prompt_is_run_once_for_all_pairs_and_sites():
    model = Model.load(tiny.build("llama"))
    prompts = [[5, 6, 7, 8], [5, 6, 9, 10], [11, 12, 13, 14], [15, 16, 17]]
    order = [(b, s) for b in range(3) for s in range(4) if b != s]
    pairs = TokenPairs([prompts[b] for b, _ in order], [prompts[s] for _, s in order], [[20]] * len(order))
    rows = []
    model.module.model.embed_tokens.register_forward_hook(lambda m, a, o: rows.append(len(o)))
    swaps = record_swaps(model, pairs, ["blocks.0.resid_post", "blocks.1.resid_post"])
    assert sum(rows) == 3 + 1 + 2 * 2  # bases, the one source that is no base, and the check of each site
    (one,), (two,) = swaps.values()
    assert one.suffix is two.suffix and len(one) == len(order)


def test_the_activations_are_those_of_the_prompts_alone(tiny_model):
    model, pairs = tiny_model("gpt2"), token_pairs()
    for swaps in recorded(model, pairs, memory_budget=40_000):
        for i, pair in enumerate(swaps.pairs.tolist()):
            seen = []
            Plain(model, 0)._forward(pairs.sources[pair], lambda out: seen.append(out[0, pairs.source_at[pair]]))  # noqa: B023
            assert largest(swaps.source[i], seen[0]) < FLOAT64


# -- fits


def test_a_block_swaps_its_own_columns_and_no_others(tiny_model):
    swaps = recorded(tiny_model("gpt2"), token_pairs(blocks=[1] * 14))
    axes = random_axes(32, 5, torch.Generator().manual_seed(1), dtype=torch.float64)
    still = Schedule(epochs=1, batch=14, lr=0.0)
    joint, second, first = fit_interchange(
        [
            RotationFit(swaps, {"a": 3, "b": 2}, start=axes),
            RotationFit(swaps, 2, start=axes[:, 3:]),
            RotationFit(swaps, 3, start=axes[:, :3]),
        ],
        still,
    )
    assert largest(joint.losses, second.losses) < FLOAT64 < largest(joint.losses, first.losses)
    assert largest(joint.basis.block("b").axes, second.basis.axes) < FLOAT64
    assert (joint.basis.names, joint.basis.sizes) == (("a", "b"), (3, 2))


def test_validation_keeps_the_best_epoch_and_patience_stops(tiny_model):
    """Validation pairs that want the opposite of the training pairs are best before any epoch has passed."""
    pairs = token_pairs()
    swaps = recorded(tiny_model("llama"), pairs)
    kept = TokenPairs(pairs.bases, pairs.sources, [[9]] * 14, pairs.base_at, pairs.source_at)
    train = recorded(tiny_model("llama"), TokenPairs(pairs.bases, pairs.sources, [[10]] * 14, *_at(pairs)))
    against = recorded(tiny_model("llama"), kept)
    schedule = Schedule(epochs=8, batch=14, lr=0.1, patience=2)
    stopped, free, first = fit_interchange(
        [
            RotationFit(train, 16, validation=against),
            RotationFit(train, 16, validation=train),
            RotationFit(swaps, 16, validation=swaps),
        ],
        schedule,
    )
    assert len(stopped.losses) == len(stopped.validation) == stopped.best + 3 < 8
    assert stopped.validation[stopped.best] == stopped.validation.min()
    assert free.best == int(free.validation.argmin()) and len(free.losses) > len(stopped.losses)
    assert first.validation[first.best] < first.losses[0]


def _at(pairs):
    return pairs.base_at, pairs.source_at


def test_without_validation_the_last_parameters_are_kept_and_a_seed_repeats(tiny_model):
    swaps = recorded(tiny_model("llama"), token_pairs())
    fits = [RotationFit(swaps, 3, seed=5), RotationFit(swaps, 3, seed=5), RotationFit(swaps, 3, seed=6)]
    one, again, other = fit_interchange(fits, SHORT)
    assert one.best == SHORT.epochs - 1 and one.validation.numel() == 0
    assert largest(one.losses, again.losses) < FLOAT64 < largest(one.losses, other.losses)


def test_progress_counts_updates_and_ends_at_their_number(tiny_model):
    seen = []
    swaps = recorded(tiny_model("llama"), token_pairs())
    fit_interchange(
        [RotationFit(swaps, 2), MaskFit(swaps)],
        Schedule(epochs=6, batch=4),
        progress=lambda done, total, line: seen.append((done, total, line)),
    )
    assert [d for d, *_ in seen] == [20, 40, 48] and {t for _, t, _ in seen} == {48}
    assert "epoch 3 of 6, 2 fits, loss" in seen[0][2]


def test_the_model_is_left_as_it_was_inside_inference_mode_too():
    model = Model.load(tiny.build("llama"))
    before = [p.detach().clone() for p in model.module.parameters()]
    with torch.inference_mode():
        swaps = recorded(model, token_pairs())
        (found,) = fit_interchange([RotationFit(swaps, 3)], SHORT)
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.module.parameters(), strict=True))
    assert not found.basis.axes.requires_grad and found.losses.isfinite().all()


def test_heads_are_rotated_in_all_their_coordinates(tiny_model):
    swaps = recorded(tiny_model("llama"), token_pairs(), "blocks.1.attn.heads")
    (found,) = fit_interchange([RotationFit(swaps, 3)], SHORT)
    assert found.basis.axes.shape == (32, 3) and swaps[0].source.shape[1:] == (4, 8)


# -- planted truth: zoo:hand gathers entity and relation in slots of their own, at the gate


@pytest.fixture(scope="module")
def hand():
    return Model.load("zoo:hand")


def hand_swaps(model, seed, n=192):
    """Swaps that should bring the source's relation under `recall` and change nothing under `lookup`.

    Returns the swaps and a mask of the cause pairs among them.
    """
    rng, rows = random.Random(seed), []
    for task in ("recall", "lookup"):
        items = hand_items(task, n, seed=seed)
        for base in items:
            source = rng.choice([x for x in items if x.fact[0] != base.fact[0] and x.fact[1] != base.fact[1]])
            changed = token_id(VALUES[fact(base.fact[0], source.fact[1])])
            rows.append((base.prompt, source.prompt, changed if task == "recall" else base.answer))
    bases, sources, labels = zip(*rows, strict=True)
    ids = [[model.tokenizer(p)["input_ids"] for p in side] for side in (bases, sources)]
    return recorded(model, TokenPairs(*ids, [[x] for x in labels]), "blocks.0.resid_mid"), torch.arange(2 * n) < n


@torch.no_grad()
def accuracy(swaps, basis):
    hits = [
        s.suffix(s.site, swap(s.base, s.source, basis), s.rows)[:, 0].argmax(1) == s.labels[:, 0]
        for s in swaps
        if len(s)
    ]
    return torch.cat(hits).float().mean().item()


def test_das_and_mdas_find_the_planted_direction(hand):
    """Behaviour on other prompts, and the direction itself; shuffled labels and random axes find nothing."""
    (swaps, cause), (test, test_cause) = hand_swaps(hand, 0), hand_swaps(hand, 1)
    train = chosen(swaps, cause)
    draw = torch.Generator().manual_seed(0)
    shuffled = [s.select(torch.arange(len(s))) for s in train]
    for s in shuffled:
        s.labels[:] = s.labels[torch.randperm(len(s), generator=draw)]
    schedule = Schedule(epochs=8, batch=16, lr=5e-3)
    fits = [RotationFit(train, 1, seed=seed) for seed in range(3)]
    fits += [RotationFit(swaps, 1), RotationFit(shuffled, 1)]  # MDAS, and the null
    *found, null = fit_interchange(fits, schedule)
    planted = torch.zeros(192)
    planted[SLOTS.gathered_relation] = torch.tensor([1.0, -1.0]) / 2**0.5
    for fitted in found:
        assert accuracy(chosen(test, test_cause), fitted.basis) > 0.95
        assert accuracy(chosen(test, ~test_cause), fitted.basis) > 0.95
        assert (planted @ fitted.basis.axes).abs() > 0.7
    for control in (null.basis, Rotation(random_axes(192, 1, draw))):
        assert accuracy(chosen(test, test_cause), control) < 0.3


def test_a_mask_finds_the_planted_coordinates_and_a_high_penalty_finds_none(hand):
    (swaps, cause), (test, test_cause) = hand_swaps(hand, 0), hand_swaps(hand, 1)
    schedule = Schedule(epochs=8, batch=16, lr=5e-2)
    fits = [MaskFit(chosen(swaps, cause), 0.02, start=1.0), MaskFit(chosen(swaps, cause), 10.0, start=1.0)]
    found, none = fit_interchange(fits, schedule)
    assert set(SLOTS.gathered_relation.tolist()) <= set(found.basis.chosen.tolist())
    assert found.basis.n_features < 20 and none.basis.n_features == 0
    assert accuracy(chosen(test, test_cause), found.basis) > 0.95
    assert accuracy(chosen(test, test_cause), none.basis) == EXACT


# -- refusals


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bases": []}, "Pairs were asked for, found none"),
        ({"labels": [[1]]}, "found 2 bases and 1 labels"),
        ({"labels": [[1], []]}, "Pair 1 has an empty label"),
        ({"base_at": 3}, r"base_at of pair 0 is 3, its prompt has 2 tokens \(0-1\)"),
        ({"source_at": [0]}, "source_at has 1 positions for 2 prompts"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(change, why):
    with pytest.raises(DataError, match=why):
        TokenPairs(**({"bases": [[1, 2], [3, 4]], "sources": [[1], [2]], "labels": [[1], [2]]} | change))


def test_fits_that_make_no_sense_are_refused(tiny_model):
    swaps = recorded(tiny_model("llama"), token_pairs())
    nothing = chosen(swaps, [False] * 14)
    with pytest.raises(MeasureError, match="Fit 1 was asked for, found no training pairs"):
        fit_interchange([RotationFit(swaps, 2), RotationFit(nothing, 2)], SHORT)
    with pytest.raises(MeasureError, match="Fit 0 was asked for 8 updates, found a loss of nan after 4; lower the"):
        fit_interchange([MaskFit(swaps, start=float("nan"))], SHORT)
    with pytest.raises(MeasureError, match="rank 33 was asked for in width 32"):
        fit_interchange([RotationFit(swaps, 33)], SHORT)
    with pytest.raises(MeasureError, match=r"rank 2 in width 32 was asked for, found a start \[32, 3\]"):
        fit_interchange([RotationFit(swaps, 2, start=torch.eye(32)[:, :3])], SHORT)
    with pytest.raises(MeasureError, match="Fit 0 was asked for with validation, found no pairs"):
        fit_interchange([RotationFit(swaps, 2, validation=nothing)], SHORT)
