"""Submission folders: an independent reader reads ours, a hand-made one is scored by us, and damage is named.

The reader is written from the layout's description alone: three files a unit, torch state that loads with weights_only,
a featurizer (f, err) = (x R, x - x R R') whose inverse takes both, the rotation kept by torch's orthogonal
parametrisation, and JSON indices of the features to swap.
"""

import json
import random
import re
from functools import partial

import pytest
import torch
from torch.nn.utils.parametrizations import orthogonal

from close import EXACT, FLOAT64, OTHER, largest
from microtome.core.errors import DataError
from microtome.features.identity import Identity
from microtome.features.interchange import swap
from microtome.features.joint_rotation import JointRotation
from microtome.features.mask import Mask
from microtome.features.mib import Submission, SubmissionUnit, export_mib, import_mib
from microtome.features.pca import PCAFitter
from microtome.features.probe import Probe
from microtome.features.rotation import Rotation, random_axes
from microtome.training.evaluate import Arm, evaluate_swaps
from microtome.training.swaps import TokenPairs, record_swaps

D, K = 6, 3
NAMES = ("ravel_task", "Gemma2ForCausalLM", "Country")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def axes(k=K, seed=1):
    return random_axes(D, k, torch.Generator().manual_seed(seed), dtype=torch.float64)


def pca(standardise=False):
    fitter = PCAFitter(4, standardise=standardise)
    fitter.update(draw(20, D, seed=4) * torch.arange(1, D + 1))
    return fitter.finish()


def bases():
    return [
        Identity(D), Mask(Identity(D), [0, 4]), Mask(Identity(D), []), Rotation(axes()), Rotation(axes(D)),
        Mask(Rotation(axes()), [2]), pca(), Mask(pca(), [1, 3]), JointRotation(axes(), ("a", "b"), (1, 2)),
        Probe.of(draw(D, 3), draw(3)),
    ]  # fmt: skip


