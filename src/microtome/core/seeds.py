"""Seeds: one number for a run, and from it as many independent ones as there are places that draw.

    derive(0, "patching", 3)    an integer that depends on every part and on nothing else

The derived seed is a hash of (seed, names), so adding, removing or reordering other draws changes nothing: a resumed
run draws what the uninterrupted one would have drawn. It fits in 63 bits, so numpy and torch both take it.
"""

import hashlib
import json
from operator import index

import numpy as np

__all__ = ["derive", "generator"]


def derive(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2**63) for the draw that `names` describe; distinct names give independent seeds.

    Args:
        seed: the run's seed.
        names: what is drawn for, e.g. ``"matched_random", layer``; 3 and "3" are different names.

    Raises:
        TypeError: the seed, or a name that is not text, is not a whole number.

    Example:
        >>> derive(0, "items") != derive(0, "items", 1)
        True
    """
    words = [index(seed), *(n if isinstance(n, str) else index(n) for n in names)]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return numpy's generator for the draw that `names` describe.

    Args:
        seed: the run's seed.
        names: what is drawn for, as in `derive`.
    """
    return np.random.default_rng(derive(seed, *names))
