"""The replacement test: full rank is exact, each rung is what it says, and the order of scores is the known one."""

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.principal import principal
from microtome.measures.replacement import replacement_ladder, replacement_test, without_components

N = np.arange(20, 100)


def generator(seed=0):
    return np.random.default_rng(seed)


def helical(noise=0.02):
    """A helix on three axes of eight, and a linear readout that needs all of them."""
    s, turn = (N - N.mean()) / N.std(), 2 * np.pi * N / 16
    axes = np.linalg.qr(generator(1).normal(size=(8, 3)))[0].T
    x = np.stack([3 * s, 2 * np.cos(turn), 1.5 * np.sin(turn)], 1) @ axes
    return x + noise * generator(2).normal(size=x.shape) + 1


def rms_of(table, seed=3):
    weight = generator(seed).normal(size=(8, 4))
    return lambda t: float(np.sqrt(np.square((t - table) @ weight).mean()))


def scores(rows, metric="score"):
    return {r.name: r for r in rows if r.metric == metric}


def test_full_rank_is_the_model_to_the_bit():
    table = helical()
    ladder = replacement_ladder(table, N, rng=generator(), keep=(1, 2, 500))
    assert list(ladder)[:3] == ["keep 1", "keep 2", "keep 8"]
    np.testing.assert_array_equal(ladder["keep 8"][0], table)
    exact = scores(replacement_test(table, ladder, lambda t: float(np.square(t).sum())))
    assert exact["keep 8"].score == exact["model"].score and exact["keep 8"].recovered == 1


def test_keeping_components_is_projecting():
    table = helical()
    axes = principal(table)
    kept = without_components(table, axes, slice(3, None))
    np.testing.assert_allclose(kept, axes.restore(axes.scores(table)[:, :3]), atol=FLOAT64)
    np.testing.assert_allclose(axes.scores(kept)[:, 3:], 0, atol=FLOAT64)


def test_one_component_is_taken_out_alone():
    table = helical()
    axes = principal(table, along=N)
    ladder = replacement_ladder(table, N, rng=generator(), without=(2, 9))
    assert "without 9" not in ladder
    left = axes.scores(ladder["without 2"][0])
    np.testing.assert_allclose(left[:, 1], 0, atol=FLOAT64)
    np.testing.assert_allclose(np.delete(left, 1, 1), np.delete(axes.scores(table), 1, 1), atol=FLOAT64)


def test_the_order_of_scores():
    table = helical()
    ladder = replacement_ladder(table, N, rng=generator(), keep=(1, 2, 3), growth=False)
    found = scores(replacement_test(table, ladder, rms_of(table)))
    assert found["model"].score == 0 and found["model"].recovered == 1 and found["mean"].recovered == 0
    assert found["shuffle"].tables == 5 and found["shuffle"].recovered < 0
    assert found["shuffle"].low <= found["shuffle"].score <= found["shuffle"].high
    assert found["keep 1"].score > found["keep 2"].score > found["keep 3"].score > found["keep 8"].score
    helix, curve = found["helix on 3, drift 1"], found["polynomial on 3, degree 5"]
    assert helix.recovered > 0.97 > 0.9 > curve.recovered > 0
    assert helix.score >= found["keep 3"].score * 0.9


def test_shuffled_and_mean_rows_are_what_they_say():
    table = helical()
    ladder = replacement_ladder(table, N, rng=generator(), shuffles=2)
    for shuffled in ladder["shuffle"]:
        assert not np.array_equal(shuffled, table)
        np.testing.assert_array_equal(np.sort(shuffled, 0), np.sort(table, 0))
    np.testing.assert_allclose(ladder["mean"][0], np.tile(table.mean(0), (len(N), 1)), atol=FLOAT64)
    assert "shuffle" not in replacement_ladder(table, N, rng=generator(), shuffles=0)


def test_rows_that_were_not_trained_stay():
    table = helical()
    table[[0, 7]] = 99
    seen = np.ones(len(N), bool)
    seen[[0, 7]] = False
    for tables in replacement_ladder(table, N, rng=generator(), trained=seen).values():
        assert (tables[:, ~seen] == 99).all() and (tables[:, seen] < 50).all()


def test_several_metrics_and_a_score_that_rises():
    table = helical()
    ladder = replacement_ladder(table, N, rng=generator())
    rms = rms_of(table)
    rows = replacement_test(table, ladder, lambda t: {"train": rms(t), "accuracy": 1 / (1 + rms(t))})
    assert len(rows) == 2 * (1 + len(ladder))
    falling, rising = scores(rows, "train"), scores(rows, "accuracy")
    assert rising["mean"].recovered == 0 and rising["model"].recovered == 1
    assert falling["keep 3"].recovered > falling["keep 1"].recovered
    assert rising["keep 3"].recovered > rising["keep 1"].recovered


def test_the_scoring_function_cannot_change_the_table():
    table = helical()
    before = table.copy()

    def careless(t):
        t += 1
        return float(np.square(t).sum())

    replacement_test(table, replacement_ladder(table, N, rng=generator()), careless)
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x: replacement_ladder(x, N[:-1], rng=generator()), "first axis must hold 80"),
        (lambda x: replacement_ladder(x, N, rng=generator(), trained=np.arange(80)), "80 booleans"),
        (lambda x: replacement_test(x, {"keep 1": x[None]}, rms_of(x)), "A replacement 'mean'"),
        (lambda x: replacement_test(x, {"mean": x}, rms_of(x)), r"shape \[80, 8\]; give \[tables"),
        (lambda x: replacement_test(x, {"mean": x[None] * 0}, lambda t: 3.0), "does the scoring function put"),
        (lambda x: replacement_test(x, {"mean": x[None] * 0}, lambda t: float("nan")), "Score 'score' of 'model'"),
        (lambda x: replacement_test(x, {"mean": x[None] * 0}, lambda t: {"a": 1} if t.any() else {"b": 1}), "metrics"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call(helical())
    assert "\n" not in str(error.value)
