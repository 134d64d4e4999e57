"""The study of arXiv 2402.17700: which featurizer finds an attribute that can be swapped and nothing else with it?"""

from microtome.core.study import Study
from microtome.studies.ravel.config import PRESETS, RavelConfig

__all__ = ["STUDY"]

STUDY = Study(
    name="ravel",
    title="RAVEL: which featurizer isolates an attribute?",
    paper="RAVEL: Evaluating Interpretability Methods on Disentangling Language Model Representations, "
    "arXiv 2402.17700",
    question="Of an entity's attributes, can one be swapped inside the model without the others - and which method of "
    "finding its features does it best on entities and wordings that it was not fitted on?",
    config=RavelConfig,
    presets=PRESETS,
    pipeline="microtome.studies.ravel.pipeline:run",
)
