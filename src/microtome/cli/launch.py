"""Launch: memory and thread settings that must stand before the process starts, given by starting it once more.

glibc reads its malloc settings at start-up. Told to keep freed memory instead of handing it back, a forward pass on
CPU is about a quarter faster (no page faults on every large activation). OpenMP threads that wait spin for some
microseconds, which spans the gap between two small operations, and then sleep: spinning for longer, as is the default,
doubles CPU time and takes many times as long where other processes compute; sleeping at once makes the multilingual
quick run a tenth slower on two quiet cores. A setting that the user has made stands. Commands that run no model are not
started twice, and a process that was not started as `microtome` (pytest, a notebook, a script that calls `main`) never
is.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath

__all__ = ["GUARD", "SETTINGS", "launch_settings", "relaunch"]

GUARD = "MICROTOME_LAUNCHED"
MODULE = "microtome.cli.main"
RUNS_A_MODEL = (("run",), ("inspect",), ("zoo", "build"))
KEEP_MEMORY = str(8 << 30)
SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": KEEP_MEMORY,
    "MALLOC_MMAP_THRESHOLD_": KEEP_MEMORY,
    "MALLOC_TOP_PAD_": str(256 << 20),
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "1000",
}


def launch_settings(
    started_as: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str] | None:
    """Return the environment to start again with, or None where that is not called for.

    Args:
        started_as: the words the process was started with, the interpreter's included (`sys.orig_argv`).
        arguments: the command line after the program's name (`sys.argv[1:]`).
        environment: the environment now.
    """
    words = tuple(a for a in arguments if not a.startswith("-"))
    if GUARD in environment or not any(words[: len(c)] == c for c in RUNS_A_MODEL) or "--help" in arguments:
        return None
    if not _is_ours(started_as, arguments):
        return None
    return {**SETTINGS, **environment, GUARD: "1"}


def _is_ours(started_as: Sequence[str], arguments: Sequence[str]) -> bool:
    """Whether the process is this command with these arguments and nothing else, so that starting anew repeats it."""
    split = len(started_as) - len(arguments)
    before = list(started_as[1:split])
    if list(started_as[split:]) != list(arguments) or not before:
        return False
    return before[-2:] == ["-m", MODULE] or before[-1] == f"-m{MODULE}" or PurePath(before[-1]).stem == "microtome"


def relaunch() -> None:
    """Start this very command again with the settings, once; return where that is not called for."""
    environment = launch_settings(sys.orig_argv, sys.argv[1:], os.environ)
    if environment is None or not sys.executable or sys.platform == "win32":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
