"""The command: what it prints for a real folder, how it fails, and that asking for help loads no torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import microtome
import tiny
from microtome.cli.main import app
from microtome.core.errors import ModelError

RUN = CliRunner()


def command(*arguments: str) -> subprocess.CompletedProcess:
    code = "from microtome.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


HEAVY = ("torch", "transformers", "numpy", "scipy", "pandas", "pyarrow", "duckdb", "altair", "jinja2")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["-V"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; from microtome.cli.main import app; from typer.testing import CliRunner;"
        f"out = CliRunner().invoke(app, {arguments}); assert out.exit_code == 0 and 'microtome' in out.output.lower();"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("before", [["-m", "microtome.cli.main"], [str(Path(sys.executable).parent / "microtome")]])
def test_the_version_is_said_however_the_command_is_started(before):
    for option in ("-V", "--version"):
        done = subprocess.run([sys.executable, *before, option], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"microtome {microtome.__version__}\n", "")


def test_inspect_prints_the_anatomy(tmp_path):
    tiny.build("mixtral", dtype=torch.float32).save_pretrained(tmp_path)
    out = RUN.invoke(app, ["inspect", str(tmp_path)])
    assert out.exit_code == 0, out.output
    assert "blocks.[0-2].attn.heads" in out.output and "3 blocks, d_model 32" in out.output
    assert "not found: mlp.neurons" in out.output and "mixture of experts" in out.output


def test_inspect_can_list_every_block():
    out = RUN.invoke(app, ["inspect", "zoo:hand", "--all"])
    assert "blocks.1.mlp.neurons" in out.output and "blocks.[0-1]" not in out.output


def test_models_lists_the_zoo():
    assert "zoo:hand" in RUN.invoke(app, ["models"]).output
    assert "zoo:hand" in RUN.invoke(app, ["zoo", "list"]).output


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("atals", "No recipe for 'atals': found no build_atals in microtome.training.atals"),
        ("zoo:atals", "Did you mean 'atlas'?"),
        ("hand", "models made in code need none"),
        ("loop", "No recipe for 'loop'"),
        ("../atlas", "No recipe for '../atlas'"),
    ],
)
def test_a_model_without_a_recipe_is_refused_and_nothing_written(tmp_path, name, text):
    found = RUN.invoke(app, ["zoo", "build", name, "--out", str(tmp_path / "made")])
    assert isinstance(found.exception, ModelError) and text in str(found.exception) and found.output == ""
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("model", "text"),
    [("./nowhere", "No model folder './nowhere'"), ("zoo:hnad", "Did you mean 'hand'?")],
)
def test_errors_are_one_line_and_exit_two(model, text):
    done = command("inspect", model)
    assert done.returncode == 2 and text in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
