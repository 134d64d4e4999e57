"""A helix through an ordered embedding: one period for all components, found by variable projection.

    x_k(n) = drift_k(s) + (c_k + d_k s) cos(w n) + (f_k + g_k s) sin(w n) + (alpha_k + beta_k s) (-1)^n

with s = (n - mean) / std, drift a polynomial of s, growth (d, g) and the parity term optional. Given w all else is
linear, so least squares run inside and only w is searched (Golub & Pereyra 1973): first on a grid of frequencies so
fine that none is skipped - neighbours differ by at most 1/8 turn over the whole range - and then by
`scipy.optimize.least_squares` from the best local optima. arXiv 2405.17425 shows a helix without its formula; this is
section 6.2 of our specification.

A curve that bends is fitted well by almost anything, so three nulls stand beside R2: the same fit of shuffled rows, a
polynomial with no fewer parameters, and rows held out in between. With growth, s cos and s sin can imitate a slightly
other w, which loosens the period; its interval shows how much. The components of a smooth random path are sinusoids of
half a turn, one turn, ... over its whole length (arXiv 1806.08805), so no more than two turns are no helix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.intervals import Interval
from microtome.measures.principal import in_order
from microtome.measures.variable_projection import (
    FrequencySearch,
    default_periods,
    fixed_terms,
    frequency_search,
    turning_terms,
)

__all__ = ["Helix", "HelixEvidence", "Polynomial", "fit_helix", "fit_polynomial", "helix_evidence"]

LEAST_GAIN = 0.03


@dataclass(frozen=True, eq=False)
class Polynomial:
    """A polynomial of the order, for each component, with an optional parity term.

    Args:
        degree: of the polynomial.
        parity: whether (alpha + beta s) (-1)^n is in it.
        centre: of s = (n - centre) / spread.
        spread: of the same.
        coefficients: [terms, k].
    """

    degree: int
    parity: bool
    centre: float
    spread: float
    coefficients: np.ndarray

    def __call__(self, order: Any) -> np.ndarray:
        """Return the curve at some numbers [items], [items, k]."""
        n = np.asarray(order, float)
        return fixed_terms(n, (n - self.centre) / self.spread, self.degree, self.parity) @ self.coefficients


@dataclass(frozen=True, eq=False)
class Helix:
    """A fitted helix.

    Args:
        period: in units of the order.
        drift: degree of the polynomial the axis follows.
        growth: whether the radius may change along it.
        parity: whether an even-odd term is in it.
        centre: of s = (n - centre) / spread.
        spread: of the same.
        coefficients: [terms, k]: drift, parity, then cos, sin and, with growth, s cos, s sin.
    """

    period: float
    drift: int
    growth: bool
    parity: bool
    centre: float
    spread: float
    coefficients: np.ndarray

    def __call__(self, order: Any) -> np.ndarray:
        """Return the curve at some numbers [items], [items, k]."""
        n = np.asarray(order, float)
        s = (n - self.centre) / self.spread
        turning = turning_terms(n, s, np.array([2 * np.pi / self.period]), self.growth)[0]
        return np.concatenate([fixed_terms(n, s, self.drift, self.parity), turning], 1) @ self.coefficients

    @property
    def radius(self) -> np.ndarray:
        """Amplitude of the rotation in each component at the middle of the order, sqrt(c^2 + f^2), [k]."""
        return np.hypot(*self._rotation[:2])

    @property
    def growth_rate(self) -> np.ndarray:
        """Change of each component's amplitude per standard deviation of the order at its middle, [k]."""
        c, f, *rest = self._rotation
        if not self.growth:
            return np.zeros_like(c)
        return np.divide(c * rest[0] + f * rest[1], self.radius, out=np.zeros_like(c), where=self.radius > 0)

    @property
    def pitch(self) -> float:
        """Length that the axis advances in one period, at the middle of the order: |b| period / spread."""
        return float(np.linalg.norm(self.coefficients[1]) * self.period / self.spread)

    @property
    def _rotation(self) -> np.ndarray:
        return self.coefficients[self.drift + 1 + 2 * self.parity :]


