"""Plain PyTorch: the embedding regressor and the loop that fits one seed; plain SciPy: a helix. No line of ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["EPOCHS", "Plan", "Rows", "fit", "helix", "made_helix", "made_rows"]

EPOCHS = 12  # of every fit, all within the warm-up, so that the loop needs no schedule


@dataclass(frozen=True)
class Rows:
    """Numbers of Z and N with a target."""

    z: Tensor
    n: Tensor
    value: Tensor


@dataclass(frozen=True)
class Plan:
    """What is fitted and how long; every way does the same."""

    protons: int
    neutrons: int
    width: int
    blocks: int
    epochs: int
    batch: int
    rate: float = 3e-3
    warm_up: int = EPOCHS
    decay: float = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0


def made_rows(plan: Plan, count: int) -> Rows:
    """Return as many numbers as there are measured masses, with a smooth target."""
    draw = torch.Generator().manual_seed(0)
    z, n = (torch.randint(0, high, (count,), generator=draw) for high in (plan.protons, plan.neutrons))
    value = torch.sin(z / 11.0) + torch.cos(n / 17.0) + 0.1 * torch.randn(count, generator=draw)
    return Rows(z, n, value)


class Regressor(nn.Module):
    """Two embeddings and a task's, concatenated, mapped, residual blocks, a readout."""

    def __init__(self, plan: Plan):
        super().__init__()
        d = plan.width
        self.z, self.n, self.task = (nn.Embedding(k, d) for k in (plan.protons, plan.neutrons, 1))
        self.mix = nn.Linear(3 * d, d)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Linear(d, d), nn.Linear(d, d)]) for _ in range(plan.blocks))
        self.readout = nn.Linear(d, 1)

    def forward(self, z: Tensor, n: Tensor, task: Tensor) -> Tensor:
        """Return a number a row."""
        h = nn.functional.silu(self.mix(torch.cat([self.z(z), self.n(n), self.task(task)], 1)))
        for first, second in self.blocks:
            h = h + torch.relu(second(torch.relu(first(h))))
        return self.readout(h)[:, 0]


def fit(plan: Plan, rows: Rows, start: Mapping[str, Tensor], orders: Sequence[Tensor]) -> list[float]:
    """Return the mean squared error of every epoch, one seed, from some first weights in some orders of rows."""
    module = Regressor(plan)
    module.load_state_dict(start)
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=plan.betas)
    task, told = torch.zeros(len(rows.z), dtype=torch.int64), []
    for epoch, order in enumerate(orders):
        total, batches = torch.zeros(()), order.split(plan.batch)
        for k, some in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * (epoch + k / len(batches) + 1e-2) / plan.warm_up
            errors = (module(rows.z[some], rows.n[some], task[some]) - rows.value[some]).square()
            optimizer.zero_grad(set_to_none=True)
            errors.mean().backward()
            nn.utils.clip_grad_norm_(module.parameters(), plan.clip)
            optimizer.step()
            total += errors.detach().sum()
        told.append(float(total / len(rows.z)))
    return told


# -- the helix


def made_helix(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and scores, [rows, 3]: a helix that grows, with noise."""
    n = np.arange(8.0, 8 + rows)
    s, turn = (n - n.mean()) / n.std(), 2 * np.pi * n / 38.9
    clean = np.stack([s, (0.4 + 0.1 * s) * np.cos(turn), (0.4 + 0.1 * s) * np.sin(turn)], 1)
    return n, clean + 0.05 * np.random.default_rng(0).normal(size=clean.shape)


def helix(n: np.ndarray, x: np.ndarray, starts: int) -> np.ndarray:
    """Return the curve of least squares, [rows, 3]: every parameter searched, from several periods."""
    from scipy.optimize import least_squares  # not in every peer's environment, whose workers read this module too

    s, k = (n - n.mean()) / n.std(), x.shape[1]

    def curve(p: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(p[0] * n), np.sin(p[0] * n)
        return np.stack([np.ones_like(s), s, cos, sin, s * cos, s * sin], 1) @ p[1:].reshape(6, k)

    first = 2 * np.pi / np.geomspace(4, 2.5 * np.ptp(n), starts)
    found = [least_squares(lambda p: (curve(p) - x).ravel(), np.r_[w, np.full(6 * k, 0.1)]) for w in first]
    return curve(min(found, key=lambda f: f.cost).x)
