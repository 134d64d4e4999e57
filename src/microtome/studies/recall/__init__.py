"""The study of arXiv 2510.03366, done causally: do recalling a fact and reasoning over facts use different parts?"""

from microtome.core.study import Study
from microtome.studies.recall.config import PRESETS, RecallConfig

__all__ = ["STUDY"]

STUDY = Study(
    name="recall",
    title="Recall and reasoning: which parts carry which?",
    paper="Disentangling Recall and Reasoning in Transformer Models through Layer-wise Attention and Activation "
    "Analysis, arXiv 2510.03366",
    question="Do a language model's heads and neurons divide into those that recall facts and those that reason over "
    "facts it is given, so that removing either leaves the other ability intact?",
    config=RecallConfig,
    presets=PRESETS,
    pipeline="microtome.studies.recall.pipeline:run",
)
