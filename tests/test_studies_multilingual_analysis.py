"""The analysis of a multilingual model, on a tiny one that holds what should be found: a neuron that is one language's.

Four languages of fourteen words each say the same sentences. In the planted model one neuron of block 1 is on at the
words of `bb` only and makes them likelier; so it must come first, its ablation must cost that language only, and none
of this may be found where languages are shuffled.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny
from close import FLOAT32, FLOAT64
from microtome.core.errors import ConfigError, DataError, MeasureError, SiteError
from microtome.core.site import Site
from microtome.engine.edit import Edit, Zero
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.measures.firing import firing, firing_by_group
from microtome.measures.importance import TextLoss, importance, importance_by_group, token_losses
from microtome.measures.representations import alike_pairs
from microtome.models import Model
from microtome.records import Record
from microtome.reports import render
from microtome.studies.multilingual.ablation import ALL, ablation
from microtome.studies.multilingual.alikeness import POOLINGS, States, alike_layers, alikeness, states_of
from microtome.studies.multilingual.analysis import Analysis
from microtome.studies.multilingual.analysis_claims import judge_analysis
from microtome.studies.multilingual.analysis_views import analysis_views
from microtome.studies.multilingual.dynamics import dynamics
from microtome.studies.multilingual.probing import probe_rows
from microtome.studies.multilingual.reading import importance as importance_stage
from microtome.studies.multilingual.reading import weigh
from microtome.studies.multilingual.sentences import tokenised
from microtome.studies.multilingual.sets import found_sets, language_sets

NAMES = ("aa", "bb", "cc", "dd")
PLANTED = (1, 7)  # block, neuron
KNOBS = Analysis(
    share=1 / 144, checked=20, check_sentences=4, ablation_sentences=12, shuffles=20, resamples=4, draws=40
)
GROUPS = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])]


class Words:
    """A tokenizer of numbers: each word is the id of its token."""

    pad_token_id, bos_token_id = 0, None

    def __call__(self, text: str) -> dict:
        return {"input_ids": [int(x) for x in text.split()]}


def quiet(_: float) -> None:
    """Tell nothing."""


def sentences(count: int = 40, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """The same sentences in every language, word by word."""
    rng = np.random.default_rng(seed)
    said = [rng.integers(0, 14, rng.integers(4, 10)) for _ in range(count)]
    return {n: tuple(" ".join(str(3 + 14 * a + w) for w in s) for s in said) for a, n in enumerate(NAMES)}


def planted(language: int = 1, strength: float = 0.05) -> Model:
    """A random model with a neuron that is on at one language's words and makes them likelier."""
    module = tiny.build("llama")
    block, unit = PLANTED
    words = torch.zeros(61, dtype=torch.bool)
    words[3 + 14 * language : 17 + 14 * language] = True
    mlp = module.model.layers[block].mlp
    with torch.no_grad():
        for layer in module.model.layers:  # two directions of the stream are this neuron's alone
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight[:2] = 0
            attention = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            for part in (*attention, layer.mlp.gate_proj, layer.mlp.up_proj):
                part.weight[:, :2] = 0
        module.model.embed_tokens.weight[:, 0] = torch.where(words, 3.0, -3.0).double()
        module.model.embed_tokens.weight[:, 1] = 0
        mlp.gate_proj.weight[unit], mlp.up_proj.weight[unit], mlp.down_proj.weight[:, unit] = 0, 0, 0
        mlp.gate_proj.weight[unit, 0], mlp.up_proj.weight[unit, 0] = 40.0, 1.0  # off is 0, but for exp(-40)
        mlp.down_proj.weight[1, unit] = strength
        module.lm_head.weight[:, :2] = 0
        module.lm_head.weight[words, 1] = 1.0
    return Model.load(module, tokenizer=Words())


@pytest.fixture(scope="module")
def model() -> Model:
    return planted()


