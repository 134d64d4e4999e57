"""The layouts in which instruction data are published, told by what a row holds and not by the name of the set.

    {"conversations": [{"from": "human" | "gpt" | "system", "value"}]}   OpenHermes 2.5 and others after ShareGPT
    {"messages": [{"role", "content"}]}                                  ChatML
    {"inputs", "targets", "language", "language_code"}                   the Aya data set
    {"instruction", "input"?, "output" | "response"}, {"query", "response"}, {"prompt", "completion"}   after Alpaca
    {"prompt", "chosen": [messages], "rejected": [messages]}             UltraFeedback, binarised: a pair
    {"prompt", "chosen": text, "rejected": text}                         a pair

Contents lose white space at their ends: where an answer begins with a line break, tokenizers join it to the one that
the template has there, and the model would be trained on a beginning that it never sees. A column `system_prompt` or
`system` is a message of its own.
"""

from collections.abc import Mapping, Sequence

from microtome.core.errors import DataError
from microtome.data.corpus.documents import UNDETERMINED
from microtome.data.instructions.schema import Conversation, Message, PreferencePair
from microtome.data.instructions.tags import short_tag

__all__ = ["as_conversation", "as_pair"]

_SPEAKERS = {
    "human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip
_SINGLE = (
    ("inputs", "targets"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("prompt", "completion"),
)
_TAGS = ("language_code", "language", "lang")


def as_conversation(
    row: Mapping[str, object], *, source: str, id: str, language: str | None = None, otherwise: str = UNDETERMINED
) -> Conversation:
    """Return a row as a conversation.

    Args:
        row: column -> value.
        source: where the row comes from.
        id: where the row is, as messages name it (`data.jsonl:12`).
        language: whatever the row says of its language; None takes what it says.
        otherwise: the language where nothing says one.

    Raises:
        DataError: none of the layouts, a speaker that is unknown, or a value that is no text.
    """
    turns = next((row[name] for name in ("messages", "conversations") if _is_list(row.get(name))), None)
    if turns is not None:
        messages = _messages(turns, id)
    else:
        messages = _single(row, id)
    system = next((row[n] for n in ("system_prompt", "system") if isinstance(row.get(n), str)), "").strip()
    if system and messages and messages[0][0] != "system":
        messages = (("system", system), *messages)
    return Conversation(messages, _language(row, language, otherwise), source, id)


def as_pair(
    row: Mapping[str, object], *, source: str, id: str, language: str | None = None, otherwise: str = UNDETERMINED
) -> PreferencePair:
    """Return a row as two answers of which one is preferred.

    Args:
        row: column -> value.
        source: where the row comes from.
        id: where the row is.
        language: whatever the row says of its language.
        otherwise: the language where nothing says one.

    Raises:
        DataError: none of the layouts, or answers that are not to one prompt.
    """
    for name in ("chosen", "rejected"):
        if name not in row:
            raise DataError(
                f"{id} was read as a pair of answers, found no '{name}' (it has {', '.join(row) or 'nothing'}); give "
                "prompt, chosen and rejected."
            )
    prompt = row.get("prompt")
    given = _messages(prompt, id) if _is_list(prompt) else (("user", _text(prompt, "prompt", id)),) if prompt else ()
    if not _is_list(row["chosen"]):
        chosen, rejected = (_text(row[name], name, id) for name in ("chosen", "rejected"))
    else:
        chosen_turns, rejected_turns = (_messages(row[name], id) for name in ("chosen", "rejected"))
        given, chosen, rejected = _after_one_prompt(given, chosen_turns, rejected_turns, id)
    if not given:
        raise DataError(f"{id} holds two answers and no prompt; add a column 'prompt'.")
    return PreferencePair(given, chosen, rejected, _language(row, language, otherwise), source, id)


def _after_one_prompt(
    given: tuple[Message, ...], chosen: tuple[Message, ...], rejected: tuple[Message, ...], id: str
) -> tuple[tuple[Message, ...], str, str]:
    """Return what both begin with, and the one answer with which each ends."""
    shared = chosen[:-1]
    if shared != rejected[:-1] or not chosen or {turns[-1][0] for turns in (chosen, rejected)} != {"assistant"}:
        raise DataError(
            f"{id} should hold two answers to one prompt, found {len(chosen)} and {len(rejected)} messages that differ "
            "before the last or do not end with the assistant; mend the row."
        )
    return shared or given, chosen[-1][1], rejected[-1][1]


def _messages(turns: object, id: str) -> tuple[Message, ...]:
    """Return messages of either spelling."""
    found = []
    for number, turn in enumerate(turns if _is_list(turns) else (), start=1):
        if not isinstance(turn, Mapping):
            raise DataError(f"Message {number} of {id} is a {type(turn).__name__}; give an object with a role.")
        said = turn.get("role", turn.get("from"))
        role = _SPEAKERS.get(str(said).lower())
        if role is None:
            raise DataError(
                f"Message {number} of {id} is of {said!r}, which is nobody known ({', '.join(_SPEAKERS)}); rename it "
                "or leave the row out."
            )
        content = turn.get("content", turn.get("value"))
        found.append((role, "" if content is None else _text(content, f"message {number}", id)))
    return tuple(found)


def _single(row: Mapping[str, object], id: str) -> tuple[Message, ...]:
    """Return a question and its answer."""
    columns = next((pair for pair in _SINGLE if pair[0] in row and pair[1] in row), None)
    if columns is None:
        raise DataError(
            f"{id} was read as a conversation, found the columns {', '.join(map(str, row)) or '(none)'}; give "
            f"messages, conversations, or two of {', '.join(f'{a} + {b}' for a, b in _SINGLE)}."
        )
    question, answer = (_text(row[name], name, id) for name in columns)
    more = row.get("input")
    if columns[0] == "instruction" and isinstance(more, str) and more.strip():
        question = f"{question}\n\n{more.strip()}"
    return (("user", question), ("assistant", answer))


def _language(row: Mapping[str, object], language: str | None, otherwise: str) -> str:
    said = language or next((v for v in map(row.get, _TAGS) if isinstance(v, str) and v.strip()), otherwise)
    return short_tag(said)


def _text(value: object, name: str, id: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{id} has a {type(value).__name__} for '{name}'; give text.")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise DataError(f"{id} has lone surrogates in '{name}', which are no characters; mend the text.")
    return value.strip()


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
