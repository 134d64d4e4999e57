"""Numbers of nature that the nuclear tables are read with: AME2020 mass excesses, magic numbers, names of elements.

All energies of `microtome.data.nuclear` are in MeV, of the whole nucleus; files in keV are converted once, on reading.
"""

__all__ = ["ALPHA_BINDING", "HYDROGEN_EXCESS", "MAGIC", "NEUTRON_EXCESS", "SYMBOLS", "label"]

HYDROGEN_EXCESS = 7.288971064
"""Mass excess of the hydrogen atom in MeV (AME2020)."""

NEUTRON_EXCESS = 8.07131806
"""Mass excess of the neutron in MeV (AME2020)."""

ALPHA_BINDING = 2 * HYDROGEN_EXCESS + 2 * NEUTRON_EXCESS - 2.42491587
"""Binding energy of helium-4 in MeV, 28.29566 (AME2020)."""

MAGIC = (2, 8, 20, 28, 50, 82, 126, 184)
"""Numbers of protons or neutrons that close a shell."""

SYMBOLS = tuple(
    "n H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og".split()
)
"""Symbols by number of protons; 0 is the neutron."""


def label(z: int, n: int) -> str:
    """Return a nucleus's name, `208Pb`; by numbers alone where the element has no name yet.

    Example:
        >>> label(82, 126)
        '208Pb'
    """
    return f"{z + n}{SYMBOLS[z]}" if z < len(SYMBOLS) else f"{z + n}[Z={z}]"
