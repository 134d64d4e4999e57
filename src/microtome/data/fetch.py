"""Fetch one file, whole or not at all.

It is written beside its place as a hidden part, hashed while it comes, and takes its name only if it is as long as the
server said and has the expected SHA-256, where one is given. A file that is there already with that digest is not
fetched again; without a digest nothing tells an old file from a new one, and it is.
"""

import hashlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from microtome.core.errors import DataError
from microtome.core.files import replace_with

__all__ = ["Progress", "fetch", "is_address"]

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes so far, bytes in all or None)."""

_CHUNK = 1 << 16
_SCHEMES = ("http://", "https://", "file://")


def is_address(source: str) -> bool:
    """Say whether a source is an address to fetch from, not a path."""
    return source.casefold().startswith(_SCHEMES)


def fetch(
    url: str,
    folder: Path | str,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> Path:
    """Fetch a file; return its path.

    Args:
        url: `http`, `https` or `file`.
        folder: made where it is not there; the file is named after the address.
        sha256: what the file must hash to.
        progress: called as it comes.
        timeout: seconds without an answer.

    Raises:
        DataError: an address that does not answer, an answer shorter than it announced, or another checksum; nothing
            is left behind, and a file of an earlier call stays.

    Example:
        fetch("https://www-nds.iaea.org/amdc/ame2020/mass_1.mas20.txt", "data/nuclear")
    """
    target = Path(folder) / _name(url)
    if sha256 is not None and target.is_file() and _digest(target) == sha256.casefold():
        return target
    try:
        replace_with(target, lambda part: _stream(url, part, target.name, sha256, progress, timeout))
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"'{url}' could not be fetched ({reason}); check the address and the connection.") from error
    return target


def _stream(url: str, part: Path, name: str, sha256: str | None, progress: Progress | None, timeout: float) -> None:
    digest, done = hashlib.sha256(), 0
    # Some servers, the IAEA's among them, refuse the standard library's own name.
    request = urllib.request.Request(url, headers={"User-Agent": "microtome"})
    with urllib.request.urlopen(request, timeout=timeout) as answer, part.open("wb") as file:
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(name, done, total)
    if total is not None and done != total:
        raise DataError(f"'{url}' announced {total} bytes, found {done}; the download broke off: fetch it again.")
    if sha256 is not None and digest.hexdigest() != sha256.casefold():
        raise DataError(
            f"'{url}' has SHA-256 {digest.hexdigest()[:12]}... where {sha256[:12]}... is expected; the file is another "
            "or damaged: check the address, or give the checksum of the version you want."
        )


def _name(url: str) -> str:
    """File name of an address: its last part, with the query where it has one."""
    parts = urllib.parse.urlsplit(url)
    name = urllib.parse.unquote(parts.path).rstrip("/").rpartition("/")[2] + (f"_{parts.query}" if parts.query else "")
    return re.sub(r"[^\w.-]+", "_", name)[-120:].lstrip(".") or "file"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
