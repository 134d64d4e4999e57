"""A sharded sweep is the whole sweep, wherever and in whatever order its pieces ran; back ends are found by name."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import ConfigError, EditError
from microtome.engine.backend import _SweepShard, backend, sweep_in_shards
from microtome.engine.edit import Add, Edit
from microtome.engine.local import Local
from microtome.engine.sweep import sweep
from microtome.measures.outputs import LogitDiff
from microtome.models import Model

ROWS = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13]]
METRIC = LogitDiff(torch.tensor([7, 8]), torch.tensor([3, 9]))
CELLS = [Edit(f"blocks.{i}.attn.heads", units=[h]) for i in range(3) for h in range(4)]
CELLS += [[Edit("blocks.0.resid_pre", Add(0.1), positions=2), Edit("blocks.1.mlp.out")]]


class Backwards:
    """Takes the last shard first, as a cluster might, and passes functions and shards as bytes."""

    def map(self, function, shards):
        sent = [pickle.dumps((function, shard)) for shard in shards]
        done = {i: (lambda f, x: f(x))(*pickle.loads(sent[i])) for i in reversed(range(len(sent)))}
        yield from (done[i] for i in range(len(sent)))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, len(CELLS) + 3))
def test_a_sharded_sweep_is_the_whole_sweep(tiny_model, shards):
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    whole = sweep(model, batch, CELLS, METRIC)
    parts = sweep_in_shards(model, batch, CELLS, METRIC, shards=shards)
    assert largest(parts.effects, whole.effects) < FLOAT64 and largest(parts.base, whole.base) == EXACT
    assert parts.plan.cells == len(CELLS) and parts.plan.mode == "replay"
    assert whole.effects.std(0).min() > 1e-3  # cells differ, so a wrong order would show


def test_pieces_may_run_elsewhere_and_finish_in_any_order():
    model = Model.load(tiny.build("llama"))
    batch = model.batch_ids(ROWS)
    whole = sweep(model, batch, CELLS, METRIC)
    found = sweep_in_shards(model, batch, CELLS, METRIC, shards=4, on=Backwards())
    assert largest(found.effects, whole.effects) < FLOAT64


def test_the_local_back_end_is_lazy_and_in_order():
    seen = []
    results = backend().map(lambda x: seen.append(x) or 10 * x, range(5))
    assert isinstance(backend(), Local) and seen == []
    assert next(results) == 0 and seen == [0] and list(results) == [10, 20, 30, 40]


def test_what_is_mapped_survives_pickling(tiny_model):
    model = Model.load(tiny.build("gpt2"))
    work = _SweepShard(model, model.batch_ids(ROWS), METRIC, "1GiB")
    again = pickle.loads(pickle.dumps(work))
    assert largest(again(CELLS[:2]).effects, work(CELLS[:2]).effects) == EXACT


def test_bad_requests_are_refused(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(ConfigError, match=r"No back end 'lokal'; there are: local\. Did you mean 'local'\?"):
        backend("lokal")
    with pytest.raises(EditError, match="13 cells in 0 shards"):
        sweep_in_shards(model, model.batch_ids(ROWS), CELLS, METRIC, shards=0)
    with pytest.raises(EditError, match="no cells"):
        sweep_in_shards(model, model.batch_ids(ROWS), [], METRIC, shards=2)
