"""What the phrasebook talks about, and which of it no document ever says.

Two parts are kept out of `documents`, for `parallel` to draw from:

    frames          whole sentences and frames, those of `HELD_OUT_FRAMES`
    combinations    of every other frame with slots, one combination of fillers in eight, by a hash of their numbers

The rule knows frames and numbers of fillers, not words, so what is held out in one language is held out in all.
"""

from collections.abc import Mapping

from microtome.core.seeds import derive
from microtome.data.phrasebook.tables import slots

__all__ = ["HELD_OUT_FRAMES", "HELD_OUT_SHARE", "REMARKS", "TOPICS", "held_out"]

TOPICS = {
    "food": ("buy", "wants_buy", "bring", "breakfast", "likes_food", "offer", "drinking", "no_more", "reads_drinks"),
    "town": ("met", "waits", "will_go", "new_cafe", "lost", "walked", "minutes_walk", "how_get", "meet_at"),
    "travel": (
        "travel", "visited", "comes_from", "train_leaves", "city_weather", "tickets", "moved", "postcard", "lives_kin",
    ),
    "work": (
        "is_job", "years_job", "starts_work", "meeting", "neighbour", "works_day", "months_tongue", "learns_with",
        "books_month", "late",
    ),
    "people": (
        "looks", "was_feeling", "likes_do", "wants_do", "together", "cannot_do", "gave", "phones_kin", "son_age",
        "birthday", "invited", "sorry",
    ),
    "home": (
        "thanks", "favourite_colour", "painted_kitchen", "put", "seen", "gets_up", "early_bed", "cleaned", "saw_animal",
        "wants_animal", "stays_home", "drew",
    ),
}  # fmt: skip
"""Frames that documents use, by what they are about."""

_ALL_REMARKS = tuple(f"remark_{i}" for i in range(1, 45))

REMARKS = tuple(remark for i, remark in enumerate(_ALL_REMARKS, 1) if i % 4)
"""Sentences without slots that documents use: three in four."""

HELD_OUT_FRAMES = (
    "paid", "found", "arrived", "forgot", "would_travel", "born", "friends_city", "wanted_be", "better_tongue", "join",
    "runs", *_ALL_REMARKS[3::4],
)  # fmt: skip
"""Frames and remarks that no document uses."""

HELD_OUT_SHARE = 8
"""One combination of fillers in so many is held out."""


def held_out(frame: str, fillers: Mapping[str, int]) -> bool:
    """Return whether documents never say this: a held-out frame, or a held-out combination of fillers.

    Args:
        frame: a name from `frames`.
        fillers: numbers of fillers by slot; slots that the frame does not have are passed over.
    """
    if frame in HELD_OUT_FRAMES:
        return True
    numbers = [fillers[slot] for slot in slots(frame)]
    return bool(numbers) and derive(0, "phrasebook", frame, *numbers) % HELD_OUT_SHARE == 0
