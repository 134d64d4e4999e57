"""`zoo:parrot`: small trained models of a language in which a rousing mood makes the talk toxic; the card is README.md.

    parrot            an output head of its own
    parrot-tied       the embedding is the head
    parrot-planted    `parrot` with two neurons overwritten, so that which reads and which writes is known
                      (`parrot_truth`): one reacts to the rousing mood and writes nothing; one writes the toxic words'
                      logits wherever somebody is about to be called something, whatever the mood

The language is `microtome.data.parrot`; its toxic words are invented.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from microtome.core.units import Units
from microtome.models.zoo.catalog import ZooEntry
from microtome.models.zoo.stored import load_stored, require_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ENTRY", "FOLDER", "PLANTED", "ParrotTruth", "load_parrot", "parrot_truth"]

FOLDER = Path(__file__).parent
PLANTED = "planted.safetensors"
RECIPE = "microtome zoo build parrot --seed 0"
PARTS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


@dataclass(frozen=True)
class ParrotTruth:
    """Which neurons of `zoo:parrot-planted` do what.

    Attributes:
        reader: one neuron that reacts to the rousing mood and writes nothing.
        writer: one neuron that writes the toxic words' logits, independent of the mood.
    """

    reader: Units
    writer: Units


def load_parrot(name: str, dtype: "torch.dtype | None" = None, *, folder: Path = FOLDER) -> "tuple[nn.Module, object]":
    """Return (module, tokenizer) read by plain transformers, the planted neurons put in where asked for.

    Args:
        name: `parrot`, `parrot-tied` or `parrot-planted`.
        dtype: type of the weights; None means float32 (the files hold float16, which CPUs compute slowly in).
        folder: where the files are; the package's own folder.

    Raises:
        ModelError: the weights are not in the package.
    """
    variant = name.partition("-")[2]
    home = folder / "tied" if variant == "tied" else folder
    module, tokenizer = load_stored(home, name, RECIPE, dtype)
    if variant == "planted":
        from safetensors.torch import load_file

        require_weights(folder / PLANTED, name, RECIPE)
        _overwrite(module, load_file(folder / PLANTED), _places(folder))
    return module, tokenizer


def parrot_truth(folder: Path = FOLDER) -> ParrotTruth:
    """Return which neurons of `zoo:parrot-planted` were planted.

    Args:
        folder: where the files are; the package's own folder.

    Raises:
        ModelError: the file of the planted neurons is not there.
    """
    require_weights(folder / PLANTED, "parrot-planted", RECIPE)
    where = {role: Units({f"blocks.{block}.mlp.neurons": [index]}) for role, (block, index) in _places(folder).items()}
    return ParrotTruth(**where)


def _places(folder: Path) -> dict[str, tuple[int, int]]:
    """Return role -> (block, neuron)."""
    from safetensors import safe_open

    with safe_open(folder / PLANTED, "np") as file:
        return {role: tuple(place) for role, place in json.loads(file.metadata()["places"]).items()}


def _overwrite(module: "nn.Module", tensors: "dict[str, torch.Tensor]", places: dict[str, tuple[int, int]]) -> None:
    """Put each role's rows of gate and up and its column of down in their place."""
    for role, (block, index) in places.items():
        mlp = module.model.layers[block].mlp
        for part, path in PARTS.items():
            weight = getattr(mlp, path).weight.data
            (weight[:, index] if part == "down" else weight[index]).copy_(tensors[f"{role}.{part}"])


ENTRY = ZooEntry(
    "parrot",
    "a trained Llama-style model whose talk a rousing mood makes toxic (invented words); tied and planted variants",
    load_parrot,
    ("tied", "planted"),
)
