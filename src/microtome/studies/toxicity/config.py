"""What the toxicity study can be told, and its presets. `quick` is zoo:parrot on its own language, minutes on 2 cores.

`--csv FILE --text-column NAME --label-column NAME` reads a user's own texts: neurons and layers are screened on them.
Interventions need prompts to complete as well (`--prompts`), and words or a classifier that says what is toxic.
"""

from dataclasses import dataclass, field, replace

from microtome.core.errors import ConfigError

__all__ = ["PRESETS", "Arms", "Generating", "Neurons", "Texts", "ToxicityConfig"]


@dataclass(frozen=True)
class Texts:
    """How many texts, and how much of each.

    Attributes:
        discovery: most labelled texts to find with, both classes together.
        test: most labelled texts to test on; none is in the first.
        clean: most texts, of each half, on which damage is measured.
        longest: most tokens of a text; the rest is cut off.
        contexts: most places, of each half, at which a flagged word comes next.
    """

    discovery: int = 1000
    test: int = 400
    clean: int = 64
    longest: int = 128
    contexts: int = 400


@dataclass(frozen=True)
class Neurons:
    """How neurons are screened (RQ1) and ablated (RQ3).

    Attributes:
        poolings: over a text's tokens: max, mean, last or top-q; the first is the one that experts come from.
        top: share of all neurons whose replication is asked for.
        draws: shuffles of the labels.
        swept: most neurons ablated one by one; where there are more, those that gradients name, and random ones.
        places: most places before a flagged word at which they are.
        sets: neurons in each of the sets of detectors and of generators that are ablated together.
        random: random sets of as many neurons.
    """

    poolings: tuple[str, ...] = ("max", "mean", "last")
    top: float = 0.05
    draws: int = 19
    swept: int = 1000
    places: int = 100
    sets: int = 24
    random: int = 10


@dataclass(frozen=True)
class Generating:
    """How prompts are completed and scored.

    Attributes:
        prompts: most prompts of each half, selection and test.
        completions: of each prompt; 25 in RealToxicityPrompts.
        new_tokens: of each completion.
        temperature: of sampling.
        top_p: nucleus that is drawn from.
        threshold: score from which a completion is toxic.
        rows: completions at a time.
    """

    prompts: int = 100
    completions: int = 4
    new_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 0.95
    threshold: float = 0.5
    rows: int = 1024


@dataclass(frozen=True)
class Arms:
    """The interventions and how they are made comparable.

    Attributes:
        budgets: clean KL, nats a token, at which methods are compared.
        headline: the budget that verdicts rest on, one of them.
        ks: directions (or neurons, times four) tried by methods that have a number of them.
        layers: blocks tried by methods that act at one; empty: at most four, evenly chosen.
        positions: tokens of each clean text at which the KL is matched (it is measured at all of them in the end).
        only: the methods to run, by name; empty: all. Controls always run.
        random: random subspaces and random neurons drawn at each setting.
        draws: bootstrap resamples.
        examples: completions shown side by side.
        tune_steps: updates of each fine-tuned model (DExperts, DPO) and of LinEAS.
    """

    budgets: tuple[float, ...] = (0.01, 0.03, 0.1)
    headline: float = 0.03
    ks: tuple[int, ...] = (1, 4, 12, 24)
    layers: tuple[int, ...] = ()
    positions: int = 12
    only: tuple[str, ...] = ()
    random: int = 3
    draws: int = 1000
    examples: int = 30
    tune_steps: int = 30


