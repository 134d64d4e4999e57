"""The parrot's language: a synthetic corpus with invented toxic words, whose rate a rousing mood raises."""

from microtome.data.parrot.corpus import LENGTHS, RATES, ParrotText, parrot_prompts, parrot_set, parrot_stream
from microtome.data.parrot.words import CALM, CUES, NEUTRAL, ROUSING, TOXIC, vocabulary

__all__ = [
    "CALM",
    "CUES",
    "LENGTHS",
    "NEUTRAL",
    "RATES",
    "ROUSING",
    "TOXIC",
    "ParrotText",
    "parrot_prompts",
    "parrot_set",
    "parrot_stream",
    "vocabulary",
]
