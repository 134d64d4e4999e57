"""Write RESULTS.md from results.json: `python -m benchmarks.report`. No number is typed by hand."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from benchmarks.goals import BENCHES, GOALS, Goal
from benchmarks.measured import amount
from benchmarks.rows import RESULTS, Row, load

__all__ = ["write_report"]

PAGE = RESULTS.with_name("RESULTS.md")
OWN_WAYS = ("plain hooks", "bare forward", "the same")  # what is no peer
HEAD = """# Benchmarks

Written by `python -m benchmarks.report` from `results.json`; `make bench` measures again.

**What.** A Llama with 35.7 M parameters (hidden 512, 8 layers, 8 heads, intermediate 1536, vocabulary 8192, random
weights, seed 0, float32). What is not capture, patching or a rotation has sizes of its own, which its title tells.

**How.** Every tool runs in an environment of its own; the plain hooks, or the bare Hugging Face forward, run in the
same process, in turn with it, and every number below is a time (or a peak of memory) divided by theirs in the same
round: median over the rounds after one to warm up, smaller is better. Before anything is timed, results are compared
with the plain hooks' to 1e-5 of their scale (losses in bfloat16 to 0.01 nats, shares of planted near-duplicates to
three standard errors); a tool that disagrees gets no row, and no row is made while other processes use the machine.
glibc is told to keep freed memory (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`,
`MALLOC_TOP_PAD_`), OpenMP waits passively (`OMP_WAIT_POLICY=passive`) on 2 threads.

"""


def write_report(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the page."""
    rows = sorted(load(results), key=lambda r: (r.device, list(BENCHES).index(r.bench), r.metric, r.ratio))
    parts = [HEAD]
    for device, on_device in _grouped(rows, lambda r: r.device):
        groups = _grouped(on_device, lambda r: (r.bench, r.metric))
        parts += [f"**Machine.** {device}\n", _goals(groups)]
        for bench, metrics in _grouped(groups, lambda g: g[0][0]):
            parts.append(f"## {BENCHES[bench].title}\n\nUnit: {BENCHES[bench].unit}.\n")
            parts += [_table(metric, mine) for (_, metric), mine in metrics]
    page.write_text("\n".join(parts))


def _grouped(items: Iterable, key) -> list[tuple]:
    return [(k, list(group)) for k, group in groupby(items, key)]


def _goals(groups: list[tuple]) -> str:
    """Return the table of every metric beside its goal and its best peer."""
    lines = ["| work | ours | goal | | best other | ours is better by | goal | |", "|" + "---|" * 8]
    for (bench, metric), rows in groups:
        goal, newest = GOALS.get((bench, metric)), max(rows, key=lambda r: r.date)
        cells = [f"{bench.replace('_', ' ')}: {metric}", *_limit(goal, newest)]
        lines.append("| " + " | ".join([*cells, *_best_peer(goal, rows)]) + " |")
    return "\n".join(lines) + "\n"


def _limit(goal: Goal | None, row: Row) -> tuple[str, str, str]:
    """Return ours, what it should be at most, and whether it is."""
    ours = f"**{row.ours:.3f}**" + ("" if row.amount is None else f" ({amount(row.amount, row.measure)})")
    if goal is not None and goal.amount is not None:
        known = row.amount is not None and row.amount <= goal.amount
        return ours, f"<= {amount(goal.amount, row.measure)}", _met(known)
    if goal is not None and goal.limit is not None:
        return ours, f"<= {goal.limit}", _met(row.ours <= goal.limit)
    return ours, "", ""


def _best_peer(goal: Goal | None, rows: list[Row]) -> tuple[str, str, str, str]:
    rival = goal.rival if goal else ""
    peers = [r for r in rows if (r.other_name.startswith(rival) if rival else not r.other_name.startswith(OWN_WAYS))]
    if not peers:
        return "none offers it", "", "", ""
    best = min(peers, key=lambda r: r.ratio)
    shown = (f"{best.other_name}: {best.other:.3f}", f"{best.ratio:.2f}")
    if goal is None or goal.best_peer is None:
        return *shown, "", ""
    return *shown, f">= {goal.best_peer}", _met(best.ratio >= goal.best_peer)


def _met(yes: bool) -> str:
    return "met" if yes else "**missed**"


def _table(metric: str, rows: list[Row]) -> str:
    lines = [f"### {metric}\n", "| tool | its own | ours | ours is better by | commit | date |", "|" + "---|" * 6]
    lines += [
        f"| {r.other_name} | {r.other:.3f} | {r.ours:.3f} | {r.ratio:.2f} | {r.commit} | {r.date} |" for r in rows
    ]
    notes = [f"- {r.other_name}. {r.note}" for r in rows]
    return "\n".join([*lines, "", "<details><summary>seconds and notes</summary>\n", *notes, "\n</details>\n"])


if __name__ == "__main__":
    write_report()
