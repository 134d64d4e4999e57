"""Pooled activations on disk: what run reads, pooled by hand; padding and batches change nothing; it resumes."""

import json

import numpy as np
import pytest
import torch

from close import FLOAT32, OTHER, largest
from microtome import Model
from microtome.core.errors import StoreError
from microtome.engine import run
from microtome.engine.pooled import PooledStore, pool, pool_tokens
from microtome.measures.screening import screen
from tiny import build

HOW = ("max", "mean", "last", "top-0.4")
SITES = "blocks.{0,1}.mlp.neurons"


@pytest.fixture(scope="module")
def model():
    return Model.load(build("llama", dtype=torch.float32))


def rows(n=11):
    rng = np.random.default_rng(0)
    return [rng.integers(3, 60, rng.integers(1, 9)).tolist() for _ in range(n)]


def batches(model, ids, size):
    return [model.batch_ids(ids[i : i + size]) for i in range(0, len(ids), size)]


def by_hand(x, how):
    """Pool one text's activations [seq, units]."""
    if how == "max":
        return x.amax(0)
    if how == "mean":
        return x.mean(0)
    if how == "last":
        return x[-1]
    k = max(1, int(np.ceil(float(how.removeprefix("top-")) * len(x))))
    return x.sort(0, descending=True).values[:k].mean(0)


@pytest.mark.parametrize("how", HOW)
def test_pooling_by_hand_with_padding_on_either_side(how):
    g = torch.Generator().manual_seed(0)
    texts = [torch.randn(n, 4, generator=g) - 1 for n in (1, 5, 3)]
    for left in (True, False):
        x, mask = torch.full((3, 5, 4), torch.nan), torch.zeros(3, 5, dtype=torch.bool)
        for i, text in enumerate(texts):
            part = slice(5 - len(text), 5) if left else slice(len(text))
            x[i, part], mask[i, part] = text, True
        expected = torch.stack([by_hand(t, how) for t in texts])
        assert largest(pool_tokens(x, mask, how), expected) < FLOAT32


def test_extremes_of_the_largest_share_are_max_and_mean():
    x, mask = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1)), torch.ones(2, 7, dtype=torch.bool)
    assert torch.equal(pool_tokens(x, mask, "top-0.01"), pool_tokens(x, mask, "max"))
    assert largest(pool_tokens(x, mask, "top-1"), pool_tokens(x, mask, "mean")) < FLOAT32


def test_a_store_holds_each_texts_own_activations_neuron_by_neuron(model, tmp_path):
    ids = rows()
    store = pool(model, batches(model, ids, 4), SITES, tmp_path / "s", how=HOW, block_samples=5)
    assert len(store) == 11 and store.lengths.tolist() == [len(r) for r in ids] and store.saturated == 0
    assert len(store.manifest["blocks"]) == 3 and [str(s) for s in store.sites] == [
        SITES.replace("{0,1}", c) for c in "01"
    ]
    for site in store.sites:
        alone = [run(model, model.batch_ids([r]), read=site, logits="none")[site][0] for r in ids]
        for how in HOW:
            matrix = store.rows(site, how)
            expected = torch.stack([by_hand(x, how) for x in alone], 1)
            assert matrix.shape == (48, 11) and matrix[3:7].dtype == np.float16
            np.testing.assert_allclose(matrix[:], expected.half().numpy(), atol=2e-3, rtol=2e-3)
            for part in (slice(10, 20), slice(40, 99), slice(0, 48, 5), slice(7, 7)):
                np.testing.assert_array_equal(matrix[part], matrix[:][part])


def test_blocks_and_batches_change_nothing(model, tmp_path):
    ids = rows()
    stores = [
        pool(model, batches(model, ids, size), SITES, tmp_path / f"{size}-{block}", block_samples=block)
        for size, block in ((11, 256), (3, 3), (4, 1))
    ]
    matrices = [s.rows("blocks.1.mlp.neurons")[:].astype(np.float32) for s in stores]
    for other in matrices[1:]:
        np.testing.assert_allclose(other, matrices[0], atol=OTHER, rtol=2e-3)


def test_a_store_is_screened_as_it_lies(model, tmp_path):
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2 == 0
    ids = [[*rng.integers(4, 60, rng.integers(1, 9)), 3 if toxic else 4] for toxic in labels]
    store = pool(model, batches(model, ids, 16), "blocks.0.mlp.neurons", tmp_path / "s", how=["last"], block_samples=20)
    rows = store.rows("blocks.0.mlp.neurons")
    found = screen(rows, labels, lengths=store.lengths)
    assert found.ranking.q.min() < 0.01 and found.ranking.strength.max() > found.ranking.null_maximum
    assert screen(rows, rng.permutation(labels), lengths=store.lengths).ranking.q.min() > 0.01
    np.testing.assert_array_equal(found.ranking.area, screen(rows[:], labels, lengths=store.lengths).ranking.area)


