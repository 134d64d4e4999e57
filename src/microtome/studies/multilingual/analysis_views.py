"""What the report shows of the analysis, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.multilingual.ablation import ALL, LAPE
from microtome.studies.multilingual.alikeness_views import SENTENCES, SPREAD, alikeness_views, dynamics_views

__all__ = ["analysis_views"]


def analysis_views(record: Record) -> list[dict]:
    """Return the views of the stages that the record holds.

    Args:
        record: with the tables of any of `importance`, `language_sets`, `ablation`, `alikeness`, `dynamics`.
    """
    held = record.tables
    found: list[dict] = []
    if "importance" in held:
        found += [_layers(record), _parts(record), _check(record), _languages(record)]
    if "language_null" in held:
        found += [_null(record), _kinds(record), _by_layer(record), _overlap(record), _sizes(record), _neurons()]
    if "ablation" in held:
        found += [_matrix(record), _selective(record), _ablations()]
    if "alike_layers" in held:
        found += alikeness_views(record)
    if "dynamics" in held:
        found += dynamics_views(record)
    return found


def _layers(record: Record) -> dict:
    rows = {r["contrast"]: r for r in record.rows("importance_contrasts")}
    gap = rows.get("last third less first")
    told = "an untrained network of the same shape"
    title = "Which layers matter in each language"
    if gap is not None:
        title = (
            f"The last third of the layers holds {abs(gap['value']):.0%} {'more' if gap['value'] > 0 else 'less'} of "
        )
        title += "the importance than the first"
        told += f" ({gap['untrained']:+.0%} between the same thirds)"
    return {
        "kind": "curve",
        "title": title,
        "caption": "Share of |h dL/dh|, summed over the components of a block and averaged over tokens, in each "
        f"language. Dashed: {told}.",
        "table": "importance_layers",
        "encodings": {"x": "layer", "y": "share", "low": "low", "high": "high", "series": "language",
                      "null": "average_untrained", "n": "n"},
        "labels": {"x": "block", "y": "share of a language's importance (0 to 1)", "null": "untrained"},
        "options": {"reference": None},
        "n": f"{record.value('importance_sentences')} sentences in each language",
        "interval": SENTENCES,
        "control": told,
    }  # fmt: skip


def _parts(record: Record) -> dict:
    rows = record.rows("importance_parts")
    most = max(rows, key=lambda r: r["share"])
    absent = record.value("absent_components")
    return {
        "kind": "heatmap",
        "title": f"Most important is {most['component']} of block {most['layer']}",
        "caption": "Share of the whole importance, mean over languages. Components overlap: neurons of one path count "
        "in each of its parts." + (f" This model has no {', '.join(absent)}." if absent else ""),
        "table": "importance_parts",
        "encodings": {"x": "component", "y": "layer", "color": "share", "low": "low", "high": "high",
                      "null": "untrained", "n": "n"},
        "labels": {"x": "component", "y": "block", "color": "importance (share, 0 to 1)", "null": "untrained"},
        "n": f"{most['n']} sentences in each of {len(record.value('languages'))} languages",
        "interval": SENTENCES,
        "control": f"untrained network, on pointing; {most['untrained']:.3f} at the largest",
    }  # fmt: skip


def _check(record: Record) -> dict:
    rows = {r["estimate"]: r for r in record.rows("importance_agreement")}
    row = rows["importance"]
    return {
        "kind": "scatter",
        "title": f"Importance ranks neurons as their ablation does with Spearman {row['spearman']:.2f}",
        "caption": "Neurons drawn at random: their importance beside what the loss of a sentence changes by when the "
        f"neuron is 0. {row['low']:.2f} to {row['high']:.2f} (95 %, resampling neurons); the first-order change summed "
        f"over a sentence: {rows['first_order']['spearman']:.2f}.",
        "table": "importance_check",
        "encodings": {"x": "importance", "y": "exact", "label": "neuron", "n": "n"},
        "labels": {"x": "importance (|h dL/dh| a token)", "y": "change of the loss (nats a sentence)"},
        "options": {"identity": False},
        "n": f"{row['n']} neurons on {record.rows('importance_check')[0]['n']} sentences",
        "control": f"neurons shuffled: Spearman up to {row['shuffled']:.2f}",
    }


def _languages(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Importance of each language",
        "table": "importance_languages",
        "caption": "Summed over all components, a token; the report ties it to how many tokens a sentence takes.",
        "encodings": {"columns": ["language", "importance", "low", "high", "loss", "tokens_a_sentence", "n"]},
        "labels": {"loss": "loss (nats a token)", "tokens_a_sentence": "tokens a sentence"},
        "options": {"formats": {"importance": ".3f", "low": ".3f", "high": ".3f", "loss": ".3f",
                                "tokens_a_sentence": ".1f"}},
    }  # fmt: skip


def _null(record: Record) -> dict:
    rows = {r["model"]: r for r in record.rows("language_null")}
    row, null = rows["trained"], rows["languages shuffled"]
    verb = "fire in fewer languages than" if row["p"] <= 0.05 else "are not told from those found"
    return {
        "kind": "intervals",
        "title": f"The chosen neurons {verb} with the languages shuffled (p {row['p']:.3f})",
        "caption": f"Mean entropy over languages of the {row['chosen']} neurons of lowest entropy among {row['n']:,} "
        f"(LAPE). 0: one language only; {row['most']:.2f}: all alike. Grey: as high as it can be. Belonging to one "
        f"language: {row['specific']:.0f}, shuffled {null['specific']:.0f}, untrained "
        f"{rows['untrained']['specific']:.0f}.",
        "table": "language_null",
        "encodings": {"group": "model", "value": "entropy", "low": "low", "high": "high", "control": "most"},
        "labels": {"group": "model", "value": "entropy (nats)"},
        "options": {"reference": 0},
        "n": f"{record.value('lape_sentences')} sentences in each language, {record.value('lape_tokens'):,} tokens",
        "interval": SPREAD + "; of the shuffles: over shuffles",
        "control": f"languages shuffled {null['entropy']:.3f}; untrained {rows['untrained']['entropy']:.3f}",
    }


def _kinds(record: Record) -> dict:
    rows = record.rows("language_kinds")
    total = {k: sum(r["count"] for r in rows if r["kind"] == k) for k in ("specific", "partial", "shared")}
    null = {k: sum(r["shuffled"] for r in rows if r["kind"] == k) for k in total}
    layers = len({r["layer"] for r in rows})
    return {
        "kind": "bars" if layers <= 12 else "curve",
        "title": f"Above the bar: {total['specific']} neurons in one language, {total['partial']} in several, "
        f"{total['shared']} in all",
        "caption": "Neurons of each block that fire above the bar (the 95th percentile of all rates, in LAPE). "
        f"With the languages shuffled: {null['specific']:.1f}, {null['partial']:.1f} and {null['shared']:.1f}"
        + (" (grey, by block)." if layers <= 12 else "."),
        "table": "language_kinds",
        "encodings": {"x": "layer", "y": "count", "low": "low", "high": "high", "series": "kind",
                      "control" if layers <= 12 else "null": "shuffled", "n": "n"},
        "labels": {"x": "block", "y": "neurons", "series": "above the bar in", "n": "neurons of the block"},
        "names": {"series": {"specific": "one language", "partial": "several", "shared": "all"}},
        "n": f"{record.value('lape_neurons'):,} neurons, {record.value('lape_sentences')} sentences in each language",
        "interval": SPREAD,
        "control": "languages shuffled among the translations of each sentence",
    }  # fmt: skip


def _by_layer(record: Record) -> dict:
    rows = record.rows("language_layers")
    here = {k: sum(r["count"] for r in rows if r["layer"] == k) for k in {r["layer"] for r in rows}}
    most = max(here, key=here.get)
    return {
        "kind": "heatmap",
        "title": f"Block {most} holds most language neurons ({here[most]} of {sum(here.values())} memberships)",
        "caption": "Chosen neurons (LAPE) of each block in each language; a neuron may belong to several.",
        "table": "language_layers",
        "encodings": {"x": "language", "y": "layer", "color": "count", "low": "low", "high": "high",
                      "null": "shuffled", "n": "n"},
        "labels": {"y": "block", "color": "neurons (count)", "null": "languages shuffled"},
        "options": {"text": False},
        "n": f"{record.value('lape_union')} chosen of {record.value('lape_neurons'):,} neurons",
        "interval": SPREAD,
        "control": "languages shuffled, on pointing",
    }  # fmt: skip


def _overlap(record: Record) -> dict:
    rows = record.rows("language_overlap")
    most = max(rows, key=lambda r: r["jaccard"])
    return {
        "kind": "heatmap",
        "title": f"The languages that share most neurons: {most['first']} and {most['second']} ({most['jaccard']:.2f})",
        "caption": "Overlap of the languages' sets: neurons in both over neurons in either.",
        "table": "language_overlap",
        "encodings": {"x": "first", "y": "second", "color": "jaccard", "null": "chance", "n": "n"},
        "labels": {"x": "language", "y": "language", "color": "overlap (Jaccard)", "null": "random sets"},
        "n": f"{record.value('lape_union')} chosen neurons",
        "control": f"random sets of those sizes: {max(r['chance'] for r in rows):.3f} at most",
    }


def _sizes(record: Record) -> dict:
    columns = ["language", "size", "low", "high", "specific", "shuffled", "untrained", "half_jaccard",
               "chance_jaccard", "n"]  # fmt: skip
    return {
        "kind": "table",
        "title": "Each language's neurons, and whether half of the sentences finds them again",
        "table": "language_sizes",
        "caption": "half: Jaccard index of the sets of two halves of the sentences, and of random sets.",
        "encodings": {"columns": columns},
        "labels": {"half_jaccard": "half", "chance_jaccard": "random"},
        "options": {"formats": {"low": ".0f", "high": ".0f", "shuffled": ".1f", "half_jaccard": ".2f",
                                "chance_jaccard": ".3f"}},
    }  # fmt: skip


def _neurons() -> dict:
    return {
        "kind": "table",
        "title": "The neurons of lowest entropy",
        "table": "language_neurons",
        "caption": "rate: how often it fires in the language where it fires most; elsewhere: mean of the others.",
        "encodings": {"columns": ["neuron", "languages", "entropy", "fires_most_in", "rate", "rate_elsewhere", "n"]},
        "labels": {"rate_elsewhere": "elsewhere", "n": "tokens"},
        "options": {"limit": 30, "formats": {"entropy": ".3f", "rate": ".3f", "rate_elsewhere": ".3f"}},
    }


def _together(record: Record) -> dict:
    return next(r for r in record.rows("ablation") if r["arm"] == LAPE and r["language"] == ALL)


def _matrix(record: Record) -> dict:
    row = _together(record)
    said = "hurts that language most" if row["low"] > 0 and row["p"] <= 0.05 else "is not selective"
    return {
        "kind": "heatmap",
        "title": f"Taking a language's neurons away {said}: own {row['own']:+.3f}, others {row['others']:+.3f} nats",
        "caption": "Loss a token gained in each language (across) with the neurons of one language (up) at 0, on test "
        "sentences. White: no change; the diagonal is the language itself.",
        "table": "ablation_matrix",
        "where": {"arm": LAPE},
        "encodings": {"x": "evaluated", "y": "ablated", "color": "delta", "low": "low", "high": "high",
                      "null": "random", "n": "n"},
        "labels": {"x": "loss read in", "y": "neurons taken from", "color": "change of the loss (nats a token)",
                   "null": "random sets"},
        "options": {"scale": "signed"},
        "n": f"{row['n']} test sentences in each language; {row['neurons']} neurons a set on average",
        "interval": SENTENCES,
        "control": f"{row['random_sets']} random sets of the same layers: selectivity {row['random']:+.4f}",
    }  # fmt: skip


def _selective(record: Record) -> dict:
    row = _together(record)
    return {
        "kind": "intervals",
        "title": f"Selectivity of language neurons: {row['selectivity']:+.3f} nats a token, random sets "
        f"{row['random']:+.3f} (p {row['p']:.3f})",
        "caption": "Loss gained in the language less the mean gained in others. Grey: 95th percentile of random sets "
        "with as many neurons in each layer (drawn for LAPE's sets).",
        "table": "ablation",
        "encodings": {"group": "language", "value": "selectivity", "low": "low", "high": "high", "facet": "arm",
                      "control": "random_high", "n": "n"},
        "labels": {"group": "neurons of", "value": "selectivity (nats a token)", "facet": "chosen by"},
        "names": {"facet": {LAPE: "LAPE, set to 0", "LAPE, to the mean": "LAPE, set to the mean",
                            "importance": "importance, set to 0"}},
        "n": f"{row['n']} test sentences in each language",
        "interval": SENTENCES,
        "control": f"{row['random_sets']} random sets of the same layers for each language",
    }  # fmt: skip


def _ablations() -> dict:
    numbers = ["own", "others", "selectivity", "low", "high", "random", "random_high", "p"]
    return {
        "kind": "table",
        "title": "Ablations in numbers",
        "table": "ablation",
        "caption": "random: selectivity of matched random sets, mean and 95th percentile.",
        "encodings": {"columns": ["arm", "language", "neurons", *numbers, "n"]},
        "options": {"limit": 80, "formats": dict.fromkeys(numbers, ".4f")},
    }
