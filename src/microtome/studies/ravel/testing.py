"""Steps that test: controls made beside the chosen candidates, and everything scored on pairs that chose nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from microtome.core.protocols import Featurizer
from microtome.core.seeds import derive
from microtome.core.site import Site
from microtome.features.rotation import Rotation, random_axes
from microtome.models.model import Model
from microtome.models.zoo.untrained import untrained
from microtome.records import Stage, StageOutput, Told
from microtome.studies.ravel.claims import ORDERS
from microtome.studies.ravel.counterfactual import mdas_of, shuffled
from microtome.studies.ravel.methods import LABELS, Candidate
from microtome.studies.ravel.scoring import Answered, matrix_rows, of_candidates, score_rows
from microtome.studies.ravel.sides import Side, with_own_answers
from microtome.studies.ravel.stored import bases_of, chosen_of, packed
from microtome.studies.ravel.subject import Subject

__all__ = ["TEST", "controls", "test"]

TEST = ("entity-test", "context-test")


def controls(subject: Subject, fitted: Stage, told: Told) -> StageOutput:
    """What must be beaten: random subspaces, MDAS on shuffled sources, and MDAS in an untrained network."""
    site, config = Site.parse(fitted.value("site")), subject.config
    ranks = {c.target: c.size for c in chosen_of(fitted) if c.method == "mdas"}
    width, seed = int(fitted.value("site_width")), config.seed
    made, bases = shuffled(
        subject.side("train"),
        subject.swaps("train", [site])[site],
        ranks,
        config.fitting,
        seed=seed,
        told=lambda x: told(0.4 * x),
    )
    for draw in range(config.testing.random):
        for target, rank in ranks.items():
            name = f"random{draw}-{target.replace(' ', '_')}"
            turn = torch.Generator().manual_seed(derive(seed, "random subspace", draw, target))
            bases[name] = Rotation(random_axes(width, rank, turn))
            made.append(Candidate("random", target, f"draw {draw}", name, None, rank))
    made = [replace(c, setting="") if c.method == "shuffled" else c for c in made]
    rows = _untrained(subject, site, ranks, lambda x: told(0.4 + 0.6 * x))
    return StageOutput(
        tables={"control_candidates": [c.row() for c in made], "untrained_scores": rows},
        arrays={f"control.{name}": packed(basis, site) for name, basis in bases.items()},
    )


def test(subject: Subject, table: Stage, fitted: Stage, control: Stage, told: Told) -> StageOutput:
    """Chosen candidates and controls on test pairs: entities and wordings that neither fitted nor chose anything."""
    site, config = Site.parse(fitted.value("site")), subject.config
    bases = bases_of(fitted, "basis.") | bases_of(control, "control.")
    found, bases = _arms(subject, fitted, control, bases)
    scores, matrix, examples, differences = [], [], [], []
    for k, name in enumerate(TEST):
        side = subject.side(name)
        outcome, kinds = of_candidates(
            side,
            subject.swaps(name, [site])[site],
            found,
            bases,
            rows_at_once=config.fitting.rows_at_once,
            told=lambda x, k=k: told((k + x) / len(TEST)),
        )
        by = {method: np.flatnonzero([m == method for m, _ in kinds]) for method, _ in kinds}
        for method, arms in by.items():
            sizes = {c.target: c.size for c in found if c.method == method}
            rows, shares = _scores(subject, side, method, outcome, arms, sizes)
            scores, matrix = scores + rows, matrix + shares
        scores += _majority(subject, name)
        examples += _examples(subject, name, outcome, by)
        differences += _differences(subject, name, outcome, by)
    scores += control.rows("untrained_scores")
    tables = {"scores": scores, "matrix": matrix, "differences": differences, "examples": examples}
    tables |= {"by_score": _long(scores), "overlay": _overlay(matrix, table.rows("entailment"))}
    return StageOutput(tables=tables)


def _scores(
    subject: Subject, side: Side, method: str, outcome: Answered, arms: np.ndarray, sizes: Mapping[str, int]
) -> tuple[list[dict], list[dict]]:
    """Return a method's scores on a side, and the share answered as wanted by attribute asked; arms are averaged."""
    columns = {"side": side.name, "method": method, "label": LABELS[method]}
    full, first, soft = (
        subject.trials(side).scores(of[arms].mean(0), outcome.targets)
        for of in (outcome.right, outcome.first, outcome.probability)
    )
    rows = score_rows(full, len(side), **columns)
    for row, f, p in zip(rows, first, soft, strict=True):
        row["size"] = float(sizes.get(row["target"], np.mean(list(sizes.values()))))
        row |= {"first_token": f.disentangle.estimate, "soft": p.disentangle.estimate}
    return rows, matrix_rows(full, **columns)


def _differences(subject: Subject, name: str, outcome: Answered, by: Mapping[str, np.ndarray]) -> list[dict]:
    """Compare methods on the same pairs and resamples: scores are linear in the answers, so is their difference."""
    side, rows = subject.side(name), []
    for claim, _, score, better, worse, _ in ORDERS:
        gain = outcome.right[by[better]].mean(0) - outcome.right[by[worse]].mean(0)
        found = getattr(subject.trials(side).scores(gain, outcome.targets)[-1], score)
        rows.append(
            {
                "side": name,
                "claim": claim,
                "score": score,
                "better": LABELS[better],
                "worse": LABELS[worse],
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "n": len(side),
            }
        )
    return rows


