"""Pairs for interchange: a base prompt, a source prompt, and what each side of the split may use.

The base asks a template about an entity; the source carries another entity, in a prompt of one of three pools:

    output   it asks for the attribute the base asks for
    causal   it asks for another attribute, so the entity still matters, the question does not
    other    it asks for nothing: a Wikipedia prompt

`base_label` is the answer to the base, `cf_label` what the base's template would be answered about the source's
entity; both must be known. A pair is `cause` where the base asks the target attribute, else `isolate`. `control` pairs
carry the same entity, so whatever is swapped the answer stays. Pairs whose labels coincide show nothing: they are never
drawn, and counted.

Sides (train; `entity` with unseen entities, `context` with unseen templates, on val or test):

    train          train templates, train entities
    entity-val     train templates, val entities        entity-test    the same with test entities
    context-val    val templates, train entities        context-test   the same with test templates

Base and source entities come from the same side, so no entity and no template crosses. Both are drawn with weights
1/(c + count of its label), c = 10, on the context sides 20 (as the released generator does), which flattens frequent
answers without hiding rare ones.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.pairs import Pair, PairSet
from microtome.data.ravel.instance import Answer, Instance
from microtome.data.ravel.power import Drawing, PowerReport, power
from microtome.data.ravel.prompts import fill
from microtome.data.ravel.tables import Template

__all__ = ["POOLS", "SIDES", "Drawn", "cap", "draw_pairs", "retarget"]

POOLS = ("output", "causal", "other")

SIDES = ("train", "entity-val", "entity-test", "context-val", "context-test")

_BASES = {"train": 10, "entity": 256, "context": 256}
_SMOOTHING = {"train": 10, "entity": 10, "context": 20}


class Drawn(NamedTuple):
    """The pairs of one side, and what can be told with them."""

    pairs: PairSet
    power: PowerReport


def draw_pairs(
    instance: Instance,
    *,
    target: str,
    side: str = "train",
    pools: Iterable[str] = POOLS,
    bases: int | None = None,
    sources: int = 1,
    controls: int = 0,
    seed: int = 0,
) -> Drawn:
    """Return the pairs of one side of the split, for one target attribute.

    Groups: entity, template, cell (the attribute asked), side, pool, source_entity, source_template. The draw does not
    depend on the target, so `retarget` gives another attribute's pairs.

    Args:
        instance: what is known.
        target: the attribute whose pairs are `cause`.
        side: one of `SIDES`.
        pools: where sources come from.
        bases: entities a template; 10 in training, 256 elsewhere, where not given.
        sources: of each pool a base.
        controls: pairs a template that carry the base's own entity.
        seed: of every draw.

    Raises:
        DataError: unknown target, side or pool, or no pair survives.

    Example:
        pairs, power = draw_pairs(instance, target="Country", side="entity-test")
    """
    instance.table.known(target)
    pools = _known(tuple(pools), POOLS, "pool")
    (side,) = _known((side,), SIDES, "side")
    world = _Side.of(instance, side)
    pairs: dict[tuple[str, str], Pair] = {}
    drawings = []
    for template in world.templates:
        drawer = _Drawer(world, template, target, bases or _BASES[world.scheme], seed)
        for pair in (*drawer.pairs(pools, sources), *drawer.controls(controls)):
            pairs.setdefault((pair.base, pair.source), pair)
        drawings += drawer.drawings
    if not pairs:
        raise DataError(_nothing(side, target, drawings))
    made = PairSet(tuple(pairs.values()))
    return Drawn(made, power(made, drawings))


def retarget(pairs: PairSet, target: str) -> PairSet:
    """Return the same pairs for another target attribute: its own are `cause`, the others `isolate`.

    Raises:
        DataError: no pair asks for it.
    """
    asked = sorted({p.groups["cell"] for p in pairs})
    if target not in asked:
        raise DataError(f"No pair asks for '{target}'; these ask for {', '.join(asked)}.{did_you_mean(target, asked)}")
    return PairSet(tuple(p if p.kind == "control" else replace(p, kind=_kind(p.groups["cell"], target)) for p in pairs))


def cap(pairs: PairSet, *, cause: int = 20_000, isolate: int = 5_000, seed: int = 0) -> PairSet:
    """Return at most so many pairs of the target attribute, and of each attribute to be left alone, in their order.

    Args:
        pairs: of one target; controls are kept.
        cause: pairs that ask for the target.
        isolate: pairs that ask for each other attribute.
        seed: of the draw.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        found.setdefault((pair.kind, pair.groups["cell"]), []).append(index)
    kept: set[int] = set()
    for (kind, cell), members in found.items():
        limit = {"cause": cause, "isolate": isolate}.get(kind, len(members))
        rng = generator(seed, "cap", kind, cell)
        kept |= set(members if len(members) <= limit else rng.choice(members, limit, replace=False).tolist())
    return PairSet(tuple(p for i, p in enumerate(pairs) if i in kept))


