"""Chat tuning: the loss is at the assistant's tokens alone, DPO starts at ln 2, a killed run ends like any other.

This file is also a script, `python test_training_chat.py KIND BASE FOLDER`: children of it tune and are killed by
SIGKILL, one before its first checkpoint and one after its third; then it goes on itself, and tunes once undisturbed.
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from close import FLOAT32, OTHER
from microtome.core.errors import DataError, ModelError
from microtome.data.instructions import Conversation, PreferencePair
from microtome.models import Model
from microtome.training.architectures import fuxi, initialised
from microtome.training.chat import dpo, load_tuned, sft
from microtome.training.chat_losses import answer_losses
from microtome.training.chat_rows import conversation_rows, encode, pair_rows
from microtome.training.tokenizer import CHATML, save_tokenizer, train_tokenizer

pytest.importorskip("trl")

WORDS = {"en": "red blue green small large house tree water".split(), "hi": "लाल नीला हरा छोटा बड़ा घर पेड़ पानी".split(),
         "zh": "红色 蓝色 绿色 小的 大的 房子 树木 清水".split()}  # fmt: skip
TEXTS = {tag: [" ".join(words[i:] + words[:i]) for i in range(8)] * 4 for tag, words in WORDS.items()}
SLOW_RATE, RATE = 1e-4, 1e-2


def talks(count=24, turns=1, seed=0):
    """Conversations in which the assistant says the word that it was told, twice."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        tag = list(WORDS)[i % 3]
        messages = [("system", "Repeat.")] if i % 2 else []
        for _ in range(turns):
            word = rng.choice(WORDS[tag])
            messages += [("user", f"Say {word}!"), ("assistant", f"{word} {word}")]
        made.append(Conversation(tuple(messages), tag, "made", str(i)))
    return made


def pairs(count=24, seed=0):
    """What is said in the right language is preferred to what is said in another."""
    made = []
    for i, c in enumerate(talks(count, seed=seed)):
        wrong = random.Random(i).choices(WORDS["hi" if c.language == "en" else "en"], k=3)
        made.append(PreferencePair(c.prompt, c.answer, " ".join(wrong), c.language, "made", str(i)))
    return made


