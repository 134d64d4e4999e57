"""What the model's tokenizer does to each language on parallel text, and any other tokenizer beside it.

Parity is how many tokens a language takes for one of English on the same sentences: it prices a language in context,
compute and, where a loss is summed over tokens, importance (arXiv 2408.06273 ties low importance to high fertility).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer

from microtome.core.errors import ModelError
from microtome.measures.tokenization import report_tokenizer
from microtome.records import Missing, Record, StageOutput, Told
from microtome.studies.multilingual.config import MultilingualConfig

__all__ = ["tokenization", "tokenization_view"]

_REFERENCE = "en"
_DRAWS = 300


def tokenization(own: Any, texts: Mapping[str, Sequence[str]], config: MultilingualConfig, told: Told) -> StageOutput:
    """Report on the model's tokenizer and on those named beside it.

    Args:
        own: the model's tokenizer.
        texts: language -> its sentences, aligned.
        config: the study's configuration.
        told: takes the share that is done.

    Returns:
        Table `tokens`, a row a tokenizer and language.

    Raises:
        ModelError: a tokenizer that cannot be loaded.
    """
    reference = _REFERENCE if _REFERENCE in texts else next(iter(texts))
    tokenizers = {"the model's": own} | {name: _loaded(name) for name in config.tokenizers}
    rows, sizes = [], {}
    for number, (name, tokenizer) in enumerate(tokenizers.items()):
        found = report_tokenizer(tokenizer, texts, parallel=texts, reference=reference, draws=_DRAWS, seed=config.seed)
        sizes[name] = found.vocabulary
        rows += [{"tokenizer": name, "vocabulary": found.vocabulary} | _filled(row) for row in found.rows()]
        told((number + 1) / len(tokenizers))
    return StageOutput(tables={"tokens": rows}, values={"tokens_reference": reference, "tokens_vocabularies": sizes})


def _loaded(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"No tokenizer at '{name}' ({reason}); give a Hub id or a folder that holds one.") from error


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Missing("one type of token") if value is None else value for name, value in row.items()}


def tokenization_view(record: Record) -> dict:
    """Return the bars of parity by language, a series a tokenizer."""
    rows = record.rows("tokens")
    own = [r for r in rows if r["tokenizer"] == "the model's"]
    worst, reference = max(own, key=lambda r: r["parity"]), record.value("tokens_reference")
    return {
        "kind": "intervals",
        "title": f"{worst['language']} takes {worst['parity']:.2f} tokens for one of {reference}",
        "caption": f"Tokens for one of {reference} on the same sentences (parity). Fertility, bytes a token and single "
        "bytes are in the record's table `tokens`.",
        "table": "tokens",
        "encodings": {"group": "language", "value": "parity", "low": "parity_low", "high": "parity_high",
                      "series": "tokenizer", "n": "texts"},
        "labels": {"group": "language", "value": f"tokens for one of {reference}", "series": "tokenizer"},
        "options": {"reference": 1},
        "n": f"{own[0]['texts']} parallel sentences",
        "interval": "95 % bootstrap over sentences",
        "control": f"{reference}: 1 by definition",
    }  # fmt: skip
