"""Show 3: in worlds planted linearly, fits must find what can be parted and say what cannot.

Color, shape and size of 400 invented entities (200 to fit on, 100 of the others to score) are written into 24 numbers
of `zoo:planted`; a basis for the color is fitted by the house's own loop and scored on pairs of unseen entities: Cause,
the share of color questions answered as the source would be; Isolate, the mean over shape and size of the share
answered as before. The gates are on behaviour: which subspace was found does not matter where several do the same.
"""

import numpy as np
import pytest
import torch

from close import FLOAT32, FLOAT64, largest
from microtome.core.errors import ModelError
from microtome.data.ravel import cap, draw_pairs, gold_instance, last_token, prompts, retarget, spans
from microtome.engine.edit import Edit, From
from microtome.engine.run import run
from microtome.features.pca import PCAFitter
from microtome.features.rotation import Rotation, random_axes
from microtome.models import Model
from microtome.models.zoo.catalog import load_zoo
from microtome.models.zoo.planted import SITE, VALUES, WORLDS, planted, planted_table
from microtome.training.evaluate import Arm, evaluate_swaps
from microtome.training.interchange import RotationFit, Schedule, fit_interchange
from microtome.training.swaps import TokenPairs, chosen, record_swaps

TARGET, SIZES, SEEDS = "color", (4, 8), (0, 1, 2)
NOTHING = Arm(units=torch.tensor([], dtype=torch.long))


