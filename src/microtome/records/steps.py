"""Steps: a run's stages in turn, each with its share of the time, so that the progress of the whole is even."""

from collections.abc import Callable, Mapping

from microtome.records.record import Record
from microtome.records.stage import Stage, StageOutput

__all__ = ["Steps", "Told"]

Told = Callable[[float], None]
"""Takes the share of a step that is done."""


class Steps:
    """Runs stages in turn and tells how far the whole is.

    Args:
        record: takes the stages.
        shares: stage -> its share of the time, in the order in which they run.
        progress: called with (done, total, stage).

    Example:
        >>> step = Steps(record, {"model": 1, "test": 8}, progress)
        >>> model = step("model", lambda told: describe(subject))
        >>> step("test", lambda told: test(subject, told), model)
    """

    def __init__(
        self, record: Record, shares: Mapping[str, float], progress: Callable[[float, float, str], None] | None
    ):
        self.record, self.shares, self.progress = record, shares, progress
        self.total = sum(shares.values())

    def __call__(self, name: str, compute: Callable[[Told], StageOutput], *after: Stage) -> Stage:
        """Return the stage: computed now with its progress told, or as it stands on disk.

        Args:
            name: of the stage, one of the shares.
            compute: makes the results; it may call its argument with the share of itself that is done.
            after: the stages it depends on.
        """
        names = list(self.shares)
        before = sum(self.shares[n] for n in names[: names.index(name)])

        def told(share: float) -> None:
            if self.progress:
                self.progress(before + share * self.shares[name], self.total, name)

        told(0.0)
        stage = self.record.stage(name, lambda: compute(told), {s.name: s for s in after})
        told(1.0)
        return stage
