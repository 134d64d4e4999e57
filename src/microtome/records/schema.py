"""Schema: what record.json holds, checked by pydantic whenever one is read.

A file of a newer schema is refused with its version; one that is cut short, holds NaN or does not fit is refused with
the place. Names of tables, arrays and artefacts are checked here, and file names are made from them here, so a record
from elsewhere cannot point outside its own folder.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from microtome.core.errors import RecordError
from microtome.records.claims import Claim, Verdict
from microtome.records.values import Missing, Reason, plain

__all__ = [
    "SCHEMA_VERSION",
    "ArrayEntry",
    "ArtefactEntry",
    "Judged",
    "Manifest",
    "StageEntry",
    "TableEntry",
    "array_file",
    "artefact_file",
    "check_name",
    "parse",
    "read_manifest",
    "table_file",
]

SCHEMA_VERSION = 1
FORMAT = "microtome.record"

TABLE_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
TableName = Annotated[str, StringConstraints(pattern=TABLE_NAME)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME)]
Status = Literal["running", "interrupted", "finished"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableEntry(_Part):
    """A Parquet table: its checksum, length and column types."""

    blake2b: str
    rows: int
    columns: dict[str, str]


class ArrayEntry(_Part):
    """An array: its checksum, type and shape."""

    blake2b: str
    dtype: str
    shape: list[int]


class ArtefactEntry(_Part):
    """A file or folder in artefacts/: its checksum and the key of what it was made from."""

    blake2b: str
    key: str


class StageEntry(_Part):
    """A finished stage: the key of its inputs, everything it put out, when it was done and in how many seconds."""

    name: FileName
    key: str
    tables: dict[TableName, TableEntry] = {}
    arrays: dict[FileName, ArrayEntry] = {}
    values: dict[str, Any] = {}
    reasons: list[Reason] = []
    times: dict[str, Any] = {}

    def files(self) -> set[str]:
        """Return the paths of its files, from the record's folder."""
        return {*map(table_file, self.tables), *map(array_file, self.arrays)}


class Judged(_Part):
    """A claim and its verdict."""

    claim: Claim
    verdict: Verdict

    @classmethod
    def of(cls, claim: Claim, verdict: Verdict) -> "Judged":
        """Return a claim and its verdict as record.json holds them; Missing in a control becomes its reason in words.

        Args:
            claim: the paper's statement.
            verdict: what came out.

        Raises:
            RecordError: a number is NaN or Missing, or a field is of another type than Claim and Verdict declare.
        """
        where, missing = f"claims.{claim.id}", []
        control = {k: f"not computed: {v.reason}" if isinstance(v, Missing) else v for k, v in verdict.control.items()}
        body = plain({"claim": vars(claim), "verdict": vars(verdict) | {"control": control}}, where, missing)
        if missing:
            raise RecordError(
                f"'{missing[0].where}' is Missing({missing[0].reason!r}); write the reason as text there."
            )
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise RecordError(f"'{where}.{_first(error)}; give what Claim and Verdict declare.") from error


class Manifest(_Part):
    """The whole of record.json.

    `provenance` is of the process that made the record, `resumed_with` of those that went on with it where it differs;
    `stopped_by` says what interrupted it; `passed` is what was set apart from the defaults. On one machine, `times` and
    the argv are all that differs between a run and its twin.
    """

    format: Literal["microtome.record"] = FORMAT
    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    status: Status
    stopped_by: str | None = None
    seed: int
    config: dict[str, Any]
    passed: dict[str, Any] = {}
    fingerprints: dict[str, Any] = {}
    provenance: dict[str, Any]
    resumed_with: list[dict[str, Any]] = []
    times: dict[str, Any] = {}
    stages: list[StageEntry] = []
    artefacts: dict[FileName, ArtefactEntry] = {}
    claims: list[Judged] = []
    views: list[dict[str, Any]] = []

    def dumps(self) -> bytes:
        """Return the bytes of record.json."""
        body = self.model_dump(mode="python")
        return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Return the checked content of a folder's record.json.

    Args:
        folder: the record's folder.

    Raises:
        RecordError: the file is missing, or as `parse` says.
    """
    path = folder / "record.json"
    if not path.is_file():
        raise RecordError(f"No record at '{folder}': found no record.json there; give the folder that a run wrote.")
    return parse(path.read_bytes(), str(path))


def parse(text: str | bytes, where: str) -> Manifest:
    """Return the checked content of a record.json.

    Args:
        text: the file's content.
        where: its path, for errors.

    Raises:
        RecordError: it is cut short, holds NaN, is of a newer schema, or does not fit the schema.
    """
    try:
        body = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"'{where}' is damaged: {error}; restore it, or delete the folder and run again.") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise RecordError(f"'{where}' is not a Microtome record (no format '{FORMAT}'); give the folder of a run.")
    found = body.get("schema_version")
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise RecordError(
            f"'{where}' has schema version {found}, this microtome reads up to {SCHEMA_VERSION}; upgrade microtome."
        )
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise RecordError(f"'{where}' is damaged at '{_first(error)}; restore it or run again.") from error
    except RecordError as error:  # a Claim or Verdict that may not be
        raise RecordError(f"'{where}' is damaged: {error}") from error


def _first(error: ValidationError) -> str:
    """Say where the first thing that does not fit stands (the quote is open already), and why it does not."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}': {first['msg']}"


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which a record never does")


def _finite(text: str) -> float:
    """Read a number; JSON's grammar lets 1e999 through, which reads as infinity."""
    return number if math.isfinite(number := float(text)) else _refuse(text)


def table_file(name: str) -> str:
    """Return the path of a table's file, from the record's folder."""
    return f"tables/{name}.parquet"


def array_file(name: str) -> str:
    """Return the path of an array's file, from the record's folder."""
    return f"arrays/{name}.safetensors"


def artefact_file(name: str) -> str:
    """Return the path of an artefact's file or folder, from the record's folder."""
    return f"artefacts/{name}"


def check_name(kind: str, name: str) -> str:
    """Return a name that can stand in a record, as a file's and (for a table) in SQL.

    Args:
        kind: "stage", "table", "array" or "artefact".
        name: the name.

    Raises:
        RecordError: it cannot.
    """
    if kind == "table":
        pattern, rule = TABLE_NAME, "begin with a letter and use only letters, digits and _"
    else:
        pattern, rule = FILE_NAME, "begin with a letter or digit and use only letters, digits, _ . -"
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise RecordError(f"{name!r} cannot be the name of this {kind}; {rule}.")
    return name
