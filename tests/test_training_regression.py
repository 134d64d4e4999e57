"""Embedding regressors: the formula, seeds that do not meet, an optimizer that is AdamW, stopping, and going on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from close import EXACT, FLOAT32, FLOAT64, OTHER, largest
from microtome.core.errors import ConfigError, DataError, ModelError
from microtome.data.nuclear import SEMF, split, standardise, tasks, theory_table
from microtome.measures.fourier_planes import fourier_planes
from microtome.training.modular_addition import fit_modular_addition
from microtome.training.regression import (
    MIXINGS,
    AdamW,
    EmbeddingRegressor,
    Numbers,
    Schedule,
    Shape,
    Stacked,
    fit_seeds,
    log_spaced,
    numbers_of,
    untrained,
)
from microtome.training.regression.saving import load_fitted, save_fitted
from microtome.training.regression.slopes import Slopes
from microtome.training.regression.threads import shared_out

SMALL = Shape(protons=12, neutrons=15, embedding=6, width=8, blocks=1, base=8, spread=0.3)
PLAN = Schedule(epochs=6, batch=32, peak=1e-2, judge_every=2)


def drawn(seed: int, **changes) -> EmbeddingRegressor:
    return EmbeddingRegressor(
        Shape(12, 15, **({"embedding": 6, "width": 8} | changes)), torch.Generator().manual_seed(seed)
    )


def rows(seed: int, n: int = 96, shuffled: bool = False) -> Numbers:
    """Numbers that are a sum of something of Z and something of N."""
    draw = torch.Generator().manual_seed(seed)
    z, n_ = (torch.randint(0, k, (n,), generator=draw) for k in (12, 15))
    value = torch.sin(z / 2.0) + (n_ / 7.0 - 1)
    if shuffled:
        value = value[torch.randperm(n, generator=draw)]
    return Numbers(z, n_, torch.zeros_like(z), value, torch.ones(n))


def inputs(n: int = 20, tasks_: int = 1, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, k, (n,), generator=draw) for k in (12, 15, tasks_))


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_forward_pass_is_the_formula_of_the_docstring(mixing):
    module = drawn(0, mixing=mixing, tasks=3, blocks=2, base=4)
    z, n, task = inputs(tasks_=3)
    tokens = [t.weight[i] for t, i in ((module.z, z), (module.n, n), (module.task, task))]
    if mixing == "concat":
        whole = torch.cat([v.weight for v in module.values], 1)
        h = torch.cat(tokens, 1) @ whole.T
    else:
        h = sum(tokens) / 3 @ module.values[0].weight.T
    h = torch.nn.functional.silu(h + module.offset)
    for block in module.blocks:
        h = h + torch.relu(block.second(torch.relu(block.first(h))))
    expected = 4 / 8 * (h @ module.readout.weight.T + module.readout.bias)[torch.arange(20), task]
    assert largest(module(z, n, task), expected) < FLOAT32
    assert largest(module.from_embeddings(tokens[0], tokens[1], task), expected) < FLOAT32
    assert largest(module.read(module.features(z, n, task), task), expected) < FLOAT32


def test_rates_of_inner_matrices_and_the_readout_fall_with_width_and_others_do_not():
    wide = drawn(0, width=32, base=8)
    assert wide.output_scale == 1 / 4
    rates = {name: wide.rate_of(name) for name, _ in wide.named_parameters()}
    assert rates["blocks.0.first.weight"] == rates["values.0.weight"] == 1 / 4
    assert rates["z.weight"] == rates["readout.weight"] == rates["blocks.0.first.bias"] == rates["offset"] == 1
    assert drawn(0, width=8, base=8).rate_of("blocks.0.first.weight") == 1


def test_seeds_side_by_side_give_what_each_module_gives():
    modules = [drawn(s) for s in range(3)]
    stacked = Stacked(drawn(9))
    weights = torch.stack([stacked.row(m) for m in modules])
    z, n, task = inputs()
    each = torch.stack([m(z, n, task) for m in modules])
    assert largest(stacked(weights, z, n, task), each) < FLOAT32
    own = [torch.stack([torch.roll(x, s) for s in range(3)]) for x in (z, n, task)]
    rolled = torch.stack([m(*(x[s] for x in own)) for s, m in enumerate(modules)])
    assert largest(stacked(weights, *own), rolled) < FLOAT32


@pytest.mark.parametrize("shape", [
    SMALL,
    replace(SMALL, tasks=3, blocks=0),
    replace(SMALL, tasks=3, mixing="attention", blocks=2),
    replace(SMALL, width=16, mixing="attention"),
])  # fmt: skip
def test_the_gradient_written_down_is_autograds(shape):
    draw = torch.Generator().manual_seed(1)
    stacked = Stacked(EmbeddingRegressor(shape))
    weights = torch.randn(3, sum(stacked.sizes), generator=draw, dtype=torch.float64) / 3
    indices = tuple(torch.randint(0, k, (3, 20), generator=draw) for k in (shape.protons, shape.neutrons, shape.tasks))
    value, weight = torch.randn(3, 20, generator=draw).double(), torch.rand(3, 20, generator=draw).double()
    slopes = Slopes(stacked, weights)
    for rows in (slice(10), slice(20)):  # the second batch leaves nothing of the first
        errors = slopes(slopes.places(*(x[:, rows] for x in indices)), value[:, rows], weight[:, rows])
    asked = weights.clone().requires_grad_()
    sums = ((stacked(asked, *indices) - value).square() * weight).sum(1)
    wanted = torch.autograd.grad((sums / weight.sum(1)).sum(), asked)[0]
    assert largest(slopes.gradient, wanted) < FLOAT64 and largest(errors, sums) < FLOAT64


def test_parts_are_the_parameters_by_name():
    module = drawn(3)
    stacked = Stacked(drawn(0))
    parts = stacked.parts(stacked.row(module)[None])
    assert all(largest(parts[name][0], p) == EXACT for name, p in module.named_parameters())
    row = stacked.each(lambda name, axes: 1.0 if name == "n.weight" else 0.0)
    assert row.sum() == module.n.weight.numel()


def test_the_optimizer_is_adamw():
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(2, 7, generator=draw, dtype=torch.float64)
    rates, decays = torch.tensor([1e-2] * 3 + [3e-2] * 4).double(), torch.tensor([0.1] * 3 + [0.0] * 4).double()
    ours = AdamW(start.clone(), rates, decays)
    theirs = [start[:, :3].clone().requires_grad_(), start[:, 3:].clone().requires_grad_()]
    groups = [
        {"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(theirs, (1e-2, 3e-2), (0.1, 0), strict=True)
    ]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    for _ in range(5):
        gradient = torch.randn(2, 7, generator=draw, dtype=torch.float64)
        ours.step(gradient)
        theirs[0].grad, theirs[1].grad = gradient[:, :3].clone(), gradient[:, 3:].clone()
        reference.step()
    assert largest(ours.weights, torch.cat(theirs, 1).detach()) < FLOAT64 * 10


def test_a_seed_alone_learns_what_it_learns_among_others():
    train, held = rows(0), rows(1, 30)
    together = fit_seeds(SMALL, train, held, PLAN, seeds=(3, 1, 4))
    alone = fit_seeds(SMALL, train, held, PLAN, seeds=(1,))
    assert largest(together.weights[1:2], alone.weights) < OTHER
    assert together.epoch[1] == alone.epoch[0]
    assert largest(together.weights[0:1], alone.weights) > 0.01


def test_the_same_seeds_give_the_same_bits():
    first, again = (fit_seeds(SMALL, rows(0), None, PLAN, seeds=(0, 1)) for _ in range(2))
    assert torch.equal(first.weights, again.weights) and first.history == again.history


def test_what_is_kept_is_the_best_evaluation_and_waiting_seeds_leave():
    plan = Schedule(epochs=60, batch=16, peak=5e-2, judge_every=1, patience=4, average=0.0)
    train, held = rows(0, 40, shuffled=True), rows(1, 30)  # nothing to learn: held-out error soon rises
    fitted = fit_seeds(SMALL, train, held, plan, seeds=range(4))
    for place, seed in enumerate(fitted.seeds):
        told = {h.epoch: h.held for h in fitted.history if h.seed == seed}
        best = min(told, key=told.get)
        assert fitted.epoch[place] == best
        assert max(told) == min(60, best + 4)
        again = fitted.predict(held.z, held.n)[place] - held.value.numpy()
        assert np.sqrt(np.mean(again**2)) == pytest.approx(told[best], rel=1e-4)


def test_stopping_of_one_seed_does_not_change_another():
    plan = Schedule(epochs=40, batch=16, peak=5e-2, judge_every=1, patience=3, average=0.0)
    train, held = rows(0, 40), rows(1, 30)
    together = fit_seeds(SMALL, train, held, plan, seeds=range(4))
    ends = [max(h.epoch for h in together.history if h.seed == s) for s in range(4)]
    assert len(set(ends)) > 1
    longest = int(np.argmax(ends))
    alone = fit_seeds(SMALL, train, held, plan, seeds=(longest,))
    assert largest(together.weights[longest : longest + 1], alone.weights) < OTHER


class Stop(Exception):
    """Ends a fit from outside."""


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(tmp_path, at):
    plan = Schedule(epochs=8, batch=32, peak=1e-2, judge_every=1, patience=3, snapshots=(0, 2, 8), checkpoint_every=0)
    checkpoint = tmp_path / "fit.pt"

    def stop(done, total, line):
        if done == at:
            raise Stop

    with pytest.raises(Stop):
        fit_seeds(SMALL, rows(0), rows(1, 30), plan, seeds=(0, 1), checkpoint=checkpoint, progress=stop)
    assert checkpoint.is_file()
    resumed = fit_seeds(SMALL, rows(0), rows(1, 30), plan, seeds=(0, 1), checkpoint=checkpoint)
    whole = fit_seeds(SMALL, rows(0), rows(1, 30), plan, seeds=(0, 1))
    assert torch.equal(resumed.weights, whole.weights) and resumed.history == whole.history
    for epoch in (0, 2, 8):
        assert torch.equal(resumed.snapshots[epoch]["n"], whole.snapshots[epoch]["n"])


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    checkpoint = tmp_path / "fit.pt"
    plan = Schedule(epochs=2, batch=32, checkpoint_every=0, judge_every=1)
    fit_seeds(SMALL, rows(0), None, plan, seeds=(0,), checkpoint=checkpoint)
    with pytest.raises(ModelError, match="remove the file"):
        fit_seeds(SMALL, rows(0), None, plan, seeds=(1,), checkpoint=checkpoint)


@pytest.mark.slow
def test_what_can_be_learnt_is_and_what_can_not_is_not():
    """Six fits of sixty epochs."""
    plan = Schedule(epochs=60, batch=32, peak=1e-2, judge_every=5)
    held = rows(1, 60)
    spread = float(held.value.std())
    learnt, noise = (fit_seeds(SMALL, t, held, plan, seeds=range(3)) for t in (rows(0), rows(0, shuffled=True)))
    errors = [
        np.sqrt(np.square(f.predict(held.z, held.n) - held.value.numpy()).mean(1)) / spread for f in (learnt, noise)
    ]
    assert errors[0].max() < 0.5 < 0.8 < errors[1].min()


def test_a_number_without_weight_is_not_learnt():
    train = rows(0)
    wrong = train.value.clone()
    wrong[::2] = 50.0
    weight = torch.ones(len(train))
    weight[::2] = 1e-12
    plan = Schedule(epochs=40, batch=32, peak=1e-2, judge_every=40)
    fitted = fit_seeds(SMALL, Numbers(train.z, train.n, train.task, wrong, weight), None, plan, seeds=range(3))
    assert np.abs(fitted.predict(train.z, train.n)).max() < 10


def test_snapshots_begin_with_the_untrained_tables():
    plan = Schedule(epochs=4, batch=32, judge_every=2, snapshots=(0, 1, 4))
    fitted = fit_seeds(SMALL, rows(0), None, plan, seeds=(5, 6))
    assert sorted(fitted.snapshots) == [0, 1, 4]
    before = untrained(SMALL, (5, 6))
    assert largest(fitted.snapshots[0]["z"][1], before.module(1).z.weight) == EXACT
    assert largest(fitted.snapshots[4]["n"][0], fitted.module(0).n.weight) == EXACT
    assert largest(fitted.snapshots[1]["n"], fitted.snapshots[4]["n"]) > 0


def test_a_module_of_a_fit_predicts_what_the_fit_predicts(tmp_path):
    fitted = fit_seeds(SMALL, rows(0), None, PLAN, seeds=(5, 6))
    z, n, task = inputs()
    assert np.abs(fitted.module(1)(z, n, task).detach().numpy() - fitted.predict(z, n)[1]).max() < FLOAT32
    save_fitted(fitted, tmp_path / "f.safetensors", about={"mean": 2.0})
    loaded, about = load_fitted(tmp_path / "f.safetensors")
    assert torch.equal(loaded.weights, fitted.weights) and loaded.shape == SMALL and loaded.seeds == (5, 6)
    assert about == {"mean": 2.0}


@given(st.integers(1, 5000), st.integers(2, 20))
def test_log_spaced_epochs_rise_from_0_to_the_last(epochs, count):
    found = log_spaced(epochs, count)
    assert found[0] == 0 and found[-1] == epochs and list(found) == sorted(set(found)) and len(found) <= count + 1


def test_rows_of_a_table_are_standardised_and_weighted_by_their_uncertainty():
    table = theory_table(SEMF, max_z=20, max_n=24)
    found = tasks(table, ["binding", "sn"])
    divided = split(found, "nucleus", seed=0)
    scaling = standardise(found, divided.train)
    plain = numbers_of(found, divided.train, scaling)
    assert len(plain) == divided.train.sum() and set(plain.task.tolist()) == {0, 1}
    for task in (0, 1):
        own = plain.value[plain.task == task]
        assert abs(float(own.mean())) < FLOAT32 and float(own.std(correction=0)) == pytest.approx(1, abs=1e-4)
    uncertainty = np.where(np.arange(len(table)) % 2 == 0, 0.0, 0.3)[:, None] * np.ones((1, 2))
    known = type(found)(found.table, found.tasks, found.values, uncertainty, found.reasons)
    weighed = numbers_of(known, divided.train, scaling, floor=1.0)
    first = weighed.task == 0
    assert float(weighed.weight[first].mean()) == pytest.approx(1, abs=1e-5)
    # binding's scale is 0.1 MeV: 1 / 0.1^2 against 1 / (0.3^2 + 0.1^2) is 10 to 1
    assert float(weighed.weight[first].max() / weighed.weight[first].min()) == pytest.approx(10, rel=1e-4)
    absent = type(found)(found.table, found.tasks, found.values, np.full_like(uncertainty, np.nan), found.reasons)
    with pytest.raises(DataError, match="states none"):
        numbers_of(absent, divided.train, scaling, floor=1.0)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Shape(10, 10, mixing="concatt"), ConfigError, "Did you mean 'concat'"),
        (lambda: Shape(10, 0), ConfigError, "neutrons 0"),
        (lambda: Schedule(epochs=0), ConfigError, "0 epochs"),
        (lambda: fit_seeds(SMALL, rows(0), None, PLAN, seeds=(1, 1)), ConfigError, "each once"),
        (lambda: untrained(SMALL, (0,)).predict([12], [3]), ModelError, "Z = 12"),
        (lambda: untrained(SMALL, (0,)).predict([2], [-1]), ModelError, "N = -1"),
        (lambda: untrained(SMALL, (0,)).module(1), ModelError, "Regressor 1"),
        (lambda: load_fitted("nowhere.safetensors"), ModelError, "save_fitted"),
        (lambda: fit_modular_addition(2, seed=0), ConfigError, "at least 5"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(call, error, said):
    with pytest.raises(error, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("multiplications", "shares"), [(1e6, [(0, 2), (2, 5)]), (1e9, [(0, 5)])])
def test_threads_share_seeds_out_where_products_are_small(multiplications, shares):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with shared_out(multiplications) as each:
            found = each(lambda part: (part.start, part.stop, torch.get_num_threads()), 5)
            alone = each(lambda part: (part.start, part.stop), 1)
        assert [f[:2] for f in found] == shares and {f[2] for f in found} == {1 if len(shares) > 1 else 2}
        assert alone == [(0, 1)] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_seeds_learn_the_same_on_any_number_of_threads(threads):
    z, n, _ = inputs()
    rows = Numbers(z, n, torch.zeros_like(z), torch.sin(z / 3.0), torch.ones(len(z)))
    before = torch.get_num_threads()
    found = []
    for count in (1, threads):
        torch.set_num_threads(count)
        try:
            found.append(fit_seeds(SMALL, rows, rows, replace(PLAN, patience=2), seeds=range(5)))
        finally:
            torch.set_num_threads(before)
    assert largest(found[0].weights, found[1].weights) < FLOAT32 and found[0].epoch == found[1].epoch


def test_a_fit_that_diverges_says_so():
    bad = rows(0)
    infinite = Numbers(bad.z, bad.n, bad.task, bad.value * float("inf"), bad.weight)
    with pytest.raises(ModelError, match="diverged"):
        fit_seeds(SMALL, infinite, None, PLAN, seeds=(0,))


@pytest.mark.slow
def test_addition_modulo_a_prime_is_learnt_on_circles_that_were_not_there_before():
    """Three trainings of a few hundred full-batch steps."""
    for seed in range(3):
        found = fit_modular_addition(31, seed=seed, steps=600)
        planes = [fourier_planes(t, rng=np.random.default_rng(0), draws=199) for t in (found.after, found.before)]
        assert found.accuracy > 0.8 and planes[0].found and not planes[1].found
