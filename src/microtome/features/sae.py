"""Sparse autoencoders as bases: ReLU, TopK and JumpReLU; the module to train; files in the layout of SAELens.

    f = act((x - b_dec) W_enc + b_enc),   decode(f) = f W_dec + b_dec

`subtract` says whether the decoder's bias is taken off first. What the autoencoder does not reconstruct is kept by
the delta form of edits and swaps; ``swap(..., keep_error=False)`` drops it, as RAVEL's and SAEBench's defaults do.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from microtome.core.errors import DataError, EditError, MeasureError
from microtome.core.site import Site
from microtome.features.precision import wide

__all__ = ["SAE", "SAEModule", "SAEOutput", "load_saelens"]


@dataclass(frozen=True, eq=False)
class SAE:
    """A trained autoencoder.

    Attributes:
        encoder: W_enc, [d, m].
        encoder_bias: b_enc, [m].
        decoder: W_dec, [m, d].
        decoder_bias: b_dec, [d].
        k: keep the k largest features of each token (TopK); None keeps all.
        threshold: a feature below its threshold is 0 (JumpReLU), [m]; None for none.
        subtract: take the decoder's bias off before encoding.

    Raises:
        MeasureError: the shapes do not fit each other, or k is not from 1 to m.
    """

    encoder: Float[Tensor, "d m"]
    encoder_bias: Float[Tensor, " m"]
    decoder: Float[Tensor, "m d"]
    decoder_bias: Float[Tensor, " d"]
    k: int | None = None
    threshold: Float[Tensor, " m"] | None = None
    subtract: bool = True

    def __post_init__(self):
        d, m = self.encoder.shape
        found = [tuple(t.shape) for t in (self.encoder_bias, self.decoder, self.decoder_bias)]
        if found != [(m,), (m, d), (d,)] or (self.threshold is not None and self.threshold.shape != (m,)):
            raise MeasureError(
                f"An autoencoder of {m} features over width {d} was asked for, found b_enc, W_dec, b_dec of shapes "
                f"{found}; they must be {[(m,), (m, d), (d,)]}."
            )
        if self.k is not None and not 1 <= self.k <= m:
            raise MeasureError(f"A TopK autoencoder with k = {self.k} was asked for over {m} features; ask for 1-{m}.")

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.encoder.shape[0]

    @property
    def n_features(self) -> int:
        """Size of the dictionary."""
        return self.encoder.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of activations [..., d], [..., m]."""
        x = wide(x)
        centred = x - self.decoder_bias.to(x) if self.subtract else x
        pre = centred @ self.encoder.to(x) + self.encoder_bias.to(x)
        return _activate(pre, self.k, None if self.threshold is None else self.threshold.to(x))

    def decode(self, f: Tensor) -> Tensor:
        """Return what features [..., m] stand for, [..., d]."""
        return f @ self.decoder.to(f) + self.decoder_bias.to(f)


class SAEOutput(NamedTuple):
    """What the module gives: the reconstruction [..., d] and the features [..., m]."""

    reconstruction: Tensor
    features: Tensor


class SAEModule(nn.Module):
    """The autoencoder while it is trained; the loop is the caller's.

    The decoder begins with random directions of length 1 and the encoder as its transpose. Call `normalise` after each
    update: with decoder rows free to grow, the penalty is escaped by scaling.

    Args:
        width: d.
        n_features: m.
        generator: of the start, on the CPU.
        k: TopK with this k; None trains ReLU.
        subtract: take the decoder's bias off before encoding.
        mean: where the decoder's bias begins (the data's mean), [d]; None is 0.

    Raises:
        MeasureError: k is not from 1 to m.
    """

    def __init__(
        self,
        width: int,
        n_features: int,
        generator: torch.Generator,
        *,
        k: int | None = None,
        subtract: bool = True,
        mean: Tensor | None = None,
    ):
        super().__init__()
        decoder = nn.functional.normalize(torch.randn(n_features, width, generator=generator), dim=1)
        self.decoder = nn.Parameter(decoder)
        self.encoder = nn.Parameter(decoder.T.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(n_features))
        self.decoder_bias = nn.Parameter(torch.zeros(width) if mean is None else mean.detach().float().clone())
        self.k, self.subtract = k, subtract
        self.freeze()  # refuses a k that does not fit before anything is trained

    def forward(self, x: Float[Tensor, "*lead d"]) -> SAEOutput:
        """Return reconstruction and features."""
        centred = x - self.decoder_bias if self.subtract else x
        f = _activate(centred @ self.encoder + self.encoder_bias, self.k, None)
        return SAEOutput(f @ self.decoder + self.decoder_bias, f)

    def loss(self, x: Float[Tensor, "*lead d"], *, penalty: float = 0.8) -> Float[Tensor, ""]:
        """Return mean squared error plus, for ReLU, `penalty` times the mean absolute feature (RAVEL's loss)."""
        reconstruction, f = self(x)
        error = (reconstruction - x).square().mean()
        return error if self.k is not None else error + penalty * f.abs().mean()

    @torch.no_grad()
    def normalise(self) -> None:
        """Give every decoder row length 1."""
        self.decoder.copy_(nn.functional.normalize(self.decoder, dim=1))

    def freeze(self) -> SAE:
        """Return the trained autoencoder."""
        weights = (self.encoder, self.encoder_bias, self.decoder, self.decoder_bias)
        return SAE(*(w.detach().clone() for w in weights), k=self.k, subtract=self.subtract)


