"""What the RAVEL study can be told, and its presets. `quick` is zoo:atlas on its own facts, minutes on two cores."""

from dataclasses import dataclass, field, replace

from microtome.core.errors import ConfigError, did_you_mean

__all__ = ["POSITIONS", "PRESETS", "Asking", "Fitting", "PairCounts", "RavelConfig", "Testing"]

POSITIONS = ("entity", "last")


@dataclass(frozen=True)
class Asking:
    """What the model is asked, to find what it knows.

    Attributes:
        entities: most entities asked about, every split with its share; 0 for all.
        templates: most templates of each attribute, every split with its share; 0 for all.
        sentences: most sentences that ask for nothing; 0 for all.
        new_tokens: most tokens of an answer.
        best_entities: after asking, keep those known best; 0 keeps all (SAEBench keeps 500).
        best_templates: the same for templates (SAEBench: 90).
        least: fewest prompts that must be known for the study to go on.
    """

    entities: int = 360
    templates: int = 12
    sentences: int = 120
    new_tokens: int = 6
    best_entities: int = 0
    best_templates: int = 0
    least: int = 200


@dataclass(frozen=True)
class PairCounts:
    """How many pairs of base and source are drawn for each attribute asked.

    Attributes:
        bases: most entities of each training template.
        train: to fit on; a target has as many to change, and as many of each other attribute to leave alone.
        validation: of each of the two validation sides (unseen entities, unseen templates), to choose by.
        test: of each of the two test sides, to report.
        answer_tokens: tokens of an answer that count; the released code decodes three.
    """

    bases: int = 60
    train: int = 240
    validation: int = 48
    test: int = 160
    answer_tokens: int = 3


@dataclass(frozen=True)
class Fitting:
    """How featurizers are fitted, and what is chosen on validation pairs.

    Attributes:
        ranks: dimensions to choose from, for DAS, MDAS, joint MDAS and RLAP; those above the width are left out.
        penalties: of the mask's size, to choose from, for DBM and MDBM.
        costs: C of the L1 probe that selects features, to choose from, for PCA and SAE.
        epochs: passes over the training pairs.
        batch: pairs a step.
        lr: of rotations.
        mask_lr: of masks.
        layer_epochs: passes in the sweep over layers, which fits DAS and MDAS at the middle rank.
        sae_epochs: passes over the activations.
        sae_lr: first learning rate of the autoencoder.
        sae_k: features an activation keeps (TopK); 0 for ReLU with a penalty, as in the paper.
        rlap_steps: rounds of the adversarial game.
        probe_rows: most activations a probe is fitted on.
        rows_at_once: pairs times fits in one pass.
    """

    ranks: tuple[int, ...] = (4, 16)
    penalties: tuple[float, ...] = (1e-4, 1e-2)
    costs: tuple[float, ...] = (0.01, 0.1, 1.0)
    epochs: int = 3
    batch: int = 16
    lr: float = 1e-2
    mask_lr: float = 5e-2
    layer_epochs: int = 1
    sae_epochs: int = 15
    sae_lr: float = 1e-3
    sae_k: int = 16
    rlap_steps: int = 100
    probe_rows: int = 400
    rows_at_once: int = 768


@dataclass(frozen=True)
class Testing:
    """Nulls and intervals.

    Attributes:
        random: random subspaces drawn as a control.
        draws: bootstrap resamples of entities and templates.
        examples: pairs shown with what was said before and after.
    """

    random: int = 3
    draws: int = 1000
    examples: int = 60


@dataclass(frozen=True)
class RavelConfig:
    """The study's configuration.

    Attributes:
        model: Hub id, folder or zoo:NAME of a causal language model.
        data: "atlas" for the embedded tables, or a folder of RAVEL's files.
        entity: entity type; empty for `atlas_country`, or the folder's first.
        view: `cleaned` or `verbatim` (see `data.ravel.views`).
        seed: of every draw.
        dtype: weights' type; "auto" keeps the checkpoint's (float16 becomes float32 on a CPU).
        device: where to run; "auto" takes a GPU where there is one.
        batch: prompts in one forward pass.
        memory_budget: bytes of frozen prefixes that may be held.
        stream: which activation of a block: `resid_post`, `resid_pre`, `attn.out`, `mlp.out`, `mlp.neurons`.
        position: `entity` swaps at the entity's last token, `last` at the prompt's.
        layers: blocks to sweep; empty for all (every nth, so that at most twelve are swept).
        asking: what the model is asked.
        pairs: how many pairs.
        fitting: how featurizers are fitted.
        testing: nulls and intervals.
    """

    model: str = "zoo:atlas"
    data: str = "atlas"
    entity: str = ""
    view: str = "cleaned"
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    batch: int = 256
    memory_budget: str = "2GiB"
    stream: str = "resid_post"
    position: str = "entity"
    layers: tuple[int, ...] = ()
    asking: Asking = field(default_factory=Asking)
    pairs: PairCounts = field(default_factory=PairCounts)
    fitting: Fitting = field(default_factory=Fitting)
    testing: Testing = field(default_factory=Testing)

    def __post_init__(self):
        if self.position not in POSITIONS:
            raise ConfigError(
                f"No position '{self.position}'; there are {' and '.join(POSITIONS)}: use one."
                f"{did_you_mean(self.position, POSITIONS)}"
            )
        if not self.fitting.ranks or min(self.fitting.ranks) < 1:
            raise ConfigError(f"Ranks {list(self.fitting.ranks)} were asked for; give at least one, all above 0.")


_FULL = RavelConfig(
    model="google/gemma-2-2b",
    data="data/ravel",
    entity="city",
    dtype="bfloat16",
    batch=64,
    memory_budget="24GiB",
    asking=Asking(entities=0, templates=0, sentences=0, new_tokens=8, best_entities=500, best_templates=90),
    pairs=PairCounts(bases=10, train=5000, validation=400, test=2000),
    fitting=Fitting(
        ranks=(16, 72, 144, 288),
        penalties=(1e-5, 1e-4, 1e-3),
        costs=(0.001, 0.01, 0.1),
        epochs=3,
        lr=1e-3,
        mask_lr=1e-2,
        layer_epochs=1,
        sae_epochs=10,
        sae_lr=1e-4,
        sae_k=0,
        rlap_steps=5000,
        probe_rows=5000,
        rows_at_once=256,
    ),
    testing=Testing(random=5, draws=2000),
)

PRESETS = {
    "quick": RavelConfig(),
    "full": _FULL,
    "full-llama": replace(_FULL, model="meta-llama/Llama-3.1-8B", batch=32),
}
