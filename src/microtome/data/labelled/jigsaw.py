"""Jigsaw's toxic comments (Kaggle 2018) from the folder the user has: train.csv, test.csv, test_labels.csv.

    train.csv         id, comment_text, toxic, severe_toxic, obscene, threat, insult, identity_hate
    test.csv          id, comment_text
    test_labels.csv   id and the six labels; -1 where a comment was not scored

The filter of AurA (Suau et al., ICML 2024; apple/ml-aura `jigsaw_dataset.py`) leaves out comments that are called not
toxic and yet carry one of the other five labels. arXiv 2509.16660 reports 63,978 scored test comments, 6,090 of them
toxic, which is the test part without that filter.
"""

from collections.abc import Iterator
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.labelled.files import column, read_csv
from microtome.data.labelled.rows import Intake, LabelledSet

__all__ = ["JIGSAW_LABELS", "load_jigsaw"]

JIGSAW_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_SPLITS = ("train", "test")


def load_jigsaw(
    folder: Path | str, *, split: str | None = None, label: str = "toxic", contradictory: bool = False
) -> LabelledSet:
    """Return the comments of one split, or of both.

    Args:
        folder: holds the three files (of one split: what that split needs).
        split: `train` or `test`; None for both.
        label: which of the six labels is the class; all six are attributes.
        contradictory: keep comments without the label `toxic` but with another one, which AurA leaves out.

    Raises:
        DataError: no such folder, split or label, a file or column that is absent, a label other than -1, 0 and 1, a
            comment without labels, or a single class.

    Example:
        test = load_jigsaw("data/jigsaw", split="test").balanced(6090)
    """
    home = Path(folder)
    if not home.is_dir():
        raise DataError(f"No folder '{home}' to read Jigsaw from; give the one with train.csv and test.csv.")
    for what, asked, known in (("split", split, _SPLITS), ("label", label, JIGSAW_LABELS)):
        if asked is not None and asked not in known:
            raise DataError(f"Jigsaw has no {what} '{asked}'; it has {', '.join(known)}.{did_you_mean(asked, known)}")
    intake = Intake(home)
    for name in _SPLITS if split is None else (split,):
        for id, text, marks in _comments(home, name, intake):
            if -1 in marks.values():
                intake.drop("not scored (-1)")
            elif not contradictory and not marks["toxic"] and any(marks.values()):
                intake.drop("not toxic, yet another label is 1 (AurA's filter)")
            else:
                intake.add(text, marks[label], marks, split=name, id=id)
    return intake.finish()


def _comments(home: Path, split: str, intake: Intake) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield id, text and labels of a split's comments."""
    texts = read_csv(home / f"{split}.csv")
    marks = texts if split == "train" else read_csv(home / "test_labels.csv")
    needed = (texts, ("id", "comment_text")), (marks, ("id", *JIGSAW_LABELS))
    for table, names in needed:
        for name in names:
            column(name, table.columns, table.path)
    for table in {id(t): t for t in (texts, marks)}.values():
        if table.ragged:
            intake.drop(f"another number of cells than the header ({table.path.name})", table.ragged)
    by_id = {row["id"]: row for row in marks.rows}
    for row in texts.rows:
        if row["id"] in by_id:
            yield row["id"], row["comment_text"], _marks(by_id[row["id"]], marks.path)
        else:
            intake.drop("no row in test_labels.csv")


def _marks(row: dict[str, str], path: Path) -> dict[str, int]:
    for name in JIGSAW_LABELS:
        if row[name] not in ("-1", "0", "1"):
            raise DataError(
                f"Column '{name}' of '{path}', id {row['id'][:40]}, is {row[name][:40]!r}; labels must be 0 or 1, or "
                "-1 for not scored."
            )
    return {name: int(row[name]) for name in JIGSAW_LABELS}
