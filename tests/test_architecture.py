"""The house stands: imports go down the ranks without cycles, light rooms stay light, public names are documented."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import microtome

SRC = Path(microtome.__file__).parent
RANKS = {"core": 0, "records": 1, "data": 1, "models": 2, "engine": 3, "features": 4, "measures": 4, "edits": 5,
         "training": 5, "agents": 5, "studies": 6, "reports": 6, "cli": 7, "__main__": 8}  # fmt: skip
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(SRC)], "microtome."))
LIGHT = [r for r in ("core", "records", "data", "reports") if (SRC / r).is_dir()]


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("microtome"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("microtome")}
    return found


def room(module: str) -> str:
    return [*module.split("."), ""][1]


FILES = {p: f"microtome.{'.'.join(p.relative_to(SRC).with_suffix('').parts)}".removesuffix(".__init__")
         for p in SRC.rglob("*.py")}  # fmt: skip


@pytest.mark.parametrize("path", [p for p, m in FILES.items() if room(m)], ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_down_the_ranks(path):
    own = room(FILES[path])
    for target in imports_of(path):
        other = room(target)
        assert other == own or RANKS[other] < RANKS[own], f"{FILES[path]} imports {target}"


def test_no_import_cycles():
    graph = {m: imports_of(p) for p, m in FILES.items()}
    done, open_ = set(), []

    def visit(module):
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module in done:
            return
        open_.append(module)
        for target in graph.get(module, ()):
            visit(target)
        open_.pop()
        done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("light", ["microtome", *(f"microtome.{r}" for r in LIGHT)])
def test_light_rooms_load_no_torch(light):
    names = [light, *(m for m in MODULES if light != "microtome" and m.startswith(light + "."))]
    code = f"import importlib, sys; [importlib.import_module(n) for n in {names}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def public_names():
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute in getattr(module, "__all__", ()):
            yield module, attribute


def test_every_public_name_is_documented():
    missing = []
    for module, name in public_names():
        value = getattr(module, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
            missing.append(f"{module.__name__}.{name}")
    assert not missing
    assert all(importlib.import_module(m).__doc__ for m in MODULES)


def test_every_name_of_the_package_stands_in_the_docs():
    text = (SRC.parents[1] / "docs" / "architecture.md").read_text()
    assert [n for n in microtome.__all__ if not re.search(rf"\b{n}\b", text)] == []
    assert all(getattr(microtome, n) is not None for n in microtome.__all__)


def test_the_docs_import_what_the_package_exports_and_nothing_else():
    text = (SRC.parents[1] / "docs" / "architecture.md").read_text()
    lines = re.findall(r"^from microtome import ([^#\n]+)", text, re.M)
    assert sorted(name.strip() for line in lines for name in line.split(",")) == microtome.__all__


def test_the_readme_example_runs():
    text = (SRC.parents[1] / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of naive" in done.stdout and "tensor(" in done.stdout
