"""Ways of editing units, checked by what they leave and what they change; exports checked by plain loading."""

import itertools

import numpy as np
import pytest
import torch
import transformers

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import EditError, MeasureError
from microtome.core.units import Units
from microtome.edits import ablate, export_edited, mean_ablate, patch, path_patch, resample
from microtome.engine.edit import Edit, From, Scale
from microtome.engine.run import run
from microtome.features.pca import PCA, PCAFitter
from microtome.measures.attribution import edge_attribution
from microtome.models import Model
from microtome.models.zoo.hand.scoring import expected_accuracy
from microtome.models.zoo.hand.truth import HAND_TRUTH
from microtome.models.zoo.hand.world import hand_items

CLEAN = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13, 14], [9, 9, 2, 1, 30, 31]]
CORRUPT = [[5, 6, 17, 8, 9, 10], [3, 4, 21, 12, 13, 14], [9, 9, 22, 1, 30, 31]]
UNITS = Units({"blocks.0.mlp.neurons": [1, 7], "blocks.1.attn.heads": [2]})


def test_mean_ablating_a_constant_unit_does_nothing(tiny_model):  # V6
    model = tiny_model("llama")
    batch = model.batch_ids([CLEAN[0]] * 3)
    seen = run(model, batch, read=UNITS.sites)
    edits = mean_ablate(UNITS, seen, batch.mask, by_position=True)
    assert largest(run(model, batch, edits=edits).logits, seen.logits) < FLOAT64
    varied = model.batch_ids(CLEAN)
    other = run(model, varied, read=UNITS.sites)
    changed = run(model, varied, edits=mean_ablate(UNITS, other, varied.mask, by_position=True)).logits
    assert largest(changed, other.logits) > 1e-3


