"""What is studied, derived once: the model, its sources in tokens, and the places where a flagged word comes next.

A place is a text cut off right before a flagged word: what the model makes of it there *generates* the word. The clean
places are as many, in texts of label 0 and each cut at the same token as a toxic one, because early and late tokens
differ in more than what is said (the paper's released code compares generated tokens with first ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.data.spans import flagged, tokenized
from microtome.edits.subspace import head_input
from microtome.engine.run import run
from microtome.features.head_basis import HeadBasis, head_basis, head_weight
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.zoo.untrained import untrained
from microtome.studies.toxicity.config import ToxicityConfig
from microtome.studies.toxicity.sources import HALVES, Sources, load_sources

__all__ = ["Places", "Subject", "load_subject"]


@dataclass(frozen=True, eq=False)
class Places:
    """Prefixes that end where a flagged word comes next, and clean ones of the same lengths.

    Attributes:
        toxic: token ids of each prefix.
        words: the token that came next after each of them.
        texts: number of the text each is from.
        clean: as many prefixes of texts of label 0.
    """

    toxic: Sequence[Sequence[int]]
    words: Sequence[int]
    texts: Sequence[int]
    clean: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.toxic)


@dataclass(eq=False)
class Subject:
    """The model under study and its sources.

    Attributes:
        model: the model.
        config: the configuration.
        sources: texts, prompts and scorers.
    """

    model: Model
    config: ToxicityConfig
    sources: Sources
    _states: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rows(self, texts: Sequence[str], *, room: int = 0) -> list[list[int]]:
        """Return the token ids of texts, cut to the length asked for less `room`."""
        longest = self.config.texts.longest - room
        return [self.model.tokenizer(t)["input_ids"][:longest] for t in texts]

    def batches(self, rows: Sequence[Sequence[int]], model: Model | None = None) -> list[Batch]:
        """Return the batches of some rows, in order."""
        size = self.config.batch
        return [(model or self.model).batch_ids(rows[i : i + size]) for i in range(0, len(rows), size)]

    @cached_property
    def places(self) -> dict[str, Places]:
        """Half -> where flagged words come next.

        Raises:
            DataError: too few, or clean texts too short to be cut at the same tokens.
        """
        return {half: self._places(half) for half in HALVES}

    @cached_property
    def flagged(self) -> Tensor:
        """Ids of the tokens that flagged words begin with, those of the discovery half."""
        return torch.tensor(sorted(set(self.places["discovery"].words)))

    @cached_property
    def head(self) -> Site:
        """What the output head reads."""
        return head_input(self.model)

    @cached_property
    def twin(self) -> Model:
        """A network of the same shape that learnt nothing."""
        return Model.load(untrained(self.model.module, self.config.seed), tokenizer=self.model.tokenizer)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The blocks tried by methods that act at one."""
        blocks = len(self.model.anatomy.blocks)
        chosen = self.config.arms.layers or np.unique(np.linspace(0, blocks - 1, min(4, blocks)).round().astype(int))
        return tuple(int(i) for i in chosen)

    @cached_property
    def basis(self) -> HeadBasis:
        """The output head's right singular vectors, its mean row taken off."""
        return head_basis(head_weight(self.model))

    def states(self, site: Site | str) -> tuple[Tensor, Tensor]:
        """Return activations at the toxic and clean places of the discovery half, [places, width], float64, kept."""
        if str(site) not in self._states:
            places = self.places["discovery"]
            self._states[str(site)] = self._at_end(site, places.toxic), self._at_end(site, places.clean)
        return self._states[str(site)]

    def _at_end(self, site: Site | str, rows: Sequence[Sequence[int]]) -> Tensor:
        found = []
        for batch in self.batches(rows):
            x = run(self.model, batch, read=site, logits="none")[site]
            found.append(x[:, -1].flatten(1).double().cpu())
        return torch.cat(found)

    def _places(self, half: str) -> Places:
        texts, limits = self.sources.halves[half], self.config.texts
        rng = generator(self.config.seed, "places", half)
        found = [
            (ids[:at], ids[at], number)
            for number, row in enumerate(texts.rows)
            if row.label == 1
            for ids, at in _before_words(self.model.tokenizer, row.text, self.sources.selector.spans(row.text))
            if at < limits.longest
        ]
        kept = [found[i] for i in sorted(rng.permutation(len(found))[: limits.contexts])]
        if len(kept) < 20:
            raise DataError(
                f"At least 20 places before a flagged word were asked for in the {half} texts, found {len(kept)}; give "
                "more texts, or a lexicon of words that stand in them (--lexicon FILE)."
            )
        calm = self.rows([r.text for r in texts.rows if r.label == 0])
        clean = [_cut(calm, len(prefix), rng) for prefix, _, _ in kept]
        toxic, words, numbers = zip(*kept, strict=True)
        return Places(toxic, words, numbers, clean)


def load_subject(config: ToxicityConfig) -> Subject:
    """Return the model and sources that a configuration names.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: it is no causal language model with a tokenizer, or the texts cannot be read.
        ConfigError: no such data, or a block that the model does not have.
        MeasureError: a scorer would evaluate what it selected.
    """
    sources = load_sources(config)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    dtype = torch.float32 if config.dtype == "auto" and device == "cpu" else getattr(torch, config.dtype, None)
    model = Model.load(config.model, dtype=dtype, device=device)
    blocks = len(model.anatomy.blocks)
    if not blocks or model.anatomy.head is None or model.tokenizer is None:
        raise DataError(
            f"'{config.model}' is no causal language model with blocks, a head and a tokenizer; the study needs one."
        )
    if any(not 0 <= layer < blocks for layer in config.arms.layers):
        raise DataError(f"Blocks {list(config.arms.layers)} were asked for, '{config.model}' has 0-{blocks - 1}.")
    return Subject(model, config, sources)


def _before_words(tokenizer: object, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[list[int], int]]:
    """Return (the text's token ids, index of the token that begins a flagged word) for each word not at the start."""
    if not spans:
        return []
    tokens = tokenized(tokenizer, text)
    marks = [False, *flagged(tokens.offsets, spans)]
    return [(list(tokens.ids), i) for i in range(1, len(tokens.ids)) if marks[i + 1] and not marks[i]]


def _cut(rows: Sequence[Sequence[int]], length: int, rng: np.random.Generator) -> Sequence[int]:
    """Return the first `length` tokens of a random row that goes on behind them; of the longest where none does."""
    fitting = [i for i, row in enumerate(rows) if len(row) > length]
    chosen = rows[fitting[rng.integers(len(fitting))]] if fitting else max(rows, key=len)
    return chosen[:length]
