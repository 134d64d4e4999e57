"""From texts to tokens on disk: a tokenizer learnt on a flat sample, and every training text cut by it.

    tokenizer   the folder that plain transformers loads, and what it does to each language's test texts
    tokens      <language>.bin      the ids of all its documents, one after the other, 2 or 4 bytes each
                <language>.npy      where each document begins, and where the last one ends, [documents + 1] int64

Tokens are mapped into memory when a model is trained on them, so their number is bounded by the disk.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from microtome.core.errors import DataError
from microtome.core.files import PART, replace_with
from microtome.data.corpus import sample_documents
from microtome.measures.tokenization import report_tokenizer
from microtome.training.build.corpus import Told
from microtome.training.build.recipe import Tokens
from microtome.training.build.texts import Texts, languages_in
from microtome.training.tokenizer import save_tokenizer, train_tokenizer

__all__ = ["TokenFiles", "learnt", "tokenised"]

_BATCH = 2048  # documents cut at a time
_REPORTED = 500  # test documents of a language that the report is of


def learnt(plan: Tokens, seed: int, corpus: Path, folder: Path, told: Told) -> dict[str, Any]:
    """Write the tokenizer of a corpus; return what it does to texts it was not trained on.

    Args:
        plan: the recipe's.
        seed: of the sample.
        corpus: the folder of the `dedup` stage.
        folder: of the stage.
        told: takes how far it is.
    """
    told("sample", 0.0)
    documents = (d for texts in languages_in(corpus / "train").values() for d in texts.documents())
    sample: defaultdict[str, list[str]] = defaultdict(list)
    for document in sample_documents(documents, plan.documents, seed=seed):
        sample[document.language].append(document.text)
    told("merges", 0.1)
    tokenizer = train_tokenizer(
        sample, size=plan.size, pattern=plan.pattern, documents=None, each=plan.each or None, seed=seed
    )
    save_tokenizer(tokenizer, folder)
    told("report", 0.9)
    return {"size": len(tokenizer), "languages": _report(tokenizer, corpus)}


def _report(tokenizer: PreTrainedTokenizerBase, corpus: Path) -> list[dict[str, Any]]:
    """Return fertility and the like on test documents, where a language has two or more."""
    if not (corpus / "test").is_dir():
        return []
    held = {name: list(islice(texts, _REPORTED)) for name, texts in languages_in(corpus / "test").items()}
    enough = {name: texts for name, texts in held.items() if len(texts) > 1}
    return report_tokenizer(tokenizer, enough, draws=200).rows() if enough else []


def tokenised(corpus: Path, tokenizer: Path, folder: Path, told: Told) -> dict[str, Any]:
    """Write the tokens of all training texts; languages that are done are not done again.

    Args:
        corpus: the folder of the `dedup` stage.
        tokenizer: the folder of the `tokenizer` stage.
        folder: of the stage.
        told: takes how far it is.

    Returns:
        The rows of `languages`: documents, tokens and UTF-8 bytes of each.
    """
    cutter = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    languages = languages_in(corpus / "train")
    rows = []
    for number, (language, texts) in enumerate(languages.items()):
        told(language, number / len(languages))
        rows.append({"language": language, **_cut(cutter, texts, folder)})
    return {"languages": rows, "special": {"bos": cutter.bos_token_id, "eos": cutter.eos_token_id}}


def _cut(cutter: PreTrainedTokenizerBase, texts: Texts, folder: Path) -> dict[str, int]:
    """Write the tokens of one language; the file of ends comes last and says that all is there."""
    ends, stored = folder / f"{texts.language}.npy", _kind(len(cutter))
    if not ends.is_file():
        lengths = [0]
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{PART}{texts.language}.bin"
        with part.open("wb") as file:
            for batch in _batches(texts):
                for ids in cutter(batch, add_special_tokens=False)["input_ids"]:
                    file.write(np.asarray(ids, stored).tobytes())
                    lengths.append(len(ids))
        part.replace(folder / f"{texts.language}.bin")
        where = np.cumsum(np.array(lengths, np.int64))
        replace_with(ends, lambda path: np.save(path, where))
    found = np.load(ends, mmap_mode="r")
    size = sum(len(text.encode()) for text in texts)
    return {"documents": len(found) - 1, "tokens": int(found[-1]), "bytes": size}


def _batches(texts: Texts) -> Iterator[list[str]]:
    waiting = iter(texts)
    while batch := list(islice(waiting, _BATCH)):
        yield batch


def _kind(vocabulary: int) -> type[np.unsignedinteger]:
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


class TokenFiles:
    """The documents of every language as tokens, mapped into memory.

    Args:
        folder: of the `tokens` stage.
        vocabulary: tokens of the tokenizer, which says how many bytes one takes.

    Raises:
        DataError: no tokens there.
    """

    def __init__(self, folder: Path, vocabulary: int):
        self._ends = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("[!.]*.npy"))}
        if not self._ends:
            raise DataError(f"Tokens were to be read from '{folder}', found none; give the folder of a `tokens` stage.")
        kind = _kind(vocabulary)
        self._ids = {name: np.memmap(folder / f"{name}.bin", kind, mode="r") for name in self._ends}

    @property
    def documents(self) -> Mapping[str, int]:
        """How many documents each language has."""
        return {name: len(ends) - 1 for name, ends in self._ends.items()}

    @property
    def tokens(self) -> Mapping[str, int]:
        """How many tokens each language has, without those that begin and end a text."""
        return {name: int(ends[-1]) for name, ends in self._ends.items()}

    def ids(self, language: str, number: int) -> np.ndarray:
        """Return the tokens of a document.

        Args:
            language: its language.
            number: its number in it.
        """
        ends = self._ends[language]
        return self._ids[language][ends[number] : ends[number + 1]]
