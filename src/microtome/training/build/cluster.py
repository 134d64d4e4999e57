"""A recipe that this machine cannot run: what it would take, and the job that runs it on a cluster.

    FLOPs = tokens * FLOPs of a token (`throughput.model_flops`)        hours = FLOPs / (devices * peak * MFU)
    bytes of a device = 16 parameters / devices        float32 weights, gradients and AdamW's two moments, divided

The model is made on the meta device, so that counting it takes no memory.
"""

import shlex
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from microtome.training.build.pretraining import architecture, updates
from microtome.training.build.recipe import BuildRecipe
from microtome.training.throughput import model_flops

__all__ = ["Needs", "job", "needs"]

_ROUND = 128
_A800 = 312e12
"""bfloat16 FLOPs a second of an A800 or A100, the paper's devices."""


@dataclass(frozen=True)
class Needs:
    """What pretraining by a recipe takes.

    Attributes:
        parameters: of the model.
        vocabulary: its tokens, the unused ones included.
        updates: of the optimizer.
        flops: in all.
        device_hours: on devices of a given peak and MFU.
        bytes_each: of weights, gradients and optimizer on each of so many devices.
    """

    parameters: int
    vocabulary: int
    updates: int
    flops: float
    device_hours: float
    bytes_each: float


def needs(recipe: BuildRecipe, *, devices: int = 32, peak: float = _A800, mfu: float = 0.4) -> Needs:
    """Return what pretraining takes.

    Args:
        recipe: the whole; nothing of it is run.
        devices: how many.
        peak: FLOPs a second of one.
        mfu: share of the peak that is expected.

    Example:
        >>> round(needs(load_recipe("fuxitranyu-8b")).parameters / 1e9, 3)
        8.095
    """
    vocabulary = -(-recipe.tokenizer.size // _ROUND) * _ROUND
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(architecture(recipe.model, vocabulary))
    parameters = sum(p.numel() for p in module.parameters())
    flops = float(recipe.pretrain.tokens) * model_flops(module, recipe.model.context)
    steps = updates(recipe.pretrain, recipe.seed).steps
    return Needs(parameters, vocabulary, steps, flops, flops / (peak * mfu) / 3600, 16 * parameters / devices)


def job(recipe: BuildRecipe, *, nodes: int = 4, devices: int = 8, store: str = "artefacts") -> str:
    """Return a Slurm script that builds a model; started again, it goes on where it was.

    Args:
        recipe: the whole; the script expects it as `recipe.toml` beside itself.
        nodes: machines.
        devices: GPUs of each.
        store: folder of the artefacts, which all machines see.
    """
    name = shlex.quote(recipe.name)
    return f"""#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={devices}
#SBATCH --exclusive
#SBATCH --requeue
# What one machine can do (corpus, tokenizer) is done by the first process; the others wait for it.
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes={nodes} --nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint="$head:29500" \\
    -m microtome.training.build recipe.toml --store {shlex.quote(store)} --until pretrain --sharded
# Tuning runs in one process on one device, which must hold the model, its gradients and optimizer (and for DPO a copy).
srun --nodes=1 --ntasks=1 --gpus=1 python -m microtome.training.build recipe.toml --store {shlex.quote(store)}
"""
