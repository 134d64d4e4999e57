"""Shared set-up: quiet libraries, small models built once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest

import tiny
from microtome.models import Model


@pytest.fixture(scope="session")
def tiny_model():
    """Return a maker of loaded tiny models, each family built once."""
    made = {}

    def make(family: str) -> Model:
        if family not in made:
            made[family] = Model.load(tiny.build(family))
        return made[family]

    return make
