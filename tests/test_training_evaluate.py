"""What is said after a swap equals decoding token by token with plain hooks, whatever the arm and its company."""

import random
from dataclasses import replace

import pytest
import torch

from close import EXACT, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.features.joint_rotation import JointRotation
from microtome.features.mask import Mask
from microtome.features.pca import PCA
from microtome.features.rotation import Rotation, random_axes
from microtome.training.evaluate import Arm, evaluate_swaps
from microtome.training.swaps import TokenPairs, chosen, record_swaps

SITE, N, WIDTH = "blocks.0.resid_post", 12, 32


def axes(seed, rank):
    return random_axes(WIDTH, rank, torch.Generator().manual_seed(seed), dtype=torch.float64)


PRINCIPAL = PCA(torch.linspace(-1, 1, WIDTH).double(), axes(4, 6), torch.arange(6, 0, -1).double())
ARMS = {
    "nothing": Arm(units=torch.tensor([], dtype=torch.long)),
    "everything": Arm(),
    "some coordinates": Arm(units=torch.tensor([1, 30])),
    "rotation": Arm(Rotation(axes(1, 9))),
    "some of a rotation": Arm(Rotation(axes(1, 9)), torch.tensor([0, 5])),
    "joint": Arm(JointRotation(axes(2, 20), ("a", "b"), (8, 12))),
    "joint, all of it": Arm(JointRotation(axes(2, 20), ("a", "b"), (8, 12)), torch.arange(20)),
    "mask": Arm(Mask(Rotation(axes(3, 16)), [2, 3, 9])),
    "components": Arm(PRINCIPAL, torch.tensor([0, 2])),
    "components, the rest lost": Arm(PRINCIPAL, torch.tensor([0, 2]), kept=False),
    "joint, the rest lost": Arm(JointRotation(axes(2, 20), ("a", "b"), (8, 12)), kept=False),
}


def changed(name, base, source, block):
    """What each arm puts in, from its definition."""
    if name in ("nothing", "everything"):
        return base if name == "nothing" else source
    if name == "some coordinates":
        return torch.cat([base[:1], source[1:2], base[2:30], source[30:31], base[31:]])
    kept = {
        "rotation": axes(1, 9),
        "some of a rotation": axes(1, 9)[:, [0, 5]],
        "joint": axes(2, 20)[:, 8:] if block else axes(2, 20)[:, :8],
        "joint, the rest lost": axes(2, 20)[:, 8:] if block else axes(2, 20)[:, :8],
        "joint, all of it": axes(2, 20),
        "mask": axes(3, 16)[:, [2, 3, 9]],
        "components": axes(4, 6)[:, [0, 2]],
        "components, the rest lost": axes(4, 6)[:, [0, 2]],
    }[name]
    if name == "components, the rest lost":
        base = PRINCIPAL.mean + axes(4, 6) @ (axes(4, 6).T @ (base - PRINCIPAL.mean))
    if name == "joint, the rest lost":
        base, source = (axes(2, 20) @ (axes(2, 20).T @ x) for x in (base, source))
    return base + kept @ (kept.T @ (source - base))


class Plain:
    """Whole forwards of single prompts, values put in by a hook."""

    def __init__(self, model):
        self.module, self.block = model.module, model.module.get_submodule(model.anatomy.blocks[0].path)

    @torch.no_grad()
    def forward(self, ids, hook):
        handle = self.block.register_forward_hook(lambda m, a, out: hook(out))
        try:
            return self.module(torch.tensor([ids]), use_cache=False).logits[0]
        finally:
            handle.remove()

    def activation(self, ids, at):
        seen = []
        self.forward(ids, lambda out: seen.append(out[0, at]))
        return seen[0]

    def edited(self, ids, at, new):
        put = lambda out: torch.cat([out[:, :at], new[None, None], out[:, at + 1 :]], 1)  # noqa: E731
        return self.forward(ids, put)

    def greedy(self, ids, at, new, n):
        for _ in range(n):
            ids = [*ids, int(self.edited(ids, at, new)[-1].argmax())]
        return ids[-n:]


@pytest.fixture(scope="module")
def case(tiny_model):
    """A model, pairs whose labels are what some arm or other says, and what plain hooks find: arm -> pair -> value."""
    model, rng = tiny_model("llama"), random.Random(0)
    plain, names = Plain(model), list(ARMS)
    prompts = [[rng.randrange(3, 61) for _ in range(rng.randint(4, 7))] for _ in range(2 * N)]
    at = [rng.randrange(1, len(p)) for p in prompts]
    blocks, labels, found = [i % 2 for i in range(N)], [], {name: [] for name in names}
    for i in range(N):
        base, source = plain.activation(prompts[i], at[i]), plain.activation(prompts[N + i], at[N + i])
        new = {name: changed(name, base, source, blocks[i]) for name in names}
        labels.append(plain.greedy(prompts[i], at[i], new[names[i % len(names)]], 1 + i % 3))
        if i == 5:
            labels[i][-1] = 3 if labels[i][-1] != 3 else 4  # all but the last token right
        for name in names:
            found[name].append(_found(plain, prompts[i], at[i], new[name], labels[i]))
    pairs = TokenPairs(prompts[:N], prompts[N:], labels, at[:N], at[N:], blocks)
    return model, pairs, found


