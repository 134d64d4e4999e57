"""Views of the embeddings: their order, helices, how they came about, and what replacing them costs."""

from microtome.records import Record
from microtome.studies.nuclear.subject import ARMS

__all__ = ["shape_views"]

STATISTICS = {
    "explained": "share of variance",
    "spearman": "|Spearman| with the number",
    "parity": "even-odd amplitude",
}


def shape_views(record: Record) -> list[dict]:
    """Return the views of the tables of Z and N, in the order of the report."""
    return [
        _plane(record, "N"),
        _plane(record, "Z"),
        _arms(record),
        _components(record),
        _helix_curve(record),
        _helix_plane(record),
        _helices(record),
        _evolution(record),
        _evolution_planes(record),
        _replaced(record),
        _odd_even(record),
        _map(record, "N"),
        _map(record, "Z"),
    ]


def _held(record: Record) -> str:
    return f"{record.value('held')} held-out nuclei"


def _numbers(record: Record, table: str) -> int:
    return next(r["n"] for r in record.rows("order") if r["table"] == table)


def _plane(record: Record, table: str) -> dict:
    close = next(
        r for r in record.rows("components")
        if (r["arm"], r["table"], r["statistic"], r["component"]) == ("direct", table, "spearman", 1)
    )  # fmt: skip
    return {
        "kind": "plane",
        "title": f"The embeddings of {table}: the first component follows the number (Spearman {close['value']:.3f})",
        "caption": f"Rows of the table of {table} of the direct network in their first two principal components, "
        "coloured by the third; only numbers seen in training.",
        "table": "scores",
        "where": {"arm": "direct", "table": table},
        "encodings": {"x": "pc1", "y": "pc2", "color": "pc3", "label": "name"},
        "labels": {"x": "PC1", "y": "PC2", "color": "PC3"},
        "options": {"join": True, "scale": "sequential"},
        "n": f"{_numbers(record, table)} numbers of {'protons' if table == 'Z' else 'neutrons'}, one network",
        "control": f"order shuffled: |Spearman| up to {close['null']:.2f} (95 %)",
    }


def _arms(record: Record) -> dict:
    return {
        "kind": "scatter",
        "title": "Which arms have ordered embeddings?",
        "caption": "Every network: rank correlation of its first component with the number, against how near "
        "neighbouring numbers lie (1: no nearer than any two).",
        "table": "order",
        "encodings": {"x": "neighbours", "y": "spearman", "series": "arm", "facet": "table"},
        "labels": {"x": "distance of neighbours / of any two rows", "y": "|Spearman| of PC1 with the number",
                   "series": "arm"},
        "names": {"series": ARMS},
        "options": {"identity": False, "correlation": False},
        "n": f"{len(record.rows('order')) // 2} networks",
        "control": "untrained networks and those trained on noise",
    }  # fmt: skip


def _components(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "The components in numbers",
        "table": "components",
        "where": {"arm": ["direct", "residual"]},
        "names": {"arm": ARMS, "statistic": STATISTICS},
        "caption": "null: 95 % quantile under shuffled order (explained: rows without direction; parity: noise with "
        "the same second differences).",
        "encodings": {"columns": ["arm", "table", "statistic", "component", "value", "low", "high", "null", "p", "n"]},
        "options": {"limit": 30, "formats": dict.fromkeys(("value", "low", "high", "null", "p"), ".3f")},
    }


def _close_helix(record: Record) -> dict:
    return next(r for r in record.rows("helices") if r["headline"] and (r["arm"], r["table"]) == ("direct", "N"))


def _helix_curve(record: Record) -> dict:
    close = _close_helix(record)
    said = "A helix fits" if close["supported"] else "No helix beyond a polynomial:"
    return {
        "kind": "curve",
        "title": f"{said} the embeddings of N: R2 {close['r2']:.3f}, polynomial {close['polynomial']:.3f}",
        "caption": f"First three components of the direct network along N, with the helix of the best period "
        f"({close['period']:.1f}) and a polynomial of degree {close['degree']}, which has as many parameters.",
        "table": "helix_curves",
        "where": {"arm": "direct", "table": "N"},
        "encodings": {"x": "number", "y": "value", "series": "curve", "facet": "component"},
        "labels": {"x": "neutrons N", "y": "score", "series": "curve"},
        "n": f"{close['n']} numbers of neutrons, one network",
        "control": f"the polynomial; shuffled rows reach R2 {close['null']:.3f} (95 %)",
    }


def _helix_plane(record: Record) -> dict:
    close = _close_helix(record)
    return {
        "kind": "plane",
        "title": "Looked at along its axis: PC2 against PC3",
        "caption": "A helix would turn here as N grows; colour: N.",
        "table": "scores",
        "where": {"arm": "direct", "table": "N"},
        "encodings": {"x": "pc2", "y": "pc3", "color": "number", "label": "name"},
        "labels": {"x": "PC2", "y": "PC3", "color": "N"},
        "options": {"join": True},
        "n": f"{close['n']} numbers of neutrons, one network",
        "control": f"{close['turns']:.1f} turns of the best helix; up to 2 come from any smooth path",
    }


