"""The study from top to bottom: ask, locate, score, choose, test, compare with nulls, judge.

Each step is a stage of the record, so a run that is stopped goes on at the first unfinished one. Everything that
chooses anything sees discovery and validation prompts alone; verdicts rest on test prompts.
"""

from collections.abc import Callable

from microtome.records import Record, Steps
from microtome.studies.recall import correlate, locate, score, separate
from microtome.studies.recall.claims import judge
from microtome.studies.recall.config import RecallConfig
from microtome.studies.recall.prompts import draw_prompts
from microtome.studies.recall.subject import load_subject
from microtome.studies.recall.views import views

__all__ = ["run"]

# name -> share of the time on zoo:atlas, so that the estimate of the time left is even
SHARES = {
    "model": 1,
    "prompts": 8,
    "reading": 2,
    "layers": 16,
    "heads": 8,
    "lens": 1,
    "scores": 8,
    "checks": 10,
    "edges": 6,
    "sets": 12,
    "nulls": 22,
    "test": 8,
    "growth": 8,
    "shuffled": 6,
    "selectivity": 6,
    "authors": 2,
}


def run(config: RecallConfig, record: Record, progress: Callable[[int, int, str], None] | None = None) -> None:
    """Run the study into an open record.

    Args:
        config: the study's configuration.
        record: takes stages, claims and views.
        progress: called with (done, total, step).

    Raises:
        ModelError, DataError: no such model, or one that does not answer enough prompts of both tasks.
    """
    step = Steps(record, SHARES, progress)
    subject = load_subject(config)
    model = step("model", lambda told: locate.describe(subject))

    # ask: which prompts does the model answer, and does it read or recall when both are possible?
    drawn = draw_prompts(subject.model, config.prompts, config.seed)
    asked = step("prompts", lambda told: locate.ask(subject, drawn), model)
    subject.keep(drawn, asked.rows("prompts"))
    step("reading", lambda told: locate.read_or_recall(subject), model)

    # locate: where does the answer travel in each cell?
    step("layers", lambda told: locate.layers(subject, told), asked)
    step("heads", lambda told: locate.heads(subject, told), asked)
    step("lens", lambda told: locate.lens(subject), asked)

    # score every unit, and check the estimates against exact patching
    scored = step("scores", lambda told: score.scores(subject, told), asked)
    step("checks", lambda told: score.checks(subject, scored, told), asked, scored)
    step("edges", lambda told: score.edges(subject, told), asked)

    # choose on validation prompts, then test on others, beside the nulls
    chosen = step("sets", lambda told: separate.sets(subject, scored, told), asked, scored)
    nulls = step("nulls", lambda told: separate.nulls(subject, chosen, told), asked, chosen)
    tested = step("test", lambda told: separate.test(subject, chosen, nulls, told), asked, chosen, nulls)
    step("growth", lambda told: separate.growth(subject, scored, chosen, told), asked, scored, chosen)
    shuffled = step("shuffled", lambda told: separate.shuffled(subject, scored, chosen, told), asked, scored, chosen)

    # correlation, and what it is worth
    flagged = step("selectivity", lambda told: correlate.selective(subject, told), asked)
    authors = step("authors", lambda told: correlate.authors(subject), asked)

    for claim, verdict in judge(config, tested, nulls, shuffled, flagged, authors):
        record.judge(claim, verdict)
    record.views(views(record, config))
