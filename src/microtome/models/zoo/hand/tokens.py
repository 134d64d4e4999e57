"""The tokenizer of `zoo:hand`: one word, one token; `<bos>` in front; left padding."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from microtome.models.zoo.hand.world import BOS, PAD, UNKNOWN, VOCAB, token_id

__all__ = ["hand_tokenizer"]


def hand_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word tokenizer of the hand-built world."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCAB)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, token_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=BOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
