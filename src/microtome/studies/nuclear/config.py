"""What the nuclear study can be told, and its presets. `quick` is the built-in theory table, two minutes on two cores.

`--table FILE` or `--table ADDRESS` takes a real table: the IAEA's csv, the AMDC's fixed-width file, or a csv of one's
own in the compact schema (z,n,binding_kev and more); an address is fetched, checked against `--sha256` if that is
given, and its citation stands in the report.
"""

from dataclasses import dataclass, field

from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["BUILT_IN", "PRESETS", "Cuts", "Fitting", "Modular", "MultiTask", "Network", "NuclearConfig", "Reading"]

BUILT_IN = "built-in"
BASES = ("semf", "bw2")


@dataclass(frozen=True)
class Cuts:
    """Which nuclei, and how they are divided.

    Attributes:
        measured: leave out masses extrapolated from neighbours.
        min_z: fewest protons.
        min_n: fewest neutrons.
        max_uncertainty: largest uncertainty of the binding energy in MeV; 0: any.
        share: of the nuclei to hold out.
        keep: nuclei of every Z and of every N that stay in training.
        inner: share of the training nuclei that tells when to stop, where `fitting.patience` asks for that.
    """

    measured: bool = True
    min_z: int = 8
    min_n: int = 8
    max_uncertainty: float = 0.0
    share: float = 0.1
    keep: int = 3
    inner: float = 0.05


@dataclass(frozen=True)
class Network:
    """The regressor's size.

    Attributes:
        embedding: numbers in an embedding.
        width: of the residual stream.
        blocks: residual blocks.
        mixing: `concat` or `attention` (`training.regression.network`).
        spread: standard deviation of embeddings before training; large ones memorise, small ones are shaped.
    """

    embedding: int = 64
    width: int = 64
    blocks: int = 2
    mixing: str = "concat"
    spread: float = 0.03


@dataclass(frozen=True)
class Fitting:
    """How the arms are trained.

    Attributes:
        seeds: networks of each arm, fitted together.
        epochs: of the arm that learns the residual to a formula.
        direct_epochs: of the arms that learn total energies, and of the noise.
        batch: rows an update.
        peak: highest learning rate.
        weight_decay: of matrices and embeddings, in the residual arm.
        direct_decay: the same in the others, which have more to hold.
        patience: epochs without a better evaluation on inner held-out nuclei after which a seed stops; 0: every
            training nucleus is trained on for all epochs, for a few inner nuclei at the chart's edge decide by chance.
        by_uncertainty: weigh nuclei by their stated uncertainty.
        floor: least uncertainty then, in units of a task's scale (0.1 MeV for binding energies).
        snapshots: of the embeddings, evenly in the logarithm of epochs.
    """

    seeds: int = 5
    epochs: int = 240
    direct_epochs: int = 200
    batch: int = 256
    peak: float = 1e-2
    weight_decay: float = 2.0
    direct_decay: float = 0.03
    patience: int = 0
    by_uncertainty: bool = False
    floor: float = 1.0
    snapshots: int = 9


@dataclass(frozen=True)
class Reading:
    """Nulls, intervals, and how far to look.

    Attributes:
        draws: resamples, and shuffles of the geometry.
        helix_draws: shuffles of the helix.
        components: principal components looked at.
        drifts: degrees of the polynomial that a helix's axis may follow; the first is the headline.
        points: of the topography, along each side.
        contributions: of the penultimate layer that are matched with terms.
        terms: of the largest formula searched.
    """

    draws: int = 399
    helix_draws: int = 99
    components: int = 5
    drifts: tuple[int, ...] = (1, 3)
    points: int = 40
    contributions: int = 12
    terms: int = 7


@dataclass(frozen=True)
class MultiTask:
    """One task against several, under a split by nuclei and under the leaky one.

    Attributes:
        tasks: besides the binding energy; those that the table has none of are left out.
        seeds: networks of each cell.
        epochs: passes over the numbers, in every cell.
    """

    tasks: tuple[str, ...] = ("sn", "qbm", "radius")
    seeds: int = 3
    epochs: int = 80


@dataclass(frozen=True)
class Modular:
    """The warm-up: addition modulo a prime.

    Attributes:
        p: the prime.
        steps: of full-batch training.
        share: of the pairs trained on.
    """

    p: int = 31
    steps: int = 600
    share: float = 0.8


@dataclass(frozen=True)
class NuclearConfig:
    """The study's configuration.

    Attributes:
        table: "built-in" for the theory table; or a file, or an address.
        format: of the file; empty: told from its content.
        sha256: what the file must hash to; empty: not checked.
        residual_of: formula, fitted to the training nuclei, whose residual the accurate arm learns: semf or bw2; empty:
            bw2, or semf where that leaves nothing to learn (the built-in table is made of bw2).
        twin: formula, fitted likewise, that fills in the theory twin.
        seed: of every draw.
        cuts: which nuclei.
        network: the regressor's size.
        fitting: how the arms are trained.
        reading: nulls and intervals.
        multitask: one task against several.
        modular: the warm-up.
    """

    table: str = BUILT_IN
    format: str = ""
    sha256: str = ""
    residual_of: str = ""
    twin: str = "semf"
    seed: int = 0
    cuts: Cuts = field(default_factory=Cuts)
    network: Network = field(default_factory=Network)
    fitting: Fitting = field(default_factory=Fitting)
    reading: Reading = field(default_factory=Reading)
    multitask: MultiTask = field(default_factory=MultiTask)
    modular: Modular = field(default_factory=Modular)

    def __post_init__(self):
        for name, formula in (("residual_of", self.residual_of), ("twin", self.twin)):
            if formula not in BASES and not (name == "residual_of" and not formula):
                raise ConfigError(
                    f"No formula '{formula}' for {name}; there are {' and '.join(BASES)}: use one."
                    f"{did_you_mean(formula, BASES)}"
                )
        least = {"fitting.seeds": self.fitting.seeds, "multitask.seeds": self.multitask.seeds,
                 "multitask.epochs": self.multitask.epochs, "reading.points": self.reading.points - 1}  # fmt: skip
        if wrong := [name for name, value in least.items() if value < 1]:
            raise ConfigError(f"{wrong[0]} was given too small; give at least {2 if 'points' in wrong[0] else 1}.")
        if not self.reading.drifts:
            raise ConfigError("reading.drifts names no degree; give at least one, such as 1.")


_FULL = NuclearConfig(
    table="data/nuclear/ame2020.csv",
    network=Network(embedding=256, width=256),
    fitting=Fitting(seeds=8, epochs=2000, direct_epochs=4000, snapshots=15),
    reading=Reading(draws=999, helix_draws=999, drifts=(1, 3, 5), points=96, terms=8),
    multitask=MultiTask(tasks=("z", "n", "radius", "qa", "qbm", "qbm_n", "qec", "sn", "sp"), seeds=5, epochs=500),
    modular=Modular(p=53, steps=2000),
)

PRESETS = {
    "quick": NuclearConfig(),
    "table": NuclearConfig(table="data/nuclear/ame2020.csv"),
    "full": _FULL,
}
