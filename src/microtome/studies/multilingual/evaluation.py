"""Evaluation, beside what the numbers have to beat: bits per byte and questions in every language, and two scorers.

    bits per byte    of parallel text, so that languages are scored on the same content; beside it the untrained twin,
                     the best unigram model of the same sentences, and raw bytes (8). Intervals resample sentences,
                     the same ones in all languages at once, so that mean and worst language have intervals too
    questions        accuracy by benchmark and language with Wilson's interval, chance, the twin's accuracy, and an
                     exact McNemar test of the two on the same questions (p over the questions that one alone answers,
                     binomial; q is Benjamini and Hochberg's over all cells). Where a corpus was searched for the
                     questions, the share it holds
    agreement        lm-evaluation-harness against our own scorer, question by question

arXiv 2408.06273 (section 5, appendix B) gives means without any of these.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.benchmarks import Choice
from microtome.data.corpus.decontaminate import Contamination
from microtome.measures.bits import TextBits, text_bits, unigram_bits
from microtome.measures.choices import Scored, accuracy, chance, score_choices
from microtome.measures.intervals import percentile_interval
from microtome.measures.multiplicity import benjamini_hochberg
from microtome.measures.resampling import bootstrap_weights
from microtome.models.model import Model
from microtome.records import StageOutput, Told
from microtome.studies.multilingual.harness import HarnessRun

__all__ = ["agreement", "bits_by_language", "option_rows", "questions"]

UNIFORM_BYTES = 8.0
"""Bits per byte of a model that knows nothing of text."""


def bits_by_language(
    model: Model,
    twin: Model,
    parallel: Mapping[str, Sequence[str]],
    told: Told = lambda _: None,
    *,
    overlap: int = 0,
    draws: int = 2000,
    seed: int = 0,
) -> StageOutput:
    """Bits per byte of each language, their mean and the worst, with intervals and what they have to beat.

    Args:
        model: the model.
        twin: an untrained model of the same shape.
        parallel: language -> its lines, the same number of each.
        told: takes the share that is done.
        overlap: of the windows of a text longer than the model takes.
        draws: resamples of the sentences.
        seed: of the resamples.

    Returns:
        Table `bits`, a row a language; values of the mean and the worst.

    Raises:
        DataError: fewer than two lines, or languages with different numbers of lines.
    """
    sizes = sorted({len(lines) for lines in parallel.values()})
    if len(sizes) != 1 or sizes[0] < 2:
        raise DataError(
            f"Parallel text should have as many lines in each language, 2 or more, found {sizes}; align it."
        )
    found: dict[str, TextBits] = {}
    untrained: dict[str, TextBits] = {}
    for k, (language, lines) in enumerate(parallel.items()):
        found[language] = text_bits(model, lines, overlap=overlap)
        told((k + 0.5) / len(parallel))
        untrained[language] = text_bits(twin, lines, overlap=overlap)
        told((k + 1) / len(parallel))
    weights = bootstrap_weights((), sizes[0], draws=draws, rng=generator(seed, "bits"))
    drawn = {language: bits.resampled(weights) for language, bits in found.items()}
    rows = [
        _bits_row(language, bits, drawn[language], untrained[language], unigram_bits(model, parallel[language]))
        for language, bits in found.items()
    ]
    return StageOutput(tables={"bits": rows}, values=_summary(found, untrained, drawn, sizes[0]))


def _bits_row(language: str, bits: TextBits, drawn: np.ndarray, untrained: TextBits, unigram: float) -> dict:
    interval = percentile_interval(bits.per_byte, drawn, len(bits.bits))
    return {
        "language": language,
        "bits_per_byte": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "unigram": unigram,
        "untrained": untrained.per_byte,
        "uniform_bytes": UNIFORM_BYTES,
        "below_unigram": interval.high < unigram,
        "tokens": int(bits.tokens.sum()),
        "bytes": int(bits.bytes.sum()),
        "n": interval.n,
    }


def _summary(found: Mapping, untrained: Mapping, drawn: Mapping[str, np.ndarray], n: int) -> dict:
    """Return the mean over languages and the worst one; the interval of the worst is of whichever is, in a resample."""
    estimates, draws = np.array([bits.per_byte for bits in found.values()]), np.stack(list(drawn.values()))
    mean = percentile_interval(estimates.mean(), draws.mean(0), n)
    worst = percentile_interval(estimates.max(), draws.max(0), n)
    return {
        "bits_sentences": n,
        "bits_mean": mean.estimate,
        "bits_mean_low": mean.low,
        "bits_mean_high": mean.high,
        "bits_worst": worst.estimate,
        "bits_worst_low": worst.low,
        "bits_worst_high": worst.high,
        "bits_worst_language": list(found)[int(estimates.argmax())],
        "bits_mean_untrained": float(np.mean([bits.per_byte for bits in untrained.values()])),
    }


def questions(
    model: Model,
    twin: Model,
    choices: Sequence[Choice],
    told: Told = lambda _: None,
    *,
    contaminated: Iterable[Contamination] = (),
) -> StageOutput:
    """Accuracy on questions by benchmark and language, beside chance and the twin's.

    Args:
        model: the model.
        twin: an untrained model of the same shape.
        choices: of any benchmarks and languages.
        told: takes the share that is done.
        contaminated: how much of each set a corpus holds, named as `question_sets` names them; a set that was not
            looked for has no share.

    Returns:
        Tables `accuracy`, a row a benchmark and language, and `options`, a row an option, as `agreement` takes it.

    Raises:
        DataError: no questions, or what the scorer refuses.
    """
    ours = score_choices(model, choices, told=lambda share: told(share / 2))
    theirs = score_choices(twin, choices, told=lambda share: told((1 + share) / 2))
    held = {found.name: found.share for found in contaminated}
    pairs: dict[tuple[str, str], list[tuple[Scored, Scored]]] = defaultdict(list)
    for pair in zip(ours, theirs, strict=True):
        pairs[pair[0].choice.benchmark, pair[0].choice.language].append(pair)
    rows = [_accuracy_row(*name, cell, held.get(".".join(name))) for name, cell in pairs.items()]
    for row, q in zip(rows, benjamini_hochberg([row["p"] for row in rows]), strict=True):
        row["q"] = float(q)
    return StageOutput(tables={"accuracy": rows, "options": option_rows(ours)}, values={"questions": len(choices)})


def _accuracy_row(
    benchmark: str, language: str, pairs: Sequence[tuple[Scored, Scored]], contaminated: float | None
) -> dict:
    right, twin = (np.array([side.acc for side in column]) for column in zip(*pairs, strict=True))
    gained, lost = int((right & ~twin).sum()), int((twin & ~right).sum())
    found = accuracy(right)
    guess = chance([own.choice for own, _ in pairs])
    return {
        "benchmark": benchmark,
        "language": language,
        "acc": found.estimate,
        "low": found.low,
        "high": found.high,
        "acc_norm": float(np.mean([own.acc_norm for own, _ in pairs])),
        "acc_bytes": float(np.mean([own.acc_bytes for own, _ in pairs])),
        "chance": guess,
        "above_chance": found.low > guess,
        "untrained": float(twin.mean()),
        "gained": gained,
        "lost": lost,
        "p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        "contaminated": contaminated,
        "n": found.n,
    }


def option_rows(scored: Iterable[Scored]) -> list[dict]:
    """Return a row an option: benchmark, language, id, option, log_likelihood, tokens, right.

    Args:
        scored: from `score_choices`.
    """
    return [
        {
            "benchmark": one.choice.benchmark,
            "language": one.choice.language,
            "id": one.choice.id,
            "option": option,
            "log_likelihood": float(one.log_likelihoods[option]),
            "tokens": int(one.tokens[option]),
            "right": option == one.choice.answer,
        }
        for one in scored
        for option in range(one.choice.options)
    ]


def _by_question(rows: Iterable[Mapping]) -> dict[tuple[str, str, str], tuple[np.ndarray, int | None]]:
    """Return (benchmark, language, id) -> log-likelihoods of its options, and which is right where rows say so."""
    held: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    answers: dict[tuple[str, str, str], int] = {}
    for row in rows:
        name = (row["benchmark"], row["language"], row["id"])
        held[name][row["option"]] = row["log_likelihood"]
        if row.get("right"):
            answers[name] = row["option"]
    return {k: (np.array([found[i] for i in range(len(found))]), answers.get(k)) for k, found in held.items()}


def agreement(there: HarnessRun, ours: Iterable[Mapping]) -> StageOutput:
    """How far lm-evaluation-harness and our own scorer agree, by benchmark and language.

    Args:
        there: what lm-eval found.
        ours: rows of options, of `option_rows` or the table `options`; questions lm-eval was not asked are passed over.

    Returns:
        Table `agreement`: both accuracies on the same questions, on how many of these the two choose alike, and the
        largest difference of a log-likelihood.

    Raises:
        DataError: a question of lm-eval that was not scored here, or with other options.
    """
    own, rows = _by_question(ours), []
    theirs = _by_question(there.options)
    for result in there.accuracies:
        cell = {k: v for k, (v, _) in theirs.items() if k[:2] == (result["benchmark"], result["language"])}
        lost = next((k for k, v in cell.items() if k not in own or len(own[k][0]) != len(v)), None)
        if lost:
            raise DataError(
                f"lm-eval answered question {lost[2]} of {lost[0]} ({lost[1]}), which was not scored here with as many "
                "options; score the same questions."
            )
        alike = [int(v.argmax()) == int(own[k][0].argmax()) for k, v in cell.items()]
        acc = float(np.mean([int(own[k][0].argmax()) == own[k][1] for k in cell]))
        rows.append(
            {
                "benchmark": result["benchmark"],
                "language": result["language"],
                "harness": result["acc"],
                "ours": acc,
                "chosen_alike": float(np.mean(alike)),
                "largest_difference": max(float(np.abs(v - own[k][0]).max()) for k, v in cell.items()),
                "n": len(cell),
            }
        )
    return StageOutput(
        tables={"agreement": rows},
        values={
            "harness_agrees": all(abs(r["harness"] - r["ours"]) < 1e-9 for r in rows),
            "harness_largest_difference": max(r["largest_difference"] for r in rows),
            "harness_questions": sum(r["n"] for r in rows),
        },
    )
