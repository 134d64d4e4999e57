"""Variable projection of one frequency: given it all else is linear, so only it is searched (Golub & Pereyra 1973).

What a frequency adds to terms that are always there (a drift, a parity term) is an orthonormal basis of its cos and sin
with those terms projected out; the variance it explains is the squared length of the data's projection on that basis.
The same bases serve any number of tables, so a null of shuffled tables costs one matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import MeasureError

__all__ = ["FrequencySearch", "default_periods", "fixed_terms", "frequency_search", "turning_terms"]

STARTS = 5
CHUNK = 1 << 22
FEWEST = 600


def fixed_terms(n: np.ndarray, s: np.ndarray, degree: int, parity: bool) -> np.ndarray:
    """Return powers of s and, with parity, (-1)^n and s (-1)^n, [items, terms]."""
    columns = [s**power for power in range(degree + 1)]
    if parity:
        sign = 1.0 - 2.0 * (n % 2)
        columns += [sign, s * sign]
    return np.stack(columns, 1)


def turning_terms(n: np.ndarray, s: np.ndarray, w: np.ndarray, growth: bool) -> np.ndarray:
    """Return cos and sin of each frequency and, with growth, s times them, [frequencies, items, 2 or 4]."""
    phase = w[:, None] * n
    columns = [np.cos(phase), np.sin(phase)]
    return np.stack([*columns, *(s * c for c in columns if growth)], -1)


def default_periods(n: np.ndarray) -> tuple[float, float]:
    """Return 4 typical steps and 2.5 times the range of an order."""
    return 4 * float(np.median(np.diff(n))), 2.5 * float(np.ptp(n))


@dataclass(frozen=True, eq=False)
class FrequencySearch:
    """A grid of frequencies over an order, and the terms that every one of them stands beside.

    Args:
        n: the order, [items].
        s: the order standardised, [items].
        w: evenly spaced angular frequencies, [frequencies].
        fixed: orthonormal basis of the terms without a frequency, [items, terms].
        growth: whether the amplitude may change along the order.
    """

    n: np.ndarray
    s: np.ndarray
    w: np.ndarray
    fixed: np.ndarray
    growth: bool

    def rest(self, x: np.ndarray) -> np.ndarray:
        """Return what the fixed terms leave of tables, [..., items, k]."""
        return x - self.fixed @ (self.fixed.T @ x)

    def bases(self, w: np.ndarray) -> Iterator[np.ndarray]:
        """Yield orthonormal bases of what frequencies add, [some frequencies, terms, items]; a void term is 0."""
        for part in np.array_split(w, 1 + w.size * len(self.n) * 4 // CHUNK):
            added = self.rest(self.rest(turning_terms(self.n, self.s, part, self.growth)))
            left, size, _ = np.linalg.svd(added, full_matrices=False)
            yield (left * (size > 1e-9 * np.sqrt(len(self.n)))[:, None]).swapaxes(1, 2)

    def gains(self, tables: np.ndarray) -> np.ndarray:
        """Return the sum of squares that each frequency explains of what is left of tables, [frequencies, tables].

        Args:
            tables: [tables, items, k], what the fixed terms left.
        """
        flat = tables.transpose(1, 0, 2).reshape(len(self.n), -1)
        found = []
        for bases in self.bases(self.w):
            for some in np.array_split(bases, 1 + bases.shape[0] * bases.shape[1] * flat.shape[1] // CHUNK):
                squares = np.square(some.reshape(-1, len(self.n)) @ flat)
                found.append(squares.reshape(*some.shape[:2], len(tables), -1).sum((1, 3)))
        return np.concatenate(found)

    def best(self, x: np.ndarray) -> float:
        """Return the frequency that fits a table [items, k] best, refined from the best local optima of the grid."""
        from scipy.optimize import least_squares

        rest, w = self.rest(x), self.w

        def residual(at: np.ndarray) -> np.ndarray:
            (basis,) = self.bases(at)
            return (rest - basis[0].T @ (basis[0] @ rest)).ravel()

        gain = self.gains(rest[None])[:, 0]
        padded = np.concatenate([[-np.inf], gain, [-np.inf]])
        peaks = np.flatnonzero((gain >= padded[:-2]) & (gain >= padded[2:]))
        fits = []
        for peak in peaks[gain[peaks].argsort()[::-1][:STARTS]]:
            low, high = w[max(peak - 1, 0)], w[min(peak + 1, len(w) - 1)]
            start = np.clip(w[peak], low + 1e-6 * (high - low), high - 1e-6 * (high - low))
            fits.append(
                least_squares(
                    residual, [start], bounds=(low, high), x_scale=high - low, xtol=1e-12, ftol=1e-14, gtol=1e-14
                )
            )
        return float(min(fits, key=lambda fit: fit.cost).x[0])

    def grid_r2(self, tables: np.ndarray) -> np.ndarray:
        """Return the best R2 on the grid of each table, [tables].

        Args:
            tables: [tables, items, k].
        """
        centred = tables - tables.mean(1, keepdims=True)
        rest = self.rest(centred)
        left, total = (np.square(z).sum((1, 2)) for z in (rest, centred))
        return 1 - (left - self.gains(rest).max(0)) / total

    def standard_error(self, x: np.ndarray, w: float) -> tuple[float, int]:
        """Return the standard error of the frequency that fits a table [items, k] best, and the number of blocks.

        Blocks of neighbouring rows are taken as independent of each other, rows within one are not: the estimator is
        CR3, a jackknife over blocks in one Gauss-Newton step (Bell & McCaffrey 2002). Where nothing turns it is
        infinite.
        """
        turning = turning_terms(self.n, self.s, np.array([w]), self.growth)[0]
        design = np.concatenate([self.fixed, turning], 1)
        coefficients = np.linalg.lstsq(design, x, rcond=None)[0]
        swap = np.kron(np.eye(turning.shape[1] // 2), [[0, 1], [-1, 0]])  # d cos = -sin, d sin = cos
        slope = (self.n - self.n.mean())[:, None] * (turning @ swap @ coefficients[self.fixed.shape[1] :])
        basis = np.linalg.qr(design)[0]
        left, residual = slope - basis @ (basis.T @ slope), x - design @ coefficients
        information = np.square(left).sum()
        if information <= 1e-16 * np.square(self.n).sum() * np.square(x).sum():
            return np.inf, 0
        blocks = np.array_split(np.arange(len(self.n)), round(len(self.n) ** (2 / 3)))
        moved = [self._moved(basis[rows], left[rows], residual[rows], information) for rows in blocks]
        return float(np.sqrt((1 - 1 / len(blocks)) * np.square(moved).sum())), len(blocks)

    @staticmethod
    def _moved(basis: np.ndarray, slope: np.ndarray, residual: np.ndarray, information: float) -> float:
        """Return how far the frequency moves when a block is left out."""
        k = slope.shape[1]
        along = slope.T.ravel()
        leverage = np.kron(np.eye(k), basis @ basis.T) + np.outer(along, along) / information
        return (
            float(along @ np.linalg.lstsq(np.eye(len(along)) - leverage, residual.T.ravel(), rcond=None)[0])
            / information
        )


def frequency_search(
    n: np.ndarray, s: np.ndarray, *, drift: int, growth: bool, parity: bool, periods: tuple[float, float] | None
) -> FrequencySearch:
    """Return the search over periods; phases of neighbouring frequencies part by at most 1/8 turn over the range.

    Args:
        n: the order, sorted, [items].
        s: the order standardised, [items].
        drift: degree of the polynomial beside the frequency.
        growth: let the amplitude change along the order.
        parity: add an even-odd term.
        periods: shortest and longest; None: `default_periods`.

    Raises:
        MeasureError: periods that are not positive or not in order.
    """
    low, high = periods or default_periods(n)
    if not 0 < low < high < np.inf:
        raise MeasureError(f"Periods from {low:g} to {high:g} were asked for; give 0 < shortest < longest.")
    count = max(FEWEST, int(8 * np.ptp(n) * (1 / low - 1 / high)) + 2)
    w = 2 * np.pi * np.linspace(1 / high, 1 / low, count)
    return FrequencySearch(n, s, w, np.linalg.qr(fixed_terms(n, s, drift, parity))[0], growth)