def test_skipped_tokens_are_left_out_but_never_the_last(model, tmp_path):
    ids = rows()
    store = pool(model, batches(model, ids, 4), "blocks.0.mlp.neurons", tmp_path / "s", how=["mean"], skip=2)
    alone = [run(model, model.batch_ids([r]), read="blocks.0.mlp.neurons")["blocks.0.mlp.neurons"][0] for r in ids]
    expected = torch.stack([by_hand(x[2:] if len(x) > 2 else x[-1:], "mean") for x in alone], 1)
    np.testing.assert_allclose(store.rows("blocks.0.mlp.neurons")[:], expected, atol=2e-3, rtol=2e-3)
    assert store.lengths.tolist() == [len(r) for r in ids]


def test_a_killed_run_goes_on_after_its_last_block(model, tmp_path):
    ids = rows(12)
    whole = pool(model, batches(model, ids, 3), SITES, tmp_path / "whole", block_samples=3)

    def cut_short():
        yield from batches(model, ids, 3)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool(model, cut_short(), SITES, tmp_path / "cut", block_samples=3)
    with pytest.raises(StoreError, match="unfinished \\(1 batches done\\)"):
        PooledStore.open(tmp_path / "cut")
    (tmp_path / "cut" / "block-00001.safetensors.part").write_bytes(b"half a block")
    seen = []
    done = pool(
        model, batches(model, ids, 3), SITES, tmp_path / "cut", block_samples=3, progress=lambda n, *_: seen.append(n)
    )
    assert seen == [2, 3, 4] and not list((tmp_path / "cut").glob("*.part"))
    for site in whole.sites:
        np.testing.assert_array_equal(done.rows(site)[:], whole.rows(site)[:])


def test_values_beyond_half_precision_saturate_and_are_counted(model, tmp_path):
    big = build("llama", dtype=torch.float32)
    with torch.no_grad():
        big.model.layers[0].mlp.up_proj.weight.mul_(1e7)
    store = pool(Model.load(big), batches(model, rows(), 4), "blocks.0.mlp.neurons", tmp_path / "s")
    matrix = store.rows("blocks.0.mlp.neurons")[:]
    assert np.isfinite(matrix).all() and store.saturated == (np.abs(matrix) == 65504).sum() > 0


def test_damage_is_found_before_it_is_read(model, tmp_path):
    pool(model, batches(model, rows(), 4), SITES, tmp_path / "s", block_samples=4)
    block = tmp_path / "s" / "block-00001.safetensors"
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="block-00001\\.safetensors' is damaged"):
        PooledStore.open(tmp_path / "s").rows("blocks.0.mlp.neurons")[:1]
    block.unlink()
    with pytest.raises(StoreError, match="is missing"):
        PooledStore.open(tmp_path / "s").lengths  # noqa: B018
    (tmp_path / "s" / "manifest.json").write_text(json.dumps({"format": "microtome.store", "version": 2}))
    with pytest.raises(StoreError, match="is microtome\\.store 2"):
        PooledStore.open(tmp_path / "s")


def _held(model, path, **knobs):
    return pool(model, batches(model, rows(), 4), knobs.pop("sites", "blocks.0.mlp.neurons"), path / "s", **knobs)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m, p: _held(m, p, how=["median"]), "No pooling 'median'"),
        (lambda m, p: _held(m, p, how=["top-2"]), "No pooling 'top-2'"),
        (lambda m, p: _held(m, p, sites="blocks.0.attn.pattern"), "its axes are \\['batch', 'head'"),
        (lambda m, p: pool(m, [], "blocks.0.mlp.neurons", p / "s"), "held no text"),
        (lambda m, p: (_held(m, p), _held(m, p, how=["mean"])), "holds how \\['max'\\], asked for \\['mean'\\]"),
        (lambda m, p: _held(m, p).rows("blocks.1.mlp.neurons"), "does not hold 'blocks.1.mlp.neurons'"),
        (lambda m, p: _held(m, p).rows("blocks.0.mlp.neurons", "mean"), "pooled by 'mean'"),
        (lambda m, p: PooledStore.open(p), "manifest.json is missing"),
    ],
)
def test_refusals(model, tmp_path, call, text):
    with pytest.raises(StoreError, match=text) as error:
        call(model, tmp_path)
    assert "\n" not in str(error.value)
