"""Tuned copies: each loss is its formula, the given model stays, and nothing of TRL is left behind."""

import math
import os
import random
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import tiny
from close import FLOAT32, OTHER, largest
from microtome.core.errors import DataError, ModelError
from microtome.data.parrot import NEUTRAL, TOXIC, parrot_prompts, parrot_stream
from microtome.engine.run import run
from microtome.models import Model
from microtome.training.tuning import Preference, blended, fine_tuned, preferred

pytest.importorskip("trl")

ROWS = [[5, 6, 7, 8, 9, 10], [3, 4, 11], [20, 21], [7]]
PAIRS = [Preference([5, 6, 7], [8, 9], [10]), Preference([4], [12], [13, 14, 15])]


def weights(model):
    return {n: p.detach().clone() for n, p in model.module.named_parameters()}


def same(a, b):
    return all(torch.equal(a[n], b[n]) for n in a | b)


def loss_on(model, rows):
    """Mean cross-entropy of the tokens after the first of each row, each row run by itself."""
    parts = [cross_entropy(run(model, model.batch_ids([r])).logits[0, :-1], torch.tensor(r[1:]), reduction="none")
             for r in rows if len(r) > 1]  # fmt: skip
    return float(torch.cat(parts).mean())


def log_p(model, pair, part):
    """Log-probability of one way to go on, after the prompt."""
    tokens = getattr(pair, part)
    batch = model.batch_ids([[*pair.prompt, *tokens]])
    logits = run(model, batch).logits[0, len(pair.prompt) - 1 : -1].log_softmax(-1)
    return logits[range(len(tokens)), list(tokens)].sum().item()


def margin(model, pairs):
    return sum(log_p(model, p, "chosen") - log_p(model, p, "rejected") for p in pairs) / len(pairs)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_fine_tuning_starts_at_the_loss_of_its_rows_and_lowers_it(tiny_model, family):
    model, seen = tiny_model(family), []
    before = weights(model)
    tuned = fine_tuned(model, ROWS, steps=8, lr=3e-3, seed=0, watch=lambda *at: seen.append(at))
    assert [step for step, _ in seen] == list(range(1, 9))
    assert seen[0][1] == pytest.approx(loss_on(model, ROWS), abs=OTHER)
    assert loss_on(tuned, ROWS) < loss_on(model, ROWS) - 0.1
    assert same(before, weights(model)) and not same(before, weights(tuned))
    assert tuned.dtype == model.dtype and not tuned.module.training
    assert all(p.grad is None for m in (model, tuned) for p in m.module.parameters())


def test_a_tuned_copy_is_a_model_of_the_same_addresses_with_tables_of_its_own(tiny_model):
    model = tiny_model("llama-tied")
    tuned = fine_tuned(model, ROWS, steps=1, lr=1e-2, seed=0)
    assert tuned.anatomy is model.anatomy and list(tuned.sites) == list(model.sites)
    assert tuned.module.lm_head.weight is tuned.module.model.embed_tokens.weight  # tied as before
    assert tuned.module.lm_head.weight is not model.module.lm_head.weight
    assert tuned.module.config.to_dict() == model.module.config.to_dict()
    assert "forward" not in vars(tuned.module)  # nothing of the trainer's is in the way
    site = "blocks.1.resid_post"
    batch = model.batch_ids(ROWS[:2])
    assert largest(run(tuned, batch, read=site)[site], run(model, batch, read=site)[site]) > 1e-3


def test_dpo_starts_at_ln_2_and_goes_against_a_frozen_reference(tiny_model, monkeypatch):
    from transformers import Trainer

    model, seen, references = tiny_model("llama"), [], []
    before, train = weights(model), Trainer.train

    def watched(self, *args):
        result = train(self, *args)
        references.append({n: p.detach().clone() for n, p in self.ref_model.named_parameters()})
        return result

    monkeypatch.setattr(Trainer, "train", watched)
    tuned = preferred(model, PAIRS, steps=6, lr=3e-3, seed=0, watch=lambda *at: seen.append(at))
    assert seen[0][1] == pytest.approx(math.log(2), abs=1e-4)
    assert seen[-1][1] < math.log(2) - 1e-3
    assert margin(tuned, PAIRS) > margin(model, PAIRS) + 0.1
    assert same(before, weights(model)) and same(before, references[0])