def _kind(attribute: str, target: str) -> str:
    return "cause" if attribute == target else "isolate"


def _known(names: tuple[str, ...], known: tuple[str, ...], noun: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise DataError(f"No {noun} '{name}'; there are {', '.join(known)}: use these.{did_you_mean(name, known)}")
    return names


def _nothing(side: str, target: str, drawings: list[Drawing]) -> str:
    known, same = sum(d.known for d in drawings), sum(d.coincidences for d in drawings)
    candidates = sum(d.candidates for d in drawings)
    return (
        f"No pair survives on side '{side}' for '{target}': {known} known base prompts, {candidates} candidate pairs, "
        f"{same} of them with equal answers; ask more prompts, or use data the model knows."
    )


@dataclass(frozen=True)
class _Side:
    """What one side of the split may use."""

    instance: Instance
    name: str
    scheme: str
    templates: tuple[Template, ...]
    entities: tuple[str, ...]
    carriers: Mapping[str, tuple[str, ...]]
    anyone: tuple[str, ...]

    @classmethod
    def of(cls, instance: Instance, side: str) -> "_Side":
        scheme, _, split = side.partition("-")
        t_split = split if scheme == "context" else "train"
        e_split = split if scheme == "entity" else "train"
        wikipedia = instance.table.wikipedia_in(split or "train")
        carriers: dict[str, list[str]] = {}
        for prompt in wikipedia:
            if prompt.entity is not None:
                carriers.setdefault(prompt.entity, []).append(prompt.text)
        return cls(
            instance,
            side,
            scheme,
            instance.table.templates_in(t_split),
            tuple(e.name for e in instance.table.entities_in(e_split)),
            {e: tuple(texts) for e, texts in carriers.items()},
            tuple(w.text for w in wikipedia if w.entity is None),
        )

    def texts(self, pool: str, attribute: str, entity: str) -> tuple[str, ...]:
        """Return the templates of a pool that may carry an entity: none that names it among its examples."""
        if pool == "other":
            return (*self.carriers.get(entity, ()), *self.anyone)
        texts = self.asking[attribute, pool]
        if entity not in self.named:
            return texts
        return tuple(text for text in texts if entity not in self.instance.leaks[text])

    @cached_property
    def asking(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Templates by (attribute of the base, pool)."""
        made = {}
        for attribute in {t.attribute for t in self.templates}:
            for pool, same in (("output", True), ("causal", False)):
                texts = (t.text for t in self.templates if (t.attribute == attribute) == same)
                made[attribute, pool] = tuple(texts)
        return made

    @cached_property
    def named(self) -> frozenset[str]:
        """Entities that any template names among its examples."""
        return frozenset().union(*self.instance.leaks.values())


class _Drawer:
    """Draws the pairs of one base template."""

    def __init__(self, world: _Side, template: Template, target: str, bases: int, seed: int):
        self.world, self.template, self.target = world, template, target
        self.rng = generator(seed, "pairs", world.name, template.attribute, template.text)
        asked = [(e, world.instance.answer(template, e)) for e in world.entities]
        self.known: list[tuple[str, Answer]] = [(e, a) for e, a in asked if a is not None]
        self.codes = _codes([a for _, a in self.known])
        self.weights = 1.0 / (_SMOOTHING[world.scheme] + np.bincount(self.codes)[self.codes]) if self.known else None
        self.bases = self._draw(np.arange(len(self.known)), min(bases, len(self.known)), replace=False)
        self.drawings: list[Drawing] = []

    def pairs(self, pools: tuple[str, ...], sources: int) -> Iterator[Pair]:
        """Yield `sources` pairs of every pool for every base that any source contrasts with."""
        for pool in pools:
            texts = [self.world.texts(pool, self.template.attribute, e) for e, _ in self.known]
            able = np.array([bool(t) for t in texts], dtype=bool)
            bare = 0
            for code in np.unique(self.codes[self.bases]):
                bases = self.bases[self.codes[self.bases] == code]
                candidates = np.flatnonzero(able & (self.codes != code))
                if not len(candidates):
                    bare += len(bases)
                    continue
                for base, source in zip(
                    np.repeat(bases, sources), self._draw(candidates, len(bases) * sources, replace=True), strict=True
                ):
                    yield self._pair(base, source, texts[source][self.rng.integers(len(texts[source]))], pool)
            self.drawings.append(self._drawing(pool, able, bare))

    def controls(self, n: int) -> Iterator[Pair]:
        """Yield pairs whose source carries the base's own entity in another prompt."""
        for base in self.bases[:n]:
            entity = self.known[base][0]
            pools = (self.world.texts(pool, self.template.attribute, entity) for pool in ("output", "causal"))
            others = [text for texts in pools for text in texts if text != self.template.text]
            if others:
                yield self._pair(base, base, others[self.rng.integers(len(others))], "same")

    def _draw(self, among: np.ndarray, n: int, *, replace: bool) -> np.ndarray:
        if not n:
            return np.empty(0, dtype=int)
        assert self.weights is not None
        weights = self.weights[among]
        return self.rng.choice(among, n, replace=replace, p=weights / weights.sum())

    def _pair(self, base: int, source: int, text: str, pool: str) -> Pair:
        (entity, answer), (other, counterfactual) = self.known[base], self.known[source]
        kind = "control" if pool == "same" else _kind(self.template.attribute, self.target)
        groups = {
            "entity": entity,
            "template": self.template.text,
            "cell": self.template.attribute,
            "side": self.world.name,
            "pool": pool,
            "source_entity": other,
            "source_template": text,
        }
        prompt, source_prompt = fill(self.template.text, entity)[0], fill(text, other)[0]
        return Pair(prompt, source_prompt, answer.label, counterfactual.label, kind, groups, answer.gap)

    def _drawing(self, pool: str, able: np.ndarray, bare: int) -> Drawing:
        counts = Counter(self.codes[able].tolist())
        drawn = self.codes[self.bases].tolist()
        own = int(able[self.bases].sum())
        same = sum(counts[code] for code in drawn) - own
        return Drawing(
            attribute=self.template.attribute,
            pool=pool,
            asked=len(self.world.entities),
            known=len(self.known),
            candidates=len(drawn) * int(able.sum()) - own,
            coincidences=same,
            bare=bare,
        )


def _codes(answers: list[Answer]) -> np.ndarray:
    """Number the answers so that those that say or mean the same have one number.

    The same words may stand for two values (`America`), and one value may be said in two ways (`m`, `meter`): answers
    are joined along both, so that no pair's labels are the same in word or in meaning.
    """
    first: dict[tuple[str, str], int] = {}
    parent: list[int] = []
    for index, answer in enumerate(answers):
        parent.append(index)
        for key in (("gold", answer.gold), ("said", answer.label.casefold())):
            a, b = _root(parent, first.setdefault(key, index)), _root(parent, index)
            parent[max(a, b)] = min(a, b)
    roots = [_root(parent, i) for i in range(len(parent))]
    return np.unique(np.array(roots, dtype=int), return_inverse=True)[1]


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        index = parent[index]
    return index
