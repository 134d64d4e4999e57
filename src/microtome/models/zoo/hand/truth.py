"""What is true of `zoo:hand`, as data: which units carry recall, lookup, both, or only look as if they did.

    plain        recall: the gathering head and the 24 fact neurons; lookup: previous-token head and induction head
    redundant    two induction heads; block-1 neurons clip their sum, min(1, max(0, (s - a) / (b - a))), so that one
                 head alone gives the very same output: ablating one does nothing, both everything (and at the
                 clean input the clip is flat, so gradients say that neither head matters: a known false negative)
    shared       one block-0 head does the work of the gathering and of the previous-token head: both tasks need it
    correlated   as plain, plus a head and two neurons that tell the tasks apart perfectly and write nothing

Both tasks have four equally good options for a model without the units, so chance is 1/4 and for the recall set S_r and
the lookup set S_q (shared units in neither)

    DD = [drop_r(S_r) - drop_q(S_r)] + [drop_q(S_q) - drop_r(S_q)] = (1 - 1/4 - 0) + (1 - 1/4 - 0) = 2 - (1/4 + 1/4).

Which indices the roles take is arbitrary but fixed (drawn once with seed 0), so that no method can win by order.
"""

import random
from dataclasses import dataclass, field

from microtome.core.units import Units
from microtome.models.zoo.hand.world import ENTITIES, RELATIONS, VALUES

__all__ = ["HAND_TRUTH", "HEADS", "HEADS_0", "HEADS_1", "NEURONS", "NEURONS_0", "NEURONS_1", "VARIANTS", "HandTruth"]

VARIANTS = ("plain", "redundant", "shared", "correlated")
HEADS, NEURONS = 8, 256
HEADS_0, HEADS_1 = "blocks.0.attn.heads", "blocks.1.attn.heads"
NEURONS_0, NEURONS_1 = "blocks.0.mlp.neurons", "blocks.1.mlp.neurons"


@dataclass(frozen=True)
class HandTruth:
    """Which units do what in one variant.

    Attributes:
        variant: "plain", "redundant", "shared" or "correlated".
        recall: units that carry recall and nothing else.
        lookup: units that carry lookup (reading the context) and nothing else.
        shared: units that carry both.
        decoys: units that tell the tasks apart and write nothing.
        redundant: lookup units of which any one may be ablated without effect, but not all.
        facts: (entity, relation) -> the neuron of `blocks.0.mlp.neurons` that holds it.
        roles: role -> head or neuron index, e.g. "gather", "previous", "induction".
        chance: expected accuracy of a model without the units, by task.
    """

    variant: str
    recall: Units
    lookup: Units
    shared: Units = field(default_factory=Units)
    decoys: Units = field(default_factory=Units)
    redundant: Units = field(default_factory=Units)
    facts: dict[tuple[int, int], int] = field(default_factory=dict)
    roles: dict[str, int | tuple[int, ...]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=lambda: {"recall": 0.25, "lookup": 0.25})

    @property
    def causal(self) -> Units:
        """Every unit that carries some task."""
        return self.recall | self.lookup | self.shared

    @property
    def dissociation(self) -> float:
        """The double-dissociation index of (recall, lookup) in closed form: 2 minus the two chance rates."""
        return 2.0 - sum(self.chance.values())

    def fact_unit(self, fact: tuple[int, int]) -> Units:
        """Return the one neuron that holds a fact."""
        return Units({NEURONS_0: [self.facts[fact]]})


def _truth(variant: str) -> HandTruth:
    rng = random.Random(0)
    block0, block1 = rng.sample(range(NEURONS), NEURONS), rng.sample(range(NEURONS), NEURONS)
    heads0, heads1 = rng.sample(range(HEADS), HEADS), rng.sample(range(HEADS), HEADS)
    keys = [(e, r) for e in range(len(ENTITIES)) for r in range(len(RELATIONS))]
    facts = dict(zip(keys, block0, strict=False))
    roles = {"gather": heads0[0], "previous": heads0[1], "induction": heads1[0]}
    gather, previous = Units({HEADS_0: [heads0[0]]}), Units({HEADS_0: [heads0[1]]})
    induction = Units({HEADS_1: [heads1[0]]})
    memory = Units({NEURONS_0: facts.values()})
    common = {"variant": variant, "facts": facts}
    if variant == "shared":
        roles["previous"] = heads0[0]
        return HandTruth(recall=memory, lookup=induction, shared=gather, roles=roles, **common)
    if variant == "redundant":
        backup, clip = Units({HEADS_1: heads1[:2]}), tuple(block1[: 2 * len(VALUES)])
        return HandTruth(
            recall=memory | gather,
            lookup=previous | backup | Units({NEURONS_1: clip}),
            redundant=backup,
            roles=roles | {"backup": heads1[1], "clip": clip},
            **common,
        )
    if variant == "correlated":
        decoys = Units({HEADS_0: [heads0[2]], NEURONS_0: [block0[-1]], NEURONS_1: [block1[-1]]})
        roles |= {"decoy_head": heads0[2], "decoy_neuron_0": block0[-1], "decoy_neuron_1": block1[-1]}
        return HandTruth(recall=memory | gather, lookup=previous | induction, decoys=decoys, roles=roles, **common)
    return HandTruth(recall=memory | gather, lookup=previous | induction, roles=roles, **common)


HAND_TRUTH: dict[str, HandTruth] = {variant: _truth(variant) for variant in VARIANTS}
