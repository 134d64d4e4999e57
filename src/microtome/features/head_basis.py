"""Right singular vectors of an output head W [vocab, d], by the float64 Gram matrix: exact, cheap and small in memory.

    G = sum over chunks of rows of (w - mean)'(w - mean),   G = V diag(s^2) V',   s = sqrt(eigenvalues), largest first

Rows are centred first: a common shift of all logits changes no probability, so no direction is spent on it. Only V and
s are kept: an edit of the head in this basis needs no left vectors (U s = W V). Chunks are raised to float64 one at a
time, so a head in bfloat16 costs one chunk, G and the eigenvectors beside itself. Squaring squares the condition, so
where the least eigenvalue is below 1e-12 * d of the largest the answer comes from a chunked QR and the SVD of R
instead, and `route` says so. Never in float32: at condition 700 its set of vectors is already wrong.

EigenShift (arXiv 2509.16660, section 2) takes these as candidate directions; the paper uses NumPy's SVD of W itself.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from microtome.core.errors import DataError, EditError, MeasureError
from microtome.core.site import Site
from microtome.features.rotation import Rotation
from microtome.features.saving import load_featurizer, save_featurizer
from microtome.models.model import Model

__all__ = ["HeadBasis", "head_basis", "head_weight"]

_log = logging.getLogger(__name__)

_CHUNK = 2048  # rows raised to float64 at a time
_BLOCKS = 8
_GUARD = 1e-12


@dataclass(frozen=True, eq=False)
class HeadBasis:
    """The factorised head.

    Attributes:
        axes: right singular vectors as columns, by falling singular value, [d, d], float64.
        singular: singular values, [d], float64.
        centred: whether the rows' mean was taken off first.
        route: "gram", or "qr" where the Gram matrix would have been too lopsided.
    """

    axes: Float[Tensor, "d d"]
    singular: Float[Tensor, " d"]
    centred: bool = True
    route: str = "gram"

    # Coordinates along orthonormal columns, as those of a rotation.
    width, n_features = Rotation.width, Rotation.n_features
    encode, decode = Rotation.encode, Rotation.decode


def head_weight(model: Model) -> Float[Tensor, "vocab d"]:
    """Return the weight of a model's output head, one row for each token, shared with the model.

    Raises:
        EditError: the model has no output head, or its weight holds no plain numbers here (offloaded, quantised).
    """
    path = model.anatomy.head
    if path is None:
        raise EditError(
            f"The output head of '{model.name}' was asked for, found none in its anatomy ({model.anatomy.kind}); use a "
            "model with a projection to logits."
        )
    module = model.module.get_submodule(path)
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear | Conv1D) or weight.device.type == "meta" or not weight.is_floating_point():
        raise EditError(
            f"The weight of head '{path}' was asked for, found a {type(module).__name__} with weight "
            f"{getattr(weight, 'dtype', 'absent')} on {getattr(weight, 'device', '-')}; load it plain, onto a device."
        )
    return weight.detach().T if isinstance(module, Conv1D) else weight.detach()


@torch.no_grad()
def head_basis(
    weight: Float[Tensor, "vocab d"], *, centre: bool = True, cache: str | Path | None = None, chunk: int = _CHUNK
) -> HeadBasis:
    """Return the right singular vectors of a head.

    Args:
        weight: the head's weight, [vocab, d], in any floating type (`head_weight` gives a model's).
        centre: take off the mean row first.
        cache: folder in which bases are kept under a digest of the weight; None keeps none.
        chunk: rows raised to float64 at a time.

    Raises:
        MeasureError: the weight is not a finite floating matrix.
        DataError: the cached file is damaged.
    """
    if weight.ndim != 2 or not weight.is_floating_point() or min(weight.shape) == 0:
        raise MeasureError(
            f"A head [vocab, d] of floating numbers was asked for, found {list(weight.shape)} of {weight.dtype}."
        )
    path = None if cache is None else Path(cache) / f"head-{_digest(weight, centre, chunk)}.safetensors"
    if path is not None and path.exists():
        return _cached(path, weight.shape[1])
    basis = _factorise(weight, centre, chunk)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_featurizer(basis, path, site="head.weight")
    return basis


def _factorise(weight: Tensor, centre: bool, chunk: int) -> HeadBasis:
    mean = sum(rows.sum(0) for rows in _rows(weight, None, chunk)) / len(weight) if centre else None
    values, axes = _by_gram(weight, mean, chunk)
    if not values.isfinite().all():
        raise MeasureError(
            f"A head of {list(weight.shape)} was asked for, found values that are not finite; load another."
        )
    if values[-1] >= _GUARD * weight.shape[1] * values[0]:
        return HeadBasis(axes.cpu(), values.sqrt().cpu(), centre, "gram")
    _log.info("head basis: least eigenvalue %.1e of the largest %.1e; by QR instead", values[-1], values[0])
    singular, axes = _by_qr(weight, mean, chunk)
    return HeadBasis(axes.cpu(), singular.cpu(), centre, "qr")


def _by_gram(weight: Tensor, mean: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of the Gram matrix, largest first, and its eigenvectors.

    Of the symmetric matrix only blocks on and above the diagonal are computed: little more than half the work.
    """
    d = weight.shape[1]
    gram = torch.zeros(d, d, dtype=torch.float64, device=weight.device)
    size = -(-d // _BLOCKS)
    for rows in _rows(weight, mean, chunk):
        for at in range(0, d, size):
            gram[at : at + size, at:].addmm_(rows[:, at : at + size].T, rows[:, at:])
    if not gram.isfinite().all():
        return torch.full((d,), torch.nan, dtype=torch.float64), gram
    values, vectors = torch.linalg.eigh(gram, UPLO="U")
    return values.flip(0), vectors.flip(1)


def _by_qr(weight: Tensor, mean: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the singular values and right vectors, from R of a QR that takes in the rows chunk by chunk."""
    d = weight.shape[1]
    r = torch.zeros(0, d, dtype=torch.float64, device=weight.device)
    for rows in _rows(weight, mean, chunk):
        r = torch.linalg.qr(torch.cat([r, rows]), mode="r").R
    _, found, vh = torch.linalg.svd(r, full_matrices=True)
    singular = torch.zeros(d, dtype=torch.float64, device=weight.device)
    singular[: len(found)] = found
    return singular, vh.T.contiguous()


def _rows(weight: Tensor, mean: Tensor | None, chunk: int) -> Iterator[Tensor]:
    """Yield the rows in float64, chunk by chunk in one buffer: each is good until the next is asked for."""
    buffer = torch.empty(min(chunk, len(weight)), weight.shape[1], dtype=torch.float64, device=weight.device)
    for part in weight.split(chunk):
        rows = buffer[: len(part)].copy_(part)
        yield rows if mean is None else rows.sub_(mean)


def _digest(weight: Tensor, centre: bool, chunk: int) -> str:
    found = hashlib.blake2b(f"head basis 1 {list(weight.shape)} {weight.dtype} {centre}".encode(), digest_size=16)
    for start in range(0, len(weight), chunk):
        rows = weight[start : start + chunk].detach().cpu().contiguous()
        found.update(rows.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _cached(path: Path, width: int) -> HeadBasis:
    found = load_featurizer(path, site=Site("head.weight"), width=width)
    if not isinstance(found, HeadBasis):
        raise DataError(f"'{path}' was asked for as a head basis, found a {type(found).__name__}; delete it.")
    return found


FEATURIZER = HeadBasis
