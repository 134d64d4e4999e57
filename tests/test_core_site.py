"""Site: text and address are one; globs cover what they say; errors name the nearest address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import SiteError
from microtome.core.site import Site, select_sites

NAME = st.from_regex(r"[A-Za-z0-9_\-]{1,6}", fullmatch=True)
PATH = st.lists(NAME, min_size=1, max_size=5).map(".".join)
KNOWN = [Site(f"blocks.{i}.{k}") for i in range(12) for k in ("resid_pre", "mlp.neurons", "mlp.out")] + [Site("embed")]


@given(PATH)
def test_parse_then_print_gives_the_text_back(path):
    site = Site.parse(path)
    assert str(site) == path and Site.parse(str(site)) == site and not site.is_glob


@given(PATH)
def test_an_address_covers_itself_and_two_stars_cover_everything(path):
    assert Site(path).matches(path) and Site("**").matches(path)


@given(PATH, NAME)
def test_a_star_stays_within_a_segment(path, extra):
    assert Site("*").matches(path) == ("." not in path)
    assert not Site(path).matches(f"{path}.{extra}")


@pytest.mark.parametrize(
    ("glob", "count"),
    [
        ("blocks.*.mlp.neurons", 12),
        ("blocks.[9-11].mlp.*", 6),
        ("blocks.{0,5}.resid_pre", 2),
        ("**.out", 12),
        ("blocks.1?.mlp.out", 2),
        ("embed", 1),
    ],
)
def test_globs_select(glob, count):
    assert len(select_sites(glob, KNOWN)) == count


def test_sites_come_in_block_order_and_once():
    found = select_sites(["blocks.10.mlp.out", "blocks.{2,10}.mlp.out", "blocks.9.*"], KNOWN)
    assert [str(s) for s in found] == ["blocks.2.mlp.out", "blocks.9.resid_pre", "blocks.10.mlp.out"]


def test_unknown_block_names_the_blocks_and_the_nearest():
    with pytest.raises(SiteError) as error:
        select_sites("blocks.19.mlp.neurons", KNOWN)
    assert str(error.value) == (
        "No site 'blocks.19.mlp.neurons' (this model has blocks 0-11). Did you mean 'blocks.11.mlp.neurons'?"
    )


def test_misspelt_kind_names_the_nearest():
    with pytest.raises(SiteError, match=r"Did you mean 'blocks\.3\.mlp\.neurons'\?"):
        select_sites("blocks.3.mlp.neuron", KNOWN)


@pytest.mark.parametrize("text", ["", "a..b", "blocks.3.", "a b", "blocks.[a-b].x", "blocks.{}.x", "a/../b"])
def test_malformed_text_is_refused(text):
    with pytest.raises(SiteError, match="is not a site"):
        Site.parse(text)
