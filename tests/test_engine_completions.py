"""Completions are those of the model's own generate, one prompt at a time; what is on disk is never asked again."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

import tiny
from microtome.core.errors import DataError, ModelError, StoreError
from microtome.data.ravel import atlas_tables, build_instance, prompts
from microtome.data.ravel.matching import cut
from microtome.engine.completions import ANSWERED, complete
from microtome.models import Model
from microtome.models.zoo.hand import hand

TEMPLATES = (
    "On the old map of the world that hangs in the hall of the school, %s lies next to",
    "%s is",
    '[{"place": "Paris", "by": "Seine"}, {"place": "%s", "by": "',
)
NAMES = ("Peru", "Chad", "Mali", "Cuba", "Fiji", "Laos", "Oman", "Togo", "South Korea", "Nauru", "Zürich")
PROMPTS = [t.replace("%s", name) for t in TEMPLATES for name in NAMES]


def tiny_with_tokenizer(family="llama", **config) -> Model:
    """A random model of 300 tokens: bytes, `<s>` in front, `</s>` at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(["<s>", "</s>", *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    cls, made = tiny._configs()[family]
    sizes = dict(vocab_size=300, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    torch.manual_seed(0)
    module = cls(type(made)(**{**made.to_dict(), **sizes, **config})).double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5 if p.ndim >= 2 else p + 0.1 * torch.randn_like(p))
    return Model.load(module, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def model():
    return tiny_with_tokenizer()


def one_by_one(model, prompt, n):
    """Plain transformers: one prompt, every token of the answer, then its text."""
    ids = model.tokenizer([prompt], return_tensors="pt")["input_ids"]
    out = model.module.generate(ids, do_sample=False, max_new_tokens=n, pad_token_id=1)
    texts = [model.tokenizer.decode(x, skip_special_tokens=True) for x in (ids[0], out[0])]
    assert texts[1].startswith(texts[0])
    return texts[1][len(texts[0]) :]


def rows_seen(model):
    """Return a list that receives the number of rows and tokens of every forward, and the handle that ends it."""
    seen = []
    handle = model.module.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(tuple((args[0] if args else kwargs["input_ids"]).shape)), with_kwargs=True
    )
    return seen, handle


# -- the same as transformers


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "qwen3", "gemma2", "neox", "bloom"])
@pytest.mark.parametrize("batch", [5, 256])
def test_equal_to_transformers_one_by_one(family, batch):
    made = tiny_with_tokenizer(family)
    wanted = [one_by_one(made, p, 6) for p in PROMPTS]
    assert complete(made, PROMPTS, max_new_tokens=6, stop=None, batch=batch) == wanted
    assert len(set(wanted)) > len(TEMPLATES)  # the entity matters, so a mixed-up row would show


def test_equal_on_the_trained_model_and_the_space_before_the_answer_is_kept():
    model, table = Model.load("zoo:atlas"), atlas_tables()["atlas_country"]
    asked = list(prompts(table, splits=["test"], per_template=3))[:24]
    said = complete(model, [p.text for p in asked], stop=None)
    assert said == [one_by_one(model, p.text, 8) for p in asked]
    assert all(text.startswith(" ") for text in said)
    completions = {(p.template, p.entity): text for p, text in zip(asked, said, strict=True)}
    instance = build_instance(table, completions)
    assert len(instance.answers) > len(completions) / 2
    assert {a.gap for a in instance.answers.values()} == {" "}


def test_end_of_text_ends_a_row_and_no_padding_is_read(model):
    """With likely ends of text, rows of one batch end at different lengths."""
    made = tiny_with_tokenizer()
    with torch.no_grad():
        made.module.lm_head.weight[1] = 1.5 * made.module.lm_head.weight[2:].mean(0) + 0.4 * torch.randn(
            32, generator=torch.Generator().manual_seed(3), dtype=torch.float64
        )
    wanted = [one_by_one(made, p, 12) for p in PROMPTS]
    assert len({len(w) for w in wanted}) > 2
    assert complete(made, PROMPTS, max_new_tokens=12, stop=None) == wanted


# -- the stop


