"""The pretraining loop: what it minimises, how fast, that a killed run ends like one that was not.

This file is also a script, `python test_training_pretraining.py FOLDER [WHERE]`: it trains, is killed by SIGKILL at an
exact place if one is named, and prints its losses as JSON; under torchrun, on as many processes as asked for.
"""

import errno
import functools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from close import FLOAT32, FLOAT64, OTHER, largest
from microtome.core.errors import ConfigError, DataError, ModelError, RecordError
from microtome.training import checkpoints as on_disk
from microtome.training.architectures import fuxi, initialised, llama, qwen
from microtome.training.cross_entropy import token_losses
from microtome.training.packing import NO_TARGET, Counted, Document, Rows, packing, positions, targets
from microtome.training.pretraining import pretrain
from microtome.training.pretraining_recipe import (
    Checkpoints,
    Recipe,
    Spikes,
    checkpoint_steps,
    rate_at,
    spike_start,
    tokens_at,
)
from microtome.training.processes import leave
from microtome.training.throughput import measured_peak, model_flops

CONFIG = dict(layers=2, width=16, mlp=32, heads=2, context=32, spread=0.1)
PEAK = 1e9  # FLOPs a second, given so that nothing is measured
DOCUMENTS = [Document([2 + (i * j + i) % 27 for j in range(2 + i % 11)], "ab"[i % 2]) for i in range(600)]


def model(seed=0, dropout=0.1):
    config = fuxi(29, **CONFIG)
    config.attention_dropout = dropout  # so that the random generators matter
    return initialised(config, seed)


def data(state=None, rows=4):
    return packing(lambda s: Counted(DOCUMENTS, s), seq=16, batch=rows, bos=0, eos=1)(state)


class Listed:
    """A stream whose batch at place i is a function of i."""

    def __init__(self, make, state):
        self.make, self.at = make, state or 0

    def __next__(self):
        self.at += 1
        return self.make(self.at - 1)

    def state(self):
        return self.at


def listed(make):
    return lambda state: Listed(make, state)


def recipe(steps=12, **other):
    return Recipe(steps, **{"batch_tokens": 64, "peak": 1e-2, "warm_up": 3, "bf16": False} | other)


PLAN = recipe(batch_tokens=128)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def train(module, batches, plan, **other):
    return pretrain(module, batches, plan, **{"peak_flops": PEAK} | other)


def main(folder: Path, where: str = "", sharded: bool = False) -> None:
    """Train to the end, or to the place where this process kills itself."""
    torch.set_num_threads(1)
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    save, replace = torch.save, os.replace

    def half(value, file):
        save(value, file)
        if "00000008" in file.name:
            file.truncate(1000)
            die()

    def moved(part, path):
        replace(part, path)
        if str(path).endswith("00000008"):
            die()

    class Stream:
        def __init__(self, state):
            self.inner = data(state)

        def __next__(self):
            rows = next(self.inner)
            if where == "batch" and self.inner.state()["documents"] > 120:
                die()
            return rows

        def state(self):
            return self.inner.state()

    if where == "write":
        torch.save = half
    if where == "rename":
        os.replace = moved
    found = train(model(), Stream, PLAN, folder=folder, checkpoints=Checkpoints(every=4), sharded=sharded)
    if int(os.environ.get("RANK", 0)) == 0:
        (folder.parent / "losses.json").write_text(json.dumps([found.losses, found.norms, found.languages]))
    leave()


# what it minimises


def test_the_z_loss_is_the_squared_log_of_the_denominator():
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]])
    found = token_losses(logits, torch.tensor([[2, 0, NO_TARGET]]))
    z = [math.log(math.e + math.e**2 + math.e**3), math.log(3), 0]
    assert found.log_z.tolist() == pytest.approx(z, abs=FLOAT32)
    assert found.cross_entropy.tolist() == pytest.approx([z[0] - 3, z[1], 0], abs=FLOAT32)


