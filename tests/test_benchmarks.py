"""The benchmarks' arithmetic: rows, report, refusals, and that our numbers are the plain hooks' on the tiny model."""

import ast
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is not installed with the package

from benchmarks import benches, workload
from benchmarks.agreement import TOLERANCE, Disagreement, agreement
from benchmarks.candidates import Candidate, Grid
from benchmarks.clock import alternate
from benchmarks.das_agreement import curves, interval, scores
from benchmarks.goals import BENCHES, GOALS
from benchmarks.grids import measure_grids
from benchmarks.machine import QUIET, Watch
from benchmarks.measured import Measured, summary
from benchmarks.multilingual_benches import shortfall
from benchmarks.peak import peak
from benchmarks.peers import (
    libraries,
    microtome_multilingual,
    microtome_toxicity,
    plain,
    plain_das,
    plain_dedup,
    plain_importance,
    plain_multilingual,
    plain_toxicity,
)
from benchmarks.peers.plain_toxicity import Screened
from benchmarks.report import write_report
from benchmarks.rows import join, load, store
from benchmarks.run import Refused, refuse_busy
from benchmarks.toxicity_benches import PROJECTED, projector_error
from benchmarks.workload import BLOCKS, TINY, make_work

from microtome.data.dedup import near_duplicates
from microtome.training.build.pretraining import architecture, updates
from microtome.training.build.recipe import load_recipe
from microtome.training.packing import Rows, positions, targets


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Nothing is timed here, and threads that wait for each other cost most on a busy machine."""
    monkeypatch.setattr(workload, "THREADS", 1)


def measured(name, relative, bench="capture", metric="memory"):
    return Measured(bench, metric, name, 2.0 * relative, 2.0, relative, 1e-8, 7, "")


FOUND = {
    "microtome": [measured("microtome 0.1.0", 1.02), measured("plain hooks", 1.0)],
    "pyvene": [measured("pyvene 0.1.8", 1.53), measured("pyvene 0.1.8", 9.0, metric="not offered by us")],
}


def rows(found=FOUND):
    return join(found, "cpu (test)", "abc", "2026-01-01")


# -- rows


def test_a_row_sets_ours_beside_each_other_way_and_the_bare_forward():
    by_name = {r.other_name: r for r in rows()}
    assert set(by_name) == {"plain hooks", "pyvene 0.1.8", "bare forward"}
    assert (by_name["pyvene 0.1.8"].ours, by_name["pyvene 0.1.8"].other) == (1.02, 1.53)
    assert by_name["pyvene 0.1.8"].ratio == 1.5  # 1.53 / 1.02
    assert by_name["bare forward"].other == 1.0


def test_a_grid_whose_unit_is_the_plain_loop_has_no_row_for_a_bare_forward():
    found = {"microtome": [measured("microtome", 0.2, "residual_sweep", "grid")]}
    assert rows(found) == []


def test_without_our_own_measurement_there_is_no_row():
    assert rows({"pyvene": FOUND["pyvene"]}) == []


def test_a_row_measured_again_replaces_the_old_one_and_leaves_the_others(tmp_path):
    path = tmp_path / "results.json"
    store(rows(), path)
    newer = replace(rows()[0], ours=0.5, date="2026-02-02")
    store([newer], path)
    kept = {r.key: r for r in load(path)}
    assert len(kept) == len(rows())
    assert kept[newer.key] == newer
    assert [r for r in rows()[1:] if kept[r.key] != r] == []


# -- report


def test_the_page_says_of_each_goal_whether_it_is_met(tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "RESULTS.md"
    store(rows(), results)
    write_report(results, page)
    (line,) = [x for x in page.read_text().splitlines() if x.startswith("| capture: memory |")]
    assert "**1.020**" in line and "<= 1.03 | met" in line and "pyvene 0.1.8: 1.530 | 1.50" in line
    slower = {"microtome": [measured("microtome 0.1.0", 1.2)]}
    store(rows(slower), results)
    write_report(results, page)
    assert "<= 1.03 | **missed**" in page.read_text()


def test_a_goal_may_be_an_amount_or_about_another_way_than_the_peers(tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "RESULTS.md"
    step = ("das_step", "last position, prepared")
    quick = {"microtome": [replace(measured("microtome", 0.1, *step), seconds=0.0599)]}
    six = ("das_together", "last position, six, prepared")
    together = [measured("microtome", 0.2, *six), measured("the same one after another", 0.39, *six)]
    found = [
        quick | {"pyvene": [measured("pyvene", 1.3, *step)]},
        {"microtome": together, "pyvene": [measured("pyvene", 9.0, *six)]},
    ]
    store([row for each in found for row in rows(each)], results)
    write_report(results, page)
    lines = page.read_text().splitlines()
    assert any("**0.100** (59.9 ms) | <= 60.0 ms | met | pyvene: 1.300 | 13.00" in x for x in lines)
    assert any("the same one after another: 0.390 | 1.95 | >= 2.0 | **missed**" in x for x in lines)


def test_every_goal_belongs_to_a_bench_and_every_bench_has_a_function():
    assert {bench for bench, _ in GOALS} == set(BENCHES) == set(benches.__all__)


# -- refusals


def test_what_every_tools_worker_reads_needs_no_more_than_every_tool_brings():
    home = Path(benches.__file__).parent
    for path in (*home.glob("*.py"), *home.glob("peers/plain*.py")):
        lines = ast.parse(path.read_text()).body
        roots = {a.name.split(".")[0] for line in lines if isinstance(line, ast.Import) for a in line.names}
        roots |= {line.module.split(".")[0] for line in lines if isinstance(line, ast.ImportFrom)}
        assert roots - set(sys.stdlib_module_names) <= {"benchmarks", "torch", "transformers", "numpy"}, path


def test_a_busy_machine_is_refused_and_a_quiet_or_unknown_one_is_not():
    refuse_busy(0.0, "now")
    refuse_busy(None, "now")
    with pytest.raises(Refused, match=rf"other processes used 1\.50 CPUs now \(allowed {QUIET}\)"):
        refuse_busy(1.5, "now")


def test_our_own_work_is_not_that_of_others():
    watch = Watch(start=0.0, busy=None)
    assert watch.others() is None
    assert Watch(own=-1e9).others() == 0.0  # all that was busy was ours


@pytest.mark.parametrize(
    ("got", "why"),
    [
        ({"b": torch.arange(3.0)}, "tensors"),
        ({"a": torch.arange(4.0)}, "shape"),
        ({"a": torch.tensor([0.0, 1.0, 2.0 + 3 * TOLERANCE])}, "differs by"),
        ({"a": torch.tensor([0.0, float("nan"), 2.0])}, "differs"),
    ],
)
def test_other_numbers_than_the_references_are_refused(got, why):
    reference = {"a": torch.arange(3.0)}
    assert agreement({"a": torch.arange(3.0)}, reference) == 0.0
    with pytest.raises(Disagreement, match=why):
        agreement(got, reference)


def test_a_reference_that_does_not_vary_shows_nothing():
    with pytest.raises(Disagreement, match="does not vary"):
        agreement({"a": torch.ones(3)}, {"a": torch.ones(3)})


def test_a_grid_with_two_cells_exchanged_is_refused():
    def grid(order):
        return Grid("some", lambda: None, lambda clean, layer: torch.arange(4.0)[order][:, None] + layer)

    right, exchanged = grid([0, 1, 2, 3]), grid([1, 0, 2, 3])
    (found,) = measure_grids("residual_sweep", [right], right, rounds=1, device="cpu")
    assert found.difference == 0.0
    with pytest.raises(Disagreement):
        measure_grids("residual_sweep", [exchanged], right, rounds=1, device="cpu")


def fitting(change):
    """An adapter whose one way is the plain hooks' on a changed task."""

    def fitters(work):
        right = plain_das.fitters(work)[0]
        return [replace(right, fit=lambda tasks, items: right.fit([change(t) for t in tasks], items))]

    return SimpleNamespace(fitters=fitters)


