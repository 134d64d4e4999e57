"""Submission folders of the MIB benchmark's causal-variable track: write ours, read anyone's. Runs no code from them.

    {TASK}_{MODELCLASS}_{VARIABLE}/
        ResidualStream(Layer-3,Token-last_token)_featurizer            torch state: model_info + state_dict
        ResidualStream(Layer-3,Token-last_token)_inverse_featurizer    the same of the inverse
        ResidualStream(Layer-3,Token-last_token)_indices               JSON list of features, or null for all

The track's featurizer gives (f, err) and its inverse takes both; that is our delta form. Two kinds are in the layout:
the identity, and a subspace (``f = x R``, err = what R does not span). Every basis here with orthonormal `axes` is one
of them, a mask over it gives the indices. Others (SAE, standardised PCA) need code of their own in the track, which
this neither writes nor runs. Its layer counts block inputs: layer l is `blocks.l.resid_pre`. (arXiv 2504.13151.)
"""

import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from microtome.core.errors import DataError
from microtome.core.protocols import Featurizer
from microtome.core.site import Site
from microtome.features.identity import Identity
from microtome.features.mask import Mask
from microtome.features.orthogonal import Householder
from microtome.features.rotation import Rotation

__all__ = ["Submission", "SubmissionUnit", "export_mib", "import_mib"]

_FOLDER = re.compile(r"^(?P<task>.+?)_(?P<model_class>[A-Za-z0-9]+(?:For[A-Z][A-Za-z]*|Model))_(?P<variable>.+)$")
_UNIT = re.compile(
    r"^(?:ResidualStream\(Layer.(?P<layer>-?\d+),Token.(?P<token>[^)]+)\)"
    r"|AttentionHead\(Layer.(?P<block>\d+),Head.(?P<head>\d+),Token.(?P<at>[^)]+)\))$"
)
_PARTS = ("_featurizer", "_inverse_featurizer", "_indices")
_BESIDE = (".py", ".json")  # code, which is never run, and the IOI task's ioi_linear_params.json


@dataclass(frozen=True, eq=False)
class SubmissionUnit:
    """What is swapped at one place.

    Attributes:
        layer: of the block whose input (or head) it is.
        token: name of the token position, e.g. `entity_last_token`.
        basis: in which the swap acts; all of it is swapped (a `Mask` chooses).
        head: of the attention, where it is a head's output; None for the residual stream.
    """

    layer: int
    token: str
    basis: Featurizer
    head: int | None = None

    @property
    def site(self) -> Site:
        """The address in our models; the head is a unit of `attn.heads`."""
        return Site.parse(f"blocks.{self.layer}.{'resid_pre' if self.head is None else 'attn.heads'}")

    @property
    def name(self) -> str:
        """How the unit's files begin."""
        if self.head is None:
            return f"ResidualStream(Layer-{self.layer},Token-{self.token})"
        return f"AttentionHead(Layer-{self.layer},Head-{self.head},Token-{self.token})"


@dataclass(frozen=True, eq=False)
class Submission:
    """One folder: a method's answer for one task, model and variable.

    Attributes:
        task: e.g. `ravel_task`.
        model_class: e.g. `Gemma2ForCausalLM`.
        variable: e.g. `Country`.
        units: where and what to swap.
    """

    task: str
    model_class: str
    variable: str
    units: tuple[SubmissionUnit, ...]


def export_mib(submission: Submission, parent: str | Path) -> Path:
    """Write a submission's folder under `parent` and return its path; it appears whole or not at all.

    Raises:
        DataError: the folder exists, there are no units, two are of one place, the names do not make a folder name that
            can be read back, or a basis is outside the layout.
    """
    folder = Path(parent) / f"{submission.task}_{submission.model_class}_{submission.variable}"
    names = [unit.name for unit in submission.units]
    wanted = (submission.task, submission.model_class, submission.variable)
    if not names or len(set(names)) != len(names) or folder.exists():
        raise DataError(
            f"Submission '{folder}' was asked for with {len(names)} units at {len(set(names))} places, the folder "
            f"{'exists' if folder.exists() else 'is new'}; give one unit for each place and a new folder."
        )
    if _folder_parts(folder) != wanted:
        raise DataError(f"Submission folder '{folder.name}' cannot be read back as {wanted}; name a model class.")
    packed = [(unit.name, *_pack(unit)) for unit in submission.units]
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, state, inverse, indices in packed:
        torch.save(state, part / f"{name}_featurizer")
        torch.save(inverse, part / f"{name}_inverse_featurizer")
        (part / f"{name}_indices").write_text(json.dumps(indices))
    os.replace(part, folder)
    return folder


