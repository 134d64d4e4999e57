"""The facts of the atlas world: real countries and cities, read from two tables in this folder.

A country has a capital, a continent, a language and a currency; a city has a country. The tables were written by hand
from general knowledge as of 2026. `language` is one official or national language (the most widely spoken where there
are several), a place on two continents is given the one its capital stands on, and countries whose capital repeats
their own name are left out. A city's two-hop facts are its country's: the currency of Lyon is the currency of France.
"""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files

from microtome.core.errors import DataError, did_you_mean

__all__ = ["TWO_HOP_RELATIONS", "City", "Country", "Facts", "load_facts"]

TWO_HOP_RELATIONS = ("capital", "continent", "language", "currency")
"""What is asked of a country in one hop and of a city in two."""


@dataclass(frozen=True)
class Country:
    """One country and its four facts."""

    name: str
    capital: str
    continent: str
    language: str
    currency: str


@dataclass(frozen=True)
class City:
    """One city that is not a capital, and its country."""

    name: str
    country: str


@dataclass(frozen=True)
class Facts:
    """The world: every country and city, with the answers to one-hop and two-hop questions.

    Attributes:
        countries: in the order of the table.
        cities: in the order of the table; none is a capital.
    """

    countries: tuple[Country, ...]
    cities: tuple[City, ...]

    @functools.cached_property
    def country(self) -> dict[str, Country]:
        """Countries by name."""
        return {c.name: c for c in self.countries}

    @functools.cached_property
    def country_of(self) -> dict[str, str]:
        """The country of every city, capitals included, by the city's name."""
        capitals = {c.capital: c.name for c in self.countries}
        return capitals | {c.name: c.country for c in self.cities}

    def answer(self, entity: str, relation: str) -> str:
        """Return the answer about a country or city; for a city other relations than `country` take two hops.

        Args:
            entity: a country or a city, capitals included.
            relation: `country` or one of `TWO_HOP_RELATIONS`.

        Raises:
            DataError: the world has no such entity, or the relation does not apply to it.
        """
        if entity not in self.country and entity not in self.country_of:
            known = [*self.country, *self.country_of]
            raise DataError(
                f"No entity '{entity}' in the atlas ({len(self.country)} countries, {len(self.country_of)} cities); "
                f"use a name from its tables.{did_you_mean(entity, known)}"
            )
        if relation == "country" and entity in self.country_of:
            return self.country_of[entity]
        if relation not in TWO_HOP_RELATIONS:
            raise DataError(
                f"No relation '{relation}' of '{entity}' in the atlas; ask {', '.join(TWO_HOP_RELATIONS)}, or "
                f"'country' of a city.{did_you_mean(relation, TWO_HOP_RELATIONS)}"
            )
        country = entity if entity in self.country else self.country_of[entity]
        return str(getattr(self.country[country], relation))

    def vocabulary(self, relation: str) -> tuple[str, ...]:
        """Return the different answers of a relation, in the order of the table."""
        return tuple(dict.fromkeys(self.answer(c.name, relation) for c in self.countries))


@functools.cache
def load_facts() -> Facts:
    """Return the facts shipped with the package.

    Raises:
        DataError: a table holds a name twice, or a city of an unknown country.
    """
    countries = tuple(Country(**row) for row in _rows("countries.tsv"))
    cities = tuple(City(**row) for row in _rows("cities.tsv"))
    _check(countries, cities)
    return Facts(countries, cities)


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("microtome.data.atlas") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def _check(countries: tuple[Country, ...], cities: tuple[City, ...]) -> None:
    names = [c.name for c in countries] + [c.capital for c in countries] + [c.name for c in cities]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(
            f"The atlas names {', '.join(twice)} more than once; a name stands for one place: drop one row."
        )
    lost = sorted({c.country for c in cities} - {c.name for c in countries})
    if lost:
        raise DataError(f"The atlas has cities in {', '.join(lost)}, not in its countries; add the country's row.")
