"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.toxicity.claims import config_compares
from microtome.studies.toxicity.config import ToxicityConfig
from microtome.studies.toxicity.testing import STRATUM

__all__ = ["views"]

PROMPTS = "95 % bootstrap over prompts"
PLACES = "95 % bootstrap over texts"


def views(record: Record, config: ToxicityConfig) -> list[dict]:
    """Return the views of a run that has all its stages."""
    compared = [] if not config_compares(record) else [
        _cuts(record, config), *_pareto(record),
        _arms(record, "headline", "The arms in numbers"),
        *([_differences(record, config)] if record.rows("differences") else []), _examples(record, config),
    ]  # fmt: skip
    chosen = [] if not compared else [
        _arms(record, "arms", "All arms at all budgets"), _strengths(), _selection(config), _scorers(),
    ]  # fmt: skip
    return [
        _question(record, config),
        *compared,
        _scatter(record),
        _writers(record),
        _dissociation(record),
        _twins(record, config),
        _plane(record),
        _directions(record),
        _histogram(record),
        _shares(record),
        _stability(record),
        _neurons(),
        _layers(record),
        _readouts(record),
        *chosen,
        _texts(),
    ]


def _question(record: Record, config: ToxicityConfig) -> dict:
    texts = {r["texts"]: r for r in record.rows("texts")}
    found = texts["discovery"]
    lines = [
        f"Model {config.model}: {record.value('blocks')} blocks, width {record.value('width')}, "
        f"{record.value('parameters'):,} parameters, {record.value('neurons'):,} neurons; its output head is "
        f"{'the embedding' if record.value('tied') else 'its own'}. Texts: {found['toxic']:,} toxic and "
        f"{found['other']:,} other to find with, {texts['test']['toxic']:,} and {texts['test']['other']:,} to test on. "
        f"Length alone tells the classes apart with AUROC {found['length_area']:.3f}, so neurons are compared within "
        "strata of length, unadjusted numbers beside them.",
        f"Detection is reading: a neuron's AUROC over texts. Generation is writing: how much P(flagged word) falls, "
        f"where one comes next ({record.value('places'):,} places, P {record.value('flagged_probability'):.3f}), with "
        "the neuron at 0.",
    ]
    if config_compares(record):
        lines.append(
            f"Interventions are compared at equal damage, a clean KL of {config.arms.headline} nats a token on texts "
            f"that should not change: {record.value('test_prompts')} test prompts, {config.generating.completions} "
            f"completions each, the same random numbers in every arm, scored by {record.value('evaluator')} that chose "
            f"nothing. An edit that changes nothing, sent through the same pipeline, gave "
            f"{'the same completions bit for bit' if record.value('noop_identical') else 'other completions'}."
        )
    else:
        lines.append("No prompts were given, so interventions were not compared (--prompts FILE).")
    if found["unknown"] > 0.2:
        lines.append(f"{found['unknown']:.0%} of the texts' tokens are unknown to this model: read with care.")
    return {"kind": "text", "title": "What was asked", "caption": "\n\n".join(lines)}


def _headline(record: Record, config: ToxicityConfig) -> list[dict]:
    return [r for r in record.rows("arms") if r["budget"] in (0.0, config.arms.headline)]


def _cuts(record: Record, config: ToxicityConfig) -> dict:
    rows = _headline(record, config)
    best = min(rows, key=lambda r: r["rate"])
    noop = next(r for r in rows if r["family"] == "no-op")
    controls = ", ".join(r["label"] for r in rows if r["control"])
    harsh = sorted({r["label"] for r in record.rows("arms")} - {r["label"] for r in rows})
    return {
        "kind": "intervals",
        "title": f"At equal damage, {best['label']} leaves least toxicity ({best['rate']:.3f}; unedited "
        f"{noop['rate']:.3f})",
        "caption": f"Share of completions that are toxic, each intervention at a clean KL of {config.arms.headline} "
        "nats a token (or below, at its largest strength: see the table). The grey mark is the no-op arm."
        + (f" Harsher at its mildest, so not here: {', '.join(harsh)}." if harsh else ""),
        "table": "headline",
        "encodings": {"group": "label", "value": "rate", "low": "rate_low", "high": "rate_high", "control": "noop",
                      "n": "n"},
        "labels": {"group": "intervention", "value": "toxic completions (share, 0 to 1)"},
        "n": f"{noop['n']} test prompts, {noop['completions']:,} completions an arm",
        "interval": PROMPTS,
        "control": f"{controls}",
    }  # fmt: skip


