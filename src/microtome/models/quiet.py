"""Quiet: reading and writing a local folder without transformers' progress bars, which are made for downloads.

The bars are left out by transformers' own hook, which is put back as it was found; whether bars are enabled is not
touched, so what the user has set holds before, after, and for downloads. A transformers without that hook shows them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

__all__ = ["without_progress_bars"]


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Leave out the progress bars of what runs inside.

    Example:
        >>> with without_progress_bars():
        ...     module.save_pretrained(folder)
    """
    set_hook = getattr(logging, "set_tqdm_hook", None)
    if set_hook is None:
        yield
        return
    before = set_hook(lambda factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
    try:
        yield
    finally:
        set_hook(before)
