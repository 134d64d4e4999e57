"""What a model says once features have been swapped in: every pair, under several bases at once.

A label is said when greedy decoding gives exactly its tokens. One forward with the label's own tokens as input decides
that: the tokens of highest logit at the read positions are the label's if and only if greedy decoding, which would have
produced the same inputs one by one, says it. The edited token stays edited while the answer is read.

All arms of a pair (bases, ranks, baselines) go through the blocks above the site together, packed in the batch axis on
the frozen prefixes of `record_swaps`, as in fitting.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.protocols import Featurizer
from microtome.features.interchange import swap
from microtome.features.joint_rotation import JointRotation
from microtome.features.precision import wide
from microtome.training.swaps import IGNORED, Swaps

__all__ = ["Arm", "Outcome", "evaluate_swaps"]


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to make the new activation of a pair from its base and its source.

    Attributes:
        basis: in which features are swapped; None means the coordinates themselves. Of a `JointRotation` each pair
            swaps the block that `Swaps.blocks` numbers, unless `units` are given.
        units: which features; None means all (of no basis: the whole activation), an empty tensor swaps nothing.
        kept: keep what the basis does not explain of the base (`keep_error` of `features.interchange.swap`).
    """

    basis: Featurizer | None = None
    units: Tensor | None = None
    kept: bool = True


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was said, by arm and by the pair's number in its `TokenPairs`.

    Attributes:
        right: whether greedy decoding gives exactly the label's tokens, [arms, pairs]; False where not seen.
        log_prob: log-probability of the label's tokens, summed over them, [arms, pairs]; NaN where not seen.
        first: the token said first, [arms, pairs]; -1 where not seen.
        seen: the pairs that were among the swaps, [pairs].
    """

    right: Bool[Tensor, "arms pairs"]
    log_prob: Float[Tensor, "arms pairs"]
    first: Int[Tensor, "arms pairs"]
    seen: Bool[Tensor, " pairs"]


def evaluate_swaps(
    swaps: Sequence[Swaps],
    arms: Sequence[Arm],
    *,
    rows_at_once: int = 512,
    progress: Callable[[int, int, str], None] | None = None,
) -> Outcome:
    """Return what the model says for every pair under every arm; the numbers do not depend on their company.

    Args:
        swaps: pairs over one or several recordings, as from `record_swaps` or `chosen`; each pair once.
        arms: what is put in.
        rows_at_once: most rows (pairs times arms) in one pass through the blocks.
        progress: called with (rows done, rows in all, one line) after each pass.

    Returns:
        On the CPU, indexed by the number of the pair in the `TokenPairs` that the swaps came from.

    Raises:
        MeasureError: no arms, no pairs, a pair twice, or swaps of different `TokenPairs`.

    Example:
        >>> outcome = evaluate_swaps(swaps, [Arm(units=torch.tensor([])), Arm(), Arm(das.basis)])
        >>> nothing, everything, found = outcome.right[:, outcome.seen].float().mean(1)
    """
    made = _nothing(swaps, arms)
    done, total = 0, len(arms) * int(made.seen.sum())
    with torch.inference_mode(False), torch.no_grad():
        for part, first, some in _passes(swaps, arms, rows_at_once):
            at = (torch.arange(first, first + len(some))[:, None], part.pairs.cpu())
            for whole, found in zip((made.right, made.log_prob, made.first), _said(part, some), strict=True):
                whole[at] = found.cpu()
            done += len(some) * len(part)
            if progress:
                progress(done, total, f"swapped {done} of {total}, {len(arms)} arms")
    return made


def _nothing(swaps: Sequence[Swaps], arms: Sequence[Arm]) -> Outcome:
    """Return the outcome before any pass, `seen` filled in."""
    numbers = torch.cat([s.pairs.cpu() for s in swaps]) if swaps else torch.zeros(0, dtype=torch.long)
    if not len(numbers) or not arms:
        raise MeasureError(f"Swaps were asked for, found {len(numbers)} pairs and {len(arms)} arms; give some of both.")
    totals = sorted({s.total for s in swaps})
    counts = numbers.bincount(minlength=totals[-1])
    if len(totals) > 1 or counts.max() > 1:
        found = (
            f"pairs out of {totals}" if len(totals) > 1 else f"pair {int(counts.argmax())} {int(counts.max())} times"
        )
        raise MeasureError(f"Swaps of one TokenPairs at one site were asked for, found {found}; give each pair once.")
    shape = (len(arms), totals[0])
    log_prob = wide(swaps[0].source).new_full(shape, float("nan"), device="cpu")
    right = torch.zeros(shape, dtype=torch.bool)
    return Outcome(right, log_prob, torch.full(shape, -1), counts > 0)


def _passes(swaps: Sequence[Swaps], arms: Sequence[Arm], limit: int) -> Iterator[tuple[Swaps, int, Sequence[Arm]]]:
    """Yield some pairs, the number of the first of some arms, and those arms: at most `limit` rows each.

    Pairs go in the order of the edited position: tokens that start together attend together.
    """
    for whole in filter(len, swaps):
        order = whole.suffix.positions[whole.rows].argsort(stable=True)
        for items in order.split(max(1, limit // len(arms))):
            part = whole.select(items)
            for first in range(0, len(arms), limit):
                yield part, first, arms[first : first + limit]


def _said(swaps: Swaps, arms: Sequence[Arm]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (right, log_prob, first), [arms, n] each, of some pairs under some arms, from one pass."""
    values = torch.cat([_swapped(swaps, arm) for arm in arms])
    logits = wide(swaps.suffix(swaps.site, values, swaps.rows.repeat(len(arms))))
    labels = swaps.labels.repeat(len(arms), 1)
    counts, said = labels != IGNORED, logits.argmax(-1)
    log_prob = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
    found = (((said == labels) | ~counts).all(1), log_prob.where(counts, 0.0).sum(1), said[:, 0])
    return tuple(x.unflatten(0, (len(arms), -1)) for x in found)


def _swapped(swaps: Swaps, arm: Arm) -> Tensor:
    """Return the values that an arm puts in, [n, *unit]."""
    base, source = swaps.base.flatten(1), swaps.source.flatten(1)
    if isinstance(arm.basis, JointRotation) and arm.units is None:
        new = _swapped_blocks(base, source, swaps.blocks, arm.basis, arm.kept)
    else:
        new = swap(base, source, arm.basis, arm.units, keep_error=arm.kept)
    return new.view_as(swaps.base)


def _swapped_blocks(base: Tensor, source: Tensor, blocks: Tensor, basis: JointRotation, kept: bool) -> Tensor:
    """Return the base with the source's coordinates in each pair's own block."""
    of_column = torch.arange(len(basis.sizes)).repeat_interleave(torch.tensor(basis.sizes)).to(blocks.device)
    own = basis.encode(base)
    change = (basis.encode(source) - own) * (of_column == blocks[:, None])
    return base + basis.decode(change).to(base.dtype) if kept else basis.decode(own + change).to(base.dtype)
