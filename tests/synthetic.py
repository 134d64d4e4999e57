"""A small invented record: every kind of view and every verdict once, and text that tries to break out of the page."""

# ruff: noqa: E501

from pathlib import Path

import numpy as np
import pyarrow as pa

from microtome.core.study import Study
from microtome.records import Claim, Missing, Record, StageOutput, Verdict

HOSTILE = "<script>alert('x')</script> & \"quoted\" </script><img src=x onerror=alert(1)>"
INTERVAL = "95 % bootstrap, clustered by item"


def tables() -> dict[str, pa.Table]:
    rng = np.random.default_rng(0)
    rows = {
        "patching": _patching(rng),
        "heads": _heads(rng),
        "neuron_curve": _neuron_curve(rng),
        "layer_curve": _layer_curve(rng),
        "accuracy": _accuracy(),
        "drops": [
            {"set": s, "task": t, "drop": d, "low": d - 0.06, "high": d + 0.05, "random": r, "n": 240}
            for (s, t), (d, r) in {
                ("recall set", "recall"): (0.62, 0.021), ("recall set", "reasoning"): (0.08, 0.018),
                ("reasoning set", "recall"): (-0.01, 0.010), ("reasoning set", "reasoning"): (0.41, 0.033),
            }.items()
        ],
        "null_dd": [{"draw": i, "dd": float(v)} for i, v in enumerate(rng.normal(0.01, 0.05, 200))],
        "dissociation": [{"method": "zero", "dd": 0.94, "low": 0.81, "high": 1.07, "p": 1 / 201}],
        "flagged": [
            {"model": m, "statistic": s, "share": v}
            for m, a in (("trained", (0.31, 0.04)), ("untrained", (0.485, 0.01)))
            for s, v in zip(("authors' criteria", "held-out permutation"), a, strict=True)
        ],
        "agreement": _agreement(rng),
        "plane_points": [{"x": float(k), "y": float(k % 3), "layer": k, "name": HOSTILE if k == 2 else f"layer {k}"} for k in range(8)],
        "plane_field": [
            {"x": 2.0 * i, "x2": 2.0 * i + 2, "y": 1.0 * j, "y2": 1.0 * j + 1, "value": float(i - j)} for i in range(4) for j in range(3)
        ],
        "units": [
            {"unit": f"blocks.{i % 6}.mlp.neurons[{37 * i}]", "effect": 1 / (i + 1), "writes": w, "fires": 3 * i}
            for i, w in enumerate(["Paris", HOSTILE, "euro", "Asia", "Lima"])
        ],
    }  # fmt: skip
    return {name: pa.Table.from_pylist(r) for name, r in rows.items()}


def _patching(rng) -> list[dict]:
    tokens = ["The", "capital", "of", "France", "is", HOSTILE[:9], "?"]
    rows = []
    for task, site in (("recall", 3), ("reasoning", 5)):
        for layer in range(8):
            for position, token in enumerate(tokens):
                near = np.exp(-((position - site) ** 2) / 1.2) * np.exp(-((layer - 3) ** 2) / 6)
                value = float(near + rng.normal(0, 0.04))
                rows.append({"task": task, "site": "resid_post", "layer": layer, "position": position, "token": token,
                             "recovery": value, "low": value - 0.05, "high": value + 0.05, "passes": value > 0.5})  # fmt: skip
    return rows


def _heads(rng) -> list[dict]:
    return [
        {
            "layer": layer,
            "head": head,
            "effect": float(abs(rng.normal(0, 0.03)) + (0.7 if (layer, head) == (5, 3) else 0)),
        }
        for layer in range(8)
        for head in range(8)
    ]


def _neuron_curve(rng) -> list[dict]:
    return [
        {"k": k, "task": task, "drop": s * k / (k + 12), "low": s * k / (k + 12) - 0.04, "high": s * k / (k + 12) + 0.04,
         "random": 0.01 + k / 4000, "random_low": -0.02, "random_high": 0.04 + k / 2000}
        for task, s in (("recall", 0.8), ("reasoning", 0.1))
        for k in (1, 2, 4, 8, 16, 32, 64)
    ]  # fmt: skip


