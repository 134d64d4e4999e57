"""`zoo:babel`: small language models of twelve languages, trained on real text; the card is README.md beside them.

babel       the languages in nearly equal parts
babel-en    English gets 60 % of the same number of tokens, the others the rest
"""

from pathlib import Path
from typing import TYPE_CHECKING

from microtome.models.zoo.catalog import ZooEntry
from microtome.models.zoo.stored import load_stored

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ENTRY", "FOLDER"]

FOLDER = Path(__file__).parent
RECIPE = "microtome zoo build babel --seed 0 --data CORPUS"


def load_babel(name: str, dtype: "torch.dtype | None" = None, *, folder: Path = FOLDER) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) read by plain transformers.

    Args:
        name: `babel` or `babel-en`.
        dtype: type of the weights; None means float32 (the files hold float16, which CPUs compute slowly in).
        folder: where the files are; the package's own folder.

    Raises:
        ModelError: the weights are not in the package.
    """
    variant = name.partition("-")[2]
    return load_stored(folder / variant, name, RECIPE, dtype)


ENTRY = ZooEntry(
    "babel",
    "a trained model of twelve languages in equal parts, 4.8 million parameters; an English-heavy variant",
    load_babel,
    ("en",),
)