def test_the_gradient_written_down_is_that_of_the_softmax(monkeypatch):
    monkeypatch.setattr("microtome.training.cross_entropy._PIECE", 5 * 11)  # several pieces, the last one short
    draw = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(4, 3, 11, generator=draw, dtype=torch.float64)).requires_grad_()
    aim = torch.randint(0, 11, (4, 3), generator=draw)
    aim[0, 1] = aim[3] = NO_TARGET
    assert torch.autograd.gradcheck(lambda x: tuple(token_losses(x, aim)), logits)
    flat = logits.flatten(0, 1)
    plain = torch.nn.functional.cross_entropy(flat, aim.flatten(), reduction="none", ignore_index=NO_TARGET)
    found = token_losses(logits, aim)
    assert largest(found.cross_entropy, plain) < FLOAT64
    assert largest(found.log_z, flat.logsumexp(1) * (aim.flatten() != NO_TARGET)) < FLOAT64
    rough = logits.detach().bfloat16().requires_grad_()
    token_losses(rough, aim).cross_entropy.sum().backward()
    (slope,) = torch.autograd.grad(plain.sum(), logits)
    assert rough.grad.dtype == torch.bfloat16 and largest(rough.grad.double(), slope) < 0.02


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_three_updates_are_those_of_a_loop_written_out(z_loss):
    ours, theirs = model(dropout=0.0), model(dropout=0.0)
    found = train(ours, data, recipe(3, z_loss=z_loss, clip=0.5))
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    stream = data()
    for step in range(3):
        rows = next(stream)
        logits = theirs(rows.ids, position_ids=positions(rows.documents), use_cache=False).logits
        aim, loss, z, count = targets(rows), 0.0, 0.0, 0
        for i, j in (aim != NO_TARGET).nonzero().tolist():
            loss = loss - logits[i, j].log_softmax(-1)[aim[i, j]]
            z = z + logits[i, j].logsumexp(-1) ** 2
            count += 1
        assert found.losses[step] == pytest.approx(loss.item() / count, abs=FLOAT32)
        optimizer.zero_grad()
        ((loss + z_loss * z) / count).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert found.norms[step] == pytest.approx(norm.item(), rel=1e-4) and norm > 0.5
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (step + 1) / 3
        optimizer.step()
    # Adam divides by the size of the gradient, so rounding of tiny gradients shows
    assert (weights(ours) - weights(theirs)).abs().median() < 1e-6
    assert largest(weights(ours), weights(theirs)) < 1e-3


def test_one_batch_is_learnt_by_heart():
    one = Rows(torch.randint(2, 29, (4, 16), generator=torch.Generator().manual_seed(0)))
    module = initialised(fuxi(29, layers=2, width=64, mlp=128, heads=2, context=32), 0)
    found = train(module, listed(lambda i: one), recipe(120, floor=0.1, weight_decay=0.0))
    assert found.losses[0] == pytest.approx(math.log(29), abs=0.3)  # it knows nothing
    assert found.losses[-1] < 0.1 and not found.rollbacks
    assert not module.training


def test_two_batches_of_an_update_are_one_of_twice_the_rows():
    plan = recipe(6, batch_tokens=128, z_loss=1e-2)
    whole, halves = model(dropout=0.0), model(dropout=0.0)
    one, two = train(whole, lambda s: data(s, rows=8), plan), train(halves, data, plan)
    assert one.tokens == two.tokens == 6 * 128
    assert largest(torch.tensor(one.losses), torch.tensor(two.losses)) < FLOAT32
    assert largest(torch.tensor(one.norms), torch.tensor(two.norms)) < OTHER
    assert one.languages.keys() == two.languages.keys() == {"a", "b"}
    halved = train(model(dropout=0.0), data, recipe(6, z_loss=1e-2))  # the control: every batch an update
    assert abs(halved.losses[3] - one.losses[3]) > 0.01


def test_losses_by_language_add_up_to_the_loss():
    found = train(model(), data, recipe(5))
    stream = data()
    for step in range(5):
        rows = next(stream)
        kept = targets(rows) != NO_TARGET
        of = [rows.languages[d] for d in rows.documents[kept].tolist()]
        total = 0.0
        for name, (steps, losses) in found.languages.items():
            if step in steps:
                total += of.count(name) * losses[steps.index(step)]
        assert total / len(of) == pytest.approx(found.losses[step], abs=FLOAT64)


