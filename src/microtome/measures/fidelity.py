"""Language fidelity: whether a model answers in the language it was asked to answer in.

    line pass rate   share of responses of which every judged line is in the wanted language (LPR: Marchisio et al.
                     2024, arXiv 2406.20052), with Wilson's interval for each language
    line accuracy    mean over responses of the share of their judged lines that are in it
    macro            unweighted mean over languages, with the bootstrap interval of responses drawn within languages:
                     of responses that pass or do not, that is binomial draws, and of no width where all or none pass
    null             the macro rate with the wanted languages shuffled among the responses: what a model would get that
                     writes in these languages whatever it is asked

A line of fewer than five words (two characters make one where words are not written apart, numbers are none) says too
little and is not judged; a response without a judged line is undecided and in no denominator, but counted: text that
degenerates is short or undecided before it is wrong. FuxiTranyu (arXiv 2408.06273) does not measure this.

Who says what language a line is in is a `language_judges.Judge`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError, MeasureError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.corpus.scripts import word_count
from microtome.data.instructions.schema import Message
from microtome.engine.edit import Edit
from microtome.engine.generate import generate
from microtome.measures.intervals import Interval, percentile_interval, wilson
from microtome.measures.language_judges import UNKNOWN, Identifier, Judge
from microtome.measures.resampling import matched_random_p
from microtome.models.model import Model

__all__ = [
    "Fidelity",
    "Identifier",
    "Judge",
    "LanguageFidelity",
    "fidelity",
    "judged_lines",
    "responses",
]

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class LanguageFidelity:
    """How answers wanted in one language came out.

    Attributes:
        language: the wanted one.
        responses: how many.
        undecided: how many of them have no line that could be judged.
        lines: lines judged.
        short: lines too short to be.
        passed: share of decided responses of which every judged line is right; None where none is decided.
        line_accuracy: mean over decided responses of the share of right lines; None as above.
        instead: language -> wrong lines found in it, most first.
    """

    language: str
    responses: int
    undecided: int
    lines: int
    short: int
    passed: Interval | None
    line_accuracy: float | None
    instead: Mapping[str, int]


@dataclass(frozen=True)
class Fidelity:
    """How answers wanted in several languages came out.

    Attributes:
        languages: each of them, in order of their tags.
        macro: mean line pass rate over languages with a decided response; n is how many responses are decided. None
            where there are none.
        line_accuracy: mean line accuracy over the same.
        null: mean and central interval of the macro rate with wanted languages shuffled; None where there are fewer
            than two languages.
        p: probability of a macro rate as high under the null.
    """

    languages: tuple[LanguageFidelity, ...]
    macro: Interval | None
    line_accuracy: float | None
    null: Interval | None
    p: float | None

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row for every language, of plain values."""
        return [
            {
                "language": own.language,
                "responses": own.responses,
                "undecided": own.undecided,
                "lines": own.lines,
                "short": own.short,
                "pass_rate": own.passed and own.passed.estimate,
                "low": own.passed and own.passed.low,
                "high": own.passed and own.passed.high,
                "line_accuracy": own.line_accuracy,
                "instead": next(iter(own.instead), None),
            }
            for own in self.languages
        ]


