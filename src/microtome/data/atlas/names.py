"""Invented names and empty sentences: what a passage is made of when no real fact is wanted.

Nonce names are an onset and a coda put together; none is a real place, so what is said of them can only be read, never
recalled. Filler sentences say nothing of places, money or languages, and come in every length from a few words up, so
that a passage without a fact can have the token count of one with it.
"""

import functools
from itertools import product

__all__ = ["fillers", "nonce_names"]

_ONSETS = (
    "Zor",
    "Bla",
    "Kre",
    "Mul",
    "Fen",
    "Dro",
    "Pel",
    "Quo",
    "Vis",
    "Gan",
    "Tol",
    "Rud",
    "Sha",
    "Hep",
    "Yar",
    "Wex",
)
_CODAS = ("via", "nor", "mak", "dun", "tish", "lope", "bry", "kel", "sum", "gar")

_SUBJECTS = ("A dog", "The bird", "The old horse", "A small fox", "My quiet friend", "The tall gray tree")
_VERBS = ("slept", "waited", "stood", "rested", "sang")
_ENDINGS = (
    "",
    " softly",
    " near home",
    " in the rain",
    " by the old wall",
    " under the bright warm moon",
    " until the long night was over",
    " beside the river while the wind blew",
    " beside the river while the cold wind blew hard",
)


@functools.cache
def nonce_names() -> tuple[str, ...]:
    """Return the invented names, in a fixed order."""
    return tuple(onset + coda for onset, coda in product(_ONSETS, _CODAS))


@functools.cache
def fillers() -> tuple[str, ...]:
    """Return the filler sentences, in a fixed order."""
    return tuple(f"{subject} {verb}{end}." for subject, verb, end in product(_SUBJECTS, _VERBS, _ENDINGS))
