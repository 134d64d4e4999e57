"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.recall.config import RecallConfig

__all__ = ["CELLS", "views"]

CELLS = {
    "recall": "recall: weights, 1 hop",
    "lookup": "lookup: passage, 1 hop",
    "latent_2hop": "latent: weights, 2 hops",
    "context_2hop": "reasoning: passage, 2 hops",
}
BOOTSTRAP = "95 % bootstrap, clustered by pair of countries and skeleton"


def views(record: Record, config: RecallConfig) -> list[dict]:
    """Return the views of a run that has all its stages."""
    tables = set(record.tables)
    level = "heads and neurons" if record.value("neurons") else "heads"
    shown = [
        _question(record, config),
        _dissociation(record, level),
        _drops(record),
        _levels(record),
        _answers(record),
        *([_reading(record)] if "reading" in tables else []),
        *_maps(record),
        _lens(record),
        *([_growth(record)] if "growth" in tables else []),
        *_checks(record, tables),
        *([_flagged(record)] if "flagged" in tables else []),
        _authors(record),
        _units(level),
        *([_edges()] if "edges" in tables else []),
        _neutral(record),
    ]
    return shown


def _question(record: Record, config: RecallConfig) -> dict:
    examples = {}
    for row in record.rows("prompts"):
        if row["part"] == "unseen":
            examples.setdefault(row["cell"], row)
    lines = [
        "Every prompt is four sentences and a question. The four cells share wording, token count and answers; they "
        "differ in where the fact stands and in how many hops the question takes. Names in passages are invented.",
        *(f"{CELLS[cell]}. “{row['prompt']}” → {row['answer']}" for cell, row in examples.items()),
        f"Model {config.model}: {record.value('blocks')} blocks, {record.value('heads')} heads, "
        f"{record.value('neurons'):,} neurons, {record.value('parameters'):,} parameters. Sets of units were chosen on "
        "discovery and validation prompts and tested on other countries in unseen wording. To take a unit out "
        "is to set "
        "it to its mean over prompts of all four cells.",
    ]
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
            "null": "dissociation index (-2 to 2)",
        },
        "n": f"{row['prompts']} prompts in all",
        "interval": BOOTSTRAP,
        "control": f"{row['null_sets']} random pairs of sets, matched in site, count and write norm",
    }


def _drops(record: Record) -> dict:
    n = min(r["n"] for r in record.rows("drops"))
    return {
        "kind": "intervals",
        "title": "What each set costs every cell, under five ways of taking it out",
        "caption": "Lookup and latent questions tell whether a set follows the place of the fact or the number "
        "of hops. "
        "A no-op arm (every unit set to its own value) costs nothing.",
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
        "labels": {"group": "cell", "value": "drop of accuracy (fraction)", "series": "taken out by"},
        "n": f"at least {n} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "no-op edit through the same code",
    }


def _levels(record: Record) -> dict:
    rows = [r for r in record.rows("dissociation") if r["outcome"] == "accuracy"]
    return {
        "kind": "intervals",
        "title": "Heads, neurons, and both: how separate are the sets?",
        "caption": "unseen: other countries, unseen wording. test: other countries, seen wording. transfer: recall "
        "questions, too, stand behind the passage that answers the reasoning questions.",
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
        "labels": {"group": "sets of", "value": "dissociation index (-2 to 2)", "series": "prompts"},
        "n": f"{min(r['prompts'] for r in rows)} to {max(r['prompts'] for r in rows)} prompts",
        "interval": BOOTSTRAP,
        "control": "95th percentile of matched random pairs (grey; on unseen prompts)",
    }


def _answers(record: Record) -> dict:
    n = min(r["asked"] for r in record.rows("answers"))
    return {
        "kind": "intervals",
        "title": "What the model can do, before anything is chosen",
        "caption": "Share of whole answers that greedy decoding gets right. Only prompts answered right together with "
        "their counterfactual are used further; the table `answers` has how many.",
        "table": "answers",
        "where": {"part": ["discovery", "test", "unseen", "transfer"]},
        "encodings": {
            "group": "cell",
            "value": "whole_answer",
            "low": "low",
            "high": "high",
            "series": "part",
            "control": "commonest_answer",
            "n": "asked",
        },
        "labels": {"group": "cell", "value": "accuracy (fraction)", "series": "prompts"},
        "n": f"at least {n} prompts a cell",
        "interval": "95 % Wilson",
        "control": "always giving the commonest answer (grey)",
        "options": {"reference": 0},
    }


