"""A process that takes one stage of a build's corpus and says by how much it rose at most, in MiB, as JSON.

`python -m benchmarks.peers.corpus_memory filter 10000`. The stage is taken of 50 documents first, so that what it loads
once is not counted. Documents are the phrasebook's; for `deduplicate` they are written as `filter` leaves them.
"""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.peak import peak
from microtome.data import phrasebook
from microtome.training.build.corpus import deduplicated, filtered
from microtome.training.build.recipe import Corpus
from microtome.training.build.texts import TextsWriter

__all__ = ["STAGES", "main"]

STAGES = ("filter", "deduplicate")
FIRST = 50
LANGUAGE = "en"


def main(stage: str, documents: int) -> float:
    """Return how many MiB a stage takes.

    Args:
        stage: one of `STAGES`.
        documents: of the corpus.
    """
    with tempfile.TemporaryDirectory() as home:
        _taken(stage, FIRST, Path(home) / "first")
        folder = Path(home) / "corpus"
        _prepared(stage, documents, folder)
        return peak(lambda: _run(stage, documents, folder), "cpu") / (1 << 20)


def _taken(stage: str, documents: int, folder: Path) -> None:
    _prepared(stage, documents, folder)
    _run(stage, documents, folder)


def _prepared(stage: str, documents: int, folder: Path) -> None:
    if stage == "filter":
        return
    with TextsWriter(folder / "filtered" / "documents") as writer:
        for document in phrasebook.documents(LANGUAGE, documents):
            writer.add(document)


def _run(stage: str, documents: int, folder: Path) -> None:
    plan = Corpus(languages=(LANGUAGE,), documents=documents)
    if stage == "filter":
        filtered(plan, 0, folder / "filtered", _untold)
    else:
        deduplicated(plan, 0, folder / "filtered", folder / "deduplicated", _untold)


def _untold(line: str, share: float) -> None:
    pass


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
