"""Views: figures as data. A study declares what to show; this module says what a declaration may hold.

    {"kind": "heatmap",
     "title": "Recall is carried at the country token, reasoning at the last token",
     "caption": "Recovered logit difference when one layer and position of the residual stream is the clean run's.",
     "table": "patching", "where": {"site": "resid_post"},
     "encodings": {"x": "position", "x_name": "token", "y": "layer", "color": "recovery", "facet": "task"},
     "labels": {"color": "recovered logit difference (fraction)"},
     "names": {"facet": {"context_2hop": "reasoning"}},
     "n": 240, "interval": "95 % bootstrap, clustered by item", "control": "untrained model: |recovery| <= 0.02"}

`title` is a sentence that says what to see. A channel of `encodings` names a column of `table`; written `other.column`
it names a column of another table. `where` keeps the rows whose column equals a value or is one of a list. `names` says
what a reader sees in place of a table's codes, so that data keep their codes and pages their words. A figure
states its `n` and its `control`, and its `interval` where it draws one: a view without them is refused, because a
score without its null is not shown. The kinds, their channels and options are in `reports/figures`.
"""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from microtome.core.errors import RecordError, did_you_mean

__all__ = ["View", "parse_view"]

Scalar = str | int | float | bool | None


class View(BaseModel):
    """One figure, table or paragraph of a report, as a study declares it.

    Attributes:
        kind: the name of a kind in `reports/figures`.
        title: a sentence that says what to see.
        caption: what is drawn and how it was measured; `words` between backticks are set as code.
        table: the record's table it is drawn from (not for `text`).
        encodings: channel -> column (or list of columns, for `table`).
        where: column -> the value, or list of values, that rows must have.
        labels: channel -> axis title with its unit; a channel without one shows its column's name.
        names: channel (of a table: column) -> value -> what is shown for it; values without one are shown as they are.
        n: how many items stand behind each number, as a number or in words.
        interval: what the interval is, e.g. "95 % bootstrap, clustered by item".
        control: what the result is compared with.
        options: settings of this kind of view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    title: str = Field(min_length=1)
    caption: str = ""
    table: str | None = None
    encodings: dict[str, str | list[str]] = {}
    where: dict[str, Scalar | list[Scalar]] = {}
    labels: dict[str, str] = {}
    names: dict[str, dict[str, str]] = {}
    n: int | str | None = None
    interval: str | None = None
    control: str | None = None
    options: dict[str, object] = {}

    def label(self, channel: str) -> str:
        """Return the axis title of a channel: its label, or its column's name in words."""
        column = self.encodings.get(channel, channel)
        name = column if isinstance(column, str) else channel
        return self.labels.get(channel, name.rpartition(".")[2].replace("_", " "))


def parse_view(declared: object) -> View:
    """Return the view that a record declares.

    Args:
        declared: a mapping read from `record.json`, or a View.

    Raises:
        RecordError: a field is missing, unknown or of the wrong type.
    """
    if isinstance(declared, View):
        return declared
    title = declared.get("title", "untitled") if isinstance(declared, dict) else "untitled"
    try:
        return View.model_validate(declared)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "the whole"
        near = did_you_mean(where, View.model_fields) if first["type"] == "extra_forbidden" else ""
        raise RecordError(f"View '{title}': {where}: {first['msg']}; mend the study's declaration.{near}") from error
