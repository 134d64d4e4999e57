"""Scores of directions at an output head: how much each one has to do with the head's saying tokens of a set.

A direction i is read by r_i (its activation is ``a_i = h . r_i``) and written as w_i (for orthonormal directions both
are v_i). Damping it by eps moves the logits of W by ``-eps a_i W w_i``. With p the softmax, T the set of tokens, P its
probability, over toxic contexts h and clean ones:

    signed        mean a_i over toxic - over clean, v_i turned so that the largest entry of W v_i is positive
    code_axis     the same of ``V h`` instead of ``V' h``: what the released code of the paper computes
    abs, std      |mean a_i - mean a_i|; divided by the pooled deviation
    auroc         |AUROC of a_i - 1/2|
    contribution  mean over toxic of a_i * (mean over T of W w_i, less its mean over all tokens): the votes for T
    benefit       mean over toxic of a_i * Cov_p(1_T, W w_i) = -dP/d eps: the fall of P for each unit of damping
    benefit_cost  benefit over (mean over clean of a_i^2 Var_p(W w_i) / 2), the KL that damping it whole costs there

All but the first two are the same for v_i and -v_i, as they must be: (u, v) and (-u, -v) are one singular pair, so the
sign of `signed` is a choice, made here the same on every machine, and ranking by it is ranking by that choice.
`code_axis` mixes components of different vectors. Both are kept to replay arXiv 2509.16660.

The covariance needs no left vectors: ``Cov_p(1_T, W w) = (sum over T of p_t W_t - P sum of p_t W_t) . w``, the gradient
of P. The variance takes one pass over W in chunks. A head's bias is heeded; a soft cap of logits is not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.measures.expertise import auroc

__all__ = ["Contexts", "head_scores", "relative_gaps", "selection_frequency", "vocabulary_scores"]

_CHUNK = 4096
_FLOOR = 1e-3  # of the mean cost: a direction that costs nothing must not win by a division by nothing


@dataclass(frozen=True, eq=False)
class Contexts:
    """Hidden states at the head's input, in float64: where a token of the set came next, and where not.

    Attributes:
        toxic: [n, d].
        clean: [m, d].

    Raises:
        MeasureError: a side is empty, the widths differ, or a value is not finite.
    """

    toxic: Float[Tensor, "n d"]
    clean: Float[Tensor, "m d"]

    def __post_init__(self):
        sides = self.toxic.detach().double().cpu(), self.clean.detach().double().cpu()
        shapes = [list(s.shape) for s in sides]
        if any(len(s) != 2 or s[0] == 0 for s in shapes) or shapes[0][1] != shapes[1][1]:
            raise MeasureError(
                f"Toxic and clean hidden states [n, d] were asked for, found {shapes[0]} and {shapes[1]}."
            )
        for name, side in zip(("toxic", "clean"), sides, strict=True):
            if not side.isfinite().all():
                raise MeasureError(
                    f"Hidden states of {len(side)} {name} contexts were asked for, found some not finite."
                )
            object.__setattr__(self, name, side)

    def select(self, toxic: Tensor, clean: Tensor) -> "Contexts":
        """Return the contexts of some rows, for resampling."""
        return Contexts(self.toxic[toxic], self.clean[clean])


def head_scores(contexts: Contexts, axes: Float[Tensor, "d m"]) -> dict[str, Float[Tensor, " m"]]:
    """Return the scores that ask for the hidden states alone: `abs`, `std`, `auroc`; `code_axis` where V is square.

    Args:
        contexts: toxic and clean hidden states.
        axes: what reads each direction, columns.

    Raises:
        MeasureError: the widths differ, or a side has fewer than two rows.
    """
    toxic, clean = (x @ _fitting(axes, contexts) for x in (contexts.toxic, contexts.clean))
    n, m = len(toxic), len(clean)
    if min(n, m) < 2:
        raise MeasureError(f"Scores of directions were asked for, found {n} toxic and {m} clean rows; give 2 of each.")
    gap = toxic.mean(0) - clean.mean(0)
    pooled = ((toxic.var(0) * (n - 1) + clean.var(0) * (m - 1)) / (n + m - 2)).sqrt()
    labels = torch.cat([torch.ones(n), torch.zeros(m)]).numpy()
    area = torch.from_numpy(auroc(torch.cat([toxic, clean]).numpy(), labels))
    found = {"abs": gap.abs(), "std": gap.abs() / pooled.clamp(min=1e-300), "auroc": (area - 0.5).abs()}
    if axes.shape[0] == axes.shape[1]:
        found["code_axis"] = (contexts.toxic.mean(0) - contexts.clean.mean(0)) @ axes.double().cpu().T
    return found


def vocabulary_scores(
    contexts: Contexts,
    weight: Float[Tensor, "vocab d"],
    tokens: Int[Tensor, " t"],
    read: Float[Tensor, "d m"],
    write: Float[Tensor, "m d"] | None = None,
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    chunk: int = _CHUNK,
) -> dict[str, Float[Tensor, " m"]]:
    """Return the scores that look at the head: `signed`, `contribution`, `benefit`, `benefit_cost`.

    Args:
        contexts: toxic and clean hidden states.
        weight: of the head.
        tokens: ids of the set T.
        read: what reads each direction, columns.
        write: what each stands for, rows; None means ``read'`` (orthonormal directions).
        bias: of the head, if it has one.
        chunk: rows of the head raised to float64 at a time.

    Raises:
        MeasureError: the widths differ, or T is empty, all of the vocabulary, or not in it.
    """
    read = _fitting(read, contexts)
    write = read.T if write is None else write.double().cpu()
    chosen = _chosen(tokens, len(weight))
    toxic, clean = contexts.toxic @ read, contexts.clean @ read
    gradient = _slope(contexts.toxic, weight, bias, chosen, chunk)
    variance, largest = _spread(contexts.clean, weight, bias, write, chunk)
    votes = weight[chosen.to(weight.device)].sum(0, dtype=torch.float64) / chosen.sum()
    votes = votes.cpu() - _mean_row(weight, chunk)
    benefit = (toxic * (gradient @ write.T)).mean(0)
    cost = 0.5 * (clean.square() * variance).mean(0)
    return {
        "signed": (toxic.mean(0) - clean.mean(0)) * largest.sign(),
        "contribution": toxic.mean(0) * (write @ votes),
        "benefit": benefit,
        "benefit_cost": benefit / (cost + _FLOOR * cost.mean()).clamp(min=1e-300),
    }


def relative_gaps(singular: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Return how far each singular value is from the nearest other, relative to itself.

    Where this is near rounding, vectors of the cluster are one of many equally good choices, and so is their ranking.
    """
    s = singular.double()
    if len(s) < 2:
        return torch.full_like(s, torch.inf)
    steps = (s[:-1] - s[1:]).abs()
    ends = steps.new_full((1,), torch.inf)
    return torch.minimum(torch.cat([ends, steps]), torch.cat([steps, ends])) / s.abs().clamp(min=1e-300)


