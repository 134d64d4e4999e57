"""Steps that ask and locate: what the model answers, and where the answer travels. Each returns a record's stage."""

import torch

from microtome.core.seeds import generator
from microtome.measures.lenses import logit_lens
from microtome.measures.resampling import bootstrap_mean
from microtome.models.digest import weights_digest
from microtome.records import StageOutput, Told
from microtome.studies.recall.patching import head_map, layer_map, token_map
from microtome.studies.recall.prompts import Drawn, answer_prompts, reading
from microtome.studies.recall.subject import Subject

__all__ = ["ask", "describe", "heads", "layers", "lens", "read_or_recall"]


def describe(subject: Subject) -> StageOutput:
    """What is studied: sizes, type, a digest of the weights."""
    model = subject.model
    space = subject.space
    heads = sum(n for s, n in space.items() if s.kind == "attn.heads")
    return StageOutput(
        values={
            "model_digest": weights_digest(model.module),
            "blocks": len(model.anatomy.blocks),
            "heads": heads,
            "neurons": sum(space.values()) - heads,
            "parameters": sum(p.numel() for p in model.module.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "vocabulary": model.anatomy.vocab,
        }
    )


def ask(subject: Subject, drawn: Drawn) -> StageOutput:
    """Accuracy by part and cell, and the prompts that are kept."""
    accuracies, kept = answer_prompts(subject.model, drawn, subject.config)
    return StageOutput(tables={"answers": accuracies, "prompts": kept})


def read_or_recall(subject: Subject) -> StageOutput:
    """What the model says where passage and weights disagree."""
    return StageOutput(tables={"reading": reading(subject.model, subject.config)})


def layers(subject: Subject, told: Told) -> StageOutput:
    """Layer by position in every cell, and token by token for one shape of prompt."""
    rows, tokens, cells = [], [], subject.cells("discovery")
    for k, cell in enumerate(cells):
        cases, rng = subject.cases("discovery", cell), generator(subject.config.seed, "layers", cell)
        found = layer_map(
            subject.model,
            cases,
            **subject.engine,
            rng=rng,
            draws=subject.config.testing.draws,
            told=lambda x, k=k: told((k + x) / len(cells)),
        )
        rows += [{"cell": str(cell), **row} for row in found]
        tokens += [{"cell": str(cell), **row} for row in token_map(subject.model, cases, **subject.engine)]
    return StageOutput(tables={"layers": rows, "tokens": tokens})


def heads(subject: Subject, told: Told) -> StageOutput:
    """Head by head in every cell."""
    rows, cells = [], subject.cells("discovery")
    for k, cell in enumerate(cells):
        found = head_map(
            subject.model,
            subject.cases("discovery", cell),
            **subject.engine,
            rng=generator(subject.config.seed, "heads", cell),
            draws=subject.config.testing.draws,
            told=lambda x, k=k: told((k + x) / len(cells)),
        )
        rows += [{"cell": str(cell), **row} for row in found]
    return StageOutput(tables={"heads": rows})


def lens(subject: Subject) -> StageOutput:
    """How likely the answer is when the stream is read out after each block (logit lens)."""
    rows = []
    for cell in subject.cells("discovery"):
        cases = subject.cases("discovery", cell)
        values: dict[int, list[torch.Tensor]] = {}
        for chunk in cases.chunks(subject.config.batch):
            answers = torch.tensor([p.answer_ids[0] for p in chunk.puzzles], device=subject.model.device)
            for site, logits in logit_lens(subject.model, chunk.batch).items():
                said = logits[:, -1].float().log_softmax(-1).gather(1, answers[:, None])[:, 0].exp()
                values.setdefault(site.block, []).append(said.double().cpu())
        for block, parts in values.items():
            rng = generator(subject.config.seed, "lens", cell, block)
            mean = bootstrap_mean(
                torch.cat(parts), rng=rng, clusters=cases.clusters, draws=subject.config.testing.draws
            )
            rows.append(
                {
                    "cell": str(cell),
                    "layer": block,
                    "probability": mean.estimate,
                    "low": mean.low,
                    "high": mean.high,
                    "chance": 1 / subject.model.anatomy.vocab,
                    "n": len(cases),
                }
            )
    return StageOutput(tables={"lens": rows})
