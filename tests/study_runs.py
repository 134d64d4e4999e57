"""A study run as its users run it: by the command, in a process of its own, which can be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["StudyRun", "stages"]


@dataclass(frozen=True)
class StudyRun:
    """`microtome run STUDY` with settings that keep it small."""

    study: str
    settings: Sequence[str]

    def words(self, folder: Path, *further: str) -> list[str]:
        settings = [word for s in self.settings for word in ("--set", s)]
        return [sys.executable, "-m", "microtome", "run", self.study, "--out", str(folder), *settings, *further]

    def ran(self, folder: Path, *further: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.words(folder, *further), capture_output=True, text=True)

    def made(self, folder: Path, *further: str) -> Path:
        """Run to the end; return the record's folder."""
        done = self.ran(folder, *further)
        assert done.returncode == 0, done.stderr
        return folder

    def killed(self, folder: Path, stage: str, *further: str) -> list[str]:
        """Run until a stage stands in the record, kill -9; return the stages that stand."""
        running = subprocess.Popen(self.words(folder, *further), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while stage not in stages(folder):
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        return stages(folder)


def stages(folder: Path) -> list[str]:
    """Return the names of a record's stages, none where there is no record yet."""
    try:
        return [s["name"] for s in json.loads((folder / "record.json").read_text())["stages"]]
    except FileNotFoundError:
        return []
