"""Claims of the report with our verdicts: what balance buys, which language tuned models answer in, what is inside.

The report's numbers are of a model of 8 billion parameters and of 606 billion tokens; ours are of the models at hand,
so directions are compared, not values. It gives no intervals and no controls.
"""

from collections.abc import Iterator

from microtome.records import Claim, Record, Verdict
from microtome.studies.multilingual.analysis_claims import judge_analysis

__all__ = ["PAPER", "judge"]

PAPER = "arXiv 2408.06273"
LEAST_ANSWERS = 30
"""With fewer that can be judged, a rate over languages says nothing."""


def judge(record: Record) -> Iterator[tuple[Claim, Verdict]]:
    """Yield every claim that this run tested, with its verdict; the headline first."""
    if "thesis" in record.tables:
        yield _balance(record, "worst", "the worst language")
        yield _balance(record, "mean", "the mean over languages")
    yield from judge_analysis(record)
    if "fidelity" in record.tables:
        yield _spoken(record)


def _balance(record: Record, part: str, named: str) -> tuple[Claim, Verdict]:
    claim = Claim(
        f"balance_{part}",
        f"A model trained on balanced data models languages better, seen at {named}.",
        PAPER,
        "sections 1 and 3.1",
        None,
        f"bits per byte of {named}, English-heavy less balanced, at equal tokens; reproduced: Student's interval over "
        "pairs of models lies above 0",
    )
    rows = {r["of"]: r for r in record.rows("thesis")}
    row = rows[part]
    favoured = next((r for r in rows.values() if r["favoured"]), None)
    if row["low"] is None:
        return claim, Verdict("not testable here", "one pair of models gives no interval; train two or more.")
    outcome = "not reproduced"
    if row["gain"] > 0:
        outcome = "reproduced" if row["low"] > 0 else "same direction"
    reason = f"{row['skewed']:.3f} bits per byte English-heavy, {row['balanced']:.3f} balanced, of {named}."
    control = {"gain of the favoured language": favoured["gain"]} if favoured else {"no gain": 0.0}
    return claim, Verdict(outcome, reason, row["gain"], row["n"], (row["low"], row["high"]), control)


def _spoken(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "tuning_keeps_the_language",
        "A model tuned on many languages answers in the language asked for (asked here; the report measures no such "
        "thing).",
        PAPER,
        "section 4",
        None,
        "line-level pass rate, macro mean over languages, of held-out prompts after the last tuning stage; reproduced: "
        "its interval lies above what the untuned model reaches and above wanted languages shuffled",
    )
    stages = list(dict.fromkeys(r["model"] for r in record.rows("fidelity")))
    if len(stages) < 2 or record.value(f"fidelity_{stages[-1]}") is None:
        return claim, Verdict("not testable here", "no tuned model, or none whose answers are long enough to judge.")
    last, base = stages[-1], record.value("fidelity_pretrain")
    if (judged := record.value(f"fidelity_{last}_n")) < LEAST_ANSWERS:
        return claim, Verdict(
            "not testable here",
            f"{judged} answers of the tuned model have a line long enough to judge; at least {LEAST_ANSWERS} are asked "
            "for: give more prompts, or train for longer.",
        )
    value, low, high = (record.value(f"fidelity_{last}{end}") for end in ("", "_low", "_high"))
    null = record.value(f"fidelity_{last}_null")
    outcome = "not reproduced"
    if value > max(base or 0.0, null or 0.0):
        outcome = "reproduced" if low > max(base or 0.0, null or 0.0) else "same direction"
    told = ", ".join(
        f"{s} {record.value(f'fidelity_{s}'):.2f}" for s in stages if record.value(f"fidelity_{s}") is not None
    )
    control = {"wanted languages shuffled": null or 0.0, "before tuning": base or 0.0}
    return claim, Verdict(outcome, f"Pass rate: {told}.", value, judged, (low, high), control)
