"""RAVEL's files: five JSON files an entity type, read into a table and written from one.

    ravel_T_entity_attributes.json      {entity: {attribute: value}}
    ravel_T_attribute_to_prompts.json   {attribute: [template]}
    ravel_T_entity_to_split.json        {entity: train | val | test}
    ravel_T_prompt_to_split.json        {template: train | val | test}
    wikipedia_T_entity_prompts.json     {template: {"split": ..., "entity": name or null}}; may be absent

T is one of the benchmark's five types, or any other whose files lie in the folder: synthetic tables are saved in the
same form. What is in the files is taken as it stands; `views` mends.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.core.errors import DataError, did_you_mean
from microtome.data.ravel.tables import ENTITY_TYPES, Entity, EntityTable, Template, WikiPrompt

__all__ = ["file_names", "read_folder", "types_in", "write_folder"]


def file_names(entity_type: str) -> dict[str, str]:
    """Return the names of a type's five files by what they hold: entities, templates, two splits, wikipedia."""
    return {
        "entities": f"ravel_{entity_type}_entity_attributes.json",
        "templates": f"ravel_{entity_type}_attribute_to_prompts.json",
        "entity_splits": f"ravel_{entity_type}_entity_to_split.json",
        "template_splits": f"ravel_{entity_type}_prompt_to_split.json",
        "wikipedia": f"wikipedia_{entity_type}_entity_prompts.json",
    }


def types_in(folder: Path | str) -> tuple[str, ...]:
    """Return the entity types whose table of entities lies in a folder, in the order of their names."""
    found = Path(folder).glob("ravel_*_entity_attributes.json")
    return tuple(sorted(p.name.removeprefix("ravel_").removesuffix("_entity_attributes.json") for p in found))


def read_folder(folder: Path | str, entity_type: str) -> EntityTable:
    """Return one entity type as its files have it.

    Args:
        folder: where the files lie.
        entity_type: one of the benchmark's five, or another that the folder holds.

    Raises:
        DataError: no such folder, unknown type, a file that is missing, not JSON or of another shape, an entity or a
            template without a split, or what `EntityTable` refuses.

    Example:
        table = read_folder("data/ravel", "city")
    """
    home = Path(folder)
    if not home.is_dir():
        raise DataError(f"No folder '{home}' to read RAVEL files from; give the folder that holds ravel_*.json.")
    check_type(entity_type, types_in(home))
    names = file_names(entity_type)
    values = _nested(home / names["entities"])
    templates = _lists(home / names["templates"])
    splits = [_texts(home / names[f"{kind}_splits"]) for kind in ("entity", "template")]
    wikipedia = home / names["wikipedia"]
    return EntityTable(
        entity_type,
        tuple(Entity(n, v, _split(splits[0], n, home / names["entity_splits"])) for n, v in values.items()),
        tuple(
            Template(text, attribute, _split(splits[1], text, home / names["template_splits"]))
            for attribute, texts in templates.items()
            for text in texts
        ),
        _wikipedia(wikipedia) if wikipedia.is_file() else (),
    )


def write_folder(table: EntityTable, folder: Path | str) -> None:
    """Write a table as RAVEL's five files; `read_folder` gives it back.

    Args:
        table: of any entity type; a template's text must stand in it once.
        folder: made where it is not there.

    Raises:
        DataError: a template or Wikipedia text stands in the table twice, which the files cannot say.
    """
    for kind, texts in (("template", [t.text for t in table.templates]), ("prompt", [w.text for w in table.wikipedia])):
        twice = sorted({t for t in texts if texts.count(t) > 1})
        if twice:
            raise DataError(f"The {kind} {twice[0]!r} stands in the table twice; RAVEL's files hold it once: drop one.")
    prompts: dict[str, list[str]] = {}
    for template in table.templates:
        prompts.setdefault(template.attribute, []).append(template.text)
    content = {
        "entities": {e.name: dict(e.values) for e in table.entities},
        "templates": prompts,
        "entity_splits": {e.name: e.split for e in table.entities},
        "template_splits": {t.text: t.split for t in table.templates},
        "wikipedia": {w.text: {"split": w.split, "entity": w.entity} for w in table.wikipedia},
    }
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    for kind, name in file_names(table.entity_type).items():
        (home / name).write_text(json.dumps(content[kind], ensure_ascii=False, indent=1), encoding="utf-8")


def check_type(entity_type: str, found: tuple[str, ...]) -> None:
    """Refuse an entity type that is neither the benchmark's nor among those found.

    Raises:
        DataError: it is neither.
    """
    known = tuple(dict.fromkeys((*ENTITY_TYPES, *found)))
    if entity_type not in known:
        raise DataError(
            f"No entity type '{entity_type}'; there are {', '.join(known)}: use one of these."
            f"{did_you_mean(entity_type, known)}"
        )


def _json(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise DataError(f"No file '{path.name}' in '{path.parent}'; put RAVEL's files there, or download them.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not JSON ({error}); fetch the file again.".replace("\n", " ")) from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}; it needs one object: fetch the file again.")
    return content


def _texts(path: Path) -> dict[str, str]:
    return {key: _text(path, key, value) for key, value in _json(path).items()}


def _nested(path: Path) -> dict[str, dict[str, str]]:
    return {
        name: {a: _text(path, f"{name}: {a}", v) for a, v in _of(path, name, values, dict).items()}
        for name, values in _json(path).items()
    }


def _lists(path: Path) -> dict[str, list[str]]:
    return {a: [_text(path, a, t) for t in _of(path, a, texts, list)] for a, texts in _json(path).items()}


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"'{path}' has a {type(value).__name__} at '{key[:60]}'; it needs a text.")
    return value


def _of(path: Path, key: str, value: object, kind: type) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"'{path}' has a {type(value).__name__} at '{key[:60]}'; it needs a {kind.__name__}.")
    return value


def _split(splits: Mapping[str, str], key: str, path: Path) -> str:
    if key not in splits:
        raise DataError(f"'{path}' gives no split for {key[-80:]!r}; add it there or drop it from the other file.")
    return splits[key]


def _wikipedia(path: Path) -> tuple[WikiPrompt, ...]:
    found = []
    for text, value in _json(path).items():
        row = _of(path, text, value, dict)
        entity, split = row.get("entity"), row.get("split")
        if not isinstance(split, str) or not (entity is None or isinstance(entity, str)):
            raise DataError(f"'{path}' gives no split and entity at {text[-60:]!r}; it needs both as texts (or null).")
        found.append(WikiPrompt(text, entity or None, split))
    return tuple(found)
