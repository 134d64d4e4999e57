"""R'R = I at every step of every way to fit R; they begin where they are told and only the path differs."""

import pytest
import torch
from torch.nn.utils.parametrizations import orthogonal

from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import ConfigError, MeasureError
from microtome.features.interchange import swap_subspace
from microtome.features.orthogonal import Gram, parametrise
from microtome.features.rotation import Rotation, random_axes

D, K = 9, 4
KINDS = ("gram", "qr", "householder")


def start(seed=0, dtype=torch.float64, lead=()):
    return random_axes(D, K, torch.Generator().manual_seed(seed), lead=lead, dtype=dtype)


def off(r):
    """How far the columns are from orthonormal."""
    gram = r.detach().mT @ r.detach()
    return largest(gram, torch.eye(r.shape[-1], dtype=r.dtype).expand_as(gram))


def target(r, dtype=torch.float64):
    """Squared distance of a swap in R from a swap in a planted subspace."""
    draw = torch.Generator().manual_seed(7)
    base, source = (torch.randn(40, D, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    truth = swap_subspace(base, source, start(seed=3, dtype=dtype))
    return (torch.stack([swap_subspace(base, source, one) for one in r.reshape(-1, D, K)]) - truth).square().mean()


def fit(module, steps, rate=0.05, look=lambda r: None, dtype=torch.float64):
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = target(module(), dtype)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        module.retract()
        look(module())
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.05, 1.0])  # 1.0: steps so large that W becomes lopsided
def test_orthonormal_after_every_step(kind, rate):
    worst = []
    fit(parametrise(kind, start()), 60, rate, look=lambda r: worst.append(off(r)))
    assert max(worst) < FLOAT64 / 10


@pytest.mark.parametrize("kind", KINDS)
def test_orthonormal_after_every_step_in_single_precision(kind):
    worst = []
    fit(parametrise(kind, start(dtype=torch.float32)), 30, look=lambda r: worst.append(off(r)), dtype=torch.float32)
    assert max(worst) < FLOAT32


def test_without_a_retraction_the_plain_parameter_leaves_the_manifold():
    weight = start().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.05)
    target(weight).backward()
    optimizer.step()
    assert off(weight) > 1e-2  # the control: an optimiser alone does not keep R orthonormal


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_where_it_is_told_and_finds_a_planted_subspace(kind):
    module = parametrise(kind, start())
    assert largest(module().detach(), start()) < FLOAT64
    losses = fit(module, 100)
    assert losses[-1] < 0.05 * losses[0]
    found = module.freeze()
    assert isinstance(found, Rotation) and not found.axes.requires_grad
    assert largest(found.axes, module().detach()) == EXACT


def test_gram_spans_what_its_weight_spans_and_retracting_moves_nothing():
    weight = torch.randn(D, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[:, 0] *= 50
    module = Gram(weight)
    r = module().detach()
    assert off(r) < FLOAT64
    assert largest(r @ r.T @ weight, weight) < FLOAT64 * 100
    module.retract()
    assert largest(module().detach(), r) < FLOAT64
    assert largest(module.weight.detach(), r) < FLOAT64  # a lopsided weight was put back to R
    even = Gram(start() * 2)
    even.retract()
    assert largest(even.weight.detach(), start() * 2) == EXACT  # control: an even one is left alone


def test_householder_is_torchs_own_parametrisation_step_by_step():
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(start().clone())
    orthogonal(layer, "weight")
    ours, optimizer = parametrise("householder", start()), torch.optim.Adam(layer.parameters(), lr=0.05)
    layer.load_state_dict(ours.state_dict())  # torch completes the basis at random; take the same completion
    losses = fit(ours, 10)
    for expected in losses:
        loss = target(layer.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert abs(loss.item() - expected) < FLOAT64


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_fits_is_the_fits_one_by_one(kind):
    stack = torch.stack([start(seed=s) for s in (0, 1)])
    together, alone = parametrise(kind, stack), [parametrise(kind, s) for s in stack]
    for module in (together, *alone):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            (target(module()) * (len(stack) if module is together else 1)).backward()
            optimizer.step()
            module.retract()
    for i, module in enumerate(alone):
        assert largest(together()[i].detach(), module().detach()) < FLOAT64
    with pytest.raises(MeasureError, match=r"found a stack \[2, 9, 4\]"):
        together.freeze()


def test_random_axes_are_orthonormal_seeded_and_stackable():
    assert off(start(lead=(3,))) < FLOAT64
    assert largest(start(seed=1), start(seed=1)) == EXACT
    assert largest(start(seed=1), start(seed=2)) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_start_gives_the_same_fit_and_leaves_torchs_generator_alone(kind):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit(parametrise(kind, start()), 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert fit(parametrise(kind, start()), 3) == first


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"Parametrisation 'grams' was asked for.*Did you mean 'gram'"):
        parametrise("grams", start())