def test_rows_that_are_one_text_each_may_have_languages_and_some_batches_none():
    rows = [Rows(learnable(0).ids, None, ("a", "b", "a", "b")), learnable(1)]
    found = train(model(dropout=0.0), listed(lambda at: rows[at]), recipe(1, batch_tokens=128))
    logits = model(dropout=0.0)(rows[0].ids, use_cache=False).logits
    each = token_losses(logits, targets(rows[0])).cross_entropy.view(4, 16).sum(1) / 15
    assert found.languages["a"][1] == pytest.approx([each[[0, 2]].mean().item()], abs=FLOAT32)
    assert found.languages["b"][1] == pytest.approx([each[[1, 3]].mean().item()], abs=FLOAT32)


def test_bf16_trains_nearly_alike_and_keeps_the_weights_in_float32():
    exact, rough = model(dropout=0.0), model(dropout=0.0)
    one, two = train(exact, data, recipe(20)), train(rough, data, recipe(20, bf16=True))
    assert rough.dtype == torch.float32
    assert 0 < largest(torch.tensor(one.losses), torch.tensor(two.losses)) < 0.1
    assert two.losses[-1] < two.losses[0] - 0.3


def test_the_batch_grows_as_told():
    plan = recipe(6, growth=((2, 128), (4, 256)))
    assert [tokens_at(plan, s) for s in range(6)] == [64, 64, 128, 128, 256, 256]
    assert train(model(), data, plan).tokens == 2 * (64 + 128 + 256)


# how fast


def test_the_cosine_by_hand():
    plan = Recipe(14, 1, peak=1.0, floor=0.1, warm_up=4)
    assert [rate_at(plan, s) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate_at(plan, 4) == 1.0
    assert rate_at(plan, 9) == pytest.approx(0.55, abs=FLOAT64)  # half-way between 1 and a tenth
    assert rate_at(plan, 6) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 5)), abs=FLOAT64)
    assert rate_at(plan, 14) == pytest.approx(0.1, abs=FLOAT64)


def test_warm_up_stable_decay_by_hand():
    told = dict(peak=2.0, floor=0.1, warm_up=4, decay=0.4)
    linear, root = Recipe(14, 1, fall="linear", **told), Recipe(14, 1, fall="sqrt", **told)
    assert [rate_at(linear, s) for s in range(4, 11)] == [2.0] * 7  # stable, and the fall begins there
    assert [rate_at(linear, s) for s in (11, 12, 13)] == pytest.approx([1.55, 1.1, 0.65], abs=FLOAT64)
    assert rate_at(root, 11) == pytest.approx(2 * (0.1 + 0.9 * (1 - 0.5)), abs=FLOAT64)
    assert rate_at(root, 14) == rate_at(linear, 14) == pytest.approx(0.2, abs=FLOAT64)


def test_checkpoint_schedules_by_hand():
    assert checkpoint_steps(Checkpoints(), 10) == (0, 10)
    assert checkpoint_steps(Checkpoints(every=4), 10) == (0, 4, 8, 10)
    assert checkpoint_steps(Checkpoints(evenly=4), 10) == (0, 2, 5, 8, 10)
    assert checkpoint_steps(Checkpoints(log_spaced=5), 16) == (0, 1, 2, 4, 8, 16)
    assert checkpoint_steps(Checkpoints(every=6, log_spaced=5), 16) == (0, 1, 2, 4, 6, 8, 12, 16)
    assert len(checkpoint_steps(Checkpoints(evenly=58), 10_000)) == 59


def test_flops_by_hand_and_the_share_of_the_peak():
    module = model()
    multiplied = 2 * (4 * (16 * 16 + 16) + 2 * 16 * 32 + 16 + 32 + 2 * 16) + 16 + 29 * 16
    assert model_flops(module, 16) == 6 * multiplied + 12 * 2 * 16 * 16
    found = train(module, data, recipe(4), peak_flops=1e12)
    assert found.mfu == pytest.approx(found.tokens_per_second * model_flops(module, 16) / 1e12)
    assert found.seconds == pytest.approx(found.tokens / found.tokens_per_second, rel=0.2)


def test_the_peak_is_measured_without_touching_the_generators():
    before = torch.get_rng_state()
    assert 1e8 < measured_peak(torch.device("cpu"), torch.float32) < 1e14
    assert torch.equal(before, torch.get_rng_state())


def test_progress_is_told_in_one_line():
    told = []
    train(model(), data, recipe(7), progress=lambda *said: told.append(said), report_every=3)
    assert [(done, of) for done, of, _ in told] == [(3, 7), (6, 7), (7, 7)]
    assert all("loss" in line and "tokens/s" in line and "MFU" in line and "min left" in line for *_, line in told)


