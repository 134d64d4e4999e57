"""Units: a set of coordinates at sites (neurons, heads, channels, components), the currency of the workbench.

A unit is (site, index along the site's unit axis). Units are immutable, know set algebra, and can be drawn at random
to match another set site by site - the control every causal claim needs.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from microtome.core.errors import UnitsError
from microtome.core.site import Site

__all__ = ["Units"]


class Units:
    """An immutable set of (site, index) coordinates.

    Args:
        by_site: for each site (or its text) the indices chosen there; repeated indices count once.

    Raises:
        UnitsError: an index is negative or not a whole number, or a site is a glob.
    """

    __slots__ = ("_by_site",)

    def __init__(self, by_site: Mapping["Site | str", Iterable[int]] = ()):
        clean: dict[Site, np.ndarray] = {}
        for site, indices in sorted((Site.parse(s), i) for s, i in dict(by_site).items()):
            if site.is_glob:
                raise UnitsError(f"Units at '{site}': a glob names several sites; give each site its indices.")
            array = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices)
            if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
                raise UnitsError(f"Units at '{site}' must be whole numbers >= 0, found {array.ravel()[:5].tolist()}.")
            if array.size:
                clean[site] = np.unique(array.astype(np.int64))
                clean[site].setflags(write=False)
        self._by_site = clean

    @classmethod
    def all(cls, space: Mapping[Site, int]) -> "Units":
        """Return every unit of a space (site -> number of units)."""
        return cls({site: np.arange(n) for site, n in space.items()})

    @classmethod
    def top_k(cls, scores: Mapping["Site | str", np.ndarray], k: int, *, by_magnitude: bool = False) -> "Units":
        """Return the k units with the highest scores over all sites; ties go to the earlier site and index.

        Args:
            scores: for each site one score per unit.
            k: how many units to take.
            by_magnitude: rank by absolute value.

        Raises:
            UnitsError: k is larger than the number of units, or a score is NaN.
        """
        sites = sorted(Site.parse(s) for s in scores)
        values = [np.asarray(scores[s] if s in scores else scores[str(s)], dtype=np.float64).ravel() for s in sites]
        flat = np.concatenate(values) if values else np.zeros(0)
        if not 0 <= k <= flat.size:
            raise UnitsError(f"top_k asked for {k} units, found {flat.size} scores; ask for at most {flat.size}.")
        if np.isnan(flat).any():
            raise UnitsError(f"top_k over {flat.size} scores: {int(np.isnan(flat).sum())} are NaN; score them first.")
        order = np.argsort(-(np.abs(flat) if by_magnitude else flat), kind="stable")[:k]
        owner = np.repeat(np.arange(len(sites)), [v.size for v in values])[order]
        offset = np.concatenate([[0], np.cumsum([v.size for v in values])])
        return cls({s: order[owner == i] - offset[i] for i, s in enumerate(sites) if (owner == i).any()})

    def matched_random(
        self,
        space: Mapping[Site, int],
        rng: np.random.Generator,
        *,
        exclude: "Units | None" = None,
        norms: Mapping[Site, np.ndarray] | None = None,
        nearest: int = 10,
    ) -> "Units":
        """Return a random set with the same number of units at each site, disjoint from this one.

        Args:
            space: number of units at each site.
            rng: the random generator.
            exclude: further units that must not be drawn (this set never is).
            norms: one positive number per unit (e.g. write-weight norm); each draw is then made among the `nearest`
                free units by norm, so that the twin matches in norm too.
            nearest: size of that neighbourhood.

        Raises:
            UnitsError: a site has too few other units to draw from.
        """
        taken = self if exclude is None else self | exclude
        drawn = {}
        for site, own in self._by_site.items():
            free = np.setdiff1d(np.arange(space[site]), taken.at(site))
            if free.size < own.size:
                raise UnitsError(
                    f"A random twin of {own.size} units at '{site}' needs {own.size} others, found {free.size} of "
                    f"{space[site]}; choose fewer units."
                )
            if norms is None:
                drawn[site] = rng.choice(free, own.size, replace=False)
            else:
                drawn[site] = _nearest_in_norm(own, free, np.asarray(norms[site]), rng, nearest)
        return Units(drawn)

    def at(self, site: "Site | str") -> np.ndarray:
        """Return the indices at one site, sorted (empty where there are none)."""
        return self._by_site.get(Site.parse(site), np.zeros(0, np.int64))

    @property
    def sites(self) -> list[Site]:
        """The sites that hold at least one unit, in block order."""
        return list(self._by_site)

    def check(self, space: Mapping[Site, int]) -> "Units":
        """Return this set if every unit exists in `space`.

        Raises:
            UnitsError: a site is absent or an index is out of range.
        """
        for site, indices in self._by_site.items():
            if site not in space:
                raise UnitsError(f"Units at '{site}': no such site among {len(space)}; see `microtome inspect`.")
            if indices[-1] >= space[site]:
                raise UnitsError(
                    f"Unit {indices[-1]} at '{site}' does not exist: it has {space[site]} units (0-{space[site] - 1})."
                )
        return self

    def save(self, path: "str | Path") -> Path:
        """Write the set as JSON, atomically, and return the path."""
        path = Path(path)
        body = {"format": "microtome.units", "version": 1, "units": {str(s): i.tolist() for s, i in self.items()}}
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(body, indent=1))
        os.replace(part, path)
        return path

    @classmethod
    def load(cls, path: "str | Path") -> "Units":
        """Read a set written by `save`.

        Raises:
            UnitsError: the file is missing or is not a units file.
        """
        path = Path(path)
        if not path.is_file():
            raise UnitsError(f"No units file '{path}'; write one with Units.save.")
        try:
            body = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UnitsError(f"'{path}' is not a units file: {error}; write it again with Units.save.") from error
        if not isinstance(body, dict) or body.get("format") != "microtome.units" or body.get("version") != 1:
            raise UnitsError(f"'{path}' is not a units file of version 1; write it again with Units.save.")
        return cls(body["units"])

    def items(self) -> Iterator[tuple[Site, np.ndarray]]:
        """Iterate over (site, sorted indices)."""
        return iter(self._by_site.items())

    def _combine(self, other: "Units", op) -> "Units":
        sites = set(self._by_site) | set(other._by_site)
        return Units({s: op(self.at(s), other.at(s)) for s in sites})

    def __or__(self, other: "Units") -> "Units":
        return self._combine(other, np.union1d)

    def __and__(self, other: "Units") -> "Units":
        return self._combine(other, np.intersect1d)

    def __sub__(self, other: "Units") -> "Units":
        return self._combine(other, np.setdiff1d)

    def __xor__(self, other: "Units") -> "Units":
        return self._combine(other, np.setxor1d)

    def __le__(self, other: "Units") -> bool:
        return len(self - other) == 0

    def __len__(self) -> int:
        return sum(i.size for i in self._by_site.values())

    def __iter__(self) -> Iterator[tuple[Site, int]]:
        return ((s, int(i)) for s, indices in self._by_site.items() for i in indices)

    def __contains__(self, unit: tuple["Site | str", int]) -> bool:
        return bool(np.isin(unit[1], self.at(unit[0])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Units({len(self)} at {len(self._by_site)} sites)"


def _nearest_in_norm(own, free, norms, rng, nearest) -> list[int]:
    """Draw for each own unit one of the `nearest` free units by norm, without replacement."""
    free, chosen = list(free), []
    for unit in rng.permutation(own):
        near = np.argsort(np.abs(norms[free] - norms[unit]), kind="stable")[:nearest]
        chosen.append(free.pop(int(rng.choice(near))))
    return chosen
