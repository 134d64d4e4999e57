"""Language tags: one short tag for the many ways in which data sets say a language (`zho`, `zh-Hans`, `Chinese`).

The table is of the 43 languages that FuxiTranyu was trained on (arXiv 2408.06273, section 3.1); the three-letter codes
are those of ISO 639-3 and 639-2, with the members of macrolanguages that data sets name (`arb` of `ara`).
"""

import re

__all__ = ["ENGLISH_NAMES", "FUXITRANYU", "short_tag"]

_TABLE = """
ar Arabic ara arb|bg Bulgarian bul|bn Bengali ben|ca Catalan cat|cs Czech ces cze|de German deu ger|el Greek ell gre
en English eng|es Spanish spa|fa Persian fas pes per|fi Finnish fin|fr French fra fre|he Hebrew heb|hi Hindi hin
hu Hungarian hun|id Indonesian ind|it Italian ita|ja Japanese jpn|kk Kazakh kaz|km Khmer khm|ko Korean kor
ku Kurdish kur kmr ckb|ky Kyrgyz kir|lo Lao lao|ms Malay msa zsm may|my Burmese mya bur|nl Dutch nld dut|pl Polish pol
pt Portuguese por|ro Romanian ron rum|ru Russian rus|sv Swedish swe|ta Tamil tam|tg Tajik tgk|th Thai tha|tk Turkmen tuk
tl Tagalog tgl fil|tr Turkish tur|uk Ukrainian ukr|ur Urdu urd|uz Uzbek uzb uzn|vi Vietnamese vie|zh Chinese zho chi cmn
"""
_ROWS = [row.split() for row in re.split(r"[|\n]", _TABLE.strip())]

ENGLISH_NAMES = {tag: name for tag, name, *_ in _ROWS}
"""Tag -> what English calls the language."""

FUXITRANYU = tuple(ENGLISH_NAMES)
"""The languages of FuxiTranyu's corpus; in others, the Aya data set was left out (section 4)."""

_SHORT = {code: tag for tag, _, *codes in _ROWS for code in codes} | {name.lower(): tag for tag, name, *_ in _ROWS}
_KINDS = re.compile(r"^(standard|simplified|traditional|iranian|modern)\s+")


def short_tag(said: str) -> str:
    """Return the tag of a language without script and region, two letters where the table has it.

    Args:
        said: a tag, an ISO 639 code or an English name; what the table does not have is returned in lower case.

    Example:
        >>> [short_tag(s) for s in ("arb", "zh-Hans", "Simplified Chinese", "swh")]
        ['ar', 'zh', 'zh', 'swh']
    """
    plain = _KINDS.sub("", said.strip().lower())
    base = plain if plain in _SHORT else re.split("[-_]", plain, maxsplit=1)[0]
    return _SHORT.get(base, base)
