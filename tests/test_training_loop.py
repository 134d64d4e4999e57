"""The training loop: what it minimises, how fast, and that a killed run ends like one that was not."""

import logging
import math

import pytest
import torch

import tiny
from close import FLOAT32, FLOAT64, largest
from microtome.core.errors import DataError, ModelError
from microtome.training.loop import Batch, Schedule, learning_rate, train, weighted_loss


def llama(dtype=torch.float32):
    return tiny.build("llama", dtype=dtype)


def batch_of(step: int) -> Batch:
    """A batch that depends on the step alone."""
    draw = torch.Generator().manual_seed(step)
    ids = torch.randint(3, 61, (4, 9), generator=draw)
    return Batch(ids, (torch.rand(4, 9, generator=draw) > 0.5).float())


def weights(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def schedule(steps: int, **other) -> Schedule:
    return Schedule(steps, peak=1e-2, warm_up=3, checkpoint_every=2, **other)


def test_the_loss_is_weighted_cross_entropy_over_the_tokens_with_weight():
    module, batch = llama(torch.float64), batch_of(0)
    given = Batch(batch.ids, batch.weights * torch.linspace(0.5, 2, 9))
    logits = module(batch.ids, use_cache=False).logits.log_softmax(-1)
    total = mass = 0.0
    for row in range(4):
        for at in range(1, 9):
            weight = given.weights[row, at].item()
            total -= weight * logits[row, at - 1, batch.ids[row, at]].item()
            mass += weight
    assert weighted_loss(module, given).item() == pytest.approx(total / mass, abs=FLOAT32)  # the loss is in float32


def test_with_equal_weights_it_is_plain_cross_entropy():
    module, batch = llama(), batch_of(1)
    plain = torch.nn.functional.cross_entropy(
        module(batch.ids, use_cache=False).logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten()
    )
    assert largest(weighted_loss(module, Batch(batch.ids, torch.full((4, 9), 0.3))), plain) < FLOAT32


def test_tokens_without_weight_and_padding_behind_change_neither_loss_nor_gradient():
    module, batch = llama(), batch_of(2)
    longer = Batch(
        torch.cat([batch.ids, torch.randint(3, 61, (4, 3))], 1), torch.cat([batch.weights, torch.zeros(4, 3)], 1)
    )
    grads = []
    for given in (batch, longer):
        module.zero_grad()
        loss = weighted_loss(module, given)
        loss.backward()
        grads.append((loss.detach(), torch.cat([p.grad.flatten() for p in module.parameters()])))
    assert largest(grads[0][0], grads[1][0]) < FLOAT32 and largest(grads[0][1], grads[1][1]) < FLOAT32
    other = Batch(batch.ids, 1 - batch.weights)
    assert largest(weighted_loss(module, other).detach(), grads[0][0]) > 100 * FLOAT32


def test_a_batch_without_weight_is_refused():
    only_first = torch.zeros(4, 9)
    only_first[:, 0] = 1
    with pytest.raises(DataError, match=r"batch of shape \[4, 9\]; found no target with weight above 0"):
        weighted_loss(llama(), Batch(batch_of(0).ids, only_first))


def test_the_learning_rate_by_hand():
    plan = Schedule(steps=10, peak=1.0, floor=0.1, warm_up=4)
    assert [learning_rate(plan, s) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(plan, 4) == 1.0  # the cosine starts at the peak
    assert learning_rate(plan, 7) == pytest.approx(0.1 + 0.9 / 2, abs=FLOAT64)  # half-way
    assert learning_rate(plan, 5) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 6)), abs=FLOAT64)
    assert learning_rate(plan, 10) == pytest.approx(0.1, abs=FLOAT64)
    assert all(learning_rate(plan, s) > learning_rate(plan, s + 1) for s in range(4, 10))
    late = Schedule(steps=14, peak=1.0, floor=0.1, warm_up=4, decay=0.4)
    assert [learning_rate(late, s) for s in (4, 9, 10)] == [1.0, 1.0, 1.0]
    assert learning_rate(late, 12) == pytest.approx(0.1 + 0.9 / 2, abs=FLOAT64)