def import_mib(folder: str | Path, width: int) -> Submission:
    """Read a submission's folder.

    Args:
        folder: the folder of one task, model and variable.
        width: width of the activations at its units.

    Raises:
        DataError: the folder or a file of it is missing, misnamed, damaged, of another width, or of a kind that needs
            code from the submission.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"No submission folder '{folder}'; write one with export_mib.")
    task, model_class, variable = _folder_parts(folder)
    names = sorted({_stem(path.name) for path in folder.iterdir() if path.suffix not in _BESIDE and path.is_file()})
    if not names:
        raise DataError(f"Submission '{folder}' holds no units; each has three files, {', '.join(_PARTS)}.")
    return Submission(task, model_class, variable, tuple(_unit(folder, name, width) for name in names))


def _folder_parts(folder: Path) -> tuple[str, str, str]:
    match = _FOLDER.match(folder.name)
    if match is None:
        raise DataError(f"Submission folder '{folder.name}' was asked for; name it TASK_MODELCLASS_VARIABLE.")
    return match["task"], match["model_class"], match["variable"]


def _stem(name: str) -> str:
    for part in sorted(_PARTS, key=len, reverse=True):
        if name.endswith(part):
            return name.removesuffix(part)
    raise DataError(f"Submission file '{name}' was found; names end in {', '.join(_PARTS)}.")


def _pack(unit: SubmissionUnit) -> tuple[dict, dict, list[int] | None]:
    """Return the two states and the indices of a unit."""
    basis, indices = unit.basis, None
    if isinstance(basis, Mask):
        basis, indices = basis.basis, basis.chosen.tolist()
    axes = getattr(basis, "axes", None)
    if not isinstance(basis, Identity) and axes is None:
        raise DataError(
            f"Unit '{unit.name}' was asked for in a {type(basis).__name__}; a submission holds the identity or "
            "orthonormal axes (rotations, probes, plain PCA), and a mask over one."
        )
    kind = "Identity" if axes is None else "Subspace"
    info = {
        "featurizer_class": f"{kind}FeaturizerModule",
        "inverse_featurizer_class": f"{kind}InverseFeaturizerModule",
        "n_features": basis.n_features,
        "additional_config": {},
    }
    if axes is None:
        return {"model_info": info, "state_dict": {}}, {"model_info": info, "state_dict": {}}, indices
    info["additional_config"] = {"rotation_matrix": axes.detach().cpu().clone(), "requires_grad": True}
    # Readers of the layout rebuild R as a layer `rotate` whose weight torch keeps orthogonal, and load this into it.
    state = dict(nn.ModuleDict({"rotate": Householder(axes.cpu())}).state_dict())
    return {"model_info": info, "state_dict": state}, {"model_info": info, "state_dict": dict(state)}, indices


def _unit(folder: Path, name: str, width: int) -> SubmissionUnit:
    match = _UNIT.match(name)
    missing = [part for part in _PARTS if not (folder / (name + part)).is_file()]
    if match is None or missing:
        raise DataError(
            f"Submission unit '{name}' in '{folder}' lacks {missing or 'a known name'}; it needs {', '.join(_PARTS)} "
            "after ResidualStream(Layer..,Token..) or AttentionHead(Layer..,Head..,Token..)."
        )
    basis = _basis(folder / f"{name}_featurizer", width)
    indices = _indices(folder / f"{name}_indices", basis.n_features)
    if indices is not None:
        basis = Mask(basis, indices)
    if match["layer"] is not None:
        return SubmissionUnit(int(match["layer"]), match["token"], basis)
    return SubmissionUnit(int(match["block"]), match["at"], basis, head=int(match["head"]))


def _basis(path: Path, width: int) -> Featurizer:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        info = state["model_info"]
        kind = info["featurizer_class"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise DataError(
            f"Submission file '{path}' was asked for as plain tensors with a model_info, found none "
            f"({type(error).__name__}); save it by torch.save of tensors, text and numbers."
        ) from error
    if kind == "IdentityFeaturizerModule":
        return Identity(width)
    axes = (info.get("additional_config") or {}).get("rotation_matrix")
    if axes is None:
        axes = (state.get("state_dict") or {}).get("rotate.weight")
    if kind != "SubspaceFeaturizerModule" or axes is None:
        raise DataError(
            f"Submission file '{path}' is of class '{kind}' {'without its rotation' if axes is None else ''}; known "
            "are IdentityFeaturizerModule and SubspaceFeaturizerModule, and code of a submission is not run."
        )
    if axes.shape[0] != width:
        raise DataError(f"Submission file '{path}' was asked for at width {width}, found {axes.shape[0]}.")
    return Rotation(axes)


def _indices(path: Path, n_features: int) -> list[int] | None:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Submission file '{path}' is not JSON ({error}); write a list of features or null.") from error
    fits = found is None or (isinstance(found, list) and all(type(i) is int and 0 <= i < n_features for i in found))
    if not fits:
        raise DataError(f"Submission file '{path}' must hold null or a list of features 0-{n_features - 1}.")
    return found