@pytest.fixture(scope="module")
def record(model, tmp_path_factory) -> Record:
    """A record of all stages on the planted model, with claims and views."""
    folder, texts = tmp_path_factory.mktemp("analysis"), sentences()
    module = tiny.build("llama", dtype=torch.float32)
    module.generation_config.bos_token_id = module.generation_config.eos_token_id = 1
    module.save_pretrained(folder / "checkpoint")
    small = Analysis(dynamics_sentences=14, draws=20, resamples=2, share=0.05)
    with Record.open(folder / "record", study="toy", config={}, seed=0) as record:
        weights = record.stage("importance", lambda: importance_stage(model, texts, KNOBS, quiet))
        sets = record.stage("sets", lambda: language_sets(model, texts, KNOBS, quiet))
        record.stage("ablation", lambda: ablation(model, texts, sets, weights, KNOBS, quiet))
        record.stage("alike", lambda: alikeness(model, texts, KNOBS, quiet))
        steps = [(0, folder / "checkpoint"), (10, folder / "checkpoint")]
        record.stage("dynamics", lambda: dynamics(steps, texts, small, quiet, tokenizer=Words()))
        for claim, verdict in judge_analysis(record):
            record.judge(claim, verdict)
        record.views(analysis_views(record))
    return record


# -- the measures by group


ROWS = [[5, 6, 7, 8, 9], [3, 4, 11], [20, 21, 22, 23], [9, 8], [1, 2, 3], [40, 41, 42], [7, 7, 7, 7], [2, 60]]


def test_importance_by_group_is_that_of_each_groups_texts_alone(tiny_model):
    model = tiny_model("llama")
    sites = ["blocks.*.mlp.neurons", "blocks.*.attn.out", "blocks.*.mlp.out", "blocks.*.attn.q"]
    found = importance_by_group(model, [model.batch_ids(ROWS[:5]), model.batch_ids(ROWS[5:])], sites, GROUPS)
    for group in range(3):
        own = [row for row, g in zip(ROWS, GROUPS, strict=True) if g[group]]
        for site, values in found.sites.items():
            alone = importance_by_group(model, [model.batch_ids([r]) for r in own], site, torch.ones(len(own), 1))
            assert (values[group] - alone.sites[site][0]).abs().max() < FLOAT64
    site = Site("blocks.1.attn.out")
    by_text = found.texts[site] @ GROUPS.double() / (found.tokens.double() @ GROUPS.double())
    assert torch.allclose(by_text, found.sites[site].sum(1), atol=FLOAT64)
    assert float(found.losses.sum()) == pytest.approx(importance(model, [model.batch_ids(ROWS)], site).loss * 18)


def test_firing_by_group_counts_texts_as_often_as_they_are_in_it(tiny_model):
    model, site = tiny_model("llama"), Site("blocks.0.mlp.gate")
    groups = torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0], *[[1.0, 0.0]] * 5])
    found = firing_by_group(model, [model.batch_ids(ROWS[:2]), model.batch_ids(ROWS[2:])], site, groups)
    on = [(run(model, model.batch_ids([r]), read=site)[site][0] > 0).double() for r in ROWS]
    by_hand = (2 * on[0].sum(0) + on[2].sum(0)) / (2 * 5 + 4)
    assert (found.sites[site][1] - by_hand).abs().max() < FLOAT64 and found.tokens.tolist() == [26, 14]
    assert (found.sites[site][0] - firing(model, [model.batch_ids(ROWS)], site).sites[site]).abs().max() < FLOAT64
    values = torch.cat([run(model, model.batch_ids([r]), read=site)[site][0] for r in ROWS])
    assert (found.means[site] - values.mean(0)).abs().max() < FLOAT64


def test_half_precision_counts_beyond_what_it_can_hold():
    """bfloat16 holds whole numbers to 256; counts of 600 tokens are exact all the same."""
    model, site = Model.load(tiny.build("llama", dtype=torch.bfloat16)), Site("blocks.0.mlp.gate")
    rows = [[3 + (i * k) % 50 for i in range(50)] for k in range(1, 13)]
    found = firing_by_group(model, [model.batch_ids(rows)], site, torch.ones(12, 1))
    by_hand = (run(model, model.batch_ids(rows), read=site)[site] > 0).flatten(0, 1).sum(0)
    assert ((found.sites[site][0] * 600).round() == by_hand).all() and int(by_hand.max()) > 300


