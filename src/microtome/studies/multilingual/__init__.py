"""The study of arXiv 2408.06273: a balanced multilingual language model, built from raw text and looked inside."""

from microtome.core.study import Study
from microtome.studies.multilingual.config import PRESETS, MultilingualConfig

__all__ = ["STUDY"]

STUDY = Study(
    name="multilingual",
    title="A balanced multilingual language model, built and looked inside",
    paper="FuxiTranyu: A Multilingual Large Language Model Trained with Balanced Data, arXiv 2408.06273",
    question="Does balanced data make a language model balanced, which neurons does each language use, and where in "
    "the model are languages represented alike?",
    config=MultilingualConfig,
    presets=PRESETS,
    pipeline="microtome.studies.multilingual.pipeline:run",
)
