"""The corpus of a build: read, filtered, scrubbed and decontaminated in one pass; then without duplicates; then split.

    filter   documents/<language>.parquet    what the chain of filters kept
    dedup    train/<language>.parquet        without exact and near-duplicates
             test/<language>.parquet         a share of them, chosen by a hash of each, that is never trained on

Both are flat in memory: documents stream, and what near-duplicates are found by lies on disk. A killed `dedup` goes on
with the language it was at, and within it with the signatures it had.
"""

import hashlib
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import chain as chained
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.data import phrasebook
from microtome.data.corpus import (
    Chain,
    Decontaminate,
    Document,
    Scrub,
    default_filters,
    find_filter,
    read_corpus,
    read_source,
    sample_documents,
)
from microtome.data.corpus.filters.flagged_words import FlaggedWords
from microtome.data.corpus.filters.perplexity import Perplexity
from microtome.data.corpus.sampling import priority
from microtome.data.dedup import MinHash, SignatureStore, multi_turn, recall, write_signatures
from microtome.data.dedup.datatrove_engine import datatrove_duplicates
from microtome.training.build.artefacts import remove
from microtome.training.build.recipe import SAMPLE, Corpus
from microtome.training.build.texts import Texts, TextsWriter, languages_in

__all__ = ["Told", "deduplicated", "filtered", "origin", "origins", "source_documents"]

_REFERENCE = 20_000  # documents of a language that its character model is fitted on and calibrated with
_EDGE = 1 << 20  # bytes at either end of a file that stand for it
_SAMPLED = 4000
_EVERY = 2000
_SENTENCES = 200  # bytes of a document of the sample, about

Told = Callable[[str, float], None]
"""Takes what is done, and the share of the stage, where it is known (else 0)."""


def source_documents(plan: Corpus, seed: int, chain: Chain | None = None) -> Iterator[Document]:
    """Return the documents of a corpus as its recipe names them, before any filter.

    Args:
        plan: the recipe's.
        seed: of the sample's draw.
        chain: counts what cannot be read.

    Raises:
        DataError: no such corpus or language.
    """
    counts = chain.counts if chain else None
    if plan.path == SAMPLE:
        wanted = plan.languages or phrasebook.LANGUAGES
        size = plan.documents or _SAMPLED
        text = chained.from_iterable(phrasebook.documents(name, size, seed=seed) for name in wanted)
    else:
        errors = {"errors": "drop", "counts": counts} if counts else {}
        text = _wanted(read_corpus(plan.path, **errors), plan)
    home = plan.code_path or sysconfig.get_path("stdlib")
    code = chained.from_iterable(read_source(home, name, counts=counts) for name in plan.code)
    return chained(_limited(text, plan), _limited(code, plan))


def _wanted(documents: Iterable[Document], plan: Corpus) -> Iterator[Document]:
    """Yield the documents in languages asked for; one of which there is none is an error."""
    seen: Counter[str] = Counter()
    for document in documents:
        seen[document.language] += 1
        if not plan.languages or document.language in plan.languages:
            yield document
    absent = [name for name in plan.languages if name not in seen]
    if absent:
        raise DataError(
            f"Language '{absent[0]}' was asked for of '{plan.path}', which has {', '.join(sorted(seen)) or 'none'}; "
            f"leave it out or add its texts.{did_you_mean(absent[0], seen)}"
        )


def _limited(documents: Iterable[Document], plan: Corpus) -> Iterator[Document]:
    """Yield the first documents of each language, as many as the recipe takes."""
    taken: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for document in documents:
        name = document.language
        if (plan.documents and taken[name] >= plan.documents) or (plan.bytes and size[name] >= plan.bytes):
            continue
        taken[name] += 1
        size[name] += len(document.text.encode("utf-8", "replace"))
        yield document


