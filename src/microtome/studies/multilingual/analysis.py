"""What the analysis of a multilingual model can be told. Half of the parallel sentences find, the other half test."""

from dataclasses import dataclass

import numpy as np

from microtome.core.errors import ConfigError

__all__ = ["COMPONENTS", "THIRDS", "Analysis", "thirds"]

COMPONENTS = (
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.heads",
    "attn.out",
    "mlp.up",
    "mlp.neurons",
    "mlp.out",
)
"""Eight parts of a block, as many as the report has; it does not name its own (arXiv 2408.06273, section 6.1)."""

THIRDS = ("first third", "middle third", "last third")


def thirds(blocks: int) -> np.ndarray:
    """Return the number of the third of the depth that each block is in, [blocks]."""
    return np.arange(blocks) * 3 // max(blocks, 1)


@dataclass(frozen=True)
class Analysis:
    """What is read of a model on parallel sentences, and how much.

    Attributes:
        components: parts of each block whose neurons are weighed; those of the eight usual ones that a model lacks are
            left out and named in the record.
        sentences: most parallel sentences, the same in every language; half of them find, half test.
        longest: most tokens of a sentence; the rest is cut off.
        batch_tokens: tokens in one forward pass.
        draws: bootstrap resamples of the sentences.
        share: of all neurons that are chosen as language neurons (LAPE).
        quantile: of all firing rates, the bar from which a neuron counts as active.
        shuffles: times the sentences' languages are shuffled, the null of the sets.
        resamples: bootstrap resamples behind the spread of the sets' counts; each costs memory as a language does.
        checked: random neurons ablated one by one beside their importance.
        check_sentences: sentences, over all languages, on which they are.
        ablated: most neurons of a language's set that are ablated, lowest entropy first; 0: the whole set.
        ablation_sentences: most test sentences on which sets are ablated.
        random: random sets, matched layer by layer, ablated beside each language's set; at least 20 for a p below 0.05.
        control_importance: draw as many beside the sets that importance chooses.
        similar: most sentences whose states are compared.
        depths: 0 for the embedding, i + 1 for block i: where matrices of languages are shown; empty: three.
        probe_strength: penalty of the probe of the language.
        dynamics_sentences: most sentences for each checkpoint.
        memory_budget: bytes of activations that an ablation may hold.
        seed: of every draw.
    """

    components: tuple[str, ...] = COMPONENTS
    sentences: int = 400
    longest: int = 64
    batch_tokens: int = 2048
    draws: int = 200
    share: float = 0.01
    quantile: float = 0.95
    shuffles: int = 20
    resamples: int = 20
    checked: int = 200
    check_sentences: int = 12
    ablated: int = 0
    ablation_sentences: int = 24
    random: int = 20
    control_importance: bool = False
    similar: int = 200
    depths: tuple[int, ...] = ()
    probe_strength: float = 0.01
    dynamics_sentences: int = 100
    memory_budget: str = "2GiB"
    seed: int = 0

    def __post_init__(self):
        if not self.components:
            raise ConfigError("No components were asked for; name at least one, e.g. 'mlp.neurons'.")
        least = {
            "sentences": 12,
            "longest": 2,
            "batch_tokens": 1,
            "draws": 20,
            "shuffles": 1,
            "resamples": 2,
            "checked": 10,
            "check_sentences": 1,
            "ablated": 0,
            "ablation_sentences": 3,
            "random": 1,
            "similar": 6,
            "dynamics_sentences": 12,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name} = {getattr(self, name)} was asked for; give at least {smallest}.")
        for name in ("share", "quantile"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} was asked for; give one between 0 and 1.")
        if self.probe_strength <= 0:
            raise ConfigError(f"probe_strength = {self.probe_strength} was asked for; give one above 0.")
