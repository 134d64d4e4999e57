"""One virtual environment for each peer, because they do not install together: `python -m benchmarks.environments`.

torch comes first and alone, so that no peer's resolver can move it; then the peer's pinned requirements file. A stamp
with the text of that file marks a finished environment: change a pin and it is built anew. Our own package is not
installed there: a peer's process runs the peer and the plain reference, nothing else (of our source it reads the
phrasebook, which is data).
"""

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["BENCH", "OURS", "PEERS", "python_of", "requirements_of"]

HERE = Path(__file__).parent
BENCH = HERE.parent / ".bench"
TORCH = "torch==2.13.0"
OURS = "microtome"
PEERS = tuple(sorted(p.stem for p in (HERE / "requirements").glob("*.txt")))


def requirements_of(peer: str) -> Path:
    """Return the file with a peer's pins."""
    return HERE / "requirements" / f"{peer}.txt"


def python_of(tool: str) -> Path:
    """Return the interpreter a tool runs in, building a peer's environment on first use.

    Args:
        tool: a name in PEERS, or OURS for the interpreter that runs this script.

    Raises:
        subprocess.CalledProcessError: pip could not install the peer; its output is on the terminal.
    """
    if tool == OURS:
        return Path(sys.executable)
    wanted, home = requirements_of(tool), BENCH / "environments" / tool
    stamp, python = home / "installed.txt", home / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    print(f"building the environment of {tool} in {home}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, "--requirement", wanted], check=True)
    stamp.write_text(wanted.read_text())
    return python


if __name__ == "__main__":
    for name in sys.argv[1:] or PEERS:
        print(python_of(name))
