"""Claims of the paper with our verdicts: order, helix, its use, the physics terms, several tasks, the warm-up.

The paper's networks are 1024 to 2048 wide and trained for 50,000 to 200,000 epochs on a GPU; ours are small. Its body
could not be read here (specification), so numbers are those of its released notebooks, where they are given at all.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from microtome.records import Claim, Record, Verdict
from microtome.studies.nuclear.subject import ARMS, Subject

__all__ = ["judge"]

PAPER = "arXiv 2405.17425"
SPEARMAN = 0.97
EXACT = 1e-3  # MeV: a formula that leaves no more made the table


def judge(record: Record, subject: Subject) -> Iterator[tuple[Claim, Verdict]]:
    """Yield every claim that this run tested, with its verdict; the headline first."""
    yield _accurate(record)
    yield _ordered(record)
    yield _helix(record)
    yield _theory(record)
    yield _used(record)
    yield _parity(record)
    yield _terms(record)
    yield _formulas(record)
    yield _several(record)
    yield _modular(record)


def _accurate(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "accurate",
        "An embedding network predicts binding energies of nuclei it never saw better than mass formulas do.",
        PAPER,
        "figure 1, notebook paper-plots",
        "0.26 MeV on a tenth of the nuclei held out (residual to the semi-empirical formula, one seed)",
        "root mean square on held-out nuclei, every Z and N of which was trained, median over seeds; reproduced: its "
        "interval lies below the best fitted formula's error and that formula corrected by its nearest training nuclei",
    )
    rows = {r["label"]: r for r in record.rows("holdout")}
    own = rows[ARMS["residual"]]
    formulas = {k: r["rms"] for k, r in rows.items() if r["kind"] == "formula" and "literature" not in k}
    exact = min(formulas.values()) < EXACT
    rivals = {k: v for k, v in formulas.items() if not (exact and k.startswith("BW2"))}
    plain = min(v for k, v in rivals.items() if "nearest" not in k)
    outcome = "not reproduced"
    if own["rms"] < plain:
        outcome = "reproduced" if own["high"] < min(rivals.values()) else "same direction"
    reason = (
        f"{own['rms']:.3f} MeV (seeds {own['best_seed']:.3f} to {own['worst_seed']:.3f}, "
        f"their mean {own['ensemble']:.3f}); "
        f"half of the nuclei are within {own['median']:.3f}. "
        + ("The table is BW2's own, which is left out: nothing can beat it. " if exact else "")
        + _listed(rivals, " MeV")
    )
    controls = {ARMS[a]: rows[ARMS[a]]["rms"] for a in ("untrained", "direct")} | rivals
    return claim, Verdict(outcome, reason, own["rms"], own["n"], (own["low"], own["high"]), controls)


def _ordered(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "ordered",
        "The first principal component of the embeddings of N puts them in their order.",
        PAPER,
        "figure 1",
        None,
        f"|Spearman| of PC1 with N, rows seen in training, median over seeds; reproduced: above {SPEARMAN} with its "
        "interval's lower end above the untrained networks' 95 % null",
    )
    by = _by_seed(record, "spearman", "N")
    close = _component(record, "direct", "N", "spearman", 1)
    found = float(np.median(by["direct"]))
    outcome = "reproduced" if found > SPEARMAN and close["low"] > close["null"] else "not reproduced"
    if outcome != "reproduced" and close["low"] > close["null"]:
        outcome = "same direction"
    reason = (
        f"Seeds {min(by['direct']):.3f} to {max(by['direct']):.3f}; the table of Z: "
        f"{np.median(_by_seed(record, 'spearman', 'Z')['direct']):.3f}. Any smooth use of N orders it."
    )
    controls = {ARMS[a]: float(np.median(by[a])) for a in ("untrained", "noise", "theory", "residual")}
    controls["shuffled order, 95th percentile"] = close["null"]
    low, high = min(close["low"], found), max(close["high"], found)
    return claim, Verdict(outcome, reason, found, close["n"], (low, high), controls)


def _helix(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "helix",
        "The embeddings of N lie on a helix.",
        PAPER,
        "figure 1, section on embeddings",
        "R2 0.949 with a period of 38.9 neutrons (the authors' own snapshot, epoch 49,999, refitted here)",
        "R2 of a helix less that of a polynomial of as many parameters, first three components, median over seeds; "
        "reproduced: most seeds gain more than 0.03, predict rows held out better, turn more than twice and beat "
        "shuffled rows; the interval spans the seeds",
    )
    rows = [r for r in record.rows("helices") if r["arm"] == "direct" and r["table"] == "N"]
    drift = rows[0]["drift"]
    rows = [r for r in rows if r["drift"] == drift]
    gains = [r["r2"] - r["polynomial"] for r in rows]
    supported = sum(r["supported"] for r in rows)
    close = next(r for r in rows if r["headline"])
    outcome = "not reproduced"
    if supported > len(rows) / 2:
        outcome = "reproduced"
    elif supported:
        outcome = "same direction"
    other = next(
        r for r in record.rows("helices")
        if r["headline"] and (r["arm"], r["table"], r["drift"]) == ("residual", "N", drift)
    )  # fmt: skip
    reason = (
        f"{supported} of {len(rows)} networks have one. The one in the middle: {close['verdict']}. The residual arm's: "
        f"{other['verdict']}."
    )
    controls = {
        "polynomial": float(np.median([r["polynomial"] for r in rows])),
        "shuffled rows, 95th percentile": close["null"],
    }
    for arm in ("theory", "untrained"):
        found = [r for r in record.rows("helices") if (r["arm"], r["table"], r["drift"]) == (arm, "N", drift)]
        controls[f"{ARMS[arm]}: gain"] = float(np.median([r["r2"] - r["polynomial"] for r in found]))
    return claim, Verdict(outcome, reason, float(np.median(gains)), close["n"], (min(gains), max(gains)), controls)


def _theory(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "theory_twin",
        "Trained on what a mass formula says, a network has embeddings of the same shape as one trained on data.",
        PAPER,
        "figure 1, caption",
        None,
        "neighbours' distance over that of any two rows of N, data arm less theory arm, medians over seeds; "
        "reproduced: the two lie nearer to each other than either to the untrained networks; the interval spans pairs "
        "of seeds",
    )
    by = _by_seed(record, "neighbours", "N")
    medians = {arm: float(np.median(v)) for arm, v in by.items()}
    gap = medians["direct"] - medians["theory"]
    apart = min(medians["untrained"] - medians["direct"], medians["untrained"] - medians["theory"])
    outcome = "reproduced" if abs(gap) < apart / 2 else "same direction" if abs(gap) < apart else "not reproduced"
    pairs = [a - b for a in by["direct"] for b in by["theory"]]
    reason = (
        f"Data {medians['direct']:.2f}, theory {medians['theory']:.2f}, untrained {medians['untrained']:.2f}: what "
        "both show comes from the bulk energy, not from structure that only data have."
    )
    n = next(r["n"] for r in record.rows("order") if r["table"] == "N")
    interval = (min(*pairs, gap), max(*pairs, gap))
    return claim, Verdict(outcome, reason, gap, n, interval, {ARMS["untrained"]: medians["untrained"]})


def _used(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "helix_used",
        "The network's prediction rests on the helix: put in the embeddings' place it predicts nearly as well.",
        PAPER,
        "section on replacing embeddings (numbers not read)",
        None,
        "share of the way from mean rows (0) to the network (1) in held-out error with a helix on three components for "
        "the table of N; reproduced: above 0.9 and above every polynomial, same direction: above every polynomial; the "
        "interval spans drifts",
    )
    rows = [
        r for r in record.rows("replacements") if (r["arm"], r["table"], r["metric"]) == ("direct", "N", "held-out")
    ]
    named = {r["name"]: r for r in rows}
    helices = {k: r for k, r in named.items() if k.startswith("helix")}
    curves = {k: r for k, r in named.items() if k.startswith("polynomial")}
    best = max(helices.values(), key=lambda r: r["recovered"])
    rival = max(curves.values(), key=lambda r: r["recovered"])
    outcome = "not reproduced"
    if best["recovered"] > max(rival["recovered"], named["shuffle"]["recovered"]):
        outcome = "reproduced" if best["recovered"] > 0.9 and _supported(record) else "same direction"
    kept = named.get("keep 3", best)
    reason = (
        f"{best['name']}: {best['score']:.1f} MeV where the network has {named['model']['score']:.2f}; "
        f"{rival['name']}: {rival['score']:.1f}; the three components themselves: {kept['score']:.1f}."
    )
    controls = {k: named[k]["recovered"] for k in ("mean", "shuffle") if k in named} | {
        rival["name"]: rival["recovered"]
    }
    span = [r["recovered"] for r in helices.values()]
    return claim, Verdict(
        outcome, reason, best["recovered"], len(record.rows("map_items")), (min(span), max(span)), controls
    )


def _parity(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "parity",
        "Some principal component of the embeddings tells even numbers from odd ones.",
        PAPER,
        "README of NuCLR-MechInterp (PCA 4)",
        None,
        "largest even-odd amplitude of the first components of N in standard deviations, direct and residual arm; "
        "reproduced: its interval lies above 0 and p < 0.05 with the number of components counted (Bonferroni)",
    )
    rows = [
        r for r in record.rows("components")
        if r["arm"] in ("direct", "residual") and (r["table"], r["statistic"]) == ("N", "parity")
    ]  # fmt: skip
    if not rows:
        return claim, Verdict("not testable here", "no three numbers of neutrons follow each other.")
    best = max(rows, key=lambda r: r["value"] / max(r["null"], 1e-12))
    outcome = "reproduced" if best["p"] * len(rows) < 0.05 and best["low"] > 0 else "not reproduced"
    gone = [
        r for r in record.rows("replacements")
        if (r["arm"], r["table"], r["metric"]) == (best["arm"], "N", "odd-even gap")
        and r["name"] in ("model", f"without {best['component']}", "mean")
    ]  # fmt: skip
    reason = (
        f"PC{best['component']} of the {ARMS[best['arm']]}, p = {best['p']:.3f}. Odd-even gap of its predictions: "
        f"{_listed({r['name']: r['score'] for r in gone}, ' MeV')}"
    )
    controls = {"noise with the same second differences, 95th percentile": best["null"]}
    for arm in ("untrained", "theory"):
        same = [r for r in record.rows("components") if (r["arm"], r["table"], r["statistic"]) == (arm, "N", "parity")]
        controls[ARMS[arm]] = max((r["value"] for r in same), default=0.0)
    return claim, Verdict(outcome, reason, best["value"], best["n"], (best["low"], best["high"]), controls)


def _terms(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "physics_terms",
        "Components of the penultimate layer match terms of the mass formula.",
        PAPER,
        "section on penultimate features, notebook paper-plots",
        "pairing by PC3, volume by PC0, Coulomb by PC0, asymmetry by PC1",
        "terms matched one to one with p < 0.05 against axes turned at random in the same span and against shuffled "
        "nuclei (Bonferroni over terms), direct arm; reproduced: more than one",
    )
    rows = [r for r in record.rows("matches") if r["arm"] == "direct"]
    passed = [r for r in rows if max(r["p_turned"], r["p_shuffled"]) * len(rows) < 0.05]
    best = rows[0]
    outcome = "reproduced" if len(passed) > 1 else "same direction" if passed else "not reproduced"
    names = ", ".join(
        f"{r['term']} ({r['cosine']:+.2f}, beyond earlier terms {r['orthogonal']:+.2f})" for r in rows[:4]
    )
    reason = (
        f"{len(passed)} of {len(rows)} terms beat both nulls. Largest: {names}. Smooth terms resemble each other, so a "
        "large cosine alone says little."
    )
    alone = [abs(r["cosine"]) for r in record.rows("matches") if r["arm"] == "untrained"]
    controls = {"untrained network's largest |cosine|": max(alone)}
    low, high = sorted((best["low"], best["high"]))
    return claim, Verdict(outcome, reason, best["cosine"], best["n"], (low, high), controls)


def _formulas(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "formulas",
        "Symbolic formulas of the network's components bring its prediction back.",
        PAPER,
        "section on symbolic regression, notebook symbolic_regression",
        "61.7 MeV with the first component's formula alone, 16.8 after a linear refit",
        "held-out error of the network with its three largest contributions replaced by formulas from a library, over "
        "the direct network's own; reproduced: less than twice as large; the interval spans one to three replaced",
    )
    rows = record.rows("plugged")
    ratio = [r["rms"] / rows[0]["rms"] for r in rows]
    outcome = "reproduced" if ratio[-1] < 2 else "same direction" if ratio[-1] < 10 else "not reproduced"
    front = [r for r in record.rows("fronts") if r["target"] == "binding energy"]
    five = min(front, key=lambda r: abs(r["terms"] - 5))
    reason = (
        f"{_listed({str(r['replaced']) + ' replaced:': r['rms'] for r in rows}, ' MeV')} Of the energies themselves, "
        f"{five['terms']} terms leave {five['held_rms']:.2f} MeV: {five['formula']}."
    )
    rows_n, semf = rows[0]["n"], next(r["rms"] for r in record.rows("holdout") if r["label"] == "SEMF, fitted")
    interval = (min(ratio[1:]), max(ratio[1:]))
    return claim, Verdict(outcome, reason, ratio[-1], rows_n, interval, {"SEMF, fitted (MeV)": semf})


def _several(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "several_tasks",
        "Learning several quantities together helps with each.",
        PAPER,
        "section on multi-task learning",
        "0.29 MeV with ten tasks on half of the data; 0.2 to 5.7 MeV by how many other numbers of the nucleus were "
        "trained on",
        "fall of the held-out error of the binding energy when other tasks are learnt too, whole nuclei held out; "
        "reproduced: above 0 with its interval (the same nuclei resampled)",
    )
    gains = {r["split"]: r for r in record.rows("multitask_gain")}
    grouped, leaky = gains["whole nuclei"], gains["single numbers (leaky)"]
    outcome = "not reproduced"
    if grouped["gain"] > 0:
        outcome = "reproduced" if grouped["low"] > 0 else "same direction"
    share = {(r["split"], r["tasks"]): r["derivable"] for r in record.rows("multitask")}
    reason = (
        f"With single numbers held out the fall is {leaky['gain']:+.3f} MeV, but there "
        f"{share['single numbers (leaky)', 'with others']:.0%} of the held-out energies are sums of training numbers."
    )
    controls = {"leaky split: fall": leaky["gain"]}
    return claim, Verdict(outcome, reason, grouped["gain"], grouped["n"], (grouped["low"], grouped["high"]), controls)


def _modular(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "modular",
        "A network that adds modulo a prime has embeddings on circles.",
        PAPER,
        "section on modular addition",
        None,
        "share of the embedding's variance in the planes of the frequencies found (family-wise p < 0.05); reproduced: "
        "at least one is found, none before training, and held-out sums are right; the interval is the strongest "
        "plane's share and that of all found",
    )
    rows = {(r["model"], r["frequency"]): r["share"] for r in record.rows("fourier")}
    found, before = record.value("modular_found_trained"), record.value("modular_found_untrained")
    accuracy = record.value("modular_accuracy")
    shares = [rows["trained", k] for k in found]
    total = float(sum(shares))
    outcome = (
        "reproduced" if found and not before and accuracy > 0.95 else "same direction" if found else "not reproduced"
    )
    reason = (
        f"{accuracy:.1%} of {record.value('modular_held')} held-out sums are right; frequencies found: "
        f"{', '.join(map(str, found)) or 'none'}. Several share the variance, so PC1 and PC2 mix them."
    )
    controls = {
        "shuffled rows, 95th percentile of the largest": record.value("modular_chance_trained"),
        "untrained: frequencies found": len(before),
    }
    n = max(k for _, k in rows)
    return claim, Verdict(outcome, reason, total, n, (max(shares, default=0.0), total), controls)


def _by_seed(record: Record, column: str, table: str) -> dict[str, list[float]]:
    """Return arm -> a statistic of the order of one table's rows, of every network."""
    found: dict[str, list[float]] = {}
    for row in record.rows("order"):
        if row["table"] == table:
            found.setdefault(row["arm"], []).append(row[column])
    return found


def _component(record: Record, arm: str, table: str, statistic: str, component: int) -> dict:
    wanted = (arm, table, statistic, component)
    return next(
        r for r in record.rows("components") if (r["arm"], r["table"], r["statistic"], r["component"]) == wanted
    )


def _supported(record: Record) -> bool:
    """Whether the direct network that is looked at closely has a helix in its table of N."""
    rows = record.rows("helices")
    return any(r["supported"] for r in rows if r["headline"] and (r["arm"], r["table"]) == ("direct", "N"))


def _listed(numbers: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in numbers.items()) + f"{unit}."