@dataclass(frozen=True, eq=False)
class HelixEvidence:
    """A helix beside everything that could look like one.

    Args:
        helix: the fit.
        r2: of all components together.
        r2_each: of each component, [k].
        polynomial: R2 of a polynomial with at least as many parameters.
        degree: of that polynomial.
        held_out: R2 of rows held out in between (every second one; with parity, every second pair).
        held_out_polynomial: the same of the polynomial.
        null: R2 of shuffled rows, [draws].
        p: share of them that reach the helix, both on the grid of frequencies.
        period: with the interval of a jackknife over blocks of rows.
        turns: of the helix over the range of the order.
        supported: gain over the polynomial above 0.03, and above 0 where held out; more than two turns; p at most 0.05.
        verdict: the same in words.
    """

    helix: Helix
    r2: float
    r2_each: np.ndarray
    polynomial: float
    degree: int
    held_out: float
    held_out_polynomial: float
    null: np.ndarray
    p: float
    period: Interval
    turns: float
    supported: bool
    verdict: str


def fit_polynomial(scores: Any, order: Any, *, degree: int, parity: bool = False) -> Polynomial:
    """Return the least-squares polynomial through ordered rows.

    Args:
        scores: [items, k].
        order: the number each row stands for, [items], all different.
        degree: of the polynomial.
        parity: add (alpha + beta s) (-1)^n.

    Raises:
        MeasureError: shapes that do not fit, missing values, parity of fractions, or more terms than rows allow.
    """
    x, n, s = _prepared(scores, order, degree + 1, parity)
    coefficients = np.linalg.lstsq(fixed_terms(n, s, degree, parity), x, rcond=None)[0]
    return Polynomial(degree, parity, float(n.mean()), float(n.std()), coefficients)


def fit_helix(
    scores: Any,
    order: Any,
    *,
    drift: int = 1,
    growth: bool = True,
    parity: bool = False,
    periods: tuple[float, float] | None = None,
) -> Helix:
    """Return the least-squares helix through ordered rows.

    Args:
        scores: [items, k], such as those of the first three components.
        order: the number each row stands for, [items], all different.
        drift: degree of the polynomial that the axis follows (1, 3, 5).
        growth: let the radius change linearly along the helix.
        parity: add (alpha + beta s) (-1)^n.
        periods: shortest and longest considered; None: 4 typical steps to 2.5 times the range.

    Raises:
        MeasureError: shapes that do not fit, missing values, parity of fractions, periods out of order, or more terms
            than rows allow.

    Example:
        >>> n = np.arange(100)
        >>> x = np.stack([n / 50, np.cos(n / 4), np.sin(n / 4)], 1)
        >>> round(fit_helix(x, n).period, 3)
        25.133
    """
    x, n, s = _prepared(scores, order, drift + 3 + 2 * growth, parity)
    best = frequency_search(n, s, drift=drift, growth=growth, parity=parity, periods=periods).best(x)
    design = np.concatenate([fixed_terms(n, s, drift, parity), turning_terms(n, s, np.array([best]), growth)[0]], 1)
    coefficients = np.linalg.lstsq(design, x, rcond=None)[0]
    return Helix(2 * np.pi / best, drift, growth, parity, float(n.mean()), float(n.std()), coefficients)


