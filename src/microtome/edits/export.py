"""Make weight edits permanent: a folder that plain transformers loads, with a manifest of what was changed.

The loaded model is not touched: the edited weights are written from a copy of its state. Tied weights are untied first
where only one of the two is edited, and the config says so. The folder appears whole or not at all. `baking.bake` gives
the weight edits of an edit of activations.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

from microtome.core.errors import EditError
from microtome.core.files import replace_with
from microtome.engine.edit import Edit
from microtome.engine.run import edited_weights
from microtome.models.model import Model
from microtome.models.quiet import without_progress_bars

__all__ = ["export_edited"]


def export_edited(model: Model, edits: Sequence[Edit], folder: str | Path) -> Path:
    """Write the edited model (and its tokenizer) to a folder and return the folder.

    Args:
        model: a Hugging Face model.
        edits: weight edits only.
        folder: where to write; must not hold anything already.

    Raises:
        EditError: an edit is of an activation, weights are offloaded, the module cannot be saved, or the folder is in
            use.
    """
    folder = Path(folder)
    wrong = [str(e.site) for e in edits if e.site not in model.weights]
    if wrong or not edits:
        raise EditError(f"Only weight edits can be exported, found {wrong or 'none'}; edit for example 'head.weight'.")
    if not hasattr(model.module, "save_pretrained"):
        raise EditError(
            f"A {type(model.module).__name__} has no save_pretrained, so it cannot be exported as a folder."
        )
    if (folder / "config.json").exists():
        raise EditError(f"Folder '{folder}' holds a model already; give another.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EditError(f"'{folder}' was asked for as a folder to export to, found something there; give another.")
    away = [n for n, p in model.module.named_parameters() if p.device.type == "meta"]
    if away:
        raise EditError(
            f"'{model.name}' has {len(away)} offloaded weights (such as '{away[0]}'), so it cannot be exported; load "
            "it without offloading."
        )
    changed = edited_weights(model, edits)
    config = copy.deepcopy(model.module.config)
    config.tie_word_embeddings = bool(getattr(config, "tie_word_embeddings", False)) and not _unties(model, changed)
    twin = type(model.module)(config).to(model.dtype)
    twin.load_state_dict({**model.module.state_dict(), **changed})
    manifest = {"source": model.name, "edits": [{"site": str(e.site), "value": type(e.value).__name__} for e in edits]}

    def write(part: Path) -> None:
        with without_progress_bars():
            twin.save_pretrained(part)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(part)
        (part / "microtome.json").write_text(json.dumps(manifest, indent=1))

    replace_with(folder, write)
    return folder


def _unties(model: Model, changed: dict) -> bool:
    """Whether an edited weight shares its memory with one that is not edited."""
    names = dict(model.module.named_parameters(remove_duplicate=False))
    owners = {name: names[name].data_ptr() for name in names}
    return any(owners[n] == owners[c] and n not in changed for c in changed for n in names if n != c)
