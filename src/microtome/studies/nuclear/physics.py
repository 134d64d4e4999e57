"""What the networks computed, in the words of physics: contributions against terms of formulas, and formulas found.

The penultimate layer's components are matched with the terms of a mass formula; sums of a library's terms are fitted
to the measured energies, to what the direct network predicts, and to its largest contributions, which are then put in
the contributions' place: what the network loses by that is what the formulas do not say.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from microtome.core.seeds import generator
from microtome.data.nuclear import BW2
from microtome.data.nuclear.formulas import pairing_sign
from microtome.measures.contributions import Contributions, match_terms, penultimate_contributions
from microtome.measures.symbolic import Library, best_subsets, monomials, selection_frequency
from microtome.records import Stage, StageOutput, Told
from microtome.studies.nuclear.embeddings import Network, networks
from microtome.studies.nuclear.subject import Subject
from microtome.training.regression import Fitted

__all__ = ["library_of", "penultimate", "symbolic"]

KEPT = (1, 2, 3, 5, 8, 12)
EXPLAINED = 3
MORE = 3  # times as many draws, for eleven terms are tested at once


def contributions_of(subject: Subject, network: Network) -> Contributions:
    """Return what each component of the penultimate layer adds to the prediction of every nucleus, in MeV."""
    arm, module = subject.arms[network.arm], network.fitted.module(network.place)
    z, n = torch.from_numpy(subject.table.z), torch.from_numpy(subject.table.n)
    with torch.no_grad():
        features = module.features(z, n, torch.zeros_like(z)).double().numpy()
        weight, bias = module.readout.weight[0].double().numpy(), float(module.readout.bias[0])
    return penultimate_contributions(
        features,
        weight * module.output_scale,
        bias=bias * module.output_scale,
        scale=float(arm.scaling.std[0]),
        offset=float(arm.scaling.mean[0]),
    )


def headline(fitted: Mapping[str, Fitted], held: Stage, arm: str) -> Network:
    """Return the network of an arm that is looked at closely."""
    return next(n for n in networks(fitted, held) if n.headline and n.arm == arm)


def penultimate(subject: Subject, fitted: Mapping[str, Fitted], held: Stage, told: Told) -> StageOutput:
    """Contributions matched one to one with the terms of BW2, for the direct and the residual network."""
    table, reading = subject.table, subject.config.reading
    terms = dict(zip(BW2.terms.names, BW2.terms.design(table.z, table.n).T, strict=True))
    matches, cosines, sizes = [], [], []
    for k, arm in enumerate(("direct", "residual", "untrained")):
        network = headline(fitted, held, arm)
        found = contributions_of(subject, Network("direct" if arm == "untrained" else arm, *_rest(network)))
        shown = found.values[:, : reading.contributions]
        match = match_terms(shown, terms, rng=generator(subject.config.seed, "match", arm), draws=MORE * reading.draws)
        matches += [
            {
                "arm": arm,
                "term": m.term,
                "contribution": m.contribution + 1,
                "size": float(found.size[m.contribution]),
                "cosine": m.cosine.estimate,
                "low": m.cosine.low,
                "high": m.cosine.high,
                "orthogonal": m.orthogonal,
                "partial": m.partial,
                "p_shuffled": m.p_shuffled,
                "p_turned": m.p_turned,
                "explained": float(match.explained[match.terms.index(m.term)]),
                "n": m.cosine.n,
            }
            for m in match.matches
        ]
        cosines += [
            {"arm": arm, "contribution": i + 1, "term": name, "cosine": float(match.cosine[i, j]),
             "orthogonal": float(match.orthogonal[i, j])}
            for j, name in enumerate(match.terms)
            for i in range(shown.shape[1])
        ]  # fmt: skip
        sizes += _size_rows(subject, network, arm, found)
        told((k + 1) / 3)
    return StageOutput(tables={"matches": matches, "cosines": cosines, "contributions": sizes})


def _rest(network: Network) -> tuple[Fitted, int, bool]:
    return network.fitted, network.place, network.headline


def _size_rows(subject: Subject, network: Network, arm: str, found: Contributions) -> list[dict]:
    of = subject.arms["direct" if arm == "untrained" else arm]
    rows = []
    for k in KEPT:
        left = (of.truth - of.base - found.first(k))[subject.held]
        at = min(k, len(found.size)) - 1
        rows.append({"arm": arm, "kept": k, "size": float(found.size[at]), "explained": float(found.explained[at]),
                     "rms": float(np.sqrt(np.square(left).mean())), "n": int(subject.held.sum())})  # fmt: skip
    return rows


def library_of(subject: Subject) -> Library:
    """Return candidate terms A^p Z^q |N-Z|^d of degree -1/3 to 5/3, and pairing ones pi A^p."""
    z, n = subject.table.z.astype(float), subject.table.n.astype(float)
    a, excess = z + n, np.abs(n - z)
    powers = {"A": (-1, -1 / 3, 0, 1 / 3, 2 / 3, 1), "Z": (0, 1, 2), "|N-Z|": (0, 1, 2)}
    every = monomials({"A": a, "Z": z, "|N-Z|": excess}, powers)
    sign = pairing_sign(z, n)
    degrees = [p + q + d for p in powers["A"] for q in powers["Z"] for d in powers["|N-Z|"] if (p, q, d) != (0, 0, 0)]
    bulk = {
        name: every.terms[:, k]
        for k, (name, degree) in enumerate(zip(every.names, degrees, strict=True))
        if -0.4 < degree < 1.7
    }
    return Library.of(bulk | {f"pi A^{p:.3g}": sign * a**p for p in (-1.0, -0.5, -1 / 3)})


def symbolic(subject: Subject, fitted: Mapping[str, Fitted], held: Stage, told: Told) -> StageOutput:
    """Formulas of each size for the energies, the network's predictions and its largest contributions."""
    library, network = library_of(subject), headline(fitted, held, "direct")
    train, terms = subject.train, subject.config.reading.terms
    parts = contributions_of(subject, network)
    targets = {
        "binding energy": subject.table.binding,
        "network's prediction": parts.prediction,
        **{f"contribution {k + 1}": parts.values[:, k] for k in range(min(EXPLAINED, parts.values.shape[1]))},
    }
    known = Library.of(dict(zip(library.names, library.terms[train].T, strict=True)))
    fronts, chosen, kept = [], [], {}
    for k, (name, target) in enumerate(targets.items()):
        front = best_subsets(known, target[train], largest=terms)
        kept[name] = front.chosen(dict(zip(library.names, library.terms.T, strict=True)))
        fronts += _front_rows(subject, library, name, target, front)
        rng = generator(subject.config.seed, "selection", name)
        size = min(5, len(front.formulas))
        often = selection_frequency(known, target[train], terms=size, rng=rng, draws=20)
        chosen += [{"target": name, "term": t, "share": s, "size": size} for t, s in list(often.items())[:8]]
        told((k + 1) / len(targets))
    return StageOutput(
        tables={"fronts": fronts, "selection": chosen, "plugged": _plugged(subject, parts, kept)},
        values={"library": len(library.names)},
    )


