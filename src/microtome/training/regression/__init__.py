"""Regressors on embeddings of Z, N and task, several seeds in one vectorised fit.

The way through: `numbers_of(tasks, split.train, scaling)` gives rows, `fit_seeds(Shape(...), rows, held, Schedule(...),
seeds=range(5))` regressors, `fitted.predict(z, n)` what they say and `fitted.module(0)` one of them as a plain
`torch.nn.Module`.
"""

from microtome.training.regression.fit import Schedule, fit_seeds, log_spaced
from microtome.training.regression.fitted import Fitted, untrained
from microtome.training.regression.network import MIXINGS, EmbeddingRegressor, Shape
from microtome.training.regression.numbers import Numbers, numbers_of
from microtome.training.regression.stacked import AdamW, Stacked

__all__ = [
    "MIXINGS",
    "AdamW",
    "EmbeddingRegressor",
    "Fitted",
    "Numbers",
    "Schedule",
    "Shape",
    "Stacked",
    "fit_seeds",
    "log_spaced",
    "numbers_of",
    "untrained",
]