class Turn(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.rotate = torch.nn.Module()
        self.rotate.weight = torch.nn.Parameter(torch.eye(*shape, dtype=torch.float64))
        orthogonal(self.rotate, "weight")


def read_unit(stem):
    """Return the reader's (features, inverse, indices) of one unit."""
    state, inverse = (torch.load(f"{stem}{end}", weights_only=True) for end in ("_featurizer", "_inverse_featurizer"))
    with open(f"{stem}_indices") as file:
        indices = json.load(file)
    if state["model_info"]["featurizer_class"] == "IdentityFeaturizerModule":
        return lambda x: (x, None), lambda f, err: f, indices
    shape = state["model_info"]["additional_config"]["rotation_matrix"].shape
    turns = []
    for saved in (state, inverse):
        turns.append(Turn(shape))
        turns[-1].load_state_dict(saved["state_dict"])  # strict
    there, back = (t.rotate.weight.detach() for t in turns)
    return lambda x: (x @ there, x - x @ there @ there.T), lambda f, err: f @ back.T + err, indices


def read_swap(stem, base, source):
    features, inverse, indices = read_unit(stem)
    (f, err), (other, _) = features(base), features(source)
    chosen = range(f.shape[-1]) if indices is None else indices
    f = f.clone()
    for i in chosen:
        f[..., i] = other[..., i]
    return inverse(f, err)


@pytest.mark.parametrize("which", range(len(bases())))
def test_an_independent_reader_of_the_layout_swaps_as_we_do(which, tmp_path):
    basis, base, source = bases()[which], draw(5, D), draw(5, D, seed=2)
    units = (SubmissionUnit(3, "entity_last_token", basis), SubmissionUnit(2, "last_token", basis, head=1))
    folder = export_mib(Submission(*NAMES, units), tmp_path)
    assert folder.name == "ravel_task_Gemma2ForCausalLM_Country" and len(list(folder.iterdir())) == 6
    for unit in units:
        assert re.match(r"(ResidualStream|AttentionHead)\(Layer-\d.*,Token-\w+\)$", unit.name)
        theirs = read_swap(folder / unit.name, base, source)
        assert largest(theirs, swap(base, source, basis)) < FLOAT64
    back = import_mib(folder, D)
    assert (back.task, back.model_class, back.variable) == NAMES
    assert [(u.layer, u.token, u.head) for u in back.units] == [(2, "last_token", 1), (3, "entity_last_token", None)]
    assert [str(u.site) for u in back.units] == ["blocks.2.attn.heads", "blocks.3.resid_pre"]
    for unit in back.units:
        assert largest(swap(base, source, unit.basis), swap(base, source, basis)) < FLOAT64
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def write_unit(folder, stem, rotation=None, indices=None):
    """A unit written by hand, as somebody else would."""
    kind = "Identity" if rotation is None else "Subspace"
    info = {
        "featurizer_class": f"{kind}FeaturizerModule",
        "inverse_featurizer_class": f"{kind}InverseFeaturizerModule",
        "n_features": None,
        "additional_config": {} if rotation is None else {"rotation_matrix": rotation},
    }
    folder.mkdir(exist_ok=True)
    for end in ("_featurizer", "_inverse_featurizer"):
        torch.save({"model_info": info, "state_dict": {}}, folder / (stem + end))
    (folder / (stem + "_indices")).write_text(json.dumps(indices))


def score(basis, world):
    """Interchange accuracy of a planted linear world: cause and isolate halves together, as the track counts."""
    base, source, read = world
    swapped = swap(base, source, basis)
    cause = (read(swapped, 0) == read(source, 0)).double().mean()
    isolate = (read(swapped, 1) == read(base, 1)).double().mean()
    return (cause + isolate).item() / 2


def planted():
    """Two attributes of four values each in two planes; pairs that differ in both."""
    turn = axes(D, seed=8)
    codes = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    a, b = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    x = torch.cat([codes[a], codes[b], draw(16, 2) * 0.1], 1) @ turn.T

    def read(h, attribute):
        return ((h @ turn)[..., 2 * attribute : 2 * attribute + 2] @ codes.T).argmax(-1)

    other = torch.roll(torch.arange(16), 5)  # +1 in both attributes
    return (x, x[other], read), turn


def test_a_hand_made_submission_is_scored(tmp_path):
    world, turn = planted()
    folder = tmp_path / "ravel_task_LlamaForCausalLM_Continent"
    write_unit(folder, "ResidualStream(Layer:0,Token:entity_last_token)", rotation=turn[:, :2].contiguous())
    write_unit(folder, "ResidualStream(Layer:1,Token:entity_last_token)", rotation=turn, indices=[0, 1])
    write_unit(folder, "ResidualStream(Layer:2,Token:entity_last_token)", rotation=turn, indices=[2, 3])
    write_unit(folder, "ResidualStream(Layer:3,Token:last_token)")
    write_unit(folder, "ResidualStream(Layer:4,Token:last_token)", indices=[])
    (folder / "token_position.py").write_text("raise SystemExit  # code of a submission is never run")
    (folder / "ioi_linear_params.json").write_text("{}")  # what the IOI task adds
    units = import_mib(folder, D).units
    assert [u.layer for u in units] == [0, 1, 2, 3, 4]
    scores = [score(u.basis, world) for u in units]
    assert scores == [1.0, 1.0, 0.0, 0.5, 0.5]  # the truth twice, the other attribute, everything, nothing


AT = {"entity_last_token": 2, "last_token": 4}
PLACES = {  # stem -> rotation's seed and rank (None: the identity), indices
    "ResidualStream(Layer-0,Token-entity_last_token)": (None, None),  # everything, where the prompts differ
    "ResidualStream(Layer-1,Token-entity_last_token)": (None, []),  # nothing
    "ResidualStream(Layer-2,Token-last_token)": ((5, 24), None),
    "ResidualStream(Layer-1,Token-last_token)": ((6, 32), list(range(0, 32, 2))),
}


def said(module, ids, edit=None):
    """Return the token a plain module says next; `edit` is (block, position, change of its input there)."""
    if edit is not None:
        block, at, change = edit

        def hook(_, given):
            hidden = given[0].clone()
            hidden[0, at] = change(hidden[0, at])
            return (hidden, *given[1:])

        handle = module.model.layers[block].register_forward_pre_hook(hook)
    with torch.no_grad():
        token = int(module(torch.tensor([ids])).logits[0, -1].argmax())
    if edit is not None:
        handle.remove()
    return token


def entering(module, ids, block, at):
    """Return what enters a block of a plain module at a position."""
    seen = []
    said(module, ids, (block, at, lambda x: seen.append(x) or x))
    return seen[0]


def interchanges(module):
    """Return (bases, sources, labels): one entity token differs; half want the source's answer, half the base's."""
    rng, pairs = random.Random(0), []
    while len(pairs) < 24:
        rest = [rng.randrange(3, 61) for _ in range(5)]
        base, source = ([*rest[:2], rng.randrange(3, 61), *rest[3:]] for _ in range(2))
        answers = said(module, base), said(module, source)
        if answers[0] != answers[1]:  # where they are one, neither half could fail
            pairs.append((base, source, [answers[len(pairs) % 2]]))
    return tuple(zip(*pairs, strict=True))


def test_a_hand_made_submission_is_scored_on_pairs_of_a_model(tiny_model, tmp_path):
    """One interchange accuracy a unit, cause and isolate together, against plain hooks."""
    model = tiny_model("llama")
    bases, sources, labels = interchanges(model.module)
    folder = tmp_path / "ravel_task_LlamaForCausalLM_Country"
    for stem, (turn, indices) in PLACES.items():
        rotation = turn and random_axes(32, turn[1], torch.Generator().manual_seed(turn[0]), dtype=torch.float64)
        write_unit(folder, stem, rotation, indices)
    found = {}
    for unit in import_mib(folder, 32).units:
        pairs = TokenPairs(bases, sources, labels, AT[unit.token], AT[unit.token])
        outcome = evaluate_swaps(record_swaps(model, pairs, unit.site)[unit.site], [Arm(unit.basis)])
        assert outcome.seen.all()
        found[unit.name] = outcome.right[0].tolist()
    for stem, right in found.items():
        block, at = int(stem[len("ResidualStream(Layer-")]), AT[stem.split("Token-")[1].rstrip(")")]
        for base, source, label, ours in zip(bases, sources, labels, right, strict=True):
            other = entering(model.module, source, block, at)
            change = partial(read_swap_by_hand, PLACES[stem], other=other)
            assert (said(model.module, base, (block, at, change)) == label[0]) == ours
    everything, nothing, *parts = (sum(right) / len(right) for right in (found[stem] for stem in PLACES))
    assert (everything, nothing) == (0.5, 0.5) and all(0 < part < 1 and part != 0.5 for part in parts)
    assert found[next(iter(PLACES))] == [i % 2 == 1 for i in range(24)]  # every cause pair, no isolate pair


def read_swap_by_hand(place, x, *, other):
    """The swap a unit of `PLACES` stands for, from its definition."""
    turn, indices = place
    if turn is None:
        return other if indices is None else x
    rotation = random_axes(32, turn[1], torch.Generator().manual_seed(turn[0]), dtype=torch.float64)
    chosen = rotation if indices is None else rotation[:, indices]
    return x + (other - x) @ chosen @ chosen.T


def test_single_precision_rotations_come_back_as_they_were(tmp_path):
    basis = Rotation(axes().float())
    folder = export_mib(Submission(*NAMES, (SubmissionUnit(0, "last_token", basis),)), tmp_path)
    assert largest(import_mib(folder, D).units[0].basis.axes, basis.axes) == EXACT
    saved = torch.load(folder / "ResidualStream(Layer-0,Token-last_token)_featurizer", weights_only=True)
    turn = Turn((D, K)).float()
    turn.load_state_dict(saved["state_dict"])
    assert largest(turn.rotate.weight.detach(), basis.axes) < OTHER


def test_what_the_layout_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    unit = SubmissionUnit(0, "last_token", Rotation(axes()))
    for units, why in [
        ((SubmissionUnit(0, "last_token", pca(standardise=True)),), "in a PCA; a submission holds the identity or"),
        ((unit, unit), "2 units at 1 places"),
        ((), "0 units at 0 places"),
    ]:
        with pytest.raises(DataError, match=why):
            export_mib(Submission(*NAMES, units), tmp_path)
    with pytest.raises(DataError, match="name it TASK_MODELCLASS_VARIABLE"):
        export_mib(Submission("ravel", "gemma", "Country", (unit,)), tmp_path)
    assert not list(tmp_path.iterdir())
    export_mib(Submission(*NAMES, (unit,)), tmp_path)
    with pytest.raises(DataError, match="the folder exists"):
        export_mib(Submission(*NAMES, (unit,)), tmp_path)


def test_damage_is_named(tmp_path):
    stem = "ResidualStream(Layer-0,Token-last_token)"
    folder = export_mib(Submission(*NAMES, (SubmissionUnit(0, "last_token", Rotation(axes())),)), tmp_path)
    good = {end: (folder / (stem + end)).read_bytes() for end in ("_featurizer", "_inverse_featurizer", "_indices")}
    with pytest.raises(DataError, match="at width 7, found 6"):
        import_mib(folder, 7)
    for end, body, why in [
        ("_indices", b"[0, 3]", "null or a list of features 0-2"),
        ("_indices", b"{", "is not JSON"),
        ("_featurizer", b"nonsense", "plain tensors with a model_info"),
        ("_inverse_featurizer", None, r"lacks \['_inverse_featurizer'\]"),
    ]:
        path = folder / (stem + end)
        path.unlink() if body is None else path.write_bytes(body)
        with pytest.raises(DataError, match=why):
            import_mib(folder, D)
        path.write_bytes(good[end])
    info = {"featurizer_class": "MyFeaturizerModule", "additional_config": {}}
    torch.save({"model_info": info, "state_dict": {}}, folder / f"{stem}_featurizer")
    with pytest.raises(DataError, match=r"class 'MyFeaturizerModule'.*code of a submission is not run"):
        import_mib(folder, D)
    (folder / "stray").write_text("")
    with pytest.raises(DataError, match="Submission file 'stray' was found"):
        import_mib(folder, D)
    with pytest.raises(DataError, match="No submission folder"):
        import_mib(tmp_path / "absent_GPT2LMHeadModel_x", D)
    empty = tmp_path / "ioi_task_GPT2LMHeadModel_output_token"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no units"):
        import_mib(empty, D)
