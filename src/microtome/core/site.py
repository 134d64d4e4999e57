"""Site: the text address of one tensor of a model, with globs.

    blocks.3.mlp.neurons      an activation          blocks.*.attn.heads       every block
    head.weight               a weight               blocks.[0-3].resid_pre    blocks 0, 1, 2, 3
    encoder.stage3.2.units    any structure          blocks.{0,5}.mlp.out      blocks 0 and 5
                                                     **.down_proj              any number of segments

An address is dot-separated segments; ``str(Site.parse(text)) == text``. Addresses sort block by block (numbers as
numbers). This module knows nothing of models: which addresses exist is the model's to say (``model.sites``).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, total_ordering

from microtome.core.errors import SiteError, did_you_mean

__all__ = ["Site", "select_sites"]

_SEGMENT = re.compile(r"^(?:[A-Za-z0-9_\-*?]|\[\d+-\d+\]|\{[A-Za-z0-9_\-]+(?:,[A-Za-z0-9_\-]+)*\})+$")
_TOKEN = re.compile(r"\*|\?|\[(\d+)-(\d+)\]|\{([^}]*)\}|[A-Za-z0-9_\-]+")


@total_ordering
@dataclass(frozen=True)
class Site:
    """The address of one tensor, or (with globs) of several.

    Attributes:
        path: the address as text, e.g. ``blocks.3.mlp.neurons``.
    """

    path: str

    def __post_init__(self):
        segments = self.path.split(".")
        if not self.path or not all(s == "**" or _SEGMENT.match(s) for s in segments):
            raise SiteError(
                f"'{self.path}' is not a site: an address is dot-separated names such as 'blocks.3.mlp.neurons', "
                "with globs *, ?, {a,b}, [0-3] or **."
            )

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Return the site that `text` names.

        Args:
            text: an address, or a Site (returned as it is).

        Raises:
            SiteError: the text is not a well-formed address.
        """
        return text if isinstance(text, Site) else cls(text)

    def __str__(self) -> str:
        return self.path

    def __lt__(self, other: "Site") -> bool:
        return _sort_key(self.path) < _sort_key(other.path)

    @property
    def is_glob(self) -> bool:
        """Whether the address may name several tensors."""
        return any(c in self.path for c in "*?[{")

    @property
    def block(self) -> int | None:
        """The block index of ``blocks.<i>.*``, or None."""
        parts = self.path.split(".")
        return int(parts[1]) if parts[0] == "blocks" and len(parts) > 1 and parts[1].isdigit() else None

    @property
    def kind(self) -> str:
        """What the address names without its block: ``mlp.neurons`` for ``blocks.3.mlp.neurons``."""
        return ".".join(self.path.split(".")[2:]) if self.block is not None else self.path

    def matches(self, other: "Site | str") -> bool:
        """Whether this (possibly glob) address covers the address `other`."""
        return _pattern(self.path).match(str(other)) is not None


def _order(site: Site) -> tuple:
    """The key sites sort by; handed to `sorted` it is asked once a site, not once a comparison."""
    return _sort_key(site.path)


@lru_cache(maxsize=65536)
def _sort_key(path: str) -> tuple:
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in path.split("."))


@lru_cache(maxsize=4096)
def _pattern(path: str) -> re.Pattern:
    """The address as a regular expression over whole addresses."""
    parts = []
    for segment in path.split("."):
        if segment == "**":
            parts.append(r"[^.]+(?:\.[^.]+)*")
            continue
        text = ""
        for m in _TOKEN.finditer(segment):
            if m.group() == "*":
                text += r"[^.]*"
            elif m.group() == "?":
                text += r"[^.]"
            elif m.group(1) is not None:
                text += "(?:" + "|".join(str(i) for i in range(int(m.group(1)), int(m.group(2)) + 1)) + ")"
            elif m.group(3) is not None:
                text += "(?:" + "|".join(re.escape(a) for a in m.group(3).split(",")) + ")"
            else:
                text += re.escape(m.group())
        parts.append(text)
    return re.compile(r"\.".join(parts) + r"\Z")


def select_sites(patterns: "Iterable[str | Site] | str | Site", known: Iterable[Site]) -> list[Site]:
    """Return the known sites that the patterns name, in block order, each once.

    Args:
        patterns: one address or several, globs allowed.
        known: the addresses that exist.

    Raises:
        SiteError: a pattern names nothing that exists; the message names the nearest address.
    """
    known = sorted(known, key=_order)
    if isinstance(patterns, str | Site):
        patterns = [patterns]
    chosen: dict[Site, None] = {}
    for pattern in map(Site.parse, patterns):
        found = [s for s in known if pattern.matches(s)]
        if not found:
            raise SiteError(_no_site(pattern, known))
        chosen.update(dict.fromkeys(found))
    return sorted(chosen, key=_order)


def _no_site(pattern: Site, known: list[Site]) -> str:
    blocks = sorted({s.block for s in known if s.block is not None})
    has = f" (this model has blocks {blocks[0]}-{blocks[-1]})" if blocks else f" (this model has {len(known)} sites)"
    near = did_you_mean(pattern.path, [s.path for s in known])
    if pattern.block is not None and blocks:
        twin = f"blocks.{min(pattern.block, blocks[-1])}.{pattern.kind}"
        near = f" Did you mean '{twin}'?" if Site(twin) in known else near
    return f"No site '{pattern}'{has}.{near}"