def helix_evidence(
    scores: Any,
    order: Any,
    *,
    rng: np.random.Generator,
    drift: int = 1,
    growth: bool = True,
    parity: bool = False,
    periods: tuple[float, float] | None = None,
    draws: int = 199,
    level: float = 0.95,
) -> HelixEvidence:
    """Return the best helix through ordered rows and what a null of each kind says about it.

    Args:
        scores: [items, k], such as those of the first three components.
        order: the number each row stands for, [items], all different.
        rng: of the shuffles.
        drift: degree of the polynomial that the axis follows (1, 3, 5).
        growth: let the radius change linearly along the helix.
        parity: add (alpha + beta s) (-1)^n, to helix and polynomial alike.
        periods: shortest and longest considered; None: 4 typical steps to 2.5 times the range.
        draws: shuffles.
        level: of the period's interval.

    Raises:
        MeasureError: as `fit_helix`, or too few rows to hold any out.
    """
    degree = drift + 3 + 2 * growth
    x, n, s = _prepared(scores, order, degree, parity)
    first = (np.arange(len(n)) // (2 if parity else 1)) % 2 == 0
    if first.sum() < (needed := degree + 3 + 2 * parity):
        raise MeasureError(
            f"A helix of {degree + 2 * parity} terms that is to predict half of {len(n)} rows was asked for; give at "
            f"least {2 * needed} rows, a lower drift, or no growth; `fit_helix` needs fewer."
        )
    options = dict(drift=drift, growth=growth, parity=parity, periods=periods or default_periods(n))
    helix, curve = fit_helix(x, n, **options), fit_polynomial(x, n, degree=degree, parity=parity)
    fitted, smooth = _r2(x, helix(n)), _r2(x, curve(n))
    half = fit_helix(x[first], n[first], **options)
    half_curve = fit_polynomial(x[first], n[first], degree=degree, parity=parity)
    search = frequency_search(n, s, **options)
    shuffled = search.grid_r2(np.stack([x, *(rng.permutation(x) for _ in range(draws))]))
    p = float((1 + (shuffled[1:] >= shuffled[0] - 1e-12).sum()) / (1 + draws))
    turns = float(np.ptp(n) / helix.period)
    held = _r2(x[~first], half(n[~first])), _r2(x[~first], half_curve(n[~first]))
    failed = _failed(fitted - smooth, held, turns, p)
    said = f"R2 {fitted:.3f} with period {helix.period:.3g}, polynomial of degree {degree} {smooth:.3f}"
    return HelixEvidence(
        helix=helix,
        r2=fitted,
        r2_each=_r2_each(x, helix(n)),
        polynomial=smooth,
        degree=degree,
        held_out=held[0],
        held_out_polynomial=held[1],
        null=shuffled[1:],
        p=p,
        period=_period(helix.period, search, x, level),
        turns=turns,
        supported=not failed,
        verdict=f"no helix: {said}; {', '.join(failed)}" if failed else f"helix: {said}, {turns:.1f} turns",
    )


def _period(period: float, search: FrequencySearch, x: np.ndarray, level: float) -> Interval:
    """Return the period with an interval by Student's t, no wider than the periods searched."""
    from scipy.stats import t

    w = 2 * np.pi / period
    error, blocks = search.standard_error(x, w)
    half = t.ppf((1 + level) / 2, blocks - 1) * error if blocks > 1 else np.inf
    low, high = (2 * np.pi / np.clip(w + side * half, search.w[0], search.w[-1]) for side in (1, -1))
    return Interval(period, float(low), float(high), len(x), level)


def _failed(gain: float, held: tuple[float, float], turns: float, p: float) -> list[str]:
    """Return what speaks against a helix, in words."""
    tests = (
        (gain > LEAST_GAIN, f"it gains {gain:.3f} on the polynomial, {LEAST_GAIN} is the least"),
        (held[0] > held[1], f"on rows held out {held[0]:.3f} is no more than the polynomial's {held[1]:.3f}"),
        (turns > 2, f"{turns:.1f} turns are no more than 2"),
        (p <= 0.05, f"shuffled rows reach it with p {p:.2g}"),
    )
    return [said for held, said in tests if not held]


def _prepared(scores: Any, order: Any, terms: int, parity: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows sorted by their order, the order, and the order standardised."""
    x, n = in_order(scores, order)
    if parity and (n != np.round(n)).any():
        raise MeasureError("A parity term was asked for of an order with fractions; give whole numbers or no parity.")
    if np.ptp(x, axis=0).max() == 0:
        raise MeasureError(f"A curve through {len(x)} rows that are all the same is undefined; give rows that differ.")
    if len(n) < (needed := terms + 2 * parity + 2):
        raise MeasureError(
            f"A curve of {needed - 2} terms through {len(n)} rows was asked for; give at least {needed} rows, a lower "
            "drift or degree, or no growth."
        )
    return x, n, (n - n.mean()) / n.std()


def _r2_each(x: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    total = np.square(x - x.mean(0)).sum(0)
    return 1 - np.divide(np.square(x - fitted).sum(0), total, out=np.zeros_like(total), where=total > 0)


def _r2(x: np.ndarray, fitted: np.ndarray) -> float:
    return float(1 - np.square(x - fitted).sum() / max(np.square(x - x.mean(0)).sum(), 1e-300))
