"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.recall import located_views as located
from microtome.studies.recall.config import RecallConfig
from microtome.studies.recall.located_views import BOOTSTRAP
from microtome.studies.recall.naming import CELLS, PARTS, SETS, SHORT

__all__ = ["views"]


def views(record: Record, config: RecallConfig) -> list[dict]:
    """Return the views of a run that has all its stages."""
    tables = set(record.tables)
    level = "heads and neurons" if record.value("neurons") else "heads"
    return [
        _question(record, config),
        _dissociation(record, level),
        _drops(record),
        _levels(record),
        located.answers(record),
        located.reading(record),
        *located.maps(record),
        located.lens(record),
        *([_growth(record)] if "growth" in tables else []),
        *located.checks(record, tables),
        *([located.flagged(record)] if "flagged" in tables else []),
        *([located.authors(record)] if record.rows("authors") else []),
        _units(level),
        *([located.edges()] if "edges" in tables else []),
        _neutral(record),
    ]


def _question(record: Record, config: RecallConfig) -> dict:
    examples = {}
    for row in record.rows("prompts"):
        if row["part"] == "unseen":
            examples.setdefault(row["cell"], row)
    codes = ", ".join(f"{code} ({name})" for code, name in SHORT.items() if code != name)
    lines = [
        "Every prompt is four sentences and a question. The four cells share wording, token count and answers; they "
        "differ in where the fact stands and in how many hops the question takes. Names in passages are invented. "
        f"The tables keep the cells' codes: {codes}.",
        *(f"{CELLS[cell]}. “{row['prompt']}” → {row['answer']}" for cell, row in examples.items()),
        f"Model {config.model}: {record.value('blocks')} blocks, {record.value('heads')} heads, "
        f"{record.value('neurons'):,} neurons, {record.value('parameters'):,} parameters. Sets of units were chosen on "
        "discovery and validation prompts and tested on other countries in unseen wording. To take a unit out is to "
        "set it to its mean over prompts of all four cells.",
    ]
    reasons = {"edges": "edges_left_out", "the growth of neuron sets": "growth_left_out",
               "selectivity": "selectivity_left_out"}  # fmt: skip
    lines += [f"Left out: {what}, because {why}." for what, name in reasons.items() if (why := record.value(name))]
    return {"kind": "text", "title": "What was asked", "caption": "\n\n".join(lines)}


def _test_row(record: Record, level: str, part: str = "unseen") -> dict:
    return next(
        r for r in record.rows("dissociation") if (r["level"], r["part"], r["outcome"]) == (level, part, "accuracy")
    )


def _dissociation(record: Record, level: str) -> dict:
    row = _test_row(record, level)
    strong = row["p"] <= 0.05 and row["both"]
    title = (
        "Taking out one set costs its own task and spares the other"
        if strong
        else "Taking out the sets does not separate the two tasks beyond chance"
    )
    return {
        "kind": "dissociation",
        "title": title,
        "table": "drops",
        "caption": "Drop of accuracy (greedy first token) on countries and wording that chose nothing. Right: the "
        "dissociation index, own drops minus cross drops, of the chosen pair of sets and of matched random pairs.",
        "where": {
            "ablation": "mean",
            "cell": ["recall", "context_2hop"],
            "dissociation.level": level,
            "dissociation.part": "unseen",
            "dissociation.outcome": "accuracy",
            "matched_random.level": level,
        },
        "encodings": {
            "set": "set",
            "task": "cell",
            "drop": "drop",
            "low": "low",
            "high": "high",
            "n": "n",
            "null": "matched_random.index",
            "observed": "dissociation.index",
            "observed_low": "dissociation.index_low",
            "observed_high": "dissociation.index_high",
            "p": "dissociation.p",
        },
        "labels": {
            "set": "set taken out",
            "task": "task asked",
            "drop": "drop of accuracy (fraction)",
            "null": "dissociation index (−2 to 2)",
        },
        "names": {"task": SHORT},
        "n": f"{row['prompts']} prompts in all",
        "interval": BOOTSTRAP,
        "control": f"{row['null_sets']} random pairs of sets, matched in site, count and write norm",
    }


