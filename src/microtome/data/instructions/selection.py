"""What of a data set is trained on: what cannot be is taken out and counted; the rest is split, the same way each time.

    language not chosen         as FuxiTranyu did with the languages of Aya beyond its 43 (arXiv 2408.06273, section 4)
    empty message               a turn in which nothing is said
    roles out of turn           not (system,) user, assistant, user, assistant ...
    no answer                   the assistant never speaks
    answers alike               of a pair, which then prefers nothing

The split is by what the user says first: conversations that begin alike are on one side, so that no held-out prompt was
trained on. Every language gives its own share. Priorities are hashes of the text, so that neither the order of the rows
nor what else is in the set decides on which side of an even cut a prompt falls.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from microtome.core.errors import DataError
from microtome.data.corpus.sampling import priority
from microtome.data.instructions.schema import Conversation, Message, PreferencePair
from microtome.data.instructions.tags import short_tag

__all__ = ["Selected", "Split", "select", "split"]

Kind = TypeVar("Kind", Conversation, PreferencePair)


@dataclass(frozen=True)
class Selected(Generic[Kind]):
    """What was kept, and the account of the rest.

    Attributes:
        kept: in the order they came.
        dropped: (language, reason) -> how many.
    """

    kept: tuple[Kind, ...]
    dropped: Mapping[tuple[str, str], int]

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row for every language, outcome and reason: `language`, `outcome`, `reason`, `count`."""
        kept = Counter(each.language for each in self.kept)
        return [
            {"language": language, "outcome": "kept", "reason": "", "count": n} for language, n in sorted(kept.items())
        ] + [
            {"language": language, "outcome": "dropped", "reason": reason, "count": n}
            for (language, reason), n in sorted(self.dropped.items())
        ]


@dataclass(frozen=True)
class Split(Generic[Kind]):
    """Two parts of which no prompt is in both.

    Attributes:
        train: to train on.
        held_out: to measure on.
    """

    train: tuple[Kind, ...]
    held_out: tuple[Kind, ...]


def select(found: Iterable[Kind], *, languages: Sequence[str] | None = None) -> Selected[Kind]:
    """Return what can be trained on.

    Args:
        found: conversations, or pairs of answers.
        languages: tags or names of those to keep; None for all.

    Raises:
        DataError: nothing is left; the message says why.

    Example:
        chosen = select(read_conversations("aya.parquet"), languages=FUXITRANYU)
    """
    wanted = None if languages is None else {short_tag(language) for language in languages}
    kept, dropped = [], Counter()
    for each in found:
        reason = _reason(each, wanted)
        if reason is None:
            kept.append(each)
        else:
            dropped[each.language, reason] += 1
    if not kept:
        reasons = Counter()
        for (_, reason), n in dropped.items():
            reasons[reason] += n
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "there was nothing"
        raise DataError(f"Conversations to train on were asked for, found none ({why}); check languages and layout.")
    return Selected(tuple(kept), dict(dropped))


def split(found: Iterable[Kind], *, held_out: float = 0.05, most: int | None = None, seed: int = 0) -> Split[Kind]:
    """Return conversations or pairs in two parts, by language and by what the user says first.

    Args:
        found: conversations, or pairs of answers.
        held_out: share of each language's prompts; at least one is held out, and at least one is left.
        most: prompts of a language to hold out at most; None for no limit.
        seed: of the draw, 0 or more.

    Raises:
        DataError: a share that is not between 0 and 1, or a language with fewer than two prompts.
    """
    if not 0 < held_out < 1 or (most is not None and most < 1):
        raise DataError(
            f"A held-out share of {held_out} and at most {most} was asked for; give a share between 0 and 1, and 1 or "
            "more (or None)."
        )
    everything = tuple(found)
    prompts: defaultdict[str, set[str]] = defaultdict(set)
    for each in everything:
        prompts[each.language].add(each.asked)
    out: dict[str, set[str]] = {}
    for language, own in prompts.items():
        if len(own) < 2:
            raise DataError(
                f"A split was asked for, found {len(own)} prompt in '{language}'; give two or leave it out."
            )
        size = min(max(1, round(held_out * len(own))), len(own) - 1, most or len(own))
        out[language] = set(sorted(own, key=lambda text: (priority(seed, text), text))[:size])
    sides = [each.asked in out[each.language] for each in everything]
    return Split(
        tuple(each for each, aside in zip(everything, sides, strict=True) if not aside),
        tuple(each for each, aside in zip(everything, sides, strict=True) if aside),
    )


def _reason(each: Conversation | PreferencePair, wanted: set[str] | None) -> str | None:
    """Return why something is left out, or None."""
    if wanted is not None and each.language not in wanted:
        return "language not chosen"
    if isinstance(each, PreferencePair):
        if each.chosen.strip() == each.rejected.strip():
            return "answers alike"
        said = ((*each.prompt, ("assistant", each.chosen)), (*each.prompt, ("assistant", each.rejected)))
        return next((reason for messages in said if (reason := _unfit(messages))), None)
    return _unfit(each.messages)


def _unfit(messages: Sequence[Message]) -> str | None:
    if any(not content.strip() for _, content in messages):
        return "empty message"
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        return "roles out of turn"
    return None if "assistant" in turns else "no answer"
