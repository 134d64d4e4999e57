"""A model in training under accelerate: one update, a checkpoint, the way back; what the loop in `pretraining.py` asks.

    loss = sum over targets of cross-entropy + z_loss * (log Z)^2,  over the number of targets of the whole update

The number is that of all batches and processes, so how an update is cut into batches and shared out changes nothing but
rounding: gradients of batches add up, and processes are compensated for the mean that DDP and FSDP take. Every process
has every batch and takes rows rank, rank + world, ... of it, so counts need no exchange; summed losses do.

Model and optimizer are put in checkpoints whole and under their plain names (torch.distributed.checkpoint), whether a
process holds all of them or a part. Random generators of each process are kept beside them.
"""

import json
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp

from microtome.core.errors import DataError, ModelError
from microtome.core.files import clean
from microtome.core.seeds import derive
from microtome.models.probe import accepted_arguments
from microtome.models.quiet import without_progress_bars
from microtome.training.checkpoints import (
    Snapshot,
    checkpoint_path,
    checkpoints_in,
    drop_after,
    prune,
    read,
    refuse_other,
    write,
)
from microtome.training.cross_entropy import token_losses
from microtome.training.packing import NO_TARGET, Rows, positions, targets
from microtome.training.pretraining_recipe import Checkpoints, Recipe, fingerprint
from microtome.training.throughput import model_flops

__all__ = ["Journal", "Session", "Stream", "Update", "own_draws"]

_log = logging.getLogger(__name__)
_VOLATILE = ("architectures", "dtype", "transformers_version", "_name_or_path")


class Stream(Protocol):
    """An iterator of batches that can say where it stands."""

    def __next__(self) -> Rows:
        """Return the next batch."""

    def state(self) -> Any:
        """Return, as JSON holds it, where the stream stands: after the last batch it gave."""


