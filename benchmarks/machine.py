"""The machine a measurement was made on, and whether it was quiet.

Two things are looked at: the load average before anything of ours runs, and, while a worker runs, the CPU time that
went to other processes: what /proc/stat counts as busy less what our children used. The second sees a disturbance
that comes and goes between two looks at the first. Linux only; elsewhere the second is not known.
"""

import os
import platform
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["QUIET", "THREADS", "Watch", "device_name", "is_quiet", "load"]

QUIET = 0.25  # CPUs that other processes may use
THREADS = 2  # of every tool
TICK = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def is_quiet(cpus: float | None) -> bool:
    """Return whether other processes used little enough CPU to leave a measurement alone."""
    return cpus is None or cpus <= QUIET


@dataclass(frozen=True)
class Watch:
    """Watches, from its making on, what other processes use."""

    start: float = field(default_factory=time.monotonic)
    busy: float | None = field(default_factory=lambda: _busy())
    own: float = field(default_factory=lambda: _own())

    def others(self) -> float | None:
        """Return the CPUs used by other processes since the start (children of ours must have ended by now)."""
        now = _busy()
        if now is None or self.busy is None:
            return None
        used = now - self.busy - (_own() - self.own)
        return max(0.0, used / max(time.monotonic() - self.start, 1e-3))


def _busy() -> float | None:
    """Return the CPU seconds of the machine that were neither idle nor waiting for a disk, since it was started."""
    if not STAT.exists():
        return None
    user, nice, system, _, _, irq, soft, steal = map(int, STAT.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICK


def _own() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(p.ru_utime + p.ru_stime for p in parts)


def device_name(device: str) -> str:
    """Return the device in words, e.g. "cpu (Intel(R) Xeon(R) ..., 2 threads)"."""
    if device == "cuda":
        import torch

        return f"cuda ({torch.cuda.get_device_name()})"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({models[0] if models else platform.processor()}, {THREADS} threads)"