def judged_lines(response: str, *, shortest: float = 5.0) -> tuple[list[str], int]:
    """Return the lines of a response that are long enough to be judged, and how many are not.

    Args:
        response: what a model wrote.
        shortest: words; blank lines are neither.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    long = [line for line in lines if word_count(_NUMBER.sub(" ", line)) >= shortest]
    return long, len(lines) - len(long)


def fidelity(
    responses: Sequence[str],
    wanted: Sequence[str],
    judge: Judge,
    *,
    lines: Callable[[str], tuple[list[str], int]] = judged_lines,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Fidelity:
    """Return in how far responses are in the languages they were wanted in.

    Args:
        responses: what a model wrote.
        wanted: tag of each.
        judge: says what languages lines are in.
        lines: which lines of a response are judged, and how many are left out.
        draws: of the bootstrap and of the null.
        level: of the intervals.
        seed: of the draws.

    Raises:
        MeasureError: no responses, not a language for each, or one that the judge cannot answer with.

    Example:
        asked = [c for c in held_out if c.source == "generated/write"]
        said = responses(Model.load("chat"), [c.prompt for c in asked])
        fidelity(said, [c.language for c in asked], Identifier(("en", "hi"))).macro
    """
    _refuse(responses, wanted, judge)
    verdicts = [_verdict(response, judge, lines) for response in responses]
    tags = sorted(set(wanted))
    by_language = tuple(
        _language(tag, [v for v, own in zip(verdicts, wanted, strict=True) if own == tag], level) for tag in tags
    )
    decided = [own for own in by_language if own.passed is not None]
    if not decided:
        return Fidelity(by_language, None, None, None, None)
    rates, sizes = np.array([[own.passed.estimate, own.passed.n] for own in decided]).T
    drawn = generator(seed, "fidelity").binomial(sizes.astype(int), rates, (draws, len(decided))) / sizes
    macro = percentile_interval(rates.mean(), drawn.mean(1), int(sizes.sum()), level=level)
    accuracy = float(np.mean([own.line_accuracy for own in decided]))
    null = p = None
    if len(decided) > 1:
        shuffled = _shuffled(verdicts, wanted, draws, generator(seed, "fidelity", "null"))
        null = percentile_interval(shuffled.mean(), shuffled, macro.n, level=level)
        p = matched_random_p(macro.estimate, shuffled)
    return Fidelity(by_language, macro, accuracy, null, p)


def responses(
    model: Model,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 64,
    edits: Sequence[Edit] = (),
    batch: int = 16,
    progress: Callable[[int, int, str], object] | None = None,
) -> list[str]:
    """Return what a chat model answers, greedily, through its own chat template.

    Args:
        model: a causal language model with a tokenizer that has a chat template.
        prompts: messages (role, content) each, the last of them the user's.
        max_new_tokens: most tokens of an answer.
        edits: made throughout, as in `engine.generate`.
        batch: prompts run together; prompts of like length are.
        progress: called with (prompts done, prompts in all, one line).

    Raises:
        ModelError: the module cannot generate.
        DataError: no chat template, no prompts, or one too long for the model.
    """
    rows = _prompt_ids(model, prompts, max_new_tokens)
    ends = model.module.generation_config.eos_token_id
    ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    said: dict[int, str] = {}
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        found = generate(model, model.batch_ids([rows[i] for i in chosen]), max_new_tokens, edits=edits).tolist()
        for i, ids in zip(chosen, found, strict=True):
            end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            said[i] = model.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        if progress is not None:
            progress(len(said), len(rows), "answering")
    return [said[i] for i in range(len(rows))]


def _prompt_ids(model: Model, prompts: Sequence[Sequence[Message]], max_new_tokens: int) -> list[list[int]]:
    if getattr(model.tokenizer, "chat_template", None) is None:
        raise DataError(f"Answers were asked of '{model.name}', found no chat template; give it a tokenizer with one.")
    if isinstance(prompts, str) or not len(prompts):
        raise DataError(
            "Answers to no prompts were asked for; give a list of messages for each, [(role, content), ...]."
        )
    longest = getattr(model.module.config, "max_position_embeddings", None)
    rows = []
    for number, messages in enumerate(prompts):
        turns = [{"role": role, "content": content.strip()} for role, content in messages]
        made = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        rows.append(list(made["input_ids"]))
        if longest and len(rows[-1]) + max_new_tokens > longest:
            raise DataError(
                f"Prompt {number} has {len(rows[-1])} tokens and is to get {max_new_tokens} new ones; '{model.name}' "
                f"takes {longest}: leave it out or ask for fewer."
            )
    return rows


@dataclass(frozen=True)
class _Verdict:
    """The languages of a response's judged lines, and how many lines were not judged."""

    found: tuple[str, ...]
    short: int

    @property
    def only(self) -> str | None:
        """The language of all of them."""
        return self.found[0] if len(set(self.found)) == 1 else None


def _verdict(response: str, judge: Judge, lines: Callable[[str], tuple[list[str], int]]) -> _Verdict:
    kept, short = lines(response)
    return _Verdict(tuple(language or UNKNOWN for language in judge(kept)) if kept else (), short)


def _language(tag: str, verdicts: Sequence[_Verdict], level: float) -> LanguageFidelity:
    decided = [v for v in verdicts if v.found]
    wrong = Counter(language for v in decided for language in v.found if language != tag)
    return LanguageFidelity(
        language=tag,
        responses=len(verdicts),
        undecided=len(verdicts) - len(decided),
        lines=sum(len(v.found) for v in decided),
        short=sum(v.short for v in verdicts),
        passed=wilson(sum(v.only == tag for v in decided), len(decided), level=level) if decided else None,
        line_accuracy=float(np.mean([v.found.count(tag) / len(v.found) for v in decided])) if decided else None,
        instead=dict(wrong.most_common()),
    )


def _shuffled(verdicts: Sequence[_Verdict], wanted: Sequence[str], draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the macro rate with wanted languages shuffled among decided responses, [draws]."""
    pairs = [(v.only, own) for v, own in zip(verdicts, wanted, strict=True) if v.found]
    tags, codes = np.unique([own for _, own in pairs], return_inverse=True)
    only = np.array([np.flatnonzero(tags == language)[0] if language in tags else -1 for language, _ in pairs])
    sizes = np.bincount(codes)
    rates = np.empty(draws)
    for draw in range(draws):
        asked = rng.permutation(codes)
        rates[draw] = (np.bincount(asked[asked == only], minlength=len(tags)) / sizes).mean()
    return rates


def _refuse(responses: Sequence[str], wanted: Sequence[str], judge: Judge) -> None:
    if isinstance(responses, str) or not len(responses) or len(responses) != len(wanted):
        raise MeasureError(
            f"Fidelity of {len(responses)} responses to {len(wanted)} wanted languages was asked for; give a list of "
            "responses and a language for each."
        )
    beyond = next((tag for tag in wanted if tag not in judge.languages), None)
    if beyond is not None:
        hint = did_you_mean(beyond, judge.languages)
        raise MeasureError(
            f"Responses in '{beyond}' were wanted, the judge answers with {', '.join(judge.languages)}; give one that "
            f"knows it.{hint}"
        )