def test_mean_is_over_real_tokens_only(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids([CLEAN[0], CLEAN[1][:3]])
    seen = run(model, batch, read=UNITS.sites)
    edits = mean_ablate(UNITS, seen, batch.mask)
    want = seen["blocks.0.mlp.neurons"][batch.mask].mean(0)
    assert largest(edits[0].value.value, want) < FLOAT64


def test_every_row_is_resampled_from_another(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(CLEAN)
    seen = run(model, batch, read=UNITS.sites)
    for seed in range(5):
        got = run(model, batch, edits=resample(UNITS, seen, seed), read=UNITS.sites[0])[UNITS.sites[0]][..., [1, 7]]
        own = seen[UNITS.sites[0]][..., [1, 7]]
        source = [[j for j in range(3) if torch.equal(got[i], own[j])] for i in range(3)]
        assert sorted(itertools.chain(*source)) == [0, 1, 2] and all(i not in s for i, s in enumerate(source))


def test_path_patching_to_every_reader_is_patching_the_sender(tiny_model):
    model = tiny_model("gpt2")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    sender = Units({"blocks.2.attn.heads": [0, 3]})
    source, own = (run(model, b, read=sender.sites) for b in (clean, corrupt))
    paths = path_patch(model, sender, ["blocks.2.mlp", "final_norm"], source, own)
    direct = path_patch(model, sender, ["final_norm"], source, own)
    mlp = path_patch(model, sender, ["blocks.2.mlp"], source, own)
    whole = run(model, corrupt, edits=patch(sender, source)).logits
    assert largest(run(model, corrupt, edits=paths).logits, whole) < FLOAT64
    assert largest(run(model, corrupt, edits=direct).logits, whole) > 1e-3
    assert largest(run(model, corrupt, edits=mlp).logits, own.logits) > 1e-6


def test_small_path_patches_follow_the_edge_scores(tiny_model):
    """An edge score is the slope of path patching, so halving a small sender change halves its error or more."""
    model = tiny_model("gpt2")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)

    class Logit:
        positions = "last"

        def __call__(self, logits, rows):
            return logits[:, 0, 7]

    edges = edge_attribution(model, clean, corrupt, Logit())
    sender = Units({"blocks.0.attn.heads": [1]})
    row = edges.senders.index((sender.sites[0], 1))
    source, own = (run(model, b, read=sender.sites) for b in (clean, corrupt))
    for reader in ("blocks.1.attn", "blocks.2.mlp", "final_norm"):
        score, step = edges.scores[:, row, edges.readers.index(reader)], 1e-4
        moved = {s: own[s] + step * (source[s] - own[s]) for s in sender.sites}
        edits = path_patch(model, sender, [reader], moved, own)
        slope = (run(model, corrupt, edits=edits).logits[:, -1, 7] - own.logits[:, -1, 7]) / step
        assert largest(slope, score) < 1e-3


@pytest.mark.parametrize("task", ["recall", "lookup"])
def test_planted_sets_dissociate_and_random_twins_do_nothing(task):
    """Ablating a task's units takes it to chance and leaves the other task at 100 %; matched random sets do nothing."""
    truth = HAND_TRUTH["plain"]
    model = Model.load("zoo:hand", dtype=torch.float64)
    other = {"recall": "lookup", "lookup": "recall"}[task]
    items = {t: hand_items(t, 24) for t in (task, other)}
    batches = {t: model.batch([i.prompt for i in items[t]]) for t in items}

    def accuracy(t, edits):
        logits = run(model, batches[t], edits=edits, logits="last").logits[:, 0]
        return float(torch.as_tensor(expected_accuracy(logits, items[t])).double().mean())

    units = getattr(truth, task)
    assert accuracy(task, []) == accuracy(other, []) == 1.0
    assert accuracy(task, ablate(units)) == pytest.approx(0.25) and accuracy(other, ablate(units)) == 1.0
    space = model.space(["blocks.*.mlp.neurons", "blocks.*.attn.heads"])
    for seed in range(5):
        twin = units.matched_random(space, np.random.default_rng(seed), exclude=truth.causal)
        assert accuracy(task, ablate(twin)) == accuracy(other, ablate(twin)) == 1.0


def test_exported_folder_gives_the_edited_logits_in_plain_transformers(tiny_model, tmp_path):
    model = Model.load(tiny.build("llama-tied", dtype=torch.float32))
    edits = [Edit("head.weight", Scale(2.0), units=[4, 5]), Edit("blocks.1.mlp.down.weight", Scale(0.5))]
    want = run(model, model.batch_ids(CLEAN), edits=edits).logits
    export_edited(model, edits, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert largest(loaded(**model.batch_ids(CLEAN).inputs).logits, want) == EXACT
    assert torch.equal(loaded.get_input_embeddings().weight, model.module.get_input_embeddings().weight)
    assert not loaded.config.tie_word_embeddings
    with pytest.raises(EditError, match="holds a model already"):
        export_edited(model, edits, tmp_path / "out")


def test_activation_edits_cannot_be_exported(tiny_model, tmp_path):
    with pytest.raises(EditError, match=r"Only weight edits can be exported, found \['blocks\.0\.mlp\.out'\]"):
        export_edited(tiny_model("llama"), [Edit("blocks.0.mlp.out")], tmp_path / "x")
    with pytest.raises(EditError, match="no units"):
        ablate(Units())


def test_pca_in_pieces_is_pca_at_once_and_swapping_it_whole_is_a_full_patch(tiny_model, tmp_path):
    model = tiny_model("llama")
    site = "blocks.1.resid_pre"
    source, own = (run(model, model.batch_ids(r), read=site)[site] for r in (CLEAN, CORRUPT))
    whole, parts = PCAFitter(), PCAFitter()
    whole.update(source)
    for row in source:
        one = PCAFitter()
        one.update(row)
        parts.merge(one)
    fitted = whole.finish()
    x = source.reshape(-1, 32)
    assert largest(fitted.variance, torch.linalg.svdvals(x - x.mean(0))[:18].square().new_zeros(32).index_add(
        0, torch.arange(18), torch.linalg.svdvals(x - x.mean(0)).square() / 17)) < FLOAT64  # fmt: skip
    assert largest(parts.finish().variance, fitted.variance) < FLOAT64
    swap = Edit(site, From(source), basis=PCA.load(fitted.save(tmp_path / "pca.safetensors")))
    assert largest(run(model, model.batch_ids(CORRUPT), edits=[swap], read=site)[site], source) < FLOAT64
    nothing = Edit(site, From(source), basis=fitted, units=[])
    assert largest(run(model, model.batch_ids(CORRUPT), edits=[nothing], read=site)[site], own) == EXACT
    with pytest.raises(MeasureError, match="at least 2 rows, found 0"):
        PCAFitter().finish()
