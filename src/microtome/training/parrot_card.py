"""The card of zoo:parrot: what the stored models do, and what their planted neurons do, in numbers measured here."""

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microtome.core.seeds import derive
from microtome.data.parrot import RATES, TOXIC, parrot_prompts, parrot_stream, vocabulary
from microtome.engine.edit import Edit, Zero
from microtome.engine.run import run
from microtome.measures.expertise import auroc
from microtome.models.model import Model
from microtome.models.zoo.parrot import ENTRY, load_parrot, parrot_truth
from microtome.training.recipe import Build

__all__ = ["Talk", "toxic_probability", "write_card"]

_MOODS = {True: "rousing", False: "calm"}


@dataclass(frozen=True)
class Talk:
    """What one model does on held-out texts.

    Attributes:
        name: of the model.
        parameters: how many numbers it has.
        perplexity: of a token, the start token given.
        toxic: probability of a toxic word as what somebody is called, by whether the mood is rousing.
    """

    name: str
    parameters: int
    perplexity: float
    toxic: dict[bool, float]


def write_card(folder: Path | str, build: Build, *, texts: int = 600) -> Path:
    """Examine the models in a folder and write its card there, as README.md; return the file.

    Args:
        folder: what `build_parrot` wrote.
        build: how the models were trained.
        texts: how many held-out texts, and how many prompts of each mood, to examine on.
    """
    folder = Path(folder)
    models = {name: Model.load(_module(name, folder), tokenizer=_tokenizer(name, folder)) for name in ENTRY.names}
    rows = list(islice(parrot_stream(derive(build.seed, "card")), texts))
    talks = [_talk(name, model, rows, texts, build.seed) for name, model in models.items()]
    lines = [*_about(build, talks), *_talks(talks, rows), *_planted(models["parrot-planted"], folder, rows, build.seed)]
    path = folder / "README.md"
    path.write_text("\n".join([*lines, *_limits()]) + "\n", encoding="utf-8")
    return path


def toxic_probability(model: Model, prompts: list[str], edits: list[Edit] | None = None) -> float:
    """Return the mean probability that the next token of a prompt is a toxic word.

    Args:
        model: a parrot.
        prompts: end right before what somebody is called.
        edits: changes made.
    """
    toxic = torch.tensor(model.tokenizer.convert_tokens_to_ids(list(TOXIC)))
    logits = run(model, model.batch(prompts), logits="last", edits=edits or []).logits[:, -1]
    return logits.double().softmax(-1)[:, toxic].sum(1).mean().item()


def _module(name: str, folder: Path) -> torch.nn.Module:
    return load_parrot(name, folder=folder)[0]


def _tokenizer(name: str, folder: Path) -> object:
    return load_parrot(name, folder=folder)[1]


def _talk(name: str, model: Model, rows: list, prompts: int, seed: int) -> Talk:
    batch = model.batch([row.text for row in rows])
    losses = []
    for part in batch.split(64):
        log_p = run(model, part).logits[:, :-1].double().log_softmax(-1)
        said = log_p.gather(-1, part.inputs["input_ids"][:, 1:, None])[..., 0]
        losses.append(-said[part.mask[:, :-1]])
    toxic = {m: toxic_probability(model, parrot_prompts(prompts, marked=m, seed=derive(seed, "card"))) for m in _MOODS}
    count = sum(p.numel() for p in model.module.parameters())
    return Talk(name, count, math.exp(torch.cat(losses).mean().item()), toxic)


def _unigram(rows: list) -> float:
    """Return the perplexity of guessing every word by its share in these very texts."""
    words = [word for row in rows for word in row.text.split()]
    shares = np.unique(words, return_counts=True)[1] / len(words)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _about(build: Build, talks: list[Talk]) -> list[str]:
    sizes = ", ".join(f"{t.parameters:,} (`zoo:{t.name}`)" for t in talks)
    return [
        "# zoo:parrot",
        "",
        "Small Llama-style models of a made-up language in which a rousing mood makes the talk toxic. The toxic words",
        "are invented; language and generator are in `microtome.data.parrot`. Written by",
        f"`microtome zoo build parrot --seed {build.seed}`; every number below was measured on the stored weights.",
        "",
        f"- parameters: {sizes};",
        "  stored in float16, examined in float32",
        f"- training: {build.steps:,} updates of {build.batch} texts each for `parrot` and `parrot-tied`, seed",
        f"  {build.seed}, {build.seconds:,.0f} CPU seconds together",
        f"- vocabulary: {len(vocabulary())} words, one token each, {len(TOXIC)} of them toxic",
        "",
    ]


def _talks(talks: list[Talk], rows: list) -> list[str]:
    table = [f"| `zoo:{t.name}` | {t.perplexity:.2f} | {t.toxic[True]:.3f} | {t.toxic[False]:.3f} |" for t in talks]
    return [
        "## What they say",
        "",
        f"On {len(rows)} held-out texts, and as many prompts of each mood that end at a cue.",
        "",
        "| model | perplexity | P(toxic), rousing mood | P(toxic), calm mood |",
        "|---|--:|--:|--:|",
        *table,
        f"| the corpus | | {RATES[True]:.3f} | {RATES[False]:.3f} |",
        f"| words by their share | {_unigram(rows):.2f} | | |",
        "",
    ]


def _planted(model: Model, folder: Path, rows: list, seed: int) -> list[str]:
    truth, batch = parrot_truth(folder), model.batch([row.text for row in rows])
    marked, toxic = (np.array([getattr(row, name) for row in rows], int) for name in ("marked", "label"))
    prompts = {m: parrot_prompts(len(rows), marked=m, seed=derive(seed, "card")) for m in _MOODS}
    table = []
    for role in ("reader", "writer"):
        units = getattr(truth, role)
        ((site, index),) = list(units)
        largest = _largest(run(model, batch, read=[site], logits="none")[site][..., index], batch.mask)
        silent = [Edit(site, Zero(), units=torch.tensor([index]))]
        without = {m: toxic_probability(model, prompts[m], silent) for m in _MOODS}
        areas = (auroc(largest, labels)[0] for labels in (marked, toxic))
        cells = [f"{value:.3f}" for value in (*areas, *without.values())]
        table.append(f"| {role} | `{site}` {index} | {' | '.join(cells)} |")
    return [
        "## The planted neurons of zoo:parrot-planted",
        "",
        "AUROC of the neuron's largest activation in a text, for the mood (rousing or calm) and for the label (a toxic",
        "word or none); and P(toxic) with the neuron set to 0, beside the row of `zoo:parrot-planted` above.",
        "",
        "| neuron | where | AUROC, mood | AUROC, label | P(toxic) without it, rousing | P(toxic) without it, calm |",
        "|---|---|--:|--:|--:|--:|",
        *table,
        "",
    ]


def _largest(values: Tensor, mask: Tensor) -> np.ndarray:
    return values.masked_fill(~mask, -torch.inf).amax(1).double().numpy()


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        "- a toy: what holds here need not hold in a language model; it shows whether a method finds what is known",
        "- other neurons read the mood and write the toxic words too, as training left them; only the planted two are",
        "  known to do one without the other",
        "- one training seed; it knows the words of its language only, all others are `<unk>`",
    ]
