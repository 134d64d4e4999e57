"""Labelled texts: the one schema that every toxicity data set is read into, with the account of what was left out.

A row is (text, label, attributes, split, id); label 1 is the class under study, 0 its absence. Rows that cannot be
used - an empty text, an unscored label - are not in the set but are counted by reason in `dropped`, so that a number
computed on the set can say what it was not computed on. Texts are kept as they are, HTML, control characters and all;
only lone surrogates, which no encoder takes, become U+FFFD, and how often is in `mended`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from microtome.core.errors import DataError
from microtome.core.seeds import generator

__all__ = ["Intake", "LabelledSet", "LabelledText"]

Value = str | float | bool | None


@dataclass(frozen=True)
class LabelledText:
    """One text and its label.

    Attributes:
        text: as the source has it.
        label: 1 for the class under study (toxic), 0 otherwise.
        attributes: whatever else the source says of it, by name.
        split: `train`, `test` or another name the source gives; empty where it gives none.
        id: the source's own, or the row's number in the file as text.
    """

    text: str
    label: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    split: str = ""
    id: str = ""


@dataclass(frozen=True)
class LabelledSet:
    """Texts of one source, never empty.

    Attributes:
        rows: the texts.
        source: where they are from, e.g. a path.
        dropped: reason -> rows left out for it.
        mended: what was changed in texts -> in how many.

    Raises:
        DataError: no rows, a label other than 0 and 1, or a blank text.
    """

    rows: tuple[LabelledText, ...]
    source: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    mended: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if not self.rows:
            raise DataError(f"No texts are left of '{self.source}' ({self.account}); check the file or the filter.")
        for index, row in enumerate(self.rows):
            if row.label not in (0, 1) or not row.text.strip():
                raise DataError(
                    f"Row {index} of '{self.source}' has label {row.label!r} and a text of {len(row.text.strip())} "
                    "characters; labels are 0 or 1 and texts not blank."
                )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LabelledText]:
        return iter(self.rows)

    @property
    def texts(self) -> list[str]:
        """The texts in order."""
        return [row.text for row in self.rows]

    @property
    def labels(self) -> np.ndarray:
        """The labels in order, 0 or 1."""
        return np.array([row.label for row in self.rows], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Length of each text in characters: the baseline that a detector has to beat."""
        return np.array([len(row.text) for row in self.rows], dtype=np.int64)

    @property
    def counts(self) -> dict[str, dict[int, int]]:
        """Split -> label -> how many rows."""
        found = Counter((row.split, row.label) for row in self.rows)
        return {s: {y: found[s, y] for y in (0, 1)} for s in sorted({row.split for row in self.rows})}

    @property
    def account(self) -> str:
        """What was left out and why, in one line."""
        return ", ".join(f"{n} dropped: {why}" for why, n in self.dropped.items() if n) or "nothing dropped"

    def where(self, *, split: str | None = None, label: int | None = None, **attributes: Value) -> "LabelledSet":
        """Return the rows of one split, one label, and with the attributes given.

        Raises:
            DataError: none is left.
        """
        kept = (r for r in self.rows if split in (None, r.split) and label in (None, r.label))
        kept = tuple(r for r in kept if all(r.attributes.get(k) == v for k, v in attributes.items()))
        if not kept:
            asked = {"split": split, "label": label} | attributes
            wanted = ", ".join(f"{k} {v!r}" for k, v in asked.items() if v is not None) or "all rows"
            raise DataError(f"Asked '{self.source}' for {wanted}; found none of {len(self)} rows; see its counts.")
        return replace(self, rows=kept)

    def balanced(self, per_class: int, *, seed: int = 0) -> "LabelledSet":
        """Return as many rows of each class, drawn without replacement, in the order they stand in.

        Args:
            per_class: rows of each label.
            seed: of the draw.

        Raises:
            DataError: a class has fewer.
        """
        labels = self.labels
        least = min(int((labels == y).sum()) for y in (0, 1))
        if not 1 <= per_class <= least:
            raise DataError(
                f"Asked '{self.source}' for {per_class} rows of each class; the smaller one has {least}; ask for 1 to "
                f"{least}."
            )
        drawn = [
            generator(seed, "balanced", y).choice(np.flatnonzero(labels == y), per_class, replace=False) for y in (0, 1)
        ]
        return replace(self, rows=tuple(self.rows[i] for i in np.sort(np.concatenate(drawn))))

    def require_both(self) -> "LabelledSet":
        """Return the set itself where both classes are there.

        Raises:
            DataError: a class is missing.
        """
        only = {row.label for row in self.rows}
        if len(only) == 1:
            there = only.pop()
            raise DataError(
                f"All {len(self)} texts of '{self.source}' have label {there} ({self.account}); a comparison needs "
                f"label {1 - there} too: check the label column or take another split."
            )
        return self


class Intake:
    """What a loader puts rows into: it mends and counts, and ends as a `LabelledSet` with both classes.

    Args:
        source: how messages and the set name the file.
    """

    def __init__(self, source: object):
        self.source = str(source)
        self.rows: list[LabelledText] = []
        self.dropped: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()

    def drop(self, why: str, count: int = 1) -> None:
        """Count rows that are left out."""
        self.dropped[why] += count

    def add(self, text: str, label: int, attributes: Mapping[str, Value], *, split: str = "", id: str = "") -> None:
        """Take one row in; a blank text is counted as dropped."""
        sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if sound != text:
            self.mended["lone surrogates replaced by U+FFFD"] += 1
        if sound.strip():
            self.rows.append(LabelledText(sound, label, dict(attributes), split, id))
        else:
            self.drop("empty text")

    def finish(self) -> LabelledSet:
        """Return the set.

        Raises:
            DataError: every text was empty, none was kept for other reasons, or a class is missing.
        """
        if not self.rows and set(self.dropped) == {"empty text"}:
            raise DataError(
                f"All {self.dropped['empty text']} texts of '{self.source}' are empty; name the column that holds "
                "the text."
            )
        return LabelledSet(tuple(self.rows), self.source, dict(self.dropped), dict(self.mended)).require_both()
