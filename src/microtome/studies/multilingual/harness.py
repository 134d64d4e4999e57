"""The same questions asked by EleutherAI's lm-evaluation-harness, as a second opinion on the direct scorer.

    folder/microtome_xcopa_et.yaml     a task lm-eval runs by itself:  lm_eval run --tasks microtome_xcopa_et
           microtome_xcopa_et.jsonl    its questions                            --include_path folder --model hf ...

One task a benchmark and language. Nothing is downloaded: a task reads the JSON beside it, the model is a local folder.
lm-eval is called below its command line, since that one sets global seeds and asks git and pip about the machine; its
bars and log lines are kept from the screen. lm-eval >= 0.4.13 comes with `pip install microtome[eval]`.
"""

import importlib.util
import io
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from microtome.core.errors import ConfigError, DataError
from microtome.core.files import write_atomic
from microtome.data.benchmarks import Choice

__all__ = ["HarnessRun", "run_harness", "write_tasks"]

_PREFIX, _CACHE = "microtome", "cache"


@dataclass(frozen=True)
class HarnessRun:
    """What lm-eval found.

    Attributes:
        accuracies: a row a task: benchmark, language, acc, acc_norm (None where contexts differ), n.
        options: a row an option: benchmark, language, id, option, log_likelihood (nats).
    """

    accuracies: list[dict]
    options: list[dict]


def write_tasks(choices: Sequence[Choice], folder: Path | str) -> dict[tuple[str, str], str]:
    """Write tasks that lm-eval reads, and return (benchmark, language) -> the name of its task.

    Args:
        choices: of any benchmarks and languages.
        folder: takes two files a task.

    Raises:
        DataError: no questions, an id twice in a task, or a task that mixes one context with several.
    """
    by_task: dict[tuple[str, str], list[Choice]] = defaultdict(list)
    for choice in choices:
        by_task[choice.benchmark, choice.language].append(choice)
    if not by_task:
        raise DataError("Tasks of no questions were asked for; give at least one.")
    names = {}
    for (benchmark, language), held in by_task.items():
        names[benchmark, language] = name = f"{_PREFIX}_{benchmark}_{language}"
        _refuse_mixed(held, name)
        _write_task(held, name, Path(folder).resolve())
    return names


def run_harness(
    model: Path | str,
    choices: Sequence[Choice],
    folder: Path | str,
    *,
    batch: int = 32,
    device: str = "cpu",
    dtype: str = "float32",
) -> HarnessRun:
    """Return lm-eval's accuracies and log-likelihoods of some questions.

    Args:
        model: folder written by `save_pretrained`, with the tokenizer.
        choices: of any benchmarks and languages.
        folder: takes the tasks.
        batch: options in one pass.
        device: to run on.
        dtype: of the weights.

    Raises:
        ConfigError: lm-eval is not installed.
        DataError: no such folder of a model, or what `write_tasks` refuses.

    Example:
        there = run_harness("model", choices, "tasks")
        agreement(there, score_choices(Model.load("model"), choices))
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-evaluation-harness was asked for, found no package lm_eval; pip install microtome[eval].")
    if not (Path(model) / "config.json").is_file():
        raise DataError(f"lm-eval was to run '{model}', found no config.json in it; give a folder of save_pretrained.")
    names = write_tasks(choices, folder)
    try:
        with _quiet():
            found = _evaluated(str(model), list(names.values()), Path(folder), batch, device, dtype)
    finally:
        shutil.rmtree(Path(folder) / _CACHE, ignore_errors=True)  # of `datasets`, good for one run
    accuracies, options = [], []
    for (benchmark, language), name in names.items():
        own = {"benchmark": benchmark, "language": language}
        result, samples = found["results"][name], found["samples"][name]
        accuracies.append(own | {"acc": result["acc,none"], "acc_norm": result.get("acc_norm,none"), "n": len(samples)})
        options += [
            own | {"id": sample["doc"]["id"], "option": k, "log_likelihood": float(log_likelihood)}
            for sample in samples
            for k, (log_likelihood, _) in enumerate(sample["filtered_resps"])
        ]
    return HarnessRun(accuracies, options)


def _evaluated(model: str, names: list[str], folder: Path, batch: int, device: str, dtype: str) -> dict:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder), include_defaults=False).load(names)
    asked = HFLM(pretrained=model, device=device, dtype=dtype, batch_size=batch)
    return evaluate(lm=asked, task_dict=tasks, bootstrap_iters=0, log_samples=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and log lines of lm-eval and `datasets` from the screen; errors still fly."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _refuse_mixed(held: Sequence[Choice], name: str) -> None:
    """Refuse what one task cannot hold."""
    ids = [choice.id for choice in held]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"Task {name} has two questions called '{twice}'; give each an id of its own.")
    if len({len(choice.contexts) > 1 for choice in held}) > 1:
        raise DataError(f"Task {name} mixes questions of one context with questions of several; part them.")


def _write_task(held: Sequence[Choice], name: str, folder: Path) -> None:
    import yaml

    delimiters = {choice.delimiter for choice in held}
    common = delimiters.pop() if len(delimiters) == 1 else ""  # where they differ, each ending brings its own
    several = len(held[0].contexts) > 1
    rows = [_row(choice, several, common) for choice in held]
    data = folder / f"{name}.jsonl"
    write_atomic(data, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    fields = {"doc_to_text": "answer", "doc_to_choice": "contexts", "doc_to_target": "ending"}
    if not several:
        fields = {"doc_to_text": "context", "doc_to_choice": "endings", "doc_to_target": "answer"}
    metrics = ["acc"] if several else ["acc", "acc_norm"]
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / _CACHE)},
        "test_split": "test",
        "output_type": "multiple_choice",
        **fields,
        "target_delimiter": common,
        "num_fewshot": 0,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
        "metadata": {"version": 1.0},
    }
    write_atomic(folder / f"{name}.yaml", yaml.safe_dump(task, allow_unicode=True, sort_keys=False).encode())


def _row(choice: Choice, several: bool, common: str) -> dict:
    """Return a question as lm-eval's task reads it."""
    own = choice.delimiter.removeprefix(common)
    endings = [own + ending for ending in choice.endings]
    row = {"id": choice.id, "answer": choice.answer}
    if several:
        return row | {"contexts": list(choice.contexts), "ending": endings[0]}
    return row | {"context": choice.contexts[0], "endings": endings}
