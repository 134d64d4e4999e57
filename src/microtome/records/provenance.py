"""Provenance: by what code, on what, with which packages a run was made. Collected without importing any of them."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["PACKAGES", "git_state", "provenance"]

PACKAGES = (
    "microtome",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "duckdb",
    "pydantic",
)


def provenance(device: str | None = None) -> dict[str, object]:
    """Return where a run's numbers come from.

    Args:
        device: the device the model runs on, in words, e.g. ``cpu`` or ``cuda:0 (NVIDIA H200)``.

    Returns:
        git (commit, dirty), packages, python, platform, device and argv, as plain JSON.
    """
    return {
        "git": git_state(Path(__file__).parents[1]),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "argv": [a.encode("utf-8", "replace").decode() for a in sys.argv],
    }


def git_state(folder: Path) -> dict[str, object]:
    """Return the commit of the checkout that a package's folder belongs to, and whether it has uncommitted changes.

    Args:
        folder: the package's folder. A repository that merely surrounds an installed package does not count: the
            package's ``__init__.py`` must be tracked by it.
    """
    try:
        if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
            return {"commit": None, "dirty": None, "reason": "the package is not a git checkout"}
    except OSError as error:
        return {"commit": None, "dirty": None, "reason": f"git cannot be run ({type(error).__name__})"}
    return {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": bool(_git(folder, "status", "--porcelain", "."))}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it refuses."""
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
