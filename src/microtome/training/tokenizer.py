r"""Training a tokenizer of many languages: byte-level BPE on a sample that is flat across them.

    sample     as much of every language, so that none pays for being rare (FuxiTranyu, arXiv 2408.06273, section 3.3:
               a million random documents each, all where there are fewer)
    pattern    `gpt2`: GPT-2's way to cut text into words, as in the paper. `marks`, the default: the same, but a word
               is a letter and the letters, marks and joiners after it. Vowel signs of Indic scripts are marks (\p{M}),
               not letters (\p{L}), so GPT-2's `\p{L}+` cuts every Hindi word at every vowel
    size       the tokens learnt, then unreachable ones up to a multiple of 128 (250,680 + 72 in the paper)

Numbers are not cut into digits. Any text comes back to the byte, since all 256 bytes are tokens. Five tokens are
special: `<s>`, `</s>`, `<pad>` and ChatML's two, for which the tokenizer has its template; none is added to a text
unasked. The paper measures fertility alone; `measures.tokenization` measures what a tokenizer does to each language.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import generator

__all__ = ["CHATML", "PATTERNS", "SPECIAL", "flat_sample", "save_tokenizer", "train_tokenizer"]

_log = logging.getLogger(__name__)

SPECIAL = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
"""Begins a text, ends it, pads; begins and ends a message."""

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML as a template; what the assistant says, and its end, is marked as generated, for losses on it alone."""

PATTERNS = ("marks", "gpt2")
_MARKS = "|".join(
    (
        r"'(?:[sdmt]|ll|re|ve)",  # English endings
        r" ?\p{L}[\p{L}\p{M}\x{200C}\x{200D}]*",  # joiners stand inside Indic and Persian words
        r" ?\p{N}+",
        r" ?[^\s\p{L}\p{N}]+",
        r"\s+(?!\S)",  # white space but for the last one, which goes to the word after it
        r"\s+",
    )
)
_LONE = re.compile("[\ud800-\udfff]")
_BYTES = 256
_ROUND = 128


def train_tokenizer(
    texts: Mapping[str, Sequence[str]],
    *,
    size: int = 16_384,
    pattern: str = "marks",
    documents: int | None = 1_000_000,
    each: int | None = None,
    seed: int = 0,
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learnt on a flat sample of languages.

    Args:
        texts: language -> its documents.
        size: tokens with the special ones; then padded to a multiple of 128. A small sample may yield fewer.
        pattern: `marks` or `gpt2`.
        documents: most documents of each language; None for all.
        each: most UTF-8 bytes of each language; documents differ in length from one language to the next, so that a
            sample flat in documents need not be flat in text. None for no limit.
        seed: of the sample. Same seed, same tokenizer, to the byte.

    Raises:
        DataError: an unknown pattern, a language without text, or a size that does not hold bytes and special tokens.

    Example:
        save_tokenizer(train_tokenizer({"en": english, "hi": hindi}, size=8192), "tokenizer")
    """
    if pattern not in PATTERNS:
        hint = did_you_mean(pattern, PATTERNS)
        raise DataError(f"No pattern '{pattern}' to cut text by; choose {' or '.join(PATTERNS)}.{hint}")
    if size < _BYTES + len(SPECIAL):
        raise DataError(
            f"A vocabulary of {size} was asked for; byte-level BPE needs 256 bytes and {len(SPECIAL)} special tokens; "
            f"give {_BYTES + len(SPECIAL)} or more."
        )
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = _cutting(pattern), decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(flat_sample(texts, documents=documents, each=each, seed=seed), trainer)
    if core.get_vocab_size() < size:
        _log.warning("asked for %d tokens, the sample yields %d", size, core.get_vocab_size())
    return _wrapped(_padded(core))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path | str) -> Path:
    """Write a tokenizer into a folder that plain transformers loads, and return it."""
    tokenizer.save_pretrained(folder)
    return Path(folder)


def flat_sample(
    texts: Mapping[str, Sequence[str]], *, documents: int | None = None, each: int | None = None, seed: int = 0
) -> Iterator[str]:
    """Yield documents of every language, as many of each, drawn without replacement.

    Args:
        texts: language -> its documents.
        documents: most of each; None for all.
        each: most UTF-8 bytes of each, to the document that reaches it; None for no limit.
        seed: of the draw.

    Raises:
        DataError: no languages, a language without text, a limit below 1, or (as they are drawn) a lone surrogate.
    """
    if not texts or min(documents or 1, each or 1) < 1 or documents == 0 or each == 0:
        raise DataError(
            f"A sample of {documents} documents and {each} bytes of each of {len(texts)} languages was asked for; give "
            "at least one language, and limits of 1 or more (or None)."
        )
    empty = next((name for name, own in texts.items() if not any(text.strip() for text in own)), None)
    if empty is not None:
        raise DataError(f"Language '{empty}' has {len(texts[empty])} documents and no text in them; leave it out.")
    return (text for name, own in texts.items() for text in _drawn(own, documents, each, seed, name))


def _drawn(own: Sequence[str], documents: int | None, each: int | None, seed: int, name: str) -> Iterator[str]:
    held = 0
    for place in generator(seed, "tokenizer", name).permutation(len(own))[:documents].tolist():
        if _LONE.search(own[place]):
            raise DataError(f"Document {place} of '{name}' has a lone surrogate, which is no character; mend the text.")
        yield own[place]
        held += len(own[place].encode())
        if each is not None and held >= each:
            return


def _cutting(pattern: str) -> pre_tokenizers.PreTokenizer:
    if pattern == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = pre_tokenizers.Split(Regex(_MARKS), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _padded(core: Tokenizer) -> Tokenizer:
    """Fill the vocabulary to a multiple of 128 with tokens that no merge leads to, so that no text has them."""
    content = json.loads(core.to_str())
    vocabulary = content["model"]["vocab"]
    for number in range(-len(vocabulary) % _ROUND):
        vocabulary[f"<|dummy_{number}|>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(content))


def _wrapped(core: Tokenizer) -> PreTrainedTokenizerFast:
    begin, end, pad, *turns = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        extra_special_tokens=turns,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer
