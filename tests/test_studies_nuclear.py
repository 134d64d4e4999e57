"""Parts of the nuclear study: what is divided, what arms are given, what is read, and how verdicts fall."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from close import FLOAT32, FLOAT64
from microtome.core.config import from_toml, to_toml, with_settings
from microtome.core.errors import ConfigError, DataError
from microtome.data.nuclear import BW2, SEMF
from microtome.measures.symbolic import Library, best_subsets
from microtome.studies.nuclear import STUDY
from microtome.studies.nuclear.causes import maps, odd_even_gap, replacements
from microtome.studies.nuclear.comparing import multitask
from microtome.studies.nuclear.config import Cuts, NuclearConfig
from microtome.studies.nuclear.describing import data
from microtome.studies.nuclear.embeddings import Network
from microtome.studies.nuclear.fitting import untrained_of
from microtome.studies.nuclear.holdout import holdout, nearest
from microtome.studies.nuclear.physics import contributions_of, library_of
from microtome.studies.nuclear.subject import load_subject

TINY = with_settings(
    NuclearConfig(),
    ["fitting.seeds=2", "reading.draws=9", "reading.helix_draws=9", "reading.points=6", "network.embedding=8",
     "network.width=8", "network.spread=0.5", "multitask.seeds=1", "multitask.epochs=1"],
)  # fmt: skip


@pytest.fixture(scope="module")
def subject():
    return load_subject(TINY)


@pytest.fixture(scope="module")
def held(subject):
    """The step of held-out errors with untrained networks in every arm: enough for what reads tables."""
    networks = untrained_of(subject)
    output = holdout(subject, dict.fromkeys(("residual", "direct", "theory", "noise", "untrained"), networks))
    return output, networks


def test_presets_are_configurations_that_survive_toml(tmp_path):
    for name in STUDY.presets:
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(STUDY.preset(name)))
        assert from_toml(NuclearConfig, path) == STUDY.preset(name)


def test_formulas_and_scalings_know_training_nuclei_alone(subject):
    changed = replace(subject.table, binding=np.where(subject.held, subject.table.binding + 50, subject.table.binding))
    numbers = replace(subject.outer.tasks, table=changed, values=changed.binding[:, None])
    other = replace(subject, table=changed, outer=replace(subject.outer, tasks=numbers))
    assert other.formulas["semf"].coefficients == subject.formulas["semf"].coefficients
    for name in ("residual", "direct", "theory"):
        assert other.arms[name].scaling.std[0] == subject.arms[name].scaling.std[0]
        assert other.arms[name].scaling.mean[0] == subject.arms[name].scaling.mean[0]


def test_every_number_of_protons_and_neutrons_held_out_keeps_nuclei_in_training(subject):
    for axis in (subject.table.z, subject.table.n):
        kept = np.bincount(axis[subject.outer.train[:, 0]], minlength=axis.max() + 1)
        assert kept[axis[subject.held]].min() >= 3
    assert not (subject.train & subject.held).any() and not subject.outer.warnings


def test_with_patience_some_training_nuclei_tell_when_to_stop(subject):
    waiting = load_subject(with_settings(TINY, ["fitting.patience=5"]))
    assert subject.inner is None and waiting.inner is not None
    inner = waiting.inner.held[:, 0]
    assert inner.any() and not (inner & (waiting.train | waiting.held)).any()
    assert (waiting.held == subject.held).all() and ((waiting.train | inner) == subject.train).all()
    counts = {r["part"]: r["nuclei"] for r in data(waiting).tables["parts"]}
    assert counts["inner held-out"] == inner.sum() and sum(counts.values()) == len(waiting.table)


def test_the_arms_quantities_are_what_they_say(subject):
    arms, table = subject.arms, subject.table
    assert np.abs(arms["residual"].truth - table.binding).max() < FLOAT64
    assert np.abs(arms["direct"].truth - table.binding).max() == 0
    assert np.abs(arms["theory"].truth - subject.formulas["semf"].binding(table.z, table.n)).max() < FLOAT64
    assert abs(arms["noise"].truth.std() - 1) < 0.1
    for arm in arms.values():
        assert np.abs(arm.quantity(arm.scaling.forward(arm.tasks.values)[:, 0]) - arm.truth).max() < 1e-8


def test_the_residual_arm_learns_bw2s_residual_unless_the_table_is_bw2s_own(subject):
    assert subject.residual_of == "semf"  # the built-in table leaves nothing else to learn
    noisy = replace(
        subject.table, binding=subject.table.binding + np.random.default_rng(0).normal(size=len(subject.table))
    )
    assert replace(subject, table=noisy).residual_of == "bw2"
    assert replace(subject, config=replace(TINY, residual_of="bw2")).residual_of == "bw2"


def test_the_description_counts_every_nucleus_once_and_names_the_leaky_division(subject):
    output = data(subject)
    assert sum(r["nuclei"] for r in output.tables["parts"]) == len(subject.table)
    assert sum(r["rows"] for r in output.tables["cuts"][:-1]) == output.tables["cuts"][-1]["rows"] == len(subject.table)
    leak = {r["split"]: r["derivable"] for r in output.tables["leakage"]}
    assert leak["nucleus"] == leak["edge"] == leak["region"] == 0
    assert leak["task"] > 0 and leak["nucleus, unmasked"] > 0
    rms = {r["formula"]: r["rms"] for r in output.tables["formulas"]}
    assert rms["bw2"] < 1e-6 < 1 < rms["semf"]  # the table is BW2's


def test_a_prediction_without_error_has_none_and_baselines_are_in_order(subject, held):
    rows = {r["label"]: r for r in held[0].tables["holdout"]}
    assert rows["BW2, fitted"]["rms"] < 1e-6
    assert rows["SEMF + nearest"]["rms"] < rows["SEMF, fitted"]["rms"] < rows["untrained"]["rms"]
    for row in rows.values():
        assert row["low"] <= row["rms"] <= row["high"] and row["n"] == subject.held.sum()


def test_the_nearest_nuclei_correct_a_formula_and_never_the_nucleus_itself(subject):
    spike = int(np.flatnonzero(subject.train)[500])
    table = replace(subject.table, binding=subject.table.binding + 1000.0 * (np.arange(len(subject.table)) == spike))
    spiked = replace(subject, table=table)
    spiked.__dict__["formulas"] = subject.formulas
    plain, moved = nearest(subject, "bw2"), nearest(spiked, "bw2")
    assert moved[spike] == pytest.approx(plain[spike])
    beside = table.rows_of(table.z[spike : spike + 1], table.n[spike : spike + 1] + 1)[0]
    assert moved[beside] > plain[beside] + 10


def test_the_odd_even_gap_of_a_formula_is_its_pairing_term(subject):
    table = subject.table
    pairing = BW2.contributions(table.z, table.n)["pairing"]
    paired = BW2.binding(table.z, table.n)
    gap = {axis: odd_even_gap(subject, paired, axis) for axis in ("z", "n")}
    assert odd_even_gap(subject, paired - pairing, "n") == pytest.approx(0, abs=0.1)
    # of pi = 1, 0, -1 along any chain, (-1)^n (2 pi(n) - pi(n-1) - pi(n+1)) / 2 is 1 everywhere
    assert gap["n"] == pytest.approx(float((11.18 / np.sqrt(table.a)).mean()), rel=0.1)


def test_contributions_add_up_to_the_prediction(subject, held):
    networks = held[1]
    found = contributions_of(subject, Network("direct", networks, 1, True))
    predicted = subject.arms["direct"].predict(networks)[1]
    assert np.abs(found.prediction - predicted).max() < FLOAT32 * np.abs(predicted).max()


def test_the_library_returns_the_five_terms_of_a_formula_without_noise(subject):
    library = library_of(subject)
    assert len(set(library.names)) == len(library.names) > 20
    front = best_subsets(library, _five(subject), largest=6)
    assert len(front.chosen.terms) == 5 and front.chosen.rms < 1e-6
    assert "pi A^-0.5" in front.chosen.terms and "A" in front.chosen.terms and "A^0.667" in front.chosen.terms


def _five(subject) -> np.ndarray:
    """A formula like the semi-empirical one, with Z^2 as BW2 has it."""
    z, n = subject.table.z.astype(float), subject.table.n.astype(float)
    a = z + n
    pairing = SEMF.terms.design(z, n)[:, 4]
    return 15.5 * a - 17 * a ** (2 / 3) - 0.7 * z**2 * a ** (-1 / 3) - 23 * (n - z) ** 2 / a + 12 * pairing


class _Held:
    """The committed step, as the readers see it."""

    def __init__(self, values):
        self.values = values

    def value(self, name):
        return self.values[name]


def test_a_table_in_its_own_place_changes_nothing_and_mean_rows_do(subject, held):
    output, networks = held
    fitted = dict.fromkeys(("residual", "direct"), networks)
    rows = replacements(subject, fitted, _Held(output.values), lambda x: None).tables["replacements"]
    own = {(r["arm"], r["table"], r["metric"]): r["score"] for r in rows if r["name"] == "model"}
    full = {(r["arm"], r["table"], r["metric"]): r["score"] for r in rows if r["name"] == "keep 8"}
    assert own.keys() == full.keys() and all(full[k] == pytest.approx(own[k], rel=1e-5) for k in own)
    mean = {(r["arm"], r["table"], r["metric"]): r["score"] for r in rows if r["name"] == "mean"}
    assert any(abs(mean[k] - own[k]) > 1e-3 for k in own)


def test_the_map_meets_the_network_at_real_rows_but_for_what_lies_off_the_plane(subject, held):
    output, networks = held
    found = maps(subject, {"direct": networks}, _Held(output.values))
    place = output.values["headline_direct"]
    predicted = subject.arms["direct"].predict(networks)[place]
    fixed = int(found.tables["maps"][1]["fixed"].split()[-1])  # of the table of N: which Z
    rows = [r for r in found.tables["map_items"] if r["table"] == "N"]
    at = {
        int(n): float(predicted[i])
        for i, (z, n) in enumerate(zip(subject.table.z, subject.table.n, strict=True))
        if z == fixed
    }
    shared = [r for r in rows if r["number"] in at]
    assert len(shared) > 3
    assert all(r["predicted"] == pytest.approx(at[r["number"]], rel=1e-4) for r in shared)
    assert len([r for r in found.tables["map_grid"] if r["table"] == "N"]) == 36


def test_with_other_tasks_the_leaky_division_gives_energies_away_and_the_grouped_one_does_not(subject):
    rows = {(r["split"], r["tasks"]): r for r in multitask(subject, lambda x: None).tables["multitask"]}
    assert rows["whole nuclei", "with others"]["derivable"] == 0
    assert rows["single numbers (leaky)", "with others"]["derivable"] > 0.9
    assert rows["single numbers (leaky)", "alone"]["derivable"] == 0
    assert rows["whole nuclei", "with others"]["trained_numbers"] > 2 * rows["whole nuclei", "alone"]["trained_numbers"]


def test_the_untrained_networks_are_those_that_training_starts_from(subject):
    first, again = untrained_of(subject), untrained_of(subject)
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights[0], first.weights[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["residual_of=ws4"], "No formula 'ws4'"),
        (["twin=bw3"], "Did you mean 'bw2'"),
        (["fitting.seeds=0"], "fitting.seeds"),
        (["reading.points=1"], "at least 2"),
        (["network.mixing=concatenate"], "No mixing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        subject = load_subject(with_settings(NuclearConfig(), settings))
        assert subject.shape


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("z,n,mass\n20,20,1\n", "has the column 'mass'"),
        ("z,n,binding_kev\n20,20,abc\n", "abc"),
        ("z,n,binding_kev\n20,20,8551.3\n20,21,8547.0\n20,22,8616.6\n20,23,8600.7\n", "per nucleon"),
        ("z,n,binding_kev\n2,2,28295.7\n", "is left of"),
        ("z,n,binding_kev\n20,20,342052.2\n20,21,350414.9\n", "at least 100"),
    ],
    ids=["columns", "cell", "unit", "empty after cuts", "short"],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_subject(replace(TINY, table=str(path)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_too_short_is_refused():
    with pytest.raises(DataError, match="at least 100"):
        load_subject(replace(TINY, cuts=Cuts(min_z=105)))


def test_a_library_of_terms_holds_no_term_twice_over(subject):
    library = library_of(subject)
    assert isinstance(library, Library) and np.isfinite(library.terms).all()
