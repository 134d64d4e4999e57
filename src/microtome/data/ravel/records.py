"""RAVEL-style interchange records as pairs: a source of recall prompts that others have made and filtered.

A record (explanare/ravel, arXiv 2402.17700) is a flat object

    input, label, source_input, source_label, inv_label, split, source_split, entity, source_entity

where `label` answers `input`, and `inv_label` is what the template of `input` would answer about `source_entity`. So a
record is a pair: base `input`, source `source_input`, `base_label` `label`, `cf_label` `inv_label`. Whether it is a
cause or an isolate pair depends on the attribute under study, which a record does not name; the caller says it.
Nothing here filters by what a model knows: the records' own selection is kept.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from microtome.core.errors import DataError
from microtome.data.pairs import Pair, PairSet
from microtome.data.ravel.tables import SLOT

__all__ = ["RavelPairs", "pairs_from_ravel"]

_FIELDS = ("input", "label", "source_input", "inv_label", "entity", "source_entity")


class RavelPairs(NamedTuple):
    """The pairs, and how many records were left out because source and base agree (`label == inv_label`)."""

    pairs: PairSet
    same_answer: int


def pairs_from_ravel(
    records: Iterable[Mapping[str, object]], *, kind: str = "cause", cell: str = "recall", gap: str = " "
) -> RavelPairs:
    """Return RAVEL-style records as a `PairSet`, with groups entity, template, cell and the record's split.

    Args:
        records: objects with the fields above; `source_label`, `split` and `source_split` may be absent.
        kind: `cause` (records ask the attribute under study) or `isolate` (they ask another one).
        cell: what the pairs are called in the factorial of `data.puzzles`.
        gap: what stands between `input` and `label`; labels lose their leading space.

    Raises:
        DataError: a record lacks a field, or one is not a text, or its input does not name its entity; no records.

    Example:
        pairs, left_out = pairs_from_ravel(json.loads(path.read_text()))
    """
    pairs, same = [], 0
    for number, record in enumerate(records, start=1):
        pair = _pair(number, record, kind, cell, gap)
        if pair.base_label == pair.cf_label:
            same += 1
        else:
            pairs.append(pair)
    if same and not pairs:
        raise DataError(f"All {same} records have label equal to inv_label; a swap could not show; draw other sources.")
    return RavelPairs(PairSet(tuple(pairs)), same)


def _pair(number: int, record: Mapping[str, object], kind: str, cell: str, gap: str) -> Pair:
    wrong = [name for name in _FIELDS if not isinstance(record.get(name), str) or not record[name]]
    if wrong:
        raise DataError(
            f"Record {number} is not RAVEL-style: {', '.join(wrong)} absent, empty or not a text (found "
            f"{', '.join(map(str, record)) or 'no fields'}); it needs {', '.join(_FIELDS)}."
        )
    text = {name: str(record[name]) for name in _FIELDS}
    # Few-shot templates may name the entity among their examples too: the question is the last mention.
    before, named, after = text["input"].rpartition(text["entity"])
    if not named:
        raise DataError(
            f"Record {number} asks about '{text['entity']}', which its input does not name ('{text['input'][-60:]}'); "
            "give the input with the entity filled in."
        )
    groups = {"entity": text["entity"], "template": f"{before}{SLOT}{after}", "cell": cell}
    groups |= {name: str(record[name]) for name in ("split", "source_split") if record.get(name)}
    groups |= {"source_entity": text["source_entity"]}
    base_label, cf_label = text["label"].strip(), text["inv_label"].strip()
    return Pair(text["input"], text["source_input"], base_label, cf_label, kind, groups, gap)
