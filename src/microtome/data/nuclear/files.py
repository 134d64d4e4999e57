"""Reading a nuclear table of any known format, from a path or an address.

The format is told by what is in the file, not by its name. Masses extrapolated from neighbours are left out unless
asked for, as are nuclei with fewer than 8 protons or neutrons, whom no mass formula is about; the table's provenance
counts what went.
"""

import hashlib
from pathlib import Path

from microtome.core.errors import ConfigError, DataError, did_you_mean
from microtome.data.fetch import Progress, fetch, is_address
from microtome.data.nuclear.compact import COMPACT
from microtome.data.nuclear.fixed_width import FIXED_WIDTH
from microtome.data.nuclear.iaea import GROUND_STATES, MASSES
from microtome.data.nuclear.rows import Format, table_of
from microtome.data.nuclear.table import NuclearTable

__all__ = ["FOLDER", "FORMATS", "read_table"]

FOLDER = Path("data/nuclear")
"""Where tables are put that are fetched, if nothing else is said."""

FORMATS = {format.name: format for format in (MASSES, GROUND_STATES, COMPACT, FIXED_WIDTH)}
"""Formats by name."""

_SURE = 0.5


def read_table(
    source: Path | str,
    *,
    measured: bool = True,
    min_z: int = 8,
    min_n: int = 8,
    max_uncertainty: float | None = None,
    format: str | None = None,
    folder: Path | str = FOLDER,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> NuclearTable:
    """Return the nuclei of a file.

    Args:
        source: path, or an address (`http`, `https`, `file`) to fetch from.
        measured: leave out extrapolated masses.
        min_z: fewest protons.
        min_n: fewest neutrons.
        max_uncertainty: largest uncertainty of the binding energy in MeV.
        format: a key of `FORMATS`; told from the content if None.
        folder: where a fetched file is put.
        sha256: what the file must hash to.
        progress: called while a file is fetched, with (name, bytes so far, bytes in all or None).

    Returns:
        The table, in the file's order; its provenance has digest, citation and the count of what was left out.

    Raises:
        DataError: no such file, one that cannot be fetched or is another than the checksum's, no known format, or
            what is wrong in it: the message names file, line and nucleus.

    Example:
        >>> table = read_table("ame2020.csv")
        >>> len(table), table.provenance.citation
    """
    named = str(source)
    path = fetch(named, folder, sha256=sha256, progress=progress) if is_address(named) else Path(source)
    data = _bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.casefold():
        raise DataError(
            f"'{named}' has SHA-256 {digest[:12]}... where {sha256[:12]}... is expected; give the file of that "
            "checksum."
        )
    text = _text(data, path)
    form = _format(text, path, format)
    table = table_of(form.read(text, str(path)), form.name, digest, form.cite(text), source=named)
    return table.cut(measured=measured, min_z=min_z, min_n=min_n, max_uncertainty=max_uncertainty)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        near = did_you_mean(path.name, beside)
        raise DataError(f"No file '{path}' to read a nuclear table from; give a path or an address.{near}")
    return path.read_bytes()


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' was read as UTF-8, found byte 0x{data[error.start]:02x} at {error.start} that is none of it; "
            "give a text file, unpacked, in UTF-8."
        ) from error


def _format(text: str, path: Path, asked: str | None) -> Format:
    if asked is not None:
        if asked not in FORMATS:
            raise ConfigError(
                f"No format '{asked}' of nuclear tables; there are {', '.join(FORMATS)}: use one, or leave it out."
                f"{did_you_mean(asked, FORMATS)}"
            )
        return FORMATS[asked]
    best = max(FORMATS.values(), key=lambda form: form.claims(text))
    if best.claims(text) < _SURE:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        raise DataError(
            f"'{path}' is none of the known tables ({', '.join(FORMATS)}), found '{first[:60]}' in its first line; "
            "convert it to the compact schema: z,n,binding_kev."
        )
    return best