def test_groups_that_do_not_fit_are_named(tiny_model):
    model = tiny_model("llama")
    batch = [model.batch_ids(ROWS)]
    for wrong, said in ((GROUPS[:4], "4 texts were given for 8"), (torch.zeros(8, 2), "2 over 0 tokens"),
                        (torch.ones(9, 1), "9 texts were given for 8")):  # fmt: skip
        for measure in (importance_by_group, firing_by_group):
            with pytest.raises(MeasureError, match=said):
                measure(model, batch, "blocks.0.mlp.neurons", wrong)


def test_for_a_linear_readout_the_first_order_change_is_the_ablation():
    """A metric that is linear in the last block's neurons: h dM/dh is M with h less M with 0, exactly."""
    model, site = Model.load(tiny.build("gpt2")), Site("blocks.2.mlp.neurons")
    batch = model.batch_ids(ROWS)
    weight = torch.linspace(-1, 1, 32, dtype=torch.float64)

    def readout(edits=()):
        return run(model, batch, read="blocks.2.resid_post", edits=edits, grad=True)["blocks.2.resid_post"] @ weight

    result = run(model, batch, read=[site, "blocks.2.resid_post"], grad=True)
    (slope,) = torch.autograd.grad((result["blocks.2.resid_post"] @ weight).sum(), [result[site]])
    product = (slope * result[site]).detach()
    for unit in (0, 3, 77):
        change = (readout() - readout([Edit(site, Zero(), units=[unit])])).detach()
        assert (change - product[..., unit]).abs().max() < FLOAT64


def test_the_loss_of_a_text_is_the_same_in_a_gradient_and_by_hand(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    found = gradients(model, batch, "blocks.0.mlp.neurons", TextLoss(batch)).metric
    assert (found - token_losses(run(model, batch).logits, batch).sum(1)).abs().max() < FLOAT64


# -- the sentences


def test_sentences_are_the_same_in_all_languages_and_halves_share_none():
    found = tokenised(planted(), sentences(), KNOBS)
    assert not set(found.halves["discovery"]) & set(found.halves["test"])
    assert len(found.halves["discovery"]) + len(found.halves["test"]) == 40
    reading = found.read("test")
    lengths = [len(r) for r in reading.rows]
    assert lengths == sorted(lengths) and len(lengths) == 4 * 20
    words = {(a, s): [(t - 3) % 14 for t in row] for row, a, s in
             zip(reading.rows, reading.language, reading.sentence, strict=True)}  # fmt: skip
    assert all(words[a, s] == words[0, s] for a, s in words)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"aa": ("3 4",) * 20}, "At least two languages"),
        ({"aa": ("3 4",) * 20, "bb": ()}, "bb were asked for, found 0"),
        ({"aa": ("3 4",) * 20, "bb": ("3 4",) * 19}, "align them"),
        ({"aa": ("3 4",) * 5, "bb": ("3 4",) * 5}, "found 5"),
        ({"aa": ("3 4",) * 20, "bb": (*("3 4",) * 10, "5", *("3 4",) * 9)}, r"Sentence 10 in 'bb' \('5'\) has 1 token"),
    ],
)
def test_texts_that_cannot_be_used_are_named(model, texts, said):
    with pytest.raises(DataError, match=said):
        tokenised(model, texts, KNOBS)


def test_a_model_without_a_tokenizer_and_bad_knobs_are_named(tiny_model):
    with pytest.raises(DataError, match="no tokenizer"):
        tokenised(tiny_model("llama"), sentences(), KNOBS)
    with pytest.raises(ConfigError, match="random = 0"):
        Analysis(random=0)
    with pytest.raises(ConfigError, match="share = 2"):
        Analysis(share=2)


def test_unknown_components_are_named_and_absent_ones_left_out(model):
    texts = sentences()
    with pytest.raises(SiteError, match=r"mlp\.neurones"):
        importance_stage(model, texts, Analysis(components=("mlp.neurones",)), quiet)
    eager = Model.load(tiny.build("llama", dtype=torch.float32, attn="eager"), tokenizer=Words())
    knobs = Analysis(checked=10, check_sentences=2, draws=20, components=("attn.q", "mlp.out", "attn.heads"))
    values = importance_stage(eager, texts, knobs, quiet).values
    assert values["absent_components"] == ["attn.q"] and values["components"] == ["mlp.out", "attn.heads"]


def test_a_loss_that_is_not_finite_is_refused():
    module = tiny.build("llama")
    model = Model.load(module, tokenizer=Words())
    with torch.no_grad():
        module.lm_head.weight[5] = float("nan")
    reading = tokenised(model, sentences(), KNOBS).read("discovery")
    with pytest.raises(MeasureError, match="found a loss of nan"):
        weigh(model, reading, ["mlp.neurons"], quiet)


# -- what is planted is found, and where it is not, it is not


def test_the_planted_neuron_comes_first_by_entropy_and_belongs_to_its_language_alone(record):
    (row,) = record.rows("language_neurons")
    assert row["neuron"] == "blocks.1.mlp.neurons 7" and row["languages"] == "bb"
    assert row["rate"] == 1 and row["rate_elsewhere"] == 0 and row["entropy"] == 0
    sizes = {r["language"]: r["size"] for r in record.rows("language_sizes")}
    assert sizes == {"aa": 0, "bb": 1, "cc": 0, "dd": 0}
    assert {r["language"]: r["half_jaccard"] for r in record.rows("language_sizes")}["bb"] == 1


def test_the_planted_neuron_comes_first_by_importance(record):
    scores = record.array("importance_neurons")
    excess = scores[1] - np.delete(scores, 1, 0).mean(0)
    assert excess.argmax() == PLANTED[0] * 48 + PLANTED[1]


def test_with_languages_shuffled_there_is_none(record):
    rows = {r["model"]: r for r in record.rows("language_null")}
    assert rows["trained"]["entropy"] == 0 and rows["trained"]["p"] == pytest.approx(1 / 21)
    assert rows["languages shuffled"]["low"] > 0.5 and rows["untrained"]["entropy"] > 0.5


def test_ablating_the_planted_neuron_costs_its_language_only(record):
    cell = {r["evaluated"]: r for r in record.rows("ablation_matrix") if r["arm"] == "LAPE"}
    assert cell["bb"]["low"] > 0.05 and {r["ablated"] for r in cell.values()} == {"bb"}
    assert all(abs(cell[n]["delta"]) < FLOAT64 for n in ("aa", "cc", "dd"))
    row = next(r for r in record.rows("ablation") if r["arm"] == "LAPE" and r["language"] == "bb")
    assert row["p"] == pytest.approx(1 / 21) and row["selectivity"] > 5 * abs(row["random"])
    assert record.value("languages_without_neurons") == ["aa", "cc", "dd"]


def test_the_matrix_is_the_loss_with_the_neuron_at_zero_less_the_loss_without(model, record):
    reading = tokenised(model, sentences(), KNOBS).read("test", KNOBS.ablation_sentences)
    rows = [r for r, a in zip(reading.rows, reading.language, strict=True) if a == 1]
    batch = model.batch_ids(rows)
    edit = Edit(f"blocks.{PLANTED[0]}.mlp.neurons", Zero(), units=[PLANTED[1]])
    lost = [token_losses(run(model, batch, edits=e).logits, batch).sum() for e in ([edit], [])]
    want = float(lost[0] - lost[1]) / sum(len(r) - 1 for r in rows)
    found = next(r for r in record.rows("ablation_matrix") if (r["arm"], r["evaluated"]) == ("LAPE", "bb"))
    assert found["delta"] == pytest.approx(want, rel=FLOAT32)


