"""Scorers: how toxic a text is, by three families that can check one another.

    lexicon      words of the user's; says where they stand                                       `lexicon.py`
    ngram        linear over hashed n-grams, fitted on the user's rows; says what each character adds   `ngram.py`
    classifier   any sequence classifier of transformers, from a folder or the hub                 `classifier.py`

The scorer that selects directions or neurons must not be the one that evaluates them: `agreement.py`.
"""

from microtome.measures.scorers.agreement import Agreement, Scorer, agreement, require_separate
from microtome.measures.scorers.classifier import ClassifierScorer
from microtome.measures.scorers.lexicon import Flag, Lexicon
from microtome.measures.scorers.ngram import Attribution, NgramScorer, fit_ngram, load_ngram, save_ngram

__all__ = [
    "Agreement",
    "Attribution",
    "ClassifierScorer",
    "Flag",
    "Lexicon",
    "NgramScorer",
    "Scorer",
    "agreement",
    "fit_ngram",
    "load_ngram",
    "require_separate",
    "save_ngram",
]