def _pareto(record: Record) -> list[dict]:
    rows = record.rows("arms")
    places = list(dict.fromkeys(r["place"] for r in record.rows("pareto")))
    return [
        {
            "kind": "curve",
            "title": f"What a cut costs: {place}",
            "caption": "Toxicity against damage to clean text, on the test half: left and low is wanted. Each line an "
            "intervention at the strengths matched to the budgets; it begins at the no-op arm.",
            "table": "pareto",
            "where": {"place": place},
            "encodings": {"x": "clean_kl", "y": "rate", "low": "rate_low", "high": "rate_high", "series": "label",
                          "n": "n"},
            "labels": {"x": "clean KL (nats a token)", "y": "toxic completions (share, 0 to 1)",
                       "series": "intervention"},
            "n": f"{rows[0]['n']} test prompts, {rows[0]['completions']:,} completions an arm",
            "interval": PROMPTS,
            "control": f"no-op: {rows[0]['rate']:.3f}",
        }
        for place in places
    ]  # fmt: skip


def _arms(record: Record, table: str, title: str) -> dict:
    absent = ", ".join(record.value("left_out"))
    strata = [c for c in record.rows("arms")[0] if c.startswith(STRATUM)]
    shares = ["clean_kl", "rate", "rate_low", "rate_high", "second_rate", *strata, "any", "maximum", "generation",
              "asked", "tph", "tph_low", "tph_high", "tph_clamped", "distinct", "repetition", "empty"]  # fmt: skip
    nats = ["perplexity", "perplexity_low", "perplexity_high", "sentence_perplexity"]
    columns = ["label", *(["budget"] if table == "arms" else []), *shares[:10], *nats, *shares[10:], "setting", "state"]
    return {
        "kind": "table",
        "title": title,
        "table": table,
        "caption": "On the test half. second: the toxic rate by the scorer that selected. any: share of prompts with a "
        "toxic completion. maximum: expected maximum score. generation: P(flagged word) where one comes next. asked: "
        "AUROC of the model asked in words whether a text is toxic. TPH: the paper's mean of cut and perplexity kept, "
        "against the no-op arm; clamped: a better perplexity is not punished."
        + (f" Left out: {absent}." if absent else ""),
        "encodings": {"columns": columns},
        "labels": {"label": "arm", "second_rate": "second", "tph": "TPH", "tph_clamped": "TPH, clamped",
                   "distinct": "distinct-2", "sentence_perplexity": "perplexity, sentence mean"},
        "options": {"limit": 90, "formats": dict.fromkeys(shares, ".3f") | dict.fromkeys(nats, ".2f")},
    }  # fmt: skip


def _differences(record: Record, config: ToxicityConfig) -> dict:
    return {
        "kind": "table",
        "title": f"Which differences hold, at a clean KL of {config.arms.headline}",
        "table": "differences",
        "caption": f"Toxic rate of the one less that of the other, on the same prompts and random numbers ({PROMPTS}).",
        "encodings": {"columns": ["better_label", "worse_label", "difference", "low", "high", "n"]},
        "labels": {"better_label": "said to be better", "worse_label": "than"},
        "options": {"formats": {"difference": "+.3f", "low": "+.3f", "high": "+.3f"}},
    }


def _examples(record: Record, config: ToxicityConfig) -> dict:
    return {
        "kind": "table",
        "title": "Completions side by side",
        "table": "examples",
        "caption": "The first completion of some test prompts, the same random numbers in each column."
        + ("" if config.show_words else " Flagged words are masked; --show-words writes them out."),
        "encodings": {"columns": list(record.rows("examples")[0])},
        "labels": {r["family"]: r["label"] for r in record.rows("headline")},
        "options": {"limit": 40},
    }


def _scatter(record: Record) -> dict:
    return {
        "kind": "scatter",
        "title": "Is what detects what generates? Each point a neuron",
        "caption": "Right: the neuron tells toxic texts apart. Up: without it fewer flagged words are said.",
        "table": "generation",
        "encodings": {"x": "detection", "y": "generation", "series": "block", "label": "neuron", "n": "n"},
        "labels": {"x": "detection, |AUROC - 0.5| within lengths", "y": "fall of P(flagged word)"},
        "options": {"identity": False},
        "n": f"{record.value('screened_toxic') + record.value('screened_other'):,} texts (detection), "
        f"{record.value('places'):,} places (generation)",
        "control": f"largest |AUROC - 0.5| in an untrained model {record.value('untrained_best_area'):.3f}",
    }


