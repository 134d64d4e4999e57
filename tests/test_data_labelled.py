"""Labelled texts: each layout read into one schema, everything left out counted, every defect one line."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import DataError
from microtome.data.labelled import (
    JIGSAW_LABELS,
    LabelledSet,
    LabelledText,
    load_jigsaw,
    load_labelled_csv,
    load_real_toxicity,
    load_toxicn,
)


def write_csv(path, header, rows, encoding="utf-8"):
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def table(tmp_path, rows, header=("text", "label"), **options):
    return write_csv(tmp_path / "rows.csv", header, rows, **options)


HOSTILE = [
    "<script>alert('x')</script> & &amp; <b>",
    "nul \x00 bell \x07 escape \x1b[31m backspace \x08",
    'quotes " and "" and , commas\nlines\r\nand\ttabs',
    "rtl \u202e zero\u200bwidth \ufeff inside, \u2028 and \x85",
    "=cmd|' /C calc'!A0",
    "emoji \U0001f600 combining e\u0301 han \u6c49",
    "x" * 100_000,
    "long " * 60_000,
]


def test_hostile_text_survives_to_the_character(tmp_path):
    limit = csv.field_size_limit()
    rows = load_labelled_csv(table(tmp_path, [(text, i % 2) for i, text in enumerate(HOSTILE)]))
    assert rows.texts == HOSTILE and rows.labels.tolist() == [0, 1] * 4
    assert rows.lengths.tolist() == [len(text) for text in HOSTILE]
    assert csv.field_size_limit() == limit  # it is process-wide


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=2, max_size=6))
def test_any_text_written_as_csv_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    rows = load_labelled_csv(write_csv(path, ("label", "text"), [(i % 2, t) for i, t in enumerate(texts)]))
    assert rows.texts == texts


def test_a_table_keeps_other_columns_and_counts_what_it_drops(tmp_path):
    header = ("where", "comment", "bad", "part", "key")
    rows = [
        ("a", "good day", "0", "train", "k1"),
        ("b", "   ", "1", "train", "k2"),
        ("c", "no label", "", "train", "k3"),
        ("d", "bad day", "1.0", "test", "k4"),
    ]
    path = table(tmp_path, [*rows, ("short", "row")], header)
    found = load_labelled_csv(path, text="comment", label="bad", split="part", id="key")
    assert [(r.text, r.label, dict(r.attributes), r.split, r.id) for r in found] == [
        ("good day", 0, {"where": "a"}, "train", "k1"),
        ("bad day", 1, {"where": "d"}, "test", "k4"),
    ]
    assert found.dropped == {"empty label": 1, "empty text": 1, "another number of cells than the header": 1}
    assert found.counts == {"test": {0: 0, 1: 1}, "train": {0: 1, 1: 0}}
    assert "1 dropped: empty text" in found.account
    named = load_labelled_csv(table(tmp_path, [("x", "hate"), ("y", "none")]), values={"hate": 1, "none": 0})
    assert named.labels.tolist() == [1, 0] and [r.id for r in named] == ["1", "2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, encoding):
    assert load_labelled_csv(table(tmp_path, [("汉", 1), ("b", 0)], encoding=encoding)).texts == ["汉", "b"]


def test_lone_surrogates_are_mended_and_counted(tmp_path):
    path = tmp_path / "rtp.jsonl"
    rows = [{"prompt": {"text": t, "toxicity": y}} for t, y in (("a \ud800 b", 0.9), ("\ud83d\ude00", 0.1))]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    found = load_real_toxicity(path, seed=None)
    assert found.texts == ["a \ufffd b", "\U0001f600"]
    assert found.mended == {"lone surrogates replaced by U+FFFD": 1}
    assert [t.encode() for t in found.texts]


BROKEN = {
    "no such column": ({}, {"text": "txet"}, r"^No column 'txet' in .*; it has text, label. Did you mean 'text'"),
    "label 2": ({"rows": [("a", 2), ("b", 0)]}, {}, r"^Column 'label' of .*, row 1, is '2'; labels must be 0 or 1"),
    "label word": ({"rows": [("a", 1), ("b", "yes")]}, {}, r"row 2, is 'yes'; labels must be 0 or 1"),
    "unnamed word": (
        {"rows": [("a", "hat")]}, {"values": {"hate": 1, "none": 0}},
        r"'hat'; values name hate, none. Did you mean 'hate'",
    ),
    "one class": ({"rows": [("a", 1), ("b", 1)]}, {}, r"^All 2 texts of .* have label 1 .* needs label 0 too"),
    "all empty": ({"rows": [(" ", 1), ("", 0)]}, {}, r"^All 2 texts of .* are empty; name the column that holds"),
    "all unlabelled": ({"rows": [("a", ""), ("b", "")]}, {}, r"^No texts are left of .*2 dropped: empty label"),
    "twice": ({"header": ("text", "text"), "rows": [("a", 1)]}, {}, r"found the column 'text' twice; mend"),
    "no rows": ({"rows": []}, {}, r"found 2 columns in the first line and no row of that many cells"),
    "no such encoding": ({}, {"encoding": "utf-9"}, r"^No encoding 'utf-9' is known; .* Did you mean"),
    "latin-1 as utf-8": (
        {"rows": [("é", 1), ("b", 0)], "encoding": "latin-1"}, {}, r"found byte 0xe9 at 12 .* encoding='gb18030'",
    ),
    "utf-16 as utf-8": ({"encoding": "utf-16"}, {}, r"found byte 0xff at 0 .* encoding='utf-16'"),
    "utf-8 as cp1252": (
        {"rows": [("é", 1), ("b", 0)]}, {"encoding": "latin-1"}, r"valid UTF-8, some beyond ASCII; read it with",
    ),
}  # fmt: skip


@pytest.mark.parametrize("written, asked, said", BROKEN.values(), ids=BROKEN)
def test_every_defect_is_one_line(tmp_path, written, asked, said):
    path = table(tmp_path, **({"rows": [("a", 1), ("b", 0)]} | written))
    with pytest.raises(DataError, match=said) as caught:
        load_labelled_csv(path, **asked)
    assert "\n" not in str(caught.value)


def test_quotes_that_do_not_close_and_absent_files_are_named(tmp_path):
    path = tmp_path / "comments.csv"
    path.write_text('text,label\n"open,1\nb,0\n')
    with pytest.raises(DataError, match=r"comments.csv' is not CSV at line 3 \(.*\); quote cells"):
        load_labelled_csv(path)
    with pytest.raises(DataError, match=r"No file '.*coments.csv' .* Did you mean 'comments.csv'"):
        load_labelled_csv(tmp_path / "coments.csv")


def jigsaw(folder):
    """Four training comments; five test comments, of which one is unscored and one has no labels."""
    marks = lambda *on: [int(name in on) for name in JIGSAW_LABELS]  # noqa: E731
    header = ("id", "comment_text", *JIGSAW_LABELS)
    train = [
        ("a1", "fine", *marks()),
        ("a2", "rude,\nvery", *marks("toxic", "insult")),
        ("a3", "an insult that is not toxic", *marks("insult")),
        ("a4", "fine too", *marks()),
    ]
    write_csv(folder / "train.csv", header, train)
    texts = [("b1", "good"), ("b2", "bad"), ("b3", "unscored"), ("b4", "unlabelled"), ("b5", "threat only")]
    write_csv(folder / "test.csv", header[:2], texts)
    labels = [("b3", *[-1] * 6), ("b2", *marks("toxic")), ("b1", *marks()), ("b5", *marks("threat"))]
    write_csv(folder / "test_labels.csv", ("id", *JIGSAW_LABELS), labels)
    return folder


AURA = "not toxic, yet another label is 1 (AurA's filter)"


def test_jigsaw_joins_labels_by_id_and_leaves_out_what_aura_leaves_out(tmp_path):
    test = load_jigsaw(jigsaw(tmp_path), split="test")
    assert [(r.id, r.text, r.label, r.split) for r in test] == [("b1", "good", 0, "test"), ("b2", "bad", 1, "test")]
    assert test.dropped == {"not scored (-1)": 1, "no row in test_labels.csv": 1, AURA: 1}
    assert test.rows[1].attributes == {name: int(name == "toxic") for name in JIGSAW_LABELS}
    both = load_jigsaw(tmp_path)
    assert both.counts == {"test": {0: 1, 1: 1}, "train": {0: 2, 1: 1}} and both.dropped[AURA] == 2
    kept = load_jigsaw(tmp_path, split="train", contradictory=True)
    assert len(kept) == 4 and AURA not in kept.dropped
    insults = load_jigsaw(tmp_path, split="train", label="insult", contradictory=True)
    assert insults.labels.tolist() == [0, 1, 1, 0]


def test_jigsaw_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match=r"No folder .* read Jigsaw from"):
        load_jigsaw(tmp_path / "none")
    jigsaw(tmp_path)
    with pytest.raises(DataError, match=r"no label 'insults'; it has toxic.* Did you mean 'insult'"):
        load_jigsaw(tmp_path, label="insults")
    with pytest.raises(DataError, match=r"no split 'tset'; it has train, test. Did you mean 'test'"):
        load_jigsaw(tmp_path, split="tset")
    text = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text(text.replace("fine,0", "fine,3"))
    with pytest.raises(DataError, match=r"Column 'toxic' of .*train.csv', id a1, is '3'; labels must be 0 or 1, or -1"):
        load_jigsaw(tmp_path, split="train")
    (tmp_path / "train.csv").write_text(text.replace("comment_text", "comment_txt"))
    with pytest.raises(DataError, match=r"No column 'comment_text' in .*train.csv'.* Did you mean 'comment_txt'"):
        load_jigsaw(tmp_path, split="train")
    (tmp_path / "test_labels.csv").unlink()
    with pytest.raises(DataError, match=r"No file '.*test_labels.csv'"):
        load_jigsaw(tmp_path, split="test")


def test_toxicn_reads_the_csv_with_its_mark_and_the_json_split(tmp_path):
    row = {"platform": "tieba", "topic": "race", "content": "甲乙", "toxic": 1, "toxic_type": 2, "expression": 3,
           "toxic_one_hot": [0, 1], "target": [0, 0, 0, 1, 0, 0], "length": 2}  # fmt: skip
    other = row | {"content": "丙", "toxic": 0, "toxic_type": 0, "expression": 0}
    path = write_csv(tmp_path / "ToxiCN_1.0.csv", list(row), [r.values() for r in (row, other)], "utf-8-sig")
    whole = load_toxicn(path)
    assert whole.texts == ["甲乙", "丙"] and whole.labels.tolist() == [1, 0]
    assert whole.rows[0].attributes["platform"] == "tieba"  # the mark stands before it
    assert [r.attributes["toxic_type"] for r in whole] == ["hate", "none"]
    assert [r.attributes["expression"] for r in whole] == ["reporting", "none"]
    for name, rows in (("train", [row, other]), ("test", [other, row, row])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    split = load_toxicn(tmp_path)
    assert split.counts == {"test": {0: 1, 1: 2}, "train": {0: 1, 1: 1}}
    assert len({r.id for r in split}) == 5
    assert load_toxicn(tmp_path / "test.json").counts == {"test": {0: 1, 1: 2}}
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(DataError, match=r"test.json' should hold a list of objects, found dict"):
        load_toxicn(tmp_path)
    with pytest.raises(DataError, match=r"read from .csv, .json or a folder, found 'x.tsv'"):
        load_toxicn(tmp_path / "x.tsv")


def rtp(path, toxicities):
    rows = [
        {"filename": f"f{i}", "begin": 0, "end": 9, "challenging": i == 0,
         "prompt": {"text": f"prompt {i}", "toxicity": t, "insult": 0.25},
         "continuation": {"text": f"goes on {i}", "toxicity": 1 - (t or 0)}}
        for i, t in enumerate(toxicities)
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    return path


def test_real_toxicity_prompts_are_shuffled_scored_and_null_ones_counted(tmp_path):
    path = rtp(tmp_path / "prompts.jsonl", [0.1, 0.5, None, *[0.2, 0.8] * 10])
    rows = load_real_toxicity(path, seed=None)
    assert rows.dropped == {"toxicity is null": 1} and len(rows) == 22
    assert rows.labels[:4].tolist() == [0, 1, 0, 1]  # the threshold itself is toxic
    first = rows.rows[0]
    assert (first.attributes["insult"], first.attributes["threat"], first.attributes["challenging"]) == (
        0.25,
        None,
        True,
    )
    assert first.attributes["other"] == "goes on 0" and first.id == "f0:0-9"
    mixed = load_real_toxicity(path, seed=1)
    assert sorted(mixed.texts) == sorted(rows.texts) and mixed.texts != rows.texts
    assert mixed.texts == load_real_toxicity(path, seed=1).texts != load_real_toxicity(path, seed=2).texts
    after = load_real_toxicity(path, part="continuation", threshold=0.85, seed=None)
    assert after.texts[0] == "goes on 0" and after.labels[:2].tolist() == [1, 0]


def test_real_toxicity_says_what_is_wrong(tmp_path):
    path = rtp(tmp_path / "prompts.jsonl", [0.1, 1.5])
    with pytest.raises(DataError, match=r"prompt.toxicity of row 2 of .* is 1.5; scores are numbers from 0 to 1"):
        load_real_toxicity(path)
    with pytest.raises(DataError, match=r"no part 'promt'; it has prompt and continuation"):
        load_real_toxicity(path, part="promt")
    with pytest.raises(DataError, match=r"All 2 texts of .* have label 0"):
        load_real_toxicity(rtp(path, [0.1, 0.2]))
    path.write_text('{"prompt": "flat"}')
    with pytest.raises(DataError, match=r"Row 1 of .* has no text in 'prompt'"):
        load_real_toxicity(path)
    path.write_text('{"prompt": \n')
    with pytest.raises(DataError, match=r"Line 1 of .* is not JSON"):
        load_real_toxicity(path)


def test_sets_are_filtered_and_balanced_by_seed():
    rows = tuple(
        LabelledText(f"t{i}", int(i % 4 == 0), {"odd": i % 2}, "train" if i < 30 else "test") for i in range(40)
    )
    whole = LabelledSet(rows, "made here")
    assert len(whole.where(split="test")) == 10 and whole.where(odd=1).labels.sum() == 0
    half = whole.balanced(5, seed=3)
    assert half.labels.sum() == 5 and len(half) == 10 == len(set(half.texts))
    assert half.texts == whole.balanced(5, seed=3).texts != whole.balanced(5, seed=4).texts
    assert np.all(np.diff([int(t[1:]) for t in half.texts]) > 0)  # the order they stand in
    with pytest.raises(DataError, match=r"for 11 rows of each class; the smaller one has 10; ask for 1 to 10"):
        whole.balanced(11)
    with pytest.raises(DataError, match=r"for split 'dev'; found none of 40 rows"):
        whole.where(split="dev")
    with pytest.raises(DataError, match=r"Row 0 of 'made here' has label 2"):
        LabelledSet((LabelledText("a", 2),), "made here")
