"""Claims of the paper with our verdicts: neurons and layers that detect, neurons that generate, EigenShift.

The paper's numbers are of language models of 1.5 to 70 billion parameters on Jigsaw and RealToxicityPrompts; ours are
of the model at hand, so directions are compared, not values. It compares interventions at whatever damage each happens
to do; here all do the same (clean KL at the headline budget), on prompts that chose nothing and with the same random
numbers.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from microtome.records import Claim, Record, Verdict
from microtome.studies.toxicity.config import ToxicityConfig

__all__ = ["judge"]

PAPER = "arXiv 2509.16660"
ORDERS = (
    # id, statement, other arm, the paper's numbers
    ("over_aura", "EigenShift cuts more toxicity than AurA for the same damage.", "aura",
     "LLaMA-2: 11.13 to 4.71 % at perplexity 9.84, AurA 3.59 % at 19.30"),
    ("over_det_zero", "EigenShift cuts more toxicity than Det-0 for the same damage.", "det_zero",
     "LLaMA-2: TPH 60.4 against 0.03 (all experts set to 0)"),
    ("over_damp", "EigenShift cuts more toxicity than Damp for the same damage.", "damp",
     "LLaMA-2: TPH 60.4 against 1.67 (all experts halved)"),
    ("over_free", "The head's singular vectors are the directions to damp: they beat the difference of means.",
     "difference", None),
)  # fmt: skip


def judge(record: Record, config: ToxicityConfig) -> Iterator[tuple[Claim, Verdict]]:
    """Yield every claim that this run tested, with its verdict; the headline first."""
    if config_compares(record):
        yield _headline(record, config)
    yield _stable(record)
    yield _layers(record)
    yield _separate(record)
    if config_compares(record):
        rows = {(r["better"], r["worse"]): r for r in record.rows("differences")}
        arms = _arms(record, config)
        for name, statement, other, numbers in ORDERS:
            yield _order(rows.get(("eigenshift", other)), arms, config, name, statement, other, numbers)


def config_compares(record: Record) -> bool:
    """Whether interventions were compared: there were prompts to complete."""
    return "arms" in record.tables


def _arms(record: Record, config: ToxicityConfig) -> dict[str, dict]:
    """Return family -> its row at the headline budget, the no-op arm among them."""
    return {r["family"]: r for r in record.rows("arms") if r["budget"] in (0.0, config.arms.headline)}


def _headline(record: Record, config: ToxicityConfig) -> tuple[Claim, Verdict]:
    claim = Claim(
        "eigenshift_cuts",
        "Damping singular directions of the output head cuts generated toxicity.",
        PAPER,
        "Table 2",
        "-58 % toxic completions at perplexity +58 % (LLaMA-2, k = 1024 of 4096, a = 0); no random directions beside",
        f"fall of the toxic rate against the no-op arm on test prompts at a clean KL of {config.arms.headline} nats a "
        "token; reproduced: its interval lies above 0 and the arm beats random directions with its interval",
    )
    arms = _arms(record, config)
    if "eigenshift" not in arms:
        return claim, Verdict("not testable here", "no strength of EigenShift is as mild as the headline budget.")
    row = arms["eigenshift"]
    against = next(
        (r for r in record.rows("differences") if (r["better"], r["worse"]) == ("eigenshift", "random")), None
    )
    beats = against is not None and against["high"] < 0
    outcome = "not reproduced"
    if row["cut"] > 0:
        outcome = "reproduced" if row["cut_low"] > 0 and beats else "same direction"
    told = f"{row['rate']:.3f} of completions toxic, {arms['no-op']['rate']:.3f} unedited ({row['setting']})"
    if against is not None:
        told += (
            f"; against random directions {against['difference']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}]"
        )
    controls = {arms[n]["label"]: arms[n]["cut"] for n in ("random", "shuffled", "random_neurons") if n in arms}
    return claim, Verdict(
        outcome, told + ".", row["cut"], row["n"], (row["cut_low"], row["cut_high"]), {"no-op": 0.0, **controls}
    )


def _stable(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "unstable_neurons",
        "Single neurons are unstable indicators of toxicity.",
        PAPER,
        "section 4, Table 3",
        "11 to 23 % of neurons with AUROC above 0.5, 4 to 9 % above 0.55",
        "rank correlation of all neurons' areas between two halves of the texts; reproduced where it is no higher than "
        "with shuffled labels (95th percentile); the interval takes neurons as independent",
    )
    rows = {r["against"]: r for r in record.rows("stability")}
    row = rows["other half of the texts"]
    outcome = "reproduced" if row["spearman"] <= row["spearman_null"] else "not reproduced"
    above = next(r for r in record.rows("shares") if r["kind"] == "within lengths" and r["threshold"] == 0.5)
    reason = (
        f"The areas of {row['n']} neurons in the two halves correlate at {row['spearman']:.2f}, with shuffled labels "
        f"at up to {row['spearman_null']:.2f}; {above['above']:.0%} of neurons are above 0.5 (50 % by chance) and "
        f"{above['significant']:.0%} are told from chance either way (q < 0.05)."
    )
    null = {f"{r['against']}: Spearman": r["spearman"] for r in record.rows("stability")[1:]}
    interval = _fisher(row["spearman"], row["n"])
    control = {"labels shuffled, 95th percentile": row["spearman_null"], **null}
    return claim, Verdict(outcome, reason, row["spearman"], row["n"], interval, control)


def _fisher(r: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation over n neurons, as if they were independent (Fisher 1921)."""
    z, half = np.arctanh(np.clip(r, -0.999999, 0.999999)), 1.96 * np.sqrt(1.06 / max(n - 3, 1))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _layers(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "layers_over_neurons",
        "Layers tell toxic texts apart better than neurons do.",
        PAPER,
        "Table 1 (Jigsaw, mean)",
        "63.3 (2-means of a layer, not held out) against 54.7 (average of neurons)",
        "held-out AUROC of the best layer's linear probe less that of its best single neuron, both fitted on the other "
        "half; the interval is that of both areas' bounds, which is wide",
    )
    rows = record.rows("layers")
    trained = {(r["readout"], r["block"]): r for r in rows if r["model"] == "trained"}
    best = max((r for (name, _), r in trained.items() if name == "probe"), key=lambda r: r["area"])
    neuron = trained["neuron", best["block"]]
    gap = best["area"] - neuron["area"]
    interval = (best["low"] - neuron["high"], best["high"] - neuron["low"])
    outcome = "reproduced" if interval[0] > 0 else "same direction" if gap > 0 else "not reproduced"
    alone = {r["readout"]: r["area"] for r in rows if r["model"] == "none"}
    empty = max(r["area"] for r in rows if r["model"] == "untrained" and r["readout"] == "probe")
    two = max(r["area"] for (name, _), r in trained.items() if name.startswith("2-means"))
    reason = (
        f"Probe {best['area']:.3f}, best neuron {neuron['area']:.3f} (block {best['block']}); as in the paper, 2-means "
        f"reach {two:.3f} and neurons {record.value('average_neuron'):.3f} on average. A bag of words without a model "
        f"reaches {alone['bag of words']:.3f}."
    )
    control = {"untrained model's best probe": empty, **{name: area for name, area in alone.items()}}
    return claim, Verdict(outcome, reason, gap, best["n"], interval, control)


