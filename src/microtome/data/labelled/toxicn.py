"""ToxiCN (Lu et al., ACL 2023) from the user's path: the whole CSV, or the JSON split into train and test.

    ToxiCN_1.0.csv          UTF-8 with a byte-order mark; 12,011 comments from zhihu and tieba, no split
    train.json, test.json   lists of the same objects (9,600 and 2,411), without `num_attacked`

Licence CC BY-NC-ND 4.0: nothing of it is in this package, and nothing derived from it may be passed on.
"""

from collections.abc import Mapping
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.labelled.files import column, label_of, read_csv, read_json
from microtome.data.labelled.rows import Intake, LabelledSet

__all__ = ["load_toxicn"]

_ATTRIBUTES = ("platform", "topic", "toxic_type", "expression", "target", "length", "num_attacked")
TYPES = {"0": "none", "1": "offensive", "2": "hate"}
EXPRESSIONS = {"0": "none", "1": "explicit", "2": "implicit", "3": "reporting"}


def load_toxicn(path: Path | str) -> LabelledSet:
    """Return ToxiCN's comments.

    Args:
        path: the CSV, one of the JSON files (its name becomes the split), or a folder with train.json and test.json.

    Returns:
        The set; attributes as text, `toxic_type` and `expression` by name.

    Raises:
        DataError: nothing of the kind at the path, a column that is absent, a label that is neither 0 nor 1, or a
            single class.
    """
    home = Path(path)
    files = [home / f"{name}.json" for name in ("train", "test")] if home.is_dir() else [home]
    if home.suffix not in ("", ".csv", ".json") and not home.is_dir():
        raise DataError(f"ToxiCN is read from .csv, .json or a folder, found '{home.name}'; give one of those.")
    intake = Intake(home)
    for file in files:
        split = ""
        if file.suffix == ".json":
            split, rows = file.stem, read_json(file)
        else:
            table = read_csv(file)
            rows = table.rows
            if table.ragged:
                intake.drop("another number of cells than the header", table.ragged)
        for number, row in enumerate(rows, start=1):
            for name in ("content", "toxic"):
                column(name, row, file)
            label = label_of(row["toxic"], f"Column 'toxic' of '{file}', row {number},")
            intake.add(str(row["content"]), label, _attributes(row), split=split, id=f"{split}{number}")
    return intake.finish()


def _attributes(row: Mapping[str, object]) -> dict[str, str]:
    found = {name: str(row[name]) for name in _ATTRIBUTES if name in row}
    for name, words in (("toxic_type", TYPES), ("expression", EXPRESSIONS)):
        if name in found:
            found[name] = words.get(found[name], found[name])
    return found
