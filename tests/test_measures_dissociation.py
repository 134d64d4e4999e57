"""Double dissociation: its closed form, what it must not call double, clusters, and random twins as the null."""

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.dissociation import Outcomes, dissociation_index, double_dissociation

N = 60
SKELETONS = np.arange(N) % 6


def rng(seed=0):
    return np.random.default_rng(seed)


def bits(seed, p, shape=N):
    return (rng(seed).random(shape) < p).astype(float)


def task(intact, own, other):
    return Outcomes(intact, own, other, [SKELETONS])


def test_the_closed_form_is_two_minus_both_chance_rates():
    chance_r, chance_q = 1 / 4, 1 / 8  # shared credit among 4 and 8 tied answers
    one = np.ones(N)
    r, q = task(one, one * chance_r, one), task(one, one * chance_q, one)
    found = double_dissociation(r, q, rng=rng(), null=np.zeros(200))
    assert found.index.estimate == pytest.approx(2 - chance_r - chance_q, abs=FLOAT64)
    assert (found.index.low, found.index.high) == pytest.approx([2 - chance_r - chance_q] * 2, abs=FLOAT64)
    assert found.both and found.p == 1 / 201 and found.null_sets == 200 and found.index.n == 6


def test_it_is_the_sum_of_its_two_sides_and_swapping_the_tasks_mirrors_it():
    r, q = task(bits(1, 0.9), bits(2, 0.3), bits(3, 0.8)), task(bits(4, 0.9), bits(5, 0.5), bits(6, 0.7))
    found, mirror = double_dissociation(r, q, rng=rng(7)), double_dissociation(q, r, rng=rng(7))
    assert found.index.estimate == pytest.approx(found.r_side.estimate + found.q_side.estimate, abs=FLOAT64)
    assert found.index.estimate == pytest.approx(mirror.index.estimate, abs=FLOAT64)
    assert found.r_side.estimate == pytest.approx(mirror.q_side.estimate, abs=FLOAT64)
    assert found.index.estimate == pytest.approx(float(dissociation_index(r, q)), abs=FLOAT64)
    by_hand = r.intact.mean() - r.without_own.mean() - (q.intact.mean() - q.without_other.mean())
    assert found.r_side.estimate == pytest.approx(by_hand, abs=FLOAT64)
    assert found.p is None and found.null is None
    swapped = dissociation_index(
        task(r.intact, r.without_other, r.without_own), task(q.intact, q.without_other, q.without_own)
    )
    assert swapped == pytest.approx(-found.index.estimate, abs=FLOAT64)


def test_a_single_dissociation_is_not_called_double():
    r = task(bits(1, 0.95), bits(2, 0.05), bits(3, 0.95))  # r's set breaks r only; q's set does nothing
    q = task(bits(4, 0.95), bits(5, 0.95), bits(6, 0.95))
    found = double_dissociation(r, q, rng=rng())
    assert found.index.low > 0.5 and found.r_side.low > 0.5 and not found.both


def test_a_shared_set_that_breaks_both_tasks_dissociates_nothing():
    r = task(bits(1, 0.95), bits(2, 0.1), bits(3, 0.1))
    q = task(bits(4, 0.95), bits(5, 0.1), bits(6, 0.1))
    found = double_dissociation(r, q, rng=rng())
    assert 0 in found.index and not found.both


def test_random_twins_are_the_null():
    r, q = (task(bits(s, 0.95), bits(s + 1, 0.9, (400, N)), bits(s + 2, 0.9, (400, N))) for s in (1, 4))
    null = dissociation_index(r, q)
    assert null.shape == (400,) and abs(null.mean()) < 3 * null.std() / 20 + 1e-9
    one = [Outcomes(t.intact, t.without_own[0], t.without_other[0], t.clusters) for t in (r, q)]
    assert float(dissociation_index(*one)) == pytest.approx(null[0], abs=FLOAT64)
    reached = (null >= null[0] - FLOAT64).sum()
    assert double_dissociation(*one, rng=rng(), null=null).p == pytest.approx((1 + reached) / 401)
    strong = task(bits(1, 0.95), bits(2, 0.2), bits(3, 0.9)), task(bits(4, 0.95), bits(5, 0.2), bits(6, 0.9))
    found = double_dissociation(*strong, rng=rng(), null=null)
    assert found.p == 1 / 401 and found.null[1] < found.index.low


def test_skeletons_shared_by_both_tasks_are_resampled_together():
    shift = rng(3).normal(size=6)[SKELETONS]  # each skeleton helps r's own drop and hurts q's by the same amount
    zero = np.zeros(N)
    r, q = task(shift, zero, zero + shift), task(-shift, zero, zero - shift)
    joint = double_dissociation(r, q, rng=rng(1))
    assert joint.index.high - joint.index.low < 1e-9 < joint.r_own.high - joint.r_own.low
    wide = double_dissociation(task(shift, zero, shift), task(shift, zero, shift), rng=rng(1))
    free = double_dissociation(
        *(Outcomes(shift, zero, shift) for _ in range(2)), rng=rng(1)
    )  # items taken as independent: too narrow
    assert wide.index.high - wide.index.low > 1.5 * (free.index.high - free.index.low) and free.index.n == 2 * N


def test_a_continuous_metric_scales():
    r = task(*(rng(s).normal(size=N) for s in (1, 2, 3)))
    q = task(*(rng(s).normal(size=N) for s in (4, 5, 6)))
    triple = [task(3 * t.intact, 3 * t.without_own, 3 * t.without_other) for t in (r, q)]
    a, b = double_dissociation(r, q, rng=rng(9)), double_dissociation(*triple, rng=rng(9))
    assert (b.index.low, b.index.high) == pytest.approx((3 * a.index.low, 3 * a.index.high), abs=FLOAT64)


@pytest.mark.parametrize(
    ("r", "q", "text"),
    [
        (Outcomes([1.0, 1], [1.0], [1.0]), Outcomes([1.0], [1.0], [1.0]), "do not fit 2 intact items"),
        (Outcomes([1.0], [1.0], [np.nan]), Outcomes([1.0], [1.0], [1.0]), "1 NaN"),
        (Outcomes([], [], []), Outcomes([1.0], [1.0], [1.0]), "Intact outcomes is empty"),
        (Outcomes([1.0], [[1.0]], [[1.0]]), Outcomes([1.0], [[1.0]], [[1.0]]), "use dissociation_index for many sets"),
        (Outcomes([1.0], [1.0], [1.0], [[0]]), Outcomes([1.0], [1.0], [1.0]), "cluster both the same way"),
        (Outcomes([1.0], [1.0], [1.0], [[0]]), Outcomes([1.0], [1.0], [1.0], [[0]]), "in 1 cluster"),
    ],
)
def test_refusals(r, q, text):
    with pytest.raises(MeasureError, match=text) as error:
        double_dissociation(r, q, rng=rng())
    assert "\n" not in str(error.value)


def test_every_resample_holds_items_of_both_tasks():
    one = Outcomes([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [[0, 1]])
    other = Outcomes([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [[2, 3]])
    found = double_dissociation(one, other, rng=np.random.default_rng(0), draws=500)
    assert (found.index.low, found.index.high) == (2.0, 2.0)  # a resample without a task would have no drop to average
