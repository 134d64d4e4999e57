"""A study is data: its presets become configurations, its pipeline is found by address and imported only to be run."""

import sys
from dataclasses import dataclass

import pytest

from microtome.core.errors import ConfigError
from microtome.core.study import Study


@dataclass(frozen=True)
class Config:
    seed: int = 0
    model: str = "zoo:atlas"


@dataclass(frozen=True)
class Other:
    seed: int = 0


def study(pipeline="toy_pipeline:run", **changes) -> Study:
    told = {"name": "toy", "title": "Toy", "paper": "none", "question": "none?", "config": Config}
    presets = {"quick": Config(seed=1), "full": {"model": "gpt2"}, "wrong": {"modle": "gpt2"}, "other": Other()}
    return Study(**told | {"presets": presets, "pipeline": pipeline} | changes)


@pytest.fixture
def pipelines(tmp_path, monkeypatch):
    """Three real modules on the path: one that runs, one that imports what is not there, one that raises."""
    (tmp_path / "toy_pipeline.py").write_text(
        "told = 3\n"
        "def run(config, record, progress):\n"
        "    record.append((config.seed, config.model))\n"
        "    if progress:\n"
        "        progress('done')\n"
    )
    (tmp_path / "toy_lacking.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "toy_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("toy_pipeline", "toy_lacking", "toy_broken"):
        sys.modules.pop(name, None)


def test_a_preset_is_an_instance_or_what_it_sets_apart():
    assert study().preset("quick") == Config(seed=1)
    assert study().preset("full") == Config(seed=0, model="gpt2")


def test_a_preset_that_is_not_there_or_does_not_fit_is_refused():
    with pytest.raises(ConfigError) as caught:
        study().preset("quik")
    assert str(caught.value) == (
        "No preset 'quik' in study 'toy'; it has quick, full, wrong, other. Did you mean 'quick'?"
    )
    with pytest.raises(ConfigError, match=r"No key 'modle' in Config; it has seed, model. Did you mean 'model'\?"):
        study().preset("wrong")
    with pytest.raises(ConfigError, match="it takes a table with keys seed, model"):
        study().preset("other")


def test_declaring_a_study_imports_no_pipeline_and_running_it_does(pipelines):
    toy = study()
    toy.preset("quick")
    assert "toy_pipeline" not in sys.modules
    record, heard = [], []
    toy.run(toy.preset("quick"), record, heard.append)
    toy.run(toy.preset("full"), record)
    assert record == [(1, "zoo:atlas"), (0, "gpt2")]
    assert heard == ["done"]


def test_a_configuration_of_another_class_is_refused_before_anything_runs(pipelines):
    for wrong in (Other(), {"seed": 0}, Config):
        with pytest.raises(ConfigError, match=r"Study 'toy' wants a Config, found \w+\. Take one from study\.preset"):
            study().run(wrong, [])
    assert "toy_pipeline" not in sys.modules


@pytest.mark.parametrize(
    "address",
    ["toy_pipeline", "toy_pipeline:", ":run", "", "toy_pipeline:walk", "toy_pipeline:told", "toy_pipeline.deep:run",
     "absent:run", "absent.deep:run"],
)  # fmt: skip
def test_an_address_that_names_no_function_is_refused(pipelines, address):
    with pytest.raises(ConfigError) as caught:
        study(address).run(Config(), [])
    assert str(caught.value) == (
        f"Study 'toy' has no pipeline at '{address}': found no function there. Write it as 'package.module:function'."
    )


def test_what_goes_wrong_inside_the_pipeline_is_not_taken_for_a_wrong_address(pipelines):
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        study("toy_lacking:run").run(Config(), [])
    with pytest.raises(ZeroDivisionError):
        study("toy_broken:run").run(Config(), [])
