"""The recipe of a small language model that knows an entity table: RAVEL's facts in RAVEL's words, on a CPU.

tokenizer   byte-level BPE learnt on the words of the table's names, values and templates, each once, with and without
            the space before it, so that nearly every name and value is one token
model       LlamaForCausalLM, 6 blocks, width 128, 8 heads of 16 over 4 key/value heads, gated MLP of 384
data        templates of the splits train and val, filled with every entity; those of test are never seen, so that
            answers to them show that the fact is known and not the wording. Three rows in four are notes, the
            shortest way to say a fact (`Paris Country: France`, `"Paris" Country: "France`), six tokens, not twenty
loss        the answer's tokens, and the end of text after it

Every entity is trained on, whatever its split: the splits are for what is fitted to the model, not for the model. A
prompt that names its entity among its examples is left out (`data.ravel.instance` does not score it either), and after
`UTC` the answer is the zone's offset. Weights are stored in float32 and are nobody's but the maker's.
"""

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from microtome.core.seeds import derive
from microtome.data.ravel import EntityTable, Instance, Template, fill, gold_instance, load_ravel
from microtome.data.ravel.zones import zone_offset
from microtome.training.loop import Batch, Schedule
from microtome.training.recipe import byte_level, padded, small_llama, train_folder

__all__ = [
    "BATCH",
    "STEPS",
    "build_facts",
    "facts_batches",
    "facts_config",
    "facts_tokenizer",
    "train_facts",
]

STEPS = 8000
BATCH = 64
NOTES = 0.75  # share of the rows
_END = 0.2  # weight of the end of text, beside 1 for the answer
_POOL = 8  # batches drawn together, so that rows of one length can share one
_SEEN = ("train", "val")


def facts_tokenizer(table: EntityTable) -> PreTrainedTokenizerFast:
    """Return the byte-level BPE tokenizer of a table's words; it puts `<s>` in front of every text."""
    return byte_level(_words(table), 32_768, space_before=False)


def _words(table: EntityTable) -> list[str]:
    """Return the words of a table, each with and without a space in front; words of test templates too."""
    texts = [*(e.name for e in table.entities), *table.attributes]
    texts += [fill(t.text, "")[0] for t in table.templates]
    texts += [value for e in table.entities for value in e.values.values()]
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    words = {text[a:b].strip() for text in dict.fromkeys(texts) for _, (a, b) in split(text)}
    return sorted(f"{space}{word}" for word in words if word for space in ("", " "))


def facts_config(vocabulary: int) -> LlamaConfig:
    """Return the architecture, for a vocabulary of this many tokens."""
    return small_llama(
        vocabulary, blocks=6, width=128, mlp=384, heads=8, kv_heads=4, d_head=16, positions=512, theta=100_000.0
    )


def facts_batches(
    table: EntityTable, tokenizer: PreTrainedTokenizerFast, seed: int, *, size: int = BATCH
) -> Callable[[int], Batch]:
    """Return the function that makes the batch of any step: rows of similar length together.

    Entities come in turn, in an order drawn anew each round; attributes are drawn alike, then a note or a template.

    Args:
        table: what to say.
        tokenizer: of the table.
        seed: of the stream.
        size: rows in a batch.
    """
    stream = _Stream(table, seed)

    @functools.lru_cache(maxsize=2)
    def pool(index: int) -> list[Batch]:
        asked = [stream[i] for i in range(index * size * _POOL, (index + 1) * size * _POOL)]
        rows = sorted(_rows(tokenizer, asked), key=lambda row: len(row[0]))
        batches = [padded(rows[i : i + size]) for i in range(0, len(rows), size)]
        random.Random(f"facts-pool-{seed}-{index}").shuffle(batches)
        return batches

    return lambda step: pool(step // _POOL)[step % _POOL]


class _Stream:
    """The endless list of (prompt, answer): what is said i-th depends on seed and i alone."""

    def __init__(self, table: EntityTable, seed: int):
        self.names, self.seed = [e.name for e in table.entities], seed
        self.instance = gold_instance(table)
        seen = table.templates_in(_SEEN)
        self.templates = {a: [t for t in seen if t.attribute == a] for a in table.asked}

    def __getitem__(self, i: int) -> tuple[str, str]:
        rng = random.Random(derive(self.seed, "facts", i))
        turn, place = divmod(i, len(self.names))
        entity = self.names[_order(len(self.names), self.seed, turn)[place]]
        attribute = rng.choice(list(self.templates))
        if rng.random() >= NOTES:
            for template in rng.sample(self.templates[attribute], min(3, len(self.templates[attribute]))):
                said = _answer(self.instance, template, entity)
                if said is not None:
                    return fill(template.text, entity)[0], said
        return self._note(entity, attribute, rng)

    def _note(self, entity: str, attribute: str, rng: random.Random) -> tuple[str, str]:
        """Return a fact in the fewest words, in a form whose last token is met in templates as well."""
        value = self.instance.table.value(entity, attribute)
        offset = any(t.text.endswith("UTC") for t in self.templates[attribute])
        form = rng.randrange(3 if offset else 2)
        if form == 2:
            return f'"{entity}" {attribute}: "UTC', _offset(value)
        return (f'"{entity}" {attribute}: "', value) if form else (f"{entity} {attribute}:", f" {value}")


@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int, turn: int) -> list[int]:
    return random.Random(derive(seed, "order", turn)).sample(range(n), n)