def test_union_and_counts_follow_the_rule(record):
    model = Model.load(tiny.build("llama", dtype=torch.float32), tokenizer=Words())
    knobs = Analysis(share=0.06, shuffles=2, resamples=2, draws=20)
    found = language_sets(model, sentences(), knobs, quiet)
    assert found.values["lape_union"] == round(0.06 * 144) == len(found.tables["language_neurons"])
    above = (found.arrays["rates"] > found.values["lape_bar"]).sum(0)
    for kind, lowest, highest in (("specific", 1, 1), ("partial", 2, 3), ("shared", 4, 4)):
        counted = sum(r["count"] for r in found.tables["language_kinds"] if r["kind"] == kind)
        assert counted == ((above >= lowest) & (above <= highest)).sum(), kind
    assert sum(r["count"] for r in found.tables["language_layers"]) == found.arrays["members"].sum()


def test_sets_read_back_are_those_found(record):
    stage = SimpleNamespace(value=record.value, array=record.array, rows=record.rows)
    sets, widths = found_sets(stage)
    assert sets.languages == NAMES and sets.of("bb").tolist() == [PLANTED[0] * 48 + PLANTED[1]]
    assert sum(widths.values()) == 144


def test_shares_add_up_and_the_untrained_twin_stands_beside(record):
    for language in NAMES:
        rows = [r for r in record.rows("importance_layers") if r["language"] == language]
        assert sum(r["share"] for r in rows) == pytest.approx(1) and sum(r["untrained"] for r in rows) == pytest.approx(
            1
        )
        assert all(r["low"] <= r["share"] <= r["high"] and r["n"] == 20 for r in rows)
    assert len(record.rows("importance")) == 3 * 8 * len(NAMES)


def test_the_first_order_change_ranks_neurons_as_their_ablation_does(record):
    rows = {r["estimate"]: r for r in record.rows("importance_agreement")}
    assert rows["first_order"]["spearman"] > 0.8 > rows["first_order"]["shuffled"] and rows["importance"]["n"] == 20


def test_the_same_seed_gives_the_same_record(model):
    texts, knobs = sentences(), Analysis(shuffles=2, resamples=2, draws=20, share=0.05)
    one, two = (language_sets(model, texts, knobs, quiet) for _ in range(2))
    assert one.tables == two.tables
    other = language_sets(model, texts, Analysis(shuffles=2, resamples=2, draws=20, share=0.05, seed=1), quiet)
    assert one.tables["language_layers"] != other.tables["language_layers"]


# -- representations


