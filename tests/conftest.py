"""Shared set-up: quiet libraries, small models built once."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
from hypothesis import settings

import tiny
from microtome.models import Model

settings.register_profile(
    "gate", derandomize=True, database=None, deadline=None
)  # the gate asks the same of every commit
settings.load_profile("gate")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so does a shell's `&`, and programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model():
    """Return a maker of loaded tiny models, each family built once."""
    made = {}

    def make(family: str) -> Model:
        if family not in made:
            made[family] = Model.load(tiny.build(family))
        return made[family]

    return make