def origins(plan: Corpus) -> dict[str, Any]:
    """Return what a corpus is made from, field by field, so that the same files elsewhere are the same corpus.

    Args:
        plan: the recipe's.
    """
    return {
        "path": [SAMPLE, version("microtome")] if plan.path == SAMPLE else origin(plan.path),
        "code_path": origin(plan.code_path) if plan.code_path else ["standard library", python_version()],
        "flagged": origin(plan.flagged),
        "evaluation": [origin(path) for path in plan.evaluation],
    }


def origin(path: str) -> str | list[str]:
    """Return name, size and a digest of both ends of every file at a path; the path itself where there is nothing.

    Args:
        path: a file, a folder (of which subfolders do not count), or `hf:NAME`.
    """
    home = Path(path)
    if not path or not home.exists():
        return path
    files = sorted(p for p in home.iterdir() if p.is_file()) if home.is_dir() else [home]
    return [f"{file.name}:{file.stat().st_size}:{_ends(file)}" for file in files]


def _ends(file: Path) -> str:
    with file.open("rb") as opened:
        digest = hashlib.blake2b(opened.read(_EDGE), digest_size=8)
        opened.seek(max(0, file.stat().st_size - _EDGE))
        digest.update(opened.read(_EDGE))
    return digest.hexdigest()


def filtered(plan: Corpus, seed: int, folder: Path, told: Told) -> dict[str, Any]:
    """Write what the filters keep; return the account of what became of every document.

    Args:
        plan: the recipe's.
        seed: of samples.
        folder: of the stage.
        told: takes how far it is.

    Raises:
        DataError: a corpus, language or filter that is not there, or a language of which nothing is kept.
    """
    chain = Chain(_filters(plan, seed), scrub=Scrub() if plan.scrub else None, seed=seed)
    with TextsWriter(folder / "documents") as writer:
        for document in chain(_watched(source_documents(plan, seed, chain), _expected(plan), told)):
            writer.add(document)
    report = chain.report()
    _refuse_empty(report)
    return {"account": report, "examples": chain.counts.examples()}


def _watched(documents: Iterable[Document], expected: int, told: Told) -> Iterator[Document]:
    """Pass documents on, telling how many were read and, where their size is known, which share that is."""
    size = 0
    for number, document in enumerate(documents, start=1):
        size += len(document.text.encode("utf-8", "replace"))
        if number % _EVERY == 0:
            told(f"{number:,} documents read", min(1.0, size / expected) if expected else 0.0)
        yield document


def _expected(plan: Corpus) -> int:
    """Return the bytes of text that will be read, as far as can be told: 0 where it cannot."""
    languages = len(plan.languages or phrasebook.LANGUAGES)
    if plan.path == SAMPLE:
        return languages * min(_SENTENCES * (plan.documents or _SAMPLED), plan.bytes or 1 << 60)
    home = Path(plan.path)
    files = [p for p in home.iterdir() if p.is_file()] if home.is_dir() else [home]
    wanted = [p for p in files if not plan.languages or p.name.split(".")[0] in plan.languages]
    sizes = [p.stat().st_size for p in wanted or files if p.is_file()]
    return sum(min(size, plan.bytes or size) for size in sizes)


def _filters(plan: Corpus, seed: int) -> list[Callable[[Document], str | None]]:
    """Return the filters of a recipe in order: evaluation text first, so that it is counted as such."""
    chosen: list[Callable[[Document], str | None]] = []
    if plan.evaluation:
        sets = {Path(path).name: (d.text for d in read_corpus(path)) for path in plan.evaluation}
        chosen.append(Decontaminate.against(sets))
    for name in plan.filters:
        chosen += default_filters() if name == "default" else [find_filter(name)()]
    if plan.flagged:
        chosen.append(FlaggedWords(_word_lists(Path(plan.flagged))))
    if plan.perplexity:
        reference = sample_documents(source_documents(plan, seed), _REFERENCE, seed=seed)
        chosen.append(Perplexity.fit(reference, quantile=plan.perplexity))
    return chosen