@pytest.mark.parametrize("stop", ["[aeiou]", r"\w\w", "e|[^a-z]{2}"])
def test_a_completion_ends_with_the_token_in_which_the_stop_is_first_found(model, stop):
    free = complete(model, PROMPTS, max_new_tokens=12, stop=None)
    stopped = complete(model, PROMPTS, max_new_tokens=12, stop=stop)
    assert any(a != b for a, b in zip(free, stopped, strict=True))
    for whole, short in zip(free, stopped, strict=True):
        found = re.search(stop, whole)
        if found is None:
            assert short == whole
        else:
            assert re.search(stop, short) and not re.search(stop, short[:-1])  # a token is one byte here
            assert whole.startswith(short.rstrip("\ufffd"))


def test_decoding_ends_when_every_row_has_met_the_stop(model):
    """The prompts are as long as each other; two rows are tried with and without what they share, then all go."""
    steps = []
    for stop in (None, "(?s)."):
        seen, handle = rows_seen(model)
        complete(model, PROMPTS[:8], max_new_tokens=9, stop=stop)
        handle.remove()
        steps.append([rows for rows, _ in seen])
    assert steps[0] == [1] + [2] * 18 + [1] + [8] * 9
    assert steps[1] == [1, 2, 2, 1, 8]


@given(st.text(alphabet=" \t\"'“«”»\nab", max_size=8))
def test_the_usual_stop_is_where_an_answer_is_cut(text):
    assert bool(re.search(ANSWERED, text)) == cut(text)[1]


# -- each prompt once, each beginning once


def test_a_prompt_that_comes_twice_is_asked_once_and_answered_twice(model):
    twice = [PROMPTS[3], PROMPTS[0], PROMPTS[3]]
    seen, handle = rows_seen(model)
    said = complete(model, twice, max_new_tokens=1, stop=None)
    handle.remove()
    assert said[0] == said[2] and said == [one_by_one(model, p, 1) for p in twice]
    assert max(rows for rows, _ in seen) <= 2


def test_what_a_batch_begins_with_is_run_in_one_row(model):
    asked = [TEMPLATES[2].replace("%s", name) for name in NAMES if len(name) == 4]
    complete(model, asked, max_new_tokens=1, stop=None)
    seen, handle = rows_seen(model)
    complete(model, asked, max_new_tokens=1, stop=None)
    handle.remove()
    length, shared = len(asked[0]) + 1, asked[0].index("Peru") + 1
    assert seen[-2:] == [(1, shared), (len(asked), length - shared)]


class Forgetful(tf.LlamaForCausalLM):
    """Goes wrong where it goes on from a cached beginning with several tokens at once."""

    def forward(self, input_ids, past_key_values=None, **how):
        going_on = past_key_values is not None and past_key_values.get_seq_length() > 0 and input_ids.shape[1] > 1
        return super().forward(input_ids.flip(1) if going_on else input_ids, past_key_values=past_key_values, **how)


def test_a_model_that_cannot_go_on_from_a_shared_beginning_runs_whole_prompts(model):
    module = Forgetful(model.module.config).double().eval()
    module.load_state_dict(model.module.state_dict())
    odd = Model.load(module, tokenizer=model.tokenizer)
    assert complete(odd, PROMPTS, max_new_tokens=6) == complete(model, PROMPTS, max_new_tokens=6)


def test_prompts_that_share_nothing_stay_in_one_batch(model):
    seen, handle = rows_seen(model)
    complete(model, ["abcd", "bcda", "cdab", "dabc"], max_new_tokens=1, stop=None)
    handle.remove()
    assert seen == [(4, 5)]


def test_no_prompts_no_completions(model, tmp_path):
    assert complete(model, []) == [] == complete(model, [], cache=tmp_path / "none")


# -- on disk


def test_a_second_run_asks_nothing_and_a_longer_list_only_what_is_new(model, tmp_path):
    whole = complete(model, PROMPTS, max_new_tokens=4)
    assert complete(model, PROMPTS[:20], max_new_tokens=4, cache=tmp_path) == whole[:20]
    seen, handle = rows_seen(model)
    assert complete(model, PROMPTS[:20], max_new_tokens=4, cache=tmp_path) == whole[:20]
    assert seen == []
    told = []
    said = complete(model, PROMPTS, max_new_tokens=4, cache=tmp_path, progress=lambda *what: told.append(what[:2]))
    handle.remove()
    assert said == whole and seen
    assert told[0] == (20, len(PROMPTS)) and told[-1] == (len(PROMPTS), len(PROMPTS))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_how_the_tokenizer_was_used_in_between_is_no_other_model(tmp_path):
    model, told = tiny_with_tokenizer(), []
    complete(model, PROMPTS[:6], cache=tmp_path)
    model.tokenizer(PROMPTS[:3], padding=True, truncation=True, max_length=9)
    complete(model, PROMPTS[:6], cache=tmp_path, progress=lambda *what: told.append(what[0]))
    assert told[0] == 6


