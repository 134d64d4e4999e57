"""Any sequence classifier of transformers as a scorer: a local folder or a hub id, whatever its head.

    one logit             sigmoid
    two or more, `problem_type` multi_label_classification (Detoxify and the like)    sigmoid of the class asked for
    two or more, otherwise                                                            softmax, the class asked for

Texts longer than the model takes are cut at the end; how many were is in the log. Loading runs no
code that comes with a checkpoint and reads no pickle that holds any (`Model.load`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from microtome.core.errors import MeasureError, did_you_mean
from microtome.models.model import Model

__all__ = ["ClassifierScorer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClassifierScorer:
    """A classifier and the class that is scored.

    Attributes:
        model: a sequence classifier with its tokenizer.
        index: of the class among its logits.
        longest: most tokens of a text; the rest is cut off.
        batch_size: texts in one forward.
        family: `classifier`.
    """

    model: Model
    index: int
    longest: int
    batch_size: int = 32
    family: str = field(default="classifier", init=False)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        label: str | int | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "ClassifierScorer":
        """Return the scorer of a checkpoint.

        Args:
            source: a folder written by save_pretrained, or a hub id.
            label: the class, by name or number; None takes the only logit, or the class called `toxic`.
            batch_size: texts in one forward.
            device: where to put the model.
            dtype: of the weights.

        Raises:
            ModelError: it cannot be loaded safely.
            MeasureError: it is no sequence classifier, has no tokenizer, or no such class.

        Example:
            scorer = ClassifierScorer.load("models/roberta_toxicity_classifier", label="toxic")
        """
        model = Model.load(source, device=device, dtype=dtype, anatomy=False)
        return cls.of(model, label=label, batch_size=batch_size)

    @classmethod
    def of(cls, model: Model, *, label: str | int | None = None, batch_size: int = 32) -> "ClassifierScorer":
        """Return the scorer of a model that is loaded already; see `load`."""
        config = getattr(model.module, "config", None)
        if "SequenceClassification" not in type(model.module).__name__:
            raise MeasureError(
                f"'{model.name}' is a {type(model.module).__name__}; give a checkpoint saved from a model for "
                "sequence classification."
            )
        if model.tokenizer is None:
            raise MeasureError(f"Classifier '{model.name}' has no tokenizer beside its weights; save it there too.")
        longest = min(model.tokenizer.model_max_length, _positions(config))
        return cls(model, _class(model.name, config, label), longest, batch_size)

    @property
    def origin(self) -> str:
        """The checkpoint and the class."""
        return f"{self.model.name}#{self.index}"

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of the class for each text, [texts].

        Raises:
            MeasureError: no texts, or one text instead of a list.
        """
        if isinstance(texts, str) or not len(texts):
            raise MeasureError(f"The classifier takes a list of texts, found {texts!r:.40}; give [text, ...].")
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        found = np.empty(len(texts))
        for first in range(0, len(order), self.batch_size):
            rows = order[first : first + self.batch_size]
            found[rows] = self._probabilities([texts[i] for i in rows])
        return found

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        ids = [self.model.tokenizer(text)["input_ids"] for text in texts]
        if cut := sum(len(row) > self.longest for row in ids):
            _log.warning("%d of %d texts are longer than %d tokens and were cut", cut, len(ids), self.longest)
        options = {"truncation": True, "max_length": self.longest, "padding": True, "return_tensors": "pt"}
        inputs = self.model.tokenizer(texts, **options).to(self.model.device)
        with torch.inference_mode():
            logits = self.model.module(**inputs).logits.double()
        several = getattr(self.model.module.config, "problem_type", None) == "multi_label_classification"
        p = logits.sigmoid() if several or logits.shape[1] == 1 else logits.softmax(1)
        return p[:, self.index].cpu().numpy()


def _positions(config: object) -> int:
    """Return how many tokens a model has positions for; RoBERTa's first ones stand for padding."""
    most = getattr(config, "max_position_embeddings", None) or 10**9
    shifted = getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    return most - 2 if shifted else most


def _class(name: str, config: object, label: str | int | None) -> int:
    """Return the index of the class asked for."""
    names = {int(i): str(n) for i, n in config.id2label.items()}
    if label is None:
        toxic = [i for i, n in names.items() if n.lower() == "toxic"]
        if len(names) > 1 and not toxic:
            listed = ", ".join(names.values())
            raise MeasureError(f"Classifier '{name}' has classes {listed}; say which is toxic: label='...'.")
        return 0 if len(names) == 1 else toxic[0]
    asked = {n: i for i, n in names.items()} | {i: i for i in names}
    if label not in asked:
        near = did_you_mean(str(label), names.values())
        raise MeasureError(f"Classifier '{name}' has no class {label!r}; it has {', '.join(names.values())}.{near}")
    return asked[label]
