"""The recipe of a language model, from raw text to a tuned one: one TOML file, every number in it, hashed.

    quick            the embedded sample and the standard library's source, half a million parameters, minutes
    small            the same corpora as laptop, a million parameters: for comparisons that need several models
    laptop           twelve languages of a corpus folder, five million parameters, an hour
    fuxitranyu-8b    FuxiTranyu-8B as published (arXiv 2408.06273, section 3 and appendix A); what the report leaves
                     unsaid is marked in the file

A recipe is data: `load_recipe("laptop")` or a path gives it, `core.config` writes it and sets single keys. What is not
in it (folders, numbers of processes) changes where and how fast, never what.
"""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from microtome.core.config import from_toml
from microtome.core.errors import ConfigError, did_you_mean

__all__ = [
    "PRESETS",
    "Architecture",
    "BuildRecipe",
    "Corpus",
    "Mixing",
    "Preferring",
    "Pretraining",
    "Tokens",
    "Tuning",
    "load_recipe",
]

SAMPLE = "sample"
"""A corpus that comes with the package: `data.phrasebook`."""

PRESETS = ("quick", "small", "laptop", "fuxitranyu-8b")


@dataclass(frozen=True)
class Corpus:
    """What is read, and what of it is kept.

    Attributes:
        path: a folder, a file, `hf:NAME`, or `sample`.
        languages: which of its languages; empty for all.
        documents: most of each language, the first ones; 0 for all. (Of the sample, which is endless: how many.)
        bytes: of each language, to the document that reaches them; 0 for all.
        code: programming languages read as well.
        code_path: folder of their files; empty for the standard library.
        filters: names of filters; `default` stands for those that need no fitting.
        perplexity: quantile of each language's documents that is kept by a character model; 0 for no such filter.
        flagged: folder of <language>.txt with flagged words, one a line; empty for none.
        scrub: replace personal data.
        evaluation: corpora whose texts may not occur in what is kept.
        similar: least Jaccard similarity of near-duplicates; 0 removes exact duplicates only.
        engine: what looks for them: `local`, or `datatrove` where its package is installed.
        turns: remove them in the paper's turns, for languages of more documents than this; 0 never.
        test: share of the documents that is never trained on.
    """

    path: str = SAMPLE
    languages: tuple[str, ...] = ()
    documents: int = 0
    bytes: int = 0
    code: tuple[str, ...] = ()
    code_path: str = ""
    filters: tuple[str, ...] = ("default",)
    perplexity: float = 0.0
    flagged: str = ""
    scrub: bool = True
    evaluation: tuple[str, ...] = ()
    similar: float = 0.8
    engine: Literal["local", "datatrove"] = "local"
    turns: int = 0
    test: float = 0.01


@dataclass(frozen=True)
class Tokens:
    """The tokenizer.

    Attributes:
        size: of its vocabulary, then rounded up to a multiple of 128.
        pattern: `marks` or `gpt2`.
        documents: most documents of each language that it is trained on.
        each: most bytes of each language; 0 for no limit.
    """

    size: int = 8192
    pattern: Literal["marks", "gpt2"] = "marks"
    documents: int = 1_000_000
    each: int = 0


@dataclass(frozen=True)
class Architecture:
    """The model.

    Attributes:
        block: `fuxi` (the paper's), `llama` or `qwen`.
        layers: blocks.
        width: of the residual stream.
        mlp: neurons of a block.
        heads: of a block.
        context: longest text, in tokens.
    """

    block: Literal["fuxi", "llama", "qwen"] = "fuxi"
    layers: int = 6
    width: int = 160
    mlp: int = 640
    heads: int = 5
    context: int = 256


@dataclass(frozen=True)
class Mixing:
    """How much of each language is seen.

    Attributes:
        policy: `proportional`, `temperature`, `unimax`, `fixed`, or `favoured`: one language gets a share, the others
            the rest by temperature.
        alpha: exponent of `temperature`, and of `favoured` for the rest.
        max_epochs: of `unimax`.
        table: of `fixed`, pairs of language and share.
        favoured: the language that is.
        share: its share.
    """

    policy: Literal["proportional", "temperature", "unimax", "fixed", "favoured"] = "temperature"
    alpha: float = 0.3
    max_epochs: float = 4.0
    table: tuple[tuple[str, float], ...] = ()
    favoured: str = "en"
    share: float = 0.6


