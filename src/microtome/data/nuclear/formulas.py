"""Mass formulas: binding energy as a few terms in Z and N, each with one coefficient.

    SEMF   B = aV A - aS A^(2/3) - aC Z(Z-1) A^(-1/3) - aA (N-Z)^2/A + aP pi A^(-1/2)
    BW2    the same with Z^2 for Z(Z-1), and A^(1/3), Z^(4/3) A^(-1/3), |N-Z|/A, (N-Z)^2 A^(-4/3), P, P^2

with A = Z + N; pi = 1 for even Z and even N, -1 for odd and odd, 0 for odd A; P = v_p v_n / (v_p + v_n) the promiscuity
of valence nucleons, v the distance to the nearest magic number (P = 0 where both are). BW2 is Kirson's (Nucl. Phys. A
798, 29, 2008); coefficients are those of the code released with arXiv 2405.17425. A pairing term that is wrong for odd
A, as in that code, changes the fit: pi must be 0 there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from microtome.core.errors import ConfigError, did_you_mean
from microtome.data.nuclear.constants import MAGIC

__all__ = ["BW2", "SEMF", "TERMS", "Formula", "Terms", "promiscuity", "terms_named"]

Counts = Int[np.ndarray, "nucleus"]
Energies = Float[np.ndarray, "nucleus"]


@dataclass(frozen=True)
class Terms:
    """The terms of a mass formula, without coefficients.

    Attributes:
        name: what the formula is called.
        names: one per term.
        columns: (Z, N, A) as floats [nucleus] -> the terms, one array each.
    """

    name: str
    names: tuple[str, ...]
    columns: Callable[[Energies, Energies, Energies], tuple[Energies, ...]] = field(repr=False)

    def design(self, z: Counts, n: Counts) -> Float[np.ndarray, "nucleus term"]:
        """Return every term at every nucleus; the binding energy is this times the coefficients."""
        z, n = np.asarray(z, np.float64), np.asarray(n, np.float64)
        return np.stack(self.columns(z, n, z + n), axis=-1)


@dataclass(frozen=True)
class Formula:
    """Terms with their coefficients.

    Attributes:
        terms: the terms.
        coefficients: MeV, one per term, signs included.
    """

    terms: Terms
    coefficients: tuple[float, ...]

    def __post_init__(self):
        if len(self.coefficients) != len(self.terms.names):
            raise ConfigError(
                f"The formula '{self.terms.name}' got {len(self.coefficients)} coefficients for its "
                f"{len(self.terms.names)} terms; give one for each of {', '.join(self.terms.names)}."
            )

    def binding(self, z: Counts, n: Counts) -> Energies:
        """Return total binding energies in MeV.

        Example:
            >>> SEMF.binding(np.array([26]), np.array([30])).round(1)
            array([495.4])
        """
        return self.terms.design(z, n) @ np.array(self.coefficients)

    def contributions(self, z: Counts, n: Counts) -> dict[str, Energies]:
        """Return what each term adds, in MeV; they sum to `binding`."""
        parts = self.terms.design(z, n) * np.array(self.coefficients)
        return dict(zip(self.terms.names, parts.T, strict=True))


def pairing_sign(z: Energies, n: Energies) -> Energies:
    """Return 1 for even-even, -1 for odd-odd and 0 for odd-A nuclei."""
    return ((z % 2 == 0).astype(float) + (n % 2 == 0)) - 1


def valence(x: Counts | Energies) -> Energies:
    """Return the distance to the nearest magic number."""
    return np.abs(np.asarray(x, np.float64)[..., None] - np.array(MAGIC)).min(-1)


def promiscuity(z: Counts | Energies, n: Counts | Energies) -> Energies:
    """Return P = v_p v_n / (v_p + v_n), 0 where both numbers are magic."""
    protons, neutrons = valence(z), valence(n)
    total = protons + neutrons
    return np.divide(protons * neutrons, total, out=np.zeros_like(total), where=total > 0)


def _semf(z: Energies, n: Energies, a: Energies) -> tuple[Energies, ...]:
    return a, a ** (2 / 3), z * (z - 1) * a ** (-1 / 3), (n - z) ** 2 / a, pairing_sign(z, n) * a**-0.5


def _bw2(z: Energies, n: Energies, a: Energies) -> tuple[Energies, ...]:
    volume, surface, _, asymmetry, pairing = _semf(z, n, a)
    shell = promiscuity(z, n)
    return (
        volume,
        surface,
        z**2 * a ** (-1 / 3),
        asymmetry,
        pairing,
        a ** (1 / 3),
        z ** (4 / 3) * a ** (-1 / 3),
        np.abs(n - z) / a,
        (n - z) ** 2 * a ** (-4 / 3),
        shell,
        shell**2,
    )


_FIVE = ("volume", "surface", "coulomb", "asymmetry", "pairing")
_BEYOND = ("curvature", "exchange", "wigner", "surface asymmetry", "shell", "shell squared")

TERMS = {"semf": Terms("semf", _FIVE, _semf), "bw2": Terms("bw2", _FIVE + _BEYOND, _bw2)}
"""Terms by the name of their formula."""

SEMF = Formula(TERMS["semf"], (15.75, -17.8, -0.711, -23.7, 11.18))
"""The semi-empirical formula with the coefficients of the paper's code."""

BW2 = Formula(
    TERMS["bw2"], (16.58, -26.95, -0.774, -31.51, 11.18, 14.77, 2.22, -43.4, 55.62, -1.9, 0.14)
)  # fmt: skip
"""The formula with shell terms, literature coefficients."""


def terms_named(terms: str | Terms) -> Terms:
    """Return terms by name; terms come back as they are.

    Raises:
        ConfigError: no such name.
    """
    if isinstance(terms, Terms):
        return terms
    if terms not in TERMS:
        raise ConfigError(
            f"No mass formula '{terms}'; there are {' and '.join(TERMS)}: use one, or give Terms of your own."
            f"{did_you_mean(terms, TERMS)}"
        )
    return TERMS[terms]