@dataclass
class Journal:
    """What has happened so far; JSON holds it."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    languages: dict[str, list[list]] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    rollbacks: list[dict] = field(default_factory=list)
    data: Any = None

    @property
    def step(self) -> int:
        """Updates done."""
        return len(self.losses)


class Update(NamedTuple):
    """What an update found: mean loss, norm of the gradient, mean loss by language."""

    loss: float
    norm: float
    languages: dict[str, float]


class Session:
    """The model and optimizer as accelerate wraps them, and their checkpoints.

    Args:
        module: a transformers causal language model; it is trained in place.
        recipe: how to train.
        run: names initial weights and data.
        folder: where checkpoints are; None for none.
        on_checkpoint: called with a checkpoint's folder and the number of updates done.
        sharded: divide the model among the processes.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        run: str,
        folder: Path | None,
        on_checkpoint: Callable[[Path, int], object] | None,
        sharded: bool,
    ):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        self.recipe, self.folder, self.on_checkpoint = recipe, folder, on_checkpoint
        self.module, self.kind = module, type(module)
        fixed = model_flops(module, 0)  # counted before the weights are sharded
        self.flops = fixed, model_flops(module, 1) - fixed
        self.size = 3 * sum(p.numel() * p.element_size() for p in module.parameters())
        self.takes_positions = "position_ids" in accepted_arguments(module)
        config = {k: v for k, v in module.config.to_dict().items() if k not in _VOLATILE}
        self.fingerprint, self.told = fingerprint(recipe, run, config | {"weights": str(module.dtype)})
        AcceleratorState._reset_state()  # a Trainer of this process may have left its own mixed precision in it
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no")
        self.main, self.rank = self.accelerator.is_main_process, self.accelerator.process_index
        self.world = self.accelerator.num_processes
        self.sharded = sharded and self.world > 1
        if self.sharded:
            self.model = _shard(module, self.accelerator.device.type, self.world)
            self.optimizer = _optimizer(module, recipe)
        else:
            self.model, optimizer = self.accelerator.prepare(module, _optimizer(module, recipe))
            self.optimizer = optimizer.optimizer
        self.model.train()

    def update(self, parts: list[Rows], rate: float) -> Update:
        """Take one step on batches, unless loss or gradient are not finite; the loss is that before the step."""
        wanted = [targets(part) for part in parts]
        count = sum(int((aim != NO_TARGET).sum()) for aim in wanted)
        if count == 0:
            raise DataError("A batch was given in which there is no token to predict; give documents of two or more.")
        names = sorted({name for part in parts for name in part.languages})
        sums = torch.zeros(1 + len(names), dtype=torch.float64, device=self.accelerator.device)
        for i, (part, aim) in enumerate(zip(parts, wanted, strict=True)):
            with self._synchronised(i == len(parts) - 1):
                sums += self._accumulate(part, aim, names, self.world / count)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        norm = float(norm.full_tensor() if self.sharded else norm)
        loss, *by_language = self.accelerator.reduce(sums, reduction="sum").tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
        else:
            loss = math.nan
        self.optimizer.zero_grad(set_to_none=True)
        counts = _counts(parts, wanted, names)
        means = {n: s / c for n, s, c in zip(names, by_language, counts, strict=True) if c}
        return Update(loss / count, norm, means)

    def _synchronised(self, last: bool) -> AbstractContextManager:
        """Let processes add up their gradients only after the last batch of an update."""
        if self.sharded:
            self.model.set_requires_gradient_sync(last)
        return nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model)

    def _accumulate(self, part: Rows, aim: Tensor, names: list[str], share: float) -> Float[Tensor, " sums"]:
        """Add the gradient of this process's rows; return their summed cross-entropy, in all and by language."""
        device = self.accelerator.device
        mine = slice(self.rank, None, self.world)
        if len(part.ids) < self.world:
            raise DataError(
                f"A batch of {len(part.ids)} rows was given to {self.world} processes; give a row or more to each."
            )
        inputs = {"input_ids": part.ids[mine].to(device)}
        if part.documents is not None:
            inputs["position_ids"] = self._positions(part.documents[mine]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits = self.model(**inputs, use_cache=False).logits
        losses = token_losses(logits, aim[mine].to(device))
        total = losses.cross_entropy.sum()
        if self.recipe.z_loss:
            total = total + self.recipe.z_loss * losses.log_z.square().sum()
        self.accelerator.backward(total * share)
        each = losses.cross_entropy.detach().double()
        sums = torch.zeros(1 + len(names), dtype=torch.float64, device=device)
        sums[0] = each.sum()
        if part.languages:
            sums.index_add_(0, 1 + _language_of(part, names)[mine].flatten().to(device), each)
        return sums

    def _positions(self, documents: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
        if not self.takes_positions:
            raise ModelError(
                f"Packed documents were given to {self.kind.__name__}, whose forward takes no position_ids and so "
                "cannot keep them apart; give rows without documents, or another architecture."
            )
        return positions(documents)

    def resume(self) -> Journal | None:
        """Return the journal of the newest checkpoint, after loading it, or None; the generators are seeded then."""
        if self.folder is not None and self.main:
            clean(self.folder)
        self.accelerator.wait_for_everyone()
        found = checkpoints_in(self.folder, resumable=True) if self.folder is not None else []
        if not found:
            _seed(derive(self.recipe.seed, "pretraining", self.rank))
            return None
        refuse_other(self.folder, found[-1], self.fingerprint, self.told)
        journal = self.load(found[-1])
        _log.info("resumed from update %d in '%s'", journal.step, self.folder)
        self._tell(checkpoint_path(self.folder, journal.step), journal.step)
        return journal

    def roll_back(self, journal: Journal, spike: int) -> Journal:
        """Return the journal of the newest checkpoint from before a spike, after loading it; rollbacks stay noted."""
        loss, done = journal.losses[spike], len(journal.rollbacks)
        told = f"Training diverged at update {spike} (loss {loss:.4g})"
        found = checkpoints_in(self.folder, resumable=True) if self.folder is not None else []
        good = [step for step in found if step <= spike]
        if done >= self.recipe.spikes.most:
            raise ModelError(f"{told} after {done} rollbacks; lower the peak learning rate.")
        if not good:
            raise ModelError(
                f"{told}, found no checkpoint from before it to go back to; give a folder, keep more checkpoints "
                "resumable, or lower the peak learning rate."
            )
        self.accelerator.wait_for_everyone()
        if self.main:
            drop_after(self.folder, good[-1])
        event = {"spike": spike, "loss": loss if math.isfinite(loss) else None, "back_to": good[-1]}
        _log.warning("%s; back to update %d, rates cut by %.3g", told, good[-1], self.recipe.spikes.cut)
        return replace(self.load(good[-1]), rollbacks=[*journal.rollbacks, event], seconds=journal.seconds)

    def save(self, journal: Journal, stream: Stream, plan: Checkpoints) -> None:
        """Write a checkpoint, show it to whoever wants to see it, and prune the old ones."""
        from accelerate.utils import gather_object

        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = dcp.get_model_state_dict(self.model, options=options)
        optimizer = {}
        if journal.step:  # asking for the state of a new optimizer would count one update
            optimizer = dcp.get_optimizer_state_dict(self.model, self.optimizer, options=options)
        draws = gather_object([_random_state()])
        if self.main:
            state = {"optimizer": optimizer, "random": draws}
            told = asdict(replace(journal, data=_as_json(stream.state())))
            snapshot = Snapshot(journal.step, self.fingerprint, self.told, told, state)
            path = write(self.folder, snapshot, lambda part: self._save_model(part, weights), self.size)
            self._tell(path, journal.step)
            prune(self.folder, plan)
        self.accelerator.wait_for_everyone()
        self.model.train()

    def _save_model(self, part: Path, weights: dict[str, Tensor]) -> None:
        plain = self.accelerator.unwrap_model(self.model)
        with without_progress_bars():
            plain.save_pretrained(part, state_dict=weights)

    def _tell(self, path: Path, step: int) -> None:
        if self.main and self.on_checkpoint is not None:
            draws = _random_state()
            self.on_checkpoint(path, step)
            _set_random_state(draws)

    def load(self, step: int) -> Journal:
        """Put weights, optimizer and generators back to a checkpoint; return its journal."""
        snapshot, path = read(self.folder, step), checkpoint_path(self.folder, step)
        weights, optimizer = {}, {}
        if self.main:  # the others are sent theirs
            with without_progress_bars():
                weights = self.kind.from_pretrained(path, dtype=self.module.dtype).state_dict()
            optimizer = snapshot.state["optimizer"]
        options = dcp.StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.world > 1)
        dcp.set_model_state_dict(self.model, weights, options=options)
        if step:
            dcp.set_optimizer_state_dict(self.model, self.optimizer, optimizer, options=options)
        else:
            self.optimizer.state.clear()
        draws = snapshot.state["random"]
        if self.rank < len(draws):
            _set_random_state(draws[self.rank])
        else:
            _seed(derive(self.recipe.seed, "pretraining", self.rank, step))
        self.model.train()
        return Journal(**snapshot.journal)

    def close(self) -> None:
        """Leave the module as a plain one, in eval mode."""
        self.accelerator.wait_for_everyone()
        plain = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        vars(plain).pop("_is_accelerate_prepared", None)
        self.module.eval()


def _shard(module: nn.Module, device: str, world: int) -> nn.Module:
    """Divide each block's weights among the processes, and what is outside of blocks (torch's `fully_shard`)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (world,))
    for block in [m for m in module.modules() if type(m).__name__ in (module._no_split_modules or ())]:
        fully_shard(block, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak, betas=recipe.betas, eps=recipe.eps, fused=True)


def _as_json(state: Any) -> Any:
    """Return a stream's state, which must come back from JSON as it was."""
    try:
        same = json.loads(json.dumps(state, allow_nan=False)) == state
    except (TypeError, ValueError):
        same = False
    if not same:
        raise DataError(
            f"A state of the data was asked for, found a {type(state).__name__} that JSON does not hold unchanged; "
            "make it of dicts with text keys, lists, text and Python numbers."
        )
    return state


def _language_of(part: Rows, names: list[str]) -> Int[Tensor, "batch seq"]:
    """Return the number, among all names, of each token's language."""
    number = torch.tensor([names.index(name) for name in part.languages])
    return number[part.documents] if part.documents is not None else number[:, None].expand_as(part.ids)


def _counts(parts: list[Rows], wanted: list[Tensor], names: list[str]) -> list[int]:
    """Return how many targets each language has."""
    total = torch.zeros(len(names), dtype=torch.long)
    for part, aim in zip(parts, wanted, strict=True):
        if part.languages:
            total += torch.bincount(_language_of(part, names)[aim != NO_TARGET], minlength=len(names))
    return total.tolist()


def _random_state() -> dict[str, Any]:
    """Return the state of the generators of Python, numpy, torch and CUDA, as torch saves it."""
    name, keys, *rest = np.random.get_state()
    numpy = [name, torch.from_numpy(keys.astype(np.int64)), *rest]
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def own_draws() -> Iterator[None]:
    """Leave the caller's generators as they were."""
    before = _random_state()
    try:
        yield
    finally:
        _set_random_state(before)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
