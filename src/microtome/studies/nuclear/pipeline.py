"""The study from top to bottom: the data, the arms' networks, their errors, their shape, its use, their physics.

Each step is a stage of the record, so a run that is stopped goes on at the first unfinished one; within a fit it goes
on at the last checkpoint. Held-out nuclei choose nothing but which of equal networks is looked at closely (the one in
the middle).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from microtome.core.config import to_toml
from microtome.records import Record, Stage, Steps
from microtome.studies.nuclear import causes, comparing, describing, embeddings, fitting, physics
from microtome.studies.nuclear.claims import judge
from microtome.studies.nuclear.config import NuclearConfig
from microtome.studies.nuclear.holdout import holdout
from microtome.studies.nuclear.subject import Subject, load_subject
from microtome.studies.nuclear.views import views
from microtome.training.regression import Fitted
from microtome.training.regression.saving import save_fitted

__all__ = ["run"]

# name -> share of the time on two cores, so that the estimate of the time left is even
SHARES = {"data": 1, "fit_residual": 12, "fit_direct": 10, "fit_theory": 10, "fit_noise": 10, "holdout": 1,
          "geometry": 2, "helices": 4, "evolution": 1, "replacements": 1, "maps": 1, "penultimate": 1, "symbolic": 2,
          "multitask": 21, "modular": 3}  # fmt: skip
TRAINED = ("residual", "direct", "theory", "noise")


def run(config: NuclearConfig, record: Record, progress: Callable[[float, float, str], None] | None = None) -> None:
    """Run the study into an open record.

    Args:
        config: the study's configuration.
        record: takes stages, networks, claims and views; checkpoints of a fit are kept beside it while it runs.
        progress: called with (done, total, step).

    Raises:
        DataError, ConfigError: no such table, one that cannot be read, or too few nuclei in it.
    """
    subject = load_subject(config, _fetching(progress))
    step = Steps(record, SHARES, progress)
    data = step("data", lambda told: describing.data(subject))
    stages = {arm: _fit(subject, record, step, arm, data) for arm in TRAINED}
    fitted = {arm: fitting.fitted_of(subject, stage, arm) for arm, stage in stages.items()}
    fitted["untrained"] = fitting.untrained_of(subject)
    held = step("holdout", lambda told: holdout(subject, fitted), *stages.values())

    # which shape do the embeddings have, and how did it come about?
    step("geometry", lambda told: embeddings.geometry(subject, fitted, held, told), held)
    step("helices", lambda told: embeddings.helices(subject, fitted, held, told), held)
    step("evolution", lambda told: embeddings.evolution(subject, stages["direct"], held), stages["direct"], held)

    # does the prediction need it, and what physics is in it?
    step("replacements", lambda told: causes.replacements(subject, fitted, held, told), held)
    step("maps", lambda told: causes.maps(subject, fitted, held), held)
    step("penultimate", lambda told: physics.penultimate(subject, fitted, held, told), held)
    step("symbolic", lambda told: physics.symbolic(subject, fitted, held, told), held)

    step("multitask", lambda told: comparing.multitask(subject, told), data)
    step("modular", lambda told: comparing.modular(subject, told))
    _keep(subject, record, fitted, stages)
    for claim, verdict in judge(record, subject):
        record.judge(claim, verdict)
    record.views(views(record, subject))


def _fit(subject: Subject, record: Record, step: Steps, arm: str, data: Stage) -> Stage:
    asked = hashlib.sha256(to_toml(subject.config).encode()).hexdigest()[:12]
    checkpoint = record.path.parent / "checkpoints" / f"{record.path.name}.{arm}.{asked}.pt"
    return step(f"fit_{arm}", lambda told: fitting.fit(subject, subject.arms[arm], checkpoint, told), data)


def _fetching(progress: Callable[[float, float, str], None] | None) -> Callable[[str, int, int | None], None] | None:
    """Return what tells the study's progress of a download: its name and how much has come."""
    if progress is None:
        return None
    total = sum(SHARES.values())
    return lambda name, done, size: progress(0.0, total, f"fetching {name}, {done / 1e6:.1f} MB")


def _keep(subject: Subject, record: Record, fitted: dict[str, Fitted], stages: dict[str, Stage]) -> None:
    """Leave the networks of every arm as a file that `training.regression.saving.load_fitted` reads."""
    for name, stage in stages.items():
        arm = subject.arms[name]
        about = {
            "arm": name,
            "table": subject.table.provenance.source,
            "mean": float(arm.scaling.mean[0]),
            "std": float(arm.scaling.std[0]),
            "formula": subject.residual_of if name == "residual" else "",
            "coefficients": list(subject.formulas[subject.residual_of].coefficients) if name == "residual" else [],
        }

        def write(path: Path, name: str = name, about: dict = about) -> None:
            save_fitted(fitted[name], path, about=about)

        record.add_artefact(f"{name}.safetensors", write, {"fit": stage})
