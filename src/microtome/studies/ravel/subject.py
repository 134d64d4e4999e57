"""What is studied, derived once: the model, the table, what the model knows of it, and its sides, recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from microtome.core.errors import ConfigError, DataError, did_you_mean
from microtome.core.site import Site
from microtome.data.ravel import (
    SIDES,
    DefectReport,
    Drawn,
    EntityTable,
    Instance,
    atlas_tables,
    cap,
    draw_pairs,
    find_defects,
    load_ravel,
    types_in,
)
from microtome.data.ravel.subset import subset
from microtome.measures.disentangle import Trials
from microtome.models.model import Model
from microtome.studies.ravel.config import RavelConfig
from microtome.studies.ravel.sides import Encoder, Side, encode_side
from microtome.training.swaps import Swaps

__all__ = ["SWEPT", "Subject", "load_subject", "load_table"]

SWEPT = 12
"""Most layers that are swept where none are named."""


def load_table(config: RavelConfig) -> tuple[EntityTable, DefectReport, int]:
    """Return the entity table a configuration names, cut to the size it asks for, the defects, and the size it had.

    Raises:
        DataError: no such folder or entity type, or malformed files.
    """
    if config.data == "atlas":
        tables = atlas_tables(config.seed)
        entity = config.entity or "atlas_country"
        if entity not in tables:
            raise DataError(
                f"No entity type '{entity}' in the embedded tables, which are {', '.join(tables)}; use one of these, "
                f"or give --data FOLDER.{did_you_mean(entity, tables)}"
            )
        table, defects = tables[entity], find_defects(tables[entity])
    else:
        folder = Path(config.data)
        found = types_in(folder) if folder.is_dir() else ()
        table, defects = load_ravel(folder, config.entity or next(iter(found), "city"), view=config.view)
    asking = config.asking
    sizes = {"entities": asking.entities, "templates": asking.templates, "wikipedia": asking.sentences}
    return subset(table, **{k: v or None for k, v in sizes.items()}, seed=config.seed), defects, len(table.entities)


def load_subject(config: RavelConfig) -> "Subject":
    """Return the model and table that a configuration names.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: it is no causal language model, or there is no such table.
        ConfigError: a layer or stream that it does not have.
    """
    table, defects, whole = load_table(config)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    dtype = torch.float32 if config.dtype == "auto" and device == "cpu" else getattr(torch, config.dtype, None)
    model = Model.load(config.model, dtype=dtype, device=device)
    blocks = len(model.anatomy.blocks)
    if not blocks or model.anatomy.tail is None:
        raise DataError(f"'{config.model}' is no causal language model with blocks and a head; the study needs one.")
    beyond = [layer for layer in config.layers if not 0 <= layer < blocks]
    if beyond:
        raise ConfigError(f"Layer {beyond[0]} was asked for, '{config.model}' has {blocks} (0-{blocks - 1}).")
    model.select([f"blocks.{blocks - 1}.{config.stream}"])
    return Subject(model, config, table, defects, whole)


@dataclass(eq=False)
class Subject:
    """The model under study, the table, and - once it has been asked - what it knows.

    Attributes:
        model: the model.
        config: the configuration.
        table: entities and templates, cut to the size asked for.
        defects: of the data as they came.
        entities: how many entities the data had.
        instance: what the model knows; set by `know`.
    """

    model: Model
    config: RavelConfig
    table: EntityTable
    defects: DefectReport
    entities: int
    instance: Instance | None = None
    _drawn: dict[str, Drawn] = field(default_factory=dict)
    _sides: dict[str, Side] = field(default_factory=dict)
    _swaps: dict[tuple[str, tuple[Site, ...]], Mapping[Site, list[Swaps]]] = field(default_factory=dict)

    def know(self, instance: Instance) -> None:
        """Take in what the model knows; sides are drawn from it."""
        self.instance = instance

    @property
    def targets(self) -> tuple[str, ...]:
        """The attributes that can be swapped and scored: those that pairs of every side ask for."""
        held = [set(self.side(name).asked) for name in SIDES]
        return tuple(a for a in self.table.asked if all(a in h for h in held))

    def sites(self) -> list[Site]:
        """Return the sites of the layers that are swept."""
        blocks = len(self.model.anatomy.blocks)
        step = -(-blocks // SWEPT)
        layers = self.config.layers or tuple(range(blocks - 1, -1, -step))[::-1]
        return [self.site(layer) for layer in layers]

    def site(self, layer: int) -> Site:
        """Return the site in one block."""
        return Site.parse(f"blocks.{layer}.{self.config.stream}")

    def width(self, site: Site) -> int:
        """Return how many coordinates a site has."""
        (info,) = self.model.select(str(site))
        return info.units * max(info.d_head, 1)

    def drawn(self, name: str) -> Drawn:
        """Return the pairs of a side, as many of each attribute as the configuration asks for."""
        if name not in self._drawn:
            assert self.instance is not None
            counts = self.config.pairs
            most = {"train": counts.train}.get(name) or (counts.test if name.endswith("test") else counts.validation)
            first = self.table.asked[0]
            bases = counts.bases if name == "train" else None
            pairs, power = draw_pairs(self.instance, target=first, side=name, bases=bases, seed=self.config.seed)
            self._drawn[name] = Drawn(cap(pairs, cause=most, isolate=most, seed=self.config.seed), power)
        return self._drawn[name]

    def side(self, name: str) -> Side:
        """Return a side's pairs as tokens."""
        if name not in self._sides:
            counts = self.config.pairs
            pairs = self.drawn(name).pairs.pairs
            self._sides[name] = encode_side(self.encoder, name, pairs, self.config.position, counts.answer_tokens)
        return self._sides[name]

    def trials(self, side: Side) -> Trials:
        """Return a side's pairs with the resamples that the configuration asks for."""
        return side.trials(self.config.seed, self.config.testing.draws)

    @property
    def encoder(self) -> Encoder:
        """The tokenizer's view of prompts."""
        if not hasattr(self, "_encoder"):
            self._encoder = Encoder(self.model)
        return self._encoder

    def swaps(self, name: str, sites: Sequence[Site]) -> Mapping[Site, list[Swaps]]:
        """Return a side recorded at some sites; the last recording of each side is kept."""
        key = (name, tuple(sites))
        held = next((v for (n, s), v in self._swaps.items() if n == name and set(sites) <= set(s)), None)
        if held is None:
            self.forget(name)
            held = self.side(name).record(self.model, sites, self.config.memory_budget)
            self._swaps[key] = held
        return held

    def forget(self, *names: str) -> None:
        """Let go of the recordings of some sides."""
        for key in [k for k in self._swaps if k[0] in names]:
            del self._swaps[key]
