"""Threads for fits whose products are small: each takes some of the seeds, for an epoch.

A product of a small network is over before a second thread has woken up to help with it. Seeds do not meet, so threads
share them out instead. Measured on two cores, a step of five seeds of width 64: 6.1 ms with two threads in each product
that sleep in between (OMP_WAIT_POLICY=passive), 4.5 with one, 3.4 with a share each. Threads that spin in between take
as little, and many times that where other processes compute.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

__all__ = ["shared_out"]

WORTH = 5e7  # multiplications of one product that take about half a millisecond on one core
T = TypeVar("T")
Map = Callable[[Callable[[slice], T], int], Sequence[T]]


@contextmanager
def shared_out(multiplications: float) -> Iterator[Map]:
    """Yield what calls a function for every thread's share of some seeds and returns its results.

    Args:
        multiplications: of one seed's largest product; of large ones all seeds are one share, with torch's own threads.
    """
    threads = torch.get_num_threads()
    if multiplications >= WORTH or threads == 1:
        yield lambda work, seeds: [work(slice(0, seeds))]
        return
    with ThreadPoolExecutor(threads, "seeds", torch.set_num_threads, (1,)) as pool:  # the setting is a thread's own

        def each(work: Callable[[slice], T], seeds: int) -> list[T]:
            edges = [seeds * k // threads for k in range(threads + 1)]
            shares = [slice(a, b) for a, b in pairwise(edges) if a < b]
            return list(pool.map(work, shares))

        yield each
