"""The recipe of zoo:babel: the `laptop` build of a corpus folder, once balanced and once with English favoured.

corpus, tokenizer, model   as `training.build`'s laptop recipe says
babel                      languages in nearly equal parts (temperature 0.3)
babel-en                   60 % English, the others the rest in the same proportions; as many tokens
storage                    float16; the numbers on the card are of the stored weights
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from microtome.core.files import replace_with
from microtome.models.quiet import without_progress_bars
from microtome.training.babel_card import write_card
from microtome.training.build.artefacts import Artefact, Store
from microtome.training.build.recipe import BuildRecipe, Mixing, load_recipe
from microtome.training.build.run import build

__all__ = ["VARIANTS", "babel_recipe", "build_babel", "store_babel"]

VARIANTS = {"": Mixing(policy="temperature", alpha=0.3), "en": Mixing(policy="favoured", alpha=0.3, share=0.6)}
"""Variant -> how much it sees of each language."""

_PARALLEL = "parallel"


def babel_recipe(variant: str, corpus: Path | str, seed: int = 0) -> BuildRecipe:
    """Return the recipe of a variant.

    Args:
        variant: empty, or `en`.
        corpus: folder of <language>.txt; the texts of a folder `parallel` in it are kept out of training.
        seed: of everything that is drawn.
    """
    found = load_recipe("laptop")
    held = Path(corpus) / _PARALLEL
    texts = replace(found.corpus, path=str(corpus), evaluation=(str(held),) if held.is_dir() else ())
    return replace(found, corpus=texts, mixing=VARIANTS[variant], seed=seed)


def build_babel(
    seed: int, out: Path | str, *, data: Path | str, progress: Callable[[int, int, str], None] | None = None
) -> Path:
    """Train zoo:babel and zoo:babel-en, examine both and write their card.

    Args:
        seed: of samples, weights and order.
        out: the folder; the second model goes to `en` in it. Artefacts lie beside it until both are done.
        data: corpus folder of <language>.txt; parallel texts to examine on are looked for in `parallel` in it.
        progress: called with (done, total, one line).

    Returns:
        The folder; plain transformers loads it, and `en` in it.
    """
    folder, store = Path(out), Store(Path(f"{Path(out).resolve()}.artefacts"))
    made = {}
    for number, variant in enumerate(VARIANTS):

        def watch(stage: str, line: str, share: float, number: int = number) -> None:
            if progress is not None:
                part = share if stage == "pretrain" else 0.0
                progress(round(100 * (number + part)), 100 * len(VARIANTS), f"{stage}: {line}")

        made[variant] = build(babel_recipe(variant, data, seed), store, until="pretrain", watch=watch)
    for variant, artefacts in made.items():
        store_babel(artefacts["pretrain"], folder / variant)
    write_card(folder, {v: artefacts["pretrain"] for v, artefacts in made.items()}, made[""], Path(data) / _PARALLEL)
    shutil.rmtree(store.folder)
    return folder


def store_babel(trained: Artefact, folder: Path) -> None:
    """Write a trained model in float16, and its tokenizer, into a folder.

    Args:
        trained: the `pretrain` stage.
        folder: other files in it stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with without_progress_bars():
        module = AutoModelForCausalLM.from_pretrained(trained.path / "model", local_files_only=True).half()
        replace_with(folder / ".stored", module.save_pretrained)
    AutoTokenizer.from_pretrained(trained.path / "model", local_files_only=True).save_pretrained(folder / ".stored")
    for file in sorted((folder / ".stored").iterdir()):
        file.replace(folder / file.name)
    (folder / ".stored").rmdir()
