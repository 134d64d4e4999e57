"""The command: what it prints for a real folder, how it fails, and that asking for help loads no torch."""

import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import tiny
from microtome.cli.main import app

RUN = CliRunner()


def command(*arguments: str) -> subprocess.CompletedProcess:
    code = "from microtome.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_help_loads_no_torch():
    code = (
        "import sys; from microtome.cli.main import app; from typer.testing import CliRunner;"
        "out = CliRunner().invoke(app, ['--help']); assert 'inspect' in out.output; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_inspect_prints_the_anatomy(tmp_path):
    tiny.build("mixtral", dtype=torch.float32).save_pretrained(tmp_path)
    out = RUN.invoke(app, ["inspect", str(tmp_path)], terminal_width=200)
    assert out.exit_code == 0, out.output
    assert "blocks.[0-2].attn.heads" in out.output and "3 blocks, d_model 32" in out.output
    assert "not found: mlp.neurons" in out.output and "mixture of experts" in out.output


def test_inspect_can_list_every_block():
    out = RUN.invoke(app, ["inspect", "zoo:hand", "--all"])
    assert "blocks.1.mlp.neurons" in out.output and "blocks.[0-1]" not in out.output


def test_models_lists_the_zoo():
    assert "zoo:hand" in RUN.invoke(app, ["models"]).output


@pytest.mark.parametrize(
    ("model", "text"),
    [("./nowhere", "No model folder './nowhere'"), ("zoo:hnad", "Did you mean 'hand'?")],
)
def test_errors_are_one_line_and_exit_two(model, text):
    done = command("inspect", model)
    assert done.returncode == 2 and text in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
