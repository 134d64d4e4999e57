r"""Linguistic-olympiad puzzles from a file of the user's, in the layout of modeLing (arXiv 2406.17038).

The layout, as the code around arXiv 2510.03366 reads it:

    {"problems": [{"name": ..., "data": [examples], "questions": [...], "answers": [...], "type": optional}]}

An example holds one sentence in two languages, a line each, each line after its language's tag; an answer may begin
with the tag of its language:

    "Zor: mak dun\nEnglish: my dog"        question "Zor: mak vi"        answer "English: my bird"

No puzzle is shipped: the data set's licence is unchecked and its authors keep it out of training data on purpose. The
first token of a tagged answer is the tag, which the public code scored; `LinguisticQuestion.answer` is therefore kept
without it and the tag goes to the end of the prompt.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.core.errors import DataError

__all__ = ["LinguisticPuzzle", "LinguisticQuestion", "LinguisticSet", "load_linguistic"]

_TAG = re.compile(r"^\s*([^:\n]{1,40}):(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class LinguisticQuestion:
    """One thing to translate.

    Attributes:
        text: the question as the file has it.
        answer: the answer without its language tag.
        tag: the tag the file's answer began with, or an empty string.
    """

    text: str
    answer: str
    tag: str


@dataclass(frozen=True)
class LinguisticPuzzle:
    """One puzzle: examples to infer a language's rules from, and questions.

    Attributes:
        name: as the file has it.
        types: kinds of rule it is about (modeLing has order, noun-adjective, possession, semantics); may be empty.
        examples: translated sentences.
        questions: what is asked.
    """

    name: str
    types: tuple[str, ...]
    examples: tuple[str, ...]
    questions: tuple[LinguisticQuestion, ...]

    def prompt(self, question: LinguisticQuestion) -> str:
        """Return examples and question as one text that ends right before the answer (which begins with a space)."""
        shown = "\n".join(example.strip() for example in self.examples)
        asked = question.text.strip()
        tag = f"{question.tag}:" if question.tag else "Answer:"
        ending = "" if asked.endswith(tag) else f"\n{tag}"
        return f"Sentences and their translations:\n{shown}\n\nTranslate in the same way:\n{asked}{ending}"


@dataclass(frozen=True)
class LinguisticSet:
    """The puzzles of a file.

    Attributes:
        puzzles: at least one.
        blank: entries left out because question and answer are both blank.
    """

    puzzles: tuple[LinguisticPuzzle, ...]
    blank: int


def load_linguistic(path: Path | str) -> LinguisticSet:
    """Read a file of puzzles.

    Args:
        path: a JSON file in the layout above; a bare list of problems is taken too.

    Raises:
        DataError: no such file, not JSON, no problems, or a problem that does not have the layout (says which and why).
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"No puzzles at '{source}': no such file; give a JSON file in modeLing's layout.")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{source}' is not JSON ({error}); give a JSON file in modeLing's layout.") from error
    problems = content.get("problems") if isinstance(content, dict) else content
    if not isinstance(problems, list) or not problems:
        raise DataError(
            f"'{source}' holds no list of problems (found {_found(content)}); it needs "
            '{"problems": [{"name", "data", "questions", "answers"}, ...]}.'
        )
    puzzles, blanks = zip(*(_puzzle(source, i, problem) for i, problem in enumerate(problems, start=1)), strict=True)
    return LinguisticSet(puzzles, sum(blanks))


def _puzzle(path: Path, number: int, problem: object) -> tuple[LinguisticPuzzle, int]:
    """Return one problem as a puzzle, and how many blank questions it had."""
    where = f"Problem {number} of '{path}'"
    if not isinstance(problem, dict):
        raise DataError(f"{where} is {_found(problem)}; it must be an object with name, data, questions and answers.")
    name = problem.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where} has no name (found {_found(name)}); give it one, a text.")
    where = f"{where} ('{name}')"
    examples, questions, answers = (_texts(where, problem, key) for key in ("data", "questions", "answers"))
    if not all(example.strip() for example in examples):
        raise DataError(f"{where} has a blank example in data; fill it or take it out.")
    if len(questions) != len(answers):
        raise DataError(f"{where} has {len(questions)} questions and {len(answers)} answers; give each its answer.")
    tags = {tag.strip() for example in examples for tag in _TAG.findall(example)}
    asked = [_question(where, i, q, a, tags) for i, (q, a) in enumerate(zip(questions, answers, strict=True), start=1)]
    kept = tuple(question for question in asked if question is not None)
    if not kept:
        raise DataError(f"{where} has only blank questions; fill one or take the problem out.")
    return LinguisticPuzzle(name, _types(where, problem.get("type")), tuple(examples), kept), len(asked) - len(kept)


def _question(where: str, number: int, text: str, answer: str, tags: set[str]) -> LinguisticQuestion | None:
    if not text.strip() and not answer.strip():
        return None
    found = _TAG.match(answer)
    tag = found.group(1).strip() if found and found.group(1).strip() in tags else ""
    bare = answer[found.end() :].strip() if found and tag else answer.strip()
    if not text.strip() or not bare:
        missing = "answer" if text.strip() else "question"
        raise DataError(f"{where}, question {number}: the {missing} is blank and the other is not; fill it.")
    return LinguisticQuestion(text, bare, tag)


def _texts(where: str, problem: Mapping[str, object], key: str) -> list[str]:
    value = problem.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise DataError(f"{where} needs '{key}' as a list of texts, at least one; found {_found(value)}.")
    return value


def _types(where: str, value: object) -> tuple[str, ...]:
    types = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(types, Sequence) or not all(isinstance(entry, str) for entry in types):
        raise DataError(f"{where} needs 'type' as a text or a list of texts, or not at all; found {_found(value)}.")
    return tuple(types)


def _found(value: object) -> str:
    if isinstance(value, list):
        inside = sorted({type(entry).__name__ for entry in value})
        return f"a list of {', '.join(inside)}" if inside else "an empty list"
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value))) or 'no fields'}"
    return "nothing" if value is None else f"a {type(value).__name__}"
