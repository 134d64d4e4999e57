"""The goals, in the unit of each benchmark: smaller is better, everything is relative to the plain reference.

A goal says at most how much of the reference's time our tool may take (or how much at all), and, where one is set, how
many times faster than the best peer, or than one other way, it must be.
"""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["BENCHES", "GOALS", "Bench", "Goal"]


class Bench(NamedTuple):
    """A benchmark: what it is called, its unit, and where an adapter offers it.

    Attributes:
        title, unit: for the page.
        adapter: what follows the tool's name in the name of the module of peers/ that offers it.
        offer: the function of that module; empty means the benchmark's own name.
    """

    title: str
    unit: str
    adapter: str = ""
    offer: str = ""


STEP = "a step of plain hooks that keep the rotation orthonormal as torch does"
BENCHES = {
    "capture": Bench("Capture of all neurons and residuals, 64 x 128 tokens", "the bare HF forward with logits"),
    "residual_sweep": Bench("Residual patching, 8 layers x 16 positions, 16 pairs", "the plain loop"),
    "head_sweep": Bench("Head patching, 8 layers x 8 heads, 16 pairs", "the plain loop"),
    "attribution": Bench("Attribution of 12 288 neurons x 16 positions, 16 pairs", "the bare HF forward"),
    "das_step": Bench(
        "A step of fitting a DAS rotation, rank 128, 16 pairs, after layer 4 of 8", STEP, "_das", "fitters"
    ),
    "das_together": Bench(
        "A step of fitting six rotations over the same prompts, or one at each of three layers",
        f"{STEP}, one after another",
        "_das",
        "prepare",  # only a tool that prepares several fits at once
    ),
    "das_evaluation": Bench(
        "What 10 000 pairs of 1 000 prompts say under a rotation", "a pair of the plain hooks", "_das", "fitters"
    ),
    "das_memory": Bench(
        "Peak memory of fitting a DAS rotation for an epoch", "the peak of the plain hooks", "_das", "fitters"
    ),
    "auroc": Bench(
        "AUROC of 10 000 neurons over 10 000 texts, one in ten positive, float16 in memory",
        "scikit-learn's roc_auc_score, a neuron after another (for `screen` average_precision_score too)",
        "_toxicity",
    ),
    "head_basis": Bench(
        "Right singular vectors of a head of 32 000 x 1 024, float32, condition 1e3",
        "torch.linalg.svd of it in float32",
        "_toxicity",
    ),
    "edit_overhead": Bench(
        "Generation under EigenShift, a quarter of the directions out: 16 prompts x 64 new tokens, vocabulary 32 000",
        "the same model's own generate, without a hook",
        "_toxicity",
    ),
    "pretraining": Bench(
        "Pretraining the laptop recipe's model (5 M parameters): updates of 2 x 16 rows of 256 tokens, bfloat16",
        "a plain PyTorch loop",
        "_multilingual",
    ),
    "importance": Bench(
        "Importance of units in twelve languages, 10 parallel sentences in each, the laptop recipe's model, float32",
        "forward pass and loss of the same batches, without gradients",
        "_multilingual",
    ),
    "minhash": Bench(
        "Near-duplicates by MinHash among 5 000 documents of about 40 words and 1 000 planted near-duplicates of them",
        "MinHash in plain NumPy, a document after another",
        "_multilingual",
    ),
    "corpus_memory": Bench(
        "Peak memory of the corpus stages of a build, four times as many documents",
        "the peak with a quarter of the documents",
        "_multilingual",
        "growth",
    ),
    "regressors": Bench(
        "Epochs of fitting embedding regressors (width 64, two blocks) to 2 200 rows, one seed and eight together",
        "a plain PyTorch loop of one seed",
        "_nuclear",
    ),
    "helix": Bench("A helix that grows through 170 rows of three components", "SciPy from 24 periods", "_nuclear"),
}


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Attributes:
        limit: at most so much of the reference.
        best_peer: at least so many times better than the best peer.
        amount: at most so many seconds (or MiB).
        rival: `best_peer` is not about peers but about the other way whose name begins so.
    """

    limit: float | None = None
    best_peer: float | None = None
    amount: float | None = None
    rival: str = ""


GOALS = {
    ("capture", "memory"): Goal(1.03),
    ("capture", "memory, no logits"): Goal(0.95),
    ("capture", "disk"): Goal(1.05),
    ("capture", "disk, no logits"): Goal(0.95),
    ("residual_sweep", "grid"): Goal(0.25, 3.0),
    ("head_sweep", "grid"): Goal(0.40, 2.4),
    ("attribution", "each position"): Goal(3.4),
    ("attribution", "summed over positions"): Goal(3.4),
    ("das_step", "last position, prepared"): Goal(amount=0.060),
    ("das_step", "last position, one epoch"): Goal(amount=0.210),
    ("das_step", "mid-prompt, prepared"): Goal(best_peer=3.0),
    ("das_together", "last position, six, prepared"): Goal(best_peer=2.0, rival="the same one after another"),
    ("das_together", "mid-prompt, six, prepared"): Goal(best_peer=2.0, rival="the same one after another"),
    ("das_evaluation", "a pair"): Goal(best_peer=4.0),
    ("das_memory", "one epoch"): Goal(best_peer=1.0, rival="pyvene"),
    ("auroc", "areas"): Goal(1 / 20, 3.0, rival="torch"),
    ("auroc", "areas within lengths"): Goal(1 / 20, 3.0, rival="torch"),
    ("auroc", "screen"): Goal(1 / 20),
    ("auroc", "areas, memory"): Goal(amount=64),  # a chunk as it was read and its codes, 32 MiB each
    ("auroc", "screen, memory"): Goal(amount=64),
    ("auroc", "areas of 835,584 neurons, projected"): Goal(amount=170),
    ("head_basis", "axes"): Goal(1 / 2.5),
    ("head_basis", "axes, memory"): Goal(amount=75),  # 0.6 of the head
    ("edit_overhead", "eigenshift"): Goal(1.05),
    ("edit_overhead", "identity edit"): Goal(1.05),
    ("pretraining", "whole rows"): Goal(1 / 0.9),  # nine tenths of the plain loop's tokens a second
    ("pretraining", "packed documents"): Goal(1 / 0.9),
    ("importance", "neurons"): Goal(3.5),
    ("minhash", "in memory"): Goal(best_peer=1.0, rival="datatrove"),
    ("minhash", "by way of the disk"): Goal(best_peer=1.0, rival="datatrove"),
    ("corpus_memory", "filter"): Goal(1.25),
    ("corpus_memory", "deduplicate"): Goal(1.25),
    ("helix", "fit"): Goal(amount=2.0),
    ("regressors", "one seed"): Goal(1.0),
    ("regressors", "8 seeds"): Goal(2.5, best_peer=3.0, rival="plain PyTorch"),
}
