"""Records: what a run leaves on disk, and everything that reads it. Loads no torch."""

from microtome.records.claims import OUTCOMES, Claim, Verdict
from microtome.records.compare import differences
from microtome.records.keys import content_key
from microtome.records.query import query
from microtome.records.record import Record
from microtome.records.schema import SCHEMA_VERSION, Judged
from microtome.records.stage import Stage, StageOutput
from microtome.records.steps import Steps, Told
from microtome.records.values import Missing, Reason

__all__ = [
    "OUTCOMES",
    "SCHEMA_VERSION",
    "Claim",
    "Judged",
    "Missing",
    "Reason",
    "Record",
    "Stage",
    "StageOutput",
    "Steps",
    "Told",
    "Verdict",
    "content_key",
    "differences",
    "query",
]