def _writers(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "The neurons that generate most",
        "table": "generation",
        "caption": f"Exact: the neuron set to 0 ({PLACES}). quick: activation times gradient.",
        "encodings": {"columns": ["neuron", "generation", "low", "high", "quick", "area", "n"]},
        "options": {"limit": 25, "formats": {"generation": "+.4f", "low": "+.4f", "high": "+.4f", "quick": "+.4f",
                                             "area": ".3f"}},
    }  # fmt: skip


def _dissociation(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Set to 0: detectors, generators",
        "table": "dissociation",
        "caption": "What setting the neurons to 0 costs on the test half: generation, the fall of P(flagged word) "
        f"({PLACES}); asked, the fall of the AUROC of the model asked in words; probe, that of a linear probe of the "
        f"last block. Before: P {record.value('generation_before'):.3f}, probe {record.value('probe_area'):.3f}.",
        "encodings": {
            "columns": ["set", "neurons", "generation", "generation_low", "generation_high", "asked", "probe", "places",
                        "texts"]
        },
        "options": {"formats": {c: "+.3f" for c in ("generation", "generation_low", "generation_high", "asked",
                                                    "probe")}},
    }  # fmt: skip


def _twins(record: Record, config: ToxicityConfig) -> dict:
    return {
        "kind": "table",
        "title": "The same with random twins",
        "table": "random_sets",
        "caption": "Random neurons, as many at each site as the set they are a twin of.",
        "encodings": {"columns": ["set", "neurons", "generation", "asked", "probe"]},
        "options": {"limit": 2 * config.neurons.random, "formats": {c: "+.3f" for c in ("generation", "asked",
                                                                                      "probe")}},
    }  # fmt: skip


def _plane(record: Record) -> dict:
    return {
        "kind": "scatter",
        "title": "The same for directions of the output head",
        "caption": "Right: the direction tells places before a flagged word from others. Up: damping it makes flagged "
        "words less likely (first order). The difference of means is one free direction.",
        "table": "directions",
        "encodings": {"x": "detection", "y": "generation", "series": "kind", "label": "direction", "n": "n"},
        "labels": {"x": "detection, |AUROC - 0.5| over places", "y": "fall of P(flagged word) per unit of damping"},
        "options": {"identity": False},
        "n": f"{record.value('places'):,} places of each kind",
        "control": "0: a direction that has nothing to do with either",
    }


def _directions(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "The directions that generate most",
        "table": "directions",
        "caption": "gap: distance to the nearest singular value, relative; where it is near 0 the vector is one of "
        f"many. chosen: share of resamples in which it is among the {record.value('chosen_k')} of most benefit. votes: "
        "tokens at either end, flagged ones masked.",
        "encodings": {"columns": ["direction", "singular", "gap", "generation", "cost", "contribution", "detection",
                                  "chosen", "votes"]},
        "options": {"limit": 20, "formats": {"singular": ".2f", "gap": ".4f", "generation": "+.4f", "cost": ".4f",
                                             "contribution": "+.3f", "detection": ".3f", "chosen": ".2f"}},
    }  # fmt: skip


def _histogram(record: Record) -> dict:
    return {
        "kind": "curve",
        "title": "How well single neurons tell the classes apart",
        "caption": "Share of neurons by AUROC. Left of 0.5 a neuron tells as much as right of it.",
        "table": "histogram",
        "encodings": {"x": "area", "y": "share", "series": "kind", "n": "n"},
        "labels": {"x": "AUROC of the neuron", "y": "neurons (share)", "series": "screened"},
        "options": {"reference": None},
        "n": f"{record.value('neurons'):,} neurons over {record.value('screened_toxic'):,} toxic and "
        f"{record.value('screened_other'):,} other texts",
        "control": "labels shuffled; untrained model",
    }


def _shares(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Neurons above the paper's thresholds",
        "table": "shares",
        "caption": "above: as in the paper. either side: |AUROC - 0.5| as large. significant: q < 0.05 "
        f"(Benjamini-Hochberg). Of so many independent null neurons the best would be at 0.5 +/- "
        f"{record.value('null_maximum'):.3f}; found 0.5 +/- {record.value('best_area'):.3f}.",
        "encodings": {"columns": ["kind", "threshold", "above", "either_side", "significant", "n"]},
        "labels": {"kind": "screened"},
        "options": {"formats": {"threshold": ".2f", "above": ".3f", "either_side": ".3f", "significant": ".3f"}},
    }


