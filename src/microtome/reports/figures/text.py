"""Text: a paragraph between figures - its caption, plain words; an empty line starts a new paragraph."""

from microtome.reports.kinds import Kind

__all__ = ["KIND"]

KIND = Kind(name="text", summary="a paragraph", draw=None, measured=False)
