"""What instruction data sets are read into: conversations, and pairs of answers of which one is preferred.

A conversation is messages in order, (role, content) each, with the roles of ChatML. Nothing is asked of their order
here: what published sets hold is read as it is, and `selection` takes out, and counts, what cannot be trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from microtome.core.errors import DataError, did_you_mean

__all__ = ["ROLES", "Conversation", "Message", "PreferencePair"]

ROLES = ("system", "user", "assistant")

Message = tuple[str, str]
"""A role and what is said in it."""


@dataclass(frozen=True)
class Conversation:
    """Messages between a user and an assistant.

    Attributes:
        messages: (role, content) in order.
        language: short tag, of what the assistant says; `und` where nothing says it.
        source: where it comes from, e.g. a file's name.
        id: names it within its source.

    Raises:
        DataError: no message, a role that is none of ROLES, a content that is no text, or a blank language.
    """

    messages: tuple[Message, ...]
    language: str
    source: str = ""
    id: str = ""

    def __post_init__(self):
        _check(self.messages, self.language, f"Conversation '{self.id}'")

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last answer; all of them where there is none."""
        last = max((i for i, (role, _) in enumerate(self.messages) if role == "assistant"), default=len(self.messages))
        return self.messages[:last]

    @property
    def answer(self) -> str:
        """What the assistant says last; empty where it says nothing."""
        return next((content for role, content in reversed(self.messages) if role == "assistant"), "")

    @property
    def asked(self) -> str:
        """What the user says first: conversations that begin alike are of one group when data are split."""
        return next((content for role, content in self.messages if role == "user"), "")


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt, one of them preferred.

    Attributes:
        prompt: (role, content) in order, the last of them the user's.
        chosen: the better answer.
        rejected: the worse one.
        language: short tag of the answer asked for.
        source: where it comes from.
        id: names it within its source.

    Raises:
        DataError: as for a conversation; an answer that is no text.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    language: str
    source: str = ""
    id: str = ""

    def __post_init__(self):
        answers = (("assistant", self.chosen), ("assistant", self.rejected))
        _check((*self.prompt, *answers), self.language, f"Pair '{self.id}'")

    @property
    def asked(self) -> str:
        """What the user says first."""
        return next((content for role, content in self.prompt if role == "user"), "")


def _check(messages: Sequence[Message], language: str, what: str) -> None:
    if not messages:
        raise DataError(f"{what} has no messages; give at least one.")
    if not isinstance(language, str) or not language.strip():
        raise DataError(f"{what} has the language {language!r}; give a tag such as 'en'.")
    for role, content in messages:
        if role not in ROLES:
            hint = did_you_mean(str(role), ROLES)
            raise DataError(f"{what} has a message of role {role!r}; roles are {', '.join(ROLES)}.{hint}")
        if not isinstance(content, str):
            raise DataError(f"{what} has a {type(content).__name__} for what the {role} says; give text.")