def test_a_fit_with_another_start_order_or_rate_is_refused(tmp_path):
    work = make_work("cpu", tmp_path, TINY)
    groups = [lambda w: [plain_das.make_task(w, 32)]]
    assert curves(fitting(lambda task: task), work, groups) == {"plain hooks": 0.0}
    for change in (
        {"start": lambda t: t.start.roll(1, 0)},
        {"order": lambda t: t.order.flip(0)},
        {"lr": lambda t: 2 * t.lr},
    ):
        other = fitting(lambda task, change=change: replace(task, **{name: new(task) for name, new in change.items()}))
        with pytest.raises(Disagreement, match="losses differs"):
            curves(other, work, groups)


@pytest.mark.slow  # plain hooks go through eight epochs
def test_a_score_outside_the_interval_is_refused(tmp_path):
    work = make_work("cpu", tmp_path, TINY)
    unfitted = fitting(lambda task: replace(task, lr=0.0)).fitters(work)
    with pytest.raises(Disagreement, match=r"plain hooks scores 0\.\d+, plain hooks 0\.\d+ \[0\.\d+, 0\.\d+\]"):
        scores(unfitted, work)


def test_wilsons_interval_is_the_one_in_the_books():
    assert interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert interval(0.0, 10)[0] == pytest.approx(0.0, abs=1e-12) and interval(0.0, 10)[1] == pytest.approx(
        0.2775, abs=1e-3
    )