def shared_mean(shift: float, seed: int = 0) -> States:
    """Independent states of 30 sentences in 3 languages at one depth, all about one mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 1, 3, 30, 16)) + shift * rng.normal(size=16)
    return States(x.astype(np.float32))


def test_a_shared_mean_makes_raw_cosine_high_and_nothing_else():
    rows, _, _ = alike_layers(shared_mean(50.0), KNOBS)
    told = {r["measure"]: r for r in rows if r["pooling"] == POOLINGS[0]}
    assert told["raw"]["value"] > 0.99 and told["raw_other"]["value"] > 0.99
    assert abs(told["parallel"]["value"] - told["other"]["value"]) < 0.15
    assert told["retrieval"]["low"] < 1 / 30 + 0.05 and told["retrieval"]["chance"] == 1 / 30
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)


def test_cka_of_resamples_is_that_of_the_repeated_sentences():
    x, y = (np.random.default_rng(i).normal(size=(12, 5)) for i in range(2))
    counts = np.array([[1.0] * 12, [2, 0, 1, 1, 3, 0, 1, 1, 0, 1, 1, 1]])
    ((_, found),) = alike_pairs([x, y], counts[1:], rng=np.random.default_rng(0))
    again = np.repeat(np.arange(12), counts[1].astype(int))
    k, m = ((z[again] - z[again].mean(0)) for z in (x, y))
    want = np.square(k.T @ m).sum() / np.sqrt(np.square(k.T @ k).sum() * np.square(m.T @ m).sum())
    assert found["cka"][0] == pytest.approx(want, rel=FLOAT64)
    with pytest.raises(MeasureError, match="States of 12 sentences"):
        next(iter(alike_pairs([x, y[:5]], counts, rng=np.random.default_rng(0))))


def test_states_are_means_and_last_tokens_whatever_the_batch(model):
    reading = tokenised(model, sentences(), KNOBS).read("test", 5)
    states = states_of(model, reading)
    assert states.pooled.shape == (2, 4, 4, 5, 32)
    for row, language, sentence in zip(reading.rows[:6], reading.language, reading.sentence, strict=False):
        alone = run(model, model.batch_ids([row]), read="blocks.1.resid_post")["blocks.1.resid_post"][0]
        for pooling, want in enumerate((alone.mean(0), alone[-1])):
            found = torch.from_numpy(states.pooled[pooling, 2, language, sentence])
            assert (found - want.float()).abs().max() < FLOAT32 * max(1.0, float(want.abs().max()))


def test_the_probe_reads_a_language_that_is_there_and_none_that_is_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 4, 60, 8))
    noise[1] += 6 * np.eye(4, 8)[:, None]
    rows, drawn = probe_rows(noise, KNOBS)
    assert rows[1]["accuracy"] > 0.95 and rows[1]["low"] > rows[1]["chance"] + 0.4
    assert rows[0]["low"] < 0.4 and abs(rows[1]["control"] - 0.25) < 0.15 and rows[1]["loss"] < rows[0]["loss"]
    assert drawn.shape == (2, 41) and rows[1]["selectivity"] == pytest.approx(rows[1]["accuracy"] - rows[1]["control"])


def test_depths_that_the_model_lacks_are_named(model):
    with pytest.raises(DataError, match="Depth 9"):
        alikeness(model, sentences(), Analysis(depths=(9,), draws=20), quiet)


# -- the record


def test_one_checkpoint_twice_gives_the_same_numbers(record):
    rows = record.rows("dynamics")
    assert {r["step"] for r in rows} == {0, 10} and len({r["measure"] for r in rows}) == 5
    by_step = [[{k: v for k, v in r.items() if k != "step"} for r in rows if r["step"] == s] for s in (0, 10)]
    assert by_step[0] == by_step[1]
    assert sum(r["value"] for r in rows if r["step"] == 0 and r["measure"] == "share of importance") == pytest.approx(1)
    with pytest.raises(DataError, match="distinct steps"):
        dynamics([], sentences(), KNOBS, quiet)


def test_a_checkpoint_whose_neurons_always_fire_has_none_of_one_language(tmp_path):
    module = tiny.build("gpt2", dtype=torch.float32)
    for block in module.transformer.h:
        torch.nn.init.constant_(block.mlp.c_fc.bias, 100.0)
    module.save_pretrained(tmp_path)
    small = Analysis(dynamics_sentences=14, draws=20, resamples=2)
    found = dynamics([(5, tmp_path)], sentences(), small, quiet, tokenizer=Words()).tables["dynamics"]
    assert {r["value"] for r in found if r["measure"] == "specific neurons"} == {0.0}


def test_verdicts_say_what_the_planted_model_holds(record):
    verdicts = {j.claim.id: j.verdict for j in record.claims}
    assert verdicts["language_neurons_exist"].outcome == "reproduced"
    assert verdicts["ablation_is_selective"].outcome == "reproduced"
    assert verdicts["raw_cosine_shows_alignment"].outcome == "not reproduced"
    assert verdicts["translations_are_alike"].outcome != "reproduced"
    row = next(r for r in record.rows("ablation") if (r["arm"], r["language"]) == ("LAPE", ALL))
    assert verdicts["ablation_is_selective"].measured == pytest.approx(row["selectivity"])


def test_views_render(record):
    page = render(record.path.parent if record.path.suffix else record.path).read_text()
    assert page.count("<svg") >= 18
    for said in ("Taking a language", "linear probe", "Along training", "Spearman"):
        assert said in page, said
