"""A config, its TOML and its --set say the same thing; what does not fit is refused by name; seeds are independent."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.config import differences, from_dict, from_toml, to_dict, to_toml, with_settings
from microtome.core.errors import ConfigError
from microtome.core.seeds import derive, generator


@dataclass(frozen=True)
class Sweep:
    layers: tuple[int, ...] = (0, 1)
    box: tuple[int, str] = (1, "a")
    method: Literal["zero", "mean", 3] = "zero"
    rate: float = 0.5


@dataclass(frozen=True)
class Config:
    seed: int = 0
    strict: bool = False
    title: str = "plain"
    data: Path = Path("data")
    note: str | None = "given"
    limit: int | None = 7
    either: int | float = 1
    tags: tuple[str | None, ...] = ()
    sweep: Sweep = field(default_factory=Sweep)
    spare: Sweep | None = None


@dataclass(frozen=True)
class Bare:
    model: str
    depth: int = 2


text = st.text(max_size=8) | st.sampled_from(["none", "\\none", "\\\\none", "3", "true", "a,b", "x = 1\ny = 2"])
ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
sweeps = st.builds(
    Sweep,
    layers=st.lists(ints, max_size=3).map(tuple),
    box=st.tuples(ints, text),
    method=st.sampled_from(["zero", "mean", 3]),
    rate=floats,
)
configs = st.builds(
    Config,
    seed=ints,
    strict=st.booleans(),
    title=text,
    data=st.text("ab/. é", min_size=1, max_size=6).map(Path),
    note=st.none() | text,
    limit=st.none() | ints,
    either=ints | floats,
    tags=st.lists(st.none() | text, max_size=3).map(tuple),
    sweep=sweeps,
    spare=st.none() | sweeps,
)


@given(configs)
def test_toml_and_plain_data_give_the_config_back(config):
    assert from_toml(Config, to_toml(config)) == config
    assert from_dict(Config, to_dict(config)) == config
    assert type(from_toml(Config, to_toml(config)).either) is type(config.either)
    assert differences(config, config) == {}


@given(configs, configs)
def test_differences_are_exactly_what_turns_one_config_into_the_other(config, other):
    if config.spare is not None and other.spare is None:
        other = replace(other, spare=Sweep())
    plain = to_dict(other)
    for key, value in differences(config, other).items():
        *path, last = key.split(".")
        node = plain
        for name in path:
            node = node[name]
        node[last] = value
    assert from_dict(Config, plain) == config


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\"'"), min_size=1))
def test_a_text_field_takes_any_bare_word(word):
    assert with_settings(Config(), [f"title={word}"]).title == word


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("strict=true", "strict", True),
        ("title=3", "title", "3"),
        ("title=1_000", "title", "1_000"),
        ("title='two words'", "title", "two words"),
        ("title=a=b", "title", "a=b"),
        ("data=../shared/data", "data", "../shared/data"),
        ("note=none", "note", None),
        ("note=\\none", "note", "none"),
        ("limit=none", "limit", None),
        ("either=1.0", "either", 1.0),
        ("sweep.layers=2,3", "sweep.layers", [2, 3]),
        ("sweep.layers=[2]", "sweep.layers", [2]),
        ("sweep.layers=5", "sweep.layers", [5]),
        ("tags=a,b", "tags", ["a", "b"]),
        ("sweep.method=3", "sweep.method", 3),
        ("sweep.method=mean", "sweep.method", "mean"),
        ("sweep.rate=1", "sweep.rate", 1.0),
        ("spare.rate=2", "spare.rate", 2.0),
        ("sweep={rate=9}", "sweep.rate", 9.0),
    ],
)
def test_set_reads_a_value_by_the_type_of_its_key(setting, key, value):
    changed = with_settings(Config(), [setting])
    assert differences(changed, Config())[key] == value or (key == "either" and changed.either == value)


def test_later_settings_win_and_a_file_reads_as_its_text(tmp_path):
    config = with_settings(Config(), ["seed=1", "sweep.rate=2", "seed=5"])
    assert (config.seed, config.sweep.rate) == (5, 2.0)
    path = tmp_path / "c.toml"
    path.write_text(to_toml(config))
    assert from_toml(Config, path) == from_toml(Config, str(path)) == config
    assert from_toml(Bare, 'model = "gpt2"') == Bare("gpt2")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sweeps.rate=1", "No key 'sweeps' in Config; it has seed, strict, title, data, note, limit, either, tags, "
                          "sweep, spare. Did you mean 'sweep'?"),
        ("sweep.layer=1", "No key 'sweep.layer' in Sweep; it has layers, box, method, rate. "
                          "Did you mean 'sweep.layers'?"),
        ("seed=x", "Key 'seed' was given 'x' (str); it takes a whole number."),
        ("seed=1.5", "Key 'seed' was given 1.5 (float); it takes a whole number."),
        ("seed=true", "Key 'seed' was given True (bool); it takes a whole number."),
        ("strict=1", "Key 'strict' was given 1 (int); it takes true or false."),
        ("sweep.rate=nan", "Key 'sweep.rate' was given nan (float); it takes a finite number."),
        ("sweep.method=zeros", "Key 'sweep.method' was given 'zeros' (str); it takes one of 'zero', 'mean', 3. "
                               "Did you mean 'zero'?"),
        ("sweep.layers=1,x", "Key 'sweep.layers[1]' was given 'x' (str); it takes a whole number."),
        ("sweep.box=1,a,b", "it takes a list of 2: a whole number, text."),
        ("limit=x", "Key 'limit' was given 'x' (str); it takes a whole number."),
        ("seed", "Setting 'seed' has no key and value; write it as key=value, e.g. seed=3."),
        ("seed.x=1", "Setting 'seed.x=1': 'seed' holds 0, not further keys; set 'seed'."),
        ("sweep=1", "Key 'sweep' was given 1 (int); it takes a table with keys layers, box, method, rate."),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_refused_by_name(setting, message):
    with pytest.raises(ConfigError) as caught:
        with_settings(Config(), [setting])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_toml_that_does_not_fit_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"The config file '.*absent.toml' was asked for, found no such file; give"):
        from_toml(Config, tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"The config text is not TOML: .*; mend it or write one with to_toml"):
        from_toml(Config, "seed = = 3")
    with pytest.raises(ConfigError, match=r"No key 'sed' in Config; .* Did you mean 'seed'\?"):
        from_toml(Config, "sed = 3")
    with pytest.raises(ConfigError, match="Bare needs the key 'model', found none; give it a value"):
        from_toml(Bare, "depth = 3")
    with pytest.raises(ConfigError, match=r"Key 'sweep.layers\[1\]' was given 'x' \(str\); it takes a whole number"):
        from_dict(Config, {"sweep": {"layers": [1, "x"]}})


@given(st.integers(0, 2**64), st.lists(st.text(max_size=4) | ints, max_size=3))
def test_a_seed_depends_on_its_names_alone_and_fits_numpy_and_torch(seed, names):
    assert derive(seed, *names) == derive(seed, *names)
    assert 0 <= derive(seed, *names) < 2**63
    assert derive(seed, *names) != derive(seed, *names, 0)
    assert derive(seed, *names) != derive(seed + 1, *names)


def test_seeds_are_the_same_in_every_process_and_names_do_not_run_together():
    assert derive(0, "stage", 3) == derive(np.int64(0), "stage", np.int64(3))
    assert len({derive(0, "a", 1), derive(0, "a", "1"), derive(0, "a1"), derive(0, "a", "", "1")}) == 4
    draws = np.array([generator(0, "null", i).standard_normal(200) for i in range(200)])
    # 200 independent streams: off-diagonal correlations have variance 1/200 and 19,900 pairs, so |r| < 5/sqrt(200)
    r = np.corrcoef(draws)[np.triu_indices(200, 1)]
    assert np.abs(r).max() < 5 / np.sqrt(200)
    assert abs(r.mean()) < 5 / np.sqrt(200 * r.size)
