"""What the report shows of representations: likeness of languages by depth, the language itself, and along training."""

from microtome.records import Record

__all__ = ["SENTENCES", "SPREAD", "alikeness_views", "dynamics_views"]

SENTENCES = "95 % bootstrap over sentences"
SPREAD = "1.96 standard deviations over resampled sentences"
NAMES = {
    "raw": "raw cosine of means (the report's)",
    "raw_other": "raw, different sentences",
    "parallel": "centred, translations",
    "other": "centred, other sentences",
    "cka": "CKA",
    "cka_other": "CKA, wrongly paired",
}
DYNAMICS = {
    "share of importance": "Share of |h dL/dh| of the MLP's neurons, mean over languages (0 to 1)",
    "specific neurons": "Share of neurons above the bar in one language only (0 to 1)",
    "translations less others": "Centred cosine of translations less that of other sentences",
    "retrieval": "Translations found (share, 0 to 1)",
    "language probe": "Held-out accuracy of a probe of the language (0 to 1)",
}


def alikeness_views(record: Record) -> list[dict]:
    """Return the views of the stage `alikeness`."""
    return [_alike(record), _retrieval(record), _probe(record), _pairs(record), _report(record)]


def _alike(record: Record) -> dict:
    rows = {r["contrast"]: r for r in record.rows("alike_contrasts") if r["model"] == "trained"}
    raw, other = rows["raw, middle"], rows["raw of other sentences, middle"]
    gap = rows["translations less others, middle"]
    return {
        "kind": "curve",
        "title": f"Raw cosine is {raw['value']:.2f} for the same sentences, {other['value']:.2f} for different ones; "
        f"centred, translations are {gap['value']:+.2f} more alike",
        "caption": "Mean over pairs of languages. Depth 0 is the embedding, i + 1 is behind block i; a sentence is the "
        "mean of its tokens' states. Lines that a control follows show nothing of meaning.",
        "table": "alike_layers",
        "where": {"pooling": "mean", "measure": list(NAMES)},
        "encodings": {"x": "depth", "y": "value", "low": "low", "high": "high", "series": "measure", "facet": "model",
                      "n": "n"},
        "labels": {"x": "depth", "y": "likeness", "series": "measure", "facet": "model"},
        "names": {"series": NAMES},
        "n": f"{raw['n']} sentences in each of {record.value('alike_languages')} languages",
        "interval": SENTENCES,
        "control": "different sentences; wrong pairs; an untrained network",
    }  # fmt: skip


def _retrieval(record: Record) -> dict:
    rows = [r for r in record.rows("alike_layers") if r["measure"] == "retrieval"]
    best = max((r for r in rows if r["model"] == "trained"), key=lambda r: r["value"])
    empty = max((r for r in rows if r["model"] == "untrained"), key=lambda r: r["value"])
    return {
        "kind": "curve",
        "title": f"{best['value']:.0%} of translations are found at depth {best['depth']}; untrained at most "
        f"{empty['value']:.0%}",
        "caption": "Share of sentences whose nearest neighbour in the other language is their translation, both ways, "
        "mean over pairs of languages. Dashed: chance.",
        "table": "alike_layers",
        "where": {"measure": "retrieval"},
        "encodings": {"x": "depth", "y": "value", "low": "low", "high": "high", "series": "model", "facet": "pooling",
                      "null": "chance", "n": "n"},
        "labels": {"x": "depth", "y": "translations found (share)", "series": "model", "facet": "pooling"},
        "names": {"facet": {"mean": "mean over tokens"}},
        "options": {"reference": None},
        "n": f"{best['n']} sentences in each of {record.value('alike_languages')} languages",
        "interval": SENTENCES,
        "control": f"chance {best['chance']:.4f}; an untrained network",
    }  # fmt: skip


def _probe(record: Record) -> dict:
    rows = [r for r in record.rows("probe") if r["model"] == "trained"]
    low, high = (f(r["accuracy"] for r in rows) for f in (min, max))
    return {
        "kind": "curve",
        "title": f"A linear probe tells the language from {low:.0%} to {high:.0%} of held-out sentences",
        "caption": "Accuracy on sentences that fitted nothing. Dashed: the control task, the same with the languages "
        f"of each sentence's translations shuffled (chance {rows[0]['chance']:.3f}).",
        "table": "probe",
        "encodings": {"x": "depth", "y": "accuracy", "low": "low", "high": "high", "series": "model", "null": "control",
                      "n": "n"},
        "labels": {"x": "depth", "y": "accuracy (share, 0 to 1)", "series": "model", "null": "control task"},
        "options": {"reference": None},
        "n": f"{rows[0]['n']} held-out sentences, {rows[0]['texts']:,} texts",
        "interval": SENTENCES,
        "control": "shuffled languages; an untrained network",
    }  # fmt: skip


