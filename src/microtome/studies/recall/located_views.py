"""Figures of what the model does and where, before and beside the test of the chosen sets: one function a figure."""

from microtome.records import Record
from microtome.studies.recall.naming import CELLS, PARTS, SHORT

__all__ = ["BOOTSTRAP", "answers", "authors", "checks", "edges", "flagged", "lens", "maps", "reading"]

BOOTSTRAP = "95 % bootstrap, clustered by pair of countries and skeleton"
RESTORED = "by construction: 0 before the entity, where both runs are equal; 1 where the whole stream is restored"


def answers(record: Record) -> dict:
    """What the model can do, before anything is chosen."""
    n = min(r["asked"] for r in record.rows("answers"))
    return {
        "kind": "intervals",
        "title": "What the model can do, before anything is chosen",
        "caption": "Share of whole answers that greedy decoding gets right. Only prompts answered right together with "
        f"their counterfactual are used further; the table `answers` has how many.\n\ndiscovery: prompts that score "
        f"units. {PARTS}",
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
        "labels": {"group": "questions", "value": "accuracy (fraction)", "series": "prompts"},
        "names": {"group": CELLS},
        "n": f"at least {n} prompts a cell",
        "interval": "95 % Wilson",
        "control": "always giving the commonest answer (grey)",
        "options": {"reference": 0},
    }


def reading(record: Record) -> dict:
    """Whom it follows where passage and weights disagree."""
    n = record.rows("reading")[0]["n"]
    return {
        "kind": "bars",
        "title": "Where passage and weights disagree, which does the model follow?",
        "caption": "Passages about real places with the answers swapped.",
        "table": "reading",
        "encodings": {"x": "cell", "y": "share", "low": "low", "high": "high", "series": "answer", "n": "n"},
        "labels": {"x": "questions", "y": "answers (fraction)", "series": "the answer given is"},
        "names": {"x": SHORT},
        "n": f"{n} prompts a cell",
        "interval": "95 % Wilson",
        "control": "the other route's answer, beside it",
    }


def maps(record: Record) -> list[dict]:
    """Layer by position, token by token, attention and MLP outputs, and head by head."""
    stream, *others = _layers(record)
    return [stream, _tokens(record), *others, _heads(record)]


def _layers(record: Record) -> list[dict]:
    titles = {
        "resid_pre": "Where the answer travels: the residual stream, layer by position",
        "attn.out": "Which attention layers move it",
        "mlp.out": "Which MLPs look it up",
    }
    encodings = {"x": "position", "y": "layer", "color": "recovery", "facet": "cell", "low": "recovery_low",
                 "high": "recovery_high", "n": "n"}  # fmt: skip
    n = min(r["n"] for r in record.rows("layers"))
    return [
        {
            "kind": "heatmap",
            "title": title,
            "table": "layers",
            "where": {"site": name},
            "encodings": encodings,
            "caption": "Recovered logit difference when one layer and position of the counterfactual's run takes its "
            f"value from the prompt's run ({name}); 1 is all of it. Positions by class: the entity asked about, the "
            "word that carries the relation, what stands between, the last token.",
            "labels": {"x": "position", "y": "layer", "color": "recovery (fraction)"},
            "names": {"facet": CELLS},
            "options": {"scale": "signed"},
            "n": f"at least {n} prompts a cell",
            "interval": BOOTSTRAP,
            "control": RESTORED,
        }
        for name, title in titles.items()
    ]


def _tokens(record: Record) -> dict:
    rows = record.rows("tokens")
    return {
        "kind": "heatmap",
        "title": "The same, token by token, for one wording",
        "table": "tokens",
        "caption": f"Skeleton {rows[0]['skeleton']}; the entity stands in brackets. Residual stream before each layer.",
        "encodings": {"x": "position", "x_name": "token", "y": "layer", "color": "recovery", "facet": "cell"},
        "labels": {"x": "position and token", "y": "layer", "color": "recovery (fraction)"},
        "names": {"facet": CELLS},
        "options": {"scale": "signed", "text": False},
        "n": f"at least {min(r['prompts'] for r in rows)} prompts a cell",
        "control": RESTORED,
    }


def _heads(record: Record) -> dict:
    return {
        "kind": "heatmap",
        "title": "Head by head: what is lost when one head sees the counterfactual",
        "table": "heads",
        "caption": "Loss of logit difference when one head, at all positions, takes its value from the "
        "counterfactual's run.",
        "encodings": {"x": "head", "y": "layer", "color": "loss", "facet": "cell", "low": "loss_low",
                      "high": "loss_high", "n": "n"},
        "labels": {"x": "head", "y": "layer", "color": "loss (fraction)"},
        "names": {"facet": CELLS},
        "options": {"scale": "signed"},
        "n": f"at least {min(r['n'] for r in record.rows('heads'))} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "none here: single heads are shown, not claimed; sets of them are tested against random sets above",
    }  # fmt: skip


