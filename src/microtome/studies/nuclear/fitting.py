"""The steps that train: one for each arm, several seeds in one fit, resumed from a checkpoint beside the record."""

from pathlib import Path

import numpy as np
import torch

from microtome.core.seeds import derive
from microtome.records import Stage, StageOutput, Told
from microtome.studies.nuclear.subject import Arm, Subject
from microtome.training.regression import Fitted, Schedule, fit_seeds, log_spaced, numbers_of, untrained

__all__ = ["fit", "fitted_of", "seeds_of", "snapshots_of", "untrained_of"]


def seeds_of(subject: Subject, count: int) -> tuple[int, ...]:
    """Return the seeds of some networks."""
    return tuple(derive(subject.config.seed, "network", k) for k in range(count))


def schedule_of(subject: Subject, arm: Arm) -> Schedule:
    """Return how an arm is trained."""
    chosen = subject.config.fitting
    residual = arm.name == "residual"
    epochs = chosen.epochs if residual else chosen.direct_epochs
    return Schedule(
        epochs=epochs,
        batch=chosen.batch,
        peak=chosen.peak,
        weight_decay=chosen.weight_decay if residual else chosen.direct_decay,
        patience=chosen.patience,
        snapshots=log_spaced(epochs, chosen.snapshots) if arm.name == "direct" else (),
    )


def fit(subject: Subject, arm: Arm, checkpoint: Path, told: Told) -> StageOutput:
    """Train an arm's networks; its checkpoint goes once the stage is made."""
    config = subject.config.fitting
    floor = config.floor if config.by_uncertainty and arm.name in ("residual", "direct") else None
    parts = [subject.train[:, None], *([subject.inner.held] if subject.inner is not None else [])]
    train, *held = (numbers_of(arm.tasks, part, arm.scaling, floor=floor) for part in parts)
    fitted = fit_seeds(
        subject.shape,
        train,
        held[0] if held else None,
        schedule_of(subject, arm),
        seeds=seeds_of(subject, config.seeds),
        checkpoint=checkpoint,
        progress=lambda done, total, line: told(done / total),
    )
    checkpoint.unlink(missing_ok=True)
    places = {seed: place for place, seed in enumerate(fitted.seeds)}
    history = [
        {"epoch": h.epoch, "seed": places[h.seed], "train": h.train, "held": h.held, "arm": arm.name}
        for h in fitted.history
    ]
    arrays = {f"weights.{arm.name}": fitted.weights.numpy()}
    for epoch, tables in fitted.snapshots.items():
        arrays |= {f"snapshot.{arm.name}.{axis}.{epoch}": table.numpy() for axis, table in tables.items()}
    return StageOutput(
        tables={f"history_{arm.name}": history},
        arrays=arrays,
        values={f"epochs_{arm.name}": list(fitted.epoch), f"rows_{arm.name}": len(train)},
    )


def fitted_of(subject: Subject, stage: Stage, arm: str) -> Fitted:
    """Return the networks that a committed stage holds."""
    weights = torch.from_numpy(np.array(stage.array(f"weights.{arm}")))
    epochs = tuple(stage.value(f"epochs_{arm}"))
    return Fitted(subject.shape, seeds_of(subject, len(weights)), weights, epochs)


def untrained_of(subject: Subject) -> Fitted:
    """Return the networks that every arm began with."""
    return untrained(subject.shape, seeds_of(subject, subject.config.fitting.seeds))


def snapshots_of(stage: Stage, arm: str, axis: str) -> dict[int, np.ndarray]:
    """Return epoch -> the embedding tables of every seed, [seed, rows, embedding]."""
    prefix = f"snapshot.{arm}.{axis}."
    found = {int(name.removeprefix(prefix)): stage.array(name) for name in stage.arrays if name.startswith(prefix)}
    return dict(sorted(found.items()))
