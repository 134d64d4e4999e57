"""The Fantope projection is exact, and the game finds a planted direction and leaves a probe at chance."""

from itertools import pairwise

import pytest
import torch

from close import EXACT, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.features.interchange import swap
from microtome.features.rlap import RLAPFitter, fantope, fantope_eigenvalues
from microtome.features.rotation import Rotation, random_axes

D, N = 8, 240


def oracle(values, k):
    """The projection by trying every interval between breakpoints: the sum is linear in the shift inside each."""
    ends = torch.cat([values, values - 1]).sort().values
    for low, high in pairwise(ends):
        a, b = ((values - end).clamp(0, 1).sum() for end in (low, high))
        if b <= k <= a:
            shift = low if a == b else low + (a - k) / (a - b) * (high - low)
            return (values - shift).clamp(0, 1)
    raise AssertionError("no interval")


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_projection_of_eigenvalues_is_exact(k):
    for seed in range(20):
        values = 2 * torch.randn(D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = fantope_eigenvalues(values, k)
        assert largest(found, oracle(values, k)) < FLOAT64
        assert largest(fantope_eigenvalues(found, k), found) < FLOAT64  # a point of the set stays
    assert fantope_eigenvalues(values, 0).sum() < FLOAT64
    assert largest(fantope_eigenvalues(values, D), torch.ones(D, dtype=torch.float64)) < FLOAT64


def test_the_projection_of_a_matrix_is_the_nearest_point():
    draw = torch.Generator().manual_seed(1)
    a = torch.randn(D, D, generator=draw, dtype=torch.float64)
    a = a + a.T
    p = fantope(a, 3)
    values = torch.linalg.eigvalsh(p)
    assert abs(p.trace().item() - 3) < FLOAT64 and values.min() > -FLOAT64 and values.max() < 1 + FLOAT64
    for seed in range(30):  # <a - p, z - p> <= 0 for every z of the set
        r = random_axes(D, 3, torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert ((a - p) * (r @ r.T - p)).sum() < FLOAT64
    assert ((a - 0.9 * p) * (p - 0.9 * p)).sum() > 0  # control: another point does not pass


def world(seed=0):
    """Two classes apart along one planted direction, unequal noise elsewhere."""
    draw = torch.Generator().manual_seed(seed)
    u = random_axes(D, 1, draw, dtype=torch.float64)[:, 0]
    y = torch.arange(N) % 2
    x = torch.randn(N, D, generator=draw, dtype=torch.float64)
    return x - torch.outer(x @ u, u) + torch.outer(3.0 * (2 * y - 1), u), y, u


def fitted(x, y, **knobs):
    fitter = RLAPFitter(classes=2, **{"k": 1, "steps": 300, "rate": 0.1, "batch": 32, **knobs})
    fitter.update(x[: N // 2], labels=y[: N // 2])
    fitter.update(x[N // 2 :], labels=y[N // 2 :])
    return fitter.finish()


def test_the_game_finds_the_planted_direction_and_swaps_the_label():
    x, y, u = world()
    basis = fitted(x, y)
    assert isinstance(basis, Rotation) and basis.n_features == 1
    assert abs(basis.axes[:, 0] @ u) > 0.99
    swapped = swap(x[y == 0], x[y == 1], basis)
    assert ((swapped @ u) > 0).double().mean() > 0.95
    other = Rotation(random_axes(D, 1, torch.Generator().manual_seed(5), dtype=torch.float64))
    assert ((swap(x[y == 0], x[y == 1], other) @ u) > 0).double().mean() < 0.3  # control: a random direction does not


def test_the_same_seed_gives_the_same_subspace():
    x, y, _ = world()
    assert largest(fitted(x, y, steps=20).axes, fitted(x, y, steps=20).axes) == EXACT


def test_rows_in_a_narrow_span_give_a_subspace_of_that_span():
    x, y, _ = world()
    wide = random_axes(20, D, torch.Generator().manual_seed(2), dtype=torch.float64)
    basis = fitted(x @ wide.T + 1, y, steps=40, k=2)
    assert basis.width == 20
    assert largest(wide @ wide.T @ basis.axes, basis.axes) < FLOAT64


def test_what_cannot_be_played_is_refused():
    x, y, _ = world()
    with pytest.raises(MeasureError, match="trace 9 was asked for in 8 dimensions"):
        fantope_eigenvalues(torch.zeros(8), 9)
    with pytest.raises(MeasureError, match="9 dimensions was asked for, found rows that span 8"):
        fitted(x, y, k=9)
    with pytest.raises(MeasureError, match="found 240 rows of 1 classes"):
        fitted(x, y * 0)
