"""What a model writes after very many short prompts: greedy, without padding, and never asked twice.

Prompts of one token length go through together, so no row is padded; sorted by their tokens, those of one template lie
side by side, and the tokens that a whole batch begins with are run once, in one row. Decoding is the model's own
`generate`; it ends when every row of a batch has met the stop. Before the shared beginning is used, two rows are
decoded with and without it; a model that does not agree runs whole prompts.

With a folder, finished prompts are kept, some batches at a time, in Parquet parts named by their digest:

    cache/<digest of model, length and stop>/about.json            what was asked, in words
                                             <digest>.parquet      prompt, completion

A part is there whole or not at all, so after kill -9 the next run asks only what is missing.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from microtome.core.errors import DataError, ModelError, StoreError
from microtome.core.files import write_atomic
from microtome.models.digest import weights_digest
from microtome.models.model import Model
from microtome.records.files import digest
from microtome.records.keys import content_key
from microtome.records.tables import table_bytes, table_from, table_of

__all__ = ["ANSWERED", "complete"]

_log = logging.getLogger(__name__)

ANSWERED = r"""^[ \t"'“«]*+[^"”»\n]*["”»\n]"""
"""Where an answer has ended: a quote or line break after its beginning, as `data.ravel.matching.cut` sees it."""

_BATCHES, _SECONDS = 16, 20.0  # a part is written after this many batches or seconds
_SHORTEST = 8  # tokens of a shared beginning worth a pass of its own


def complete(
    model: Model,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 8,
    stop: str | None = ANSWERED,
    cache: Path | str | None = None,
    batch: int = 256,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[str]:
    """Return what a model writes after each prompt; the leading space, if there is one, is kept.

    Args:
        model: a causal language model with a tokenizer.
        prompts: texts; one that comes twice is asked once.
        max_new_tokens: at most this many new tokens.
        stop: regular expression; a completion ends with the token in which it is first found, or at the end of text.
        cache: folder of finished prompts; other models, lengths and stops are kept apart in it.
        batch: most prompts in one pass.
        progress: called with (different prompts done, different prompts in all, one line); at first with those that
            the cache knows.

    Raises:
        ModelError: the module cannot generate.
        DataError: a prompt has no tokens or is too long for the model, or a number is not positive.
        StoreError: a part of the cache is damaged.

    Example:
        >>> asked = list(prompts(table))
        >>> said = complete(model, [p.text for p in asked], cache=Path("completions"))
        >>> build_instance(table, {(p.template, p.entity): text for p, text in zip(asked, said, strict=True)})
    """
    _refuse(model, prompts, max_new_tokens, batch)
    wanted = list(dict.fromkeys(prompts))
    if not wanted:
        return []
    writer = _Writer(model, max_new_tokens, stop, Path(cache)) if cache is not None else None
    said = writer.known(set(wanted)) if writer else {}
    rows = _encode(model, [p for p in wanted if p not in said], max_new_tokens)
    tell, decoder = progress or (lambda done, total, line: None), _Decoder(model, max_new_tokens, stop)
    tell(len(said), len(wanted), f"{len(said)} completions known")
    try:
        for texts, ids in _batches(rows, batch):
            found = dict(zip(texts, decoder(ids), strict=True))
            said |= found
            if writer:
                writer.add(found)
            tell(len(said), len(wanted), "completing prompts")
    finally:
        if writer:
            writer.flush()
    return [said[p] for p in prompts]


def _refuse(model: Model, prompts: Sequence[str], max_new_tokens: int, batch: int) -> None:
    if not hasattr(model.module, "generate"):
        raise ModelError(
            f"Completions were asked of '{model.name}', found a {type(model.module).__name__}, which has no generate; "
            "use a causal language model of transformers."
        )
    if model.tokenizer is None:
        raise DataError(f"Model '{model.name}' has no tokenizer, so it cannot complete text; load it with one.")
    if isinstance(prompts, str):
        raise DataError("complete takes a list of prompts, found one string; write [prompt].")
    if max_new_tokens < 1 or batch < 1:
        raise DataError(
            f"complete was asked for {max_new_tokens} new tokens and batches of {batch}; give at least 1 of each."
        )


# -- prompts in batches


def _encode(model: Model, texts: list[str], max_new_tokens: int) -> list[tuple[int, bytes, str]]:
    """Return (length, ids as big-endian bytes, text) of every prompt, sorted: like beginnings lie side by side."""
    longest = getattr(getattr(model.module, "config", None), "max_position_embeddings", None)
    rows = []
    for first in range(0, len(texts), 4096):
        part = texts[first : first + 4096]
        for text, ids in zip(part, model.tokenizer(part)["input_ids"], strict=True):
            if not ids or (longest and len(ids) + max_new_tokens > longest):
                limit = f"the model takes {longest}" if ids else "it needs at least one"
                raise DataError(
                    f"Prompt {text[-60:]!r} has {len(ids)} tokens and is to get {max_new_tokens} new ones; {limit}: "
                    "drop the prompt."
                )
            rows.append((len(ids), np.asarray(ids, ">u4").tobytes(), text))
    return sorted(rows)


def _batches(rows: list[tuple[int, bytes, str]], size: int) -> Iterator[tuple[list[str], Int[np.ndarray, "batch seq"]]]:
    """Yield (texts, ids) of prompts of one length; a batch ends early where its rows cease to begin alike."""
    first = 0
    while first < len(rows):
        length = rows[first][0]
        part = [row for row in rows[first : first + size] if row[0] == length]
        ids = np.stack([np.frombuffer(data, ">u4") for _, data, _ in part]).astype(np.int64)
        n = _end(ids, size // 8)
        yield [text for _, _, text in part[:n]], ids[:n]
        first += n


def _end(ids: Int[np.ndarray, "batch seq"], least: int) -> int:
    """Return how many of some sorted rows to take: up to where a quarter of the shared beginning is lost at once."""
    shared = _shared(ids)[1:]  # falls: the rows are sorted
    loss = shared[:-1] - shared[1:]
    if not len(loss) or loss.max() <= ids.shape[1] // 4:
        return len(ids)
    n = int(loss.argmax()) + 2
    return n if n >= least else len(ids)


def _shared(ids: Int[np.ndarray, "batch seq"]) -> Int[np.ndarray, " batch"]:
    """Return how many tokens each row has in common with the first, from the start."""
    return np.logical_and.accumulate(ids == ids[:1], 1).sum(1)


# -- decoding


class _Decoder:
    """Decodes batches of prompts of one length."""

    def __init__(self, model: Model, max_new_tokens: int, stop: str | None):
        self.model, self.tokenizer = model, model.tokenizer
        self.stop = re.compile(stop) if stop is not None else None
        config = model.module.generation_config
        ends = config.eos_token_id
        self.ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        pad = next((x for x in (model.tokenizer.pad_token_id, *self.ends) if x is not None), 0)
        self.options = dict(do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, pad_token_id=pad)
        self.sharing: bool | None = None  # not known before two rows were tried

    @torch.no_grad()
    def __call__(self, ids: Int[np.ndarray, "batch seq"]) -> list[str]:
        """Return the completions."""
        shared = min(int(_shared(ids).min()), ids.shape[1] - 1) if len(ids) > 1 else 0
        rows = torch.as_tensor(ids, device=self.model.device)
        if shared >= _SHORTEST and self.sharing is None:
            self.sharing = self._agrees(rows[[0, -1]], shared)
        return self._generate(rows, shared if shared >= _SHORTEST and self.sharing else 0)

    def _agrees(self, rows: Tensor, shared: int) -> bool:
        """Return whether a shared beginning changes nothing of two rows."""
        try:
            if self._generate(rows, shared) == self._generate(rows, 0):
                return True
            why = "gives other completions"
        except (RuntimeError, TypeError, KeyError, ValueError, AttributeError) as error:
            why = f"fails ({str(error).splitlines()[0]})"
        _log.info("'%s' runs whole prompts: going on from a cached beginning %s", self.model.name, why)
        return False

    def _generate(self, rows: Tensor, shared: int) -> list[str]:
        """Return the completions; the first `shared` tokens, alike in all rows, are run once."""
        options, prompts = dict(self.options), self.texts(rows)
        if shared:
            keep = {"logits_to_keep": 1} if "logits_to_keep" in self.model.accepts else {}
            begun = self.model.module(rows[:1, :shared], use_cache=True, **keep).past_key_values
            begun.batch_repeat_interleave(len(rows))
            options["past_key_values"] = begun
        watch = _Watch(self, prompts) if self.stop is not None else None
        if watch:
            options["stopping_criteria"] = StoppingCriteriaList([watch])
        out = self.model.module.generate(rows, attention_mask=torch.ones_like(rows), **options)
        ends = [self._end(row, rows.shape[1], watch.ends[i] if watch else None) for i, row in enumerate(out.tolist())]
        whole = self.texts([row[:end] for row, end in zip(out.tolist(), ends, strict=True)])
        return [self.after(prompt, text) for prompt, text in zip(prompts, whole, strict=True)]

    def _end(self, row: list[int], prompt: int, stopped: int | None) -> int:
        """Return the length of a row without what generate puts after a finished one."""
        ended = next((i + 1 for i in range(prompt, len(row)) if row[i] in self.ends), len(row))
        return min(ended, stopped or ended)

    def texts(self, rows: Tensor | list[list[int]]) -> list[str]:
        """Return the text of rows of tokens, special ones left out."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def after(self, prompt: str, whole: str) -> str:
        """Return what follows a prompt in the text of all tokens.

        Raises:
            ModelError: the tokenizer writes the prompt otherwise when more follows.
        """
        if not whole.startswith(prompt):
            raise ModelError(
                f"The tokenizer of '{self.model.name}' was asked for what follows {prompt[-40:]!r}, found "
                f"{whole[-60:]!r}, which does not begin so; drop the prompt or use a tokenizer that decodes in order."
            )
        return whole[len(prompt) :]


class _Watch(StoppingCriteria):
    """Marks the rows that have met the stop, and remembers at what length."""

    def __init__(self, decoder: _Decoder, prompts: list[str]):
        self.decoder, self.prompts = decoder, prompts
        self.ends: list[int | None] = [None] * len(prompts)

    def __call__(self, input_ids: Tensor, scores: object, **kwargs: object) -> Tensor:
        """Return which rows are done."""
        going = [i for i, end in enumerate(self.ends) if end is None]
        for i, text in zip(going, self.decoder.texts(input_ids[going]), strict=True):
            if self.decoder.stop.search(self.decoder.after(self.prompts[i], text)):
                self.ends[i] = input_ids.shape[1]
        return torch.tensor([end is not None for end in self.ends], device=input_ids.device)


# -- what is finished, on disk


class _Writer:
    """Finished prompts of one model, length and stop."""

    def __init__(self, model: Model, max_new_tokens: int, stop: str | None, cache: Path):
        about = {"model": model.name, "digest": _fingerprint(model), "max_new_tokens": max_new_tokens, "stop": stop}
        self.folder = cache / content_key(**{k: v for k, v in about.items() if k != "model"})[:16]
        if cache.exists() and not cache.is_dir():
            raise StoreError(f"Completions were to be kept in '{cache}', found a file there; give a folder.")
        write_atomic(self.folder / "about.json", json.dumps(about, indent=2, ensure_ascii=False).encode())
        self.held: dict[str, str] = {}
        self.batches, self.since = 0, time.monotonic()

    def known(self, wanted: set[str]) -> dict[str, str]:
        """Return the finished ones of some prompts."""
        found: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            data = path.read_bytes()
            if digest(data) != path.stem:
                raise StoreError(
                    f"Completions in '{path}' are damaged: their checksum is {digest(data)[:8]}, the file's name says "
                    f"{path.stem[:8]}; delete the file, and its prompts are asked again."
                )
            columns = table_from(data).to_pydict()
            pairs = zip(columns["prompt"], columns["completion"], strict=True)
            found |= {prompt: text for prompt, text in pairs if prompt in wanted}
        return found

    def add(self, found: dict[str, str]) -> None:
        """Hold the completions of a batch; write a part when there are enough or it is time."""
        self.held |= found
        self.batches += 1
        if self.batches >= _BATCHES or time.monotonic() - self.since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self.held:
            rows = {"prompt": list(self.held), "completion": list(self.held.values())}
            data = table_bytes("completions", table_of("completions", rows, []))
            write_atomic(self.folder / f"{digest(data)}.parquet", data)
        self.held, self.batches, self.since = {}, 0, time.monotonic()


def _fingerprint(model: Model) -> str:
    """Return a digest of what completions depend on: weights, tokenizer, settings of generation.

    Raises:
        ModelError: weights are offloaded, so that they hold no numbers here.
    """
    offloaded = next((name for name, p in model.module.named_parameters() if p.device.type == "meta"), None)
    if offloaded:
        raise ModelError(
            f"A cache of '{model.name}' was asked for, found '{offloaded}' offloaded by device_map; complete without a "
            "cache, or load the model onto a device."
        )
    core = getattr(model.tokenizer, "backend_tokenizer", None)
    words = json.loads(core.to_str()) if core is not None else sorted(model.tokenizer.get_vocab().items())
    if core is not None:  # how the last caller padded
        words |= {"padding": None, "truncation": None}
    settings = model.module.generation_config.to_json_string()
    return content_key(weights=weights_digest(model.module), type=str(model.dtype), tokenizer=words, settings=settings)
