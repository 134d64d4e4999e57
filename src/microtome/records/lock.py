"""Lock: one writer of a folder at a time, kept so by the operating system, so that no lock outlives its holder."""

import errno
import logging
import os
import weakref
from pathlib import Path

from microtome.core.errors import RecordError

try:
    import fcntl
except ImportError:  # Windows has no fcntl; records work there without the lock
    fcntl = None

__all__ = ["Lock", "hold"]

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """The right to write a folder, until `release`, the last reference to it, or the end of the process."""

    def __init__(self, descriptor: int | None):
        self._closing = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None

    def release(self) -> None:
        """Let go of the folder; a second call does nothing."""
        if self._closing is not None:
            self._closing()


def hold(folder: Path) -> Lock:
    """Take the lock of a folder.

    Args:
        folder: an existing folder.

    Raises:
        RecordError: another process, or another Record of this one, holds it.
    """
    if fcntl is None:
        return Lock(None)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # flock, not lockf: the latter lets one process in twice
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RecordError(
            f"Record '{folder}' is being written by another process (or another Record of this one); wait for it or "
            "choose another folder (--out)."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        log.warning("the file system of %s has no locks; do not run two at once into this folder", folder)
    return Lock(descriptor)
