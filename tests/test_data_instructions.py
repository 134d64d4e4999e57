"""Instruction data: every published layout, what is left out and why, splits, and exercises made of a corpus."""

import gzip
import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import DataError
from microtome.data.instructions import (
    FUXITRANYU,
    TASKS,
    Conversation,
    PreferencePair,
    generated,
    preferences,
    read_conversations,
    read_preferences,
    select,
    short_tag,
    split,
)
from microtome.data.instructions.phrases import GAP, PHRASES

ASKED = (("user", "What is red?"), ("assistant", "A colour."))
LAYOUTS = {
    "sharegpt": (
        {"conversations": [{"from": "human", "value": " What is red? "}, {"from": "gpt", "value": "A colour.\n"}]},
        ASKED,
    ),
    "openhermes, with a system prompt": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is red?"},
                {"from": "gpt", "value": "A colour."},
            ],
            "source": "airoboros",
            "system_prompt": None,
        },
        (("system", "Be brief."), *ASKED),
    ),
    "a column of the system's": (
        {"system_prompt": "Be brief.", "messages": [{"role": r, "content": c} for r, c in ASKED]},
        (("system", "Be brief."), *ASKED),
    ),
    "chatml": ({"messages": [{"role": r, "content": c} for r, c in ASKED * 2]}, ASKED * 2),
    "aya": ({"inputs": "What is red?", "targets": "A colour.", "language": "English", "language_code": "eng"}, ASKED),
    "alpaca": ({"instruction": "What is red?", "input": "", "output": "A colour."}, ASKED),
    "alpaca with input": (
        {"instruction": "Translate.", "input": "rot", "output": "red"},
        (("user", "Translate.\n\nrot"), ("assistant", "red")),
    ),
    "magicoder": ({"instruction": "What is red?", "response": "A colour."}, ASKED),
    "dart-math": ({"query": "What is red?", "response": "A colour."}, ASKED),
    "prompt and completion": ({"prompt": "What is red?", "completion": "A colour."}, ASKED),
}
WORSE = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A fruit."}]
BETTER = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A colour."}]
PAIRS = {
    "ultrafeedback": {"prompt": "What is red?", "chosen": BETTER, "rejected": WORSE, "score_chosen": 8.0},
    "answers alone": {"prompt": "What is red?", "chosen": BETTER[1:], "rejected": WORSE[1:]},
    "messages in all": {"prompt": BETTER[:1], "chosen": BETTER[1:], "rejected": WORSE[1:]},
    "no prompt": {"chosen": BETTER, "rejected": WORSE},
    "plain": {"prompt": "What is red?", "chosen": "A colour.", "rejected": "A fruit."},
}


def lines(path: Path, rows) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    return path


def talk(text="Hi there", language="en", answer="Yes.", id=""):
    return Conversation((("user", text), ("assistant", answer)), language, "made", id)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_the_same_conversation(tmp_path, name):
    row, want = LAYOUTS[name]
    (found,) = read_conversations(lines(tmp_path / "set.jsonl", [row]), language="en")
    assert found.messages == want
    assert (found.language, found.source, found.id) == ("en", "set.jsonl", f"{tmp_path / 'set.jsonl'}:1")


@pytest.mark.parametrize("name", PAIRS)
def test_every_layout_is_the_same_pair(tmp_path, name):
    (found,) = read_preferences(lines(tmp_path / "set.jsonl", [PAIRS[name]]), language="English")
    assert found.prompt == (("user", "What is red?"),)
    assert (found.chosen, found.rejected, found.language) == ("A colour.", "A fruit.", "en")


