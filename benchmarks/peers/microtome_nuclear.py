"""Ours: several seeds of the embedding regressor in one fit, beside the plain loop, a seed after another; a helix."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.peers import plain_nuclear as plain
from benchmarks.workload import Work
from microtome.core.seeds import derive
from microtome.measures.helix import fit_helix
from microtome.training.regression import Numbers, Schedule, Shape, fit_seeds, untrained

__all__ = ["helix", "regressors"]

ROUNDING = 1e-2  # losses of the last epoch; Adam divides by roots of squares and so enlarges what rounding does


def regressors(work: Work, seeds: int) -> list[Candidate]:
    """Fits of the study's size: the plain loop of one seed first, then both ways to fit several."""
    width = min(64, work.size.hidden)
    plan = plain.Plan(119, 179, width, 2, plain.EPOCHS, 256)
    rows = plain.made_rows(plan, 2200)
    shape = Shape(plan.protons, plan.neutrons, embedding=width, width=width, base=width, spread=0.03)
    starts, orders = [_start(shape, s) for s in range(seeds)], [_orders(s, len(rows.z)) for s in range(seeds)]

    def one_after_another(count: int) -> dict[str, Tensor]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a plain loop of this size is fastest so: threads that sleep double its time
        losses = [plain.fit(plan, rows, starts[s], orders[s]) for s in range(count)]
        torch.set_num_threads(threads)
        return {"losses": torch.tensor(losses)}

    numbers = Numbers(rows.z, rows.n, torch.zeros_like(rows.z), rows.value, torch.ones_like(rows.value))
    schedule = Schedule(plan.epochs, plan.batch, plan.rate, warm_up=plan.warm_up, weight_decay=plan.decay,
                        betas=plan.betas, clip=plan.clip, judge_every=1)  # fmt: skip

    def together(count: int) -> dict[str, Tensor]:
        fitted = fit_seeds(shape, numbers, None, schedule, seeds=range(count))
        told = [[h.train**2 for h in fitted.history if h.seed == s] for s in range(count)]
        return {"losses": torch.tensor(told)}

    found = [Candidate("plain PyTorch, one seed", "", lambda: one_after_another(1))]
    for count, metric in ((1, "one seed"), (seeds, f"{seeds} seeds")):
        found.append(Candidate("microtome", metric, lambda count=count: together(count), rounding=ROUNDING))
    several = f"{seeds} seeds"
    return [*found, Candidate("plain PyTorch, a seed after another", several, lambda: one_after_another(seeds))]


def helix(n: np.ndarray, x: np.ndarray) -> Candidate:
    """One period for all components, searched on a grid and refined; all else by least squares."""
    return Candidate("microtome", "fit", lambda: {"curve": torch.from_numpy(fit_helix(x, n)(n))})


def _start(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Return the weights that our fit begins with, by the plain module's names."""
    parts = untrained(shape, (seed,)).module(0).state_dict()
    same = {k: v for k, v in parts.items() if k.split(".")[0] in ("z", "n", "task", "readout")}
    blocks = {k.replace("first", "0").replace("second", "1"): v for k, v in parts.items() if k.startswith("blocks")}
    mix = torch.cat([parts[f"values.{k}.weight"] for k in range(3)], 1)
    return same | blocks | {"mix.weight": mix, "mix.bias": parts["offset"]}


def _orders(seed: int, rows: int) -> list[Tensor]:
    """Return the order of rows of every epoch that our fit draws."""
    made = (torch.Generator().manual_seed(derive(seed, "order", epoch)) for epoch in range(plain.EPOCHS))
    return [torch.randperm(rows, generator=draw) for draw in made]
