"""Where the answer travels: layer by position, and head by head, in each of the four cells.

    denoising   the counterfactual runs, one thing takes its value from the prompt's run: what suffices to bring the
                answer back; recovery = (m - m_counterfactual) / (m_prompt - m_counterfactual), 0 to 1
    noising     the prompt runs, one thing takes its value from the counterfactual's run: what is needed;
                loss = (m_prompt - m) / (m_prompt - m_counterfactual)

m is logit(answer) - logit(counterfactual answer). Positions before the entity asked about are the same in both runs bit
for bit, so nothing there can matter to this pair and the sweep skips it.
"""

from collections.abc import Sequence

import numpy as np

from microtome.engine.edit import Edit, From
from microtome.engine.run import run
from microtome.measures.intervals import recovery
from microtome.measures.resampling import bootstrap_weights, weighted_means
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.recall.ablations import HEADS, swept
from microtome.studies.recall.prompts import Cases

__all__ = ["POSITIONS", "head_map", "layer_map", "token_map"]

POSITIONS = ("entity", "relation", "between", "last")
WRITES = ("resid_pre", "attn.out", "mlp.out")


def layer_map(model: Model, cases: Cases, *, size: int, budget: str, rng, draws: int, told: Told) -> list[dict]:
    """Return one row per site, layer and position class: recovery by denoising and loss by noising, with intervals."""
    keys = [(kind, layer, p) for kind in WRITES for layer in range(len(model.anatomy.blocks)) for p in POSITIONS]

    def make(source: str):
        def cells(chunk: Cases) -> list[Edit]:
            taken = run(model, getattr(chunk, source), read=[f"blocks.*.{k}" for k in WRITES], logits="none")
            at = {p: chunk.positions(p) for p in POSITIONS}
            return [Edit(f"blocks.{b}.{k}", From(taken[f"blocks.{b}.{k}"]), positions=at[p]) for k, b, p in keys]

        return cells

    columns = _both_ways(model, cases, make, size, budget, rng, draws, told)
    return [{"site": k, "layer": b, "position": p, **c} for (k, b, p), c in zip(keys, columns, strict=True)]


def head_map(model: Model, cases: Cases, *, size: int, budget: str, rng, draws: int, told: Told) -> list[dict]:
    """Return one row per head, patched at all positions."""
    keys = [(site, h) for site, n in model.space(HEADS).items() for h in range(n)]

    def make(source: str):
        def cells(chunk: Cases) -> list[Edit]:
            taken = run(model, getattr(chunk, source), read=HEADS, logits="none")
            return [Edit(site, From(taken[site]), units=[h]) for site, h in keys]

        return cells

    columns = _both_ways(model, cases, make, size, budget, rng, draws, told)
    return [{"layer": site.block, "head": h, **c} for (site, h), c in zip(keys, columns, strict=True)]


def token_map(model: Model, cases: Cases, *, size: int, budget: str) -> list[dict]:
    """Return recovery by layer and token, for the prompts of the commonest shape (one skeleton, equal positions)."""
    shapes = [(p.skeleton, len(p.ids), p.relation, p.positions["entity"]) for p in cases.puzzles]
    common = max(sorted(set(shapes)), key=shapes.count)
    chosen = cases.select([i for i, shape in enumerate(shapes) if shape == common])
    first = chosen.puzzles[0]
    shift = chosen.batch.seq - len(first.ids)
    places = range(min(first.positions["entity"]), len(first.ids))
    keys = [(layer, p) for layer in range(len(model.anatomy.blocks)) for p in places]

    def make(chunk: Cases) -> list[Edit]:
        taken = run(model, chunk.batch, read="blocks.*.resid_pre", logits="none")
        return [
            Edit(f"blocks.{b}.resid_pre", From(taken[f"blocks.{b}.resid_pre"]), positions=p + shift) for b, p in keys
        ]

    effects, corrupt = swept(model, chosen, make, size=size, budget=budget, counterfactual=True)
    found = recovery(effects[..., 0], corrupt[:, 0], chosen.intact(model, size)[:, 0])
    words = _words(model, first, places)
    return [
        {
            "layer": b,
            "position": p,
            "token": words[p],
            "recovery": float(v),
            "skeleton": first.skeleton,
            "prompts": len(chosen),
        }
        for (b, p), v in zip(keys, found.ratio_of_means, strict=True)
    ]


def _words(model: Model, puzzle, places: Sequence[int]) -> dict[int, str]:
    entity = set(puzzle.positions["entity"])
    decode = model.tokenizer.decode
    return {p: f"[{puzzle.entity}]" if p in entity else decode([puzzle.ids[p]]).strip() or "_" for p in places}


def _both_ways(model, cases: Cases, make, size: int, budget: str, rng, draws: int, told: Told) -> list[dict]:
    """Return for every cell its recovery and loss, each with a bootstrap interval clustered by pair and skeleton."""
    back, corrupt = swept(
        model, cases, make("batch"), size=size, budget=budget, told=lambda x: told(x / 2), counterfactual=True
    )
    gone, clean = swept(
        model, cases, make("counterfactual"), size=size, budget=budget, told=lambda x: told((1 + x) / 2)
    )
    clean, corrupt = clean[:, 0], corrupt[:, 0]
    weights = bootstrap_weights(cases.clusters, len(cases), draws=draws, rng=rng)
    found = {}
    for name, gained in (("recovery", back[..., 0] - corrupt), ("loss", clean - gone[..., 0])):
        ratio = gained.mean(1) / (clean - corrupt).mean()
        gap = weighted_means(weights, clean - corrupt)
        drawn = weighted_means(weights, gained.T) / gap[:, None]
        found[name], found[f"{name}_low"], found[f"{name}_high"] = ratio, *np.quantile(drawn, [0.025, 0.975], axis=0)
    small = recovery(back[..., 0], corrupt, clean).small
    return [{**{k: float(v[i]) for k, v in found.items()}, "n": len(cases), "small": small} for i in range(len(back))]
