"""The first step: what the table holds, what was cut, how it is divided, and whether the division leaks."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from microtome.core.seeds import derive
from microtome.data.nuclear import DIFFERENCES, MAGIC, leaks, split, tasks
from microtome.measures.nuclear_mass import fit_mass_formula, mass_errors
from microtome.records import StageOutput
from microtome.studies.nuclear.subject import Subject

__all__ = ["data"]

ENERGIES = ("binding", "sn", "sp", "s2n", "s2p", "qa", "qbm")


def data(subject: Subject) -> StageOutput:
    """Counts, cuts, parts, formulas on the whole table, and what leaks under each way of dividing."""
    table, said = subject.table, subject.table.provenance
    parts = {"training": subject.train, "held-out": subject.held}
    if subject.inner is not None:
        parts["inner held-out"] = subject.inner.held[:, 0]
    return StageOutput(
        tables={
            "parts": [{"part": name, **_counts(subject, part)} for name, part in parts.items()],
            "cuts": [{"reason": "rows in the file", "rows": said.rows},
                     *({"reason": reason, "rows": -count} for reason, count in said.dropped.items()),
                     {"reason": "nuclei studied", "rows": len(table)}],
            "formulas": _formulas(subject),
            "leakage": _leakage(subject),
            "magic": [{"z": m if m <= table.z.max() else None, "n": m} for m in MAGIC if m <= table.n.max()],
        },
        values={
            "source": said.source,
            "format": said.format,
            "sha256": said.sha256,
            "citation": said.citation,
            "notes": list(said.notes),
            "warnings": [*subject.outer.warnings],
            "nuclei": len(table),
            "held": int(subject.held.sum()),
            "most_z": int(table.z.max()),
            "most_n": int(table.n.max()),
            "duplicates": len(said.notes),
        },
    )  # fmt: skip


def _counts(subject: Subject, part: np.ndarray) -> dict:
    table = subject.table
    parity = Counter((int(z % 2), int(n % 2)) for z, n in zip(table.z[part], table.n[part], strict=True))
    return {
        "nuclei": int(part.sum()),
        "elements": len(np.unique(table.z[part])),
        "neutron_numbers": len(np.unique(table.n[part])),
        "even_even": parity[0, 0],
        "odd_odd": parity[1, 1],
        "lightest": table.label(np.flatnonzero(part)[np.argmin(table.a[part])]),
        "heaviest": table.label(np.flatnonzero(part)[np.argmax(table.a[part])]),
    }


def _formulas(subject: Subject) -> list[dict]:
    """Each formula fitted to the whole table, with its cross-validated error: the numbers that textbooks compare."""
    rows = []
    for name in ("semf", "bw2"):
        fit = fit_mass_formula(subject.table, name, seed=derive(subject.config.seed, "folds"))
        errors = mass_errors(fit.residuals)
        rows += [
            {
                "formula": name,
                "term": term,
                "coefficient": value,
                "standard_error": float(error),
                "rms": fit.rms,
                "held_rms": fit.held_rms,
                "median": errors.median,
                "n": errors.nuclei,
            }
            for term, value, error in zip(
                fit.formula.terms.names, fit.formula.coefficients, fit.standard_errors, strict=True
            )
        ]
    return rows


def _leakage(subject: Subject) -> list[dict]:
    """How many held-out energies follow from training numbers, were the separation energies trained on too."""
    found = tasks(subject.table, _there(subject, ENERGIES))
    ways: dict[str, dict] = {
        "nucleus": {},
        "nucleus, unmasked": {"kind": "nucleus", "mask": False},
        "edge": {},
        "region": {},
        "task": {},
    }
    rows = []
    for name, how in ways.items():
        options = {"kind": name, "seed": derive(subject.config.seed, "outer"), "share": subject.config.cuts.share} | how
        divided = split(found, **options)
        leak = leaks(divided, examples=1)
        rows.append(
            {
                "split": name,
                "held": sum(leak.held.values()),
                "derivable": leak.total,
                "share": leak.share,
                "masked": int(divided.masked.sum()),
                "unseen": divided.unseen.nuclei,
                "example": str(leak.examples[0]) if leak.examples else "",
            }
        )
    return rows


def _there(subject: Subject, names: Sequence[str]) -> list[str]:
    """Return the energies that at least one nucleus has."""
    table = subject.table
    there = []
    for name in names:
        ends = [e for e in (DIFFERENCES[name].plus, DIFFERENCES[name].minus) if e is not None]
        if all((table.rows_of(table.z + z, table.n + n) >= 0).any() for z, n in ends):
            there.append(name)
    return there