KILLED = """
import os, signal, sys
from test_engine_completions import PROMPTS, tiny_with_tokenizer
from microtome.engine.completions import complete

def die(done, total, line):
    if done > 23:
        os.kill(os.getpid(), signal.SIGKILL)

complete(tiny_with_tokenizer(), PROMPTS, max_new_tokens=4, cache=sys.argv[1], batch=1, progress=die)
"""


def test_after_kill_9_the_next_run_asks_only_the_rest(model, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=300)
    assert done.returncode == -signal.SIGKILL
    told = []
    said = complete(model, PROMPTS, max_new_tokens=4, cache=tmp_path, progress=lambda *what: told.append(what[0]))
    assert told[0] == 16  # one part of 16 batches was down, the next one is lost
    assert said == complete(model, PROMPTS, max_new_tokens=4)


def test_an_interrupted_run_keeps_what_it_has(model, tmp_path):
    def interrupt(done, total, line):
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(model, PROMPTS, cache=tmp_path, batch=1, progress=interrupt)
    told = []
    complete(model, PROMPTS, cache=tmp_path, progress=lambda *what: told.append(what[0]))
    assert told[0] == 3


def test_another_model_length_or_stop_is_kept_apart(model, tmp_path):
    other = tiny_with_tokenizer()
    with torch.no_grad():
        other.module.lm_head.weight.copy_(other.module.lm_head.weight.roll(1, 0))
    asked, known = PROMPTS[:6], []

    def ask(who, **how):
        told = []
        said = complete(who, asked, cache=tmp_path, progress=lambda *what: told.append(what[0]), **how)
        assert said == complete(who, asked, **how)
        known.append(told[0])

    ask(model)
    ask(other)
    ask(model, max_new_tokens=2)
    ask(model, stop=None)
    assert known == [0, 0, 0, 0] and len(list(tmp_path.iterdir())) == 4
    ask(model)
    assert known[-1] == 6


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_named(model, tmp_path, how):
    complete(model, PROMPTS[:5], cache=tmp_path)
    (part,) = tmp_path.glob("*/*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes({"cut": data[:-9], "flipped": data, "empty": b""}[how])
    with pytest.raises(StoreError, match=rf"^Completions in '{re.escape(str(part))}' are damaged: .* delete the file"):
        complete(model, PROMPTS[:5], cache=tmp_path)
    part.unlink()
    assert complete(model, PROMPTS[:5], cache=tmp_path) == complete(model, PROMPTS[:5])


# -- what cannot be asked


def test_a_model_that_cannot_generate_is_refused():
    made = hand()
    with pytest.raises(ModelError, match="found a HandDecoder, which has no generate; use a causal"):
        complete(Model.load(made.module, tokenizer=made.tokenizer), ["Arden"])


@pytest.mark.parametrize(
    ("prompts", "how", "message"),
    [
        ("Peru is", {}, r"found one string; write \[prompt\]"),
        (["a" * 125], {}, "has 126 tokens and is to get 8 new ones; the model takes 128: drop the prompt"),
        (["Peru"], {"max_new_tokens": 0}, "asked for 0 new tokens and batches of 256; give at least 1"),
        (["Peru"], {"batch": 0}, "batches of 0; give at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(model, prompts, how, message):
    with pytest.raises(DataError, match=message):
        complete(model, prompts, **how)


def test_no_tokenizer_and_a_file_in_place_of_the_folder(model, tiny_model, tmp_path):
    with pytest.raises(DataError, match="has no tokenizer, so it cannot complete text"):
        complete(tiny_model("llama"), ["Peru"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="found a file there; give a folder"):
        complete(model, ["Peru"], cache=tmp_path / "file")
