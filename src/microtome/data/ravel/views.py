"""Loading a table in one of two views: *verbatim*, what the files say, and *cleaned*, with their defects mended.

Verbatim keeps empty values, each an entry of the defect report; cleaned drops the entities that have any, merges
variants of a value, drops twins, mends typos and leaves out what cannot be scored (`defects` lists the kinds). Both
come with the report of the verbatim table, so that a record can say what was there. `strict` refuses an empty value
instead.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from microtome.core.errors import DataError, did_you_mean
from microtome.data.ravel.defects import DefectReport, find_defects
from microtome.data.ravel.files import check_type, read_folder, types_in
from microtome.data.ravel.hub import hub_types, read_hub
from microtome.data.ravel.repairs import mend_text, same_values
from microtome.data.ravel.tables import Entity, EntityTable, Template

__all__ = ["VIEWS", "Loaded", "cleaned", "load_ravel"]

VIEWS = ("cleaned", "verbatim")


class Loaded(NamedTuple):
    """A table in the view asked for, and what is wrong with the files."""

    table: EntityTable
    defects: DefectReport


def load_ravel(folder: Path | str, entity_type: str, *, view: str = "cleaned", strict: bool = False) -> Loaded:
    """Return one entity type of a folder of RAVEL's JSON files, or of the Hub copy's parquet files.

    Args:
        folder: holds `ravel_T_*.json`, or the folders `T_entity` and `T_prompt`.
        entity_type: T.
        view: `cleaned` or `verbatim`.
        strict: refuse an empty value.

    Raises:
        DataError: unknown view or type, files missing or malformed, an empty value where `strict`.

    Example:
        table, defects = load_ravel("data/ravel", "city")
    """
    if view not in VIEWS:
        raise DataError(f"No view '{view}'; there are {' and '.join(VIEWS)}: use one.{did_you_mean(view, VIEWS)}")
    table = _read(Path(folder), entity_type)
    if strict:
        _require_values(table)
    return Loaded(table if view == "verbatim" else cleaned(table), find_defects(table))


def cleaned(table: EntityTable) -> EntityTable:
    """Return the table with its defects mended; a clean table comes back equal.

    Raises:
        DataError: nothing is left.
    """
    stand = {a: same_values(table, a) for a in table.attributes}
    kept: dict[str, Entity] = {}
    for entity in table.entities:
        if all(v.strip() for v in entity.values.values()):
            values = {a: stand[a].get(v, v) for a, v in entity.values.items()}
            kept.setdefault(entity.name.casefold(), replace(entity, values=values))
    names = {e.name for e in kept.values()}
    templates: dict[str, Template] = {}
    for template in table.templates:
        if template.attribute in table.attributes:
            mended = replace(template, text=mend_text(template.text))
            templates.setdefault(mended.text, mended)
    prompts = tuple(w for w in table.wikipedia if w.entity is None or w.entity in names)
    return EntityTable(table.entity_type, tuple(kept.values()), tuple(templates.values()), prompts)


def _read(folder: Path, entity_type: str) -> EntityTable:
    if not folder.is_dir():
        return read_folder(folder, entity_type)
    in_parquet = hub_types(folder)
    check_type(entity_type, (*types_in(folder), *in_parquet))
    return read_hub(folder, entity_type) if entity_type in in_parquet else read_folder(folder, entity_type)


def _require_values(table: EntityTable) -> None:
    for entity in table.entities:
        empty = [a for a, v in entity.values.items() if not v.strip()]
        if empty:
            raise DataError(
                f"Entity '{entity.name}' of '{table.entity_type}' has an empty {', '.join(empty)}; give it a value, "
                "drop the entity, or load the cleaned view without strict."
            )