def selection_frequency(
    score: Callable[[Contexts], Float[Tensor, " m"]], contexts: Contexts, k: int, *, draws: int = 200, seed: int = 0
) -> Float[Tensor, " m"]:
    """Return how often each direction is among the top k when both sides are drawn again with replacement.

    Args:
        score: from contexts to one number for each direction, high means chosen.
        contexts: what is drawn from; rows are taken as independent.
        k: how many are chosen.
        draws: how many times.
        seed: of the draws.

    Raises:
        MeasureError: k is more than the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = None
    for _ in range(draws):
        rows = [torch.randint(len(s), (len(s),), generator=generator) for s in (contexts.toxic, contexts.clean)]
        found = score(contexts.select(*rows))
        if not 0 < k <= len(found):
            raise MeasureError(f"The top {k} of {len(found)} directions were asked for; ask for 1-{len(found)}.")
        counts = torch.zeros(len(found), dtype=torch.float64) if counts is None else counts
        counts[found.topk(k).indices] += 1
    return counts / draws


def _fitting(axes: Tensor, contexts: Contexts) -> Tensor:
    if axes.ndim != 2 or axes.shape[0] != contexts.toxic.shape[1]:
        raise MeasureError(
            f"Directions [{contexts.toxic.shape[1]}, m] were asked for, found {list(axes.shape)}; take this head's."
        )
    return axes.detach().double().cpu()


def _chosen(tokens: Tensor, vocab: int) -> Tensor:
    ids = torch.as_tensor(tokens).reshape(-1).long().cpu()
    if ids.numel() == 0 or not 0 <= int(ids.min()) <= int(ids.max()) < vocab or len(ids.unique()) == vocab:
        raise MeasureError(
            f"A set of some of {vocab} tokens was asked for, found {len(ids)} ids"
            f"{f' from {int(ids.min())} to {int(ids.max())}' if ids.numel() else ''}; give some, not all."
        )
    return torch.zeros(vocab, dtype=torch.bool).index_fill(0, ids, True)


def _pieces(weight: Tensor, bias: Tensor | None, chunk: int) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
    """Yield the head in float64 by rows: which, the weights, the biases."""
    for start in range(0, len(weight), chunk):
        at = slice(start, min(start + chunk, len(weight)))
        yield at, weight[at].double().cpu(), 0.0 if bias is None else bias[at].double().cpu()


def _normaliser(h: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> Tensor:
    """Return log sum exp of the logits, [n, 1]: with it, any part of p costs that part of the head."""
    total = h.new_full((len(h), 1), -torch.inf)
    for _, w, b in _pieces(weight, bias, chunk):
        total = torch.logaddexp(total, (h @ w.T + b).logsumexp(1, keepdim=True))
    return total


def _slope(h: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, chunk: int) -> Tensor:
    """Return the gradient of the set's probability in the hidden state, [n, d]."""
    total, inside, outside = _normaliser(h, weight, bias, chunk), torch.zeros_like(h), torch.zeros_like(h)
    mass = h.new_zeros(len(h), 1)
    for at, w, b in _pieces(weight, bias, chunk):
        p = (h @ w.T + b - total).exp()
        held = p * chosen[at]
        mass += held.sum(1, keepdim=True)
        inside += held @ w
        outside += p @ w
    return inside - mass * outside


def _spread(h: Tensor, weight: Tensor, bias: Tensor | None, write: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Return Var_p(W w_i), [n, m], and the entry of W w_i that is largest in size, [m]."""
    total, mean = _normaliser(h, weight, bias, chunk), _mean_row(weight, chunk)
    first, second = h.new_zeros(len(h), len(write)), h.new_zeros(len(h), len(write))
    largest = h.new_zeros(len(write))
    for _, w, b in _pieces(weight, bias, chunk):
        p, u = (h @ w.T + b - total).exp(), (w - mean) @ write.T
        first += p @ u
        second += p @ u.square()
        top = u.gather(0, u.abs().argmax(0, keepdim=True))[0]
        largest = torch.where(top.abs() > largest.abs(), top, largest)
    return (second - first.square()).clamp(min=0), largest


def _mean_row(weight: Tensor, chunk: int) -> Tensor:
    """Return the mean over tokens; chunk by chunk, as a sum in float64 would copy all of W."""
    return sum(w.sum(0) for _, w, _ in _pieces(weight, None, chunk)) / len(weight)
