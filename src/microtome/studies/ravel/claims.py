"""Claims of the paper with our verdicts. All numbers are means over target attributes on pairs that chose nothing.

The paper's numbers are of Llama-2-7B over five entity types (its main table), ours of the model and type at hand, so
orders are compared, not values, by the difference of two methods on the same pairs and the same resamples.
"reproduced" asks for a difference above 0 with its interval on both test sides, "same direction" for above 0 on both.
"""

from collections.abc import Iterator, Mapping

from microtome.records import Claim, Stage, Verdict

__all__ = ["ORDERS", "SIDES", "judge"]

PAPER = "arXiv 2402.17700"
TABLE = "main table (Llama-2-7B, mean of five entity types)"
SIDES = {"entity-test": "unseen entities", "context-test": "unseen wording"}

ORDERS = (
    # id, statement, score, better, worse, the paper's numbers
    ("mdas_isolates", "MDAS isolates an attribute better than DAS.", "isolate", "mdas", "das", None),
    ("mdas_best", "MDAS disentangles better than DAS.", "disentangle", "mdas", "das",
     "60.1 / 65.6 against 56.5 / 57.3"),
    ("das_causes", "DAS changes the answer more often than PCA's features do.", "cause", "das", "pca", None),
    ("das_over_pca", "Supervision by counterfactuals beats PCA.", "disentangle", "das", "pca",
     "56.5 / 57.3 against 39.5 / 39.1"),
    ("das_over_sae", "Supervision by counterfactuals beats a sparse autoencoder.", "disentangle", "das", "sae",
     "56.5 / 57.3 against 48.6 / 46.8"),
    ("das_over_rlap", "Supervision by counterfactuals beats linear adversarial probing.", "disentangle", "das", "rlap",
     "56.5 / 57.3 against 48.8 / 50.9"),
    ("mdbm_over_dbm", "The multi-task objective helps masks as well.", "disentangle", "mdbm", "dbm",
     "53.7 / 53.9 against 52.2 / 49.8"),
    ("das_over_dbm", "A rotation beats a mask over neurons.", "disentangle", "das", "dbm",
     "56.5 / 57.3 against 52.2 / 49.8"),
)  # fmt: skip


def judge(tested: Stage) -> Iterator[tuple[Claim, Verdict]]:
    """Yield every claim with its verdict, the headline first."""
    rows = {(r["side"], r["method"]): r for r in tested.rows("scores") if r["target"] == "all"}
    yield _headline(rows)
    differences = {(r["side"], r["claim"]): r for r in tested.rows("differences")}
    for order in ORDERS:
        yield _order(rows, [differences[s, order[0]] for s in SIDES], *order)


def _headline(rows: Mapping) -> tuple[Claim, Verdict]:
    claim = Claim(
        "disentangled",
        "Attributes of one entity can be swapped one at a time: MDAS finds features that do it.",
        PAPER,
        TABLE,
        "60.1 (entity) / 65.6 (context)",
        "MDAS's Disentangle on unseen entities; reproduced: on both test sides its interval lies above 0.5 (swapping "
        "nothing) and above MDAS fitted on shuffled sources",
    )
    low = min(rows[s, "mdas"]["disentangle_low"] for s in SIDES)
    null = max(rows[s, "shuffled"]["disentangle_high"] for s in SIDES)
    means = min(rows[s, "mdas"]["disentangle"] for s in SIDES)
    outcome = "reproduced" if low > max(0.5, null) else "same direction" if means > 0.5 else "not reproduced"
    main, context = (rows[s, "mdas"] for s in SIDES)
    reason = (
        f"Cause {main['cause']:.2f} and Isolate {main['isolate']:.2f} on unseen entities, {context['cause']:.2f} and "
        f"{context['isolate']:.2f} in unseen wording (Disentangle {context['disentangle']:.2f} "
        f"[{context['disentangle_low']:.2f}, {context['disentangle_high']:.2f}])."
    )
    control = {
        rows["entity-test", m]["label"]: rows["entity-test", m]["disentangle"]
        for m in ("empty", "full", "random", "shuffled", "untrained")
        if ("entity-test", m) in rows
    }
    interval = (main["disentangle_low"], main["disentangle_high"])
    return claim, Verdict(outcome, reason, main["disentangle"], main["n"], interval, control)


def _told(row: Mapping, score: str) -> str:
    """Return a method's score with the dimensions it swaps: more of them change more answers, wanted or not."""
    return f"{row['label']} {row[score]:.2f} ({row['size']:.0f} dimensions)"


def _order(
    rows: Mapping,
    found: list[Mapping],
    name: str,
    statement: str,
    score: str,
    better: str,
    worse: str,
    numbers: str | None,
) -> tuple[Claim, Verdict]:
    claim = Claim(
        name,
        statement,
        PAPER,
        TABLE,
        numbers,
        f"difference in {score.capitalize()} on unseen entities and in unseen wording; reproduced: above 0 with its "
        "interval on both",
    )
    apart, above = all(r["low"] > 0 for r in found), all(r["difference"] > 0 for r in found)
    outcome = "reproduced" if apart else "same direction" if above else "not reproduced"
    told = [
        f"{where}: {_told(rows[s, better], score)}, {_told(rows[s, worse], score)}, difference "
        f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
        for r, (s, where) in zip(found, SIDES.items(), strict=True)
    ]
    control = {f"{rows[s, worse]['label']}, {where}": rows[s, worse][score] for s, where in SIDES.items()}
    control["swap nothing"] = rows["entity-test", "empty"][score]
    first = found[0]
    return claim, Verdict(
        outcome, "; ".join(told) + ".", first["difference"], first["n"], (first["low"], first["high"]), control
    )
