"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.ravel.claims import SIDES
from microtome.studies.ravel.config import RavelConfig
from microtome.studies.ravel.methods import CONTROLS, METHODS

__all__ = ["views"]

BOOTSTRAP = "95 % bootstrap over entities and templates together"
NAMES = {
    **SIDES,
    "entity-val": "validation, unseen entities",
    "context-val": "validation, unseen wording",
    "train": "training",
}
SHOWN = ("das", "mdas", "joint", "mdbm", "sae", "pca")


def views(record: Record, config: RavelConfig) -> list[dict]:
    """Return the views of a run that has all its stages."""
    return [
        _question(record, config),
        *[_scores(record, side) for side in SIDES],
        _table(),
        _plane(record),
        _differences(record),
        _matrix(record),
        _overlay(record),
        _layers(record),
        _ranks(record),
        _examples(record),
        _chosen(),
        *_data(),
    ]


def _n(record: Record, side: str) -> str:
    row = next(r for r in record.rows("scores") if (r["side"], r["method"]) == (side, "mdas"))
    return f"{row['n']} pairs of {row['entities']} entities"


def _where(record: Record, config: RavelConfig) -> str:
    place = "the entity's last token" if config.position == "entity" else "the prompt's last token"
    return f"{config.stream} of block {record.value('layer')}, at {place}"


def _question(record: Record, config: RavelConfig) -> dict:
    asked = sum(r["asked"] for r in record.rows("filter"))
    example = record.rows("examples")[0]
    lines = [
        f"Entities of type {record.value('entity_type')}: {record.value('entities')} of "
        f"{record.value('entities_in_data')} in the data, with {len(record.value('targets'))} attributes that could be "
        f"tested ({', '.join(record.value('targets'))}). Model {config.model}: {record.value('blocks')} blocks, width "
        f"{record.value('width')}, {record.value('parameters'):,} parameters. It answers {record.value('known'):,} of "
        f"{asked:,} prompts as the table says; only those are used.",
        "A swap takes an attribute's features from a source prompt about another entity and puts them into the base "
        f"prompt. Cause: asked for that attribute, the model answers as for the source. Isolate: asked for another, as "
        f"before. For example, base “{example['base']}”, source “{example['source']}”, {example['swapped']} "
        f"swapped: wanted “{example['wanted']}”, said before “{example['before']}”, with MDAS “{example['mdas']}”.",
        f"Featurizers act on {_where(record, config)}, the block where MDAS disentangles most on validation pairs, "
        "of those where swapping everything still changes half as many answers as anywhere. "
        "They are fitted on training entities in training wording, their settings chosen on validation pairs, and "
        "scored on entities, and in wording, that they never saw. Swapping nothing scores Disentangle 0.5: that is "
        "where the scale begins. MDAS and MDBM are fitted on cause and isolate pairs, DAS and DBM on cause pairs "
        "alone.",
    ]
    return {"kind": "text", "title": "What was asked", "caption": "\n\n".join(lines)}


def _scores(record: Record, side: str) -> dict:
    rows = {r["method"]: r for r in record.rows("scores") if r["target"] == "all" and r["side"] == side}
    best = max((m for m in METHODS), key=lambda m: rows[m]["disentangle"])
    return {
        "kind": "intervals",
        "title": f"On {SIDES[side]}, {rows[best]['label']} disentangles most ({rows[best]['disentangle']:.2f}); "
        "swapping nothing scores 0.50",
        "caption": "Mean over target attributes. The last seven rows are controls.",
        "table": "by_score",
        "where": {"side": side},
        "encodings": {"group": "label", "value": "value", "low": "low", "high": "high", "series": "score", "n": "n"},
        "labels": {"group": "method", "value": "share of pairs answered as wanted (0 to 1)", "series": "score"},
        "n": _n(record, side),
        "interval": BOOTSTRAP,
        "control": "the last seven rows: " + ", ".join(m.label for m in CONTROLS.values()),
    }


