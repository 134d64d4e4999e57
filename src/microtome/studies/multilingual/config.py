"""What the multilingual study can be told, and its presets.

    quick            builds a half-million-parameter model from the embedded sample, analyses zoo:babel
    laptop           builds a model from a corpus folder (--corpus) in so many minutes (--minutes), analyses that
    thesis           balanced against English-heavy data at equal tokens, three small models of each (--corpus)
    fuxitranyu-8b    checks the published recipe on the meta device and writes the cluster's job; trains nothing

`--model NAME --parallel FOLDER` analyses any model and builds none.
"""

from dataclasses import dataclass, field, replace

from microtome.core.errors import ConfigError
from microtome.studies.multilingual.analysis import Analysis

__all__ = ["BUILT", "PRESETS", "Evaluation", "MultilingualConfig", "Thesis"]

BUILT = "built"
"""As a model: the one that the recipe builds."""

_AUTO, _NONE, _BABEL = "auto", "none", "zoo:babel"


@dataclass(frozen=True)
class Evaluation:
    """How models are scored.

    Attributes:
        sentences: most parallel sentences, for bits per byte.
        questions: most questions of each benchmark and language; 0 for all.
        cloze: gaps made of the parallel text for each language; 0 for none.
        harness: ask lm-evaluation-harness the same questions.
        prompts: prompts of each language whose answers' language is judged, of chat models built here.
        new_tokens: of an answer.
        draws: bootstrap resamples.
    """

    sentences: int = 200
    questions: int = 100
    cloze: int = 50
    harness: bool = False
    prompts: int = 8
    new_tokens: int = 48
    draws: int = 1000


@dataclass(frozen=True)
class Thesis:
    """Balanced against skewed data, at equal tokens.

    Attributes:
        seeds: models of each kind; 0 for no comparison.
        favoured: the language that the skewed mix favours.
        share: what it gets of the skewed mix.
        sentences: most parallel sentences that they are compared on.
    """

    seeds: int = 0
    favoured: str = "en"
    share: float = 0.6
    sentences: int = 500


@dataclass(frozen=True)
class MultilingualConfig:
    """The study's configuration.

    Attributes:
        model: what is analysed: a Hub id, a folder, zoo:NAME, or `built` for what the recipe builds.
        recipe: what is built: a preset of `training.build` or a TOML file; `none`; `auto` for `quick` where zoo:babel
            is analysed on embedded text, else none.
        corpus: folder, file or `hf:NAME` in place of the recipe's corpus.
        parallel: folder of line-aligned texts, <language>.txt; empty for `parallel/` in the corpus that is built from,
            if it is there, else for embedded sentences.
        benchmarks: folder that holds `xcopa/`, `crosslingual_winograd.tsv` or both; empty for none.
        tokenizers: others that the model's is compared with: Hub ids or folders.
        languages: those analysed; empty for all that the parallel text has.
        minutes: of training the built model, on this machine; 0 leaves the recipe's tokens.
        plan_only: count what the recipe takes and write the cluster's job, train nothing.
        store: folder of artefacts; empty for one beside the record.
        seed: of every draw.
        device: where the model is; empty for the CPU, or CUDA where there is one.
        dtype: of its weights while it is analysed.
        evaluation: how models are scored.
        analysis: what is looked at.
        thesis: balanced against skewed data.
    """

    model: str = _BABEL
    recipe: str = _AUTO
    corpus: str = ""
    parallel: str = ""
    benchmarks: str = ""
    tokenizers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    minutes: float = 0.0
    plan_only: bool = False
    store: str = ""
    seed: int = 0
    device: str = ""
    dtype: str = "float32"
    evaluation: Evaluation = field(default_factory=Evaluation)
    analysis: Analysis = field(default_factory=Analysis)
    thesis: Thesis = field(default_factory=Thesis)

    def __post_init__(self):
        if self.minutes < 0 or self.thesis.seeds < 0:
            raise ConfigError(
                f"{self.minutes} minutes and {self.thesis.seeds} seeds were asked for; give numbers of 0 or more."
            )
        if self.model == BUILT and not self.builds:
            raise ConfigError("The built model was to be analysed, found recipe='none'; give a recipe or a model.")

    @property
    def builds(self) -> str | None:
        """The recipe that is built, or None."""
        if self.recipe == _AUTO:
            return "quick" if self.model == _BABEL and not self.parallel else None
        return None if self.recipe == _NONE else self.recipe

    @property
    def analyses(self) -> bool:
        """Whether a model is analysed."""
        return self.model != _NONE and not self.plan_only


_QUICK = MultilingualConfig(
    evaluation=Evaluation(sentences=100, cloze=30),
    analysis=Analysis(
        sentences=160,
        shuffles=19,
        resamples=10,
        checked=100,
        ablation_sentences=10,
        similar=120,
        dynamics_sentences=60,
    ),
)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, model=BUILT, recipe="laptop", evaluation=Evaluation(), analysis=Analysis(sentences=300)),
    "thesis": replace(_QUICK, model=_NONE, recipe="small", thesis=Thesis(seeds=3)),
    "fuxitranyu-8b": replace(_QUICK, model=_NONE, recipe="fuxitranyu-8b", plan_only=True),
}
