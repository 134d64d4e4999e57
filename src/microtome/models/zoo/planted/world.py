"""The worlds of `zoo:planted`: which attributes there are, and how one follows from another."""

from microtome.core.errors import ModelError, did_you_mean
from microtome.data.ravel import EntityTable, Planted, synthetic_table

__all__ = ["SITE", "VALUES", "WORLDS", "planted_table"]

WORLDS = ("independent", "correlated", "shared")

VALUES = {"color": 5, "shape": 4, "size": 5}
"""How many values each attribute has."""

SITE = "blocks.0.resid_post"
"""Where h lies, at the last token of the entity; what follows reads it, nothing before computes it."""


def planted_table(world: str, *, seed: int = 0) -> EntityTable:
    """Return the table of a world: 200 entities to train on, 100 to validate, 100 to test.

    Args:
        world: one of `WORLDS`.
        seed: of values and splits.

    Raises:
        ModelError: there is no such world.
    """
    if world not in WORLDS:
        raise ModelError(
            f"No world '{world}' in zoo:planted; it has {', '.join(WORLDS)}: use one of these."
            f"{did_you_mean(world, WORLDS)}"
        )
    follows = {"shape": None if world == "independent" else "color"}
    attributes = [Planted(name, n, follows=follows.get(name)) for name, n in VALUES.items()]
    return synthetic_table(attributes, entities=400, name="planted", seed=seed)
