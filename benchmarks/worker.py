"""One process, one tool, one benchmark: check, time, write the measurements as JSON.

Started by run.py inside the tool's own environment with the malloc and OpenMP settings already in place (glibc and
OpenMP read them when a process starts).
"""

import argparse
import importlib
import importlib.metadata
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import benches
from benchmarks.goals import BENCHES
from benchmarks.workload import FULL, TINY, make_work

__all__ = ["main"]


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", help="a module of peers/")
    parser.add_argument("bench", help="a function of benches.py")
    parser.add_argument("out", type=Path, help="where to write the measurements")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    adapter = importlib.import_module(f"benchmarks.peers.{args.tool}{BENCHES[args.bench].adapter}")
    with tempfile.TemporaryDirectory() as scratch:
        work = make_work(args.device, Path(scratch), TINY if args.tiny else FULL)
        measured = getattr(benches, args.bench)(adapter, work, args.rounds)
    versioned = f"{args.tool} {importlib.metadata.version(args.tool)}"
    rows = [asdict(replace(m, name=m.name.replace(args.tool, versioned, 1))) for m in measured]
    args.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
