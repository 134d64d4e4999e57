"""What a file holds, against the digest written down for it: one that was changed or cut since is refused."""

import hashlib
from pathlib import Path

from microtome.core.errors import RecordError

__all__ = ["checksum", "digest", "read_checked", "refuse_damaged"]


def digest(data: bytes) -> str:
    """Return the BLAKE2b digest of a file's content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def checksum(path: Path) -> str:
    """Return the digest of a file's content, or of a folder's relative names and contents."""
    whole = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file != path:
            whole.update(file.relative_to(path).as_posix().encode() + b"\0")
            whole.update(file.stat().st_size.to_bytes(8, "big"))
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


def read_checked(path: Path, expected: str, what: str) -> bytes:
    """Return the content of a file after holding it against its digest.

    Args:
        path: the file.
        expected: the digest written down for it.
        what: what it is, for errors.

    Raises:
        RecordError: it is missing or damaged.
    """
    data = path.read_bytes() if path.is_file() else b""
    refuse_damaged(path, digest(data), expected, what)
    return data


def refuse_damaged(path: Path, found: str, expected: str, what: str) -> None:
    """Refuse a file or folder whose digest is not the one written down for it.

    Args:
        path: the file or folder.
        found: its digest now.
        expected: the digest written down for it.
        what: what it is, for errors.

    Raises:
        RecordError: it is missing or damaged.
    """
    if not path.exists():
        raise RecordError(f"{what}: '{path.name}' is missing; run the study again, it will be computed anew.")
    if found != expected:
        raise RecordError(
            f"{what} is damaged: its checksum is {found[:8]}, record.json says {expected[:8]}; delete '{path.name}' "
            "and run the study again."
        )