def _word_lists(folder: Path) -> dict[str, list[str]]:
    """Return the lists in a folder of <language>.txt, one word or phrase a line."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise DataError(f"Flagged words were to be read from '{folder}', found no <language>.txt there; give a folder.")
    return {file.stem: [w for w in file.read_text(encoding="utf-8").splitlines() if w.strip()] for file in files}


def _refuse_empty(report: list[dict[str, Any]]) -> None:
    """Refuse a corpus one of whose languages the filters left nothing of."""
    read = {row["language"] for row in report if row["outcome"] == "read"}
    kept = {row["language"] for row in report if row["outcome"] == "kept" and row["documents"]}
    for language in sorted(read - kept):
        rows = [r for r in report if r["language"] == language and r["outcome"] == "dropped"]
        worst = max(rows, key=lambda row: row["documents"])
        total = sum(row["documents"] for row in rows)
        raise DataError(
            f"Of language '{language}' no document was kept: {total:,} were dropped, most ({worst['documents']:,}) as "
            f"'{worst['reason']}'; change the filters or leave the language out."
        )


def deduplicated(plan: Corpus, seed: int, source: Path, folder: Path, told: Told) -> dict[str, Any]:
    """Write documents without duplicates, in two parts; return how many there were of each language.

    Args:
        plan: the recipe's.
        seed: of the parts.
        source: the folder of the filtered documents.
        folder: of the stage; languages that are done in it are not done again.
        told: takes how far it is.

    Raises:
        DataError: a language with too little text to be divided.
    """
    languages = languages_in(source / "documents")
    rows = []
    for number, (language, texts) in enumerate(languages.items()):
        told(language, number / len(languages))
        rows.append(_one_language(plan, seed, language, texts, folder))
    remove(folder / "signatures")
    remove(folder / "turns")
    found = float(recall(plan.similar)) if plan.similar else None
    return {"languages": rows, "expected_recall": found}


def _one_language(plan: Corpus, seed: int, language: str, texts: Texts, folder: Path) -> dict[str, Any]:
    store = write_signatures(texts, folder / "signatures" / language, MinHash())
    exact = store.exact().kept
    near = _near(plan, seed, store, texts, folder / "turns" / language) if plan.similar else np.arange(len(texts))
    kept = np.intersect1d(exact, near)
    held = _held_out(texts, kept, plan.test, seed)
    if not len(kept) - len(held):
        raise DataError(
            f"Language '{language}' has {len(kept)} documents after deduplication, too few to hold {plan.test:.2%} of "
            "them out; give it more text, or leave the language out."
        )
    part = np.zeros(len(texts), np.uint8)
    part[kept], part[held] = 1, 2
    with TextsWriter(folder / "train") as train, TextsWriter(folder / "test") as test:
        for number, document in zip(part, texts.documents(), strict=True):
            if number:
                (train if number == 1 else test).add(document)
    counts = {"train": len(kept) - len(held), "test": len(held)}
    exactly, nearly = len(texts) - len(exact), len(np.setdiff1d(exact, near))
    return {"language": language, "documents": len(texts), "exact": exactly, "near": nearly, **counts}


def _held_out(texts: Texts, kept: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return the numbers of a share of the texts, at least one: those of least priority."""
    if not share:
        return kept[:0]
    drawn = np.array([priority(seed, document.key) for document in texts.documents()])[kept]
    return kept[np.argsort(drawn, kind="stable")[: max(1, round(share * len(kept)))]]


def _near(plan: Corpus, seed: int, store: SignatureStore, texts: Texts, folder: Path) -> np.ndarray:
    """Return the numbers of the texts that are nobody's near-duplicate, or the first of their kind."""
    if plan.engine == "datatrove":
        remove(folder)
        return datatrove_duplicates(texts, folder).kept
    if plan.turns and len(texts) > plan.turns:
        return multi_turn(store, folder, chunk=max(1, plan.turns // 8), seed=seed, stop="left").kept
    return store.near(texts, verify=plan.similar).kept