def _table() -> dict:
    columns = ["label", "side", "cause", "isolate", "disentangle", "disentangle_low", "disentangle_high", "corrected",
               "interchange", "first_token", "soft", "size"]  # fmt: skip
    return {
        "kind": "table",
        "title": "All methods in numbers",
        "table": "scores",
        "where": {"target": "all"},
        "names": {"side": NAMES},
        "caption": "corrected: Disentangle with swapping nothing at 0. MIB accuracy: one accuracy over the queries of "
        "the target and half as many of each other attribute. first token, probability: Disentangle by the first token "
        "alone, and by the probability of the wanted answer.",
        "encodings": {"columns": columns},
        "labels": {
            "label": "method",
            "disentangle_low": "low",
            "disentangle_high": "high",
            "interchange": "MIB accuracy",
            "soft": "probability",
            "size": "dimensions (mean)",
        },
        "options": {"limit": 60, "formats": {**dict.fromkeys(columns[2:-1], ".3f"), "size": ".1f"}},
    }


def _plane(record: Record) -> dict:
    return {
        "kind": "scatter",
        "title": "Cause against Isolate: the corner at the top right is wanted",
        "caption": "Each point a method, mean over target attributes. Swapping nothing is at (1, 0), an ideal full "
        "swap at (0, 1).",
        "table": "scores",
        "where": {"target": "all"},
        "encodings": {"x": "isolate", "y": "cause", "label": "label", "facet": "side", "n": "n"},
        "labels": {"x": "Isolate (0 to 1)", "y": "Cause (0 to 1)", "facet": "pairs"},
        "names": {"facet": SIDES},
        "options": {"identity": False, "correlation": False, "name_most": 18},
        "n": "; ".join(f"{SIDES[s]}: {_n(record, s)}" for s in SIDES),
        "control": ", ".join(m.label for m in CONTROLS.values()),
    }


def _differences(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Which differences between methods hold",
        "table": "differences",
        "names": {"side": NAMES},
        "caption": f"Differences on the same pairs and the same resamples ({BOOTSTRAP}).",
        "encodings": {"columns": ["score", "better", "worse", "side", "difference", "low", "high", "n"]},
        "labels": {"better": "said to be better", "worse": "than"},
        "options": {"limit": 40, "formats": {"difference": "+.3f", "low": "+.3f", "high": "+.3f"}},
    }


def _matrix(record: Record) -> dict:
    return {
        "kind": "heatmap",
        "title": "What each swap does to each question, on unseen entities",
        "caption": "Rows: the attribute whose features were swapped. Columns: the attribute asked. On the diagonal the "
        "share answered as the source (Cause), elsewhere as before (Isolate).",
        "table": "matrix",
        "where": {"side": "entity-test", "method": list(SHOWN)},
        "encodings": {"x": "asked", "y": "swapped", "color": "share", "facet": "label", "low": "share_low",
                      "high": "share_high"},
        "labels": {"x": "asked", "y": "swapped", "color": "share answered as wanted (0 to 1)"},
        "n": _n(record, "entity-test"),
        "interval": BOOTSTRAP,
        "control": "swapping nothing: 0 on the diagonal, 1 elsewhere",
    }  # fmt: skip


def _overlay(record: Record) -> dict:
    return {
        "kind": "scatter",
        "title": "Is isolation hard where the world itself ties the attributes?",
        "caption": "Each point an ordered pair of attributes: how open the second is once the first is known (0: the "
        "first determines it, 1: it says nothing of it), against how often the second's answer stays as it was when "
        "the first is swapped.",
        "table": "overlay",
        "where": {"side": "entity-test", "method": ["das", "mdas"]},
        "encodings": {"x": "ratio", "y": "share", "series": "label", "label": "pair"},
        "labels": {"x": "H(asked | swapped) / H(asked)", "y": "answers kept (0 to 1)", "series": "method"},
        "options": {"identity": False},
        "n": _n(record, "entity-test"),
        "control": "swapping nothing keeps all answers (1)",
    }