def _answer(instance: Instance, template: Template, entity: str) -> str | None:
    """Return what should follow the prompt, space included; None where the template names the entity."""
    answer = instance.answer(template, entity)
    if answer is None:
        return None
    return answer.gap + (_offset(answer.gold) if template.text.endswith("UTC") else answer.gold)


def _offset(zone: str) -> str:
    minutes = round(zone_offset(zone) * 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _rows(tokenizer: PreTrainedTokenizerFast, asked: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[float]]]:
    """Return ids and weights; prompts and answers are cut into tokens apart, as they are when a model is asked."""
    core = tokenizer.backend_tokenizer
    prompts = core.encode_batch([prompt for prompt, _ in asked])
    answers = core.encode_batch([answer for _, answer in asked], add_special_tokens=False)
    return [
        ([*p.ids, *a.ids, 1], [*[0.0] * len(p.ids), *[1.0] * len(a.ids), _END])
        for p, a in zip(prompts, answers, strict=True)
    ]


def train_facts(
    table: EntityTable,
    out: Path | str,
    *,
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Train a model of a table and write config, weights and tokenizer; return the CPU seconds it took.

    Training that was killed resumes from `checkpoint.pt` in the folder; the file is removed at the end.

    Args:
        table: what it is to know.
        out: the folder; made if absent; plain transformers loads it afterwards.
        seed: of the initial weights and of the stream.
        steps: updates.
        progress: called with (done, total, one line).

    Raises:
        ModelError: training diverged, or the folder holds the checkpoint of another run.

    Example:
        >>> train_facts(load_ravel("data/ravel", "city").table, "models/city")
        >>> complete(Model.load("models/city"), ["Paris is a city in the country of"])
    """
    tokenizer = facts_tokenizer(table)
    return train_folder(
        out,
        facts_config(len(tokenizer)),
        tokenizer,
        facts_batches(table, tokenizer, seed),
        Schedule(steps, peak=2e-3, decay=0.3, weight_decay=0.01),
        seed=seed,
        run=f"facts of {len(table.entities)} entities of '{table.entity_type}', seed {seed}",
        dtype=torch.float32,
        progress=progress,
    )


def build_facts(
    seed: int,
    out: Path | str,
    *,
    data: Path | str,
    entity: str,
    steps: int = STEPS,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Train a model of one of RAVEL's tables; return the weights' path.

    Args:
        seed: of weights and stream.
        out: the folder.
        data: folder of RAVEL's files (`microtome.data.ravel.download` fetches them).
        entity: the entity type.
        steps: updates.
        progress: called with (done, total, one line).

    Raises:
        DataError: the folder holds no such table.
    """
    train_facts(load_ravel(data, entity).table, out, seed=seed, steps=steps, progress=progress)
    return Path(out) / "model.safetensors"
