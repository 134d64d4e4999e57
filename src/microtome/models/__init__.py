"""Models: loading, structure, addresses and batches. Nothing here changes a module."""

from microtome.models.anatomy import Anatomy, Block
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.sites import SiteInfo

__all__ = ["Anatomy", "Batch", "Block", "Model", "SiteInfo"]
