"""The study of arXiv 2405.17425: train on nuclear data, and read the physics back from the network."""

from microtome.core.study import Study
from microtome.studies.nuclear.config import PRESETS, NuclearConfig

__all__ = ["STUDY"]

STUDY = Study(
    name="nuclear",
    title="Nuclear: physics read back from a network's embeddings",
    paper="From Neurons to Neutrons: A Case Study in Interpretability, arXiv 2405.17425",
    question="What does a network trained on binding energies of nuclei know, in which shape do its embeddings hold "
    "it, and does the prediction need that shape?",
    config=NuclearConfig,
    presets=PRESETS,
    pipeline="microtome.studies.nuclear.pipeline:run",
)
