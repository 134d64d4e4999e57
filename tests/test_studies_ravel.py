"""The RAVEL study's parts: smaller tables, sides as tokens, settings chosen on validation, what is refused."""

import numpy as np
import pytest
import torch

from microtome.core.config import with_settings
from microtome.core.errors import ConfigError, DataError
from microtome.data.ravel import SIDES, atlas_tables, draw_pairs, gold_instance
from microtome.data.ravel.subset import subset
from microtome.models.model import Model
from microtome.studies.ravel import STUDY
from microtome.studies.ravel.config import RavelConfig
from microtome.studies.ravel.fitting import best
from microtome.studies.ravel.methods import CONTROLS, METHODS, Candidate
from microtome.studies.ravel.scoring import of_candidates
from microtome.studies.ravel.sides import Encoder, encode_side
from microtome.studies.ravel.subject import load_subject, load_table


@pytest.fixture(scope="module")
def atlas() -> Model:
    return Model.load("zoo:atlas", dtype=torch.float32)


@pytest.fixture(scope="module")
def side(atlas):
    pairs, _ = draw_pairs(gold_instance(atlas_tables()["atlas_country"]), target="capital", side="entity-test", bases=3)
    return encode_side(Encoder(atlas), "entity-test", pairs.pairs, "entity", 3)


# Smaller tables


def test_a_subset_keeps_every_split_and_the_order():
    table = atlas_tables()["atlas_city"]
    small = subset(table, entities=60, templates=6, wikipedia=9, seed=1)
    assert len(small.entities) == 60 and [e for e in table.entities if e in small.entities] == list(small.entities)
    for attribute in table.asked:
        splits = [t.split for t in small.templates if t.attribute == attribute]
        assert len(splits) == 6 and set(splits) == {"train", "val", "test"}
    assert {e.split for e in small.entities} == {w.split for w in small.wikipedia} == {"train", "val", "test"}
    assert subset(table, entities=60, seed=1).entities != subset(table, entities=60, seed=2).entities
    assert subset(table) == table


# Sides


def test_a_side_holds_every_pair_twice_and_labels_follow_the_target(side, atlas):
    n = len(side)
    assert len(side.tokens) == 2 * n and side.merged == 0
    decode = atlas.tokenizer.decode
    for i, pair in enumerate(side.pairs):
        assert decode(side.tokens.labels[i]).strip() == pair.cf_label
        assert decode(side.tokens.labels[n + i]).strip() == pair.base_label
        at = side.tokens.base_at[i]
        assert pair.groups["entity"].endswith(decode(side.tokens.bases[i][at : at + 1]).strip())
    for target in ("capital", "language"):
        rows = side.rows(target)
        own = np.array([a == target for a in side.asked])
        assert rows.sum() == n and (rows[:n].numpy() == own).all() and (rows[n:].numpy() == ~own).all()
        assert side.rows(target, kinds=("cause",)).sum() == own.sum()
        values = torch.arange(2 * n)[None]
        assert (side.of_pairs(values, target)[0] == np.where(own, np.arange(n), n + np.arange(n))).all()


def test_swapping_nothing_and_everything_are_the_ends_of_the_scale_in_a_real_model(side, atlas):
    """At the embedding all of the entity is at its token: a full swap is asking about the other entity."""
    site = atlas.select("blocks.0.resid_pre")[0].site
    swaps = side.record(atlas, [site], "1GiB")[site]
    targets = ("capital", "continent", "language", "currency")
    arms = [Candidate("empty", t, "", "", (), 0) for t in targets] + [
        Candidate("full", t, "", "", None, 128) for t in targets
    ]
    outcome, kinds = of_candidates(side, swaps, arms, {}, rows_at_once=256)
    scores = {m: side.trials(0, 50).scores(outcome.right[i], targets)[-1] for i, (m, _) in enumerate(kinds)}
    # multi-token entity names leave their first tokens behind, so not exactly 1 and 0
    assert scores["empty"].cause.estimate < 0.02 and scores["empty"].isolate.estimate > 0.95
    assert scores["full"].cause.estimate > 0.9 and scores["full"].isolate.estimate < 0.1


def test_pairs_whose_answers_cannot_be_told_apart_are_left_out(side, atlas):
    from dataclasses import replace

    same = [replace(p, kind="isolate", cf_label=p.base_label) for p in side.pairs]
    with pytest.raises(DataError, match=r"None of \d+ pairs of side"):
        encode_side(Encoder(atlas), "train", same, "entity", 3)


def test_a_tokenizer_without_offsets_is_refused(atlas):
    class Slow:
        is_fast = False

    class Other:
        tokenizer = Slow()

    with pytest.raises(DataError, match="fast tokenizer"):
        Encoder(Other())


# Choosing


def test_the_best_setting_of_each_method_and_target_is_chosen_and_ties_go_to_the_smaller():
    made = [Candidate("das", t, f"rank {r}", f"das{r}-{t}", None, r) for t in "ab" for r in (16, 4)]
    means = {("das", "rank 4", "a"): 0.7, ("das", "rank 16", "a"): 0.7, ("das", "rank 4", "b"): 0.5,
             ("das", "rank 16", "b"): 0.6}  # fmt: skip
    assert [(c.target, c.size) for c in best(made, means)] == [("a", 4), ("b", 16)]


def test_methods_and_controls_are_told_apart():
    assert not set(METHODS) & set(CONTROLS) and len({m.label for m in (METHODS | CONTROLS).values()}) == 18


# What is refused


def test_unknown_types_positions_and_layers_are_refused(tmp_path):
    quick = STUDY.preset("quick")
    with pytest.raises(DataError, match=r"No entity type 'town'.*atlas_country"):
        load_table(with_settings(quick, ["entity=town"]))
    with pytest.raises(ConfigError, match="No position 'first'"):
        RavelConfig(position="first")
    with pytest.raises(ConfigError, match="Ranks"):
        with_settings(quick, ["fitting.ranks=[]"])
    with pytest.raises(ConfigError, match=r"Layer 9 .* has 6"):
        load_subject(with_settings(quick, ["layers=[9]"]))
    with pytest.raises(DataError, match="nowhere"):
        load_table(with_settings(quick, [f"data={tmp_path / 'nowhere'}"]))


def test_every_preset_is_a_whole_configuration():
    for name in STUDY.presets:
        config = STUDY.preset(name)
        assert config.pairs.train >= config.pairs.validation and config.fitting.ranks
    assert set(SIDES) == {"train", "entity-val", "entity-test", "context-val", "context-test"}
