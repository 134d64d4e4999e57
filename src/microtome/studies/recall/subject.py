"""The model under study with everything that is derived from it once: prompts in batches, units, reference means."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from microtome.core.errors import DataError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.data.puzzles import Cell, Puzzle
from microtome.models.model import Model
from microtome.models.writes import unit_writes, write_norms
from microtome.models.zoo.untrained import untrained
from microtome.studies.recall.ablations import Reference, reference_of, unit_space
from microtome.studies.recall.config import RecallConfig
from microtome.studies.recall.prompts import TASKS, Cases, Drawn, cases_of

__all__ = ["Subject", "load_subject"]


def load_subject(config: RecallConfig) -> "Subject":
    """Return the model that a configuration names, where and how it asks.

    Raises:
        ModelError: it cannot be loaded.
        DataError: it is no language model with heads.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    named = torch.float32 if config.dtype == "auto" and device == "cpu" else getattr(torch, config.dtype, None)
    model = Model.load(config.model, dtype=named, device=device)
    if not model.anatomy.blocks or model.anatomy.tail is None:
        raise DataError(f"'{config.model}' is no causal language model with blocks and a head; the study needs one.")
    return Subject(model, config)


class Subject:
    """A model, its prompts and its units.

    Args:
        model: the model.
        config: the study's configuration.
    """

    def __init__(self, model: Model, config: RecallConfig):
        self.model, self.config = model, config
        self._puzzles: dict[tuple[str, Cell], tuple[Puzzle, ...]] = {}
        self._cases: dict[tuple[str, Cell], Cases] = {}

    @property
    def engine(self) -> dict[str, object]:
        """How much at once: arguments every step hands to the engine."""
        return {"size": self.config.batch, "budget": self.config.memory_budget}

    def keep(self, drawn: Drawn, rows: Sequence[Mapping]) -> None:
        """Hold the prompts that the model answers, named by rows of the record's table `prompts`."""
        by_key = {(part, str(cell), p.item, p.skeleton): p for (part, cell), puzzles in drawn.items() for p in puzzles}
        for row in rows:
            key = (row["part"], Cell(row["cell"]))
            puzzle = by_key[row["part"], row["cell"], row["item"], row["skeleton"]]
            self._puzzles[key] = (*self._puzzles.get(key, ()), puzzle)

    def cases(self, part: str, cell: Cell) -> Cases:
        """Return the kept prompts of a part and cell.

        Raises:
            DataError: the model answers none of them.
        """
        if (part, cell) not in self._puzzles:
            raise DataError(f"'{self.model.name}' answers no {cell} prompt of part '{part}'; nothing can be measured.")
        if (part, cell) not in self._cases:
            self._cases[part, cell] = cases_of(self.model, self._puzzles[part, cell])
        return self._cases[part, cell]

    def cells(self, part: str) -> list[Cell]:
        """Return the cells in which at least sixteen prompts of a part are kept."""
        return [cell for cell in Cell if len(self._puzzles.get((part, cell), ())) >= 16]

    def tasks(self, part: str) -> dict[str, Cases]:
        """Return the prompts of both tasks in a part."""
        return {task: self.cases(part, cell) for task, cell in TASKS.items()}

    def has(self, part: str) -> bool:
        """Whether a part holds enough prompts of both tasks."""
        return set(TASKS.values()) <= set(self.cells(part))

    @cached_property
    def space(self) -> dict[Site, int]:
        """Every head and neuron."""
        return unit_space(self.model)

    @cached_property
    def reference(self) -> Reference:
        """Mean activations over the discovery prompts of all cells."""
        cases = [self.cases("discovery", cell) for cell in self.cells("discovery")]
        return reference_of(self.model, cases, list(self.space), self.config.batch)

    @cached_property
    def norms(self) -> dict[Site, np.ndarray]:
        """Norm of every unit's writing weights."""
        return {site: write_norms(self.model, site).numpy() for site in self.space}

    @cached_property
    def untrained(self) -> Model:
        """The untrained twin: same structure, fresh weights."""
        return Model.load(untrained(self.model.module, self.config.seed), tokenizer=self.model.tokenizer)

    def writes(self, units: Units, k: int = 3) -> dict[tuple[Site, int], str]:
        """Return the tokens each neuron pushes up most when it is positive (its writing weights through the head)."""
        head = self.model.module.get_submodule(self.model.anatomy.head)
        said = {}
        for site, index in units.items():
            if site.kind != "mlp.neurons":
                continue
            with torch.no_grad():
                pushed = head(unit_writes(self.model, site, index.tolist())[:, 0])
            for i, tokens in zip(index.tolist(), pushed.topk(k, dim=1).indices.tolist(), strict=True):
                said[site, i] = " ".join(self.model.tokenizer.decode([t]).strip() for t in tokens)
        return said