def load_saelens(folder: str | Path, *, site: Site | str | None = None, width: int | None = None) -> SAE:
    """Read an autoencoder in the layout of SAELens: `cfg.json` and `sae_weights.safetensors` in one folder.

    Standard, TopK and JumpReLU; a TopK that weighs features by their decoder's length is folded into plain weights,
    which is the same function.

    Args:
        folder: holds the two files.
        site: where it is to be used, compared with the hook it was trained on; None does not ask.
        width: width of the activations it is to be used on; None does not ask.

    Raises:
        DataError: a file is missing or damaged, or asks for a kind or a normalisation of inputs this does not know.
        EditError: it was trained at another site or width.
    """
    folder = Path(folder)
    config, tensors = _read_saelens(folder)
    _refuse_unknown(folder, config, tensors)
    hook = config.get("hook_name") or config.get("metadata", {}).get("hook_name") or ""
    trained = _sites_of_hook(hook)
    if site is not None and trained and str(Site.parse(site)) not in trained:
        raise EditError(f"The SAE in '{folder}' was asked for at '{site}', found one trained at '{trained[0]}'.")
    if width is not None and tensors["W_dec"].shape[1] != width:
        raise EditError(
            f"The SAE in '{folder}' was asked for at width {width}, found one of {tensors['W_dec'].shape[1]}."
        )
    length = tensors["W_dec"].norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else torch.ones(())
    return SAE(
        tensors["W_enc"] * length,
        tensors["b_enc"] * length,
        tensors["W_dec"] / (length[:, None] if length.ndim else length),
        tensors["b_dec"],
        k=_k(config),
        threshold=tensors.get("threshold") if config.get("architecture") == "jumprelu" else None,
        subtract=bool(config.get("apply_b_dec_to_input", True)),
    )


def _activate(pre: Tensor, k: int | None, threshold: Tensor | None) -> Tensor:
    f = pre.relu()
    if threshold is not None:
        f = f * (pre > threshold)
    if k is None:
        return f
    top = f.topk(k, dim=-1)
    return torch.zeros_like(f).scatter(-1, top.indices, top.values)


def _read_saelens(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (folder / name).is_file():
            raise DataError(f"An SAE in the layout of SAELens was asked for in '{folder}', found no {name} there.")
    try:
        config, tensors = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    except (json.JSONDecodeError, SafetensorError) as error:
        raise DataError(f"The SAE in '{folder}' cannot be read ({error}); fetch it again.") from error
    missing = [n for n in ("W_enc", "b_enc", "W_dec", "b_dec") if n not in tensors]
    if missing or not isinstance(config, dict):
        raise DataError(f"The SAE in '{folder}' was asked for W_enc, b_enc, W_dec, b_dec, found no {missing}.")
    return config, tensors


def _k(config: dict[str, Any]) -> int | None:
    named = config.get("activation_fn_str", config.get("activation_fn"))
    if config.get("architecture") != "topk" and named != "topk":
        return None
    k = config.get("k") or config.get("activation_fn_kwargs", {}).get("k")
    return None if k is None else int(k)


def _refuse_unknown(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise where the file asks for something that would silently be computed wrongly."""
    kind, inputs = config.get("architecture", "standard"), config.get("normalize_activations")
    if kind not in ("standard", "topk", "jumprelu"):
        raise DataError(f"The SAE in '{folder}' is of architecture '{kind}'; known are standard, topk, jumprelu.")
    named = config.get("activation_fn_str", config.get("activation_fn"))
    if named not in (None, "relu", "topk", "jumprelu"):
        raise DataError(f"The SAE in '{folder}' activates by '{named}'; known are relu, topk, jumprelu.")
    if (kind == "topk" or named == "topk") and _k(config) is None:
        raise DataError(f"The SAE in '{folder}' is a TopK without a k in cfg.json; add it.")
    if kind == "jumprelu" and "threshold" not in tensors:
        raise DataError(f"The SAE in '{folder}' is a JumpReLU without a threshold; fetch it again.")
    if inputs not in (None, False, "none"):
        raise DataError(
            f"The SAE in '{folder}' was trained on activations normalised by '{inputs}'; fold that into its weights "
            "first (known is none)."
        )


def _sites_of_hook(hook: str) -> list[str]:
    """Our addresses of a TransformerLens hook (`write` stands only where it differs from `out`); none if unknown."""
    parts = hook.split(".")
    names = {
        "hook_resid_pre": ["resid_pre"], "hook_resid_mid": ["resid_mid"], "hook_resid_post": ["resid_post"],
        "hook_attn_out": ["attn.out", "attn.write"], "hook_mlp_out": ["mlp.out", "mlp.write"],
        "mlp.hook_post": ["mlp.neurons"], "attn.hook_z": ["attn.heads"],
    }  # fmt: skip
    if parts[0] != "blocks" or len(parts) < 3:
        return []
    return [f"blocks.{parts[1]}.{name}" for name in names.get(".".join(parts[2:]), [])]


FEATURIZER = SAE