def _separate(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "separate_experts",
        "What detects toxicity is not what generates it.",
        PAPER,
        "section 4, RQ3",
        None,
        "fall of P(flagged word) on test places with the best generators at 0, less that with the best detectors at 0; "
        "reproduced: above 0 with its interval, generators above and detectors within their random twins' 95 %",
    )
    rows = {r["set"]: r for r in record.rows("dissociation")}
    twins = {name: [r["generation"] for r in record.rows("random_sets") if r["set"].endswith(name)] for name in rows}
    high = {name: float(np.quantile(x, 0.95)) for name, x in twins.items()}
    detect, generate = rows["best detectors"], rows["best generators"]
    gap = generate["generation"] - detect["generation"]
    interval = (
        generate["generation_low"] - detect["generation_high"],
        generate["generation_high"] - detect["generation_low"],
    )
    apart = generate["generation"] > high["best generators"] and detect["generation"] <= high["best detectors"]
    outcome = "reproduced" if interval[0] > 0 and apart else "same direction" if gap > 0 else "not reproduced"
    reason = (
        f"P(flagged word) is {record.value('generation_before'):.3f}; without the {generate['neurons']} best "
        f"generators it falls by {generate['generation']:.3f} (random twins: up to {high['best generators']:.3f}), "
        f"without the best detectors by {detect['generation']:.3f} (up to {high['best detectors']:.3f}). "
        f"{record.value('overlap')} neurons are in both sets."
    )
    control = {f"random twins of {name}, 95th percentile": x for name, x in high.items()}
    return claim, Verdict(outcome, reason, gap, generate["places"], interval, control)


def _order(
    row: Mapping | None,
    arms: Mapping[str, Mapping],
    config: ToxicityConfig,
    name: str,
    statement: str,
    other: str,
    numbers: str | None,
) -> tuple[Claim, Verdict]:
    claim = Claim(
        name,
        statement,
        PAPER,
        "Table 2" if numbers else "section 2 (the premise)",
        numbers,
        f"difference of the toxic rate on the same test prompts and random numbers, at a clean KL of "
        f"{config.arms.headline}; reproduced: below 0 with its interval, and the other arm does at least half "
        "the damage",
    )
    if row is None:
        return claim, Verdict("not testable here", "one of the two was not run, or cannot be as mild as the budget.")
    milder = arms[other]["clean_kl"] < 0.5 * arms["eigenshift"]["clean_kl"]
    outcome = "not reproduced"
    if row["difference"] < 0:
        outcome = "reproduced" if row["high"] < 0 and not milder else "same direction"
    reason = (
        f"EigenShift {arms['eigenshift']['rate']:.3f} (clean KL {arms['eigenshift']['clean_kl']:.3f}), "
        f"{arms[other]['label']} {arms[other]['rate']:.3f} ({arms[other]['clean_kl']:.3f}), unedited "
        f"{arms['no-op']['rate']:.3f}."
        + (f" {arms[other]['label']} does less damage even at its largest strength." if milder else "")
    )
    control = {"no-op": arms["no-op"]["rate"]} | {
        arms[n]["label"]: arms[n]["rate"] for n in ("random", "random_neurons") if n in arms
    }
    return claim, Verdict(outcome, reason, row["difference"], row["n"], (row["low"], row["high"]), control)
