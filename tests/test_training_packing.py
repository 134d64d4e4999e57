"""Packing: nothing lost, nothing padded, documents kept apart, and a stream that goes on where it stopped."""

import json
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.masking_utils import create_causal_mask

from close import FLOAT32, largest
from microtome.core.errors import DataError
from microtome.data.mixing.sampler import Sampler
from microtome.training.architectures import fuxi, initialised, llama, qwen
from microtome.training.packing import (
    NO_TARGET,
    Counted,
    Document,
    Drawn,
    Rows,
    block_causal_mask,
    packing,
    positions,
    targets,
)

LETTERS = [Document([10, 11, 12], "en"), Document([20, 21], "hi"), Document([30, 31, 32, 33, 34, 35], "en")]


def packed(documents, seq, batch, bos=0, eos=1):
    return packing(lambda state: Counted(documents, state), seq=seq, batch=batch, bos=bos, eos=eos)


def test_the_example_at_the_head_of_the_module():
    rows = next(packed([*LETTERS, *LETTERS], 6, 3)(None))
    assert rows.ids.tolist() == [[0, 10, 11, 12, 1, 0], [20, 21, 1, 0, 30, 31], [32, 33, 34, 35, 1, 0]]
    assert rows.documents.tolist() == [[0, 0, 0, 0, 0, 1], [1, 1, 1, 2, 2, 2], [2, 2, 2, 2, 2, 3]]
    assert rows.languages == ("en", "hi", "en", "en")
    assert positions(rows.documents).tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 0]]


def test_a_token_is_predicted_only_from_its_own_document():
    rows, none = next(packed([*LETTERS, *LETTERS], 6, 3)(None)), NO_TARGET
    assert targets(rows).tolist() == [
        [10, 11, 12, 1, none, none],
        [21, 1, none, 30, 31, none],
        [33, 34, 35, 1, none, none],
    ]
    assert targets(Rows(rows.ids)).tolist() == [[*row[1:], none] for row in rows.ids.tolist()]


def test_the_mask_by_hand():
    mask = block_causal_mask(torch.tensor([[4, 4, 7, 7, 7]]))
    assert mask.shape == (1, 1, 5, 5)
    seen = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert mask[0, 0].int().tolist() == seen


DOCUMENTS = st.lists(st.builds(Document, st.lists(st.integers(2, 99), max_size=12), st.sampled_from(["", "a", "b"])))
END = st.one_of(st.none(), st.just(0))


@given(documents=DOCUMENTS, seq=st.integers(2, 9), batch=st.integers(1, 3), bos=END, eos=END, stop=st.integers(0, 5))
def test_no_token_is_lost_and_a_stream_goes_on_where_it_stopped(documents, seq, batch, bos, eos, stop):
    make = packed(documents, seq, batch, bos, eos)
    whole = list(make(None))
    flat = [t for d in documents for t in ([bos] if bos is not None else []) + list(d.ids) + ([eos] * (eos == 0))]
    kept = len(flat) // (seq * batch) * seq * batch
    assert [t for rows in whole for t in rows.ids.flatten().tolist()] == flat[:kept]
    stream = make(None)
    first = list(islice(stream, stop))
    second = list(make(json.loads(json.dumps(stream.state()))))
    assert len(first + second) == len(whole)
    for ours, theirs in zip(first + second, whole, strict=True):
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.documents, theirs.documents)
        assert ours.languages == theirs.languages


def test_the_state_is_the_rest_of_one_document_and_a_count():
    stream = packed(lambda: iter([*LETTERS, *LETTERS]), 4, 2)(None)
    next(stream)
    assert stream.state() == {"source": 2, "left": [1], "language": "hi", "documents": 2}


def test_a_sampler_plugs_in():
    tokens = {"en": [[i] * (2 + i % 5) for i in range(40)], "hi": [[100 + i] * 3 for i in range(5)]}

    def documents(state):
        sampler = Sampler({"en": 40, "hi": 5}, {"en": 0.6, "hi": 0.4}, seed=3)
        if state is not None:
            sampler.load(state)
        return Drawn(sampler, lambda item: Document(tokens[item.language][item.index], item.language))

    make = packing(documents, seq=8, batch=2, bos=200, eos=201)
    stream = make(None)
    for _ in range(7):
        next(stream)
    again = make(json.loads(json.dumps(stream.state())))
    for _ in range(5):
        ours, theirs = next(again), next(stream)
        assert torch.equal(ours.ids, theirs.ids) and ours.languages == theirs.languages
    assert {*theirs.languages} <= {"en", "hi"}


@pytest.mark.parametrize("make", [fuxi, llama, qwen])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_row_gives_the_logits_of_its_documents_run_apart(make, attention):
    module = initialised(make(61, layers=3, width=32, mlp=48, heads=4, context=64, spread=0.2), 0).eval()
    module.set_attn_implementation(attention)
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, 61, (n,), generator=draw).tolist() for n in (5, 1, 9, 7, 10)]
    rows = next(packed([Document(t) for t in texts], 21, 2)(None))  # the fourth document goes over into the second row
    run = lambda **how: module(rows.ids, use_cache=False, **how).logits  # noqa: E731
    place, mask = positions(rows.documents), block_causal_mask(rows.documents)
    given = mask if attention == "sdpa" else torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    alone = torch.empty_like(run())
    for row in range(2):
        for number in rows.documents[row].unique():
            here = rows.documents[row] == number
            alone[row, here] = module(rows.ids[row, here][None], use_cache=False).logits[0]
    assert largest(run(position_ids=place), alone) < FLOAT32  # transformers makes the mask of the positions
    assert largest(run(position_ids=place, attention_mask=given), alone) < FLOAT32
    assert largest(run(), alone) > 0.1  # the control: documents that see each other
    first = (rows.documents == rows.documents[:, :1]).nonzero(as_tuple=True)
    assert largest(run()[first], alone[first]) < FLOAT32  # but the first of a row has nobody before it


def test_rows_of_one_document_each_cost_no_mask():
    config, embeds = fuxi(61, layers=1, width=32, mlp=48, heads=4, context=64), torch.zeros(2, 7, 32)
    config._attn_implementation = "sdpa"
    masks = [
        create_causal_mask(config, embeds, attention_mask=None, past_key_values=None, position_ids=positions(documents))
        for documents in (torch.tensor([[0] * 7, [1] * 7]), torch.tensor([[0] * 7, [0, 0, 1, 1, 1, 1, 1]]))
    ]
    assert masks[0] is None and masks[1] is not None


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="Rows of 1 tokens, 4 a batch, were asked for; give seq >= 2"):
        packed(LETTERS, 1, 4)(None)
    with pytest.raises(DataError, match=r"A packing state was asked for, found keys \['position'\]; give what state"):
        packed(LETTERS, 4, 4)({"position": 3})
