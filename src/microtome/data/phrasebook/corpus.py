"""Raw documents in one language: two to eight sentences about one topic and one woman and one man.

A document draws a topic and a scene, one filler for every slot. Its people stay the same throughout; each other filler
of the scene comes back in the next sentence that can use it with probability one half and is drawn anew otherwise. So
what was said before helps to tell what comes, as in real text. One sentence in six is a remark, from anywhere.

Languages are drawn independently: document k in one is no translation of document k in another.
"""

import random
from collections.abc import Iterator
from itertools import islice

from microtome.core.errors import DataError
from microtome.core.seeds import derive
from microtome.data.corpus import Document
from microtome.data.phrasebook.frames import REMARKS, TOPICS, held_out
from microtome.data.phrasebook.tables import Table, sizes, slots, table

__all__ = ["documents"]

_LENGTHS = range(2, 9)
_REMARK, _KEPT = 1 / 6, 1 / 2
_PEOPLE = ("she", "he")


def documents(language: str, count: int, *, seed: int = 0) -> Iterator[Document]:
    """Yield documents in a language; the same seed gives the same stream, and a longer one begins with a shorter.

    Args:
        language: one of `LANGUAGES`.
        count: how many, at least 1.
        seed: of the stream; every language has its own under one seed.

    Returns:
        documents with source `phrasebook`, ids `<language>-<seed>-<number>` and their topic in `meta`.

    Raises:
        DataError: an unknown language, or a count below 1.

    Example:
        >>> next(documents("de", 1)).language
        'de'
    """
    wording = table(language)
    if count < 1:
        raise DataError(f"{count} documents of the phrasebook were asked for; ask for 1 or more.")
    return _documents(wording, count, seed)


def _documents(wording: Table, count: int, seed: int) -> Iterator[Document]:
    rng = random.Random(derive(seed, "phrasebook", wording.language))
    for number in range(count):
        topic, length = rng.choice(tuple(TOPICS)), rng.choice(_LENGTHS)
        text = wording.joiner.join(islice(_sentences(wording, topic, rng), length))
        yield Document(text, wording.language, "phrasebook", f"{wording.language}-{seed}-{number}", {"topic": topic})


def _sentences(wording: Table, topic: str, rng: random.Random) -> Iterator[str]:
    """Yield what can be said on a topic, without end; no frame comes again before all have had their turn."""
    scene = {slot: rng.randrange(size) for slot, size in sizes().items()}
    while True:
        for frame in rng.sample(TOPICS[topic], len(TOPICS[topic])):
            if rng.random() < _REMARK:
                yield wording.say(rng.choice(REMARKS), {})
            _move_on(scene, frame, rng)
            if not held_out(frame, scene):
                yield wording.say(frame, scene)


def _move_on(scene: dict[str, int], frame: str, rng: random.Random) -> None:
    """Draw anew, in place, about half of what the frame needs besides people."""
    for slot in slots(frame):
        if slot not in _PEOPLE and rng.random() >= _KEPT:
            scene[slot] = rng.randrange(sizes()[slot])
