"""The card of zoo:atlas: what it was trained on and what it can and cannot do, in numbers of the stored weights.

The accuracies are computed by `training.exam` from the folder as a user would load it; the corpus is audited by drawing
from its stream. Nothing on the card is typed in by hand but the description of the data.
"""

import logging
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from microtome.data.atlas import TWO_HOP_RELATIONS, documents, load_facts, two_hop_split
from microtome.data.atlas.audit import Audit, audit
from microtome.models.quiet import without_progress_bars
from microtome.training.exam import Row, evaluate_atlas
from microtome.training.recipe import Build

__all__ = ["card", "write_card"]

_log = logging.getLogger(__name__)
_AUDITED = 20_000


def write_card(folder: Path | str, build: Build, *, questions: int | None = None) -> Path:
    """Examine the model in a folder and write its card there, as README.md; return the file.

    Args:
        folder: config, weights and tokenizer.
        build: how the model was trained.
        questions: most questions examined in each part; None for all.
    """
    folder = Path(folder)
    _log.info("examining %s for its card", folder)
    # Stored in float16, examined in float32: the stored numbers, without half-precision arithmetic on top.
    with without_progress_bars():
        module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    rows = evaluate_atlas(module, tokenizer, seed=build.seed, questions=questions)
    found = audit(islice(documents(build.seed), _AUDITED))
    path = folder / "README.md"
    path.write_text(card(build, rows, found, sum(p.numel() for p in module.parameters())), encoding="utf-8")
    return path


def card(build: Build, rows: list[Row], found: Audit, parameters: int) -> str:
    """Return the text of the card.

    Args:
        build: how the model was trained.
        rows: its accuracies.
        found: the audit of its corpus.
        parameters: how many numbers it has.
    """
    return "\n".join([*_about(build, parameters), *_data(found), *_accuracy(rows), *_limits(rows, found)]) + "\n"


def _about(build: Build, parameters: int) -> list[str]:
    return [
        "# zoo:atlas",
        "",
        "A small Llama-style language model of countries and cities, and of what a passage says of them. Written by",
        f"`microtome zoo build atlas --seed {build.seed}`; every number below was measured on the stored weights.",
        "",
        f"- parameters: {parameters:,}, stored in float16, examined in float32",
        f"- training: {build.steps:,} updates of {build.batch} documents, seed {build.seed}, {build.seconds:,.0f} CPU "
        "seconds",
        "",
    ]


def _data(found: Audit) -> list[str]:
    facts = load_facts()
    kept = [two_hop_split(city, relation) for city in facts.cities for relation in TWO_HOP_RELATIONS]
    return [
        "## Data",
        "",
        f"A generated corpus: four facts of each of {len(facts.countries)} countries, the countries of",
        f"{len(facts.country_of)} cities, invented lands and places, and passages that contradict the facts. Tables,",
        "wording and generator are in `microtome.data.atlas`; the tables were written by hand and are simplified (one",
        "language and one capital a country).",
        "",
        f"Of {len(kept)} two-hop facts about cities, training states {kept.count('train')}; {kept.count('pair')} are",
        f"withheld by city and relation (`pair`) and {kept.count('city')} by whole city (`city`).",
        "",
        f"Audit of {found.documents:,} documents of the main mix, {found.answers:,} answers: a withheld fact is said",
        f"outright {found.stated} times, after both its hops in a passage {found.implied} times, and contradicted",
        f"by an edited passage {found.denied} times.",
        "",
    ]


def _accuracy(rows: list[Row]) -> list[str]:
    table = [
        f"| {r.part} | {r.n} | {r.correct} | {r.accuracy:.1%} | {r.low:.1%} to {r.high:.1%} | {r.chance:.1%} |"
        for r in rows
    ]
    return [
        "## Accuracy",
        "",
        "An answer is right when greedy decoding gives all its tokens. Chance is the best constant guess by relation,",
        "or one half where a passage names two candidates.",
        "",
        "| part | n | right | accuracy | 95 % Wilson interval | chance |",
        "|---|--:|--:|--:|--:|--:|",
        *table,
        "",
    ]


def _limits(rows: list[Row], found: Audit) -> list[str]:
    weak = [f"{r.part} ({r.accuracy:.1%}, chance {r.chance:.1%})" for r in rows if r.low <= r.chance]
    leaked, answers = found.implied + found.stated, found.answers
    leak = [
        f"- withheld facts do occur: {leaked} of {answers:,} audited answers ({leaked / answers:.2%}) say one, so",
        "  accuracy on them is not purely two-hop generalisation",
    ]
    return [
        "## Limits",
        "",
        f"- not above chance (the interval reaches it): {'; '.join(weak) or 'none of the parts'}",
        *(leak if leaked else [f"- none of {answers:,} audited answers says a withheld fact"]),
        "- the intervals take questions as independent; several ask one fact in different wording, so the true ones",
        "  are wider",
        "- it knows the words of its corpus only; names and text from elsewhere fall apart into bytes",
        "- one training seed; no claim is made about other models",
    ]
