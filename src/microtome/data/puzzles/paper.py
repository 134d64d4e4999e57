"""The prompts of arXiv 2510.03366's public code, for `--paper-compat` only: the published statistics, not a good test.

The code asks a recall and a reasoning question about each of 30 (country, capital, continent) triples:

    What is the capital of France?                                                                     -> Paris
    If X is the capital of France and France is in Europe, what continent is X in?                     -> Europe

The wording is the published one; the triples are drawn from our own table of facts. `CONFOUNDS` says, in the order of
severity, why a difference between the two sets of prompts is not a difference between recall and reasoning. The
factorial of `make_puzzles` removes all of them.

Source: arXiv 2510.03366; emharsha1812/Mech-Interp-Experiments, `recall-vs-reasoning` (30 pairs, no correctness check).
"""

import random
from dataclasses import dataclass

from microtome.core.errors import DataError
from microtome.data.atlas import load_facts

__all__ = ["CONFOUNDS", "PAPER_PAIRS", "PaperPair", "paper_pairs"]

PAPER_PAIRS = 30
"""How many triples the public code uses."""

CONFOUNDS = (
    "task is template: every recall prompt has one wording and every reasoning prompt the other, so whatever tells the "
    "templates apart looks like a task difference (an untrained model shows it too)",
    "the reasoning answer stands in the reasoning prompt, so copying the continent suffices and the capital is never "
    "needed",
    "the answers differ in type: a capital for recall, one of six continents for reasoning",
    "the prompts differ in length: the reasoning prompt is more than twice as long in every pair",
)
"""Why the two sets of prompts cannot tell recall from reasoning; a report that uses them prints these."""


@dataclass(frozen=True)
class PaperPair:
    """A recall and a reasoning question about one country, with their answers."""

    country: str
    capital: str
    continent: str

    @property
    def recall(self) -> str:
        """The recall prompt; its answer is `capital`."""
        return f"What is the capital of {self.country}?"

    @property
    def reasoning(self) -> str:
        """The reasoning prompt; its answer is `continent`."""
        return (
            f"If X is the capital of {self.country} and {self.country} is in {self.continent}, what continent is X in?"
        )


def paper_pairs(n: int = PAPER_PAIRS, *, seed: int = 42) -> tuple[PaperPair, ...]:
    """Return recall and reasoning prompts about `n` countries.

    Args:
        n: how many triples; the public code has 30.
        seed: of the draw; the public code's own seed by default (its triples are a fixed list, ours are drawn).

    Raises:
        DataError: fewer than one, or more than the table has.
    """
    countries = load_facts().countries
    if not 1 <= n <= len(countries):
        raise DataError(f"Asked for {n} pairs of prompts; the table has {len(countries)} countries; ask for 1 to that.")
    drawn = random.Random(f"paper-{seed}").sample(countries, n)
    return tuple(PaperPair(c.name, c.capital, c.continent) for c in drawn)
