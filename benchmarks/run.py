"""Measure our tool beside its peers: `python -m benchmarks.run [--only capture ...] [--peers nnsight ...] [--tiny]`.

Each (benchmark, tool) runs in a process of its own, in the tool's own environment, next to the plain reference, and is
kept in .bench/measured; a command that was cut short goes on where it stopped, and what was measured on the same code
is not measured again. The joined rows go to results.json and RESULTS.md is written from them. No row comes of a tool
whose numbers are not the reference's, nor of a machine that was busy with something else; the command then fails.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.environments import BENCH, OURS, PEERS, python_of, requirements_of
from benchmarks.goals import BENCHES
from benchmarks.machine import QUIET, THREADS, Watch, device_name, is_quiet, load
from benchmarks.measured import Measured, amount
from benchmarks.report import write_report
from benchmarks.rows import commit_now, date_now, join, store

__all__ = ["SETTINGS", "Refused", "main", "refuse_busy"]

HERE = Path(__file__).parent
ROOT = HERE.parent
KEEP_MEMORY = str(4 << 30)  # glibc gives freed memory back by default: a quarter of the bare forward goes into faults
SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": KEEP_MEMORY,
    "MALLOC_MMAP_THRESHOLD_": KEEP_MEMORY,
    "MALLOC_TOP_PAD_": str(256 << 20),
    "OMP_NUM_THREADS": str(THREADS),
    "OMP_WAIT_POLICY": "passive",  # spinning threads double CPU time on a shared machine
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "disabled",
    "TQDM_DISABLE": "1",
}
WORKER = ("worker", "workload", "benches", "grids", "clock", "candidates", "measured", "agreement", "peers/plain")
DAS = ("das", "das_benches", "das_agreement", "peak", "peers/plain_das")
TOXICITY = ("toxicity_benches", "peers/plain_toxicity", "peers/libraries")
MULTILINGUAL = ("multilingual_benches", "peers/plain_multilingual", "peers/plain_dedup", "peers/trainer")
MULTILINGUAL += ("peers/plain_importance", "peers/corpus_memory")
NUCLEAR = ("nuclear_benches", "peers/plain_nuclear")
ROOMS = ("core", "data", "models", "engine", "measures", "features", "edits", "training")


class Refused(Exception):
    """A measurement that was not made, or made and not believed."""


def main() -> int:
    """Measure what was asked for; return the number of (benchmark, tool) pairs without a result."""
    args = _arguments()
    pairs = [(b, t) for b in args.only for t in (OURS, *args.peers) if b in _offers(t)]
    for tool in dict.fromkeys(t for _, t in pairs):
        python_of(tool)
    refused = 0
    found: dict[str, dict[str, list[Measured]]] = {bench: {} for bench in args.only}
    for bench, tool in pairs:
        try:
            found[bench][tool] = _measured(bench, tool, args)
        except Refused as reason:
            refused += 1
            print(f"{bench} of {tool}: no row, {reason}", flush=True)
        if not args.tiny:
            store(join(found[bench], device_name(args.device), commit_now(), date_now()))
            write_report()
    return refused


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(BENCHES), choices=list(BENCHES), metavar="BENCH")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="PEER")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (7)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="check every tool's numbers on a tiny model; writes no row")
    parser.add_argument("--again", action="store_true", help="measure also what is already measured")
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, and say so in the rows")
    return parser.parse_args()


def _offers(tool: str) -> list[str]:
    """Return the benchmarks an adapter has a function for, without importing it (its packages live elsewhere)."""
    return [bench for bench, (_, _, kind, name) in BENCHES.items() if _defines(tool + kind, name or bench)]


def _defines(adapter: str, name: str) -> bool:
    file = HERE / "peers" / f"{adapter}.py"
    return file.exists() and f"\ndef {name}(" in file.read_text()


def _measured(bench: str, tool: str, args: argparse.Namespace) -> list[Measured]:
    """Return a tool's measurements of one benchmark: those kept of the same code, or new ones.

    Raises:
        Refused: the tool failed, or the machine was busy.
    """
    kept = BENCH / "measured" / f"{bench}.{tool}.{args.device}.json"
    code = _fingerprint(tool, args.rounds)
    if kept.exists() and not (args.again or args.tiny):
        old = json.loads(kept.read_text())
        if old["code"] == code:
            return [Measured(**m) for m in old["measured"]]
    quiet = "tiny" if args.tiny else _wait_for_quiet(args.busy)
    watch = Watch()
    measured = _work(bench, tool, args)
    others = watch.others()
    if not (args.tiny or args.busy):
        refuse_busy(others, "meanwhile")
    quiet += "" if others is None else f", {others:.2f} CPUs used by others"
    measured = [replace(m, note="; ".join(n for n in (m.note, quiet) if n)) for m in measured]
    for m in measured:
        numbers = f"{amount(m.seconds, m.measure):>10} {m.relative:7.3f}  {m.difference:.0e}"
        print(f"{bench:15} {m.metric:26} {m.name:48} {numbers}", flush=True)
    if not args.tiny:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"code": code, "measured": [asdict(m) for m in measured]}))
    return measured


def _fingerprint(tool: str, rounds: int) -> str:
    """Return a hash of what a measurement depends on: the worker's code, the tool's pins or our source, the rounds."""
    shared = (*WORKER, *DAS, *TOXICITY, *MULTILINGUAL, *NUCLEAR)
    files = [HERE / f"{name}.py" for name in shared] + sorted((HERE / "peers").glob(f"{tool}*.py"))
    files += (
        [requirements_of(tool)]
        if tool != OURS
        else sorted(f for room in ROOMS for f in (ROOT / "src" / "microtome" / room).rglob("*.py"))
    )
    text = b"".join(f.read_bytes() for f in files) + str(rounds).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def refuse_busy(others: float | None, when: str) -> None:
    """Raise where other processes used too much CPU for a number to be believed.

    Raises:
        Refused: they did.
    """
    if not is_quiet(others):
        raise Refused(
            f"other processes used {others:.2f} CPUs {when} (allowed {QUIET}); run the same command again when the "
            "machine is quiet, or with --busy"
        )


def _wait_for_quiet(busy: bool, looks: int = 5, seconds: float = 2.0) -> str:
    """Return the load average in words, once other processes leave the machine alone.

    Raises:
        Refused: they do not.
    """
    before = load()
    for _ in range(1 if busy else looks):
        watch = Watch()
        time.sleep(seconds)
        others = watch.others()
        if is_quiet(others):
            break
    if not busy:
        refuse_busy(others, f"with a load average of {before:.1f}")
    return f"load average {before:.1f} before"


def _work(bench: str, tool: str, args: argparse.Namespace) -> list[Measured]:
    """Run a worker.

    Raises:
        Refused: it failed; what it said is on the terminal.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [python_of(tool), "-m", "benchmarks.worker", tool, bench, out, "--device", args.device]
        command += ["--rounds", str(args.rounds), *(["--tiny"] if args.tiny else [])]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | SETTINGS)
        if done.returncode:
            raise Refused(f"the worker ended with exit status {done.returncode}")
        return [Measured(**m) for m in json.loads(out.read_text())]


if __name__ == "__main__":
    sys.exit(main())