def _helices(record: Record) -> dict:
    columns = ["arm", "table", "seed", "drift", "r2", "polynomial", "held_out", "held_out_polynomial", "null", "p",
               "period", "period_low", "period_high", "turns", "supported"]  # fmt: skip
    numbers = ("r2", "polynomial", "held_out", "held_out_polynomial", "null", "p")
    return {
        "kind": "table",
        "title": "Helix against polynomial, the network in the middle of each arm",
        "table": "helices",
        "where": {"headline": True},
        "names": {"arm": ARMS},
        "caption": "R2 of both on the first three components and on rows held out in between; null: 95 % of shuffled "
        "rows. supported: gains more than 0.03, predicts held-out rows better, more than two turns, p at most 0.05.",
        "encodings": {"columns": columns},
        "labels": {"held_out": "R2 held out", "held_out_polynomial": "polynomial held out", "period_low": "low",
                   "period_high": "high"},
        "options": {"limit": 60, "formats": dict.fromkeys(numbers, ".3f")
                    | dict.fromkeys(("period", "period_low", "period_high", "turns"), ".1f")},
    }  # fmt: skip


def _evolution(record: Record) -> dict:
    return {
        "kind": "curve",
        "title": "How the order comes about in training",
        "caption": "The direct network in the middle: rank correlation of its own first component with the number "
        "after so many epochs.",
        "table": "evolution",
        "encodings": {"x": "epoch", "y": "spearman", "low": "low", "high": "high", "series": "table", "null": "null"},
        "labels": {"x": "epochs (logarithm)", "y": "|Spearman| of PC1 with the number", "series": "table of"},
        "options": {"log_x": True},
        "n": f"{_numbers(record, 'Z')} and {_numbers(record, 'N')} rows, one network",
        "interval": "95 %, rows taken as independent (Bonett and Wright)",
        "control": "order shuffled, 95 %",
    }


def _evolution_planes(record: Record) -> dict:
    epochs = sorted({r["epoch"] for r in record.rows("evolution_scores")})
    shown = sorted({epochs[round(k * (len(epochs) - 1) / 5)] for k in range(6)})
    return {
        "kind": "plane",
        "title": "The table of N in its own first two components, snapshot by snapshot",
        "caption": "Panels: epochs. Colour: N. Axes are each snapshot's own.",
        "table": "evolution_scores",
        "where": {"table": "N", "epoch": shown},
        "encodings": {"x": "pc1", "y": "pc2", "color": "number", "facet": "epoch"},
        "labels": {"x": "PC1", "y": "PC2", "color": "N"},
        "n": f"{_numbers(record, 'N')} numbers of neutrons, one network",
        "control": "epoch 0: as drawn",
    }


def _replaced(record: Record) -> dict:
    rows = {r["name"]: r for r in record.rows("replacements")
            if (r["arm"], r["table"], r["metric"]) == ("direct", "N", "held-out")}  # fmt: skip
    helix = max((r for n, r in rows.items() if n.startswith("helix")), key=lambda r: r["recovered"])
    shown = [n for n in rows if not n.startswith("without") and n != "shuffle"]
    return {
        "kind": "bars",
        "title": f"Put in the table's place, the best helix leaves {helix['score']:.1f} MeV where the network has "
        f"{rows['model']['score']:.2f}",
        "caption": "Share of the way from mean rows (0) to the network (1) in root mean square, with the embeddings of "
        "one table replaced by simpler ones; shuffled rows lie below 0 "
        f"({rows['shuffle']['recovered']:.1f} for N) and are left out.",
        "table": "replacements",
        "where": {"arm": "direct", "metric": "held-out", "name": shown},
        "encodings": {"x": "name", "y": "recovered", "series": "table"},
        "labels": {"x": "what stands in the table's place", "y": "error recovered (0 to 1)", "series": "table of"},
        "n": _held(record) + ", one network",
        "control": "mean rows at 0, the network's own at 1",
    }


def _odd_even(record: Record) -> dict:
    return {
        "kind": "table",
        "title": "Replaced tables in numbers",
        "table": "replacements",
        "where": {"table": "N", "metric": ["held-out", "odd-even gap"]},
        "names": {"arm": ARMS},
        "caption": "The table of N, errors in MeV. odd-even gap: mean staggering of the predictions along chains, "
        "which a component that carries parity takes with it (`without k`).",
        "encodings": {"columns": ["arm", "name", "metric", "score", "low", "high", "recovered", "tables"]},
        "options": {"limit": 50, "formats": dict.fromkeys(("score", "low", "high", "recovered"), ".3f")},
    }


def _map(record: Record, table: str) -> dict:
    told = next(r for r in record.rows("maps") if r["table"] == table)
    return {
        "kind": "plane",
        "title": f"Latent space topography: predicted energy over the plane of {table}'s embeddings, {told['fixed']}",
        "caption": "Background: what the network predicts at each point of the plane of PC1 and PC2, everything off it "
        "at its mean. Points: the rows of the table. What lies off the plane moves predictions by "
        f"{told['off_plane']:.1f} MeV (of {told['spread']:.0f} MeV of spread).",
        "table": "map_items",
        "where": {"table": table, "map_grid.table": table},
        "encodings": {"x": "x", "y": "y", "label": "name", "field": "map_grid.binding", "field_x": "map_grid.x",
                      "field_x2": "map_grid.x2", "field_y": "map_grid.y", "field_y2": "map_grid.y2"},
        "labels": {"x": "PC1", "y": "PC2", "field": "predicted B (MeV)"},
        "n": f"{told['n']} rows, one network",
        "control": "far from the rows the map shows the network, not data",
    }  # fmt: skip
