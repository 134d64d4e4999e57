"""The phrasebook's tables, one per language, and how a sentence is made of them.

A *frame* is a sentence with open places, `{she} met {he} {place.in} {past}.`; a *slot* is what fills one, a list of
fillers. Frames have the same names and the same slots in every language, and filler i of a slot means the same in all,
so a frame and one number per slot say one thing in twelve languages. No grammar is computed: a table stores a filler in
every *form* its own frames ask for, by case, gender or the verb it brings along (`place.in`, `thing.lost`), and forms
are private to a language. Remarks are frames without slots.

A table `tables/<language>.toml` holds `joiner` (what stands between two sentences), `remarks`, `[slots]` (fillers by
form, with bars between) and `[frames]`. All of it was written by hand for this package.
"""

import functools
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from microtome.core.errors import DataError, did_you_mean

__all__ = ["LANGUAGES", "Table", "frames", "sentence", "sizes", "slots", "table", "variants"]

LANGUAGES = ("en", "de", "fr", "es", "ru", "zh", "ja", "ar", "hi", "tr", "id", "ko")

_PLACE = re.compile(r"\{((\w+)(?:\.\w+)?)\}")


@dataclass(frozen=True)
class Table:
    """One language's wording.

    Attributes:
        language: one of `LANGUAGES`.
        joiner: what stands between two sentences of a text.
        frames: sentences by name, with places such as `{food}` or `{food.the}`; remarks have none.
        forms: fillers by form; all forms of a slot list the same fillers in the same order.
    """

    language: str
    joiner: str
    frames: Mapping[str, str]
    forms: Mapping[str, tuple[str, ...]]

    def say(self, frame: str, fillers: Mapping[str, int]) -> str:
        """Return a sentence; names are trusted, see `sentence` for the checked call."""
        return _PLACE.sub(lambda place: self.forms[place[1]][fillers[place[2]]], self.frames[frame])


@functools.cache
def table(language: str) -> Table:
    """Return a language's table.

    Raises:
        DataError: the phrasebook does not have the language.
    """
    if language not in LANGUAGES:
        raise DataError(
            f"No language '{language}' in the phrasebook; use one of {', '.join(LANGUAGES)}."
            f"{did_you_mean(language, LANGUAGES)}"
        )
    text = (files("microtome.data.phrasebook") / "tables" / f"{language}.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    remarks = {f"remark_{i}": remark for i, remark in enumerate(raw["remarks"], 1)}
    forms = {form: tuple(fillers.split(" | ")) for form, fillers in raw["slots"].items()}
    return Table(language, raw["joiner"], raw["frames"] | remarks, forms)


@functools.cache
def frames() -> tuple[str, ...]:
    """Return the names of all frames, in the order of the tables, remarks last."""
    return tuple(table("en").frames)


@functools.cache
def slots(frame: str) -> tuple[str, ...]:
    """Return the slots of a frame, in the order of the English sentence.

    Raises:
        DataError: there is no such frame.
    """
    if frame not in frames():
        raise DataError(
            f"No frame '{frame}' among the phrasebook's {len(frames())}; use a name from frames()."
            f"{did_you_mean(frame, frames())}"
        )
    return tuple(place[2] for place in _PLACE.finditer(table("en").frames[frame]))


@functools.cache
def sizes() -> Mapping[str, int]:
    """Return the number of fillers by slot."""
    return {form.partition(".")[0]: len(fillers) for form, fillers in table("en").forms.items()}


def variants(frame: str) -> int:
    """Return how many sentences a frame makes: the product of its slots' sizes, 1 for a remark."""
    return math.prod(sizes()[slot] for slot in slots(frame))


def sentence(language: str, frame: str, fillers: Mapping[str, int]) -> str:
    """Return what a frame says in a language with the given fillers.

    Args:
        language: one of `LANGUAGES`.
        frame: a name from `frames`.
        fillers: for each of the frame's slots the number of a filler, from 0.

    Raises:
        DataError: an unknown language or frame, other slots than the frame's, or a filler there is not.

    Example:
        >>> sentence("fr", "wants_animal", {"he": 0, "animal": 1})
        'Léo aimerait avoir un chat.'
    """
    wording, needed = table(language), slots(frame)
    if set(fillers) != set(needed):
        raise DataError(
            f"Frame '{frame}' was given fillers for ({', '.join(sorted(fillers))}), it has the slots "
            f"({', '.join(sorted(needed))}); give one filler for each."
        )
    for slot, filler in fillers.items():
        if not 0 <= filler < sizes()[slot]:
            raise DataError(f"Filler {filler} was asked for, slot '{slot}' has {sizes()[slot]}; count from 0.")
    return wording.say(frame, fillers)
