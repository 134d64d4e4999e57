"""What a basis, a fitter, a measure and an output metric must offer; nothing else is asked of them.

Arrays are torch tensors or numpy arrays as the room needs; this module imports neither. Axis names used in shape
strings across the project: batch, seq, d_model, d_mlp, head, d_head, query, key, vocab, expert, channel.
"""

from typing import Any, Protocol, runtime_checkable

__all__ = ["Featurizer", "Fitter", "Measure", "Metric"]


@runtime_checkable
class Featurizer(Protocol):
    """A basis: ``encode`` maps activations [..., d] to features [..., m]; ``decode`` maps them back (maybe lossily)."""

    def encode(self, x: Any) -> Any:
        """Return the features of `x`."""
        ...

    def decode(self, f: Any) -> Any:
        """Return the activation the features stand for."""
        ...


@runtime_checkable
class Fitter(Protocol):
    """Running state that becomes a frozen Featurizer."""

    def update(self, batch: Any, **labels: Any) -> None:
        """Take in one batch."""
        ...

    def finish(self) -> Featurizer:
        """Return the fitted, frozen basis."""
        ...


@runtime_checkable
class Measure(Protocol):
    """Activations in, one number per unit out; streams (`update`), shards (`merge`) and ends (`finish`)."""

    def update(self, activations: Any, **labels: Any) -> None:
        """Take in one batch."""
        ...

    def merge(self, other: Any) -> Any:
        """Join the state of another shard."""
        ...

    def finish(self) -> Any:
        """Return the scores."""
        ...


@runtime_checkable
class Metric(Protocol):
    """What a sweep reads at the model's output.

    ``positions`` is "last" or a LongTensor [batch] or [batch, n]: the positions it looks at. Calling it with logits
    [rows, n, vocab] and the item indices [rows] gives one value (or m values) per row.
    """

    positions: Any

    def __call__(self, logits: Any, rows: Any) -> Any:
        """Return [rows] or [rows, m]."""
        ...
