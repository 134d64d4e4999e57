"""Sentences that mean the same in every language, from what documents never say.

Frames are drawn evenly, not by how many sentences they make, and no line comes twice. The lines depend on count, seed
and part alone, so asking for fewer languages, or fewer lines, changes none.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import derive
from microtome.data.phrasebook.frames import HELD_OUT_FRAMES, HELD_OUT_SHARE, TOPICS, held_out
from microtome.data.phrasebook.tables import LANGUAGES, sizes, slots, table, variants

__all__ = ["PARTS", "parallel"]

PARTS = {
    "combinations": tuple(frame for topic in TOPICS.values() for frame in topic),
    "frames": HELD_OUT_FRAMES,
}
"""The frames that each held-out part draws from."""


def parallel(
    count: int, *, seed: int = 0, languages: Sequence[str] = LANGUAGES, part: str = "combinations"
) -> dict[str, tuple[str, ...]]:
    """Return held-out sentences; line k of every language says the same.

    Args:
        count: how many lines, at least 1 and at most about half of what the part has.
        seed: of the draw.
        languages: those wanted.
        part: `combinations` (known frames, new combinations of fillers) or `frames` (whole frames and remarks).

    Raises:
        DataError: an unknown language or part, no language, or a count out of range.

    Example:
        >>> lines = parallel(100, languages=["en", "ja"])
        >>> len(lines["en"]) == len(set(lines["ja"])) == 100
        True
    """
    if part not in PARTS:
        raise DataError(f"No part '{part}' of the phrasebook; there are {', '.join(PARTS)}.{did_you_mean(part, PARTS)}")
    if not languages:
        raise DataError("Parallel sentences were asked for in no language; name at least one.")
    wordings = [table(language) for language in languages]
    most = sum(map(variants, PARTS[part])) // (2 * HELD_OUT_SHARE if part == "combinations" else 2)
    if not 1 <= count <= most:
        raise DataError(f"{count} parallel sentences of part '{part}' were asked for; ask for 1 to {most}.")
    drawn = list(islice(_draws(part, random.Random(derive(seed, "phrasebook", "parallel", part))), count))
    return {w.language: tuple(w.say(frame, fillers) for frame, fillers in drawn) for w in wordings}


def _draws(part: str, rng: random.Random) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield frames with fillers, all held out and none twice; a caller takes fewer than there are."""
    seen = set()
    while True:
        frame = rng.choice(PARTS[part])
        fillers = {slot: rng.randrange(sizes()[slot]) for slot in slots(frame)}
        key = (frame, *fillers.values())
        if key not in seen and held_out(frame, fillers):
            seen.add(key)
            yield frame, fillers