@dataclass(frozen=True)
class Pretraining:
    """How the model is pretrained; `pretraining_recipe.Recipe` says more of most of it.

    Attributes:
        tokens: seen in all.
        batch_tokens: of an update.
        growth: pairs of (tokens seen, tokens of an update from there on).
        rows: in one forward.
        peak: highest learning rate.
        floor: where it ends, as a share of it.
        warm_up: share of the updates in which it rises.
        decay: share of the updates after it, the last ones, in which it falls.
        fall: how.
        weight_decay: of matrices.
        clip: largest norm of the gradient.
        z_loss: weight of the squared log of the softmax's denominator.
        bf16: multiply in bfloat16.
        checkpoints: evenly spaced, kept for the analysis over training; the paper released 58.
        save_every: updates from one resumable checkpoint to the next.
        replicate: which of several models of one recipe; each has weights and an order of its own.
    """

    tokens: int = 4_000_000
    batch_tokens: int = 4096
    growth: tuple[tuple[int, int], ...] = ()
    rows: int = 16
    peak: float = 3e-3
    floor: float = 0.1
    warm_up: float = 0.02
    decay: float = 1.0
    fall: Literal["cosine", "linear", "sqrt"] = "cosine"
    weight_decay: float = 0.1
    clip: float = 1.0
    z_loss: float = 0.0
    bf16: bool = True
    checkpoints: int = 4
    save_every: int = 200
    replicate: int = 0


@dataclass(frozen=True)
class Tuning:
    """Supervised fine-tuning.

    Attributes:
        path: conversations (file, folder or `hf:NAME`); `corpus` makes them of the corpus itself; empty for none.
        languages: those kept; empty for the corpus's.
        examples: most of them; 0 for all.
        epochs: times they are gone through.
        rate: highest learning rate.
        warm_up: share of the updates in which it rises.
        batch: conversations of an update.
        longest: tokens of a conversation; 0 for the model's context.
        neftune: noise on embeddings (arXiv 2310.05914); 0 for none.
    """

    path: str = "corpus"
    languages: tuple[str, ...] = ()
    examples: int = 0
    epochs: float = 2.0
    rate: float = 2e-5
    warm_up: float = 0.1
    batch: int = 320
    longest: int = 0
    neftune: float = 5.0


@dataclass(frozen=True)
class Preferring:
    """DPO after it.

    Attributes:
        path: preference pairs (file, folder or `hf:NAME`); `corpus` makes them of the corpus itself; empty for none.
        examples: most of them; 0 for all.
        epochs: times they are gone through.
        beta: of DPO.
        rate: highest learning rate.
        warm_up: share of the updates in which it rises.
        batch: pairs of an update.
        longest: tokens of a prompt and an answer; 0 for the model's context.
    """

    path: str = "corpus"
    examples: int = 0
    epochs: float = 1.0
    beta: float = 0.01
    rate: float = 5e-7
    warm_up: float = 0.1
    batch: int = 320
    longest: int = 0


@dataclass(frozen=True)
class BuildRecipe:
    """Everything that makes a model what it is.

    Attributes:
        name: of the recipe.
        seed: of samples, weights and order.
        corpus: what is read.
        tokenizer: how it is cut.
        model: the architecture.
        mixing: how much of each language.
        pretrain: how it is trained.
        sft: how it is tuned on conversations.
        dpo: and on preferences.
    """

    name: str = "quick"
    seed: int = 0
    corpus: Corpus = field(default_factory=Corpus)
    tokenizer: Tokens = field(default_factory=Tokens)
    model: Architecture = field(default_factory=Architecture)
    mixing: Mixing = field(default_factory=Mixing)
    pretrain: Pretraining = field(default_factory=Pretraining)
    sft: Tuning = field(default_factory=Tuning)
    dpo: Preferring = field(default_factory=Preferring)


def load_recipe(name: str | Path) -> BuildRecipe:
    """Return a recipe.

    Args:
        name: one of `PRESETS`, or a TOML file.

    Raises:
        ConfigError: no such preset or file, or it does not fit.

    Example:
        >>> load_recipe("fuxitranyu-8b").model.layers
        30
    """
    if str(name) in PRESETS:
        text = resources.files(__package__).joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
        return from_toml(BuildRecipe, text)
    if not str(name).endswith(".toml"):
        near = did_you_mean(str(name), PRESETS)
        raise ConfigError(
            f"No recipe '{name}'; there are {', '.join(PRESETS)}, or give the path of a .toml file.{near}"
        )
    return from_toml(BuildRecipe, Path(name))
