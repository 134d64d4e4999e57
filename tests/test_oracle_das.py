"""DAS beside pyvene: from one first rotation, in one order, the same loss curve and the same answers.

pyvene runs in its own environment (`benchmarks/oracle.py`), on the same tiny Llama, both as documented (source and base
prompt each step) and with the sources' activations passed in. Its `LowRankRotatedSpaceIntervention` keeps the rotation
orthonormal by torch's parametrisation, so ours is asked for `kind="householder"`; torch completes the rotation at
random to a square one and the path depends on that, so both complete it from the same seed. Then both optimise the same
parameters by Adam at the same rate; nothing else is matched. In single precision the curves part slowly, because Adam
makes steps of full length of the rounding noise in directions that the loss does not depend on; hence the small rate.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is not installed with the package

from benchmarks.environments import BENCH, requirements_of
from benchmarks.oracle import answers, ask, tiny_work
from benchmarks.peers import plain_das
from benchmarks.peers.microtome_das import fitters

from close import FLOAT32, OTHER, largest

pytestmark = pytest.mark.slow  # another environment imports its tool and fits six rotations
ROOT = Path(__file__).parents[1]
PEER, EPOCHS, HELD_OUT = "pyvene", 3, 256
CASES = {  # position, precision, learning rate
    "last": (-1, torch.float64, 5e-3),
    "middle": (8, torch.float64, 5e-3),
    "single": (-1, torch.float32, 1e-3),
}


def environment():
    """The peer's interpreter, or a skip that says how to make it."""
    home = BENCH / "environments" / PEER
    stamp = home / "installed.txt"
    if not stamp.exists() or stamp.read_text() != requirements_of(PEER).read_text():
        pytest.skip(f"no environment for {PEER} in {home}; make it with: python -m benchmarks.environments {PEER}")
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """case -> (ours, theirs by way, test task), with ours as (losses, axes, said)."""
    python, folder = environment(), tmp_path_factory.mktemp("das")
    found = {}
    for case, (position, dtype, lr) in CASES.items():
        work = tiny_work(folder, dtype)
        ours = next(f for f in fitters(work) if f.variant)  # torch's parametrisation
        task = replace(plain_das.make_task(work, epochs=EPOCHS, position=position, few=True), lr=lr)
        test = plain_das.make_task(work, HELD_OUT, position=position, seed=4, few=True)
        ask(folder / f"{case}.task", replace(task, order=ours.order(task)), test)
        (fit,) = ours.prepared_fit([task])
        found[case] = (fit, ours.said(test, ours.prepare([test])[0], fit.axes), test)
    done = subprocess.run([python, "-m", "benchmarks.oracle", PEER, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {case: (*mine, answers(folder / f"{case}.task")) for case, mine in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_curve_is_pyvenes(fitted, case):
    fit, _, _, theirs = fitted[case]
    assert len(theirs) == 2 and len(fit.losses) == 8 * EPOCHS
    for way in theirs.values():
        assert largest(fit.losses, way["losses"]) < OTHER
    assert fit.losses[-8:].mean() < fit.losses[:8].mean() - 20 * OTHER  # it went somewhere


@pytest.mark.parametrize("case", CASES)
def test_the_answers_after_the_fit_are_pyvenes(fitted, case):
    """The score of held-out pairs agrees, and so do the answers that are wrong."""
    _, said, test, theirs = fitted[case]
    for way in theirs.values():
        assert (said != way["said"]).sum() <= 1  # a near tie may fall either way
        scores = [(x == test.labels).double().mean() for x in (said, way["said"])]
        assert abs(scores[0] - scores[1]) <= 1 / HELD_OUT


def test_what_is_scored_is_found_by_the_fit(fitted, tmp_path):
    """The control: before the fit fewer answers are as wanted."""
    _, said, test, _ = fitted["last"]
    plain = plain_das.fitters(tiny_work(tmp_path, torch.float64))[0]
    before, after = ((x == test.labels).double().mean() for x in (plain.said(test, None, test.start), said))
    assert after > before + 0.1


def test_in_double_precision_the_subspace_is_pyvenes(fitted):
    fit, _, _, theirs = fitted["last"]
    for way in theirs.values():
        assert largest(fit.axes @ fit.axes.T, way["axes"] @ way["axes"].T) < FLOAT32


def test_another_order_or_another_path_gives_another_curve(fitted, tmp_path):
    """The controls: what is matched has to be matched."""
    _, _, _, theirs = fitted["last"]
    work = tiny_work(tmp_path, torch.float64)
    task = replace(plain_das.make_task(work, epochs=EPOCHS, few=True), lr=CASES["last"][2])
    cholesky = next(f for f in fitters(work) if not f.variant)
    (path,) = cholesky.prepared_fit([task])
    (order,) = plain_das.fitters(work)[0].fit([task], [None])  # the task's own order, not the one asked of pyvene
    for way in theirs.values():
        assert largest(path.losses, way["losses"]) > 10 * OTHER
        assert largest(order.losses, way["losses"]) > 10 * OTHER