def _layer_curve(rng) -> list[dict]:
    return [
        {"layer": layer, "task": task, "cell": cell, "effect": float(np.sin(layer / 2 + shift) + rng.normal(0, 0.02)),
         "low": float(np.sin(layer / 2 + shift)) - 0.1, "high": float(np.sin(layer / 2 + shift)) + 0.1,
         "untrained": 0.0, "untrained_low": -0.05, "untrained_high": 0.05}
        for shift, task in enumerate(("recall", "reasoning"))
        for cell in ("1 hop", "2 hops")
        for layer in range(8)
    ]  # fmt: skip


def _accuracy() -> list[dict]:
    cells = {
        "in weights, 1 hop": 0.97,
        "in context, 1 hop": 0.93,
        "in weights, 2 hops": 0.31,
        "in context, 2 hops": 0.55,
    }
    return [
        {"cell": c, "model": m, "accuracy": a if m == "trained" else 0.02, "low": max(0, a - 0.03 if m == "trained" else 0.0),
         "high": a + 0.02 if m == "trained" else 0.05, "chance": 0.05, "n": 200}
        for c, a in cells.items()
        for m in ("trained", "untrained")
    ]  # fmt: skip


def _agreement(rng) -> list[dict]:
    exact = rng.normal(0, 0.2, 120)
    return [
        {"unit": f"b{i % 8}.n{i}", "exact": float(v), "atp": float(v + rng.normal(0, 0.05)), "task": "recall"}
        for i, v in enumerate(exact)
    ]


def views() -> list[dict]:
    said = {"n": 240, "interval": INTERVAL}
    return [
        {"kind": "text", "title": "What was asked", "caption": f"Is recall carried by other parts than reasoning?\n\nA prompt: {HOSTILE}"},
        {"kind": "dissociation", "title": "Each set costs its own task and spares the other", "table": "drops",
         "caption": "Drop of accuracy on held-out items and unseen skeletons when a set of 32 neurons is mean-ablated.",
         "encodings": {"set": "set", "task": "task", "drop": "drop", "low": "low", "high": "high", "control": "random",
                       "n": "n", "null": "null_dd.dd", "observed": "dissociation.dd", "observed_low": "dissociation.low",
                       "observed_high": "dissociation.high", "p": "dissociation.p"},
         "where": {"dissociation.method": "zero"},
         "labels": {"drop": "drop of accuracy", "null": "dissociation index", "set": "ablated set", "task": "task"},
         "control": "200 random sets matched in layer, count and norm", **said},
        {"kind": "heatmap", "title": "Recall sits at the country, reasoning at the last word", "table": "patching",
         "caption": "Recovered logit difference; a dot marks cells that pass at 5 % false discovery.",
         "encodings": {"x": "position", "x_name": "token", "y": "layer", "color": "recovery", "facet": "task",
                       "flag": "passes", "low": "low", "high": "high"},
         "where": {"site": ["resid_post"]},
         "labels": {"x": "position and token", "y": "layer", "color": "recovery (fraction)"},
         "control": "untrained model, |recovery| at most 0.02", **said},
        {"kind": "heatmap", "title": "One head reads the context", "table": "heads", "caption": "Head map.",
         "encodings": {"x": "head", "y": "layer", "color": "effect"}, "labels": {"color": "|effect| (logits)"},
         "n": 240, "control": "none: descriptive"},
        {"kind": "curve", "title": "A few neurons carry recall", "table": "neuron_curve",
         "caption": "Drop of accuracy by number of top neurons ablated.",
         "encodings": {"x": "k", "y": "drop", "low": "low", "high": "high", "series": "task", "null": "random",
                       "null_low": "random_low", "null_high": "random_high"},
         "labels": {"x": "neurons ablated (count)", "y": "drop of accuracy"}, "options": {"log_x": True},
         "control": "200 matched random sets, 95 % band", **said},
        {"kind": "curve", "title": "Recall comes before reasoning", "table": "layer_curve", "caption": "Effect by layer.",
         "encodings": {"x": "layer", "y": "effect", "low": "low", "high": "high", "series": "task", "facet": "cell",
                       "null": "untrained", "null_low": "untrained_low", "null_high": "untrained_high"},
         "labels": {"x": "layer", "y": "effect (logits)"}, "control": "untrained model", **said},
        {"kind": "intervals", "title": "The model recalls and reads; two hops are harder", "table": "accuracy",
         "caption": "Exact-match accuracy by cell.",
         "encodings": {"group": "cell", "value": "accuracy", "low": "low", "high": "high", "series": "model",
                       "control": "chance", "n": "n"},
         "labels": {"group": "cell", "value": "accuracy (fraction)"}, "control": "majority answer", **said},
        {"kind": "bars", "title": "The authors' statistic also flags an untrained network", "table": "flagged",
         "caption": "Share of neurons flagged.",
         "encodings": {"x": "statistic", "y": "share", "series": "model"},
         "labels": {"x": "criterion", "y": "neurons flagged (fraction)"}, "n": "3,072 neurons", "control": "untrained model"},
        {"kind": "scatter", "title": "The gradient estimate ranks units as exact patching does", "table": "agreement",
         "caption": "One point per neuron of the sample.",
         "encodings": {"x": "exact", "y": "atp", "label": "unit"},
         "labels": {"x": "exact effect (logits)", "y": "AtP estimate (logits)"}, "n": 120, "control": "identity line"},
        {"kind": "plane", "title": "Layers lie in the order of their depth", "table": "plane_points",
         "caption": "Places of layers.",
         "encodings": {"x": "x", "y": "y", "color": "layer", "label": "name", "rule_x": "plane_field.x",
                       "field": "plane_field.value", "field_x": "plane_field.x", "field_x2": "plane_field.x2",
                       "field_y": "plane_field.y", "field_y2": "plane_field.y2"},
         "labels": {"x": "first axis", "y": "second axis", "color": "layer", "field": "value"},
         "options": {"join": True}, "n": 8, "control": "none: descriptive"},
        {"kind": "table", "title": "The neurons that matter most", "table": "units", "caption": "By effect.",
         "encodings": {"columns": ["unit", "effect", "writes", "fires"]},
         "labels": {"writes": "token written"},
         "options": {"sort": "-effect", "limit": 3, "formats": {"effect": "+.3f", "fires": ",d"}}},
    ]  # fmt: skip


