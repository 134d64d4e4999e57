"""Parallel text: lines stay aligned whatever is asked for, and every way a folder can be wrong is one clear line."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import DataError
from microtome.data.parallel import read_parallel

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "corpus" / "parallel"
on_corpus = pytest.mark.skipif(not FOLDER.is_dir(), reason="the corpus is not on this machine")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ntrex.en.txt").write_text("one\ntwo\n\nfour\n", encoding="utf-8")
    (tmp_path / "de.txt").write_bytes("\ufeffeins\r\nzwei\r\ndrei\r\nvier".encode())
    (tmp_path / "ntrex.zh-Hant.txt").write_text("一\n二\u2028二\n三\n四\n", encoding="utf-8")
    (tmp_path / "LICENSE.txt").write_text("free\n", encoding="utf-8")
    return tmp_path


def test_lines_stay_aligned_and_what_is_blank_in_one_is_left_out_of_all(folder, caplog):
    with caplog.at_level(logging.WARNING):
        found = read_parallel(folder)
    assert found == {
        "de": ("eins", "zwei", "vier"),
        "en": ("one", "two", "four"),
        "zh-Hant": ("一", "二\u2028二", "四"),
    }
    assert "left out 1 of 4 lines" in caplog.text


def test_languages_come_in_the_order_asked_and_only_their_files_count(folder, caplog):
    (folder / "fr.txt").write_text("seulement une\n", encoding="utf-8")
    found = read_parallel(folder, ["zh-Hant", "de"])
    assert list(found) == ["zh-Hant", "de"] and found["de"] == ("eins", "zwei", "drei", "vier")
    assert caplog.text == ""  # blank only in a language that was not asked for
    assert read_parallel(folder, "en") == {"en": ("one", "two", "four")}


def test_sentences_are_the_first_that_are_filled_everywhere(folder):
    assert read_parallel(folder, ["en", "de"], sentences=3)["de"] == ("eins", "zwei", "vier")
    assert read_parallel(folder, ["en", "de"], sentences=2)["en"] == ("one", "two")
    with pytest.raises(DataError, match="0 parallel sentences were asked for"):
        read_parallel(folder, sentences=0)


@given(st.lists(st.tuples(*[st.text("ab \t", max_size=3)] * 3), min_size=1, max_size=12))
def test_row_k_of_every_language_comes_from_one_line(tmp_path_factory, rows):
    home = tmp_path_factory.mktemp("parallel")
    for k, language in enumerate(("en", "de", "fr")):
        lines = [row[k] + f" {n}" if row[k].strip() else row[k] for n, row in enumerate(rows)]
        (home / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = [n for n, row in enumerate(rows) if all(x.strip() for x in row)]
    if not kept:
        with pytest.raises(DataError, match=r"found none|found it empty"):
            read_parallel(home)
        return
    found = read_parallel(home)
    assert all([int(line.split()[-1]) for line in lines] == kept for lines in found.values())


def test_what_is_wrong_is_said_in_one_line(folder):
    def refusal(*asked):
        with pytest.raises(DataError) as caught:
            read_parallel(*asked)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "No folder" in refusal(folder / "paralel")
    assert "Did you mean" in refusal(folder.parent / (folder.name[:-1] + "x"))
    assert "there are de, en, zh-Hant. Did you mean 'zh-Hant'?" in refusal(folder, ["zh-hant"])
    assert "no language was asked for" in refusal(folder, [])
    (folder / "other.en.txt").write_text("one\n", encoding="utf-8")
    assert "found ntrex.en.txt and other.en.txt" in refusal(folder)
    (folder / "other.en.txt").unlink()
    (folder / "fr.txt").write_text("un\ndeux\n", encoding="utf-8")
    assert "found 4 in 'de.txt' and 2 in 'fr.txt'" in refusal(folder, ["de", "fr"])
    (folder / "fr.txt").write_text("\n \n", encoding="utf-8")
    assert "fr.txt' should hold a sentence a line, found it empty" in refusal(folder, ["fr"])
    (folder / "fr.txt").write_bytes(b"un\nd\xe9j\xe0\n")
    assert "Line 2 of" in refusal(folder, ["fr"]) and "found byte 0xe9" in refusal(folder, ["fr"])


def test_a_folder_without_files_of_languages_is_refused(tmp_path):
    (tmp_path / "README.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="No parallel text in"):
        read_parallel(tmp_path)


@on_corpus
def test_the_real_files_are_read_whole():
    found = read_parallel(FOLDER)
    assert {"en", "zh", "hi", "ar", "ko"} <= set(found)
    assert {len(lines) for lines in found.values()} == {1997}
