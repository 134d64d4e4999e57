"""Equal first, for fits: the loss curves of plain hooks, and their score on pairs held out.

Curves are compared in double precision, with the same first rotation, order and learning rate: where the loss does not
depend on a parameter its gradient is rounding noise, which Adam turns into steps of full length, and in single
precision torch's parametrisation lets those show within an epoch. Scores are of fits in single precision as they are
timed, each tool with its own order and its own way to keep the rotation orthonormal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType

from torch import Tensor

from benchmarks.agreement import Disagreement, agreement
from benchmarks.das import Fitter, Task
from benchmarks.peers import plain_das
from benchmarks.workload import Work

__all__ = ["curves", "interval", "scores"]

HELD_OUT, EPOCHS, FASTER = 512, 4, 4  # so as to be near the end of the fit


def curves(adapter: ModuleType, work: Work, groups: Sequence[Callable[[Work], list[Task]]]) -> dict[str, float]:
    """Return by fitter the largest difference of its losses from the plain hooks', relative to their scale.

    Args:
        adapter: a module peers/*_das.py.
        work: the shared work; its model is copied in double precision.
        groups: each makes tasks that are fitted together. The first and the last are compared; a tool that fits one
            after another is asked for the first alone.

    Raises:
        Disagreement: a curve is not the plain hooks'.
    """
    double = replace(work, model=work.copied_model().double())
    found, plain = adapter.fitters(double), plain_das.fitters(double)
    worst = {fitter.name: 0.0 for fitter in found}
    for tasks in [group(double) for group in groups]:
        truths: dict[tuple, Tensor] = {}
        for fitter in found:
            asked = tasks if fitter.at_once else tasks[:1]
            fits = fitter.prepared_fit(asked)
            for k in {0, len(asked) - 1}:
                order = fitter.order(asked[k])
                key = (k, fitter.cholesky, tuple(order.flatten().tolist()))
                if key not in truths:
                    truths[key] = plain[fitter.cholesky].fit([replace(asked[k], order=order)], [None])[0].losses
                wrong = agreement({"losses": fits[k].losses}, {"losses": truths[key]})
                worst[fitter.name] = max(worst[fitter.name], wrong)
    return worst


def scores(found: Sequence[Fitter], work: Work) -> dict[str, str]:
    """Return by fitter, in words, what share of held-out pairs it answers as wanted after a fit, beside plain hooks'.

    Raises:
        Disagreement: a score lies outside the 95 % interval of the plain hooks'.
    """
    train = plain_das.make_task(work, epochs=EPOCHS, few=True)
    test = plain_das.make_task(work, HELD_OUT, seed=4, few=True)
    train = replace(train, lr=FASTER * train.lr)

    def score(fitter: Fitter, axes: Tensor) -> float:
        said = fitter.said(test, fitter.prepare([test])[0], axes)
        return (said == test.labels.to(said.device)).float().mean().item()

    def reached_by(fitter: Fitter) -> float:
        return score(fitter, fitter.prepared_fit([train])[0].axes)

    plain = plain_das.fitters(work)[0]
    before, wanted = score(plain, test.start), reached_by(plain)
    low, high = interval(wanted, HELD_OUT)
    if not before < low:
        raise Disagreement(f"plain hooks score {wanted:.3f}, {before:.3f} before any fit; such a score shows nothing")
    told = f"plain hooks {wanted:.3f} [{low:.3f}, {high:.3f}]"
    reached = {fitter.name: reached_by(fitter) for fitter in found}
    for name, share in reached.items():
        if not low <= share <= high:
            raise Disagreement(f"{name} scores {share:.3f}, {told}")
    return {name: f"score {share:.3f}, {told}, {before:.3f} before the fit" for name, share in reached.items()}


def interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n."""
    z = 1.96
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
