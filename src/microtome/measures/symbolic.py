"""Symbolic regression from a library: which few terms, of many candidates, make the best formula of each size.

    y ~ sum of c_j term_j over a subset of k terms,        for every k: the subset with the least squared error

Deterministic and by linear algebra alone. A QR decomposition of library and target first shrinks any number of rows to
as many as there are terms, without loss and without squaring the condition number as normal equations would, for terms
like A, A^(2/3) and A^(1/3) differ little. Where all subsets can be tried they are; otherwise a beam of the best sets
grows by one term and each is improved by swaps until none helps: the best found, not proved best.

A larger formula always fits better, so the front shows error against size, and `chosen` is that of the least extended
BIC (Chen & Chen 2008), which also charges for the number of subsets searched:

    n log(RSS / n) + k log n + 2 log C(m, k)

It takes errors as independent; where they are not (missing physics), it picks too many terms. Selection frequency over
bootstrap resamples says how exchangeable a term is: near-collinear terms share it. Section 6.8 of our specification.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, lgamma, log
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers

__all__ = ["Formula", "Front", "Library", "best_subsets", "monomials", "selection_frequency"]

EXHAUSTIVE = 5_000
BEAM = 12
COLLINEAR = 1e-7
EXACT = 1e-10


@dataclass(frozen=True, eq=False)
class Library:
    """Candidate terms.

    Args:
        names: one for each, all different.
        terms: their values, [items, m].
    """

    names: tuple[str, ...]
    terms: np.ndarray

    @classmethod
    def of(cls, terms: Mapping[str, Any]) -> "Library":
        """Return the library of some named terms, name -> [items].

        Raises:
            MeasureError: no terms, missing values, other lengths, a term that is 0 everywhere, or one that is another
                times a number.
        """
        if not terms:
            raise MeasureError("A library of 0 terms was given; give at least one.")
        columns = [numbers(values, f"Term '{name}'", ndim=1) for name, values in terms.items()]
        if len({len(c) for c in columns}) > 1:
            raise MeasureError(f"Terms of {sorted({len(c) for c in columns})} items were given; give the same items.")
        x, names = np.stack(columns, 1), tuple(terms)
        size = np.linalg.norm(x, axis=0)
        if not size.all():
            raise MeasureError(f"Term '{names[int(size.argmin())]}' is 0 everywhere; leave it out.")
        left = np.linalg.qr(x / size, mode="r")
        for j in range(1, len(names)):
            gap = 1 - np.abs(left[:, :j].T @ left[:, j])
            if gap.min() < 1e-13:
                raise MeasureError(
                    f"Term '{names[j]}' is '{names[int(gap.argmin())]}' times a number on {len(x)} items; keep one."
                )
        return cls(names, x)


@dataclass(frozen=True)
class Formula:
    """A sum of terms.

    Args:
        terms: their names, in the library's order.
        coefficients: one for each.
        rms: root mean squared error.
        ebic: extended BIC; the least is best.
    """

    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    rms: float
    ebic: float

    def __str__(self) -> str:
        return " ".join(f"{c:+.4g} {t}" for c, t in zip(self.coefficients, self.terms, strict=True))

    def __call__(self, terms: Mapping[str, Any]) -> np.ndarray:
        """Return the formula's values for terms given by name.

        Raises:
            MeasureError: a term of the formula is not given.
        """
        if missing := [t for t in self.terms if t not in terms]:
            raise MeasureError(f"Formula '{self}' needs term '{missing[0]}', found {', '.join(terms)}; give that too.")
        return sum(c * np.asarray(terms[t], float) for c, t in zip(self.coefficients, self.terms, strict=True))


@dataclass(frozen=True, eq=False)
class Front:
    """The best formula of each size, 1, 2, ...; the Pareto front of size against error.

    Args:
        formulas: by size; it ends where one is exact, and a size that is no better than a smaller one
            is left out.
        chosen: the one with the least extended BIC.
        proved: for each formula, whether all subsets of its size were tried.
    """

    formulas: tuple[Formula, ...]
    chosen: Formula
    proved: tuple[bool, ...]


def monomials(variables: Mapping[str, Any], powers: Mapping[str, Sequence[float]]) -> Library:
    """Return the library of products of powers, without the constant.

    Args:
        variables: name -> [items].
        powers: name -> the powers to take of it, 0 among them to leave it out of some products.

    Raises:
        MeasureError: powers of something that is no variable, or of which a value has none (0 to a negative power, a
            negative number to a fraction), and as `Library.of`.

    Example:
        >>> monomials({"A": [8.0, 27.0]}, {"A": [1, 2 / 3]}).names
        ('A', 'A^0.667')
    """
    if unknown := [name for name in powers if name not in variables]:
        raise MeasureError(f"Powers of '{unknown[0]}' were asked for, the variables are {', '.join(variables)}.")
    raised = {}
    for name, chosen in powers.items():
        x = numbers(variables[name], f"Variable '{name}'", ndim=1)
        for power in chosen:
            if (power < 0 and not x.all()) or (power % 1 and x.min() < 0):
                raise MeasureError(
                    f"'{name}' to the power {power:g} was asked for, its values go from {x.min():g} to {x.max():g}; "
                    "leave that power out, or those items."
                )
            raised[name, power] = x**power
    terms = {}
    for chosen in product(*powers.values()):
        factors = [(name, power) for name, power in zip(powers, chosen, strict=True) if power]
        if factors:
            text = " ".join(name if power == 1 else f"{name}^{power:.3g}" for name, power in factors)
            terms[text] = np.prod([raised[factor] for factor in factors], axis=0)
    return Library.of(terms)


def best_subsets(library: Library, target: Any, *, largest: int = 8) -> Front:
    """Return the best formula of each size.

    Args:
        library: candidate terms.
        target: what they should add up to, [items].
        largest: number of terms to go up to.

    Raises:
        MeasureError: shapes that do not fit, missing values, a target that is 0, or too few items or terms.

    Example:
        >>> x = np.arange(1.0, 9)
        >>> front = best_subsets(Library.of({"x": x, "x^2": x**2, "x^3": x**3}), 2 * x + x**3, largest=2)
        >>> str(front.chosen)
        '+2 x +1 x^3'
    """
    y = _checked(library, target, largest)
    size = np.linalg.norm(library.terms, axis=0)
    reduced = np.linalg.qr(np.column_stack([library.terms / size, y]), mode="r")
    sets = _search(reduced[:, :-1], reduced[:, -1], largest)
    formulas, proved, exact = [], [], EXACT * float(np.sqrt(np.square(y).mean()))
    for chosen, all_tried in sets:
        formula = _fitted(library, y, chosen)
        if formulas and formulas[-1].rms <= exact:
            break
        if not formulas or formula.rms < formulas[-1].rms * (1 - 1e-9):
            formulas.append(formula)
            proved.append(all_tried)
    return Front(tuple(formulas), min(formulas, key=lambda f: f.ebic), tuple(proved))


def selection_frequency(
    library: Library, target: Any, *, terms: int, rng: np.random.Generator, draws: int = 100
) -> dict[str, float]:
    """Return how often each term is in the best formula of a size over resamples; those never chosen are left out.

    Args:
        library: candidate terms.
        target: what they should add up to, [items].
        terms: size of the formula.
        rng: of the resamples.
        draws: their number.

    Raises:
        MeasureError: as `best_subsets`.
    """
    y = _checked(library, target, terms)
    table = np.column_stack([library.terms / np.linalg.norm(library.terms, axis=0), y])
    count = np.zeros(len(library.names))
    for _ in range(draws):
        times = rng.multinomial(len(y), np.full(len(y), 1 / len(y)))
        reduced = np.linalg.qr(np.sqrt(times[times > 0])[:, None] * table[times > 0], mode="r")
        count[list(_search(reduced[:, :-1], reduced[:, -1], terms)[-1][0])] += 1
    rank = count.argsort(kind="stable")[::-1]
    return {library.names[j]: float(count[j] / draws) for j in rank if count[j]}


def _checked(library: Library, target: Any, largest: int) -> np.ndarray:
    n, m = library.terms.shape
    y = numbers(target, "Target", ndim=1, length=n)
    if not y.any():
        raise MeasureError(f"A formula for a target that is 0 on all {n} items was asked for; give another.")
    if not 1 <= largest <= m or n <= largest:
        raise MeasureError(f"Formulas of {largest} terms were asked for, of {m} terms on {n} items; ask for fewer.")
    return y


def _fitted(library: Library, y: np.ndarray, chosen: tuple[int, ...]) -> Formula:
    n, m, k = len(y), len(library.names), len(chosen)
    x = library.terms[:, list(chosen)]
    size = np.linalg.norm(x, axis=0)
    coefficients = np.linalg.lstsq(x / size, y, rcond=None)[0] / size
    rms = float(np.sqrt(np.square(y - x @ coefficients).mean()))
    error = max(rms, EXACT * float(np.sqrt(np.square(y).mean())))
    subsets = lgamma(m + 1) - lgamma(k + 1) - lgamma(m - k + 1)
    ebic = 2 * n * log(error) + k * log(n) + 2 * subsets
    return Formula(tuple(library.names[j] for j in chosen), tuple(map(float, coefficients)), rms, ebic)


def _search(x: np.ndarray, y: np.ndarray, largest: int) -> list[tuple[tuple[int, ...], bool]]:
    """Return the best set of each size and whether all were tried, from unit columns."""
    found, beam = [], [()]
    for k in range(1, largest + 1):
        exhaustive = comb(x.shape[1], k) <= EXHAUSTIVE
        beam = _every(x, y, k) if exhaustive else _grown(x, y, beam)
        if not beam:  # no column is left that the best sets do not span
            break
        found.append((beam[0], exhaustive))
    return found


def _every(x: np.ndarray, y: np.ndarray, k: int) -> list[tuple[int, ...]]:
    """Return the best sets of k columns, best first."""
    sets = np.array(list(combinations(range(x.shape[1]), k)))
    left = []
    for some in np.array_split(sets, 1 + sets.size * len(x) // (1 << 20)):
        basis, triangle = np.linalg.qr(x.T[some].swapaxes(1, 2))
        alive = np.abs(np.diagonal(triangle, axis1=1, axis2=2)) > COLLINEAR
        inside = (basis.swapaxes(1, 2) @ y) * alive
        left.append(np.square(y - (basis @ inside[..., None])[..., 0]).sum(1))
    best = np.concatenate(left).argsort(kind="stable")[:BEAM]
    return [tuple(map(int, sets[b])) for b in best]


def _grown(x: np.ndarray, y: np.ndarray, beam: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the best sets with one column more than those of a beam, each improved by swaps, best first."""
    grown: dict[tuple[int, ...], float] = {}
    for chosen in beam:
        left = _left(x, y, chosen)
        for j in left.argsort(kind="stable")[:BEAM]:
            if np.isfinite(left[j]):
                grown[tuple(sorted((*chosen, int(j))))] = float(left[j])
    best = sorted(grown, key=grown.get)[:BEAM]
    improved = dict(_swapped(x, y, chosen, grown[chosen]) for chosen in best)
    return sorted({**{c: grown[c] for c in best}, **improved}, key={**grown, **improved}.get)[:BEAM]


def _swapped(x: np.ndarray, y: np.ndarray, chosen: tuple[int, ...], error: float) -> tuple[tuple[int, ...], float]:
    """Return the set after the best swap of one column, again and again until none lowers the error."""
    floor = (EXACT * np.linalg.norm(y)) ** 2
    while error > floor:
        tried = []
        for out in chosen:
            rest = tuple(j for j in chosen if j != out)
            left = _left(x, y, rest)
            tried.append((float(left.min()), tuple(sorted((*rest, int(left.argmin()))))))
        best = min(tried)
        if best[0] >= error * (1 - 1e-9):
            break
        error, chosen = best
    return chosen, error


def _left(x: np.ndarray, y: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Return the squared error left by a set and one more column, for each, [m]; infinite where it adds nothing."""
    others, rest = x, y
    if chosen:
        basis = np.linalg.qr(x[:, list(chosen)])[0]
        for _ in range(2):
            others, rest = others - basis @ (basis.T @ others), rest - basis @ (basis.T @ rest)
    size = np.linalg.norm(others, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = others / size
        left = np.square(rest[:, None] - unit * (rest @ unit)).sum(0)
    return np.where(size > COLLINEAR, left, np.inf)
