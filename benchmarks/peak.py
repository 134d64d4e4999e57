"""Peak memory of a call: how far it lifts the process above where it stood.

On a CPU the resident set is counted: freed heap is handed back first (the settings of run.py keep it), the kernel's
high-water mark is reset through /proc/self/clear_refs, and read afterwards. Linux only.
"""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["peak"]

PROCESS = Path("/proc/self")


def peak(run: Callable[[], object], device: str) -> int:
    """Return the bytes by which memory rose at most while `run` ran; what it returns is dropped."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(x for x in (PROCESS / "status").read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1]) * 1024