def _layers(record: Record) -> dict:
    return {
        "kind": "curve",
        "title": f"Where can attributes be told apart? Block {record.value('layer')} was chosen",
        "caption": f"Rank {record.value('layer_rank')}, on validation pairs, mean over target attributes.",
        "table": "layers",
        "where": {"target": "all"},
        "encodings": {"x": "layer", "y": "disentangle", "low": "disentangle_low", "high": "disentangle_high",
                      "series": "label", "facet": "side", "n": "n"},
        "labels": {"x": "block", "y": "Disentangle (0 to 1)", "series": "method", "facet": "pairs"},
        "names": {"facet": NAMES},
        "n": f"{min(r['n'] for r in record.rows('layers'))} validation pairs or more a side",
        "interval": BOOTSTRAP,
        "control": "full representation; swapping nothing is 0.5",
    }  # fmt: skip


def _ranks(record: Record) -> dict:
    return {
        "kind": "curve",
        "title": "How many dimensions does it take?",
        "caption": "Every setting that was tried, on validation pairs: dimensions swapped (mean over attributes) "
        "against Disentangle.",
        "table": "validation",
        "where": {"target": "all", "method": ["pca", "sae", "rlap", "das", "mdas", "joint"]},
        "encodings": {"x": "size", "y": "disentangle", "low": "disentangle_low", "high": "disentangle_high",
                      "series": "label", "facet": "side", "n": "n"},
        "labels": {"x": "dimensions swapped (count)", "y": "Disentangle (0 to 1)", "series": "method",
                   "facet": "pairs"},
        "names": {"facet": NAMES},
        "n": f"{min(r['n'] for r in record.rows('validation'))} validation pairs or more a side",
        "interval": BOOTSTRAP,
        "control": "swapping nothing is 0.5",
    }  # fmt: skip


def _examples(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Pairs in words",
        "table": "examples",
        "names": {"side": NAMES},
        "caption": "First token said with nothing, DAS's and MDAS's features swapped.",
        "encodings": {
            "columns": ["swapped", "asked", "base", "source", "wanted", "before", "das", "mdas", "right", "side"]
        },
        "labels": {"das": "DAS", "mdas": "MDAS", "right": "MDAS right"},
        "options": {"limit": 60},
    }


def _chosen() -> dict:
    return {
        "kind": "table",
        "title": "Chosen settings",
        "table": "chosen",
        "caption": "Of every method and attribute, the setting with the highest Disentangle on validation pairs. The "
        "bases are files in the record's artefacts.",
        "encodings": {"columns": ["method", "target", "setting", "size", "basis"]},
        "options": {"limit": 80},
    }


def _data() -> list[dict]:
    return [
        {
            "kind": "table",
            "title": "What the model knows",
            "table": "filter",
            "caption": "Prompts asked and answered as the table says. copied: the template names the entity among its "
            "examples, so the answer could be copied; such prompts are left out.",
            "encodings": {"columns": ["attribute", "wordings", "asked", "known", "share", "copied"]},
            "options": {"limit": 40, "formats": {"share": ".3f"}},
        },
        {
            "kind": "table",
            "title": "The pairs and what they can tell",
            "table": "pairs",
            "names": {"side": NAMES},
            "caption": "majority: share of the commonest source answer. coincidences: share of candidate pairs with "
            "equal answers, which are never drawn.",
            "encodings": {
                "columns": ["side", "attribute", "pairs", "entities", "templates", "majority", "coincidences"]
            },
            "options": {"limit": 60, "formats": {"majority": ".3f", "coincidences": ".3f"}},
        },
        {
            "kind": "table",
            "title": "The attributes",
            "table": "attributes",
            "caption": "collision: probability that two entities agree.",
            "encodings": {"columns": ["attribute", "values", "majority", "majority_share", "collision", "templates"]},
            "options": {"limit": 40, "formats": {"majority_share": ".3f", "collision": ".3f"}},
        },
        {
            "kind": "table",
            "title": "Which attribute tells which",
            "table": "entailment",
            "caption": "ratio: H(kept | swapped) / H(kept). null: the same with values shuffled. differ: share of "
            "pairs of entities that differ in both.",
            "encodings": {"columns": ["swapped", "kept", "ratio", "null", "verdict", "differ"]},
            "options": {"limit": 60, "formats": {"ratio": ".3f", "null": ".3f", "differ": ".3f"}},
        },
        {
            "kind": "table",
            "title": "Defects of the data as they came",
            "table": "defects",
            "encodings": {"columns": ["defect", "count"]},
        },
    ]