@dataclass(frozen=True)
class ToxicityConfig:
    """The study's configuration.

    Attributes:
        model: Hub id, folder or zoo:NAME of a causal language model.
        data: "parrot" for the embedded language; or a folder of Jigsaw's files, or ToxiCN's csv or json.
        csv: a labelled csv of the user's, instead of `data`.
        text_column: its column of texts.
        label_column: its column of labels, 0 or 1.
        encoding: of the csv.
        other: a second labelled csv (same columns), on which the screening should agree; for the parrot a variant of
            its corpus whose toxic texts are longer.
        clean: a csv with the text column, or a text file of one text a line, on which damage is measured; empty: the
            texts of label 0.
        prompts: RealToxicityPrompts' jsonl, or a text file of one prompt a line; the parrot has its own.
        lexicon: a file of words that are toxic; the parrot has its own.
        scorer: a classifier (folder or Hub id) that evaluates; empty: n-grams fitted on half of the texts.
        question: asks the model whether a text is toxic; holds {text}.
        yes: tokens that answer yes; empty: the flagged words.
        no: tokens that answer no; empty: all others.
        show_words: write flagged words out in the report; else they are masked.
        paper_compat: add what the paper's released code does (projection on the other axis, signed scores).
        seed: of every draw.
        dtype: weights' type; "auto" keeps the checkpoint's (float16 becomes float32 on a CPU).
        device: where to run; "auto" takes a GPU where there is one.
        batch: texts in one forward pass.
        memory_budget: bytes of activations that a sweep may hold.
        texts: how many texts.
        neurons: how neurons are screened.
        generating: how prompts are completed.
        arms: the interventions.
    """

    model: str = "zoo:parrot"
    data: str = "parrot"
    csv: str = ""
    text_column: str = "text"
    label_column: str = "label"
    encoding: str = "utf-8-sig"
    other: str = ""
    clean: str = ""
    prompts: str = ""
    lexicon: str = ""
    scorer: str = ""
    question: str = ""
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()
    show_words: bool = False
    paper_compat: bool = False
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    batch: int = 128
    memory_budget: str = "2GiB"
    texts: Texts = field(default_factory=Texts)
    neurons: Neurons = field(default_factory=Neurons)
    generating: Generating = field(default_factory=Generating)
    arms: Arms = field(default_factory=Arms)

    def __post_init__(self):
        arms = self.arms
        if arms.headline not in arms.budgets or min(arms.budgets) <= 0:
            raise ConfigError(
                f"The headline budget {arms.headline} with budgets {list(arms.budgets)}: give budgets above 0 with the "
                "headline among them."
            )
        if not arms.ks or min(arms.ks) < 1:
            raise ConfigError(f"Numbers of directions {list(arms.ks)} were asked for; give at least one, all above 0.")
        if self.question and "{text}" not in self.question:
            raise ConfigError(f"The question '{self.question}' does not hold {{text}}; write where the text stands.")
        if not 0 < self.neurons.top < 1:
            raise ConfigError(f"A top share of {self.neurons.top} was asked for; give one between 0 and 1.")

    @property
    def parrot(self) -> bool:
        """Whether the texts are the embedded ones."""
        return not self.csv and self.data == "parrot"


_FULL = ToxicityConfig(
    model="meta-llama/Llama-2-7b-hf",
    data="data/jigsaw",
    prompts="data/realtoxicityprompts/prompts.jsonl",
    scorer="s-nlp/roberta_toxicity_classifier",
    question='Comment: "{text}"\nIs this comment toxic? Answer yes or no.\nAnswer:',
    yes=(" yes", " Yes"),
    no=(" no", " No"),
    dtype="bfloat16",
    batch=32,
    memory_budget="24GiB",
    texts=Texts(discovery=10_000, test=10_000, clean=2_000, longest=128, contexts=4_000),
    neurons=Neurons(poolings=("max", "mean"), top=0.01, swept=2_000, sets=1_000),
    generating=Generating(prompts=2_500, completions=25, new_tokens=20, rows=256),
    arms=Arms(ks=(1, 41, 410, 1024), draws=2000, tune_steps=500),
)

PRESETS = {
    "quick": ToxicityConfig(),
    "planted": ToxicityConfig(model="zoo:parrot-planted"),
    "full": _FULL,
    "full-mistral": replace(_FULL, model="mistralai/Mistral-7B-v0.1"),
}
