"""The zoo: small models that come with the package. Each file or folder here with an `ENTRY` is one model."""

from microtome.models.zoo.catalog import ZooEntry, list_zoo, load_zoo

__all__ = ["ZooEntry", "list_zoo", "load_zoo"]
