"""Plain values come back from disk exactly, NaN never gets in, and a key stands for content and nothing else."""

import enum
import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import RecordError
from microtome.core.units import Units
from microtome.records import Missing, Reason, Record, StageOutput, content_key
from microtome.records.values import apart, plain

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
nested = st.recursive(
    leaves | st.builds(Missing, st.text("why é", min_size=1).filter(str.strip)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def expected(value):
    """The value as JSON can hold it, said once more and independently."""
    if isinstance(value, dict):
        return {k: expected(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [expected(v) for v in value]
    return None if isinstance(value, Missing) else value


def missing_in(value) -> list[str]:
    if isinstance(value, dict | list | tuple):
        return [r for v in (value.values() if isinstance(value, dict) else value) for r in missing_in(v)]
    return [value.reason] if isinstance(value, Missing) else []


def test_any_nesting_of_plain_values_survives_the_disk(tmp_path):
    turn = itertools.count()
    with Record.open(tmp_path / "r", study="toy", config={}, seed=0) as record:

        @settings(max_examples=40, deadline=None)
        @given(nested)
        def law(value):
            stage = record.stage("one", lambda: StageOutput(values={"v": value}), {"turn": next(turn)})
            read = Record.load(record.path)
            # repr tells 1, 1.0, True and -0.0 apart, and the order of keys
            assert repr(stage.value("v")) == repr(read.value("v")) == repr(expected(value))
            assert [r.reason for r in read.reasons] == missing_in(value)

        law()


def test_missing_becomes_null_at_its_address_and_nothing_else_does():
    reasons = []
    given_ = {"auc": [0.5, Missing("one class only")], "note": None, "deep": {"p": Missing("no draws")}}
    assert plain(given_, "values", reasons) == {"auc": [0.5, None], "note": None, "deep": {"p": None}}
    assert reasons == [Reason("values.auc[1]", "one class only"), Reason("values.deep.p", "no draws")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "'v.x' is nan: a record holds no NaN or infinity; give Missing('the reason')."),
        (np.float32("inf"), "'v.x' is inf: a record holds no NaN or infinity; give Missing('the reason')."),
        ([0.0, -np.inf], "'v.x[1]' is -inf: a record holds no NaN or infinity; give Missing('the reason')."),
        ({1: 2}, "'v.x' has the key 1 (int); keys are text, use str(key)."),
        ("\ud800", "'v.x' holds text that is not Unicode (surrogates not allowed); repair the text."),
        (np.zeros(2), "'v.x' is a ndarray, which record.json cannot hold; give numbers, text, lists or mappings (an "
                      "ndarray goes among the arrays)."),
        (1j, "'v.x' is a complex, which record.json cannot hold; give numbers, text, lists or mappings (an ndarray "
             "goes among the arrays)."),
    ],
)  # fmt: skip
def test_what_json_cannot_hold_is_refused_with_its_address(value, message):
    with pytest.raises(RecordError) as caught:
        plain({"x": value}, "v", [])
    assert str(caught.value) == message


def test_a_reason_must_be_words():
    for nothing in ("", "  ", None):
        with pytest.raises(RecordError, match="say in words why the value could not be computed"):
            Missing(nothing)


def test_subclasses_and_numpy_scalars_become_the_plain_type():
    class Layer(enum.IntEnum):
        LAST = 3

    class Task(str, enum.Enum):  # noqa: UP042  its str() is 'Task.RECALL'
        RECALL = "recall"

    found = plain([Layer.LAST, Task.RECALL, np.float32(0.5), np.int8(-1), np.bool_(True), np.str_("é")], "v", [])
    assert repr(found) == "[3, 'recall', 0.5, -1, True, 'é']"


def test_a_stage_hands_out_copies_so_nobody_edits_the_record(tmp_path):
    with Record.open(tmp_path / "r", study="toy", config={}, seed=0) as record:
        stage = record.stage("one", lambda: StageOutput(values={"v": [1]}))
        stage.value("v").append(2)
        record.values["v"].append(3)
        record.value("v").append(4)
    assert Record.load(tmp_path / "r").value("v") == [1]


@dataclass(frozen=True)
class Knobs:
    layers: tuple[int, ...] = (0, 1)
    rate: float = 0.5


SITE = "blocks.0.mlp.neurons"
KINDS = {
    "none": None, "true": True, "one": 1, "one as float": 1.0, "one as text": "1", "list": [1], "nested": [[1]],
    "mapping": {"a": 1}, "array": np.array([1, 2]), "array of floats": np.array([1.0, 2.0]),
    "array of another shape": np.array([[1, 2]]), "other array": np.array([1, 3]), "table": pa.table({"a": [1, 2]}),
    "table of floats": pa.table({"a": [1.0, 2.0]}), "units": Units({SITE: [1, 2]}), "other units": Units({SITE: [1]}),
    "site": Units({SITE: [1]}).sites[0], "path": Path(SITE), "text": SITE, "config": Knobs(),
    "other config": Knobs((0,)),
}  # fmt: skip


def test_different_contents_have_different_keys_and_equal_ones_the_same():
    keys = {kind: content_key(x=value) for kind, value in KINDS.items()}
    assert len(set(keys.values())) == len(KINDS)
    assert content_key(x=Knobs((0, 1), 0.5)) == keys["config"]
    assert content_key(x=np.array([[1, 9], [2, 9]])[:, 0]) == keys["array"]  # strides are no content
    assert content_key(x=pa.table({"a": [1]}).take([0, 0]).set_column(0, "a", pa.array([1, 2]))) == keys["table"]
    assert content_key(a=1, b=2) == content_key(b=2, a=1) != content_key(a=2, b=1)


def test_a_key_is_the_same_in_every_process():
    code = "from microtome.records import content_key as k; print(k(x={'b': [1, 'é'], 'a': None}), end='')"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": s}).stdout
        for s in ("1", "2")
    }
    assert found == {content_key(x={"a": None, "b": [1, "é"]})}


def test_a_key_refuses_what_has_no_content_to_tell():
    with pytest.raises(RecordError, match=r"'inputs.f' is a builtin_function_or_method, which record.json cannot hold"):
        content_key(f=len)
    with pytest.raises(RecordError, match=r"'inputs.x' is nan"):
        content_key(x=float("nan"))


@settings(deadline=None)
@given(nested.map(expected), nested.map(expected))
def test_values_are_apart_exactly_where_they_differ(a, b):
    assert list(apart(a, a, "v")) == []
    assert (list(apart(a, b, "v")) == []) == (repr(_sorted(a)) == repr(_sorted(b)))


def _sorted(value):
    """The value with its keys in order, which is no difference, and without the sign of zero."""
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    if isinstance(value, list):
        return [_sorted(v) for v in value]
    return 0.0 if isinstance(value, float) and value == 0 else value


def test_apart_names_the_leaf_and_tells_the_types_apart():
    found = apart({"a": [1, 2], "b": {"c": 1}, "d": 0}, {"a": [1, 3], "b": {"c": 1.0}, "e": 0}, "v")
    assert [f"{where}: {x!r} / {y!r}" for where, x, y in found] == [
        "v.a[1]: 2 / 3",
        "v.b.c: 1 / 1.0",
        "v.d: 0 / nothing",
        "v.e: nothing / 0",
    ]