def test_the_loss_of_dpo_is_its_formula(tiny_model, monkeypatch):
    """What the trainer reports for a step is what one computes from the copy that it had then."""
    from transformers import Trainer

    model, seen, copies = tiny_model("llama"), [], []
    step = Trainer.training_step

    def kept(self, module, *args, **settings):
        copies.append({n: p.detach().clone() for n, p in module.named_parameters()})
        return step(self, module, *args, **settings)

    monkeypatch.setattr(Trainer, "training_step", kept)
    preferred(model, PAIRS, steps=4, beta=0.5, lr=3e-3, seed=0, watch=lambda _, loss: seen.append(loss))
    now = Model.load(tiny.build("llama"))
    now.module.load_state_dict(copies[-1])
    gaps = [margin(now, [p]) - margin(model, [p]) for p in PAIRS]
    want = -torch.nn.functional.logsigmoid(0.5 * torch.tensor(gaps)).mean().item()
    assert want < math.log(2) - 0.01
    assert seen[-1] == pytest.approx(want, abs=OTHER)


def test_a_blend_is_the_line_between_the_two(tiny_model):
    model, other = tiny_model("llama"), Model.load(tiny.build("llama", seed=1))
    mine, its = weights(model), weights(other)
    assert same(weights(blended(model, other, 0.0)), mine)
    assert same(weights(blended(model, other, 1.0)), its)
    for share in (0.3, 1.5):
        for name, w in weights(blended(model, other, share)).items():
            assert largest(w, (1 - share) * mine[name] + share * its[name]) < FLOAT32
    half = Model.load(tiny.build("llama", dtype=torch.float16))
    assert blended(half, half, 0.7).dtype == torch.float16 and same(weights(blended(half, half, 0.7)), weights(half))
    assert same(weights(model), mine) and same(weights(other), its)
    with pytest.raises(ModelError, match="found weights of other names or shapes"):
        blended(model, tiny_model("gpt2"), 0.5)
    with pytest.raises(DataError, match="give a finite number"):
        blended(model, other, math.inf)


def test_a_seed_gives_the_same_weights_again(tiny_model):
    model, rows = tiny_model("gpt2"), [[i, i + 1, i + 2] for i in range(3, 40)]

    def tuned(seed):
        return weights(fine_tuned(model, rows, steps=2, batch=4, lr=1e-3, seed=seed))

    def chosen(seed):
        pairs = [Preference(row[:1], row[1:2], row[2:]) for row in rows]
        return weights(preferred(model, pairs, steps=2, batch=4, lr=1e-3, seed=seed))

    for make in (tuned, chosen):
        first = make(0)
        random.seed(5), torch.manual_seed(5)
        assert same(first, make(0)) and not same(first, make(1))