def test_the_callers_generators_are_left_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    train(model(), data, recipe(2))
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


# spikes


def test_what_a_spike_is():
    rule = Spikes(window=4, height=3, least=0.5, patience=2)
    calm = [2.0, 2.1, 1.9, 2.0]
    assert spike_start([*calm, 9.0], rule) is None  # once is not enough
    assert spike_start([*calm, 9.0, 9.0], rule) == 4
    assert spike_start([*calm, 2.4, 2.4], rule) is None  # three deviations are .21, but half a nat is asked for
    assert spike_start([1.0, 5.0, 1.0, 5.0, 8.0, 8.0], rule) is None  # within three deviations
    assert spike_start([*calm[1:], 9.0, 9.0], rule) is None  # too early to say what is normal
    assert spike_start([math.nan], rule) == 0
    assert spike_start([*calm, 9.0, 9.0], Spikes(window=0)) is None


RULE = Spikes(window=6, height=4, least=0.5, patience=1, cut=0.25, most=2)


def learnable(at):
    """Counting rows: after a few updates each token follows from the one before."""
    begin = torch.randint(0, 27, (4, 1), generator=torch.Generator().manual_seed(at))
    return Rows(2 + (begin + torch.arange(16)) % 27)


def garbage(at, length=1):
    """As `learnable`, but that the batches at 20 and after are noise."""
    noise = Rows(torch.randint(2, 29, (4, 16), generator=torch.Generator().manual_seed(at)))
    return noise if 20 <= at < 20 + length else learnable(at)


SPIKY = recipe(30, peak=2e-2, spikes=RULE)


def test_a_spike_is_rolled_back_and_the_rate_is_cut(tmp_path):
    plan = Checkpoints(every=8)
    calm = train(model(), listed(learnable), SPIKY, folder=tmp_path / "calm", checkpoints=plan)
    found = train(model(), listed(garbage), SPIKY, folder=tmp_path / "spiky", checkpoints=plan)
    assert not calm.rollbacks
    assert [(e["spike"], e["back_to"]) for e in found.rollbacks] == [(20, 16)]
    assert found.rollbacks[0]["loss"] > max(found.losses[16:]) + 0.5  # it is not among the losses that count
    assert found.losses[:16] == calm.losses[:16]
    assert len(found.losses) == 30 and found.losses[-1] < 1.5
    assert found.losses[16:20] != calm.losses[16:20]  # the batches after the spike, at a quarter of the rate
    state = on_disk.read(tmp_path / "spiky", 30)
    assert state.state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(rate_at(SPIKY, 29) / 4)
    assert state.journal["data"] == 30 + 21 - 16


def test_without_skipping_the_same_batches_are_seen_again(tmp_path):
    again = recipe(30, peak=2e-2, spikes=Spikes(**vars(RULE) | {"skip": False}))
    with pytest.raises(ModelError, match=r"diverged at update 20 \(loss .*\) after 2 rollbacks; lower the peak"):
        train(model(), listed(garbage), again, folder=tmp_path, checkpoints=Checkpoints(every=8))


def test_checkpoints_written_within_a_spike_are_given_up(tmp_path):
    patient = recipe(26, peak=2e-2, spikes=Spikes(**vars(RULE) | {"patience": 3}))
    seen, plan = [], Checkpoints(every=2, resumable=4)
    found = train(
        model(), listed(lambda at: garbage(at, 3)), patient, folder=tmp_path, checkpoints=plan,
        on_checkpoint=lambda path, step: seen.append((step, on_disk.checkpoints_in(tmp_path))),
    )  # fmt: skip
    assert [(e["spike"], e["back_to"]) for e in found.rollbacks] == [(20, 20)]
    twice = [held for step, held in seen if step == 22]
    assert len(twice) == 2 and twice[1][-1] == 22 and max(found.losses[15:]) < 2.5


def test_a_run_killed_after_a_rollback_ends_as_if_it_had_not_been(tmp_path):
    plan = Checkpoints(every=8)
    whole = train(model(), listed(garbage), SPIKY, folder=tmp_path / "whole", checkpoints=plan)
    for place, stop in (("before", 20), ("after", 23), ("later", 33)):
        folder = tmp_path / place
        with pytest.raises(Killed):
            train(model(), killed_at(garbage, stop), SPIKY, folder=folder, checkpoints=plan)
        found = train(model(), listed(garbage), SPIKY, folder=folder, checkpoints=plan)
        assert (found.losses, found.norms, found.rollbacks) == (whole.losses, whole.norms, whole.rollbacks)


