"""Starting once more: only as `microtome`, only for commands that run a model, once, and never over the user's word."""

import subprocess
import sys

import pytest

from microtome.cli.launch import GUARD, SETTINGS, launch_settings

SCRIPT = ["/usr/bin/python3", "/venv/bin/microtome"]
MODULE = ["python", "-X", "dev", "-m", "microtome.cli.main"]
PACKAGE = ["python", "-m", "microtome"]


@pytest.mark.parametrize(
    "before", [SCRIPT, MODULE, PACKAGE, ["python", "-mmicrotome.cli.main"], ["python.exe", "microtome.exe"]]
)
@pytest.mark.parametrize("arguments", [["run", "toy"], ["inspect", "gpt2", "--all"], ["zoo", "build", "atlas"]])
def test_a_command_that_runs_a_model_is_started_again_with_the_settings(before, arguments):
    assert launch_settings([*before, *arguments], arguments, {"HOME": "/h"}) == {**SETTINGS, "HOME": "/h", GUARD: "1"}


@pytest.mark.parametrize("arguments", [[], ["report", "run"], ["records"], ["zoo", "list"], ["run", "--help"], ["-V"]])
def test_a_command_that_runs_none_is_not(arguments):
    assert launch_settings([*SCRIPT, *arguments], arguments, {}) is None


def test_it_is_started_again_once():
    environment = launch_settings([*SCRIPT, "run", "toy"], ["run", "toy"], {})
    assert launch_settings([*SCRIPT, "run", "toy"], ["run", "toy"], environment) is None


def test_what_the_user_has_set_stands():
    found = launch_settings([*SCRIPT, "run", "toy"], ["run", "toy"], {"OMP_WAIT_POLICY": "active"})
    assert (
        found["OMP_WAIT_POLICY"] == "active" and found["MALLOC_TRIM_THRESHOLD_"] == SETTINGS["MALLOC_TRIM_THRESHOLD_"]
    )


@pytest.mark.parametrize(
    "started",
    [
        ["python", "-m", "pytest", "tests/test_cli_run.py"],  # a test that sets sys.argv
        ["python", "-m", "pytest", "run", "toy"],
        ["python", "-c", "from microtome.cli.main import main; main()", "run", "toy"],
        ["python", "script.py", "run", "toy"],
        ["python", "-m", "ipykernel_launcher", "-f", "x.json"],
        ["python"],
        [],
    ],
)
def test_a_process_that_is_not_this_command_is_never_started_again(started):
    assert launch_settings(started, ["run", "toy"], {}) is None


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "microtome", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("microtome ")
