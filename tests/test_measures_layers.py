"""Layer experts: clusters against sklearn and a drawn null; readouts held out, with length and words for controls."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.clusters import cluster_expert
from microtome.measures.leace_rank import leace_rank
from microtome.measures.readouts import halves, length_readout, readouts, words_readout


def layer(seed, items=240, width=10, shift=2.5):
    """Features whose first three dimensions carry the label."""
    rng = np.random.default_rng(seed)
    labels = rng.random(items) < 0.4
    x = rng.normal(size=(items, width))
    x[:, :3] += shift * labels[:, None]
    return x, labels


def test_clusters_scored_as_sklearn_scores_a_prediction():
    x, labels = layer(0)
    found = cluster_expert(x, labels, seed=0)
    from sklearn.cluster import KMeans

    predicted = KMeans(2, n_init=10, random_state=0).fit_predict(x).astype(bool)
    predicted = predicted if (predicted == labels).mean() > 0.5 else ~predicted
    assert found.auroc == pytest.approx(roc_auc_score(labels, predicted), abs=FLOAT64) and found.auroc > 0.9
    assert found.average_precision == pytest.approx(average_precision_score(labels, predicted), abs=FLOAT64)
    assert found.precision == pytest.approx(precision_score(labels, predicted), abs=FLOAT64)
    assert found.recall == pytest.approx(recall_score(labels, predicted), abs=FLOAT64)
    assert found.f1 == pytest.approx(f1_score(labels, predicted), abs=FLOAT64)
    assert found.f1_macro == pytest.approx(f1_score(labels, predicted, average="macro"), abs=FLOAT64)
    assert sum(found.sizes) == len(x) and found.p < 1e-9


def test_chance_of_clusters_is_above_a_half_and_exact():
    x, _ = layer(1, items=40)
    labels = np.arange(40) < 15
    rng = np.random.default_rng(0)
    drawn = [cluster_expert(x, rng.permutation(labels), seed=0, silhouette_items=3) for _ in range(60)]
    assert min(d.auroc for d in drawn) >= 0.5 and drawn[0].chance > 0.54
    named = np.zeros(40, bool)
    named[: drawn[0].sizes[1]] = True
    shuffles = [rng.permutation(labels) for _ in range(4000)]
    balanced = np.array([(named[y].mean() + (~named)[~y].mean()) / 2 for y in shuffles])
    better = np.maximum(balanced, 1 - balanced)
    assert drawn[0].chance == pytest.approx(better.mean(), abs=4 * better.std() / np.sqrt(4000))
    expected = (better >= drawn[0].auroc - FLOAT64).mean()
    assert drawn[0].p == pytest.approx(expected, abs=0.04)


def test_silhouette_knows_no_labels():
    x, labels = layer(2)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert cluster_expert(x, labels, seed=0).silhouette == cluster_expert(x, shuffled, seed=0).silhouette
    apart = np.concatenate([np.zeros((20, 2)), np.full((20, 2), 9.0)]) + 0.1 * np.random.default_rng(0).normal(
        size=(40, 2)
    )
    assert cluster_expert(apart, np.arange(40) % 2, seed=0).silhouette > 0.95
    outlier = np.concatenate([np.zeros((50, 2)) + np.arange(50)[:, None] / 1e3, [[99.0, 99.0]]])
    assert cluster_expert(outlier, np.arange(51) % 2, seed=0, silhouette_items=10).sizes in ((50, 1), (1, 50))


def test_readouts_read_what_is_there_and_nothing_else():
    x, labels = layer(3, items=400, shift=1.0)
    split = halves(labels, seed=0)
    found = readouts(x, labels, split)
    assert set(found) == {"probe", "mass mean", "leace", "neuron"}
    assert all(i.estimate > 0.65 and i.n == len(split.score) for i in found.values())
    assert found["probe"].low > found["neuron"].estimate
    noise = readouts(np.random.default_rng(0).normal(size=(400, 30)), labels, split)
    assert all(0.5 in interval for interval in noise.values())


def test_what_is_only_length_goes_with_length():
    rng = np.random.default_rng(0)
    _, labels = layer(4, items=400)
    lengths = rng.poisson(10 + 6 * labels)
    x = np.stack([lengths, np.log1p(lengths), -lengths], 1) @ rng.normal(size=(3, 8)) + 0.5 * rng.normal(size=(400, 8))
    split = halves(labels, seed=1)
    plain, without = readouts(x, labels, split), readouts(x, labels, split, lengths=lengths)
    alone = length_readout(lengths, labels, split)
    assert alone.low > 0.8 and plain["probe"].estimate > 0.8
    assert all(abs(i.estimate - 0.5) < 0.1 for i in without.values())
    assert length_readout(-lengths, labels, split).estimate == pytest.approx(alone.estimate, abs=FLOAT64)


@pytest.mark.parametrize("characters", [False, True])
def test_words_alone(characters):
    _, labels = layer(5, items=200)
    rng = np.random.default_rng(0)
    toxic = labels ^ (rng.random(200) < 0.1)
    texts = [f"{'zax' if t else 'mip'} {'abc'[i % 3]} x{i % 7}" for i, t in enumerate(toxic)]
    split = halves(labels, seed=0)
    assert words_readout(texts, labels, split, characters=characters).low > 0.75
    shuffled = [texts[i] for i in rng.permutation(200)]
    assert 0.5 in words_readout(shuffled, labels, split, characters=characters)


def test_halves_part_items_evenly_and_groups_never():
    _, labels = layer(6)
    fit, score = halves(labels, seed=0)
    assert sorted([*fit, *score]) == list(range(240)) and abs(int(labels[fit].sum()) - int(labels[score].sum())) <= 1
    assert not np.array_equal(fit, halves(labels, seed=1).fit)
    groups = np.arange(240) // 4
    fit, score = halves(labels, seed=0, groups=groups)
    assert not set(groups[fit]) & set(groups[score])


def test_leace_rank_counts_the_kinds_that_features_carry():
    rng = np.random.default_rng(0)
    kinds = np.eye(4)[rng.integers(0, 4, 300)]
    noise = rng.normal(size=(300, 12))
    assert leace_rank(noise, kinds, rng=rng).rank == 0
    directions = rng.normal(size=(2, 12))
    assert leace_rank(noise + 2 * kinds[:, :2] @ directions, kinds, rng=rng).rank == 2
    found = leace_rank(noise + 2 * kinds[:, :1] @ directions[:1], kinds[:, 0], rng=rng)
    assert found.rank == 1 and found.correlations.shape == (1,) and found.chance < found.correlations[0] <= 1


SPLIT = halves(np.arange(20) % 2, seed=0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cluster_expert(np.zeros((4, 2)), [0, 1, 0, 1], seed=0), "do not fall into two clusters"),
        (lambda: cluster_expert(np.eye(4), [1, 1, 1, 1], seed=0), "All 4 labels are 1"),
        (lambda: cluster_expert([[np.nan], [0.0], [1.0]], [0, 1, 0], seed=0), "1 NaN"),
        (lambda: halves([0, 0, 0, 0, 0, 0, 1, 1], seed=0), "at least three of each class"),
        (lambda: readouts(np.zeros((20, 2)), np.arange(20) % 2, SPLIT, names=["prob"]), "No readout 'prob'"),
        (lambda: readouts(np.zeros((20, 2)), np.arange(20) % 2, SPLIT, lengths=[1]), "must hold 20 items"),
        (lambda: words_readout([""] * 20, np.arange(20) % 2, SPLIT), "found no word"),
        (lambda: leace_rank(np.eye(3), [1, 1, 1], rng=np.random.default_rng(0)), "not all equal"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