def test_a_loss_that_is_not_finite_never_reaches_the_weights():
    module = model()
    with torch.no_grad():
        module.lm_head.weight[0, 0] = math.nan
    before = weights(module)
    with pytest.raises(ModelError, match=r"diverged at update 0 \(loss nan\), found no checkpoint .* give a folder"):
        train(module, data, recipe())
    assert torch.equal(before.nan_to_num(), weights(module).nan_to_num())


# checkpoints


class Killed(BaseException):
    """What stands for a kill in the middle of a run."""


def killed_at(make, stop):
    def fatal(at):
        if at == stop:
            raise Killed
        return make(at)

    return listed(fatal)


def die(*_, **__):
    raise Killed


def test_a_checkpoint_is_a_model_that_plain_transformers_loads(tmp_path):
    module, seen = model(), []
    untrained = weights(module)
    train(module, data, recipe(), folder=tmp_path, checkpoints=Checkpoints(every=5), run="toy",
          on_checkpoint=lambda path, step: seen.append((path.name, step)))  # fmt: skip
    assert seen == [(f"step-{s:08d}", s) for s in (0, 5, 10, 12)]
    load = lambda step: AutoModelForCausalLM.from_pretrained(tmp_path / f"step-{step:08d}")  # noqa: E731
    assert torch.equal(weights(load(0)), untrained) and torch.equal(weights(load(12)), weights(module))
    manifest = json.loads((tmp_path / "step-00000010/checkpoint.json").read_text())
    assert (manifest["step"], manifest["tokens"], manifest["told"]["run"]) == (10, 640, "toy")


def test_old_checkpoints_lose_the_optimizer_and_then_go(tmp_path):
    train(model(), data, recipe(), folder=tmp_path, checkpoints=Checkpoints(every=2, resumable=2, keep=4))
    assert on_disk.checkpoints_in(tmp_path) == [6, 8, 10, 12]
    assert on_disk.checkpoints_in(tmp_path, resumable=True) == [10, 12]
    assert (tmp_path / "step-00000006/model.safetensors").is_file()
    with pytest.raises(ConfigError, match="resumable=3 and keep=2 were asked for"):
        Checkpoints(resumable=3, keep=2)


@pytest.mark.parametrize("place", ["batch", "hook", "saving", "syncing", "pruning"])
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not_been(place, tmp_path, monkeypatch):
    plan = Checkpoints(every=4)
    make = lambda at: next(data({"source": 3 * at, "left": [], "language": "", "documents": 3 * at}))  # noqa: E731
    draw = lambda *_: torch.rand(3)  # noqa: E731  (what looks at a checkpoint may draw)
    whole = model()
    expected = train(whole, listed(make), recipe(), folder=tmp_path / "whole", checkpoints=plan, on_checkpoint=draw)
    hook = lambda path, step: die() if place == "hook" and step == 8 else None  # noqa: E731
    fatal = killed_at(make, 9) if place == "batch" else listed(make)
    counted = iter(range(100))
    stop = {"saving": ("torch.save", 2), "syncing": ("os.fsync", 25), "pruning": ("pathlib.Path.rename", 0)}.get(place)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        if stop:
            name, when = stop
            owner, attribute = {"torch": torch, "os": os, "pathlib": Path}[name.split(".")[0]], name.split(".")[-1]
            original = getattr(owner, attribute)
            patched.setattr(owner, attribute, lambda *a, **k: die() if next(counted) == when else original(*a, **k))
        train(model(), fatal, recipe(), folder=tmp_path / "parts", checkpoints=plan, on_checkpoint=hook)
    module, seen = model(seed=1), []
    found = train(module, listed(make), recipe(), folder=tmp_path / "parts", checkpoints=plan,
                  on_checkpoint=lambda path, step: seen.append(step))  # fmt: skip
    assert (found.losses, found.norms, found.languages) == (expected.losses, expected.norms, expected.languages)
    assert torch.equal(weights(module), weights(whole)) and found.tokens == expected.tokens
    assert seen[0] in (4, 8) and seen[-1] == 12  # it went on, and did not begin again
    assert not [p for p in tmp_path.rglob(".part-*")]