def _pairs(record: Record) -> dict:
    rows = record.rows("alike_pairs")
    shown = record.value("alike_shown")
    middle = shown[len(shown) // 2]
    here = [r for r in rows if r["depth"] == middle and r["pooling"] == "mean" and r["measure"] == "retrieval"]
    most, least = (f(here, key=lambda r: r["value"]) for f in (max, min))
    return {
        "kind": "heatmap",
        "title": f"At depth {middle}, {most['first']} and {most['second']} are found best ({most['value']:.0%}), "
        f"{least['first']} and {least['second']} worst ({least['value']:.0%})",
        "caption": "Share of translations found between every two languages, at the depths shown.",
        "table": "alike_pairs",
        "where": {"pooling": "mean", "measure": "retrieval"},
        "encodings": {"x": "first", "y": "second", "color": "value", "facet": "depth", "low": "low", "high": "high",
                      "n": "n"},
        "labels": {"x": "language", "y": "language", "color": "translations found (share)", "facet": "depth"},
        "names": {"facet": {str(d): f"depth {d}" for d in shown}},
        "n": f"{most['n']} sentences",
        "interval": SENTENCES,
        "control": f"chance {1 / most['n']:.4f}; an untrained network, by depth above",
    }  # fmt: skip


def _report(record: Record) -> dict:
    shown = record.value("alike_shown")
    middle = shown[len(shown) // 2]
    here = [r for r in record.rows("alike_pairs") if r["depth"] == middle and r["pooling"] == "last token"]
    raw, parallel = ([r["value"] for r in here if r["measure"] == m] for m in ("raw", "parallel"))
    return {
        "kind": "heatmap",
        "title": f"The report's figure: raw cosines from {min(raw):.2f} to {max(raw):.2f}; centred, translations from "
        f"{min(parallel):.2f} to {max(parallel):.2f}",
        "caption": f"Last-token states at depth {middle}. Left as in the report, cosine of the languages' means; right "
        "mean cosine of translations once the mean over all languages is taken off. One colour scale.",
        "table": "alike_pairs",
        "where": {"pooling": "last token", "measure": ["raw", "parallel"], "depth": middle},
        "encodings": {"x": "first", "y": "second", "color": "value", "facet": "measure", "low": "low", "high": "high",
                      "n": "n"},
        "labels": {"x": "language", "y": "language", "color": "cosine (-1 to 1)", "facet": "measure"},
        "names": {"facet": {"raw": NAMES["raw"], "parallel": NAMES["parallel"]}},
        "n": f"{here[0]['n']} sentences",
        "interval": SENTENCES,
        "control": "other sentences and an untrained network, by depth above (mean states)",
    }  # fmt: skip


def dynamics_views(record: Record) -> list[dict]:
    """Return one figure along training for each measure: their scales differ."""
    steps, rows = record.value("dynamics_steps"), record.rows("dynamics")
    return [
        {
            "kind": "curve",
            "title": f"Along training, {measure}: {_from_to(rows, measure, steps)}",
            "caption": f"{said}, in each third of the depth, at {len(steps)} checkpoints. Dashed: an untrained "
            "network of the same shape.",
            "table": "dynamics",
            "where": {"measure": measure},
            "encodings": {"x": "step", "y": "value", "low": "low", "high": "high", "series": "part",
                          "null": "untrained", "n": "n"},
            "labels": {"x": "step", "y": measure, "series": "part of the depth"},
            "options": {"reference": None},
            "n": f"{record.value('dynamics_sentences')} sentences in each language",
            "interval": SPREAD if measure == "specific neurons" else SENTENCES,
            "control": "an untrained network of the same shape",
        }
        for measure, said in DYNAMICS.items()
    ]  # fmt: skip


def _from_to(rows: list[dict], measure: str, steps: list[int]) -> str:
    """Return how the middle third (or the only part there is) goes from the first step to the last."""
    mine = [r for r in rows if r["measure"] == measure]
    part = "middle third" if any(r["part"] == "middle third" for r in mine) else mine[0]["part"]
    ends = [next(r["value"] for r in mine if r["part"] == part and r["step"] == s) for s in (steps[0], steps[-1])]
    return f"{ends[0]:.2f} to {ends[1]:.2f} in the {part}"
