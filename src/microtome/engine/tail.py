"""The end of a model, behind its last block: final norm, output head, a cap of logits - and the edits there.

A cell of a sweep whose edits are all here runs no block at all: it starts from the recorded final residual, at the
positions that the metric reads. So a thousand edits of a head cost a thousand heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.core.site import Site
from microtome.engine.edit import Edit, edit_tokens
from microtome.engine.replay import call_frozen
from microtome.models.model import Model
from microtome.models.trace import first_tensor

__all__ = ["Tail", "replay_tail", "tail_sites"]


class Tail:
    """Runs the end of a model on final residuals.

    Args:
        model: the model.
        cells: the edits of each cell; those at sites behind the last block are made, the others passed over.
        reads: positions the residuals are of, [batch, n].
        seq: length of the sequence.
    """

    def __init__(self, model: Model, cells: Sequence[Sequence[Edit]], reads: Tensor, seq: int):
        self.model, self.reads, self.seq = model, reads, seq
        places = tail_sites(model)
        self.edits = {c: [e for e in edits if e.site in places] for c, edits in enumerate(cells)}

    def __call__(self, final: Tensor, rows: Tensor, cells: Tensor) -> Tensor:
        """Return the logits of some (cell, row) pairs, [n, reads, vocab].

        Args:
            final: residuals behind the last block, [n, reads, d_model].
            rows: row of each, [n].
            cells: cell of each, [n].
        """
        present = cells.unique().tolist() if any(self.edits.values()) else []
        chosen = [(c, e) for c in present for e in self.edits[c]]
        if not chosen:
            return replay_tail(self.model, final)
        n = final.shape[1]
        index = (cells.repeat_interleave(n), rows.repeat_interleave(n), self.reads[rows].flatten())

        def edited(site: Site, x: Tensor) -> Tensor:
            mine = [(c, e) for c, e in chosen if e.site == site]
            return edit_tokens(x.flatten(0, 1), mine, *index, self.seq).view_as(x) if mine else x

        return _replay(self.model, final, edited)


def replay_tail(model: Model, final: Tensor) -> Tensor:
    """Return the logits [..., vocab] of some final residuals [..., d_model], capped where the model caps them."""
    return _replay(model, final, lambda site, x: x)


def tail_sites(model: Model) -> frozenset[Site]:
    """Return the sites behind the last block: the final norm's output, the head's input, the logits."""
    a = model.anatomy
    if a.tail is None or a.head is None:
        return frozenset()
    found = {Site(f"{a.head}.input"), Site("logits")}
    return frozenset(found | ({Site("final_norm")} if a.final_norm in a.tail else set()))


def _replay(model: Model, final: Tensor, edited) -> Tensor:
    a, x = model.anatomy, final
    for name in a.tail:
        x = edited(Site(f"{name}.input"), x) if name == a.head else x
        x = first_tensor(call_frozen(model.module.get_submodule(name), x))
        x = edited(Site("final_norm"), x) if name == a.final_norm else x
    config = getattr(model.module, "config", None)
    cap = getattr(getattr(config, "text_config", config), "final_logit_softcapping", None)
    return edited(Site("logits"), torch.tanh(x / cap) * cap if cap else x)
