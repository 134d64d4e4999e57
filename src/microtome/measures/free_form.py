"""Free-form symbolic regression by an engine that is installed: formulas of any form, grown by genetic programming.

`symbolic` searches a library and proves or beams its way to the best sum of given terms. An engine invents the terms:
it may find a form nobody listed, and its formulas seldom look like physics. pyoperon (MIT, one wheel, works offline) is
tried first; PySR runs where it and its Julia are installed already. Same seed, same formulas (pyoperon, one thread).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers

__all__ = ["FreeFormula", "free_formulas"]

ENGINES = ("pyoperon", "pysr")


@dataclass(frozen=True)
class FreeFormula:
    """A formula as its engine writes it.

    Args:
        expression: with the variables' names.
        size: nodes of its tree.
        rms: root mean squared error on the data it was fitted to.
    """

    expression: str
    size: int
    rms: float


def free_formulas(
    variables: Mapping[str, Any],
    target: Any,
    *,
    seed: int,
    engine: Literal["pyoperon", "pysr"] | None = None,
    generations: int = 200,
    population: int = 500,
    largest: int = 30,
) -> tuple[FreeFormula, ...]:
    """Return the Pareto front of formulas that an engine finds, by size; each has a smaller error than those before.

    Args:
        variables: name -> [items].
        target: what the formula should give, [items].
        seed: of the search.
        engine: which to use; None: the first that is installed.
        generations: how long to search.
        population: formulas in a generation.
        largest: most nodes of a formula.

    Raises:
        MeasureError: no engine installed or not the one asked for, no variables, shapes that do not fit, or missing
            values.
    """
    y = numbers(target, "Target", ndim=1)
    if not variables:
        raise MeasureError("A free formula of 0 variables was asked for; give at least one.")
    x = np.stack([numbers(v, f"Variable '{name}'", ndim=1, length=len(y)) for name, v in variables.items()], 1)
    search = {"pyoperon": _operon, "pysr": _pysr}[_installed(engine)]
    found = search(x, y, list(variables), seed, generations, population, largest)
    front: list[FreeFormula] = []
    for formula in sorted(found, key=lambda f: (f.size, f.rms)):
        if not front or formula.rms < front[-1].rms:
            front.append(formula)
    return tuple(front)


def _installed(engine: str | None) -> str:
    """Return the engine to use."""
    if engine not in (None, *ENGINES):
        raise MeasureError(f"Engine '{engine}' was asked for; give {' or '.join(ENGINES)}.")
    there = [name for name in ENGINES if find_spec(name)]
    if not there or engine not in (None, *there):
        raise MeasureError(
            f"Free-form search by {engine or ' or '.join(ENGINES)} was asked for, found "
            f"{', '.join(there) or 'none of them'} installed; run `pip install pyoperon`, or use `best_subsets`."
        )
    return engine or there[0]


def _operon(x, y, names, seed, generations, population, largest) -> list[FreeFormula]:
    from pyoperon.sklearn import SymbolicRegressor

    model = SymbolicRegressor(
        allowed_symbols="add,sub,mul,div,square,sqrt,constant,variable",
        objectives=["mse", "length"],
        max_length=largest,
        generations=generations,
        population_size=population,
        random_state=seed % (1 << 32),
        n_threads=1,
    )
    model.fit(x, y)
    return [
        FreeFormula(
            model.get_model_string(found["tree"], 6, names),
            int(found["length"]),
            float(np.sqrt(found["mean_squared_error"])),
        )
        for found in model.pareto_front_
    ]


def _pysr(x, y, names, seed, generations, population, largest) -> list[FreeFormula]:
    try:
        from pysr import PySRRegressor
    except (ImportError, OSError) as error:
        raise MeasureError(
            f"PySR was asked for, it cannot start ({error}); install Julia for it first, or `pip install pyoperon`."
        ) from None
    model = PySRRegressor(
        binary_operators=["+", "-", "*", "/"],
        unary_operators=["square", "sqrt"],
        maxsize=largest,
        niterations=generations,
        population_size=population,
        random_state=seed % (1 << 32),
        deterministic=True,
        parallelism="serial",
        progress=False,
        verbosity=0,
    )
    model.fit(x, y, variable_names=names)
    return [
        FreeFormula(str(row.equation), int(row.complexity), float(np.sqrt(row.loss)))
        for row in model.equations_.itertuples()
    ]
