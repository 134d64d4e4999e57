"""Views of what was computed: contributions against terms, formulas, several tasks, addition modulo a prime."""

from microtome.records import Record
from microtome.studies.nuclear.subject import ARMS

__all__ = ["physics_views"]


def physics_views(record: Record) -> list[dict]:
    """Return the views of contributions, formulas and comparisons, in the order of the report."""
    return [
        _cosines(record),
        _matches(record),
        _fronts(record),
        _plugged(record),
        _multitask(record),
        _fourier(record),
        _circle(record),
    ]


def _cosines(record: Record) -> dict:
    return {
        "kind": "heatmap",
        "title": "Do the penultimate layer's components match terms of the mass formula?",
        "caption": "Cosine of each contribution with the part of each term that the terms left of it do not span, so "
        "that terms that resemble each other are not counted twice. Contributions by falling size.",
        "table": "cosines",
        "where": {"arm": ["direct", "residual"]},
        "encodings": {"x": "term", "y": "contribution", "color": "orthogonal", "facet": "arm"},
        "labels": {"x": "term of BW2", "y": "contribution", "color": "cosine"},
        "names": {"facet": ARMS},
        "options": {"scale": "signed"},
        "n": f"{record.value('nuclei')} nuclei, one network an arm",
        "control": "axes turned at random and shuffled nuclei: p values in the table below",
    }


def _matches(record: Record) -> dict:
    columns = ["arm", "term", "contribution", "size", "cosine", "low", "high", "orthogonal", "partial", "explained",
               "p_turned", "p_shuffled"]  # fmt: skip
    return {
        "kind": "table",
        "title": "Terms and contributions matched one to one",
        "table": "matches",
        "names": {"arm": ARMS},
        "caption": "size: mean |contribution| in MeV. orthogonal: beyond the terms before it; partial: given all other "
        "terms; explained: R2 of the term from all contributions shown. p turned: axes turned at random in the same "
        "span; p shuffled: nuclei shuffled.",
        "encodings": {"columns": columns},
        "options": {"limit": 40, "formats": {"size": ".2f"} | dict.fromkeys(columns[4:], ".3f")},
    }


def _fronts(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Formulas found in a library of terms",
        "table": "fronts",
        "caption": f"The best sum of each size of {record.value('library')} terms in A, Z, |N-Z| and pi (1 even-even, "
        "-1 odd-odd). chosen: least extended BIC. proved: all sets of that size were tried.",
        "encodings": {"columns": ["target", "terms", "rms", "held_rms", "formula", "chosen", "proved"]},
        "labels": {"rms": "training rms (MeV)", "held_rms": "held-out rms (MeV)"},
        "options": {"limit": 50, "formats": {"rms": ".3f", "held_rms": ".3f"}},
    }


def _plugged(record: Record) -> dict:
    return {
        "kind": "bars",
        "title": "The network with its largest contributions replaced by formulas",
        "caption": "Held-out error of the direct network with the chosen formulas in the place of its 1, 2, 3 largest "
        "contributions; grey: the network's own.",
        "table": "plugged",
        "encodings": {"x": "replaced", "y": "rms", "n": "n"},
        "labels": {"x": "contributions replaced", "y": "root mean square (MeV)"},
        "n": f"{record.value('held')} held-out nuclei" + ", one network",
        "control": "0 replaced: the network's own",
    }


def _multitask(record: Record) -> dict:
    rows = {r["split"]: r for r in record.rows("multitask_gain")}
    grouped = rows["whole nuclei"]
    names = ", ".join(record.value("multitask_names")[1:]) or "none"
    return {
        "kind": "intervals",
        "title": f"Other tasks lower the error by {grouped['gain']:+.2f} MeV where whole nuclei are held out",
        "caption": f"Residual of the binding energy learnt alone or with others ({names}), as many passes in every "
        "cell. Divided by single numbers, held-out energies are sums of training numbers.",
        "table": "multitask",
        "encodings": {"group": "split", "value": "rms", "low": "low", "high": "high", "series": "tasks", "n": "n"},
        "labels": {"group": "held out", "value": "root mean square of the binding energy (MeV)", "series": "learnt"},
        "n": f"{grouped['n']} held-out energies, {record.rows('multitask')[0]['seeds']} seeds",
        "interval": "95 % bootstrap over held-out nuclei, median over seeds",
        "control": "learnt alone, and the leaky split",
    }


def _fourier(record: Record) -> dict:
    return {
        "kind": "bars",
        "title": "Warm-up: addition modulo a prime turns with "
        f"{len(record.value('modular_found_trained'))} frequencies",
        "caption": "Share of the embedding's variance in the plane of each frequency; grey: what the largest of "
        f"shuffled rows reaches (95 %). Held-out sums: {record.value('modular_accuracy'):.1%} right.",
        "table": "fourier",
        "where": {"model": "trained"},
        "encodings": {"x": "frequency", "y": "share", "control": "chance"},
        "labels": {"x": "frequency", "y": "share of variance"},
        "n": f"{max(r['frequency'] for r in record.rows('fourier'))} frequencies, one network",
        "control": "rows shuffled; before training "
        f"{len(record.value('modular_found_untrained'))} frequencies stand out",
    }


def _circle(record: Record) -> dict:
    return {
        "kind": "plane",
        "title": f"The plane of frequency {record.value('modular_strongest')}: numbers on a circle",
        "caption": "Embeddings of the numbers on the orthonormal plane of the strongest frequency; colour: place on "
        "the circle that the frequency gives the number.",
        "table": "modular_circle",
        "encodings": {"x": "x", "y": "y", "color": "turn", "label": "label"},
        "labels": {"x": "first axis", "y": "second axis", "color": "k n mod p"},
        "n": f"{len(record.rows('modular_circle'))} numbers, one network",
        "control": "rows shuffled: see the figure above",
    }
