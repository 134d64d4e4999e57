"""Stage: a named step of a run, what it puts out, and what it reads back.

A stage is addressed by content: its key is a digest of its name, its inputs and the record's study, config, seed and
fingerprints. A run that finds the key committed reads the results instead of computing them. Results always come back
through the disk, so a resumed run and an uninterrupted one go on with the same types and the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from microtome.core.errors import RecordError, did_you_mean
from microtome.records.tables import Rows

__all__ = ["Stage", "StageOutput"]


@dataclass(frozen=True)
class StageOutput:
    """What a stage's function returns.

    Attributes:
        tables: name -> rows (list of dictionaries), columns (dictionary of sequences) or a pyarrow Table.
        arrays: name -> ndarray.
        values: name -> anything JSON holds; `Missing(reason)` where a number could not be computed.
        reasons: name of an array -> why it holds NaN or infinity (refused otherwise).
    """

    tables: Mapping[str, Rows] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A committed stage, read back from disk; hand it to a later stage as an input.

    Attributes:
        name: its name.
        digest: digest of its results; a later stage with this one among its inputs is redone when they change.
        reused: whether it was on disk already.
        tables: name -> pyarrow Table.
        arrays: name -> ndarray.
        values: name -> plain value.
    """

    name: str
    digest: str
    reused: bool
    tables: Mapping[str, pa.Table] = field(repr=False)
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    values: Mapping[str, object] = field(repr=False)

    def table(self, name: str) -> pa.Table:
        """Return one of this stage's tables."""
        return self._own("table", name, self.tables)

    def rows(self, name: str) -> list[dict]:
        """Return one of this stage's tables as dictionaries."""
        return self.table(name).to_pylist()

    def array(self, name: str) -> np.ndarray:
        """Return one of this stage's arrays."""
        return self._own("array", name, self.arrays)

    def value(self, name: str) -> object:
        """Return one of this stage's values."""
        return self._own("value", name, self.values)

    def _own(self, kind: str, name: str, found: Mapping):
        if name not in found:
            listed = ", ".join(found) or "none"
            raise RecordError(
                f"Stage '{self.name}' has no {kind} '{name}'; it has {listed}.{did_you_mean(name, found)}"
            )
        return found[name]
