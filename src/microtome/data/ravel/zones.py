"""Offsets from UTC: of time zones by name on one fixed day, and as written in an answer.

The day is 2024-01-15, so that no score depends on the calendar; summer time is allowed for by whoever compares. Zone
names come from the tz database of the machine (or the `tzdata` package). Abbreviations are those in wide use that mean
one offset; `IST`, which means three, is not among them.
"""

import functools
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from microtome.core.errors import DataError

__all__ = ["REFERENCE_DAY", "offset_in", "zone_offset"]

REFERENCE_DAY = datetime(2024, 1, 15, 12, tzinfo=UTC)

_ABBREVIATIONS = {
    "UTC": 0.0, "GMT": 0.0, "Z": 0.0, "WET": 0.0, "WEST": 1.0, "BST": 1.0, "CET": 1.0, "CEST": 2.0, "EET": 2.0,
    "EEST": 3.0, "MSK": 3.0, "JST": 9.0, "KST": 9.0, "AEST": 10.0, "AEDT": 11.0, "NZST": 12.0, "NZDT": 13.0,
    "EST": -5.0, "EDT": -4.0, "CST": -6.0, "CDT": -5.0, "MST": -7.0, "MDT": -6.0, "PST": -8.0, "PDT": -7.0,
}  # fmt: skip

_WRITTEN = re.compile(r"^(?:UTC|GMT)?\s*([+\-−–±])\s*(\d{1,2})(?:[:.]?(\d{2}))?(?!\d)", re.IGNORECASE)


@functools.cache
def zone_offset(name: str) -> float:
    """Return a zone's offset in hours east of UTC on the reference day.

    Args:
        name: as in the tz database, e.g. `Europe/Copenhagen`.

    Raises:
        DataError: the machine knows no such zone.
    """
    try:
        offset = REFERENCE_DAY.astimezone(ZoneInfo(name)).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DataError(
            f"No time zone '{name}' on this machine; use a name of the tz database, or install the package tzdata."
        ) from error
    assert offset is not None
    return offset.total_seconds() / 3600


def offset_in(text: str) -> float | None:
    """Return the offset in hours that an answer begins with: `UTC+1`, `GMT -03:30`, `+05:30`, `CET`; None if none."""
    written = _WRITTEN.match(text)
    if written:
        sign = -1.0 if written[1] in "-−–" else 1.0
        return sign * (int(written[2]) + int(written[3] or 0) / 60)
    word = re.match(r"[A-Za-z]+(?![\w/])", text)
    return _ABBREVIATIONS.get(word.group()) if word else None