def test_all_files_hold_the_same(tmp_path):
    rows = [{"inputs": f"Question {i}", "targets": f"Answer {i}", "language_code": "deu"} for i in range(5)]
    lines(tmp_path / "a.jsonl", rows)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    (tmp_path / "c.json").write_text("\ufeff" + json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    read = [list(read_conversations(tmp_path / n)) for n in ("a.jsonl", "b.jsonl.gz", "c.json", "d.parquet")]
    assert [[c.messages for c in part] for part in read] == [[c.messages for c in read[0]]] * 4
    assert {c.language for part in read for c in part} == {"de"}
    assert [c for c in read_conversations(tmp_path)] == [c for part in read for c in part]
    assert read[3][4].id == f"{tmp_path / 'd.parquet'}:5"


def test_nested_columns_of_parquet_are_messages_too(tmp_path):
    table = pa.Table.from_pylist([{"messages": [{"role": r, "content": c} for r, c in ASKED], "system": "Be brief."}])
    pq.write_table(table, tmp_path / "set.parquet")
    (found,) = read_conversations(tmp_path / "set.parquet")
    assert found.messages == (("system", "Be brief."), *ASKED)


def test_the_language_is_what_was_passed_then_the_rows_then_the_files(tmp_path):
    plain, told = {"inputs": "a", "targets": "b"}, {"inputs": "a", "targets": "b", "language": "Standard Arabic"}
    file, other = lines(tmp_path / "de.jsonl", [plain, told]), lines(tmp_path / "set.jsonl", [plain])
    assert [c.language for c in read_conversations(file)] == ["de", "ar"]
    assert [c.language for c in read_conversations(other)] == ["und"]
    assert [c.language for c in read_conversations(file, language="zho")] == ["zh", "zh"]


def test_tags_are_short():
    said = ["eng", "zh-Hans", "Simplified Chinese", "pt_BR", "arb", "zsm", "swh", " EN ", "Iranian Persian", "ary"]
    assert [short_tag(s) for s in said] == ["en", "zh", "zh", "pt", "ar", "ms", "swh", "en", "fa", "ary"]
    assert len(FUXITRANYU) == 43 and len(set(FUXITRANYU)) == 43


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.jsonl", '{"inputs": "a", "targets": "b"}\n{"inputs": \n', r"a.jsonl:2 was read as JSON"),
        ("a.jsonl", "[1, 2]\n", r"a.jsonl:1 should be a JSON object, found a list"),
        ("a.jsonl", '{"text": "a"}\n', r"a.jsonl:1 was read as a conversation, found the columns text; give"),
        ("a.jsonl", '{"inputs": 3, "targets": "b"}\n', r"a.jsonl:1 has a int for 'inputs'"),
        ("a.jsonl", '{"inputs": "\\ud800", "targets": "b"}\n', r"a.jsonl:1 has lone surrogates in 'inputs'"),
        ("a.jsonl", '{"messages": [{"role": "tool", "content": "x"}]}\n', r"Message 1 of .*a.jsonl:1 is of 'tool'"),
        ("a.jsonl", '{"messages": ["hi"]}\n', r"Message 1 of .*a.jsonl:1 is a str"),
        ("a.jsonl", '{"messages": []}\n', r"a.jsonl:1' has no messages"),
        ("a.jsonl", "\n", r"found no row in it"),
        ("a.json", '{"a": 1}', r"a.json' should hold a list of rows, found a dict"),
        ("a.parquet", "no", r"a.parquet' was read as Parquet, found"),
        ("a.csv", "no", r"ends in '.csv'; instruction data are read from .jsonl"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_where(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        list(read_conversations(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"prompt": "a", "chosen": "b"}, "a.jsonl:1 was read as a pair of answers, found no 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "a.jsonl:1 holds two answers and no prompt"),
        ({"prompt": "a", "chosen": BETTER, "rejected": [*BETTER, *WORSE]}, "two answers to one prompt, found 2 and 4"),
        ({"prompt": "a", "chosen": BETTER[:1], "rejected": WORSE[:1]}, "do not end with the assistant"),
    ],
)
def test_pairs_that_are_none_are_one_line(tmp_path, row, match):
    with pytest.raises(DataError, match=match):
        list(read_preferences(lines(tmp_path / "a.jsonl", [row])))


def test_nothing_there_names_what_is_near(tmp_path):
    lines(tmp_path / "hermes.jsonl", [{"inputs": "a", "targets": "b"}])
    with pytest.raises(DataError, match=r"Did you mean 'hermes.jsonl'"):
        read_conversations(tmp_path / "hermse.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No instruction data in"):
        read_conversations(tmp_path / "empty")
    with pytest.raises(DataError, match="The language ' ' was given"):
        read_conversations(tmp_path, language=" ")


def test_sets_of_the_hub_stream_and_say_when_they_cannot_be_had(tmp_path):
    pytest.importorskip("datasets")
    lines(tmp_path / "train.jsonl", [PAIRS["ultrafeedback"]] * 3)
    found = list(read_preferences(f"hf:{tmp_path}", language="en"))
    assert [p.chosen for p in found] == ["A colour."] * 3
    assert found[2].id == f"hf:{tmp_path}:train:3"
    with pytest.raises(DataError, match=r"'hf:nobody/nothing' could not be had, found .*check its name") as caught:
        list(read_preferences("hf:nobody/nothing"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="'hf:' names no data set"):
        read_conversations("hf:")


def test_what_cannot_be_trained_on_is_left_out_and_counted():
    user, said = ("user", "Hi"), ("assistant", "Yes.")
    rows = [
        talk(),
        Conversation((("system", "Be brief."), user, said, user, said), "de"),
        talk(language="sw"),
        talk(language="ig"),
        talk(answer="  "),
        Conversation((said, user), "en"),
        Conversation((user, user, said), "en"),
        Conversation((user,), "de"),
    ]
    chosen = select(rows, languages=["English", "deu"])
    assert chosen.kept == tuple(rows[:2])
    assert dict(chosen.dropped) == {
        ("sw", "language not chosen"): 1,
        ("ig", "language not chosen"): 1,
        ("en", "empty message"): 1,
        ("en", "roles out of turn"): 2,
        ("de", "no answer"): 1,
    }
    assert sum(row["count"] for row in chosen.rows) == len(rows)
    assert len(select(rows[:4]).kept) == 4
    with pytest.raises(DataError, match=r"found none \(2 language not chosen\)"):
        select(rows[2:4], languages=["en"])


def test_pairs_that_prefer_nothing_are_left_out():
    prompt = (("user", "Hi"),)
    rows = [PreferencePair(prompt, "a", b, "en") for b in ("b", "a", " ")]
    chosen = select(rows)
    assert chosen.kept == (rows[0],)
    assert dict(chosen.dropped) == {("en", "answers alike"): 1, ("en", "empty message"): 1}


@given(st.lists(st.tuples(st.sampled_from(["en", "de"]), st.integers(0, 30)), min_size=2), st.integers(0, 5))
def test_splits_share_no_prompt_and_do_not_depend_on_the_order(made, seed):
    rows = [talk(f"Question {n}", language, f"Answer {i}") for i, (language, n) in enumerate(made)]
    rows += [talk(f"More {n}", language) for language in ("en", "de") for n in range(2)]
    parts = split(rows, held_out=0.25, seed=seed)
    asked = [{(c.language, c.asked) for c in part} for part in (parts.train, parts.held_out)]
    assert not asked[0] & asked[1] and len(parts.train) + len(parts.held_out) == len(rows)
    for language in ("en", "de"):
        own = {c.asked for c in rows if c.language == language}
        held = {a for tag, a in asked[1] if tag == language}
        assert len(held) == max(1, round(0.25 * len(own)))
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert {id(c) for c in split(shuffled, held_out=0.25, seed=seed).held_out} == {id(c) for c in parts.held_out}


def test_another_seed_is_another_split_and_most_is_a_limit():
    rows = [talk(f"Question {i}", "ende"[2 * (i % 2) :][:2]) for i in range(200)]
    one, other = (split(rows, held_out=0.2, seed=s) for s in (0, 1))
    assert set(one.held_out) != set(other.held_out)
    assert len(split(rows, held_out=0.2, most=3).held_out) == 6
    with pytest.raises(DataError, match="found 1 prompt in 'fr'"):
        split([*rows, talk(language="fr")])
    with pytest.raises(DataError, match="A held-out share of 1"):
        split(rows, held_out=1)


@pytest.fixture(scope="module")
def identifier():
    """An identifier of the twelve languages."""
    langid = pytest.importorskip("py3langid.langid")
    made = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    made.set_languages(list(PHRASES))
    return made


@pytest.mark.parametrize("language", PHRASES)
def test_instructions_are_in_their_language_and_have_two_wordings_a_task(identifier, language):
    phrases = PHRASES[language]
    assert list(phrases.names) == list(phrases.within) == list(PHRASES)
    assert len(set(phrases.names.values())) == len(set(phrases.within.values())) == 12
    for task in ("continuing", "cloze", "identify", "write"):
        wordings = getattr(phrases, task)
        assert len(set(wordings)) >= 2
        assert all((GAP in w) == (task == "cloze") for w in wordings)
        asked = {"within": phrases.within[language], "word": "X"} if task == "write" else {}
        assert identifier.classify(" ".join(w.format(**asked) for w in wordings))[0] == language
    assert all(name in phrases.within[tag] or language == "ru" for tag, name in phrases.names.items())


# -- made of a corpus

LETTERS = {"en": "abcdef", "de": "ghijkl", "hi": "कखगघचछ", "zh": "甲乙丙丁戊己"}


def corpus(size=120, seed=0):
    """Texts of four languages that share no letter, so that a text's letters say its language."""
    rng = random.Random(seed)
    made = {}
    for language, letters in LETTERS.items():
        words = ["".join(rng.choices(letters, k=5)) for _ in range(400)]
        joint = "" if language == "zh" else " "
        made[language] = [joint.join(rng.choices(words, k=12)) for _ in range(size)]
    return made


TEXTS = corpus()
MADE = generated(TEXTS, 480, 0)
JOINTS = {"en": " ", "de": " ", "hi": " ", "zh": ""}


def language_of(text):
    (found,) = {tag for tag, letters in LETTERS.items() if set(letters) & set(text)}
    return found


def parts(conversation):
    """Instruction and text of a prompt."""
    instruction, _, text = conversation.messages[0][1].partition("\n\n")
    return instruction, text


def test_a_continuation_is_the_rest_of_a_text_of_the_corpus():
    own = [c for c in MADE if c.source == "generated/continue"]
    for c in own:
        instruction, begun = parts(c)
        assert instruction in PHRASES[c.language].continuing
        assert any(t.startswith(begun + JOINTS[c.language] + c.answer) for t in TEXTS[c.language])
    assert len(own) == 120


def test_a_cloze_filled_with_its_answer_is_a_text_of_the_corpus():
    for c in [c for c in MADE if c.source == "generated/cloze"]:
        instruction, gapped = parts(c)
        assert instruction in PHRASES[c.language].cloze and gapped.count(GAP) == 1
        assert any(t.startswith(gapped.replace(GAP, c.answer)) for t in TEXTS[c.language])
        assert len(c.answer) == (2 if c.language == "zh" else 5)


def test_a_language_is_named_as_the_asking_language_calls_it():
    asking = set()
    for c in [c for c in MADE if c.source == "generated/identify"]:
        instruction, text = parts(c)
        assert instruction in PHRASES[c.language].identify
        assert c.answer == PHRASES[c.language].names[language_of(text)]
        asking.add((c.language, language_of(text)))
    assert len(asking) == 12 and all(a != b for a, b in asking)  # asked in every other language


def test_what_was_to_be_written_is_in_the_language_asked_for_and_has_the_word():
    for c in [c for c in MADE if c.source == "generated/write"]:
        asking = next(
            tag for tag in LETTERS for w in PHRASES[tag].write
            if re.fullmatch(re.escape(w).replace(r"\{within\}", ".+").replace(r"\{word\}", "(.+)"), c.messages[0][1])
        )  # fmt: skip
        assert asking != c.language and PHRASES[asking].within[c.language] in c.messages[0][1]
        assert language_of(c.answer) == c.language
        assert any(c.answer[i : i + 2] in c.messages[0][1] for i in range(len(c.answer) - 1))


def test_languages_and_tasks_have_equal_shares_and_a_seed_is_kept():
    count = {(language, task): 0 for language in TEXTS for task in TASKS}
    for i in range(480):
        count[list(TEXTS)[i % 4], MADE[i].source.partition("/")[2]] += 1
    assert set(count.values()) == {30}
    assert generated(TEXTS, 480, 0) == MADE and generated(TEXTS, 480, 1) != MADE
    assert generated(TEXTS, 40, 0) == MADE[:40]


def test_parts_share_no_text_whatever_the_seeds():
    everything = corpus(60)
    train = generated(everything, 400, 0, held_out=0.3) + generated(everything, 400, 1, held_out=0.3)
    held = generated(everything, 400, 2, part="held_out", held_out=0.3)

    def sources(made):
        told = [c.messages[0][1].partition("\n\n")[2].replace(GAP, c.answer) or c.answer for c in made]
        return {t for texts in everything.values() for t in texts if any(len(own) > 9 and own in t for own in told)}

    assert sources(held) and sources(train) and not sources(held) & sources(train)


def test_preferences_have_the_prompts_of_the_conversations_and_wrong_answers_of_two_kinds():
    pairs = preferences(TEXTS, 480, 0)
    assert [(p.prompt, p.chosen, p.language) for p in pairs] == [(c.prompt, c.answer, c.language) for c in MADE]
    kinds = {task: {"language": 0, "task": 0} for task in TASKS}
    for pair in pairs:
        _, task, wrong = pair.source.split("/")
        kinds[task][wrong] += 1
        assert pair.rejected != pair.chosen
        if wrong == "language":
            assert language_of(pair.rejected) != pair.language
        elif task == "write":
            assert language_of(pair.rejected) == pair.language and pair.rejected in "\n".join(TEXTS[pair.language])
        else:
            assert pair.rejected in pair.prompt[0][1]
    assert set(n for by in kinds.values() for n in by.values()) == {60}
    assert select(pairs).dropped == {}


def test_languages_without_phrases_are_asked_for_in_english():
    made = generated({"xx": TEXTS["de"], "fa": TEXTS["hi"], "de": TEXTS["de"]}, 48, 0)
    asked = [c.messages[0][1] for c in made if c.source == "generated/write" and c.language == "xx"]
    assert asked and all(" in xx" in text for text in asked)
    assert all(" in Persian" in c.messages[0][1] for c in made if c.source.endswith("write") and c.language == "fa")
    names = {c.answer for c in made if c.source == "generated/identify"}
    assert {"xx", "Persian"} < names


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: generated({}, 1, 0), "1 instructions of 0 languages"),
        (lambda: generated(TEXTS, 0, 0), "0 instructions of 4 languages"),
        (lambda: generated(TEXTS, 1, 0, held_out=1.0), "a share of 1.0"),
        (lambda: generated(TEXTS, 1, 0, part="test"), "No part 'test' of instructions; it is train or held_out"),
        (lambda: generated({"en": ["too short"]}, 1, 0), "found no text of 6 words or more in the 1 of 'en'"),
        (lambda: preferences({"en": TEXTS["en"]}, 1, 0), "found 1; give two or more"),
    ],
)
def test_what_cannot_be_made_is_one_line(call, match):
    with pytest.raises(DataError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "language", "match"),
    [((), "en", "has no messages"), ((("user", "a"),), " ", "has the language ' '"), ((("usr", "a"),), "en", "'user'"),
     ((("user", 3),), "en", "has a int for what the user says")],
)  # fmt: skip
def test_a_conversation_is_checked(messages, language, match):
    with pytest.raises(DataError, match=match):
        Conversation(messages, language)
