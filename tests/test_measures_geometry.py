"""Ordered embeddings: numbers by hand, planted order, parity and kinks, nulls that hold their level, Fourier planes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.fourier_planes import fourier_planes
from microtome.measures.geometry import kinks, order_geometry
from microtome.measures.principal import block_rows, in_order, principal


def generator(seed=0):
    return np.random.default_rng(seed)


def curve(seed=0, items=60, width=12, noise=0.05):
    """A bent line in a random direction of space, rows shuffled; the order each row stands for."""
    rng = generator(seed)
    n = np.arange(items) + 5
    s = (n - n.mean()) / n.std()
    axes = np.linalg.qr(rng.normal(size=(width, 2)))[0].T
    x = np.stack([3 * s, s**2], 1) @ axes + noise * rng.normal(size=(items, width))
    place = rng.permutation(items)
    return x[place], n[place]


def test_axes_are_those_of_sklearn_and_restore_the_rows():
    x, n = curve()
    axes, other = principal(x, along=n), PCA().fit(x)
    np.testing.assert_allclose(axes.explained, other.explained_variance_ratio_, atol=FLOAT64)
    np.testing.assert_allclose(np.abs(axes.components @ other.components_.T), np.eye(12), atol=1e-6)
    np.testing.assert_allclose(axes.restore(axes.scores(x)), x, atol=FLOAT64)
    assert ((n - n.mean()) @ axes.scores(x) >= 0).all()
    assert (principal(x).components[np.arange(12), np.abs(principal(x).components).argmax(1)] > 0).all()


def test_axes_without_variance_are_left_out():
    assert len(principal(np.outer(np.arange(5.0), [1, 2, 3])).components) == 1


def test_blocks_are_neighbours_on_a_circle():
    rows = block_rows(27, 400, generator())
    assert rows.shape == (400, 27) and set(rows.ravel()) == set(range(27))
    steps = (np.diff(rows, axis=1) % 27 == 1).mean(0)
    np.testing.assert_array_equal(np.flatnonzero(steps < 1), np.arange(2, 26, 3))


def test_numbers_of_a_planted_curve():
    x, n = curve()
    found = order_geometry(x, n, rng=generator())
    assert (found.order == np.arange(60) + 5).all()
    first = found.spearman[0]
    assert first.value.estimate == pytest.approx(spearmanr(found.scores[:, 0], found.order)[0], abs=FLOAT64)
    assert first.value.estimate > 0.99 and first.p == 1 / 1000 and first.value.low < first.value.estimate
    assert found.spearman[3].p > 0.01 and found.spearman[3].null < 0.35
    near = np.linalg.norm(np.diff(x[n.argsort()], axis=0), axis=1).mean()
    anyone = np.linalg.norm(x[:, None] - x, axis=-1).sum() / (60 * 59)
    assert found.neighbours.value.estimate == pytest.approx(near / anyone, abs=FLOAT64)
    assert found.neighbours.p == 1 / 1000 and 0.8 < found.neighbours.null < 1
    assert found.neighbours.value.low < near / anyone < found.neighbours.value.high
    shares = [t.value.estimate for t in found.explained]
    np.testing.assert_allclose(shares, found.principal.explained[:5], atol=FLOAT64)
    assert [t.p <= 0.05 for t in found.explained[:3]] == [True, True, False]


def test_a_cycle_closes():
    turn = 2 * np.pi * np.arange(12) / 12
    x = np.stack([np.cos(turn), np.sin(turn)], 1)
    closed = order_geometry(x, np.arange(12), rng=generator(), cyclic=True).neighbours
    chord = 2 * np.sin(np.pi * np.arange(1, 12) / 12)
    assert closed.value.estimate == pytest.approx(chord[0] / chord.mean(), abs=FLOAT64)
    cut = np.concatenate([x, 20 + x])
    far = [order_geometry(cut, np.arange(24), rng=generator(), cyclic=c).neighbours.value.estimate for c in (0, 1)]
    assert far[1] > far[0]


def test_parity_by_hand_and_where_there_is_none():
    n = np.arange(40)
    smooth, sign = (n - 19.5) / 10, np.where(n % 2 == 0, 1.0, -1.0)
    x = np.stack([5 * smooth, 0.7 * sign + 0 * smooth], 1)
    found = order_geometry(x, n, rng=generator()).parity
    assert found[1].value.estimate == pytest.approx(2.0, abs=0.01) and found[1].p == 1 / 1000
    assert found[0].value.estimate < 0.01
    assert order_geometry(x, n + 0.5, rng=generator()).parity == ()
    assert order_geometry(x, 2 * n, rng=generator()).parity == ()
    gaps = n != 7
    assert (
        order_geometry(x[gaps], n[gaps], rng=generator()).parity[1].value.n == 35
    )  # triples within 0 .. 6 and 8 .. 39


def test_the_parity_null_holds_its_level_on_a_noisy_smooth_curve():
    n = np.arange(60)
    p = []
    for seed in range(150):
        rng = generator(seed)
        x = np.stack([np.sin(n / 15), 1e-6 * rng.normal(size=60)], 1) + 0.1 * rng.normal(size=(60, 2))
        p += [t.p for t in order_geometry(x, n, rng=rng, components=2, draws=99, spectra=5).parity]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
    assert 0.42 <= np.mean(np.array(p) <= 0.5) <= 0.58


def test_nothing_is_ordered_in_noise():
    x = generator(3).normal(size=(50, 20))
    found = order_geometry(x, np.arange(50), rng=generator(4))
    assert min(t.p for t in found.spearman) > 0.02 and found.neighbours.p > 0.02
    assert found.neighbours.value.estimate == pytest.approx(1, abs=0.05)
    assert found.explained[0].p > 0.02


def test_kinks_at_marked_places_and_not_elsewhere():
    n = np.arange(10, 110)
    broken = np.stack([np.abs(n - 28) + np.abs(n - 50) + np.abs(n - 82.0), 0.1 * (-1.0) ** n], 1)
    found = kinks(broken, n, (28, 50, 82, 126), rng=generator())
    assert found.places.tolist() == [28, 50, 82] and found.p < 0.01 and found.mean > 5
    # slope -1 to +1, of |n| smoothed by (1, 2, 1) / 4: only its value at 0 rises, to 1/2; on 0 .. 4 that costs 1/10
    np.testing.assert_allclose(found.size, 2 * (1 - 0.1), atol=FLOAT64)
    assert (found.rank > 0.9).all()
    assert kinks(broken, n, (35, 65, 95), rng=generator()).p > 0.3


def test_an_even_odd_stagger_is_no_kink():
    n = np.arange(60)
    assert kinks(((-1.0) ** n)[:, None], n, (20,), rng=generator()).size[0] == pytest.approx(0, abs=FLOAT64)


def test_one_frequency_is_one_plane():
    turn = 2 * np.pi * 5 * np.arange(23) / 23
    axes = np.linalg.qr(generator().normal(size=(9, 2)))[0].T
    x = np.stack([2 * np.cos(turn), np.sin(turn)], 1) @ axes + 3
    found = fourier_planes(x, rng=generator())
    assert found.found == (5,) and found.share[4] == pytest.approx(1, abs=FLOAT64)
    assert found.roundness[4] == pytest.approx(0.5, abs=FLOAT64)
    np.testing.assert_allclose(np.square(found.plane(5)).sum(), np.square(x - x.mean(0)).sum(), rtol=FLOAT64)
    shuffled = generator(1).permutation(23)
    np.testing.assert_allclose(fourier_planes(x[shuffled], shuffled, rng=generator()).share, found.share, atol=FLOAT64)


def test_two_frequencies_share_the_power_and_even_cycles_have_a_last_one():
    turn = 2 * np.pi * np.arange(16)[:, None] / 16
    waves = [3 * np.cos(2 * turn), 3 * np.sin(2 * turn), np.cos(7 * turn), np.sin(7 * turn), np.cos(8 * turn)]
    found = fourier_planes(np.concatenate(waves, 1), rng=generator())
    np.testing.assert_allclose(found.share[[1, 6, 7]], np.array([9, 1, 1]) / 11, atol=FLOAT64)
    assert found.roundness[7] == pytest.approx(0, abs=FLOAT64) and found.found[0] == 2


def test_random_rows_turn_with_no_frequency():
    false = [fourier_planes(generator(s).normal(size=(31, 16)), rng=generator(s), draws=99).found for s in range(40)]
    assert sum(map(bool, false)) <= 6
    assert fourier_planes(generator().normal(size=(31, 16)), rng=generator()).chance < 0.2


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x, n: order_geometry(x[:3], n[:3], rng=generator()), "at least 4"),
        (lambda x, n: order_geometry(x, n[:-1], rng=generator()), "first axis must hold"),
        (lambda x, n: order_geometry(np.where(x > 3, np.nan, x), n, rng=generator()), "NaN"),
        (lambda x, n: order_geometry(x * 0, n, rng=generator()), "do not vary"),
        (lambda x, n: in_order(x, np.minimum(n, 60)), "Order 60 stands for more than one"),
        (lambda x, n: kinks(x, n, (2, 300), rng=generator()), "give places within the order"),
        (lambda x, n: fourier_planes(x, n * 2, rng=generator()), "elements are missing"),
        (lambda x, n: fourier_planes(x, rng=generator(), draws=9).plane(31), "Frequency 31 of 30"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call(*curve())
    assert "\n" not in str(error.value)


@pytest.mark.slow  # loads a model
def test_the_example_runs_on_a_model_of_the_zoo():
    script = Path(__file__).parents[1] / "examples" / "ordered_embeddings.py"
    done = subprocess.run([sys.executable, script, "zoo:atlas"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "days: 7 words" in done.stdout and "Fourier plane" in done.stdout and "numbers: 100 words" in done.stdout
