"""Threads for a fit whose products are small: one thread, where waking others costs more than they do.

Measured on two cores, a step of five seeds of width 64 (10 million multiplications in a product): 5.6 ms on one thread,
7.7 on two that sleep between products as the command has them (OMP_WAIT_POLICY=passive), 4.2 on two that spin - and
195 where another process spins beside them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["threads_for"]

WORTH = 5e7  # multiplications of one product that take about half a millisecond on one core


@contextmanager
def threads_for(multiplications: float) -> Iterator[None]:
    """Let torch use one thread inside, where the largest product has few multiplications; leave it alone elsewhere.

    Args:
        multiplications: of the largest product.
    """
    before = torch.get_num_threads()
    if multiplications >= WORTH or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
