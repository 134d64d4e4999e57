"""Fitted bases inside a stage: the bytes of a saved featurizer as an array, so that a resumed run goes on with them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from microtome.core.protocols import Featurizer
from microtome.core.site import Site
from microtome.features.saving import load_featurizer, save_featurizer
from microtome.records import Stage
from microtome.studies.ravel.methods import Candidate

__all__ = ["bases_of", "chosen_of", "packed"]


def chosen_of(fitted: Stage) -> list[Candidate]:
    """Return the candidates that validation pairs chose."""
    return [Candidate.of(row) for row in fitted.rows("chosen")]


def bases_of(stage: Stage, prefix: str) -> dict[str, Featurizer]:
    """Return the bases that a committed stage holds in arrays of a prefix, by the rest of their name."""
    held = (n for n in stage.arrays if n.startswith(prefix))
    return {name.removeprefix(prefix): _unpacked(stage.array(name)) for name in held}


def packed(basis: Featurizer, site: Site) -> np.ndarray:
    """Return a saved featurizer's bytes."""
    with TemporaryDirectory() as folder:
        path = save_featurizer(basis, Path(folder) / "basis.safetensors", site=site)
        return np.frombuffer(path.read_bytes(), dtype=np.uint8)


def _unpacked(data: np.ndarray) -> Featurizer:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "basis.safetensors"
        path.write_bytes(data.tobytes())
        return load_featurizer(path)