def make_base(folder: Path) -> Path:
    tokenizer = train_tokenizer(TEXTS, size=400)
    initialised(fuxi(len(tokenizer), layers=2, width=32, mlp=64, heads=2, context=96, spread=0.1), 0).save_pretrained(
        folder
    )
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a small model with a tokenizer of three languages."""
    return make_base(tmp_path_factory.mktemp("chat") / "base")


@pytest.fixture(scope="module")
def model(base):
    """The same, loaded."""
    return Model.load(str(base), anatomy=False)


def weights(folder):
    module = AutoModelForCausalLM.from_pretrained(folder)
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def same(a, b):
    return all(torch.equal(a[n], b[n]) for n in a | b)


def mean_loss(model, conversations, **settings):
    losses, tokens = answer_losses(model, conversations, **settings)
    return (losses.sum() / tokens.sum()).item()


# -- which tokens count


@pytest.mark.parametrize("turns", [1, 3])
def test_what_is_marked_decodes_to_what_the_assistant_says_and_its_end(model, turns):
    for conversation in talks(12, turns):
        ids, answers = encode(model, conversation.messages)
        spans, held = [], []
        for i, said in zip([*ids, -1], [*answers, False], strict=True):
            if said:
                held.append(i)
            elif held:
                spans, held = [*spans, model.tokenizer.decode(held)], []
        assert spans == [f"{content}<|im_end|>" for role, content in conversation.messages if role == "assistant"]
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in conversation.messages)
        assert model.tokenizer.decode(ids) == text


def test_labels_are_the_answers_and_nothing_else(model):
    rows = conversation_rows(model, talks(6, 2), longest=96, assistant_only=True)
    for row, conversation in zip(rows.rows, talks(6, 2), strict=True):
        ids, answers = encode(model, conversation.messages)
        assert row["input_ids"] == ids
        assert row["labels"] == [i if said else -100 for i, said in zip(ids, answers, strict=True)]
    everything = conversation_rows(model, talks(6, 2), longest=96, assistant_only=False)
    assert all(row["labels"] == [-100, *row["input_ids"][1:]] for row in everything.rows)
    assert rows.counts["trained_on"] < everything.counts["trained_on"] == rows.counts["tokens"] - 6
    assert rows.end == model.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_no_gradient_comes_from_what_users_say(base, tmp_path, monkeypatch):
    """The gradient at the logits, in TRL's own step, is zero but where the next token is the assistant's."""
    from transformers import Trainer

    seen = []
    step = Trainer.training_step

    def watched(self, module, inputs, *args):
        head, held = module.get_output_embeddings(), {}
        inner = module.model.norm.register_forward_hook(lambda m, i, out: held.update(h=out) or out.retain_grad())
        loss = step(self, module, inputs, *args)
        inner.remove()
        seen.append((inputs["labels"].clone(), held["h"].grad.abs().sum(-1), head.weight.grad.abs().sum()))
        return loss

    monkeypatch.setattr(Trainer, "training_step", watched)
    sft(base, talks(4, 2), tmp_path / "out", steps=1, batch=4, neftune=None, warm_up=0.0)
    ((labels, gradient, head),) = seen
    predicts = torch.cat([labels[:, 1:] != -100, torch.zeros(len(labels), 1, dtype=bool)], 1)
    assert (gradient[~predicts] == 0).all() and (gradient[predicts] > 0).all() and head > 0
    assert 0 < predicts.sum() < predicts.numel() / 2


def test_trls_loss_is_the_formulas(base, model, tmp_path):
    own = talks(8, 2)
    tuned = sft(base, own, tmp_path / "one", steps=1, batch=8, neftune=None)
    assert tuned.losses[0] == pytest.approx(mean_loss(model, own), abs=OTHER)
    parts = sft(base, own, tmp_path / "parts", steps=1, batch=8, micro=2, neftune=None)
    assert parts.losses[0] == pytest.approx(tuned.losses[0], abs=FLOAT32)
    assert parts.norms[0] == pytest.approx(tuned.norms[0], abs=OTHER)
    whole = sft(base, own, tmp_path / "whole", steps=1, batch=8, neftune=None, assistant_only=False)
    assert abs(whole.losses[0] - tuned.losses[0]) > 0.01
    noisy = sft(base, own, tmp_path / "noisy", steps=1, batch=8, neftune=15.0)
    assert abs(noisy.losses[0] - tuned.losses[0]) > 1e-4


def test_answer_losses_do_not_depend_on_batches_or_on_what_users_say(model):
    own = talks(7)
    losses, tokens = answer_losses(model, own, batch=3)
    for i, conversation in enumerate(own):
        alone, count = answer_losses(model, [conversation])
        assert losses[i].item() == pytest.approx(alone.item(), abs=OTHER) and tokens[i] == count
        ids, answers = encode(model, conversation.messages)
        logits = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        want = -sum(logits[t - 1, ids[t]].item() for t in range(len(ids)) if answers[t])
        assert losses[i].item() == pytest.approx(want, abs=OTHER)
    cut, left = answer_losses(model, own, longest=8)
    assert left.sum() == 0 and cut.sum() == 0


# -- what comes out


def test_sft_lowers_the_loss_of_conversations_it_has_not_seen(base, model, tmp_path):
    told = []
    before = weights(base)
    tuned = sft(base, talks(60), tmp_path / "chat", steps=40, lr=RATE, batch=12, progress=lambda *at: told.append(at))
    held_out = talks(24, seed=1)
    after = Model.load(str(tuned.folder), anatomy=False)
    assert mean_loss(after, held_out) < mean_loss(model, held_out) - 1
    assert same(before, weights(base)) and not same(before, weights(tuned.folder))
    assert [at[:2] for at in told] == [(i, 40) for i in range(1, 41)]
    assert told[-1][2] == f"loss {tuned.losses[-1]:.4f}"
    assert len(tuned.losses) == len(tuned.rates) == len(tuned.norms) == 40 and tuned.margins == []
    assert max(tuned.rates) == pytest.approx(RATE) and tuned.rates.index(max(tuned.rates)) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chat"]
    assert load_tuned(tuned.folder) == tuned


def test_a_tuned_folder_is_a_plain_one_that_stops_where_an_answer_ends(base, tmp_path):
    tuned = sft(base, talks(60), tmp_path / "chat", steps=60, lr=RATE, batch=12)
    module, tokenizer = AutoModelForCausalLM.from_pretrained(tuned.folder), AutoTokenizer.from_pretrained(tuned.folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert module.generation_config.eos_token_id == [end, 1] and tokenizer.chat_template == CHATML
    own, given = (
        m.config.to_dict() | {"_name_or_path": ""} for m in (module, AutoModelForCausalLM.from_pretrained(base))
    )
    assert own == given  # nothing of the trainer's is in it
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say red!"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = module.generate(**asked, max_new_tokens=20, do_sample=False)[0, asked["input_ids"].shape[1] :].tolist()
    assert out[-1] == end and len(out) < 20


def test_dpo_starts_at_ln_2_its_margins_rise_and_the_reference_stays(base, tmp_path, monkeypatch):
    from transformers import Trainer

    references, train = [], Trainer.train

    def watched(self, *args, **settings):
        references.append({n: p.detach().clone() for n, p in self.ref_model.named_parameters()})
        result = train(self, *args, **settings)
        references.append({n: p.detach().clone() for n, p in self.ref_model.named_parameters()})
        return result

    monkeypatch.setattr(Trainer, "train", watched)
    told = []
    tuned = dpo(
        base, pairs(), tmp_path / "out", steps=20, lr=3e-3, beta=0.1, batch=8, progress=lambda *at: told.append(at)
    )
    assert tuned.losses[0] == pytest.approx(math.log(2), abs=FLOAT32) and tuned.margins[0] == pytest.approx(
        0, abs=FLOAT32
    )
    assert np.mean(tuned.margins[-5:]) > np.mean(tuned.margins[5:10]) > 0.01 and np.mean(tuned.accuracies[-5:]) > 0.8
    assert same(references[0], references[1]) and same(references[0], weights(base))
    assert "margin +" in told[-1][2] and tuned.kind == "dpo"
    held_out, before, after = pairs(12, seed=1), *(Model.load(str(f), anatomy=False) for f in (base, tuned.folder))

    def margin(model):
        chosen, rejected = (
            answer_losses(
                model, [Conversation((*p.prompt, ("assistant", getattr(p, name))), p.language) for p in held_out]
            )[0]
            for name in ("chosen", "rejected")
        )
        return (rejected - chosen).mean().item()

    assert margin(after) > margin(before) + 1


def test_the_loss_of_dpo_is_its_formula_at_every_update(base, tmp_path):
    """Each loss is -log sigmoid of its margin where an update is of one pair."""
    tuned = dpo(base, pairs(3), tmp_path / "out", steps=6, lr=3e-3, beta=0.5, batch=1)
    want = [-math.log(1 / (1 + math.exp(-m))) for m in tuned.margins]
    assert tuned.losses == pytest.approx(want, abs=OTHER) and abs(tuned.margins[-1]) > 0.01


def test_pairs_are_prompt_and_answers_as_the_template_writes_them(model):
    rows = pair_rows(model, pairs(6), longest=96)
    for row, pair in zip(rows.rows, pairs(6), strict=True):
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in pair.prompt)
        assert model.tokenizer.decode(row["prompt_ids"]) == text + "<|im_start|>assistant\n"
        assert model.tokenizer.decode(row["chosen_ids"]) == pair.chosen + "<|im_end|>"
        assert model.tokenizer.decode(row["rejected_ids"]) == pair.rejected + "<|im_end|>"


def test_what_is_too_long_is_cut_or_left_out_and_counted(model):
    wordy = Conversation((("user", "red " * 40), ("assistant", "red")), "en")
    own = [*talks(6), wordy]
    found = [encode(model, c.messages) for c in own]
    begins = [row.answers.index(True) for row in found]
    longest = max(begins[:6]) + 1
    assert begins[6] >= longest
    rows = conversation_rows(model, own, longest=longest, assistant_only=True)
    assert [row["input_ids"] for row in rows.rows] == [row.ids[:longest] for row in found[:6]]
    assert rows.counts["truncated"] == sum(len(row.ids) > longest for row in found[:6]) > 0
    assert (rows.counts["given"], rows.counts["kept"], rows.counts["too_long"]) == (7, 6, 1)
    assert rows.counts["trained_on"] == sum(sum(row.answers[:longest]) for row in found[:6])
    long_pair = PreferencePair(wordy.prompt, "red", "blue", "en")
    cut = pair_rows(model, [*pairs(6), long_pair], longest=longest)
    assert (cut.counts["kept"], cut.counts["too_long"]) == (6, 1)
    assert max(len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in cut.rows) == longest


def test_text_with_a_special_token_in_it_is_left_out_and_counted(model):
    sly = Conversation((("user", "Hi<|im_end|>"), ("assistant", "Yes.")), "en")
    assert conversation_rows(model, [*talks(3), sly], longest=96, assistant_only=True).counts["special_tokens"] == 1
    pair = PreferencePair((("user", "Hi"),), "<s>", "no", "en")
    assert pair_rows(model, [*pairs(3), pair], longest=96).counts["special_tokens"] == 1


def test_half_precision_is_trained_in_full_and_written_in_half(base, tmp_path):
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(base).save_pretrained(half)
    tuned = sft(half, talks(6), tmp_path / "out", steps=2, lr=RATE, batch=6)
    found = weights(tuned.folder)
    assert {w.dtype for w in found.values()} == {torch.bfloat16} and not same(found, weights(half))


# -- runs that end early, runs that were done


@pytest.mark.parametrize("tune", [sft, dpo])
def test_what_is_there_already_is_not_done_again_and_nothing_else_is_overwritten(base, tmp_path, tune):
    rows = talks(6) if tune is sft else pairs(6)
    told = []
    first = tune(base, rows, tmp_path / "out", steps=2, lr=SLOW_RATE, batch=6)
    again = tune(base, rows, tmp_path / "out", steps=2, lr=SLOW_RATE, batch=6, progress=lambda *at: told.append(at))
    assert first == again and told == []
    assert tune(base, rows, tmp_path / "out", steps=2, lr=SLOW_RATE, batch=6, save_every=2) == first
    for changed in ({"steps": 3}, {"seed": 1}, {"lr": RATE}):
        with pytest.raises(ModelError, match="found a model tuned otherwise there; give another folder"):
            tune(base, rows, tmp_path / "out", **{"steps": 2, "lr": SLOW_RATE, "batch": 6} | changed)
    with pytest.raises(ModelError, match="found a model tuned otherwise"):
        tune(base, rows[1:], tmp_path / "out", steps=2, lr=SLOW_RATE, batch=6)
    with pytest.raises(ModelError, match="found something else there"):
        tune(base, rows, base, steps=2)


class Stopped(Exception):
    """What ends a run in these tests."""


def stopping(at):
    def progress(done, total, line):
        if done == at:
            raise Stopped

    return progress


@pytest.mark.parametrize("tune", [sft, dpo])
@pytest.mark.parametrize("stop", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_a_stopped_run_ends_like_one_that_was_not(base, tmp_path, tune, stop):
    """Stopped within the second epoch, of four updates each, and after a checkpoint between two."""
    rows, resumed = (talks(24) if tune is sft else pairs(24)), []
    settings = dict(epochs=2.5, lr=3e-3, batch=6, micro=3, save_every=3 if stop == 5 else 4)
    whole = tune(base, rows, tmp_path / "whole", **settings)
    assert len(whole.losses) == 10
    with pytest.raises(Stopped):
        tune(base, rows, tmp_path / "out", progress=stopping(stop), **settings)
    assert not (tmp_path / "out").exists()
    work = tmp_path / "out.work"
    half = work / "checkpoint-9"
    half.mkdir()  # as a kill leaves it that comes while one is written
    ended = tune(base, rows, tmp_path / "out", on_resume=resumed.append, **settings)
    assert resumed == [3 if stop == 5 else 4]
    assert ended.losses == whole.losses and ended.norms == whole.norms and ended.margins == whole.margins
    assert same(weights(ended.folder), weights(whole.folder)) and not work.exists()


def test_a_stopped_run_is_not_gone_on_with_as_another(base, tmp_path):
    with pytest.raises(Stopped):
        sft(base, talks(6), tmp_path / "out", steps=4, batch=6, progress=stopping(2))
    with pytest.raises(ModelError, match="found one of other data, weights or settings; remove that folder"):
        sft(base, talks(6), tmp_path / "out", steps=4, batch=6, lr=RATE)
    (tmp_path / "new.work").mkdir()
    (tmp_path / "new.work" / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="found something else there; move it away"):
        sft(base, talks(6), tmp_path / "new", steps=4, batch=6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_run_that_is_killed_twice_has_the_losses_of_one_that_is_not(base, tmp_path, kind):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, kind, base, tmp_path], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["killed"] == [[signal.SIGKILL, 1, False], [signal.SIGKILL, 7, False]]  # by what, at which update, done
    assert told["resumed"] == [6]
    ended, whole = load_tuned(tmp_path / "out"), load_tuned(tmp_path / "whole")
    assert ended.losses == whole.losses and ended.margins == whole.margins and len(ended.losses) == 10
    assert same(weights(ended.folder), weights(whole.folder))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "told.json", "whole"]


# -- quiet, and errors


def test_nothing_is_printed_or_left_and_the_random_state_is_put_back(base, capfd, tmp_path, monkeypatch):
    from transformers.utils import logging

    def state():
        numbers = np.random.get_state()
        env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        return random.getstate(), tuple(numbers[1]), numbers[2:], tuple(torch.get_rng_state().tolist()), env

    monkeypatch.chdir(tmp_path)
    sft(base, talks(6), "warm", steps=1, batch=6)  # what is set up once only, is
    before, loud = state(), logging.get_verbosity()
    sft(base, talks(6), "sft", steps=2, batch=6)
    dpo(base, pairs(6), "dpo", steps=2, batch=6)
    assert state() == before and logging.get_verbosity() == loud
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dpo", "sft", "warm"]


def copy_with(base, folder, *, template=CHATML, vocabulary=None):
    """The model's folder with another template, or with fewer tokens in the model."""
    module, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    if vocabulary is not None:
        module.resize_token_embeddings(vocabulary)
    tokenizer.chat_template = template
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_that_makes_no_chat_model_is_one_line(base, tmp_path):
    largest = len(AutoTokenizer.from_pretrained(base)) - 1
    small = copy_with(base, tmp_path / "small", vocabulary=largest)
    with pytest.raises(ModelError, match=rf"has embeddings for {largest} tokens, its tokenizer has ids to {largest}"):
        sft(small, talks(3), tmp_path / "out", steps=1)
    mute = copy_with(base, tmp_path / "mute", template=None)
    (mute / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="found a tokenizer without a chat template"):
        sft(mute, talks(3), tmp_path / "out", steps=1)
    plain = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    unmarked = copy_with(base, tmp_path / "unmarked", template=plain)
    with pytest.raises(ModelError, match="does not mark what the assistant says"):
        sft(unmarked, talks(3), tmp_path / "out", steps=1)
    assert len(sft(unmarked, talks(3), tmp_path / "out", steps=1, assistant_only=False).losses) == 1
    tiny.build("llama").save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="found no tokenizer"):
        dpo(tmp_path / "bare", pairs(3), tmp_path / "out2", steps=1)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda b, o: sft(b, [], o), DataError, "on 0 conversations of at most 96 tokens was asked for, found none"),
        (lambda b, o: sft(b, talks(3), o, longest=4), DataError, "found none to use .3 too long"),
        (lambda b, o: sft(b, talks(3), o, longest=97), DataError, "Rows of 97 tokens were asked for, .* takes 2 to 96"),
        (lambda b, o: sft(b, [Conversation((("user", "a"),), "en", id="x")], o), DataError,
         "Conversation 0 .'x'. has no assistant turn"),
        (lambda b, o: sft(b, talks(3), o, steps=0), DataError, "with steps 0, batch 16"),
        (lambda b, o: sft(b, talks(3), o, epochs=0), DataError, "for 0 epochs"),
        (lambda b, o: sft(b, talks(3), o, batch=6, micro=4), DataError, "batch 6 in parts of 4"),
        (lambda b, o: sft(b, talks(3), o, lr=math.nan), DataError, "lr nan"),
        (lambda b, o: sft(b, talks(3), o, warm_up=2), DataError, "warm_up 2 and"),
        (lambda b, o: sft(b, talks(3), o, neftune=-1.0), DataError, "NEFTune with noise -1.0"),
        (lambda b, o: sft(b, talks(3), o, steps=6, lr=1e30, warm_up=0), ModelError, "at a learning rate of 1e.30"),
        (lambda b, o: dpo(b, [], o), DataError, "on 0 pairs of at most 96 tokens"),
        (lambda b, o: dpo(b, pairs(3), o, beta=0), DataError, "DPO with beta 0 was asked for"),
        (lambda b, o: load_tuned(b), ModelError, "it has no training.json"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(base, tmp_path, call, error, match):
    with pytest.raises(error, match=match) as caught:
        call(base, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def main(kind: str, folder: str, home: Path) -> None:
    tune, rows = (sft, talks(24)) if kind == "sft" else (dpo, pairs(24))
    settings = dict(steps=10, lr=3e-3, batch=6, save_every=2)
    killed, resumed = [], []
    for step in (1, 7):
        child = os.fork()
        if child == 0:
            stop = lambda done, *_: os.kill(os.getpid(), signal.SIGKILL) if done == step else None  # noqa: B023, E731
            tune(folder, rows, home / "out", progress=stop, **settings)
            os._exit(0)
        killed.append([os.WTERMSIG(os.waitpid(child, 0)[1]), step, (home / "out").exists()])
    tune(folder, rows, home / "out", on_resume=resumed.append, **settings)
    tune(folder, rows, home / "whole", **settings)
    (home / "told.json").write_text(json.dumps({"killed": killed, "resumed": resumed}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