# -- timing


def test_candidates_take_turns_after_one_round_to_warm_up():
    calls = []
    times = alternate({n: lambda n=n: calls.append(n) for n in "ab"}, 2, "cpu")
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert {n: len(t) for n, t in times.items()} == {"a": 2, "b": 2}


def test_relative_time_is_the_median_of_the_rounds_not_the_ratio_of_the_medians():
    found = summary("capture", "memory", "x", [1.0, 10.0, 3.0], [1.0, 20.0, 1.0])
    assert (found.relative, found.seconds, found.reference) == (1.0, 3.0, 1.0)


def test_peak_memory_counts_what_was_held_at_once():
    held = 64 << 20
    one, two = (peak(lambda n=n: [torch.ones(held // 4) for _ in range(n)], "cpu") for n in (1, 2))
    freed = peak(lambda: [torch.ones(held // 4).sum() for _ in range(2)], "cpu")
    assert 0.9 * held < one < 1.3 * held and 1.9 * held < two < 2.3 * held and freed < 1.3 * held


# -- our adapter


@pytest.mark.slow  # the plain loops run some hundred forwards, to keep the adapter in step with the engine
@pytest.mark.parametrize("bench", BENCHES)
def test_our_numbers_are_those_of_the_plain_hooks(bench, tmp_path):
    adapter = importlib.import_module(f"benchmarks.peers.microtome{BENCHES[bench].adapter}")
    found = getattr(benches, bench)(adapter, make_work("cpu", tmp_path, TINY), 1)
    ours = [m for m in found if m.name.startswith("microtome")]
    assert ours and all(0 <= m.difference <= TOLERANCE for m in ours)
    assert {m.metric for m in ours} >= {metric for b, metric in GOALS if b == bench}


def test_the_plain_head_patch_touches_one_head(tmp_path):
    work = make_work("cpu", tmp_path, TINY)
    x, clean = torch.zeros(1, 1, 64), torch.ones(1, 1, 64)
    changed = plain._head(clean, 3)(x)[0, 0].nonzero().squeeze(1)
    assert changed.tolist() == list(range(24, 32)) and len(work.layers) == BLOCKS


# -- the toxicity study's


TEXTS = Screened(np.array([[1, 0, 1, 2], [0, 0, 1, 1]], np.float16), np.array([1, 0, 0, 1]), np.array([5, 5, 6, 6]))


def test_areas_with_ties_are_those_counted_by_hand():
    """Neuron 0: of (1 > 0, 1 = 1, 2 > 0, 2 > 1) 3.5 pairs of 4 are won, within lengths both; neuron 1: all are ties."""
    by_hand = {"areas": [3.5 / 4, 0.5], "areas within lengths": [1.0, 0.5]}
    for metric, areas in by_hand.items():
        found = [c for c in microtome_toxicity.auroc(TEXTS) if c.metric == metric]
        assert len(found) == 3 and all(c.read(c.run())["areas"].tolist() == areas for c in found)


def test_areas_that_forget_the_lengths_are_refused(tmp_path):
    def forgetful(texts):
        by_metric = {c.metric: c for c in libraries.auroc(texts) if "sort" in c.name}
        unit = next(c for c in libraries.auroc(texts) if c.metric == "areas within lengths")
        asked = by_metric["areas within lengths"]
        return [unit, replace(asked, run=by_metric["areas"].run)]

    with pytest.raises(Disagreement, match="areas differs"):
        benches.auroc(SimpleNamespace(auroc=forgetful), make_work("cpu", tmp_path, TINY), 1)


def test_what_ran_on_a_share_of_the_work_is_scaled_and_the_projection_is_a_product(tmp_path):
    def offered(texts):
        def run():
            return {"areas": torch.arange(1000.0).cumsum(0)}

        return [Candidate("all", "areas", run), Candidate("microtome", "areas", run, share=1e-3)]

    found = benches.auroc(SimpleNamespace(auroc=offered), make_work("cpu", tmp_path, TINY), 1)
    own, projected = (next(m for m in found if m.name == "microtome" and m.metric == x) for x in ("areas", PROJECTED))
    assert 20 < own.relative == projected.relative  # about 1000
    assert projected.seconds == pytest.approx(own.seconds * 835_584 / TINY.screened)
    assert "projected" in projected.note and "projected" not in own.note


def test_the_error_of_a_subspace_is_the_sine_of_its_angle():
    truth, turned = torch.eye(3)[:, :1], torch.tensor([[0.8], [0.6], [0.0]])
    assert projector_error(turned, truth) == pytest.approx(0.6)
    assert projector_error(-truth, truth) == 0.0


def test_factors_from_a_gram_matrix_in_single_precision_are_refused_and_those_of_the_libraries_only_told(tmp_path):
    def single(weight):
        return Candidate("microtome", "axes", lambda: {"axes": torch.linalg.eigh(weight.T @ weight)[1].flip(1)})

    work, offers = make_work("cpu", tmp_path, TINY), libraries.head_basis
    with pytest.raises(Disagreement, match=r"microtome: 32 vectors span a subspace that is off by \d"):
        benches.head_basis(SimpleNamespace(head_basis=lambda w: [*offers(w), single(w)]), work, 1)
    found = benches.head_basis(SimpleNamespace(head_basis=offers), work, 1)
    assert {m.name.split()[0] for m in found} == {"numpy"} and found[0].difference < 1e-6


def test_generation_under_another_edit_is_refused(tmp_path):
    def unedited(work, axes):
        return [Candidate("microtome", "eigenshift", lambda: plain_toxicity.spoken(work))]

    with pytest.raises(Disagreement, match="tokens differs"):
        benches.edit_overhead(SimpleNamespace(edit_overhead=unedited), make_work("cpu", tmp_path, TINY), 1)


# -- the multilingual study's


def test_the_model_trained_in_the_benchmark_is_the_laptop_recipes():
    recipe, full = load_recipe("laptop"), plain_multilingual.FULL
    ours = architecture(recipe.model, recipe.tokenizer.size).to_dict()
    theirs = plain_multilingual.config(full).to_dict()
    assert {k: v for k, v in theirs.items() if ours[k] != v} in ({}, {"use_cache": False})
    assert (full.rows, full.rows * full.parts * full.seq) == (recipe.pretrain.rows, recipe.pretrain.batch_tokens)
    made = updates(recipe.pretrain, 0)
    task = plain_multilingual.Training(None, (), None)
    assert (task.decay, task.betas, task.eps, task.clip) == (made.weight_decay, made.betas, made.eps, made.clip)


def test_documents_packed_in_the_benchmark_are_told_apart_as_ours_are(tmp_path):
    task = plain_multilingual.training(make_work("cpu", tmp_path, TINY), "packed documents")
    for part in (part for parts in task.updates for part in parts):
        assert torch.equal(part.positions, positions(part.documents))
        assert torch.equal(part.wanted, targets(Rows(part.ids, part.documents)))


@pytest.mark.parametrize("change", [{"rate": 6e-4}, {"betas": (0.0, 0.95)}])
def test_a_loop_that_trains_otherwise_is_refused(change, tmp_path):
    def offered(task, metric):
        return [Candidate("other", metric, lambda: plain_multilingual.trained(replace(task, **change)))]

    with pytest.raises(Disagreement, match="losses differs"):
        benches.pretraining(SimpleNamespace(pretraining=offered), make_work("cpu", tmp_path, TINY), 1)


def test_a_training_run_is_timed_by_its_own_clock(tmp_path):
    def offered(task, metric):
        return [Candidate("microtome", metric, lambda: plain_multilingual.trained(task)._replace(seconds=1000.0))]

    found = benches.pretraining(SimpleNamespace(pretraining=offered), make_work("cpu", tmp_path, TINY), 1)
    assert [m.seconds for m in found if m.name == "microtome"] == [1000.0, 1000.0]
    sizes = plain_multilingual.TINY
    tokens = sizes.updates * sizes.parts * sizes.rows * sizes.seq
    assert {m.note for m in found if m.name == "microtome"} == {f"{tokens / 1000:,.0f} tokens/s"}


def test_importance_of_the_languages_in_another_order_is_refused(tmp_path):
    def offered(texts):
        hooks = Candidate("plain hooks", "neurons", lambda: plain_importance.importances(texts, ["mlp.neurons"]))
        other = replace(texts, groups=texts.groups.roll(1, 1))
        return [hooks, replace(hooks, run=lambda: plain_importance.importances(other, ["mlp.neurons"]))]

    with pytest.raises(Disagreement, match=r"mlp\.neurons differs"):
        benches.importance(SimpleNamespace(importance=offered), make_work("cpu", tmp_path, TINY), 1)


def test_plain_minhash_joins_what_is_alike_and_nothing_else():
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(words), "another text", " ".join(reversed(words)), " ".join(words[:-1]), "Another, text!"]
    assert plain_dedup.near_duplicates(texts).tolist() == [0, 1, 2, 0, 1]


def test_who_finds_too_few_planted_pairs_or_joins_too_much_is_refused():
    documents = plain_dedup.planted(200, 60)
    truth = plain_dedup.near_duplicates(documents.texts)
    assert documents.recall(truth) > 0.85 and documents.others(truth) == 0
    assert shortfall("ours", documents, near_duplicates(documents.texts).first, truth) == 0.0
    with pytest.raises(Disagreement, match=r"idle: 0\.0000 of 60 planted pairs found"):
        shortfall("idle", documents, np.arange(len(truth)), truth)
    with pytest.raises(Disagreement, match=r"greedy: 1\.0000 of 60 planted pairs found, 1(39|40) other"):
        shortfall("greedy", documents, np.zeros_like(truth), truth)


def test_memory_is_that_of_four_times_the_documents_beside_a_quarter(tmp_path):
    adapter = SimpleNamespace(growth=lambda stage, documents: {"filter": 10.0, "deduplicate": documents / 10}[stage])
    found = benches.corpus_memory(adapter, make_work("cpu", tmp_path, TINY), 1)
    assert {m.metric: m.relative for m in found if m.name == "microtome"} == {"filter": 1.0, "deduplicate": 4.0}


@pytest.mark.slow  # two processes that import the training room
def test_memory_is_measured_in_a_process_of_its_own():
    assert all(0 < microtome_multilingual.growth(stage, 60) < 1000 for stage in ("filter", "deduplicate"))
