"""Numbers as a reader sees them: three decimals where they say something, thousands grouped, a real minus sign."""

from collections.abc import Sequence

from microtome.core.errors import RecordError

__all__ = ["cell", "interval", "number", "signed"]


def number(value: object) -> str:
    """Return a number as text: integers grouped, others with three decimals (two digits when tiny)."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    size = abs(value)
    form = ",.0f" if size >= 1e5 else ",.1f" if size >= 100 else ".3f" if size >= 0.001 or size == 0 else ".1e"
    return format(value, form).replace("-", "−", 1)


def signed(value: float) -> str:
    """Return a number with its sign and three decimals; what rounds to 0 is +0.000."""
    return f"{value:+z.3f}".replace("-", "−")


def interval(ends: Sequence[float] | None) -> str:
    """Return an interval as text, an empty one where there is none."""
    return "" if ends is None else f"[{number(ends[0])}, {number(ends[1])}]"


def cell(value: object, form: str | None, view: str, column: str) -> str:
    """Return a table cell as text.

    Args:
        value: what the table holds.
        form: a Python number format, or None.
        view: the view's title, for the error.
        column: the column, for the error.

    Raises:
        RecordError: the format does not fit the value.
    """
    if form is None or value is None:
        return number(value)
    try:
        text = format(value, form)
    except (ValueError, TypeError) as error:
        raise RecordError(
            f"View '{view}': format '{form}' does not fit column '{column}' with {value!r} ({error}); mend `formats`."
        ) from error
    return text if isinstance(value, str) else text.replace("-", "−", 1)
