"""Benchmarks of several languages, read from files at hand into one schema (`Choice`): one file of this folder each.

A file that assigns `BENCHMARK` is found by its name; other packages add theirs through the entry point group
`microtome.benchmarks`. Nothing is downloaded.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from microtome.core.discovery import Loader, discover, pick
from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.benchmarks.choice import Benchmark, Choice

__all__ = ["Benchmark", "Choice", "available_benchmarks", "find_benchmark", "question_sets", "read_choices"]


def available_benchmarks() -> dict[str, Loader]:
    """Return the benchmarks there are, by name, not yet imported."""
    return discover(__name__, "BENCHMARK", "microtome.benchmarks")


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Args:
        name: the file's, e.g. `xcopa`.

    Raises:
        ConfigError: there is none of that name.
    """
    return pick(available_benchmarks(), name, "benchmark")


def read_choices(
    name: str, path: Path | str, languages: Sequence[str] | None = None, *, most: int | None = None, seed: int = 0
) -> list[Choice]:
    """Return the questions of a benchmark.

    Args:
        name: of the benchmark.
        path: of its file or folder.
        languages: which to read; None for all there are.
        most: of each language, drawn without replacement; None for all.
        seed: of the draw.

    Raises:
        ConfigError: there is no such benchmark.
        DataError: its files are missing or wrong, or `most` is below 1.

    Example:
        choices = read_choices("xcopa", "benchmarks/xcopa", ["et", "th"], most=100)
    """
    if most is not None and most < 1:
        raise DataError(f"At most {most} questions of each language were asked for; give 1 or more, or None for all.")
    found = find_benchmark(name).read(Path(path), languages)
    if most is None:
        return found
    by_language: dict[str, list[Choice]] = defaultdict(list)
    for choice in found:
        by_language[choice.language].append(choice)
    return [
        held[i]
        for language, held in by_language.items()
        for i in sorted(generator(seed, "questions", name, language).permutation(len(held))[:most])
    ]


def question_sets(choices: Iterable[Choice]) -> dict[str, list[str]]:
    """Return `benchmark.language` -> its questions with their right options, as texts to decontaminate against.

    Args:
        choices: of any benchmarks and languages.

    Example:
        found = contamination(documents, question_sets(choices))
    """
    sets: dict[str, list[str]] = defaultdict(list)
    for choice in choices:
        sets[f"{choice.benchmark}.{choice.language}"].append(choice.text)
    return dict(sets)
