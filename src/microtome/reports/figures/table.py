"""Table: named columns of a table, a few rows open on the page, e.g. the top units with what they do.

Options: `sort` names a column ("-column" puts the largest first), `limit` says how many rows, `formats` gives a Python
number format per column ("+z.3f", ",d", ".1%"; z makes −0.000 a 0).
"""

from microtome.reports.kinds import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="table",
    summary="columns of a table with number formats",
    draw=None,
    required={"columns": "the list of columns to show"},
    lists=frozenset({"columns"}),
    options={"sort": None, "limit": 20, "formats": {}},
    measured=False,
)
