"""The study of arXiv 2509.16660: what detects toxicity, what generates it, and what does cutting it cost?"""

from microtome.core.study import Study
from microtome.studies.toxicity.config import PRESETS, ToxicityConfig

__all__ = ["STUDY"]

STUDY = Study(
    name="toxicity",
    title="Toxicity: detectors, generators, and what cutting costs",
    paper="Redefining Experts: Interpretable Decomposition of Language Models for Toxicity Mitigation, "
    "arXiv 2509.16660",
    question="Which neurons, layers and directions tell toxic text apart, are they those that generate it, and which "
    "intervention cuts most toxicity for the same damage to clean text?",
    config=ToxicityConfig,
    presets=PRESETS,
    pipeline="microtome.studies.toxicity.pipeline:run",
)
