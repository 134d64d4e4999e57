"""Mixing policies: from how much there is of each language to how much of it is seen in training.

    proportional   share ~ count
    temperature    share ~ count^alpha      1 is proportional, 0 uniform (XLM-R: .3, Conneau et al. 2019)
    unimax         as uniform as can be without going over any language more than `max_epochs` times: budget is dealt
                   out in equal parts from the smallest language on, and what one cannot take the others get
                   (Chung et al. 2023, arXiv 2304.09151, algorithm 1)
    fixed          a table, such as FuxiTranyu's (arXiv 2408.06273, figure 1), whose ratios were set by hand

Counts are of whatever the shares are to be of, tokens or documents; `Mix.by_items` turns shares of tokens into shares
of items to draw. What a policy costs is told beside it: the epochs of every language at the budget.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from microtome.core.errors import DataError, did_you_mean

__all__ = ["POLICIES", "Mix", "fuxitranyu_shares", "mix"]

POLICIES = ("proportional", "temperature", "unimax", "fixed")
_CLOSE = 1e-6

_FUXITRANYU = {
    "en": 28.8, "zh": 10.4, "de": 8.1, "fr": 7.3, "es": 5.7, "ru": 5.5, "it": 3.7, "pt": 2.2, "nl": 1.8, "pl": 1.8,
    "ar": 1.7, "vi": 1.6, "ja": 1.5,
}  # fmt: skip
_OTHERS = 11.1 / 30
"""Percent of each of the 30 languages that the figure does not name; the remaining 9 % are code."""


@dataclass(frozen=True)
class Mix:
    """Shares of languages.

    Attributes:
        policy: by which they were made.
        counts: how much there is of each language.
        shares: how much of what is seen is to be of it; they sum to 1.
        budget: how much is seen in all, in the unit of the counts.
    """

    policy: str
    counts: Mapping[str, float]
    shares: Mapping[str, float]
    budget: float

    @property
    def epochs(self) -> dict[str, float]:
        """How many times each language is gone over at the budget."""
        return {name: self.budget * share / self.counts[name] for name, share in self.shares.items()}

    def by_items(self, items: Mapping[str, int]) -> dict[str, float]:
        """Return shares of items, for counts that are of something in them.

        An item of a language holds counts / items on average, so languages of long documents are drawn less often.

        Args:
            items: how many items each language has.

        Raises:
            DataError: a language is missing, or has none.
        """
        _count(items)
        missing = next((name for name in self.shares if name not in items), None)
        if missing is not None:
            near = did_you_mean(missing, items)
            raise DataError(f"No number of items for '{missing}'; found {', '.join(items)}; give one for each.{near}")
        return _shares({name: share * items[name] / self.counts[name] for name, share in self.shares.items()})

    def rows(self) -> list[dict[str, object]]:
        """Return one row a language, for a table."""
        total, epochs = sum(self.counts.values()), self.epochs
        return [
            {"language": name, "count": self.counts[name], "of_corpus": self.counts[name] / total, "share": share,
             "epochs": epochs[name]}
            for name, share in self.shares.items()
        ]  # fmt: skip


def mix(
    counts: Mapping[str, float],
    policy: str = "temperature",
    *,
    budget: float | None = None,
    alpha: float = 0.3,
    max_epochs: float = 4.0,
    table: Mapping[str, float] | None = None,
) -> Mix:
    """Return the shares of languages by a policy.

    Args:
        counts: how much there is of each language, in tokens or documents.
        policy: `proportional`, `temperature`, `unimax` or `fixed`.
        budget: how much is to be seen in all, in the same unit; None: as much as there is.
        alpha: exponent of `temperature`, 0 or more.
        max_epochs: of `unimax`.
        table: of `fixed`: share of every language, summing to 1.

    Raises:
        DataError: an unknown policy, a language of which there is nothing, a table that does not fit, or a budget that
            `unimax` cannot fill.

    Example:
        mix({"en": 9_000_000, "hi": 800_000}, "unimax", max_epochs=2).epochs
    """
    _count(counts)
    budget = sum(counts.values()) if budget is None else budget
    if not (math.isfinite(budget) and budget > 0):
        raise DataError(f"A budget of {budget} was asked for; give a positive number of tokens or documents.")
    if policy == "proportional":
        shares = _shares(counts)
    elif policy == "temperature":
        shares = _temperature(counts, alpha)
    elif policy == "unimax":
        shares = _unimax(counts, max_epochs, budget)
    elif policy == "fixed":
        shares = _fixed(counts, table)
    else:
        near = did_you_mean(policy, POLICIES)
        raise DataError(f"No mixing policy '{policy}'; choose {', '.join(POLICIES)}.{near}")
    return Mix(policy, dict(counts), shares, budget)


def fuxitranyu_shares(languages: Iterable[str]) -> dict[str, float]:
    """Return FuxiTranyu's shares (figure 1) of some languages, made to sum to 1.

    Args:
        languages: those at hand; one that the figure does not name gets the mean of the unnamed.

    Raises:
        DataError: no languages.
    """
    found = {name: _FUXITRANYU.get(name, _OTHERS) for name in languages}
    if not found:
        raise DataError("FuxiTranyu's shares were asked for, found no languages; give at least one.")
    return _shares(found)


def _temperature(counts: Mapping[str, float], alpha: float) -> dict[str, float]:
    if not (math.isfinite(alpha) and alpha >= 0):
        raise DataError(f"Temperature was asked for with alpha {alpha}; give 0 (uniform) to 1 (proportional) or more.")
    largest = max(counts.values())
    return _shares({name: (count / largest) ** alpha for name, count in counts.items()})


def _unimax(counts: Mapping[str, float], max_epochs: float, budget: float) -> dict[str, float]:
    if not (math.isfinite(max_epochs) and max_epochs > 0):
        raise DataError(f"UniMax was asked for at most {max_epochs} epochs; give a positive number.")
    most = max_epochs * sum(counts.values())
    if budget > most * (1 + _CLOSE):
        raise DataError(
            f"UniMax was asked for {budget:g} at no more than {max_epochs:g} epochs, found {most:g} in all; lower the "
            "budget or raise max_epochs."
        )
    dealt, left = {}, budget
    for done, name in enumerate(sorted(counts, key=lambda name: (counts[name], name))):
        dealt[name] = min(left / (len(counts) - done), max_epochs * counts[name])
        left -= dealt[name]
    return _shares({name: dealt[name] for name in counts})


def _fixed(counts: Mapping[str, float], table: Mapping[str, float] | None) -> dict[str, float]:
    if table is None:
        raise DataError("A fixed mix was asked for, found no table; give table={language: share}.")
    for name in (*table, *counts):
        if name not in counts or name not in table:
            where, other = ("counts", counts) if name not in counts else ("table", table)
            raise DataError(
                f"'{name}' has no entry in the {where} of a fixed mix, which has {', '.join(other)}; give it one, a "
                f"share of 0 where it is not to be seen.{did_you_mean(name, other)}"
            )
    bad = next((name for name, share in table.items() if not (math.isfinite(share) and share >= 0)), None)
    total = sum(table.values())
    if bad is not None or abs(total - 1) > _CLOSE:
        found = f"{table[bad]} for '{bad}'" if bad is not None else f"a sum of {total:.6g}"
        raise DataError(f"Shares of a fixed mix are 0 or more and sum to 1, found {found}; mend the table.")
    return _shares({name: table[name] for name in counts})


def _count(counts: Mapping[str, float]) -> None:
    """Refuse counts that nothing can be drawn from."""
    if not counts:
        raise DataError("A mix of languages was asked for, found none; give the count of at least one.")
    for name, count in counts.items():
        if not (math.isfinite(count) and count > 0):
            raise DataError(f"Language '{name}' has a count of {count}; leave it out or give it some text.")


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
