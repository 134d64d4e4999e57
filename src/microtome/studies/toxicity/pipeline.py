"""The study from top to bottom: read (RQ1, RQ2), write (RQ3), match interventions in damage, test them once.

Each step is a stage of the record, so a run that is stopped goes on at the first unfinished one. Interventions are
fitted and chosen on the discovery half; verdicts rest on the test half. Without prompts to complete, none is compared.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from microtome.edits.saving import save_edits
from microtome.records import Record, Stage, Steps
from microtome.studies.toxicity import reading, writing
from microtome.studies.toxicity.claims import judge
from microtome.studies.toxicity.config import ToxicityConfig
from microtome.studies.toxicity.matching import Tried, match, select, tried_of
from microtome.studies.toxicity.methods import families
from microtome.studies.toxicity.subject import Subject, load_subject
from microtome.studies.toxicity.testing import test
from microtome.studies.toxicity.views import views

__all__ = ["run"]

# name -> share of the time on zoo:parrot, so that the estimate of the time left is even
SHARES = {"model": 1, "texts": 2, "neurons": 15, "layers": 15, "generators": 20, "directions": 3, "dissociation": 5,
          "match": 40, "select": 40, "test": 60}  # fmt: skip


def run(config: ToxicityConfig, record: Record, progress: Callable[[float, float, str], None] | None = None) -> None:
    """Run the study into an open record.

    Args:
        config: the study's configuration.
        record: takes stages, edits, claims and views; pooled activations are kept in a folder beside it.
        progress: called with (done, total, step).

    Raises:
        ModelError, DataError, ConfigError: no such model, texts or method, or too few flagged words in the texts.
    """
    subject = load_subject(config)
    compares = bool(subject.sources.prompts["test"])
    step = Steps(record, SHARES if compares else dict(list(SHARES.items())[:-3]), progress)
    model = step("model", lambda told: reading.describe(subject))
    texts = step("texts", lambda told: reading.texts(subject), model)

    # what tells the classes apart?
    folder = record.path.parent / "pooled"
    screened = step("neurons", lambda told: reading.neurons(subject, folder, told), texts)
    step("layers", lambda told: reading.layers(subject, screened, folder, told), screened)

    # is it what generates?
    written = step("generators", lambda told: writing.generators(subject, screened, told), screened)
    step("directions", lambda told: writing.directions(subject), texts)
    step("dissociation", lambda told: writing.dissociate(subject, screened, written, told), screened, written)

    if compares:
        _compare(subject, record, step, screened, written)
    for claim, verdict in judge(record, config):
        record.judge(claim, verdict)
    record.views(views(record, config))


def _compare(subject: Subject, record: Record, step: Steps, screened: Stage, written: Stage) -> None:
    """Fit interventions, match them in damage, choose settings on discovery prompts, test them on test prompts."""
    made = cache(lambda: families(subject, writing.found_of(screened, written)))
    matched = step("match", lambda told: match(subject, made(), told), screened, written)
    tried = tried_of(made(), matched.rows("strengths"))
    chosen = step("select", lambda told: select(subject, tried, told), matched)
    step("test", lambda told: test(subject, tried, chosen.rows("strengths_at"), told), matched, chosen)
    _keep(subject, record, tried, chosen)


def _keep(subject: Subject, record: Record, tried: list[Tried], chosen: Stage) -> None:
    """Leave the edits of every intervention that is edits, at the headline budget, for `microtome edit export`."""
    named = {(t.family.name, t.setting): t for t in tried}
    for row in chosen.rows("strengths_at"):
        arm = named[row["family"], row["setting"]].arm(row["strength"])
        if row["budget"] != subject.config.arms.headline or not arm.is_edits or not arm.edits:
            continue

        def write(path: Path, edits=arm.edits) -> None:
            save_edits(edits, path, subject.model)

        record.add_artefact(f"{row['family']}.safetensors", write, {"select": chosen})
