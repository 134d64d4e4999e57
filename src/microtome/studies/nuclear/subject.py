"""What is studied, derived once: the table, its division, and the arms that networks are trained on.

    residual   B less a formula that was fitted to training nuclei: the accurate model
    direct     B itself: the network must hold the bulk of it
    theory     the B that a fitted formula says of the same nuclei: only the formula can be learnt
    noise      a standard normal number for each nucleus: nothing can be learnt
    untrained  the direct arm's networks before training

All see the same nuclei; formulas and scalings know training nuclei alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from microtome.core.errors import DataError
from microtome.core.seeds import derive
from microtome.data.fetch import Progress
from microtome.data.nuclear import (
    Formula,
    NuclearTable,
    Scaling,
    Split,
    TaskTable,
    read_table,
    split,
    standardise,
    tasks,
    theory_table,
    twin,
)
from microtome.measures.nuclear_mass import fit_mass_formula
from microtome.studies.nuclear.config import BUILT_IN, NuclearConfig
from microtome.training.regression import Fitted, Shape

__all__ = ["ARMS", "TABLES", "Arm", "Subject", "load_subject"]

ARMS = {
    "residual": "residual network",
    "direct": "direct network",
    "theory": "theory twin",
    "noise": "noise",
    "untrained": "untrained",
}
"""Arms by name, with what a reader calls them."""

TABLES = {"z": "Z", "n": "N"}
"""Embedding tables by name."""

_NOTHING = 1e-3  # MeV: a formula that leaves no more is the table's own


@dataclass(frozen=True, eq=False)
class Arm:
    """One thing that networks are trained to predict.

    Attributes:
        name: a key of `ARMS`.
        tasks: the numbers the network is given, one column.
        base: what is added to them to give the quantity, MeV.
        scaling: of the numbers.
    """

    name: str
    tasks: TaskTable
    base: Float[np.ndarray, "nucleus"]
    scaling: Scaling

    @property
    def truth(self) -> Float[np.ndarray, "nucleus"]:
        """The quantity: B in MeV (the theory's own for the twin), or the noise."""
        return self.tasks.values[:, 0] + self.base

    def quantity(self, standardised: Float[np.ndarray, "*seed nucleus"]) -> Float[np.ndarray, "*seed nucleus"]:
        """Return predictions of the quantity from the network's outputs."""
        return standardised * self.scaling.std[0] + self.scaling.mean[0] + self.base

    def predict(self, fitted: Fitted) -> Float[np.ndarray, "seed nucleus"]:
        """Return every seed's prediction of the quantity for every nucleus of the table."""
        return self.quantity(fitted.predict(self.tasks.table.z, self.tasks.table.n))


@dataclass(frozen=True, eq=False)
class Subject:
    """The table under study and its division.

    Attributes:
        config: the configuration.
        table: the nuclei, cut.
        outer: training and held-out nuclei.
        inner: the training nuclei divided into those that train and those that tell when to stop; None: all train.
    """

    config: NuclearConfig
    table: NuclearTable
    outer: Split
    inner: Split | None

    @property
    def train(self) -> Bool[np.ndarray, "nucleus"]:
        """Nuclei trained on."""
        return (self.inner or self.outer).train[:, 0]

    @property
    def held(self) -> Bool[np.ndarray, "nucleus"]:
        """Nuclei held out; they choose nothing."""
        return self.outer.held[:, 0]

    @property
    def shape(self) -> Shape:
        """The size of every arm's networks."""
        size = self.config.network
        return Shape(
            protons=int(self.table.z.max()) + 1,
            neutrons=int(self.table.n.max()) + 1,
            embedding=size.embedding,
            width=size.width,
            blocks=size.blocks,
            mixing=size.mixing,
            spread=size.spread,
        )

    @cached_property
    def formulas(self) -> Mapping[str, Formula]:
        """Mass formulas fitted to the training nuclei, the inner held-out ones included."""
        known = self.table.take(self.outer.train_nuclei)
        return {name: fit_mass_formula(known, name).formula for name in ("semf", "bw2")}

    @cached_property
    def residual_of(self) -> str:
        """The formula whose residual the accurate arm learns."""
        if self.config.residual_of:
            return self.config.residual_of
        known = self.table.take(self.outer.train_nuclei)
        left = known.binding - self.formulas["bw2"].binding(known.z, known.n)
        return "bw2" if np.abs(left).max() > _NOTHING else "semf"

    def numbers(self, axis: str) -> np.ndarray:
        """Return the numbers of protons ("z") or neutrons ("n") that training has seen, in order."""
        return np.unique(getattr(self.table, axis)[self.train])

    @cached_property
    def arms(self) -> Mapping[str, Arm]:
        """Arms by name, the untrained one left out: it is the direct arm's."""
        binding, z, n = self.outer.tasks, self.table.z, self.table.n
        known = self.formulas[self.residual_of].binding(z, n)
        nothing = np.zeros(len(self.table))
        theory = tasks(twin(self.table, self.formulas[self.config.twin]), ["binding"])
        noise = tasks(self.table, ["control"], seed=derive(self.config.seed, "noise"))
        found = {
            "residual": (replace(binding, values=binding.values - known[:, None]), known),
            "direct": (binding, nothing),
            "theory": (theory, nothing),
            "noise": (noise, nothing),
        }
        return {name: Arm(name, of, base, standardise(of, self.train[:, None])) for name, (of, base) in found.items()}


def load_subject(config: NuclearConfig, progress: Progress | None = None) -> Subject:
    """Return the table of a configuration, cut and divided.

    Args:
        config: the configuration.
        progress: called while a table is fetched.

    Raises:
        DataError: no such table, one that cannot be read, or too few nuclei to divide.
    """
    table = _table(config, progress)
    if len(table) < 100:
        raise DataError(
            f"{len(table)} nuclei of '{config.table}' are left after the cuts; the study needs at least 100: relax the "
            "cuts or give a longer table."
        )
    numbers, cuts, seed = tasks(table, ["binding"]), config.cuts, config.seed
    outer = split(numbers, "nucleus", seed=derive(seed, "outer"), share=cuts.share, keep=cuts.keep)
    if not config.fitting.patience:
        return Subject(config, table, outer, None)
    inner = split(numbers, "nucleus", seed=derive(seed, "inner"), share=cuts.inner, keep=cuts.keep, within=outer.train)
    return Subject(config, table, outer, inner)


def _table(config: NuclearConfig, progress: Progress | None) -> NuclearTable:
    cuts = config.cuts
    chosen = {
        "measured": cuts.measured,
        "min_z": cuts.min_z,
        "min_n": cuts.min_n,
        "max_uncertainty": cuts.max_uncertainty or None,
    }
    if config.table == BUILT_IN:
        return theory_table().cut(**chosen)
    return read_table(
        config.table,
        format=config.format or None,
        sha256=config.sha256 or None,
        progress=progress,
        **chosen,
    )
