"""Scrubbing: e-mail addresses, telephone, IP, bank account and card numbers give way to `<EMAIL>`, `<PHONE>`...

    EMAIL  ASCII address with a dotted domain
    IBAN   of a country and its length, with valid check digits (ISO 13616, mod 97)
    CARD   13 to 19 digits, in one or as printed on cards, with a network's first digits and Luhn's sum (ISO/IEC 7812)
    IP     version 4 or 6, public addresses only: others name no one
    PHONE  +country and 8 to 15 digits, tel: links, and North American numbers written with separators

Conservative: what could as well be a date, a version or a part number stays. So national telephone numbers without
separators or outside North America are missed, and so are names, addresses, other ids, digits of other scripts, and
addresses written to be hidden ("a at b dot c"). A random number of 16 digits passes for a card once in some 20 times;
a version of four numbers passes for an IP. Scrubbing twice is scrubbing once.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.documents import Document

__all__ = ["KINDS", "Scrub"]

_IBAN_LENGTHS = dict(
    part.split(":")
    for part in "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 "
    "DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 "
    "IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 "
    "PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 "
    "VG:24 XK:20".split()
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_CARD = re.compile(
    r"(?<![0-9A-Za-z.,+-])(?=[3-6]|2[2-7])"
    r"(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{4}([ -])[0-9]{6}\2[0-9]{5})"
    r"(?![0-9A-Za-z]|[.,-][0-9])"
)
_IP4 = re.compile(r"(?<![0-9A-Za-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])")
_IP6 = re.compile(r"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])")
_PHONE = re.compile(
    r"(?<![0-9A-Za-z+])\+[1-9](?:[ .\-\u2011()/]{0,2}[0-9]){7,14}(?![0-9])"
    r"|(?<=tel:)\+?[0-9](?:[ .\-()/]?[0-9]){5,14}(?![0-9])"
    r"|(?<![0-9A-Za-z+.,-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[.-][0-9]{4}"
    r"(?![0-9A-Za-z]|[.,-][0-9])"
)
_LIKELY = re.compile("[0-9@]")


def _is_iban(found: str) -> str:
    """Return the part of a candidate that is an account number, or an empty string."""
    length, taken, end = int(_IBAN_LENGTHS.get(found[:2], 0)), "", 0
    while end < len(found) and len(taken) < length:
        taken += found[end].strip()
        end += 1
    follows = found[end : end + 1].strip()
    if len(taken) < max(length, 15) or follows:
        return ""
    number = "".join(str(int(c, 36)) for c in taken[4:] + taken[:4])
    return found[:end] if int(number) % 97 == 1 else ""


def _is_card(found: str) -> str:
    digits = [int(c) for c in found if c.isdigit()]
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    valid = len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return found if valid else ""


def _is_public(found: str) -> str:
    try:
        return found if ipaddress.ip_address(found).is_global else ""
    except ValueError:
        return ""


def _whole(found: str) -> str:
    return found


_RULES: dict[str, tuple[tuple[re.Pattern[str], Callable[[str], str]], ...]] = {
    "EMAIL": ((_EMAIL, _whole),),
    "IBAN": ((_IBAN, _is_iban),),
    "CARD": ((_CARD, _is_card),),
    "IP": ((_IP4, _is_public), (_IP6, _is_public)),
    "PHONE": ((_PHONE, _whole),),
}
KINDS = tuple(_RULES)
"""What is looked for, in order: what an earlier kind takes, a later one does not see."""


@dataclass(frozen=True)
class Scrub:
    """Replace what identifies a person by its kind.

    Attributes:
        kinds: which of `KINDS`.

    Raises:
        DataError: no kind, or one that is unknown.

    Example:
        Scrub().text("Write to ann@example.org")        # ("Write to <EMAIL>", Counter(EMAIL=1))
    """

    kinds: tuple[str, ...] = KINDS

    def __post_init__(self):
        for kind in self.kinds or ("",):
            if kind not in KINDS:
                raise DataError(
                    f"Nothing to scrub is called '{kind}'; {', '.join(KINDS)} are.{did_you_mean(kind, KINDS)}"
                )

    def __call__(self, document: Document) -> tuple[Document, Counter[str]]:
        """Return the document scrubbed, and how many places of each kind were replaced."""
        text, found = self.text(document.text)
        return (replace(document, text=text) if found else document), found

    def text(self, text: str) -> tuple[str, Counter[str]]:
        """Return a text scrubbed, and how many places of each kind were replaced."""
        found: Counter[str] = Counter()
        while _LIKELY.search(text):  # again: a placeholder may part what stood against another number
            before = found.total()
            for kind in filter(self.kinds.__contains__, KINDS):
                for pattern, checked in _RULES[kind]:
                    text = pattern.sub(lambda m, k=kind, c=checked: _placed(m.group(), k, c, found), text)
            if found.total() == before:
                break
        return text, found


def _placed(candidate: str, kind: str, checked: Callable[[str], str], found: Counter[str]) -> str:
    taken = checked(candidate)
    if not taken:
        return candidate
    found[kind] += 1
    return f"<{kind}>{candidate[len(taken) :]}"