def _reading(record: Record) -> dict:
    n = record.rows("reading")[0]["n"]
    return {
        "kind": "bars",
        "title": "Where passage and weights disagree, which does the model follow?",
        "caption": "Passages about real places with the answers swapped.",
        "table": "reading",
        "encodings": {"x": "cell", "y": "share", "low": "low", "high": "high", "series": "answer", "n": "n"},
        "labels": {"x": "cell", "y": "answers (fraction)", "series": "the answer given is"},
        "n": n,
        "interval": "95 % Wilson",
        "control": "the other route's answer, beside it",
    }


def _maps(record: Record) -> list[dict]:
    n = min(r["n"] for r in record.rows("layers"))
    control = "0: positions before the entity are the same in both runs; 1: the whole stream is restored"
    first = record.rows("tokens")[0]
    common = {
        "x": "position",
        "y": "layer",
        "color": "recovery",
        "facet": "cell",
        "low": "recovery_low",
        "high": "recovery_high",
        "n": "n",
    }
    site = {
        "resid_pre": "Where the answer travels: the residual stream, layer by position",
        "attn.out": "Which attention layers move it",
        "mlp.out": "Which MLPs look it up",
    }
    maps = [
        {
            "kind": "heatmap",
            "title": title,
            "table": "layers",
            "where": {"site": name},
            "encodings": common,
            "caption": "Recovered logit difference when one layer and position of the counterfactual's run "
            "takes its value "
            f"from the prompt's run ({name}); 1 is all of it. Positions by class: the entity asked about, the "
            f"word that "
            "carries the relation, what stands between, the last token.",
            "labels": {"x": "position", "y": "layer", "color": "recovery (fraction)"},
            "options": {"scale": "signed"},
            "n": f"at least {n} prompts a cell",
            "interval": BOOTSTRAP,
            "control": control,
        }
        for name, title in site.items()
    ]
    tokens = {
        "kind": "heatmap",
        "title": "The same, token by token, for one wording",
        "table": "tokens",
        "caption": f"Skeleton {first['skeleton']}; the entity stands in brackets. Residual stream before each layer.",
        "encodings": {"x": "position", "x_name": "token", "y": "layer", "color": "recovery", "facet": "cell"},
        "labels": {"x": "position and token", "y": "layer", "color": "recovery (fraction)"},
        "options": {"scale": "signed", "text": False},
        "n": f"{min(r['prompts'] for r in record.rows('tokens'))} prompts or more a cell",
        "control": control,
    }
    heads = {
        "kind": "heatmap",
        "title": "Head by head: what is lost when one head sees the counterfactual",
        "table": "heads",
        "caption": "Loss of logit difference when one head, at all positions, takes its value from "
        "the counterfactual's run.",
        "encodings": {
            "x": "head",
            "y": "layer",
            "color": "loss",
            "facet": "cell",
            "low": "loss_low",
            "high": "loss_high",
            "n": "n",
        },
        "labels": {"x": "head", "y": "layer", "color": "loss (fraction)"},
        "options": {"scale": "signed"},
        "n": f"at least {min(r['n'] for r in record.rows('heads'))} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "0 where a head makes no difference; heads carrying nothing lie there",
    }
    return [maps[0], tokens, *maps[1:], heads]


def _lens(record: Record) -> dict:
    return {
        "kind": "curve",
        "title": "When the answer can be read off the stream (logit lens)",
        "table": "lens",
        "caption": "Probability of the answer's first token when the stream after a block goes straight to the head.",
        "encodings": {
            "x": "layer",
            "y": "probability",
            "low": "low",
            "high": "high",
            "series": "cell",
            "null": "chance",
            "n": "n",
        },
        "labels": {"x": "block", "y": "probability of the answer", "series": "cell"},
        "n": f"at least {min(r['n'] for r in record.rows('lens'))} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "uniform over the vocabulary (grey)",
    }


def _growth(record: Record) -> dict:
    rows = record.rows("growth")
    return {
        "kind": "curve",
        "title": "How many neurons does it take?",
        "table": "growth",
        "caption": "Drop of accuracy on unseen prompts as the neurons with the highest claim are taken out, "
        "best first.",
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
        "options": {"log_x": True},
        "n": f"{min(r['n'] for r in rows)} prompts or more a task",
        "interval": BOOTSTRAP,
        "control": f"{rows[0]['null_sets']} random sets of as many neurons, matched in site and norm (grey band)",
    }


