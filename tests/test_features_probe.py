"""Probes are optimal by independent implementations, and a swap in a probe's basis moves exactly what it reads."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC

from close import FLOAT64, OTHER, largest
from microtome.core.errors import MeasureError
from microtome.features.interchange import swap
from microtome.features.logistic import LogisticFitter
from microtome.features.mask import Mask
from microtome.features.moments import ClassMoments
from microtome.features.pca import PCAFitter
from microtome.features.probe import ProbeFitter, lda, mean_difference, ridge
from microtome.features.selection import l1_probe, select_by_probe

D, C, N = 6, 3, 90


def data(seed=0, classes=C):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(N) % classes
    middles = torch.randn(classes, D, generator=draw, dtype=torch.float64)
    mix = torch.randn(D, D, generator=draw, dtype=torch.float64)
    return middles[y] + torch.randn(N, D, generator=draw, dtype=torch.float64) @ mix * 0.4 + 2, y


def fitters():
    rules = (mean_difference, lda, partial(lda, shrinkage=0.3), partial(ridge, strength=5.0))
    return [*(ProbeFitter(C, rule) for rule in rules), LogisticFitter(C, strength=0.01)]


def fitted(fitter, x, y):
    fitter.update(x, labels=y)
    return fitter.finish()


def centred(logits):
    return logits - logits.mean(-1, keepdim=True)


@pytest.mark.parametrize("which", range(5))
def test_a_swap_in_a_probes_basis_gives_it_the_sources_reading_and_nothing_else(which):
    x, y = data()
    probe = fitted(fitters()[which], x, y)
    base, source = x[:10], x[20:30]
    swapped = swap(base, source, probe)
    assert probe.n_features == C - 1
    assert largest(centred(probe.logits(swapped)), centred(probe.logits(source))) < FLOAT64
    assert largest(centred(probe.logits(base)), centred(probe.logits(source))) > 0.1
    change = swapped - base
    assert largest(change @ probe.axes @ probe.axes.T, change) < FLOAT64
    assert (probe.logits(x).argmax(1) == y).double().mean() > 0.7


def test_moments_in_pieces_are_moments_at_once_and_as_defined():
    x, y = data()
    whole, parts = ClassMoments(C), ClassMoments(C)
    whole.update(x, y)
    for rows in (slice(0, 7), slice(7, 8), slice(8, 60), slice(60, N)):  # one row has one class only
        shard = ClassMoments(C)
        shard.update(x[rows], y[rows])
        parts.merge(shard)
    for name in ("counts", "means", "within", "between"):
        assert largest(getattr(parts, name), getattr(whole, name)) < FLOAT64 * 10
    total = (x - x.mean(0)).T @ (x - x.mean(0))
    assert largest(whole.within + whole.between, total) < FLOAT64 * 10
    assert largest(whole.mean, x.mean(0)) < FLOAT64


def test_mean_difference_says_the_nearest_mean_and_for_two_classes_points_along_the_difference():
    x, y = data()
    probe = fitted(ProbeFitter(C, mean_difference), x, y)
    assert (probe.logits(x).argmax(1).numpy() == NearestCentroid().fit(x.numpy(), y.numpy()).predict(x.numpy())).all()
    x, y = data(classes=2)
    direction = fitted(ProbeFitter(2, mean_difference), x, y).axes[:, 0]
    apart = x[y == 1].mean(0) - x[y == 0].mean(0)
    assert abs(direction @ apart / apart.norm()).item() > 1 - FLOAT64


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_lda_agrees_with_another_implementation(shrinkage):
    x, y = data()
    probe = fitted(ProbeFitter(C, partial(lda, shrinkage=shrinkage)), x, y)
    assert (probe.logits(x).argmax(1) == y).double().mean() > 0.7
    if shrinkage == 0:
        # sklearn divides the scatter by n, we by n - classes: rescale its discriminant, leave the priors
        other = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), y.numpy())
        scores = torch.from_numpy(other.decision_function(x.numpy())) - np.log(1 / C)
        ours = probe.logits(x) - np.log(1 / C)
        assert largest(centred(ours), centred(scores) * (N - C) / N) < OTHER


def test_ridge_agrees_with_another_implementation():
    x, y = data()
    probe = fitted(ProbeFitter(C, partial(ridge, strength=5.0)), x, y)
    other = Ridge(alpha=5.0).fit(x.numpy(), torch.nn.functional.one_hot(y).double().numpy())
    assert largest(probe.logits(x), torch.from_numpy(other.predict(x.numpy()))) < FLOAT64


def test_logistic_agrees_with_another_implementation():
    x, y = data()
    probe = fitted(LogisticFitter(C, strength=0.01), x, y)
    other = LogisticRegression(C=1 / (N * 0.01), tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    assert largest(probe.weight, torch.from_numpy(other.coef_.T)) < OTHER
    assert largest(centred(probe.logits(x)), centred(torch.from_numpy(other.decision_function(x.numpy())))) < OTHER


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weight", [0.002, 0.02, 0.5])
def test_the_l1_probe_is_optimal_and_another_implementation_chooses_the_same(classes, weight):
    x, y = data(classes=classes)
    w, b = l1_probe(x, y, classes, C=weight, steps=20000)
    sign = (2 * torch.nn.functional.one_hot(y, classes).double() - 1)[:, (1 if classes == 2 else 0) :]
    slope = 2 * weight * x.T @ (sign * (1 - sign * (x @ w + b)).clamp(min=0))
    on = w != 0
    assert (slope[on] - w[on].sign()).abs().max() < OTHER if on.any() else True  # optimality on the support
    assert slope.abs().max() < 1 + OTHER  # and off it
    other = LinearSVC(penalty="l1", dual=False, C=weight, tol=1e-6, max_iter=2000000, intercept_scaling=100.0)
    other.fit(x.numpy(), y.numpy())  # it penalises the intercept, ever less as that is scaled up
    assert (torch.from_numpy(np.abs(other.coef_.T) > 1e-5) == on).all()


def test_a_sparse_probe_chooses_the_components_that_carry_the_label_and_fewer_as_it_is_starved():
    draw = torch.Generator().manual_seed(4)
    x, y = torch.randn(200, D, generator=draw, dtype=torch.float64), torch.arange(200) % 2
    x = x * torch.tensor([16.0, 11.0, 7.0, 3.0, 2.0, 1.0])
    x[:, 3] += 8 * (y - 0.5)
    fitter = PCAFitter()
    fitter.update(x)
    f = fitter.finish().encode(x)
    rich, poor, none = (select_by_probe(f, y, 2, C=c) for c in (10.0, 0.001, 1e-6))
    assert len(rich) >= len(poor) >= 1 and len(none) == 0
    found = Mask(fitter.finish(), poor)
    moved = swap(x[y == 0], x[y == 1], found) - x[y == 0]
    assert moved[:, 3].abs().mean() > 3 * moved[:, [0, 1, 2, 4, 5]].abs().mean()
    assert largest(swap(x[y == 0], x[y == 1], Mask(fitter.finish(), none)), x[y == 0]) == 0


def test_what_cannot_be_fitted_is_refused():
    x, y = data()
    with pytest.raises(MeasureError, match=r"3 classes was asked for, found labels 0\.\.3"):
        fitted(ProbeFitter(C, lda), x, y + (y == 2))
    with pytest.raises(MeasureError, match="90 rows, found 10 labels"):
        fitted(ProbeFitter(C, lda), x, y[:10])
    with pytest.raises(MeasureError, match=r"none of classes \[3\]"):
        fitted(ProbeFitter(4, lda), x, y)
    with pytest.raises(MeasureError, match=r"singular covariance within classes; give a shrinkage above 0\.0"):
        fitted(ProbeFitter(C, lda), x[:6], y[:6])
    with pytest.raises(MeasureError, match="values are not finite"):
        fitted(LogisticFitter(C), x / 0, y)
    with pytest.raises(MeasureError, match="found 0 rows of 0 classes"):
        LogisticFitter(C).finish()
    with pytest.raises(MeasureError, match="strength 0 was asked for"):
        fitted(LogisticFitter(C, strength=0), x, y)
    with pytest.raises(MeasureError, match="C = 0 was asked for"):
        select_by_probe(x, y, C, C=0)
    with pytest.raises(MeasureError, match="tells no class from another"):
        fitted(ProbeFitter(2, mean_difference), torch.ones(4, D), torch.tensor([0, 1, 0, 1]))
