"""What the recall study can be told, and its presets. `quick` is zoo:atlas in about three minutes on two cores."""

from dataclasses import dataclass, field, replace

__all__ = ["PRESETS", "Prompts", "RecallConfig", "Selection", "Testing"]


@dataclass(frozen=True)
class Prompts:
    """Which prompts are asked.

    Attributes:
        variant: what passages are about: "nonce", "shared", "real" or "contradict" (see `data.puzzles`).
        transfer: a second variant the chosen sets are tested on, and on which selectivity is measured; with "shared"
            all four cells show the same passage, so that tasks differ in the entity asked about alone.
        items: pairs of countries x relation x direction to draw from.
        discovery: prompts per cell to score units on; all statistics that choose anything use these alone.
        validation: prompts per cell, of the same side, that choose how many units to take.
        test: prompts per cell on other countries: as many in seen skeletons and as many in unseen ones.
        least: fewest prompts per cell that must be answered right for the study to go on.
    """

    variant: str = "nonce"
    transfer: str = "shared"
    items: int = 96
    discovery: int = 48
    validation: int = 32
    test: int = 48
    least: int = 8


@dataclass(frozen=True)
class Selection:
    """How units are scored and sets chosen.

    Attributes:
        ig_steps: points of integrated gradients (EAP-IG: Hanna et al. 2024 use 5).
        head_shares: sizes of head sets to choose from, as shares of all heads.
        neuron_shares: sizes of neuron sets to choose from, as shares of all neurons.
        checked_neurons: neurons patched exactly, to check the estimates against (half the best-scored, half random).
        checked_edges: edges path-patched exactly, the same way; 0 leaves edges out.
    """

    ig_steps: int = 5
    head_shares: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    neuron_shares: tuple[float, ...] = (0.002, 0.01, 0.03, 0.1)
    checked_neurons: int = 192
    checked_edges: int = 48


@dataclass(frozen=True)
class Testing:
    """Nulls and intervals.

    Attributes:
        null_sets: matched random pairs of sets behind the headline's p-value.
        level_nulls: the same for heads alone and neurons alone.
        shuffles: sets chosen with shuffled task labels.
        permutations: label permutations of the selectivity statistics.
        draws: bootstrap resamples.
        alpha: level of every test.
    """

    null_sets: int = 200
    level_nulls: int = 40
    shuffles: int = 20
    permutations: int = 1000
    draws: int = 2000
    alpha: float = 0.05


@dataclass(frozen=True)
class RecallConfig:
    """The study's configuration.

    Attributes:
        model: Hub id, folder or zoo:NAME of a causal language model.
        seed: of prompts, splits, nulls and resampling.
        dtype: weights' type; "auto" keeps the checkpoint's (float16 becomes float32 on a CPU).
        device: where to run; "auto" takes a GPU where there is one.
        batch: prompts in one forward pass or sweep.
        memory_budget: bytes of activations a sweep may hold beyond its recording.
        paper_compat: also rerun the authors' layer and head statistics on the authors' prompts.
        prompts: which prompts.
        selection: how sets are chosen.
        testing: nulls and intervals.
    """

    model: str = "zoo:atlas"
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    batch: int = 64
    memory_budget: str = "2GiB"
    paper_compat: bool = False
    prompts: Prompts = field(default_factory=Prompts)
    selection: Selection = field(default_factory=Selection)
    testing: Testing = field(default_factory=Testing)


_FULL = RecallConfig(
    model="Qwen/Qwen2.5-7B-Instruct",
    dtype="bfloat16",
    batch=16,
    memory_budget="16GiB",
    paper_compat=True,
    prompts=Prompts(items=240, discovery=128, validation=64, test=128, least=24),
    selection=Selection(
        head_shares=(0.005, 0.01, 0.02, 0.05), neuron_shares=(0.0001, 0.0005, 0.002, 0.01), checked_neurons=512
    ),
    testing=Testing(null_sets=400, level_nulls=200),
)

PRESETS = {
    "quick": RecallConfig(),
    "full": _FULL,
    "full-llama": replace(_FULL, model="meta-llama/Llama-3.2-3B-Instruct"),
}
