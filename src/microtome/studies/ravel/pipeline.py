"""The study from top to bottom: ask what is known, draw pairs, choose a layer and settings, test beside controls.

Each step is a stage of the record, so a run that is stopped goes on at the first unfinished one. Featurizers are fitted
on training pairs, layer and settings chosen on validation pairs; verdicts rest on test pairs.
"""

from collections.abc import Callable
from pathlib import Path

from microtome.records import Record, Stage, Steps
from microtome.studies.ravel import asking, fitting, testing
from microtome.studies.ravel.claims import judge
from microtome.studies.ravel.config import RavelConfig
from microtome.studies.ravel.subject import load_subject
from microtome.studies.ravel.views import views

__all__ = ["run"]

# name -> share of the time on zoo:atlas, so that the estimate of the time left is even
SHARES = {"model": 1, "table": 1, "known": 10, "pairs": 2, "layers": 40, "fits": 90, "controls": 30, "test": 30}


def run(config: RavelConfig, record: Record, progress: Callable[[float, float, str], None] | None = None) -> None:
    """Run the study into an open record.

    Args:
        config: the study's configuration.
        record: takes stages, featurizers, claims and views; completions are kept in a folder beside it.
        progress: called with (done, total, step).

    Raises:
        ModelError, DataError: no such model or table, or a model that knows too little of it.
    """
    step = Steps(record, SHARES, progress)
    subject = load_subject(config)
    model = step("model", lambda told: asking.describe(subject))
    table = step("table", lambda told: asking.table(subject))

    # what does the model know, and which pairs does that leave?
    cache = record.path.parent / "completions"
    known = step("known", lambda told: asking.ask(subject, cache, told), model, table)
    subject.know(asking.instance_of(subject, known))
    pairs = step("pairs", lambda told: asking.pairs(subject), known)

    # where, and with which settings? on validation pairs
    layers = step("layers", lambda told: fitting.layers(subject, told), pairs)
    layer = int(layers.value("layer"))
    fitted = step("fits", lambda told: fitting.fits(subject, layer, told), pairs, layers)
    _keep(record, fitted)

    # on test pairs, beside what must be beaten
    control = step("controls", lambda told: testing.controls(subject, fitted, told), pairs, fitted)
    tested = step("test", lambda told: testing.test(subject, table, fitted, control, told), pairs, fitted, control)

    for claim, verdict in judge(tested):
        record.judge(claim, verdict)
    record.views(views(record, config))


def _keep(record: Record, fitted: Stage) -> None:
    """Leave every chosen basis as a file that `load_featurizer` reads."""
    for name in (n for n in fitted.arrays if n.startswith("basis.")):
        data = fitted.array(name).tobytes()

        def write(path: Path, data: bytes = data) -> None:
            path.write_bytes(data)

        record.add_artefact(f"{name.removeprefix('basis.')}.safetensors", write, {"fits": fitted})
