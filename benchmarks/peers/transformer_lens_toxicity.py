"""TransformerLens 4: a hook on what the unembedding reads, in the bridge's own generation loop."""

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from benchmarks.candidates import Candidate
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import POSITIONS, Work

__all__ = ["edit_overhead"]


def edit_overhead(work: Work, axes: Tensor) -> list[Candidate]:
    """`generate` within `hooks`."""
    model = work.copied_model()
    tokenizer = unused_tokenizer(model.config.vocab_size, work.scratch)
    bridge = TransformerBridge.boot_transformers("llama", hf_model=model, tokenizer=tokenizer, device=work.device)
    bridge.eval().requires_grad_(False)

    def run() -> Tensor:
        hooks = [("unembed.hook_in", lambda x, hook: x - (x @ axes) @ axes.T)]
        with torch.no_grad(), bridge.hooks(fwd_hooks=hooks):
            out = bridge.generate(work.clean, work.size.new, stop_at_eos=False, do_sample=False, verbose=False)
        return out[:, POSITIONS:]

    return [Candidate("transformer_lens", "eigenshift", run, note="its own loop, eager attention")]
