"""A tokenizer that is never used: some tools ask for one although every input here is token ids."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

__all__ = ["unused_tokenizer"]


def unused_tokenizer(vocabulary: int, folder: Path) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one made-up word for each id, loaded from `folder` (a tool reads its name there)."""
    words = Tokenizer(WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t0"))
    made = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", pad_token="t0", eos_token="t1")
    made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
