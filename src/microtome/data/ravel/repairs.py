"""What is known to be wrong in the benchmark's texts, as data, and which values of an attribute are one value.

`TYPOS` are misspelt words of templates; `VALUES` are values that went through a wrong encoding. Beyond the lists, two
values of one attribute are one when they differ in case, spaces or spaces around commas only; and, in attributes with
few classes, in a plural `s` only (`non-living thing`, `non-living things`). The more frequent one stands for both.
"""

import re
from collections import Counter

from microtome.data.ravel.tables import EntityTable

__all__ = ["TYPOS", "VALUES", "mend_text", "same_values"]

TYPOS = {"dimond": "diamond", "Dimond": "Diamond", "Franch": "French"}

VALUES = {
    "Aimar√°,Ket¬öua,Spanish": "Aymara,Quechua,Spanish",
    "Ket¬öua,Spanish": "Quechua,Spanish",
    "Malenasian Languages,Papuan Languages": "Melanesian Languages,Papuan Languages",
    "Malenasian Languages,Papuan Languages,Polynesian Languages": (
        "Melanesian Languages,Papuan Languages,Polynesian Languages"
    ),
}

_ENTITIES_A_CLASS = 20
"""From so many entities a value on, values are classes, and a plural is the same class."""

_WORD = re.compile(r"\b(" + "|".join(map(re.escape, TYPOS)) + r")\b")


def mend_text(text: str) -> str:
    """Return a template with its known typos mended."""
    return _WORD.sub(lambda found: TYPOS[found.group()], text)


def same_values(table: EntityTable, attribute: str) -> dict[str, str]:
    """Return, by value, the one that should stand for it, where it is another."""
    counts = Counter(v for v in table.column(attribute) if v.strip())
    classes = len(table.entities) >= _ENTITIES_A_CLASS * len(counts)
    groups: dict[str, list[str]] = {}
    for value in counts:
        groups.setdefault(_key(VALUES.get(value, value), classes), []).append(value)
    stand = {}
    for group in groups.values():
        chosen = max(group, key=lambda v: counts[v])
        stand |= {value: VALUES.get(chosen, " ".join(chosen.split())) for value in group}
    return {value: by for value, by in stand.items() if value != by}


def _key(value: str, classes: bool) -> str:
    key = re.sub(r"\s*,\s*", ",", " ".join(value.casefold().split()))
    return key.removesuffix("s") if classes else key
