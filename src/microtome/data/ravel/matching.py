"""Did the model say what the table says? Rules as data, one an attribute.

A completion is cut at the first quote or line break after its beginning. What is left is compared by its rule:

    text      equal but for case, accents and spaces around commas; or it begins with the label (`Danish and ...`);
              or it stops inside the label (`Dan`), when nothing ended it, it has three letters or more, and no other
              value of the attribute begins so; any alias of the label does as well; of a label that lists several
              (`English,Maori`), any one does
    degrees   a number within the tolerance, S and W counting as minus, longitudes around the globe; decimals and signs
              as they are written
    zone      the zone's name as text, or an offset from UTC within the tolerance of the zone's offset in January, which
              leaves an hour for summer time

A label inside a longer word is no match (`Niger` in `Nigeria`). The verdict says why, and which part of the completion
was the answer: an instance trains on what the model says, not on the table's spelling. Aliases are ours.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from microtome.data.ravel.tables import EntityTable
from microtome.data.ravel.zones import offset_in, zone_offset

__all__ = ["ALIASES", "Match", "Rule", "cut", "match", "rules_for"]

ALIASES = {
    "United States": ("USA", "US", "U.S.", "U.S.A.", "America", "the United States", "the US", "the USA"),
    "United Kingdom": ("UK", "U.K.", "the United Kingdom", "the UK", "England", "Great Britain", "Britain", "Scotland",
                       "Wales", "Northern Ireland"),
    "South Korea": ("Korea", "Republic of Korea"),
    "North Korea": ("DPRK",),
    "Russia": ("Russian Federation", "the Russian Federation"),
    "Czech Republic": ("the Czech Republic", "Czechia"),
    "Netherlands": ("the Netherlands", "Holland"),
    "United Arab Emirates": ("the United Arab Emirates", "UAE", "the UAE"),
    "Philippines": ("the Philippines",),
    "Dominican Republic": ("the Dominican Republic",),
    "Central African Republic": ("the Central African Republic",),
    "United States Virgin Islands": ("the United States Virgin Islands", "US Virgin Islands",
                                     "the US Virgin Islands"),
    "Ivory Coast": ("Côte d'Ivoire", "the Ivory Coast"),
    "Myanmar": ("Burma",),
    "Macedonia": ("North Macedonia",),
    "Swaziland": ("Eswatini",),
    "Turkey": ("Türkiye",),
    "North America": ("America", "the Americas", "Americas"),
    "Oceania": ("Australia",),
    "Chinese": ("Mandarin", "Mandarin Chinese"),
    "Mandarin": ("Chinese", "Mandarin Chinese"),
    "Mandarin Chinese": ("Chinese", "Mandarin"),
    "Persian": ("Farsi",),
    "Tswana": ("Setswana",),
    "Setswana": ("Tswana",),
    "Medicine": ("Physiology or Medicine", "Physiology", "Medicine or Physiology"),
    "Economics": ("Economic Sciences", "Economic"),
    "Peace": ("the Peace",),
    "male": ("man", "masculine", "his", "he", "him", "m"),
    "female": ("woman", "feminine", "her", "she", "f"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("meter", "meters", "metre", "metres"),
    "km": ("kilometer", "kilometers", "kilometre", "kilometres"),
    "non-living thing": ("non-living things", "nonliving thing", "non living thing", "non-living"),
    "plant": ("plants",),
    "animal": ("animals",),
    "gray": ("grey",),
}  # fmt: skip
"""Other words for a value, whatever the attribute."""

_DEGREES = 2.0
_HOURS = 1.0
_SHORTEST = 3
_NUMBER = re.compile(
    r"^[(\s]*([+\-−–]?)\s*(\d+(?:\.\d+)?)\s*(?:°|º|degrees)?(?:\s*\d+\s*['′’])?\s*((?:north|south|east|west|[NSEW])\b)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """How an attribute's answers are compared.

    Attributes:
        kind: `text`, `degrees` or `zone`.
        tolerance: in degrees or hours; unused for texts.
        values: every value of the attribute, so that a beginning can be told from another's.
        aliases: other words by value.
    """

    kind: str = "text"
    tolerance: float = 0.0
    values: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ALIASES)


class Match(NamedTuple):
    """Whether a completion answers, why (or why not), and which part of it is the answer."""

    kept: bool
    reason: str
    said: str


def rules_for(table: EntityTable) -> dict[str, Rule]:
    """Return the rule of every attribute: zones and coordinates by their name, else texts."""
    made = {}
    for attribute in table.attributes:
        values = tuple(dict.fromkeys(table.column(attribute)))
        name = attribute.casefold()
        if name in ("latitude", "longitude"):
            made[attribute] = Rule("degrees", _DEGREES, values)
        elif name in ("timezone", "time zone"):
            made[attribute] = Rule("zone", _HOURS, values)
        else:
            made[attribute] = Rule(values=values)
    return made


def cut(completion: str) -> tuple[str, bool]:
    """Return a completion's answer part, and whether something ended it; without spaces and quotes in front."""
    text = completion.lstrip(" \t\"'“«")
    end = re.search(r"[\"”»\n]", text)
    return (text[: end.start()].rstrip(), True) if end else (text.rstrip(), False)


