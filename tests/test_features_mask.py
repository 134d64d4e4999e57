"""A mask is soft while fitted and hard when frozen; with no feature chosen it swaps nothing, wherever it started."""

import pytest
import torch

from close import EXACT, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.features.identity import Identity
from microtome.features.interchange import soft_swap, swap
from microtome.features.mask import Mask, SoftMask, annealed
from microtome.features.rotation import Rotation, random_axes

D = 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation():
    return Rotation(random_axes(D, D, torch.Generator().manual_seed(3), dtype=torch.float64))


@pytest.mark.parametrize("basis", [Identity(D), rotation()], ids=["identity", "rotation"])
def test_a_mask_left_where_it_started_chooses_nothing_and_swaps_nothing(basis):
    base, source = draw(4, D), draw(4, D, seed=1)
    frozen = SoftMask(D).freeze(basis)
    assert frozen.n_features == 0
    assert largest(swap(base, source, frozen), base) == EXACT
    opened = SoftMask(D, start=1e-3).freeze(basis)  # control: a mask a hair above 0 everywhere swaps everything
    assert largest(swap(base, source, opened), source) < FLOAT64


def test_swapping_a_mask_is_swapping_its_features():
    base, source = draw(4, D), draw(4, D, seed=1)
    assert largest(swap(base, source, Mask(rotation(), [4, 1, 4])), swap(base, source, rotation(), [1, 4])) < FLOAT64
    assert Mask(rotation(), [4, 1, 4]).chosen.tolist() == [1, 4]


def test_cold_gates_swap_what_the_frozen_mask_swaps():
    base, source, soft = draw(4, D), draw(4, D, seed=1), SoftMask(D)
    with torch.no_grad():
        soft.logits.copy_(torch.tensor([1.0, -1.0, 2.0, -0.5, 0.7, -3.0]))
    hard = swap(base, source, soft.freeze(rotation()))
    assert largest(soft_swap(base, source, rotation(), soft.gate(0.01).detach()), hard) < FLOAT64
    assert largest(soft_swap(base, source, rotation(), soft.gate(1.0).detach()), hard) > 0.1  # control: warm is between


def test_fitting_finds_the_coordinates_that_carry_the_answer():
    soft, planted = SoftMask(D), [1, 4]
    optimizer, steps = torch.optim.Adam(soft.parameters(), lr=0.1), 60
    base, source = draw(50, D), draw(50, D, seed=1)
    for step in range(steps):
        gate = soft.gate(annealed(step, steps))
        gap = (soft_swap(base, source, None, gate) - swap(base, source, None, planted)).square().mean()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    assert soft.freeze(Identity(D)).chosen.tolist() == planted


def test_the_temperature_falls_in_a_straight_line_and_is_no_parameter():
    assert annealed(0, 11) == 1.0
    assert abs(annealed(5, 11) - 0.505) < FLOAT64
    assert annealed(10, 11) == annealed(99, 11)
    assert abs(annealed(10, 11) - 0.01) < FLOAT64
    assert [n for n, _ in SoftMask(3).named_parameters()] == ["logits"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(MeasureError, match=r"features 2..6 was asked for, found 6 \(0-5\)"):
        Mask(Identity(D), [2, 6])
    with pytest.raises(MeasureError, match=r"A mask \[5\] was asked to freeze over 6"):
        SoftMask(5).freeze(Identity(D))
    with pytest.raises(MeasureError, match="temperature 0 was asked for"):
        SoftMask(5).gate(0)
