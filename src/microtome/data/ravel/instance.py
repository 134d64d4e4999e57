"""An instance: a table as one model knows it. Every prompt has a verdict, kept or not, and why.

The model's completions come in as data, `(template, entity) -> text`; asking a model is another room's work. A prompt
is kept where the completion says the table's value (`matching`) and the template does not name the entity among its
examples (`exemplar`: the answer could be copied). What the model said, not the table's spelling, becomes the label.
`gold_instance` takes every value as known, for planted worlds and for counting.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from microtome.core.errors import DataError, did_you_mean
from microtome.data.ravel.defects import exemplars
from microtome.data.ravel.matching import Rule, cut, match, rules_for
from microtome.data.ravel.prompts import fill
from microtome.data.ravel.tables import EntityTable, Template

__all__ = ["Answer", "Instance", "Verdict", "build_instance", "gold_instance", "keep_best"]

Key = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """What a model says to a prompt it knows.

    Attributes:
        label: its words.
        gap: what stands between the prompt and them.
        gold: the table's value.
    """

    label: str
    gap: str
    gold: str


@dataclass(frozen=True)
class Verdict:
    """One prompt's: kept or not, why, what was said and what the table says."""

    template: str
    entity: str
    attribute: str
    kept: bool
    reason: str
    said: str
    gold: str


@dataclass(frozen=True)
class Instance:
    """A table and what of it is known.

    Attributes:
        table: all entities and templates, known or not.
        verdicts: one a prompt that was asked; empty where the table is taken at its word.
        answers: by template and entity; None where the table is taken at its word.
        dropped: entities and templates that `keep_best` left out.
    """

    table: EntityTable
    verdicts: tuple[Verdict, ...] = ()
    answers: Mapping[Key, Answer] | None = None
    dropped: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Number of prompts by reason, kept and not."""
        return dict(Counter(v.reason for v in self.verdicts))

    @cached_property
    def leaks(self) -> dict[str, frozenset[str]]:
        """By template, the entities it names among its examples."""
        return _leaks(self.table)

    def answer(self, template: Template, entity: str) -> Answer | None:
        """Return what is said to a prompt, or None where it is not known."""
        if template.text in self.dropped or entity in self.dropped:
            return None
        if self.answers is not None:
            return self.answers.get((template.text, entity))
        gold = self.table.value(entity, template.attribute)
        if not gold.strip() or entity in self.leaks[template.text]:
            return None
        return Answer(gold, _gap(fill(template.text, entity)[0]), gold)


def build_instance(
    table: EntityTable, completions: Mapping[Key, str], *, rules: Mapping[str, Rule] | None = None
) -> Instance:
    """Return what a model knows of a table.

    Args:
        table: what is true.
        completions: by (template's text, entity's name), what the model wrote after the prompt; need not be complete.
        rules: by attribute, how answers are compared; `rules_for(table)` where not given.

    Raises:
        DataError: a template that stands twice, a completion to a template or entity the table has not, or none is
            kept.

    Example:
        instance = build_instance(table, {(p.template, p.entity): said for p, said in zip(asked, texts)})
    """
    rules, leaks = rules or rules_for(table), _leaks(table)
    templates = _by_text(table)
    verdicts, answers = [], {}
    for (text, entity), completion in completions.items():
        template = templates.get(text)
        if template is None or entity not in table.entity:
            raise DataError(_stranger(table, text, entity, template is None))
        verdict, gap = _verdict(table, template, entity, completion, rules, leaks)
        verdicts.append(verdict)
        if verdict.kept:
            answers[text, entity] = Answer(verdict.said, gap, verdict.gold)
    if not answers:
        counts = ", ".join(f"{n} {r}" for r, n in Counter(v.reason for v in verdicts).most_common())
        raise DataError(
            f"None of {len(verdicts)} prompts about '{table.entity_type}' is answered as the table says "
            f"({counts or 'nothing asked'}); use a model that knows these facts, or other data."
        )
    return Instance(table, tuple(verdicts), answers)


def gold_instance(table: EntityTable) -> Instance:
    """Return an instance in which every value is known and answered in the table's words."""
    return Instance(table)


def keep_best(instance: Instance, *, entities: int = 500, templates: int = 90) -> Instance:
    """Return an instance of the entities and templates with the largest share of kept prompts.

    Each split keeps its share of the places, so that none is emptied; ties go to the earlier in the table.

    Args:
        instance: built from completions.
        entities: how many are kept at most, but one a split.
        templates: the same.

    Raises:
        DataError: the instance takes the table at its word, so that there is nothing to rank.
    """
    if instance.answers is None:
        raise DataError("Asked for the best known of a table taken at its word; all is known: build an instance first.")
    table = instance.table
    rows = [(v.template, v.entity, v.kept) for v in instance.verdicts]
    lost = _worst({e.name: e.split for e in table.entities}, [(e, k) for _, e, k in rows], entities)
    lost |= _worst({t.text: t.split for t in table.templates}, [(t, k) for t, _, k in rows], templates)
    return Instance(table, instance.verdicts, instance.answers, frozenset(lost))


def _by_text(table: EntityTable) -> dict[str, Template]:
    found: dict[str, Template] = {}
    for template in table.templates:
        if template.attribute in table.asked and found.setdefault(template.text, template) != template:
            raise DataError(
                f"Template {template.text[-60:]!r} of '{table.entity_type}' stands twice, so a completion could be to "
                "either; use the cleaned view."
            )
    return found


def _verdict(
    table: EntityTable,
    template: Template,
    entity: str,
    completion: str,
    rules: Mapping[str, Rule],
    leaks: Mapping[str, frozenset[str]],
) -> tuple[Verdict, str]:
    gold = table.value(entity, template.attribute)
    said = match(rules[template.attribute], completion, gold)
    named = entity in leaks[template.text]
    reason = "exemplar" if named else said.reason
    # The gap is what `cut` takes off the front: a space, an opening quote, or both.
    gap = completion[: completion.index(cut(completion)[0])]
    kept = said.kept and not named
    return Verdict(template.text, entity, template.attribute, kept, reason, said.said, gold), gap


def _leaks(table: EntityTable) -> dict[str, frozenset[str]]:
    names = tuple(table.entity)
    return {t.text: frozenset(exemplars(t.text, names)) for t in table.templates}


def _gap(prompt: str) -> str:
    """Return what a writer puts before the answer: nothing after a space, an opening quote or bracket, else a space."""
    return "" if prompt[-1:].isspace() or prompt[-1:] in "\"'“«([/" or prompt.endswith(("UTC", "GMT")) else " "


def _stranger(table: EntityTable, text: str, entity: str, template: bool) -> str:
    asked, known = (text, [t.text for t in table.templates]) if template else (entity, list(table.entity))
    noun = "template" if template else "entity"
    return (
        f"A completion is for the {noun} {asked[-60:]!r}, which '{table.entity_type}' has not, or no value for; give "
        f"completions to the table's own prompts.{did_you_mean(asked, known)}"
    )


def _worst(splits: Mapping[str, str], kept: list[tuple[str, bool]], places: int) -> set[str]:
    """Return the names that do not get a place."""
    asked, known = Counter(n for n, _ in kept), Counter(n for n, k in kept if k)
    lost: set[str] = set()
    for split in dict.fromkeys(splits.values()):
        names = [n for n, s in splits.items() if s == split]
        ranked = sorted(names, key=lambda n: -known[n] / max(1, asked[n]))
        lost |= set(ranked[max(1, places * len(names) // len(splits)) :])
    return lost