def match(rule: Rule, completion: str, label: str) -> Match:
    """Return whether a completion says the label.

    Reasons to keep: `exact`, `begins`, `cut off`, `alias`, `one of several`, `within degrees`, `offset`. Reasons not
    to: `empty`, `different`, `ambiguous` (a beginning that other values share), `no number`,
    `no label`.

    Args:
        rule: of the label's attribute.
        completion: what the model wrote after the prompt.
        label: what the table says.

    Raises:
        DataError: the rule is for zones and the label is no time zone.

    Example:
        match(Rule("degrees", 2.0), '57.05° N", "long', "57").kept
    """
    said, ended = cut(completion)
    if not said or not label.strip():
        return Match(False, "no label" if said else "empty", "")
    if rule.kind == "degrees":
        return _degrees(rule, said, label)
    if rule.kind == "zone":
        offset = offset_in(said)
        if offset is not None:
            near = abs(offset - zone_offset(label)) <= rule.tolerance
            return Match(near, "offset" if near else "different", said)
    return _text(rule, said, ended, label)


def _text(rule: Rule, said: str, ended: bool, label: str) -> Match:
    several = [part.strip() for part in label.split(",") if part.strip()]
    tries = [("", label), *(("alias", a) for a in rule.aliases.get(label, ()))]
    if len(several) > 1:
        tries += [("one of several", p) for part in several for p in (part, *rule.aliases.get(part, ()))]
    ambiguous = False
    for name, wanted in tries:
        verdict = _begins(said, ended, wanted)
        if verdict is None:
            continue
        reason, part = verdict
        if reason == "cut off" and _shared(rule, said, label):
            ambiguous = True
            continue
        return Match(True, name or reason, part)
    return Match(False, "ambiguous" if ambiguous else "different", said)


def _begins(said: str, ended: bool, wanted: str) -> tuple[str, str] | None:
    """Return how a completion and a label begin alike, and the part of the completion that is the answer."""
    mine, theirs = _plain(said), _plain(wanted)
    if mine == theirs:
        return "exact", said
    if mine.startswith(theirs) and not _goes_on(mine[len(theirs) :]):
        return "begins", _part(said, theirs)
    if not ended and len(mine) >= _SHORTEST and theirs.startswith(mine):
        return "cut off", said
    return None


def _goes_on(rest: str) -> bool:
    """Return whether a word goes on: a letter or digit, or a hyphen before one."""
    return re.match(r"\w|-\w", rest) is not None


def _part(said: str, wanted: str) -> str:
    """Return the shortest beginning of a completion whose plain form is the label's."""
    return next((said[:n] for n in range(1, len(said) + 1) if _plain(said[:n]) == wanted), said)


def _shared(rule: Rule, said: str, label: str) -> bool:
    others = {_plain(v) for v in rule.values} - {_plain(label)}
    return any(other.startswith(_plain(said)) for other in others)


def _plain(text: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"\s*,\s*", ",", " ".join(bare.casefold().split()))


def _degrees(rule: Rule, said: str, label: str) -> Match:
    found, wanted = _NUMBER.match(said), _NUMBER.match(label)
    if found is None or wanted is None:
        return Match(False, "no number", said)
    apart = abs(_signed(found) - _signed(wanted)) % 360
    near = min(apart, 360 - apart) <= rule.tolerance
    return Match(near, "within degrees" if near else "different", found.group().strip())


def _signed(number: re.Match[str]) -> float:
    minus = (number[1] or "") in ("-", "−", "–") or (number[3] or "")[:1].upper() in ("S", "W")
    return -float(number[2]) if minus else float(number[2])
