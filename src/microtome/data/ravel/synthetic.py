"""Made-up entity tables with a planted dependence between attributes, in the benchmark's format.

Every attribute is independent of all, determined by another one, or follows another one with a given strength: with
that probability its value is the one the other determines, else it is drawn anew. Names and values are invented, so
nothing can be recalled; a model trained on the table is the only one that knows it. Templates are plain sentences, so
that wording is never the difficulty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.atlas import fillers, nonce_names
from microtome.data.ravel.tables import SLOT, Entity, EntityTable, Template, WikiPrompt

__all__ = ["Planted", "assign_splits", "synthetic_table"]

_WORDINGS = (
    "The {a} of %s is",
    "%s has the {a}",
    "The {a} that %s has is",
    "Say the {a} of %s:",
    "Of %s the {a} is",
    "The {a} known of %s is",
    "For %s the {a} is",
    "%s goes with the {a}",
    "The {a} given for %s is",
    "Here the {a} of %s is",
    "Now the {a} of %s is",
    "Note that %s has the {a}",
)


@dataclass(frozen=True)
class Planted:
    """One attribute to plant.

    Attributes:
        name: of the attribute.
        values: how many there are.
        follows: the earlier attribute it depends on; None for none.
        strength: with which it does; 1 for determined by it.
    """

    name: str
    values: int
    follows: str | None = None
    strength: float = 1.0


def synthetic_table(
    attributes: Sequence[Planted],
    *,
    entities: int = 200,
    templates: int = 8,
    wikipedia: int = 12,
    name: str = "synthetic",
    seed: int = 0,
) -> EntityTable:
    """Return a table with planted attributes; entities and templates split half, a quarter, a quarter.

    A determined attribute maps the other's values onto its own evenly, so it has at most as many.

    Args:
        attributes: in an order in which each follows an earlier one.
        entities: how many, at least 4.
        templates: for each attribute, from 4 to 12.
        wikipedia: prompts that ask for nothing; every other one is bound to an entity of its split.
        name: the entity type.
        seed: of values and splits.

    Raises:
        DataError: an attribute follows none of the earlier ones, a size is out of range, or a strength is not in 0..1.

    Example:
        synthetic_table([Planted("color", 4), Planted("shape", 4, follows="color", strength=0.7)])
    """
    _check(attributes, entities, templates)
    rng = generator(seed, "synthetic", name)
    columns: dict[str, np.ndarray] = {}
    for planted in attributes:
        columns[planted.name] = _column(planted, columns, {p.name: p.values for p in attributes}, entities, rng)
    names = _names(entities, rng)
    splits = assign_splits(names, seed=seed)
    made = tuple(
        Entity(n, {a: _value(a, int(codes[i])) for a, codes in columns.items()}, splits[n]) for i, n in enumerate(names)
    )
    texts = [(a.name, _WORDINGS[i].format(a=a.name)) for a in attributes for i in range(templates)]
    asked = tuple(Template(text, a, _third(i % templates, templates)) for i, (a, text) in enumerate(texts))
    return EntityTable(name, made, asked, _wikipedia(made, wikipedia))


def assign_splits(names: Sequence[str], *, shares: tuple[float, float] = (0.5, 0.25), seed: int = 0) -> dict[str, str]:
    """Return a split for every name: shares of train and val, the rest test, each at least one.

    Args:
        names: at least three.
        shares: of train and of val.
        seed: of the draw.

    Raises:
        DataError: fewer than three names.
    """
    if len(names) < 3:
        raise DataError(f"Asked to split {len(names)} names in train, val and test; give at least three.")
    order = [names[i] for i in generator(seed, "splits").permutation(len(names))]
    train = min(max(1, round(shares[0] * len(names))), len(names) - 2)
    val = min(max(1, round(shares[1] * len(names))), len(names) - train - 1)
    drawn = ["train"] * train + ["val"] * val + ["test"] * (len(names) - train - val)
    split = dict(zip(order, drawn, strict=True))
    return {name: split[name] for name in names}


def _column(
    planted: Planted, columns: dict[str, np.ndarray], sizes: dict[str, int], n: int, rng: np.random.Generator
) -> np.ndarray:
    # Even, then shuffled: every value is taken, so the number of values is what was asked.
    drawn = rng.permutation(np.arange(n) % planted.values)
    if planted.follows is None:
        return drawn
    image = rng.permutation(np.arange(sizes[planted.follows]) % planted.values)
    return np.where(rng.random(n) < planted.strength, image[columns[planted.follows]], drawn)


def _names(n: int, rng: np.random.Generator) -> list[str]:
    single = list(nonce_names())
    if n > len(single):
        single = [f"{a} {b}" for a, b in product(single, single)]
    return [single[i] for i in rng.permutation(len(single))[:n]]


def _value(attribute: str, code: int) -> str:
    return f"{attribute}{code:03d}"


def _third(index: int, n: int) -> str:
    return "train" if index < n - 2 * (n // 4) else "val" if index < n - n // 4 else "test"


def _wikipedia(entities: tuple[Entity, ...], n: int) -> tuple[WikiPrompt, ...]:
    made = []
    for index in range(n):
        split = ("train", "val", "test")[index % 3]
        owner = next(e.name for e in entities if e.split == split) if index % 2 else None
        made.append(WikiPrompt(f"{fillers()[index % len(fillers())]} Of {SLOT} ({index})", owner, split))
    return tuple(made)


def _check(attributes: Sequence[Planted], entities: int, templates: int) -> None:
    if entities < 4 or entities > len(nonce_names()) ** 2 or not 4 <= templates <= len(_WORDINGS) or not attributes:
        raise DataError(
            f"Asked for {entities} entities, {len(attributes)} attributes, {templates} templates each; give 4 to "
            f"{len(nonce_names()) ** 2} entities, at least one attribute, 4 to {len(_WORDINGS)} templates."
        )
    earlier: dict[str, int] = {}
    for planted in attributes:
        if planted.follows is not None and planted.follows not in earlier:
            raise DataError(
                f"Attribute '{planted.name}' follows '{planted.follows}', which stands not before it; earlier are "
                f"{', '.join(earlier) or 'none'}: put that one first."
            )
        most = earlier.get(planted.follows or "", entities) if planted.strength == 1 else entities
        if not 2 <= planted.values <= most or not 0 <= planted.strength <= 1 or planted.name in earlier:
            raise DataError(
                f"Attribute '{planted.name}' has {planted.values} values and strength {planted.strength}; give a name "
                f"of its own, 2 to {most} values and a strength in 0..1."
            )
        earlier[planted.name] = planted.values
