"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.nuclear.physics_views import physics_views
from microtome.studies.nuclear.shape_views import shape_views
from microtome.studies.nuclear.subject import ARMS, Subject

__all__ = ["views"]

NUCLEI = "95 % bootstrap over held-out nuclei, median over seeds"


def views(record: Record, subject: Subject) -> list[dict]:
    """Return the views of a run that has all its stages."""
    return [
        _question(record, subject),
        _errors(record),
        _chart(record),
        _nuclides(record),
        *shape_views(record),
        *physics_views(record),
        *_data(record),
    ]


def _question(record: Record, subject: Subject) -> dict:
    held, train = int(subject.held.sum()), int(subject.train.sum())
    network = subject.config.network
    lines = [
        f"Table: {record.value('source')}, {record.value('nuclei'):,} nuclei with measured binding energies after the "
        f"cuts; {train:,} are trained on, {held:,} held out so that every Z and every N keeps at least "
        f"{subject.config.cuts.keep} in training. {record.value('citation')}",
        f"A network is given Z and N as rows of two tables of embeddings ({network.embedding} numbers each), mixes "
        f"them by constant weights, and answers after {network.blocks} residual blocks of width {network.width}. "
        f"{subject.config.fitting.seeds} seeds of each arm are fitted at once: the residual of B to the formula "
        f"{subject.residual_of.upper()} fitted to training nuclei (the accurate one), the total energy (the one whose "
        "embeddings must hold the bulk of it), the same of what a formula says (the theory twin), noise, and networks "
        "that were not trained.",
        "One network of each arm, the one in the middle by its held-out error, is looked at closely; where seeds are "
        "compared, all are. Energies are in MeV.",
    ]
    if record.value("warnings"):
        lines.append("Warnings: " + " ".join(record.value("warnings")))
    return {"kind": "text", "title": "What was asked", "caption": "\n\n".join(lines)}


def _held(record: Record) -> str:
    return f"{record.value('held')} held-out nuclei"


def _errors(record: Record) -> dict:
    rows = {r["label"]: r for r in record.rows("holdout")}
    shown = [ARMS["residual"], ARMS["direct"], *(k for k, r in rows.items() if r["kind"] == "formula")]
    own = rows[ARMS["residual"]]
    return {
        "kind": "intervals",
        "title": f"On nuclei it never saw the residual network is off by {own['rms']:.2f} MeV, the fitted "
        f"semi-empirical formula by {rows['SEMF, fitted']['rms']:.2f}",
        "caption": "Root mean square on the same held-out nuclei. SEMF and BW2: formulas of 5 and 11 terms, fitted to "
        "training nuclei or with coefficients of the literature; + nearest: corrected by their mean residual at the "
        "eight nearest training nuclei.",
        "table": "holdout",
        "where": {"label": shown},
        "encodings": {"group": "label", "value": "rms", "low": "low", "high": "high", "control": "median", "n": "n"},
        "labels": {"group": "prediction", "value": "root mean square (MeV); grey: median |error|"},
        "n": f"{_held(record)}, {own['seeds']} seeds",
        "interval": NUCLEI,
        "control": "formulas, and formulas corrected by their neighbours; median errors as grey marks",
    }


def _chart(record: Record) -> dict:
    return {
        "kind": "plane",
        "title": "What the semi-empirical formula misses: shells",
        "caption": "Chart of nuclides: measured less fitted binding energy, every nucleus of the table; dashed: magic "
        "numbers.",
        "table": "nuclides",
        "encodings": {"x": "n", "y": "z", "color": "semf", "rule_x": "magic.n", "rule_y": "magic.z"},
        "labels": {"x": "neutrons N", "y": "protons Z", "color": "residual (MeV)"},
        "options": {"squares": True, "limit": 10, "scale": "signed"},
        "n": f"{record.value('nuclei')} nuclei",
        "control": "the formula is fitted to training nuclei by least squares",
    }


def _nuclides(record: Record) -> dict:
    return {
        "kind": "plane",
        "title": "What the network misses: held-out nuclei one by one",
        "caption": "The same of the residual network in the middle, a tenth of the scale, nuclei it never saw.",
        "table": "nuclides",
        "where": {"part": "held-out"},
        "encodings": {"x": "n", "y": "z", "color": "residual", "rule_x": "magic.n", "rule_y": "magic.z"},
        "labels": {"x": "neutrons N", "y": "protons Z", "color": "residual (MeV)"},
        "options": {"limit": 1, "scale": "signed"},
        "n": _held(record),
        "control": "the formula's residuals above, on ten times the scale",
    }


def _data(record: Record) -> list[dict]:
    return [
        {
            "kind": "table",
            "title": "All errors in numbers",
            "table": "holdout",
            "caption": "On held-out nuclei, MeV (noise: its own unit). median: of |error|; trimmed: without the "
            "largest hundredth; ensemble: of the seeds' mean.",
            "encodings": {"columns": ["label", "rms", "low", "high", "best_seed", "worst_seed", "ensemble", "median",
                                      "trimmed", "seeds", "n"]},
            "options": {"limit": 20, "formats": dict.fromkeys(
                ("rms", "low", "high", "best_seed", "worst_seed", "ensemble", "median", "trimmed"), ".3f")},
        },
        {"kind": "table", "title": "The division", "table": "parts",
         "encodings": {"columns": ["part", "nuclei", "elements", "neutron_numbers", "even_even", "odd_odd", "lightest",
                                   "heaviest"]}},
        {"kind": "table", "title": "What was cut", "table": "cuts", "encodings": {"columns": ["reason", "rows"]},
         "caption": " ".join(record.value("notes")) or "No notes on the file."},
        {
            "kind": "table",
            "title": "What each way of dividing gives away",
            "table": "leakage",
            "caption": "Were separation and decay energies trained on too: held-out energies that are sums of training "
            "numbers. This study divides by nucleus, and the main arms learn one number a nucleus.",
            "encodings": {"columns": ["split", "held", "derivable", "share", "masked", "unseen", "example"]},
            "options": {"formats": {"share": ".3f"}},
        },
        {
            "kind": "table",
            "title": "Mass formulas fitted to the whole table",
            "table": "formulas",
            "caption": "MeV; held_rms: of ten-fold cross-validation. Standard errors take residuals as independent, "
            "which they are not.",
            "encodings": {"columns": ["formula", "term", "coefficient", "standard_error", "rms", "held_rms", "n"]},
            "options": {"limit": 20, "formats": dict.fromkeys(
                ("coefficient", "standard_error", "rms", "held_rms"), ".3f")},
        },
        {
            "kind": "table",
            "title": "Kinks at magic numbers",
            "table": "kinks",
            "names": {"arm": ARMS},
            "caption": "rank: share of other numbers where the curve of the first three components bends less; mean: "
            "mean bend at magic numbers over that elsewhere, p against as many numbers drawn at random.",
            "encodings": {"columns": ["arm", "table", "number", "size", "rank", "mean", "p"]},
            "options": {"limit": 60, "formats": dict.fromkeys(("size", "rank", "mean", "p"), ".3f")},
        },
    ]  # fmt: skip
