"""The parquet layout of RAVEL's copy on the Hugging Face Hub: two tables an entity type, cut into splits.

    T_entity/{train,val,test}-*.parquet   a column that names the entity, a column per attribute, others (URL, ID)
    T_prompt/{train,val,test}-*.parquet   a column of templates with `%s`, `Attribute`, and perhaps `Entity`

The copy itself could not be opened when this was written, so the reader asks for little. Column names are compared
without case. The entity is the column called entity, name or like the type (`City`, `Nobel Prize Winner`), else the
first column; the attributes are the other text columns but those that look like an address or an identifier. The
template is the first column whose every row holds `%s` once. A row of prompts whose attribute is empty, or none the
entities have, is a Wikipedia prompt when it names no known attribute at all: `Other`, `wikipedia`. The split is a
column `Split`, else the beginning of the file's name (`validation` is val). The copy holds more entities than the
JSON files, so counts differ from theirs.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.ravel.tables import SLOT, SPLITS, Entity, EntityTable, Template, WikiPrompt

__all__ = ["hub_types", "read_hub"]

_NOT_ATTRIBUTES = ("split", "url", "wikipediaurl", "wikipedia", "id", "index", "source")
_NO_ATTRIBUTE = ("", "other", "none", "null", "wikipedia", "wiki")

Row = dict[str, object]


def hub_types(folder: Path | str) -> tuple[str, ...]:
    """Return the entity types of which a folder holds both tables."""
    names = {p.name for p in Path(folder).iterdir() if p.is_dir()}
    entities = {n.removesuffix("_entity") for n in names if n.endswith("_entity")}
    return tuple(sorted(t for t in entities if f"{t}_prompt" in names))


def read_hub(folder: Path | str, entity_type: str) -> EntityTable:
    """Return one entity type from the Hub copy's parquet files.

    Args:
        folder: holds the folders `T_entity` and `T_prompt`.
        entity_type: T.

    Raises:
        DataError: a table is missing or unreadable, has no column of entities or templates, a row has no split, or
            what `EntityTable` refuses.

    Example:
        table = read_hub("hub/ravel", "city")
    """
    home = Path(folder)
    entities = _rows(home / f"{entity_type}_entity")
    prompts = _rows(home / f"{entity_type}_prompt")
    name = _entity_column(entities, entity_type)
    attributes = [c for c in entities[0][1] if c != name and _key(c) not in _NOT_ATTRIBUTES]
    found = tuple(
        Entity(_text(row[name]), {a: _text(row.get(a)) for a in attributes}, _split(split, row))
        for split, row in entities
    )
    templates, wikipedia = _prompts(prompts, {_key(a): a for a in attributes}, home / f"{entity_type}_prompt")
    return EntityTable(entity_type, found, templates, wikipedia)


def _rows(folder: Path) -> list[tuple[str, Row]]:
    """Return (file's name, row) of every parquet file in a folder, in the order train, val, test."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*.parquet"), key=lambda p: (_order(p.name), p.name))
    rows: list[tuple[str, Row]] = []
    for path in files:
        try:
            # The file alone: given a folder of parts, pyarrow would read names as a partition.
            rows += [(path.name, row) for row in pq.ParquetFile(path).read().to_pylist()]
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"'{path}' cannot be read as parquet ({reason}); fetch the file again.") from error
    if not rows:
        raise DataError(f"No rows in '{folder}': {len(files)} parquet files; put the Hub copy's files there.")
    return rows


def _order(name: str) -> int:
    split = _named(name)
    return SPLITS.index(split) if split else len(SPLITS)


def _named(text: str) -> str:
    """Return the split a file's name or a cell begins with, or an empty string."""
    begin = re.match(r"[a-z]+", text.casefold())
    word = begin.group() if begin else ""
    return {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}.get(
        word, ""
    )


def _split(file: str, row: Row) -> str:
    said = next((_text(v) for c, v in row.items() if _key(c) == "split"), file)
    split = _named(said)
    if not split:
        raise DataError(f"A row of '{file}' has no split ('{said}'); name the file after it, or add a column Split.")
    return split


def _key(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.casefold())


def _text(value: object) -> str:
    """Return a cell as text; 57.0 is 57, nothing is an empty text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _entity_column(rows: list[tuple[str, Row]], entity_type: str) -> str:
    columns = list(rows[0][1])
    wanted = ("entity", "name", _key(entity_type))
    return next((c for c in columns if _key(c) in wanted), columns[0])


def _prompts(
    rows: list[tuple[str, Row]], attributes: dict[str, str], folder: Path
) -> tuple[tuple[Template, ...], tuple[WikiPrompt, ...]]:
    columns = list(rows[0][1])
    text = _column(columns, lambda c: all(_text(row.get(c)).count(SLOT) == 1 for _, row in rows))
    asked = _column(columns, lambda c: _key(c) == "attribute")
    if text is None or asked is None:
        raise DataError(
            f"The prompts in '{folder}' have columns {', '.join(columns)}; they need one where every row holds "
            f"'{SLOT}' once, and one called Attribute."
        )
    entity = _column(columns, lambda c: _key(c) == "entity")
    templates, wikipedia = [], []
    for split, row in rows:
        attribute, where = _text(row[asked]), _split(split, row)
        if attribute.casefold() in _NO_ATTRIBUTE:
            wikipedia.append(WikiPrompt(_text(row[text]), _text(row.get(entity)) or None if entity else None, where))
        else:
            templates.append(Template(_text(row[text]), attributes.get(_key(attribute), attribute), where))
    return tuple(templates), tuple(wikipedia)


def _column(columns: Iterable[str], fits: Callable[[str], bool]) -> str | None:
    return next((c for c in columns if fits(c)), None)
