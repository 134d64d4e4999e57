"""A study of another package, as files: two stages, a claim, a view; found through an entry point like any plugin.

In the second stage the pipeline says "waiting" on stdout and waits for a signal when TOY_WAITS is set, so that a test
can interrupt it at a known place without a clock.
"""

from pathlib import Path

CONFIG = """
from dataclasses import dataclass, field
from pathlib import Path

from microtome.core.study import Study


@dataclass(frozen=True)
class Testing:
    draws: int = 10


@dataclass(frozen=True)
class ToyConfig:
    model: str = "zoo:none"
    seed: int = 0
    items: int = 4
    data: Path | None = None
    entity: str = "city"
    layers: tuple[int, ...] = (0, 1)
    strict: bool = False
    testing: Testing = field(default_factory=Testing)


STUDY = Study("toy", "Does a toy count?", "arXiv 0000.00000", "How many?", ToyConfig,
              {"quick": ToyConfig(), "full": ToyConfig(items=40)}, "toy_package.pipeline:run")
"""

PIPELINE = """
import os
import signal
import sys
from pathlib import Path

from microtome.core.errors import DataError
from microtome.records import Claim, StageOutput, Verdict


def run(config, record, progress):
    print("torch" in sys.modules, os.environ.get("OMP_WAIT_POLICY"), flush=True)
    if config.strict:
        raise DataError("Toy data was asked for, found none; give --data.")
    first = record.stage("count", lambda: count(config))
    progress(1, 2, "counted")
    record.stage("wait", wait, inputs={"of": first})
    total = sum(r["value"] for r in first.rows("counts"))
    record.judge(Claim("total", "It counts.", "arXiv 0000.00000", "section 1", 6),
                 Verdict("reproduced", "It counts.", total, config.items, (total - 1, total + 1), {"nothing": 0}))
    record.views([{"kind": "bars", "title": "It counts", "table": "counts", "n": config.items, "control": "none: toy",
                   "encodings": {"x": "item", "y": "value"}}])
    progress(2, 2, "done")


def count(config):
    if log := os.environ.get("TOY_LOG"):
        with Path(log).open("a") as stream:
            stream.write("counted\\n")
    return StageOutput(tables={"counts": [{"item": f"{config.entity} {i}", "value": i} for i in range(config.items)]})


def wait():
    if os.environ.get("TOY_WAITS"):
        print("waiting", flush=True)
        signal.pause()
    return StageOutput(values={"waited": True})
"""


def write(folder: Path) -> None:
    """Write the package and the distribution whose entry point offers it."""
    package, info = folder / "toy_package", folder / "toy_package-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(CONFIG)
    (package / "pipeline.py").write_text(PIPELINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[microtome.studies]\ntoy = toy_package:STUDY\n")
