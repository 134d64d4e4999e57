"""Steps that fit and choose, on training and validation pairs alone: the layer, then every method's setting."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from microtome.records import StageOutput, Told
from microtome.studies.ravel.counterfactual import fit_all, layer_fits
from microtome.studies.ravel.methods import LABELS, METHODS, Candidate
from microtome.studies.ravel.scoring import of_candidates, score_rows
from microtome.studies.ravel.stored import packed
from microtome.studies.ravel.subject import Subject
from microtome.studies.ravel.supervised import labelled_rows, supervised

__all__ = ["VALIDATION", "best", "fits", "layers"]

VALIDATION = ("entity-val", "context-val")


def layers(subject: Subject, told: Told) -> StageOutput:
    """Full swap, DAS and MDAS at every layer, on validation pairs; where MDAS disentangles most is chosen.

    Only layers that still carry the attributes are chosen from: those where swapping everything changes at least half
    as many answers as at the best. Above them no swap does anything, which scores 0.5 and would win.
    """
    sites, fitting = subject.sites(), subject.config.fitting
    rank = min(fitting.ranks[len(fitting.ranks) // 2], min(map(subject.width, sites)))
    recorded = subject.swaps("train", sites)
    made, bases = layer_fits(
        subject.side("train"),
        {str(s): recorded[s] for s in sites},
        subject.targets,
        rank,
        fitting,
        seed=subject.config.seed,
        told=lambda x: told(0.6 * x),
    )
    rows, means, carried = [], Counter(), Counter()
    for k, name in enumerate(VALIDATION):
        side, found = subject.side(name), subject.swaps(name, sites)
        for j, site in enumerate(sites):
            own = [replace(c, setting="") for c in made if c.setting == str(site)]
            own += [Candidate("full", t, "", "", None, subject.width(site)) for t in subject.targets]
            outcome, kinds = of_candidates(side, found[site], own, bases, rows_at_once=fitting.rows_at_once)
            for arm, (method, _) in enumerate(kinds):
                scores = subject.trials(side).scores(outcome.right[arm], outcome.targets)
                columns = {"layer": site.block, "side": name, "method": method, "label": LABELS[method]}
                rows += score_rows(scores, len(side), **columns)
                means[site] += scores[-1].disentangle.estimate if method == "mdas" else 0.0
                carried[site] += scores[-1].cause.estimate if method == "full" else 0.0
            told(0.6 + 0.4 * (k + (j + 1) / len(sites)) / len(VALIDATION))
    for name in ("train", *VALIDATION):
        subject.forget(name)
    able = [s for s in sites if carried[s] >= 0.5 * max(carried.values())]
    chosen = max(able, key=lambda s: (means[s], -s.block))
    return StageOutput(tables={"layers": rows}, values={"layer": chosen.block, "layer_rank": rank})


def fits(subject: Subject, layer: int, told: Told) -> StageOutput:
    """Every method at the chosen layer under every setting, scored on validation pairs; the best setting is chosen."""
    site, fitting, seed = subject.site(layer), subject.config.fitting, subject.config.seed
    side, swaps = subject.side("train"), subject.swaps("train", [site])[site]
    width = subject.width(site)
    candidates, bases = [], {}
    data = labelled_rows(side, swaps)
    for made, found in supervised(
        data, subject.table, subject.targets, fitting, seed=seed, told=lambda x: told(0.3 * x)
    ):
        candidates, bases = candidates + made, bases | found
    made, found = fit_all(side, swaps, subject.targets, fitting, width, seed=seed, told=lambda x: told(0.3 + 0.5 * x))
    candidates, bases = candidates + made, bases | found
    rows, means = [], Counter()
    for k, name in enumerate(VALIDATION):
        judged = subject.side(name)
        outcome, kinds = of_candidates(
            judged,
            subject.swaps(name, [site])[site],
            candidates,
            bases,
            rows_at_once=fitting.rows_at_once,
            told=lambda x, k=k: told(0.8 + 0.2 * (k + x) / len(VALIDATION)),
        )
        for arm, (method, setting) in enumerate(kinds):
            scores = subject.trials(judged).scores(outcome.right[arm], outcome.targets)
            columns = {"side": name, "method": method, "label": LABELS[method], "setting": setting}
            sizes = [c.size for c in candidates if (c.method, c.setting) == (method, setting)]
            rows += score_rows(scores, len(judged), **columns, size=float(np.mean(sizes)))
            means.update({(method, setting, s.target): s.disentangle.estimate for s in scores if s.target})
    chosen = best(candidates, means)
    used = {c.basis for c in chosen}
    return StageOutput(
        tables={"validation": rows, "chosen": [c.row() for c in chosen]},
        arrays={f"basis.{name}": packed(basis, site) for name, basis in bases.items() if name in used},
        values={"site": str(site), "site_width": width, "activations": len(data.entities)},
    )


def best(candidates: Sequence[Candidate], means: Mapping[tuple, float]) -> list[Candidate]:
    """Return, of every method and target, the candidate that disentangles most on validation; ties to the smaller."""
    first: dict[tuple[str, str], Candidate] = {}
    for c in sorted(candidates, key=lambda c: (-means[c.method, c.setting, c.target], c.size)):
        first.setdefault((c.method, c.target), c)
    return sorted(first.values(), key=lambda c: (list(METHODS).index(c.method), c.target))