def claims() -> list[tuple[Claim, Verdict]]:
    paper = "arXiv 2510.03366"
    random = {"200 matched random sets": 0.011}
    return [
        (Claim("dissociation_index", "Recall and reasoning are carried by separable parts.", paper, "abstract", "up to 15 points", "DD on unseen items and skeletons"),
         Verdict("reproduced", "The index lies above every matched random draw.", 0.94, 240, (0.81, 1.07), random)),
        (Claim("selective_neurons", "30.74 % of neurons are selective.", paper, "layer analysis notebook", 0.3074),
         Verdict("not reproduced", "The authors' criteria flag more of an untrained network: they detect the template.", 0.04, 3072, (0.03, 0.05), {"untrained network": 0.485, "shuffled labels": 0.012})),
        (Claim("recall_early", "Recall peaks in early layers.", paper, "H1", "layers 3-17 of 28"),
         Verdict("same direction", "Earlier, but not in the first third.", 0.36, 240, (0.30, 0.41), {"shuffled labels": 0.5})),
        (Claim("puzzles", f"The split holds on linguistic puzzles {HOSTILE}", paper, "exploratory notebook"),
         Verdict("not testable here", "The data set has no licence.")),
    ]  # fmt: skip


STUDY = Study(
    name="recall",
    title="Are recalling a fact and reasoning with it done by different parts?",
    paper="Recall vs reasoning, arXiv 2510.03366",
    question="We ask which layers, heads and neurons of a language model carry facts from its weights and which carry "
    "facts read from the prompt, by taking each away and seeing which task suffers.",
    config=dict,
    presets={},
    pipeline="nowhere:run",
)


def write(folder: Path, shown: list[dict] | None = None) -> Record:
    """Write the record and return it, loaded."""
    config = {
        "model": "zoo:atlas",
        "seed": 0,
        "items": 240,
        "prompt": HOSTILE,
        "sweep": {"layers": [0, 1], "site": None},
    }
    opened = Record.open(
        folder, study="recall", config=config, seed=0, passed={"items": 240}, fingerprints={"model": "b2:01"}
    )
    with opened as record:
        record.stage(
            "all", lambda: StageOutput(tables=tables(), values={"p": 1 / 201, "auc": Missing("one class only")})
        )
        for claim, verdict in claims():
            record.judge(claim, verdict)
        record.views(views() if shown is None else shown)
    return Record.load(folder)