def _found(plain, ids, at, new, label):
    """Right, log-probability and first token of one pair."""
    said = plain.greedy(ids, at, new, len(label))
    logits = plain.edited([*ids, *label[:-1]], at, new)[len(ids) - 1 :].log_softmax(-1)
    return said == label, sum(float(row[token]) for row, token in zip(logits, label, strict=True)), said[0]


def evaluated(model, pairs, arms=None, budget="1GiB", **how):
    return evaluate_swaps(
        record_swaps(model, pairs, SITE, memory_budget=budget)[Site(SITE)], arms or list(ARMS.values()), **how
    )


@pytest.mark.parametrize("how", [{}, {"rows_at_once": 25}, {"rows_at_once": 4, "budget": 40_000}])
def test_every_arm_says_what_decoding_with_plain_hooks_says(case, how):
    model, pairs, found = case
    outcome = evaluated(model, pairs, **how)
    wanted = torch.tensor([found[name] for name in ARMS], dtype=torch.float64)
    right, log_prob, first = wanted.unbind(-1)
    assert outcome.seen.all() and outcome.right.tolist() == right.tolist() and outcome.first.tolist() == first.tolist()
    assert largest(outcome.log_prob, log_prob) < FLOAT64
    assert all(0 < x < N for x in outcome.right.sum(1)[:4]) and not outcome.right[:, 5].any()


def test_long_answers_need_every_token(case):
    """Pair 5 has the first tokens right and the last wrong, under the arm whose answer it was made from."""
    model, pairs, _ = case
    outcome = evaluated(model, pairs)
    arm = 5 % len(ARMS)
    assert outcome.first[arm, 5] == pairs.labels[5][0] and len(pairs.labels[5]) == 3 and not outcome.right[arm, 5]


def test_a_model_that_runs_whole_says_the_same(case):
    model, pairs, _ = case
    swaps = record_swaps(model, pairs, SITE)[Site(SITE)]
    whole = [replace(s, suffix=replace(s.suffix, reason="for the test", _prefix=None)) for s in swaps]
    one, other = (evaluate_swaps(x, list(ARMS.values())) for x in (swaps, whole))
    assert torch.equal(one.right, other.right) and largest(one.log_prob, other.log_prob) < FLOAT64


def test_pairs_left_out_are_marked_and_keep_their_numbers(case):
    model, pairs, found = case
    keep = [i % 3 > 0 and i < 9 for i in range(N)]
    swaps = chosen(record_swaps(model, pairs, SITE)[Site(SITE)], keep)
    seen = []
    outcome = evaluate_swaps(swaps, [Arm()], rows_at_once=4, progress=lambda *x: seen.append(x))
    assert outcome.seen.tolist() == keep
    assert outcome.log_prob[0].isnan().tolist() == [not k for k in keep]
    wanted = [x[2] if k else -1 for x, k in zip(found["everything"], keep, strict=True)]
    assert outcome.first[0].tolist() == wanted and not outcome.right[0, [i for i in range(N) if not keep[i]]].any()
    assert [x[:2] for x in seen] == [(4, 6), (6, 6)] and "1 arms" in seen[0][2]


def test_swapping_nothing_is_the_unedited_model(case):
    model, pairs, _ = case
    blank = evaluated(model, pairs, [Arm(units=torch.tensor([]))])
    same = evaluated(model, replace(pairs, sources=pairs.bases, source_at=pairs.base_at), [Arm()])
    assert largest(blank.log_prob, same.log_prob) == EXACT


def test_swaps_that_make_no_sense_are_refused(case):
    model, pairs, _ = case
    swaps = record_swaps(model, pairs, SITE)[Site(SITE)]
    with pytest.raises(MeasureError, match="found 12 pairs and 0 arms"):
        evaluate_swaps(swaps, [])
    with pytest.raises(MeasureError, match="found 0 pairs and 1 arms"):
        evaluate_swaps(chosen(swaps, [False] * N), [Arm()])
    with pytest.raises(MeasureError, match="found pair 0 2 times"):
        evaluate_swaps([*swaps, *swaps], [Arm()])
    with pytest.raises(MeasureError, match=r"found pairs out of \[7, 12\]"):
        evaluate_swaps([*swaps, *(replace(s, total=7) for s in chosen(swaps, [True] + [False] * 11))], [Arm()])