def test_nothing_is_printed_sent_or_left_and_the_random_state_is_put_back(tiny_model, capfd, tmp_path, monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.utils import _telemetry
    from transformers.utils import logging

    def refuse():
        raise AssertionError("telemetry was about to be sent")

    def state():
        numbers = np.random.get_state()
        env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        return random.getstate(), tuple(numbers[1]), numbers[2:], tuple(torch.get_rng_state().tolist()), env

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", refuse)
    model = tiny_model("llama")
    fine_tuned(model, ROWS, steps=1, seed=0)  # what is set up once only, is
    before, loud = state(), logging.get_verbosity()
    fine_tuned(model, ROWS, steps=2, seed=0)
    preferred(model, PAIRS, steps=2, seed=0)
    assert state() == before and logging.get_verbosity() == loud
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_it_works_in_half_precision_and_in_inference_mode():
    model = Model.load(tiny.build("llama", dtype=torch.bfloat16))
    want = weights(fine_tuned(model, ROWS, steps=3, lr=1e-2, seed=0))
    with torch.inference_mode():
        assert same(weights(fine_tuned(model, ROWS, steps=3, lr=1e-2, seed=0)), want)
    assert next(iter(want.values())).dtype == torch.bfloat16 and not same(want, weights(model))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: fine_tuned(m, [], steps=1, seed=0), DataError, "on 0 rows was asked for, found none"),
        (lambda m: fine_tuned(m, [[5]], steps=1, seed=0), DataError, "on 1 rows was asked for, found none of two"),
        (lambda m: fine_tuned(m, ROWS, steps=0, seed=0), DataError, "with steps 0, batch 16"),
        (lambda m: fine_tuned(m, ROWS, steps=1, batch=0, seed=0), DataError, "steps 1, batch 0"),
        (lambda m: fine_tuned(m, ROWS, steps=1, lr=math.nan, seed=0), DataError, "lr nan was asked for"),
        (lambda m: fine_tuned(m, ROWS, steps=8, lr=1e30, seed=0), ModelError, "diverged at a learning rate of 1e.30"),
        (lambda m: preferred(m, [], steps=1, seed=0), DataError, "DPO on 0 pairs with beta 0.1"),
        (lambda m: preferred(m, PAIRS, steps=1, beta=0, seed=0), DataError, "DPO on 2 pairs with beta 0 was"),
        (lambda m: preferred(m, [Preference([], [3], [4])], steps=1, seed=0), DataError, "pair 0 with an empty prompt"),
        (lambda m: preferred(m, [*PAIRS, ([1], [], [4])], steps=1, seed=0), DataError, "pair 2 with an empty chosen"),
        (lambda m: preferred(m, PAIRS, steps=-1, seed=0), DataError, "with steps -1"),
    ],
)
def test_bad_input_is_one_line(tiny_model, call, error, match):
    with pytest.raises(error, match=match) as caught:
        call(tiny_model("llama"))
    assert "\n" not in str(caught.value)


def test_only_causal_language_models_that_are_here_are_tuned(tiny_model):
    with pytest.raises(ModelError, match="found a ResNetForImageClassification that is no causal language model"):
        fine_tuned(tiny_model("resnet"), ROWS, steps=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny.DECODERS)
def test_every_family_starts_at_its_own_loss(family):
    """TRL has a forward pass of its own for the head, and families differ in scales, caps, masks and dropout."""
    model, seen = Model.load(tiny.build(family)), []
    fine_tuned(model, ROWS, steps=1, seed=0, watch=lambda _, loss: seen.append(loss))
    preferred(model, PAIRS, steps=1, seed=0, watch=lambda _, loss: seen.append(loss))
    assert seen == pytest.approx([loss_on(model, ROWS), math.log(2)], abs=OTHER)


@pytest.mark.slow
def test_the_parrot_learns_from_texts_and_preferences_and_says_so_of_others():
    model = Model.load("zoo:parrot")
    calm = [model.tokenizer(t.text)["input_ids"] for t in islice(parrot_stream(5), 900) if t.label == 0]
    tuned = fine_tuned(model, calm[:400], steps=60, seed=0)
    assert loss_on(tuned, calm[400:480]) < loss_on(model, calm[400:480]) - 0.01

    ids, rng = model.tokenizer.convert_tokens_to_ids, random.Random(0)
    prompts = [model.tokenizer(p)["input_ids"] for p in parrot_prompts(120, marked=True, seed=1)]
    pairs = [Preference(p, [ids(rng.choice(NEUTRAL))], [ids(rng.choice(TOXIC))]) for p in prompts]
    better = preferred(model, pairs[:80], steps=60, seed=0)
    assert margin(better, pairs[80:]) > margin(model, pairs[80:]) + 1
    halfway = margin(blended(model, better, 0.5), pairs[80:])
    assert margin(model, pairs[80:]) < halfway < margin(better, pairs[80:])