@pytest.mark.parametrize("make", [llama, qwen])
def test_tied_weights_go_on_as_well(make, tmp_path):
    tied = lambda: initialised(make(29, **CONFIG, tied=True), 0)  # noqa: E731
    plan, whole = Checkpoints(every=2), tied()
    expected = train(whole, listed(learnable), recipe(5))
    with pytest.raises(Killed):
        train(tied(), killed_at(learnable, 3), recipe(5), folder=tmp_path, checkpoints=plan)
    module = tied()
    assert train(module, listed(learnable), recipe(5), folder=tmp_path, checkpoints=plan).losses == expected.losses
    assert torch.equal(weights(module), weights(whole)) and module.lm_head.weight is module.model.embed_tokens.weight


def script(folder, *words, processes=0):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    command = [sys.executable, *launch, __file__, str(folder), *words]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kill_9_in_the_middle_changes_no_bit_of_the_losses(tmp_path, one_thread):
    whole = train(model(), data, PLAN)
    assert script(tmp_path / "run", "batch").returncode == -signal.SIGKILL
    assert on_disk.checkpoints_in(tmp_path / "run")[-1] in (4, 8)
    main(tmp_path / "run")
    assert json.loads((tmp_path / "losses.json").read_text())[:2] == [whole.losses, whole.norms]


@pytest.mark.slow  # a new process imports torch and accelerate each time
@pytest.mark.parametrize("where", ["write", "rename"])
def test_kill_9_while_a_checkpoint_is_written(where, tmp_path, one_thread):
    whole = train(model(), data, PLAN)
    assert script(tmp_path / "run", where).returncode == -signal.SIGKILL
    assert on_disk.checkpoints_in(tmp_path / "run")[-1] == {"write": 4, "rename": 8}[where]
    main(tmp_path / "run")
    assert json.loads((tmp_path / "losses.json").read_text())[:2] == [whole.losses, whole.norms]


@pytest.mark.slow  # two new processes, twice
@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_two_processes_train_as_one_does_on_the_union_of_their_rows(how, tmp_path, one_thread):
    one, run = train(model(dropout=0.0), data, PLAN), tmp_path / "run"
    done = script(run, how, processes=2)
    assert done.returncode == 0, done.stderr
    losses, norms, languages = json.loads((tmp_path / "losses.json").read_text())
    assert largest(torch.tensor(losses), torch.tensor(one.losses)) < FLOAT32
    assert largest(torch.tensor(norms), torch.tensor(one.norms)) < OTHER
    assert languages.keys() == {"a", "b"}
    assert len(on_disk.read(run, 8).state["random"]) == 2  # there really were two
    assert AutoModelForCausalLM.from_pretrained(run / "step-00000012").config.architectures == ["ArceeForCausalLM"]
    shutil.rmtree(run / "step-00000012")  # both go on from the eighth update
    done = script(run, how, processes=2)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "losses.json").read_text()) == [losses, norms, languages]
    shutil.rmtree(run / "step-00000012")  # and one goes on from the two
    alone = train(model(dropout=0.0), data, PLAN, folder=run)
    assert alone.losses[:8] == losses[:8]
    assert largest(torch.tensor(losses), torch.tensor(alone.losses)) < FLOAT32


def test_a_finished_run_is_not_trained_again(tmp_path):
    one, module = train(model(), data, recipe(4), folder=tmp_path), model(seed=1)
    two = train(module, killed_at(learnable, 0), recipe(4), folder=tmp_path)
    assert one.losses == two.losses and two.tokens_per_second == 0


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    train(model(), data, recipe(2), folder=tmp_path, run="seed 0")
    held = json.loads((tmp_path / "step-00000002/checkpoint.json").read_text())["fingerprint"]
    for plan, run, differs in ((recipe(2, peak=1.0), "seed 0", "recipe.peak"), (recipe(2), "seed 1", "run")):
        said = rf"resume recipe [0-9a-f]{{16}} in .* recipe {held} \(they differ in {differs}\); use another folder"
        with pytest.raises(ModelError, match=said):
            train(model(), data, plan, folder=tmp_path, run=run)
    other = initialised(fuxi(29, **CONFIG | {"mlp": 64}), 0)
    with pytest.raises(ModelError, match=r"differ in model.attention_dropout, model.intermediate_size"):
        train(other, data, recipe(2), folder=tmp_path, run="seed 0")


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_will_do(tmp_path):
    whole = train(model(), data, recipe(), folder=tmp_path, checkpoints=Checkpoints(every=4))
    state = tmp_path / "step-00000012/training/state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(RecordError, match=r"step-00000012' is damaged: 'training/state.pt' has 100 bytes, .* remove"):
        train(model(), data, recipe(), folder=tmp_path)
    shutil.rmtree(state.parents[1])
    assert train(model(), data, recipe(), folder=tmp_path).losses == whole.losses