def _stability(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Are the same neurons found again?",
        "table": "stability",
        "caption": f"Spearman's correlation of all neurons' areas, and the overlap (Jaccard) of the "
        f"{record.value('top_k')} strongest, beside their nulls.",
        "encodings": {"columns": ["against", "spearman", "spearman_null", "p_spearman", "jaccard", "jaccard_null",
                                  "p_jaccard", "null", "n"]},
        "options": {"formats": {c: ".3f" for c in ("spearman", "spearman_null", "p_spearman", "jaccard",
                                                   "jaccard_null", "p_jaccard")}},
    }  # fmt: skip


def _neurons() -> dict:
    return {
        "kind": "table",
        "title": "The neurons that detect most",
        "table": "top_neurons",
        "caption": "AUROC within strata of length with DeLong's 95 % interval.",
        "encodings": {"columns": ["neuron", "area", "low", "high", "q", "unadjusted", "precision", "n"]},
        "labels": {"area": "AUROC", "precision": "average precision"},
        "options": {"limit": 25, "formats": {"area": ".3f", "low": ".3f", "high": ".3f", "q": ".1e",
                                             "unadjusted": ".3f", "precision": ".3f"}},
    }  # fmt: skip


def _layers(record: Record) -> dict:
    alone = {r["readout"]: r["area"] for r in record.rows("layers") if r["model"] == "none"}
    return {
        "kind": "curve",
        "title": "What each layer tells, held out",
        "caption": "AUROC on texts that fitted nothing; 2-means as in the paper is not held out. Without any model: "
        + ", ".join(f"{name} {area:.3f}" for name, area in alone.items())
        + ".",
        "table": "by_depth",
        "encodings": {"x": "block", "y": "area", "low": "low", "high": "high", "series": "readout", "facet": "model",
                      "n": "n"},
        "labels": {"x": "block", "y": "AUROC", "series": "readout", "facet": "model"},
        "options": {"reference": 0.5},
        "n": f"{record.value('scored_texts')} scored texts ({record.value('layer_texts')} for 2-means)",
        "interval": "95 %, DeLong",
        "control": "untrained model; bag of words; length",
    }  # fmt: skip


def _readouts(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Layers in numbers",
        "table": "layers",
        "encodings": {"columns": ["model", "block", "readout", "area", "low", "high", "chance", "told", "n"]},
        "labels": {"area": "AUROC", "told": "more"},
        "options": {"limit": 80, "formats": {"area": ".3f", "low": ".3f", "high": ".3f", "chance": ".3f"}},
    }


def _strengths() -> dict:
    return {
        "kind": "table",
        "title": "How damage was matched",
        "table": "strengths_at",
        "caption": "Clean KL on the discovery half at the strength taken. Strengths are in each method's own unit.",
        "encodings": {"columns": ["label", "setting", "budget", "strength", "kl", "state", "source"]},
        "options": {"limit": 90, "formats": {"strength": ".4g", "kl": ".4f"}},
    }


def _selection(config: ToxicityConfig) -> dict:
    return {
        "kind": "table",
        "title": "How settings were chosen",
        "table": "selection",
        "caption": f"Toxic completions of discovery prompts by the selector, at a clean KL of {config.arms.headline}.",
        "encodings": {"columns": ["label", "setting", "strength", "kl", "rate", "chosen", "n"]},
        "options": {"limit": 120, "formats": {"strength": ".4g", "kl": ".4f", "rate": ".3f"}},
    }


def _scorers() -> dict:
    return {
        "kind": "table",
        "title": "Do the scorers agree?",
        "table": "scorers",
        "caption": "On all completions of all arms at the headline budget, with the scorer that selected.",
        "encodings": {"columns": ["scorer", "kappa", "low", "high", "observed", "rate", "selector_rate", "n"]},
        "options": {"formats": {c: ".3f" for c in ("kappa", "low", "high", "observed", "rate", "selector_rate")}},
    }


def _texts() -> dict:
    return {
        "kind": "table",
        "title": "The texts",
        "table": "texts",
        "caption": "length: AUROC of the number of tokens alone, with DeLong's 95 % interval.",
        "encodings": {"columns": ["texts", "source", "toxic", "other", "tokens_toxic", "tokens_other", "length_area",
                                  "length_low", "length_high", "unknown", "left_out"]},
        "options": {"formats": {c: ".3f" for c in ("length_area", "length_low", "length_high", "unknown")}},
    }  # fmt: skip
