"""Sketches: bounds that always hold the exact area, tighten with bins, add over shards; two passes that are exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.protocols import Measure
from microtome.measures.expertise import auroc
from microtome.measures.sketch import AurocSketch, certify

seeds = st.integers(0, 2**31)


def world(seed, items=400, units=6):
    """Normal, rectified and coarse units; label 1 is shifted up in some."""
    rng = np.random.default_rng(seed)
    labels = rng.random(items) < 0.3
    x = rng.normal(size=(items, units)) + labels[:, None] * np.linspace(-1, 1, units)
    x[:, 1::3], x[:, 2::3] = np.maximum(x[:, 1::3], 0), x[:, 2::3].round()
    return x, labels


def sketched(sketch, x, labels):
    sketch.update(x, labels=labels)
    return sketch


@given(seeds, st.sampled_from([2, 5, 32, 256]), st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_bounds_hold_the_exact_area_whatever_the_calibration(seed, bins, calibrate):
    x, labels = world(seed)
    low, high = sketched(AurocSketch.calibrated(x[:calibrate], bins=bins), x, labels).finish()
    exact = auroc(x, labels)
    assert (low <= exact + FLOAT64).all() and (exact <= high + FLOAT64).all()


def test_bounds_tighten_with_bins_and_ties_of_one_value_are_exact():
    x, labels = world(0, items=2000)
    widths = []
    for bins in (4, 16, 64, 256):
        low, high = sketched(AurocSketch.calibrated(x[:500], bins=bins), x, labels).finish()
        widths.append(high - low)
    widths = np.array(widths)
    assert (widths[1:] < 0.6 * widths[:-1])[:, [0, 1, 3, 4]].all() and widths[-1].max() < 0.02
    assert widths[-1][[2, 5]].max() < 1e-3  # whole numbers: each has a bin of its own, but for the rarest
    zeros = sketched(AurocSketch.calibrated(np.zeros((9, 1)), bins=4), np.zeros((50, 1)), np.arange(50) % 2).finish()
    assert zeros.low[0] == zeros.high[0] == 0.5


@given(seeds, st.integers(1, 399))
@settings(max_examples=10, deadline=None)
def test_shards_add_up_to_the_whole(seed, cut):
    x, labels = world(seed)
    empty = AurocSketch.calibrated(x[:100], bins=16)
    whole = sketched(empty.empty(), x, labels).finish()
    first, second = (sketched(empty.empty(), x[part], labels[part]) for part in (slice(cut), slice(cut, None)))
    assert isinstance(first, Measure)
    for a, b in zip(second.merge(first).finish(), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_two_passes_answer_as_if_all_had_been_kept(dtype):
    x, labels = world(5, items=900, units=40)
    x, y = torch.tensor(x).to(dtype), torch.tensor(labels)
    passes = []

    def stream():
        passes.append(1)
        return zip(x.split(70), y.split(70), strict=True)

    exact = auroc(x, labels)
    found = certify(stream, threshold=0.5, top=5, bins=64, calibrate=300)
    assert len(passes) == 2 and 0 < found.exact.sum() < 25
    np.testing.assert_array_equal(found.bounds.low > 0.5, exact > 0.5)
    np.testing.assert_allclose(found.bounds.low[found.exact], exact[found.exact], atol=FLOAT64)
    strongest = np.argsort(-np.abs(exact - 0.5))[:5]
    assert found.exact[strongest].all()
    others = np.delete(np.arange(40), strongest)
    assert (found.bounds.strength.high[others] <= np.abs(exact - 0.5)[strongest].min() + FLOAT64).all()
    assert not certify(stream, bins=64).exact.any() and len(passes) == 3


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: AurocSketch.calibrated(np.zeros((3, 2)), bins=1), "1 bins bounds nothing"),
        (lambda: AurocSketch.calibrated([[np.nan]]), "1 NaN"),
        (lambda: AurocSketch.calibrated(np.zeros((3, 2))).update(np.zeros((3, 2)), labels=[0, 1]), "with 2 labels"),
        (lambda: AurocSketch.calibrated(np.zeros((3, 2))).update(np.full((1, 2), np.inf), labels=[0]), "infinite"),
        (lambda: sketched(AurocSketch.calibrated(np.zeros((3, 1))), np.ones((2, 1)), [1, 1]).finish(), "0 of class 0"),
        (lambda: AurocSketch.calibrated([[0.0]]).merge(AurocSketch.calibrated([[1.0]])), "other bins"),
        (lambda: certify(lambda: []), "gave no batch"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