def lens(record: Record) -> dict:
    """When the answer can be read off the stream."""
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
        "labels": {"x": "after block", "y": "probability of the answer", "series": "questions"},
        "names": {"series": CELLS},
        "n": f"at least {min(r['n'] for r in record.rows('lens'))} prompts a cell",
        "interval": BOOTSTRAP,
        "control": "uniform over the vocabulary (grey)",
    }


def checks(record: Record, tables: set[str]) -> list[dict]:
    """The estimates beside exact patching."""
    points = {
        "kind": "scatter",
        "title": "Can the estimates be trusted? EAP-IG against exact patching",
        "table": "checked_units",
        "caption": "One point per unit: every head, and a sample of neurons, half of them the best-scored.",
        "encodings": {"x": "exact", "y": "eap_ig", "series": "units", "facet": "task", "label": "unit"},
        "labels": {
            "x": "exact effect (share of the logit difference)",
            "y": "EAP-IG estimate (share)",
            "series": "units",
        },
        "n": f"{len(record.rows('checked_units'))} units, both tasks",
        "control": "the diagonal: an exact estimate",
    }
    agreement = {
        "kind": "table",
        "title": "How well each estimate agrees with exact patching",
        "table": "agreement",
        "caption": "Correlation over units, and the mean absolute error in shares of the logit difference. AtP to the "
        "mean is held against patching in the mean, the others against patching in the counterfactual's value.",
        "encodings": {"columns": ["task", "units", "method", "n", "spearman", "pearson", "mean_error"]},
        "labels": {
            "n": "units checked",
            "units": "kind",
            "method": "estimate",
            "spearman": "Spearman",
            "pearson": "Pearson",
        },
        "options": {"formats": {"spearman": ".2f", "pearson": ".2f", "mean_error": ".4f"}},
    }
    if "edges" not in tables:
        return [points, agreement]
    held = [r for r in record.rows("edges") if r["exact"] is not None]
    edges = {
        "kind": "scatter",
        "title": "The same for edges, against path patching",
        "table": "edges",
        "caption": "Edges from heads, MLPs and the embedding to what reads the stream; half of the sample is the "
        "best-scored edges.",
        "encodings": {"x": "exact", "y": "eap_ig", "facet": "task", "label": "sender"},
        "labels": {"x": "exact effect (share of the logit difference)", "y": "EAP-IG estimate (share)"},
        "n": f"{len(held)} edges, both tasks",
        "control": "the diagonal: an exact estimate",
    }
    return [points, agreement, edges]


def edges() -> dict:
    """The strongest edges."""
    return {
        "kind": "table",
        "title": "The strongest edges",
        "table": "edges",
        "caption": "Share of the logit difference that goes when one reader sees one sender as in the counterfactual "
        "run.",
        "encodings": {"columns": ["task", "sender", "reader", "eap_ig", "exact"]},
        "labels": {"eap_ig": "EAP-IG", "exact": "path patching"},
        "options": {"sort": "-eap_ig", "limit": 16, "formats": {"eap_ig": "+z.3f", "exact": "+z.3f"}},
    }


def flagged(record: Record) -> dict:
    """Correlation with its nulls."""
    rows = record.rows("flagged")
    share = {r["network"]: r["share"] for r in rows if r["statistic"] == "authors' criteria"}
    return {
        "kind": "intervals",
        "title": f"Correlation: the authors' criteria flag {share['trained']:.0%} of the neurons, "
        f"{share['untrained']:.0%} of an untrained network's",
        "caption": "Neuron values at the last token, recall against reasoning over the same passages. The statistics "
        "used here permute task labels within skeletons, ask that task survive beside skeleton, length and relation, "
        "and that the unit replicate on other countries.",
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


def authors(record: Record) -> dict:
    """The authors' statistics beside an untrained network."""
    rows = record.rows("authors")
    return {
        "kind": "bars",
        "title": "The authors' statistics on the authors' prompts",
        "table": "authors",
        "caption": "The two prompt sets differ in wording, length and kind of answer, and the reasoning answer stands "
        "in its prompt. What an untrained network shows, too, is a difference of templates.",
        "encodings": {"x": "level", "y": "share", "low": "low", "high": "high", "series": "network", "n": "n"},
        "labels": {"x": "units", "y": "flagged (fraction)", "series": "network"},
        "n": f"{rows[0]['n']} prompts",
        "interval": "95 % Wilson over units",
        "control": "an untrained network",
    }