def _drops(record: Record) -> dict:
    n = min(r["n"] for r in record.rows("drops"))
    return {
        "kind": "intervals",
        "title": "What each set costs every cell, under five ways of taking it out",
        "caption": "Lookup and latent questions tell whether a set follows the place of the fact or the number of "
        "hops. A no-op arm (every unit set to its own value) costs nothing.",
        "table": "drops",
        "encodings": {
            "group": "cell",
            "value": "drop",
            "low": "low",
            "high": "high",
            "series": "ablation",
            "facet": "set",
            "n": "n",
        },
        "labels": {"group": "questions", "value": "drop of accuracy (fraction)", "series": "taken out by"},
        "names": {"group": CELLS, "facet": SETS},
        "n": f"at least {n} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "no-op edit through the same code",
    }


def _levels(record: Record) -> dict:
    rows = [r for r in record.rows("dissociation") if r["outcome"] == "accuracy"]
    return {
        "kind": "intervals",
        "title": "Heads, neurons, and both: how separate are the sets?",
        "caption": PARTS,
        "table": "dissociation",
        "where": {"outcome": "accuracy"},
        "encodings": {
            "group": "level",
            "value": "index",
            "low": "index_low",
            "high": "index_high",
            "series": "part",
            "control": "null_95",
            "n": "prompts",
        },
        "labels": {"group": "sets of", "value": "dissociation index (−2 to 2)", "series": "prompts"},
        "n": f"at least {min(r['prompts'] for r in rows)} prompts",
        "interval": BOOTSTRAP,
        "control": "95th percentile of matched random pairs (grey; on unseen prompts)",
    }


def _growth(record: Record) -> dict:
    rows = record.rows("growth")
    return {
        "kind": "curve",
        "title": "How many neurons does it take?",
        "table": "growth",
        "caption": "Drop of accuracy on unseen prompts as neurons are taken out, those with the highest claim first.",
        "encodings": {
            "x": "neurons",
            "y": "drop",
            "low": "low",
            "high": "high",
            "series": "task",
            "facet": "set",
            "null": "null",
            "null_low": "null_low",
            "null_high": "null_high",
            "n": "n",
        },
        "labels": {"x": "neurons taken out (count)", "y": "drop of accuracy (fraction)", "series": "task asked"},
        "names": {"facet": SETS},
        "options": {"log_x": True},
        "n": f"at least {min(r['n'] for r in rows)} prompts a task",
        "interval": BOOTSTRAP,
        "control": f"{rows[0]['null_sets']} random sets of as many neurons, matched in site and norm (grey band)",
    }


def _units(level: str) -> dict:
    return {
        "kind": "table",
        "title": "The chosen units",
        "table": "chosen_units",
        "where": {"level": level},
        "caption": "Share of each task's logit difference that a unit carries by the chosen estimate, on discovery "
        "prompts; for neurons, the tokens their output pushes up most.",
        "encodings": {"columns": ["set", "unit", "recall_share", "reasoning_share", "writes"]},
        "labels": {
            "recall_share": "share of recall",
            "reasoning_share": "share of reasoning",
            "writes": "writes (neurons)",
        },
        "options": {"limit": 40, "formats": {"recall_share": "+z.3f", "reasoning_share": "+z.3f"}},
    }


def _neutral(record: Record) -> dict:
    tokens = record.rows("neutral")[0]["tokens"]
    return {
        "kind": "bars",
        "title": "What it costs on text about something else",
        "table": "neutral",
        "caption": "KL divergence of next-token predictions on neutral sentences, intact to ablated, mean over "
        "tokens; the table `neutral` has the 95th percentile.",
        "encodings": {"x": "set", "y": "kl"},
        "labels": {"x": "set taken out", "y": "KL (nats per token)"},
        "n": f"{tokens} tokens",
        "control": "a matched random twin of each set, beside it",
    }