def _long(scores: Sequence[Mapping]) -> list[dict]:
    """Return the means over targets with one score a row, for figures."""
    return [
        {
            **{name: row[name] for name in ("side", "method", "label", "n")},
            "score": score.capitalize(),
            "value": row[score],
            "low": row[f"{score}_low"],
            "high": row[f"{score}_high"],
        }
        for row in scores
        if row["target"] == "all"
        for score in ("cause", "isolate", "disentangle")
    ]


def _overlay(matrix: Sequence[Mapping], told: Sequence[Mapping]) -> list[dict]:
    """Put beside each isolation what the table says: how much the swapped attribute tells of the one asked."""
    ratios = {(r["swapped"], r["kept"]): r["ratio"] for r in told}
    return [
        {**row, "ratio": ratios[row["swapped"], row["asked"]], "pair": f"{row['swapped']} > {row['asked']}"}
        for row in matrix
        if not row["own"] and ratios[row["swapped"], row["asked"]] is not None
    ]


def _arms(
    subject: Subject, fitted: Stage, control: Stage, bases: dict[str, Featurizer]
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return what is tested: chosen candidates, and the controls that belong to them."""
    chosen = [replace(c, setting="") for c in chosen_of(fitted)]
    width, made = int(fitted.value("site_width")), []
    for target in subject.targets:
        mdas = next(c for c in chosen if (c.method, c.target) == ("mdas", target))
        bases[f"complement-{target}"] = bases[mdas.basis].complement()
        made += [
            Candidate("empty", target, "", "", (), 0),
            Candidate("full", target, "", "", None, width),
            Candidate("complement", target, "", f"complement-{target}", None, width - mdas.size),
        ]
    return chosen + made + [Candidate.of(r) for r in control.rows("control_candidates")], bases


def _untrained(subject: Subject, site: Site, ranks: Mapping[str, int], told: Told) -> list[dict]:
    """MDAS fitted and tested in a network of the same shape that learnt nothing, on its own answers to the same pairs.

    None where it says the same about every entity, to some attribute's questions.
    """
    config = subject.config
    twin = Model.load(untrained(subject.model.module, config.seed), tokenizer=subject.model.tokenizer)
    sides = {n: with_own_answers(subject.side(n), twin, batch=config.batch) for n in ("train", *TEST)}
    if any(side is None or target not in side.asked for side in sides.values() for target in ranks):
        return []
    swaps = {n: side.record(twin, [site], config.memory_budget)[site] for n, side in sides.items()}
    made, bases = mdas_of(
        sides["train"], swaps["train"], ranks, config.fitting, seed=config.seed, told=lambda x: told(0.7 * x)
    )
    made = [replace(c, method="untrained", setting="") for c in made]
    rows = []
    for k, name in enumerate(TEST):
        outcome, _ = of_candidates(sides[name], swaps[name], made, bases, rows_at_once=config.fitting.rows_at_once)
        rows += _scores(subject, sides[name], "untrained", outcome, np.array([0]), ranks)[0]
        told(0.7 + 0.3 * (k + 1) / len(TEST))
    return rows


def _majority(subject: Subject, name: str) -> list[dict]:
    """Score always giving an attribute's commonest training answer."""
    train, side = subject.side("train"), subject.side(name)
    common = {
        a: Counter(p.base_label for p in train.pairs if p.groups["cell"] == a).most_common(1)[0][0]
        for a in dict.fromkeys(train.asked)
    }
    right = np.array(
        [
            [
                common.get(a) == (p.cf_label if a == target else p.base_label)
                for p, a in zip(side.pairs, side.asked, strict=True)
            ]
            for target in subject.targets
        ],
        dtype=float,
    )
    outcome = Answered(subject.targets, *[right[None]] * 2, np.zeros_like(right[None]), right[None])
    return _scores(subject, side, "majority", outcome, np.array([0]), dict.fromkeys(subject.targets, 0))[0]


def _examples(subject: Subject, name: str, outcome: Answered, by: Mapping[str, np.ndarray]) -> list[dict]:
    """Pairs in words: what was wanted, and what was said first with MDAS's, DAS's and no features swapped."""
    side, tokenizer = subject.side(name), subject.model.tokenizer
    most = subject.config.testing.examples // (len(TEST) * len(outcome.targets))
    rows = []
    for t, target in enumerate(outcome.targets):
        own = [i for i, a in enumerate(side.asked) if a == target]
        rest = [i for i, a in enumerate(side.asked) if a != target]
        for i in (*own[: -(-most // 2)], *rest[: most // 2]):
            pair = side.pairs[i]
            said = {m: tokenizer.decode([int(outcome.said[by[m][0], t, i])]).strip() for m in ("empty", "das", "mdas")}
            rows.append(
                {
                    "side": name,
                    "swapped": target,
                    "asked": side.asked[i],
                    "base": pair.base,
                    "source": pair.source,
                    "wanted": pair.cf_label if side.asked[i] == target else pair.base_label,
                    "before": said["empty"],
                    "das": said["das"],
                    "mdas": said["mdas"],
                    "right": bool(outcome.right[by["mdas"][0], t, i]),
                }
            )
    return rows