class World:
    """One planted model with its pairs, recorded."""

    def __init__(self, name, seed=0, dtype=None, fit=200, score=100):
        made = planted(name, dtype, seed=seed)
        self.seed, self.table, self.truth, self.tokenizer = seed, made.table, made.truth, made.tokenizer
        self.model = Model.load(made.module, tokenizer=made.tokenizer)
        instance, how = gold_instance(made.table), dict(target=TARGET, pools=("output",), seed=seed)
        drawn = draw_pairs(instance, bases=fit, **how).pairs
        # As much weight on cause as on isolation, whichever attribute is the target.
        self.fit = {t: list(cap(retarget(drawn, t), cause=800, isolate=400)) for t in VALUES}
        self.score = list(draw_pairs(instance, side="entity-test", bases=score, **how).pairs)
        self.scored = self.swaps([(p, 0) for p in self.score])

    def swaps(self, pairs):
        """Record (pair, its block)."""
        rows = {"bases": [], "sources": [], "labels": [], "base_at": [], "source_at": []}
        for pair, _ in pairs:
            for side, text, span in zip(("base", "source"), (pair.base, pair.source), spans(pair), strict=True):
                found = self.tokenizer(text, return_offsets_mapping=True)
                rows[f"{side}s"].append(found["input_ids"])
                rows[f"{side}_at"].append(last_token(found["offset_mapping"], span))
            word = pair.cf_label if pair.kind == "cause" else pair.base_label
            rows["labels"].append([self.tokenizer.convert_tokens_to_ids(word)])
        (recorded,) = record_swaps(self.model, TokenPairs(**rows, blocks=[b for _, b in pairs]), SITE).values()
        return recorded

    def scores(self, arms):
        """Return (cause, isolate) by arm, over held-out entities."""
        right = evaluate_swaps(self.scored, arms).right.double().numpy()
        asked = np.array([p.groups["cell"] for p in self.score])
        by = {a: right[:, asked == a].mean(1) for a in VALUES}
        return np.stack([by[TARGET], np.mean([by[a] for a in VALUES if a != TARGET], 0)], 1)

    def fitted(self):
        """Return (cause, isolate) of DAS, MDAS and joint rotations of 4 and 8 axes, by name; 400 updates or so."""
        pairs = self.fit[TARGET]
        swaps = self.swaps([(p, 0) for p in pairs])
        cause = chosen(swaps, [p.kind == "cause" for p in pairs])
        joint = self.swaps([(p, b) for b, target in enumerate(VALUES) for p in self.fit[target]])
        bases = {}
        for method, train, sizes in (
            ("DAS", cause, lambda k: k),
            ("MDAS", swaps, lambda k: k),
            ("joint", joint, lambda k: dict.fromkeys(VALUES, k)),
        ):
            fits = [RotationFit(train, sizes(k), seed=self.seed, kind="qr") for k in SIZES]
            schedule = Schedule(epochs=32, batch=sum(map(len, train)) // 12, lr=0.05)
            bases |= {f"{method} {k}": f.basis for k, f in zip(SIZES, fit_interchange(fits, schedule), strict=True)}
        arms = [Arm(b.block(TARGET) if name.startswith("joint") else b) for name, b in bases.items()]
        return dict(zip(bases, self.scores(arms), strict=True))


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    """A small share of the pairs, in double precision."""
    return World(request.param, dtype=torch.float64, fit=10, score=40)


# -- the world is what it says


def test_the_model_knows_every_value_of_the_table(world):
    asked = list(prompts(world.table))
    said = run(world.model, world.model.batch([p.text for p in asked]), logits="last").logits[:, -1].argmax(1)
    words = world.tokenizer.convert_ids_to_tokens(said.tolist())
    assert words == [world.table.value(p.entity, p.attribute) for p in asked]


def test_shape_follows_color_but_in_the_independent_world(world):
    pairs = {(e.values["color"], e.values["shape"]) for e in world.table.entities}
    if world.truth.world == "independent":
        assert len(pairs) == 20  # every shape in every color
    else:
        assert len(pairs) == len({color for color, _ in pairs}) == 5


def test_blocks_are_orthogonal_but_the_shared_one(world):
    color, shape, size = world.truth.axes.values()
    assert largest(size.T @ size, torch.eye(4, dtype=torch.float64)) <= FLOAT64
    assert max((color.T @ size).abs().max(), (shape.T @ size).abs().max()) <= FLOAT64
    assert ((color.T @ shape).abs().max() > 0.9) == (world.truth.world == "shared")


def test_one_seed_one_model_and_no_other_world():
    one, again, other = planted(seed=1), planted(seed=1), planted(seed=2)
    assert torch.equal(one.module.embed.weight, again.module.embed.weight)
    assert not torch.equal(one.module.embed.weight, other.module.embed.weight)
    loaded, _ = load_zoo("zoo:planted-shared", torch.float64)
    assert torch.equal(loaded.head.weight, planted("shared", torch.float64).module.head.weight)
    with pytest.raises(ModelError, match=r"No world 'share' in zoo:planted; it has .*Did you mean 'shared'\?"):
        planted_table("share")


# -- identities


def test_swapping_nothing_and_swapping_all_have_their_scores(world):
    nothing, everything = world.scores([NOTHING, Arm()])
    assert nothing.tolist() == [0, 1] and everything.tolist() == [1, 0]
    assert nothing.mean() == everything.mean() == 0.5


def test_the_true_block_is_what_the_truth_says(world):
    ((cause, isolate),) = world.scores([Arm(Rotation(world.truth.axes[TARGET]))])
    assert (cause, isolate) == ((1, 0.5) if world.truth.world == "shared" else (1, 1))


def test_four_random_axes_change_next_to_nothing(world):
    draws = [random_axes(24, 4, torch.Generator().manual_seed(seed)).double() for seed in range(12)]
    cause, isolate = world.scores([Arm(Rotation(axes)) for axes in draws]).mean(0)
    assert cause <= 0.1 and isolate >= 0.85


@pytest.mark.parametrize("standardise", [False, True])
def test_swapping_all_principal_components_is_a_full_patch(world, standardise):
    fitter = PCAFitter(standardise=standardise)
    fitter.update(world.scored[0].source)
    basis = fitter.finish()
    all_of_it, full = evaluate_swaps(world.scored, [Arm(basis), Arm()]).log_prob
    assert largest(all_of_it, full) <= FLOAT64
    pair = world.score[0]
    batches = [world.model.batch([text]) for text in (pair.base, pair.source)]
    places = [
        last_token(world.tokenizer(text, return_offsets_mapping=True)["offset_mapping"], span)
        for text, span in zip((pair.base, pair.source), spans(pair), strict=True)
    ]
    taken = run(world.model, batches[1], read=SITE)[SITE][:, places[1]][:, None]
    logits = [
        run(world.model, batches[0], edits=[Edit(SITE, From(taken), positions=places[0], basis=b)]).logits[:, -1]
        for b in (basis, None)
    ]
    unedited = run(world.model, batches[0]).logits[:, -1]
    assert largest(*logits) <= FLOAT64 < largest(logits[0], unedited)


@pytest.mark.parametrize("kind", ["qr", "gram", "householder"])
@pytest.mark.parametrize("sizes", [4, {"color": 4, "shape": 4, "size": 4}])
def test_axes_are_orthonormal_after_every_step(world, kind, sizes):
    train, last = world.swaps([(p, i % 3) for i, p in enumerate(world.fit[TARGET][:60])]), None
    for steps in range(1, 6):
        fit = RotationFit(train, sizes, kind=kind)
        (found,) = fit_interchange([fit], Schedule(epochs=steps, batch=60, lr=0.05))
        axes = found.basis.axes.double()
        assert len(found.losses) == steps and largest(axes.T @ axes, torch.eye(axes.shape[1]).double()) <= FLOAT32
        assert last is None or largest(axes, last) > 1e-3  # each step moves it
        last = axes


# -- what fits find


@pytest.mark.slow  # 18 fits of about 400 updates over 54 combinations of world, method, rank and seed
def test_what_can_be_parted_is_parted_and_what_cannot_is_said():
    """The table of the specification: (cause, isolate) on unseen entities.

    Its exact cells hold for every seed. Its other cells are of one draw of a world whose sizes were not handed down;
    here they are means over three draws, and only their order is asked for.
    """
    found = {w: [World(w, seed).fitted() for seed in SEEDS] for w in WORLDS}
    mean = {w: {name: np.mean([f[name] for f in fits], 0) for name in fits[0]} for w, fits in found.items()}

    def exact(w, name, cause=None, isolate=None):
        for f in found[w]:
            for value, wanted in zip(f[name], (cause, isolate), strict=True):
                assert wanted is None or abs(value - wanted) <= 0.03, (w, name, f[name])

    exact("independent", "DAS 4", 1, 1)
    exact("independent", "DAS 8", 1)
    assert 0.75 <= mean["independent"]["DAS 8"][1] <= 0.95  # oversized, DAS takes along what it need not
    for k in SIZES:
        for w in ("independent", "correlated"):
            exact(w, f"MDAS {k}", 1, 1)
            exact(w, f"joint {k}", 1, 1)
        exact("correlated", f"DAS {k}", 1)
        gap = mean["correlated"][f"MDAS {k}"] - mean["correlated"][f"DAS {k}"]
        assert gap[1] >= 0.25  # MDAS breaks a correlation that DAS follows
        exact("shared", f"DAS {k}", 1)
        for f in found["shared"]:
            for method in ("DAS", "MDAS", "joint"):
                assert f[f"{method} {k}"].mean() <= 0.80  # nothing can part what is one
            assert f[f"MDAS {k}"][0] < 0.9 < f[f"DAS {k}"][0] and f[f"MDAS {k}"][1] > f[f"DAS {k}"][1]
    exact("shared", "DAS 4", 1, 0.5)
    assert mean["shared"]["DAS 8"][1] < 0.5
