"""Timing: candidates alternate in one process, so that drift of the machine meets all of them alike.

Each round runs every candidate once, in an order that rotates from round to round. Before the clock starts, garbage is
collected and what earlier candidates wrote is put on the disk, so that none pays for another.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["Times", "alternate"]

Times = dict[str, list[float]]


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, device: str) -> Times:
    """Return the wall seconds of each run in each round, after one round to warm up.

    Args:
        runs: name -> a call without arguments.
        rounds: how often each is timed.
        device: with "cuda" the clock waits for the device.
    """
    names = list(runs)
    times: Times = {name: [] for name in names}
    for k in range(-1, rounds):
        turn = k % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = _once(runs[name], device)
            if k >= 0:
                times[name].append(seconds)
    return times


def _once(run: Callable[[], object], device: str) -> float:
    gc.collect()
    os.sync()
    _wait(device)
    start = time.perf_counter()
    result = run()
    _wait(device)
    seconds = time.perf_counter() - start
    del result
    return seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
