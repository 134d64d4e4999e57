"""What every benchmark here comes down to: a question with several options, one of them right.

    one context, several endings     "The man broke his toe because" + "he got a hole in his sock" | "he dropped a ..."
    several contexts, one ending     "... because the trophy" | "... because the suitcase"        + "is too large."

The second is partial scoring (Trinh & Le 2018, arXiv 1806.02847): what follows the word in doubt is scored, the same
words in each case, so that options of different length compare. Both are scored by log p(ending | context).
"""

from collections.abc import Callable
from dataclasses import dataclass

from microtome.core.errors import DataError

__all__ = ["Benchmark", "Choice"]


@dataclass(frozen=True)
class Choice:
    """A question with options.

    Attributes:
        benchmark: it is of.
        language: it is in.
        id: unique within benchmark and language.
        contexts: one, or one an option.
        endings: one an option, or one.
        answer: number of the right option, from 0.
        delimiter: stands between context and ending; scored with the ending, not counted in its length.

    Raises:
        DataError: fewer than two options, several of both, a part that is blank, or an answer that is no option.
    """

    benchmark: str
    language: str
    id: str
    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    answer: int
    delimiter: str = " "

    def __post_init__(self):
        where = f"Question {self.id} of {self.benchmark} ({self.language})"
        if min(len(self.contexts), len(self.endings)) != 1 or self.options < 2:
            raise DataError(
                f"{where} has {len(self.contexts)} contexts and {len(self.endings)} endings; give one context and "
                "several endings, or several contexts and one ending."
            )
        if not all(part.strip() for part in (*self.contexts, *self.endings)):
            raise DataError(f"{where} has a blank context or ending; fill it or leave the question out.")
        if not 0 <= self.answer < self.options:
            raise DataError(f"{where} has answer {self.answer}, its options are 0 to {self.options - 1}; mend it.")

    @property
    def options(self) -> int:
        """How many there are."""
        return max(len(self.contexts), len(self.endings))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The context of each option, and its ending with the delimiter before it."""
        whole = self.options
        contexts, endings = self.contexts * (whole // len(self.contexts)), self.endings * (whole // len(self.endings))
        return tuple((context, self.delimiter + ending) for context, ending in zip(contexts, endings, strict=True))

    @property
    def text(self) -> str:
        """The question with its right option, as a text: what a corpus must not hold."""
        return "".join(self.pairs[self.answer])


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read.

    Attributes:
        name: it goes by.
        summary: what is asked, in one line.
        read: from (path, languages or None for all) to its questions.
    """

    name: str
    summary: str
    read: Callable[..., list[Choice]]
