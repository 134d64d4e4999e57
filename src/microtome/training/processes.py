"""The processes of a torchrun: which one this is, and how it ends.

A process that is done ends at once: threads of gloo that still stand when Python takes itself apart have aborted
processes whose work was finished and on disk ("terminate called without an active exception", torch 2.13, rarely).
"""

import logging
import os
import sys

import torch

__all__ = ["leave", "rank", "world"]


def rank() -> int:
    """Return the number of this process among those of a torchrun; 0 where there is one."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Return how many processes a torchrun has; 1 where there is none."""
    return int(os.environ.get("WORLD_SIZE", 1))


def leave() -> None:
    """End this process successfully, if it is one of a group; where there is no group, return."""
    if not torch.distributed.is_initialized():
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
