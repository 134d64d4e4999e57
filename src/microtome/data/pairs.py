"""Pairs of prompts: the one schema that interchange, patching and ablation data share.

A pair is a base prompt and a source prompt with what each should answer. `kind` says what an intervention that takes
something from the source should do: change the answer to `cf_label` (cause), leave `base_label` (isolate), or neither
is claimed (control). `groups` names what the pair belongs to - entity, template, cell - so that a split or a
cross-validation never puts one entity, or one template, on both sides.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from microtome.core.errors import DataError, did_you_mean

__all__ = ["GROUPS", "KINDS", "Pair", "PairSet", "PairSplit"]

KINDS = ("cause", "isolate", "control")
GROUPS = ("entity", "template", "cell")


@dataclass(frozen=True)
class Pair:
    """Two prompts and what they should answer.

    Attributes:
        base: the prompt that runs.
        source: the prompt an intervention takes from.
        base_label: the answer to the base.
        cf_label: the answer that the source's content should bring.
        kind: `cause`, `isolate` or `control`.
        groups: names by `entity`, `template` and `cell`; others may be added.
        gap: what stands between a prompt and its answer: a space after words, nothing after `12+34=`.
    """

    base: str
    source: str
    base_label: str
    cf_label: str
    kind: str
    groups: Mapping[str, str]
    gap: str = " "


class PairSplit(NamedTuple):
    """Two sides of a split and how many pairs belong to neither."""

    first: "PairSet"
    second: "PairSet"
    left_out: int


@dataclass(frozen=True)
class PairSet:
    """Pairs, checked: never empty, every kind and group name known.

    Raises:
        DataError: no pairs; a pair with an unknown kind, an empty prompt or label, a missing group, or of kind cause
            with equal labels.
    """

    pairs: tuple[Pair, ...]

    def __post_init__(self):
        if not self.pairs:
            raise DataError("Asked for a set of pairs; found none; check the filter or file that should supply them.")
        for index, pair in enumerate(self.pairs):
            _check(index, pair)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def where(self, *, kind: str | None = None, **groups: str) -> "PairSet":
        """Return the pairs of one kind and of the groups named, e.g. `where(cell="recall")`.

        Raises:
            DataError: none is left, or a group is unknown.
        """
        _known_groups(groups)
        kept = (p for p in self.pairs if kind in (None, p.kind) and all(p.groups[k] == v for k, v in groups.items()))
        return PairSet(tuple(kept))

    def split(self, *, by: str | tuple[str, ...] = "entity", share: float = 0.5, seed: int = 0) -> PairSplit:
        """Split so that no group is on both sides.

        Args:
            by: the group kept whole, or several; with several, a pair whose groups fall on different sides is left out.
            share: of the groups on the first side.
            seed: of the draw.

        Raises:
            DataError: a side would be empty, or a group is unknown.
        """
        names = (by,) if isinstance(by, str) else by
        _known_groups(names)
        firsts = {name: self._first_side(name, share, seed) for name in names}
        sides: dict[bool, list[Pair]] = {True: [], False: []}
        for pair in self.pairs:
            where = {pair.groups[name] in firsts[name] for name in names}
            if len(where) == 1:
                sides[where.pop()].append(pair)
        left_out = len(self.pairs) - len(sides[True]) - len(sides[False])
        return PairSplit(PairSet(tuple(sides[True])), PairSet(tuple(sides[False])), left_out)

    def _first_side(self, name: str, share: float, seed: int) -> set[str]:
        members = sorted({pair.groups[name] for pair in self.pairs})
        cut = round(len(members) * share)
        if not 0 < cut < len(members):
            raise DataError(
                f"Asked to split {len(members)} groups of '{name}' with share {share}; one side would be empty; "
                "bring more groups or move the share towards 0.5."
            )
        return set(random.Random(f"pairs-{name}-{seed}").sample(members, cut))

    def require_equal_length(self, encode: Callable[[str], list[int]]) -> "PairSet":
        """Return the set itself where base and source of every pair have as many tokens.

        Args:
            encode: text to token ids.

        Raises:
            DataError: a pair has prompts of different token length; names the first (from 0), both lengths, the remedy.
        """
        for index, pair in enumerate(self.pairs):
            base, source = len(encode(pair.base)), len(encode(pair.source))
            if base != source:
                raise DataError(
                    f"Pair {index} ({_short(pair.base)} / {_short(pair.source)}) needs prompts of equal token length; "
                    f"found {base} and {source}; choose words of as many tokens (data.puzzles does), or drop the pair."
                )
        return self

    def save(self, path: Path | str) -> None:
        """Write the pairs to a `.jsonl` or `.parquet` file.

        Raises:
            DataError: another ending.
        """
        target, rows = Path(path), [vars(p) | {"groups": dict(p.groups)} for p in self.pairs]
        if _ending(target) == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), target)

    @classmethod
    def load(cls, path: Path | str) -> "PairSet":
        """Read pairs from a `.jsonl` or `.parquet` file.

        Raises:
            DataError: no such file, another ending, a row that is not a pair, or no rows.
        """
        source = Path(path)
        if not source.is_file():
            raise DataError(f"No pairs at '{source}': no such file; give a .jsonl or .parquet file of pairs.")
        if _ending(source) == ".jsonl":
            # Not splitlines: JSON leaves U+2028, U+0085 and their like inside a line.
            lines = source.read_text(encoding="utf-8").split("\n")
            return cls(tuple(_parse(source, i, line) for i, line in enumerate(lines, start=1) if line.strip()))
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(source).to_pylist()
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"'{source}' cannot be read as parquet ({reason}); write the pairs again.") from error
        return cls(tuple(_pair(source, i, row) for i, row in enumerate(rows, start=1)))


def _ending(path: Path) -> str:
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"Pairs are kept in .jsonl or .parquet; found '{path.suffix}' in '{path}'; rename the file.")
    return path.suffix


def _parse(path: Path, number: int, line: str) -> Pair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"Row {number} of '{path}' is not JSON ({error.msg}); write one object a line.") from error
    return _pair(path, number, row)


def _pair(path: Path, number: int, row: object) -> Pair:
    texts = ("base", "source", "base_label", "cf_label", "kind")
    if not isinstance(row, dict) or set(row) - {"gap"} != {*texts, "groups"}:
        found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"Row {number} of '{path}' is not a pair: found {found or 'no fields'}; it needs {', '.join(texts)}, "
            "groups, and may have gap."
        )
    groups = row["groups"]
    wrong = [name for name in (*texts, "gap") if not isinstance(row.get(name, ""), str)]
    # Parquet gives every row every group that any row has, empty ones as None.
    groups = {k: v for k, v in groups.items() if v is not None} if isinstance(groups, dict) else None
    if groups is None or not all(isinstance(value, str) for value in groups.values()):
        wrong.append("groups")
    if wrong:
        raise DataError(
            f"Row {number} of '{path}' has {', '.join(wrong)} of the wrong type; texts must be strings and groups an "
            "object of strings."
        )
    return Pair(**(row | {"groups": groups}))


def _known_groups(names: Iterable[str]) -> None:
    for name in names:
        if name not in GROUPS:
            raise DataError(f"No group '{name}'; pairs have {', '.join(GROUPS)}.{did_you_mean(name, GROUPS)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:38]} ... {text[-37:]}")


def _check(index: int, pair: Pair) -> None:
    if pair.kind not in KINDS:
        hint = did_you_mean(pair.kind, KINDS)
        raise DataError(f"Pair {index} has kind '{pair.kind}'; use one of {', '.join(KINDS)}.{hint}")
    needed = ("base", "source", "base_label") + (() if pair.kind == "control" else ("cf_label",))
    empty = [name for name in needed if not getattr(pair, name)]
    if empty:
        raise DataError(f"Pair {index} has an empty {' and '.join(empty)} (base {_short(pair.base)}); fill or drop it.")
    if pair.kind == "cause" and pair.base_label == pair.cf_label:
        raise DataError(
            f"Pair {index} has kind 'cause' but both labels are {_short(pair.base_label)}, so nothing can change; "
            "drop it or call it control."
        )
    missing = [name for name in GROUPS if name not in pair.groups]
    if missing:
        found = ", ".join(sorted(pair.groups)) or "none"
        raise DataError(f"Pair {index} lacks the groups {', '.join(missing)}; found {found}; name all.")