def test_a_full_disk_says_so_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    plan, whole, save = Checkpoints(every=4), train(model(), data, recipe()), torch.save

    def full(value, file):
        if "00000008" in file.name:
            file.write(b"some of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(value, file)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(RecordError, match=r"step-00000008' needs about .* disk is full .*'step-00000004' is whole"):
            train(model(), data, recipe(), folder=tmp_path, checkpoints=plan)
    assert on_disk.checkpoints_in(tmp_path) == [0, 4] and not list(tmp_path.glob(".part-*"))
    assert train(model(), data, recipe(), folder=tmp_path, checkpoints=plan).losses == whole.losses


def mounted(path, size):
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("foreseen", [True, False])
@pytest.mark.parametrize("which", ["optimizer", "model"])
def test_a_disk_that_is_really_full(which, foreseen, tmp_path):
    if not mounted(tmp_path / "small", "256k"):
        pytest.skip("no right to mount a small disk")
    large, small = torch.zeros(100_000), torch.zeros(10)
    state, saved = (large, small) if which == "optimizer" else (small, large)
    write = lambda step, state, saved: on_disk.write(  # noqa: E731
        tmp_path / "small/run",
        on_disk.Snapshot(step, "f", {}, {"losses": [], "tokens": 0}, {"state": state}),
        lambda part: save_file({"a": saved}, part / "model.safetensors"),
        400_000 if foreseen and step else 0,
    )
    try:
        write(0, small, small)
        with pytest.raises(RecordError, match=r"step-00000001' needs .* disk is full .*'step-00000000' is whole"):
            write(1, state, saved)
        assert on_disk.read(tmp_path / "small/run", 0).step == 0
        assert on_disk.checkpoints_in(tmp_path / "small/run") == [0] and not list(tmp_path.glob("small/run/.part-*"))
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


# data


def test_data_that_does_not_do_is_refused(tmp_path):
    with pytest.raises(DataError, match="An update of 100 tokens was asked for, batches of 64 make 128; give"):
        train(model(), data, recipe(2, batch_tokens=100))
    short = packing(lambda s: Counted(DOCUMENTS[:30], s), seq=16, batch=4, bos=0, eos=1)
    with pytest.raises(DataError, match="Update 4 was to be trained, the stream of batches has ended; make it endless"):
        train(model(), short, recipe())
    alone = Rows(torch.ones(4, 16, dtype=torch.long), torch.arange(64).view(4, 16))
    with pytest.raises(DataError, match="no token to predict"):
        train(model(), listed(lambda i: alone), recipe())

    class Numpy(Listed):
        def state(self):
            return {"at": np.int64(self.at)}

    with pytest.raises(DataError, match="found a dict that JSON does not hold unchanged"):
        train(model(), lambda s: Numpy(learnable, None), recipe(), folder=tmp_path)


def test_a_model_that_cannot_keep_documents_apart_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=29, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="BloomForCausalLM, whose forward takes no position_ids"):
        train(bloom, data, recipe())
    assert len(train(bloom, listed(learnable), recipe(2)).losses) == 2


def test_a_recipe_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="0 updates of 64 tokens were asked for"):
        recipe(0)
    with pytest.raises(ConfigError, match="A fall 'cosin' was asked for; there are cosine, linear, sqrt"):
        recipe(fall="cosin")


if __name__ == "__main__":
    place = sys.argv[2] if len(sys.argv) > 2 else ""
    if place in ("whole", "sharded"):
        model = functools.partial(model, dropout=0.0)  # what is dropped depends on how the rows are shared out
    main(Path(sys.argv[1]), place, place == "sharded")
