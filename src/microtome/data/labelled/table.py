"""Any labelled CSV: a column of texts, a column of labels, and whatever else as attributes."""

from collections.abc import Mapping
from pathlib import Path

from microtome.data.labelled.files import ENCODING, column, label_of, read_csv
from microtome.data.labelled.rows import Intake, LabelledSet

__all__ = ["load_labelled_csv"]


def load_labelled_csv(
    path: Path | str,
    *,
    text: str = "text",
    label: str = "label",
    split: str | None = None,
    id: str | None = None,
    values: Mapping[str, int] | None = None,
    encoding: str = ENCODING,
    delimiter: str = ",",
) -> LabelledSet:
    """Return the texts of a CSV with a header.

    Args:
        path: the file.
        text: column of the texts.
        label: column of the labels, 0 or 1.
        split: column of the splits; None for none.
        id: column of the ids; None numbers the rows from 1.
        values: what the labels' words stand for, where they are not 0 and 1.
        encoding: of the file; the default is UTF-8 with or without a byte-order mark.
        delimiter: between cells.

    Returns:
        The set; other columns are attributes, as text. Dropped: empty texts, empty labels, rows of another width.

    Raises:
        DataError: no such file, wrong encoding, a column that is absent, a label that is neither 0 nor 1, all texts
            empty, or a single class.

    Example:
        rows = load_labelled_csv("comments.csv", text="comment", label="toxic", encoding="gb18030")
    """
    table, intake = read_csv(path, encoding=encoding, delimiter=delimiter), Intake(path)
    named = [column(name, table.columns, path) for name in (text, label, split, id) if name is not None]
    others = [name for name in table.columns if name not in named]
    for number, row in enumerate(table.rows, start=1):
        if not row[label].strip():
            intake.drop("empty label")
            continue
        y = label_of(row[label], f"Column '{label}' of '{path}', row {number},", values)
        where = {"split": row[split] if split else "", "id": row[id] if id else str(number)}
        intake.add(row[text], y, {name: row[name] for name in others}, **where)
    if table.ragged:
        intake.drop("another number of cells than the header", table.ragged)
    return intake.finish()
