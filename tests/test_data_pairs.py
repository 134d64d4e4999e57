"""Pairs: nothing is lost on disk, nothing leaks through a split, nothing malformed gets in; and their sources."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import DataError
from microtome.data.calibration import addition_pairs, ioi_pairs
from microtome.data.linguistic import load_linguistic
from microtome.data.pairs import KINDS, Pair, PairSet
from microtome.training.atlas import atlas_tokenizer
from test_data_puzzles import other_tokenizer

ENDINGS = (".jsonl", ".parquet")


def pair(n: int = 0, *, kind: str = "cause", **other) -> Pair:
    groups = {"entity": f"e{n}", "template": f"t{n % 3}", "cell": "recall"} | other.pop("groups", {})
    values = dict(base=f"base {n}", source=f"source {n}", base_label="yes", cf_label="no") | other
    return Pair(kind=kind, groups=groups, **values)


def grid(entities: int, templates: int) -> PairSet:
    """Every entity in every template."""
    cells = [(e, t) for e in range(entities) for t in range(templates)]
    return PairSet(tuple(pair(i, groups={"entity": f"e{e}", "template": f"t{t}"}) for i, (e, t) in enumerate(cells)))


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
pairs = st.builds(
    lambda kind, texts, groups, gap: pair(
        kind=kind, groups=groups, gap=gap, base=texts[0], source=texts[1], base_label=texts[2], cf_label=texts[2] + "!"
    ),
    st.sampled_from(KINDS),
    st.tuples(text, text, text),
    st.dictionaries(st.sampled_from(["entity", "split", "source_entity"]), text, max_size=3),
    st.sampled_from(["", " ", "\n"]),
)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=40, deadline=None)
@given(made=st.lists(pairs, min_size=1, max_size=4))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, ending, made):
    path, original = tmp_path_factory.mktemp("pairs") / f"pairs{ending}", PairSet(tuple(made))
    original.save(path)
    assert PairSet.load(path) == original


def test_line_separators_inside_a_prompt_survive_a_jsonl_file(tmp_path):
    made = PairSet((pair(base="one\u2028two\x85three\x0bfour\nfive"),))
    made.save(tmp_path / "pairs.jsonl")
    assert PairSet.load(tmp_path / "pairs.jsonl") == made


def test_a_file_without_gap_means_a_space(tmp_path):
    row = {k: v for k, v in vars(pair()).items() if k != "gap"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n\n")
    assert PairSet.load(tmp_path / "pairs.jsonl").pairs == (pair(),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"Row 2 of '.*' is not JSON \(.*\); write one object a line\."),
        ("[1]", "Row 2 of '.*' is not a pair: found list; it needs base, source"),
        ('{"base": "a"}', "Row 2 of '.*' is not a pair: found base; it needs base, source"),
        (json.dumps(vars(pair()) | {"extra": 1}), "Row 2 of '.*' is not a pair: found base, base_label, .*extra"),
        (json.dumps(vars(pair()) | {"base": 5, "gap": 1}), "Row 2 of '.*' has base, gap of the wrong type"),
        (json.dumps(vars(pair()) | {"groups": ["entity", "template", "cell"]}), "has groups of the wrong type"),
        (json.dumps(vars(pair()) | {"groups": {"entity": 1}}), "has groups of the wrong type"),
        (json.dumps(vars(pair(kind="cuase"))), r"Pair 1 has kind 'cuase'; .* Did you mean 'cause'\?"),
    ],
)
def test_a_malformed_row_is_refused_by_its_number(tmp_path, line, said):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(vars(pair())) + "\n" + line + "\n")
    with pytest.raises(DataError, match=said):
        PairSet.load(path)


def test_files_that_are_absent_empty_damaged_or_of_another_kind_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    pq.write_table(pa.table({"base": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    (tmp_path / "pairs.csv").write_text("base,source\n")
    for name, said in [
        ("none.jsonl", "no such file"),
        ("empty.jsonl", "found none"),
        ("empty.parquet", "found none"),
        ("bad.parquet", "cannot be read as parquet"),
        ("pairs.csv", r"found '\.csv'"),
    ]:
        with pytest.raises(DataError, match=said):
            PairSet.load(tmp_path / name)
    with pytest.raises(DataError, match=r"kept in \.jsonl or \.parquet; found '\.txt'"):
        grid(1, 1).save(tmp_path / "pairs.txt")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ((), "Asked for a set of pairs; found none"),
        ((pair(base=""),), r"Pair 0 has an empty base"),
        ((pair(), pair(base_label="", cf_label="")), "Pair 1 has an empty base_label and cf_label"),
        ((pair(cf_label="yes"),), "Pair 0 has kind 'cause' but both labels are 'yes'"),
        ((Pair("a", "b", "c", "d", "cause", {"entity": "e"}),), "Pair 0 lacks the groups template, cell; found entity"),
    ],
)
def test_sets_that_cannot_be_used_are_refused(made, said):
    with pytest.raises(DataError, match=said):
        PairSet(made)


def test_a_control_may_have_no_counterfactual_label():
    assert len(PairSet((pair(kind="control", cf_label=""), pair(kind="isolate", cf_label="yes")))) == 2


def test_where_keeps_what_is_named_and_refuses_what_is_not():
    made = PairSet((pair(0), pair(1, kind="isolate"), pair(2, groups={"cell": "lookup"})))
    assert made.where(kind="cause", cell="recall").pairs == made.pairs[:1]
    assert made.where(template="t1").pairs == made.pairs[1:2]
    with pytest.raises(DataError, match="found none"):
        made.where(cell="nowhere")
    with pytest.raises(DataError, match=r"No group 'entty'; pairs have entity, template, cell\. Did you mean"):
        made.where(entty="e0")


@settings(max_examples=60, deadline=None)
@given(entities=st.integers(2, 7), templates=st.integers(2, 5), seed=st.integers(0, 99), share=st.floats(0.3, 0.7))
def test_no_group_is_on_both_sides_of_a_split(entities, templates, seed, share):
    made = grid(entities, templates)
    for by in ("entity", "template", ("entity", "template")):
        first, second, left_out = made.split(by=by, seed=seed, share=share)
        assert len(first) + len(second) + left_out == len(made)
        assert (left_out == 0) == isinstance(by, str)
        for name in (by,) if isinstance(by, str) else by:
            assert {p.groups[name] for p in first}.isdisjoint(p.groups[name] for p in second)


def test_a_split_is_seeded_and_one_that_leaves_a_side_empty_is_refused():
    made = grid(10, 2)
    assert made.split(seed=1) == made.split(seed=1) != made.split(seed=2)
    assert len({p.groups["entity"] for p in made.split(share=0.3).first}) == 3
    with pytest.raises(DataError, match=r"split 10 groups of 'entity' with share 0\.01; one side would be empty"):
        made.split(share=0.01)
    with pytest.raises(DataError, match="No group 'enity'"):
        made.split(by="enity")


def test_unequal_token_lengths_are_refused_with_the_pair_and_both_lengths():
    made = PairSet((pair(), pair(base="one two", source="one two three")))

    def words(text: str) -> list[int]:
        return [len(word) for word in text.split()]

    said = r"Pair 1 \('one two' / 'one two three'\) needs .*; found 2 and 3; choose"
    with pytest.raises(DataError, match=said) as raised:
        made.require_equal_length(words)
    assert "\n" not in str(raised.value)
    assert made.require_equal_length(lambda text: [0]) is made


# Calibration tasks

TOKENIZERS = {"atlas": atlas_tokenizer(), "other": other_tokenizer()}
both = pytest.mark.parametrize("name", TOKENIZERS)


def encoder(name: str):
    return lambda text: TOKENIZERS[name](text)["input_ids"]


def check_fit(made: PairSet, encode) -> None:
    made.require_equal_length(encode)
    assert len({(p.base, p.source) for p in made}) == len(made)
    for p in made:
        answers = []
        for prompt, label in ((p.base, p.base_label), (p.source, p.cf_label)):
            before, whole = encode(prompt), encode(prompt + p.gap + label)
            assert whole[: len(before)] == before
            answers.append(whole[len(before) :])
        assert len(answers[0]) == len(answers[1]) and answers[0][0] != answers[1][0]


@both
def test_ioi_asks_for_the_name_that_is_said_once(name):
    made = ioi_pairs(encoder(name), 60)
    check_fit(made, encoder(name))
    for p in made:
        names = p.groups["entity"].split("-")
        counts = {n: p.base.split().count(n) for n in names}
        assert counts[p.base_label] == 1 and counts[p.cf_label] == 2  # the giver is named twice
        changed = [(a, b) for a, b in zip(p.base.split(), p.source.split(), strict=True) if a != b]
        assert changed == [(p.cf_label, p.base_label)]  # one word: the giver
        first = next(w for w in p.base.split() if w in names)
        assert p.groups["template"].endswith("-bab" if first == p.cf_label else "-abb")
    assert {p.groups["cell"] for p in made} == {"ioi"} and len({p.groups["template"] for p in made}) == 8


@both
def test_addition_adds_and_changes_one_operand(name):
    made = addition_pairs(encoder(name), 60)
    check_fit(made, encoder(name))
    for p in made:
        clean, corrupt = (tuple(map(int, t.split("=")[0].split()[-1].split("+"))) for t in (p.base, p.source))
        assert (sum(clean), sum(corrupt)) == (int(p.base_label), int(p.cf_label))
        assert all(10 <= n <= 99 for n in (*clean, *corrupt))
        assert sum(a != b for a, b in zip(clean, corrupt, strict=True)) == 1
        carries = sum(n % 10 for n in clean) > 9
        assert p.groups["cell"] == ("addition_carry" if carries else "addition_no_carry") and p.gap == ""
    assert len({p.groups["cell"] for p in made}) == 2


@pytest.mark.parametrize("make", [ioi_pairs, addition_pairs])
def test_calibration_is_seeded_and_says_when_a_tokenizer_does_not_fit(make):
    assert make(encoder("atlas"), 9) == make(encoder("atlas"), 9) != make(encoder("atlas"), 9, seed=1)
    assert make(encoder("atlas"), 9).pairs[:5] == make(encoder("atlas"), 5).pairs

    def letters_alike(text: str) -> list[int]:
        return [1] * len(text)

    with pytest.raises(DataError, match=r"Asked for 3 .* pairs, found 0 .*refused: .*alike in their first token"):
        make(letters_alike, 3)
    with pytest.raises(DataError, match="Asked for 0 "):
        make(encoder("atlas"), 0)


def test_calibration_says_how_many_can_be_had_when_too_many_are_asked():
    def two_names(text: str) -> list[int]:
        # Every other word is as many alike tokens as it has letters, so only Anna and Paul can be exchanged.
        return [i for w in text.split(" ") for i in ([ord(w[0])] if w in ("Anna", "Paul") else [0] * len(w))]

    with pytest.raises(DataError, match=r"found \d+ that fit this tokenizer \(refused: .*\); ask for") as raised:
        ioi_pairs(two_names, 100_000)
    fit = int(str(raised.value).rstrip(".").rpartition(" ")[2])
    made = ioi_pairs(two_names, fit)
    assert 0 < len(made) == fit and {p.groups["entity"] for p in made} == {"Anna-Paul"}


# Linguistic-olympiad puzzles

PROBLEM = dict(
    name="Zor",
    data=["Zor: mak dun\nEnglish: my dog", "Zor: mak vi\nEnglish: my bird"],
    questions=["Zor: ket dun\nEnglish:", "English: your bird", " "],
    answers=["English: your dog", "ket vi", ""],
    type="POSS",
)


def write(tmp_path, content) -> str:
    path = tmp_path / "puzzles.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_puzzle_file_is_read_with_tags_apart_and_blanks_counted(tmp_path):
    found = load_linguistic(write(tmp_path, {"problems": [PROBLEM, PROBLEM | {"type": ["ORDER", "SEM"]}]}))
    assert found.blank == 2 and [p.types for p in found.puzzles] == [("POSS",), ("ORDER", "SEM")]
    puzzle = found.puzzles[0]
    assert puzzle.name == "Zor" and puzzle.examples == tuple(PROBLEM["data"])
    assert [(q.answer, q.tag) for q in puzzle.questions] == [("your dog", "English"), ("ket vi", "")]
    assert load_linguistic(write(tmp_path, [PROBLEM])).puzzles == (puzzle,)


def test_a_prompt_shows_every_example_and_ends_right_before_the_answer(tmp_path):
    (puzzle,) = load_linguistic(write(tmp_path, [PROBLEM])).puzzles
    first, second = (puzzle.prompt(q) for q in puzzle.questions)
    assert all(example in first for example in puzzle.examples)
    assert first.endswith("\nZor: ket dun\nEnglish:") and second.endswith("\nEnglish: your bird\nAnswer:")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ({"problem": []}, "holds no list of problems .found an object with problem.; it needs"),
        ([], "found an empty list"),
        ([PROBLEM, 5], "Problem 2 of '.*' is a int; it must be an object"),
        ([PROBLEM | {"name": " "}], "Problem 1 of '.*' has no name"),
        ([PROBLEM | {"data": "Zor: mak"}], r"Problem 1 of '.*' \('Zor'\) needs 'data' as a list of texts.*found a str"),
        ([PROBLEM | {"answers": [1, 2, 3]}], "needs 'answers' as a list of texts, at least one; found a list of int"),
        ([PROBLEM | {"answers": ["a"]}], "has 3 questions and 1 answers; give each its answer"),
        ([PROBLEM | {"data": ["a", ""]}], "has a blank example in data"),
        ([PROBLEM | {"answers": ["", "ket vi", ""]}], "question 1: the answer is blank and the other is not"),
        ([PROBLEM | {"answers": ["English:", "ket vi", ""]}], "question 1: the answer is blank"),
        ([PROBLEM | {"answers": ["a", "b", "c"]}], "question 3: the question is blank"),
        ([PROBLEM | {"questions": [""], "answers": [""]}], "has only blank questions"),
        ([PROBLEM | {"type": 3}], "needs 'type' as a text or a list of texts, or not at all; found a int"),
    ],
)
def test_malformed_puzzles_are_refused_by_name_and_number(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        load_linguistic(write(tmp_path, content))


def test_a_puzzle_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file; give a JSON file in modeLing's layout"):
        load_linguistic(tmp_path / "none.json")
