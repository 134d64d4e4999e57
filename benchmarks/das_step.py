"""One step of fitting a DAS rotation: `python -m benchmarks.das_step [--rounds 3] [--tiny]`; ours beside plain hooks.

The shared Llama (workload.py), residual after layer 4 of 8, rank 128, 128 pairs of 16-token prompts in 8 minibatches of
16, one epoch of Adam; at the last position, and at one in the middle of the prompt. Plain hooks run a source and a base
forward of the whole model each step, with the rotation kept orthonormal by a Cholesky solve (as ours, so the losses
must agree before anything is timed) or by torch's parametrisation (as the peers do). Ours is timed after its
preparation and with it; then six rotations over the same pairs, together and one after another. Milliseconds a step.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from benchmarks.agreement import agreement
from benchmarks.clock import alternate
from benchmarks.machine import Watch, device_name, load
from benchmarks.run import SETTINGS
from benchmarks.workload import FULL, POSITIONS, TINY, Work, make_work
from microtome.core.site import Site
from microtome.features.rotation import random_axes
from microtome.models.model import Model
from microtome.training.interchange import RotationFit, Schedule, fit_interchange, minibatches
from microtome.training.swaps import Swaps, TokenPairs, record_swaps

__all__ = ["main"]

LAYER, PAIRS, BATCH, FITS = 4, 128, 16, 6
STEPS = PAIRS // BATCH
SCHEDULE = Schedule(epochs=1, batch=BATCH, lr=1e-3)


class Bench:
    """The pairs, the first rotation, and the ways to fit it, at one position."""

    def __init__(self, work: Work, position: int, rank: int):
        self.work, self.position, self.rank = work, position, rank
        draw, vocabulary = torch.Generator().manual_seed(2), work.model.config.vocab_size
        self.base, self.source = torch.randint(vocabulary, (2, PAIRS, POSITIONS), generator=draw).to(work.device)
        self.labels = torch.randint(vocabulary, (PAIRS,), generator=draw).to(work.device)
        self.start = random_axes(work.model.config.hidden_size, rank, draw).to(work.device)
        self.model = Model.load(work.copied_model(), device=work.device)
        self.swaps = self.prepare()

    # -- ours

    def prepare(self) -> list[Swaps]:
        """Record what does not change."""
        labels = self.labels[:, None].tolist()
        pairs = TokenPairs(self.base.tolist(), self.source.tolist(), labels, self.position, self.position)
        return record_swaps(self.model, pairs, f"blocks.{LAYER}.resid_post")[Site(f"blocks.{LAYER}.resid_post")]

    def ours(self, fits: int = 1, swaps: list[Swaps] | None = None) -> list[Tensor]:
        """Fit rotations over the recorded pairs, all from one start; return their losses."""
        wanted = [RotationFit(swaps or self.swaps, self.rank, start=self.start, seed=seed) for seed in range(fits)]
        return [fitted.losses for fitted in fit_interchange(wanted, SCHEDULE)]

    # -- plain hooks

    def plain(self, rotation: nn.Module) -> Tensor:
        """Fit one rotation with two forwards of the whole model a step; return its losses."""
        optimizer = torch.optim.Adam(rotation.parameters(), lr=SCHEDULE.lr)
        losses = []
        for swaps in minibatches(RotationFit(self.swaps, self.rank), SCHEDULE, 0):
            loss = self._plain_loss(swaps.pairs, rotation())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def _plain_loss(self, items: Tensor, axes: Tensor) -> Tensor:
        taken: list[Tensor] = []
        with torch.no_grad(), self._hooked(lambda x: taken.append(x[:, self.position])):
            self.work.model.model(self.source[items])

        def put(x: Tensor) -> Tensor:
            own = x[:, self.position]
            new = own + (taken[0] - own) @ axes @ axes.T
            return x.index_copy(1, torch.tensor([self.position % POSITIONS], device=x.device), new[:, None])

        with self._hooked(put):
            logits = self.work.model(self.base[items], logits_to_keep=1).logits[:, -1]
        return F.cross_entropy(logits, self.labels[items])

    @contextmanager
    def _hooked(self, change: Callable[[Tensor], Tensor | None]):
        handle = self.work.layers[LAYER].register_forward_hook(lambda m, a, out: change(out))
        try:
            yield
        finally:
            handle.remove()


class Cholesky(nn.Module):
    """R = W L^-T."""

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        factor = torch.linalg.cholesky(self.weight.T @ self.weight)
        return torch.linalg.solve_triangular(factor.T, self.weight, upper=True, left=False)


class Parametrised(nn.Module):
    """R by torch's own parametrisation."""

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())
        orthogonal(self, "weight")

    def forward(self) -> Tensor:
        return self.weight


def measure(bench: Bench, rounds: int) -> dict[str, float]:
    """Check that the losses are those of plain hooks; return name -> median milliseconds a step."""
    reference = bench.plain(Cholesky(bench.start))
    agreement({"losses": bench.ours()[0]}, {"losses": reference})
    runs = {
        "plain hooks, torch's parametrisation": lambda: bench.plain(Parametrised(bench.start)),
        "plain hooks, Cholesky": lambda: bench.plain(Cholesky(bench.start)),
        "microtome, preparation": bench.prepare,
        "microtome, after preparation": bench.ours,
        "microtome, one epoch with preparation": lambda: bench.ours(swaps=bench.prepare()),
        f"microtome, {FITS} together": lambda: bench.ours(FITS),
        f"microtome, {FITS} one after another": lambda: [bench.ours() for _ in range(FITS)],
    }
    times = alternate(runs, rounds, bench.work.device)
    return {name: 1000 * statistics.median(seconds) / STEPS for name, seconds in times.items()}


def main() -> None:
    """Measure at both positions and print; under the settings of `run.py`, which a process reads when it starts."""
    if not SETTINGS.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.das_step", *sys.argv[1:]], os.environ | SETTINGS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="check the numbers on a tiny model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = make_work(args.device, Path(scratch), TINY if args.tiny else FULL)
        print(f"{device_name(args.device)}, load average {load():.1f}")
        for name, position in (("last position", -1), ("position 8 of 16", 8)):
            watch = Watch()
            found = measure(Bench(work, position, 16 if args.tiny else 128), args.rounds)
            print(f"{name}: ms a step, {watch.others() or 0.0:.2f} CPUs used by others")
            for way, milliseconds in found.items():
                print(f"  {milliseconds:8.1f}  {way}")


if __name__ == "__main__":
    main()
