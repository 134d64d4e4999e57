"""Mixing languages: policies from counts to shares, and the sampler that meets them.

`mix(tokens, "unimax", max_epochs=2)` gives shares, `Sampler(items, shares.by_items(items), seed=0)` the stream.
"""

from microtome.data.mixing.policies import POLICIES, Mix, fuxitranyu_shares, mix
from microtome.data.mixing.sampler import Draw, Item, Realised, Sampler

__all__ = ["POLICIES", "Draw", "Item", "Mix", "Realised", "Sampler", "fuxitranyu_shares", "mix"]
