"""The goals, in the unit of each benchmark: smaller is better, everything is relative to the plain reference.

A goal says at most how much of the reference's time our tool may take, and, where one is set, how many times faster
than the best peer it must be.
"""

from dataclasses import dataclass

__all__ = ["BENCHES", "GOALS", "Goal"]

BENCHES = {  # title and unit
    "capture": ("Capture of all neurons and residuals, 64 x 128 tokens", "the bare HF forward with logits"),
    "residual_sweep": ("Residual patching, 8 layers x 16 positions, 16 pairs", "the plain loop"),
    "head_sweep": ("Head patching, 8 layers x 8 heads, 16 pairs", "the plain loop"),
    "attribution": ("Attribution of 12 288 neurons x 16 positions, 16 pairs", "the bare HF forward"),
}


@dataclass(frozen=True)
class Goal:
    """At most `limit` of the reference, and at least `best_peer` times the speed of the best peer."""

    limit: float
    best_peer: float | None = None


GOALS = {
    ("capture", "memory"): Goal(1.03),
    ("capture", "memory, no logits"): Goal(0.95),
    ("capture", "disk"): Goal(1.05),
    ("capture", "disk, no logits"): Goal(0.95),
    ("residual_sweep", "grid"): Goal(0.25, 3.0),
    ("head_sweep", "grid"): Goal(0.40, 2.4),
    ("attribution", "each position"): Goal(3.4),
    ("attribution", "summed over positions"): Goal(3.4),
}