def _checks(record: Record, tables: set[str]) -> list[dict]:
    rows = record.rows("agreement")
    said = "; ".join(
        f"{r['task']}, {r['units']}, {r['method']}: {'none' if r['spearman'] is None else format(r['spearman'], '.2f')}"
        for r in rows
    )
    points = {
        "kind": "scatter",
        "title": "Can the estimates be trusted? EAP-IG against exact patching",
        "table": "checked_units",
        "caption": f"One point per unit: every head, and a sample of neurons. Spearman of every estimate: {said}.",
        "encodings": {"x": "exact", "y": "eap_ig", "series": "units", "facet": "task", "label": "unit"},
        "labels": {
            "x": "exact effect (share of the logit difference)",
            "y": "EAP-IG estimate (share)",
            "series": "units",
        },
        "n": sum(r["n"] for r in rows) // 3,
        "control": "the diagonal: an exact estimate",
    }
    if "edges" not in tables:
        return [points]
    held = [r for r in record.rows("edges") if r["exact"] is not None]
    edges = {
        "kind": "scatter",
        "title": "The same for edges, against path patching",
        "table": "edges",
        "caption": "Edges from heads, MLPs and the embedding to what reads the stream; half of the sample is the "
        "best-scored edges.",
        "encodings": {"x": "exact", "y": "eap_ig", "facet": "task", "label": "sender"},
        "labels": {"x": "exact effect (share of the logit difference)", "y": "EAP-IG estimate (share)"},
        "n": len(held),
        "control": "the diagonal: an exact estimate",
    }
    return [points, edges]


def _flagged(record: Record) -> dict:
    rows = record.rows("flagged")
    null = next(r for r in rows if (r["network"], r["statistic"]) == ("untrained", "authors' criteria"))
    return {
        "kind": "intervals",
        "title": f"Correlation: the authors' criteria flag {null['share']:.0%} of the neurons of an untrained network",
        "caption": "Neuron values at the last token, recall against reasoning over the same passages. The "
        "statistics used "
        "here permute task labels within skeletons, ask that task survive beside skeleton, length and relation, "
        "and that "
        "the unit replicate on other countries.",
        "table": "flagged",
        "encodings": {
            "group": "statistic",
            "value": "share",
            "low": "low",
            "high": "high",
            "series": "network",
            "n": "n",
        },
        "labels": {"group": "statistic", "value": "neurons flagged (fraction)", "series": "network"},
        "n": f"{rows[0]['n']} prompts, {rows[0]['units']:,} neurons",
        "interval": "95 % Wilson over neurons",
        "control": "an untrained network and shuffled task labels",
    }


def _authors(record: Record) -> dict:
    rows = record.rows("authors")
    return {
        "kind": "bars",
        "title": "The authors' statistics on the authors' prompts",
        "table": "authors",
        "caption": "The two prompt sets differ in wording, length and kind of answer, and the reasoning answer "
        "stands in "
        "its prompt. What an untrained network shows, too, is a difference of templates.",
        "encodings": {"x": "level", "y": "share", "low": "low", "high": "high", "series": "network", "n": "n"},
        "labels": {"x": "units", "y": "flagged (fraction)", "series": "network"},
        "n": f"{rows[0]['n']} prompts",
        "interval": "95 % Wilson over units",
        "control": "an untrained network",
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
        "options": {"limit": 40, "formats": {"recall_share": "+.3f", "reasoning_share": "+.3f"}},
    }


def _edges() -> dict:
    return {
        "kind": "table",
        "title": "The strongest edges",
        "table": "edges",
        "caption": "Share of the logit difference that goes when one reader sees one sender as in the "
        "counterfactual run.",
        "encodings": {"columns": ["task", "sender", "reader", "eap_ig", "exact"]},
        "labels": {"eap_ig": "EAP-IG", "exact": "path patching"},
        "options": {"sort": "-eap_ig", "limit": 16, "formats": {"eap_ig": "+.3f", "exact": "+.3f"}},
    }


def _neutral(record: Record) -> dict:
    tokens = record.rows("neutral")[0]["tokens"]
    return {
        "kind": "bars",
        "title": "What it costs on text about something else",
        "table": "neutral",
        "caption": "KL divergence of next-token predictions on neutral sentences, intact to ablated; the mark "
        "is the 95th "
        "percentile over tokens.",
        "encodings": {"x": "set", "y": "kl"},
        "labels": {"x": "set taken out", "y": "KL (nats per token)"},
        "n": f"{tokens} tokens",
        "control": "a matched random twin of each set, beside it",
    }