def _front_rows(subject: Subject, library: Library, name: str, target: np.ndarray, front) -> list[dict]:
    every = dict(zip(library.names, library.terms.T, strict=True))
    rows = []
    for formula, proved in zip(front.formulas, front.proved, strict=True):
        left = (target - formula(every))[subject.held]
        rows.append(
            {
                "target": name,
                "terms": len(formula.terms),
                "formula": str(formula),
                "rms": formula.rms,
                "held_rms": float(np.sqrt(np.square(left).mean())),
                "spread": float(target[subject.held].std()),
                "ebic": formula.ebic,
                "chosen": formula == front.chosen,
                "proved": proved,
                "n": int(subject.held.sum()),
            }
        )
    return rows


def _plugged(
    subject: Subject, parts: Contributions, formulas: Mapping[str, Float[np.ndarray, "nucleus"]]
) -> list[dict]:
    """The network with its largest contributions replaced by formulas, one after the other."""
    truth, predicted, rows = subject.arms["direct"].truth, parts.prediction.copy(), []
    for k in range(EXPLAINED + 1):
        if k:
            predicted = predicted - parts.values[:, k - 1] + formulas[f"contribution {k}"]
        left = (truth - predicted)[subject.held]
        rows.append({"replaced": k, "rms": float(np.sqrt(np.square(left).mean())), "n": int(subject.held.sum())})
    return rows