def test_training_lowers_the_loss_and_leaves_the_model_in_eval_mode():
    module = llama()
    before = weighted_loss(module, batch_of(0)).item()
    train(module, lambda step: batch_of(0), schedule(30))
    assert weighted_loss(module, batch_of(0)).item() < 0.5 * before
    assert not module.training


class Killed(Exception):
    """What stands for a kill in the middle of a run."""


def killed_at(step: int):
    def batches(asked: int) -> Batch:
        if asked == step:
            raise Killed
        return batch_of(asked)

    return batches


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path):
    whole, parts, checkpoint = llama(), llama(), tmp_path / "checkpoint.pt"
    train(whole, batch_of, schedule(9))
    with pytest.raises(Killed):
        train(parts, killed_at(7), schedule(9), run="a", checkpoint=checkpoint)
    parts = llama()  # a new process begins from the initial weights
    asked = []
    seconds = train(parts, lambda s: asked.append(s) or batch_of(s), schedule(9), run="a", checkpoint=checkpoint)
    assert asked == [6, 7, 8]  # the last checkpoint was after six updates
    assert torch.equal(weights(whole), weights(parts))
    assert seconds > torch.load(tmp_path / "checkpoint.pt", weights_only=True)["seconds"] * 0.5 > 0
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_run_is_not_trained_again(tmp_path):
    module, checkpoint = llama(), tmp_path / "checkpoint.pt"
    train(module, batch_of, schedule(4), checkpoint=checkpoint)
    again = llama()
    train(again, killed_at(0), schedule(4), checkpoint=checkpoint)
    assert torch.equal(weights(module), weights(again))


def test_a_checkpoint_of_another_run_or_schedule_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    train(llama(), batch_of, schedule(2), run="seed 0", checkpoint=checkpoint)
    with pytest.raises(ModelError, match=r"Asked to resume seed 1 .*found a checkpoint of seed 0 .*remove the file"):
        train(llama(), batch_of, schedule(2), run="seed 1", checkpoint=checkpoint)
    with pytest.raises(ModelError, match=r"Asked to resume seed 0 .*steps=4.*found a checkpoint of seed 0 .*steps=2"):
        train(llama(), batch_of, schedule(4), run="seed 0", checkpoint=checkpoint)
    torch.save({"module": {}, "done": 2}, checkpoint)
    with pytest.raises(ModelError, match="found a checkpoint of an unnamed run"):
        train(llama(), batch_of, schedule(2), run="seed 0", checkpoint=checkpoint)


def test_a_diverged_run_stops_before_it_spoils_the_weights():
    module = llama()
    with torch.no_grad():
        module.lm_head.weight[0, 0] = float("nan")
    before = weights(module)
    with pytest.raises(ModelError, match=r"Training diverged at step 0 \(loss nan\); lower the peak learning rate"):
        train(module, batch_of, schedule(3))
    assert torch.equal(weights(module).nan_to_num(), before.nan_to_num())


def test_only_matrices_decay():
    module = llama()
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1.0)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    # All weights equal: every token is as likely as any other, whatever the input, and decay is most of what moves.
    train(module, batch_of, Schedule(1, peak=1e-4, warm_up=1, weight_decay=1000.0))
    moved = {name: (p - before[name]).abs().max().item() for name, p in module.named_parameters()}
    assert all((change > 0.05) == (before[name].ndim >= 2) for name, change in moved.items())


def test_progress_is_told_and_logged_at_the_end(caplog):
    told = []
    with caplog.at_level(logging.INFO, logger="microtome.training.loop"):
        train(llama(), batch_of, schedule(21), progress=lambda *said: told.append(said))
    assert [(done, of) for done, of, _ in told] == [(20, 21), (21, 21)]
    assert all("loss" in line and "min left" in line for *_, line in told)
    assert caplog.messages[-1].startswith("step 21 of 21: loss ")
