"""Equal first, fast second: every candidate's numbers are compared with the plain reference before it is timed.

The difference reported is the largest over the tensors of max |candidate - reference| / max |reference| (so an
attribution of size 1e-4 is not "equal" because it is small). A reference that does not vary can show nothing and is
refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["TOLERANCE", "Disagreement", "agreement"]

TOLERANCE = 1e-5


class Disagreement(Exception):
    """A candidate's numbers are not the reference's."""


def agreement(got: Mapping[str, Tensor], reference: Mapping[str, Tensor], rounding: float = 0.0) -> float:
    """Return the largest difference, relative to the reference's scale.

    Args:
        got: name -> tensor of the candidate.
        reference: name -> tensor of the plain hooks.
        rounding: error relative to each number that is allowed beside TOLERANCE and not counted.

    Raises:
        Disagreement: names or shapes differ, a number is not finite, or the difference is over TOLERANCE.
    """
    if set(got) != set(reference):
        raise Disagreement(f"tensors {sorted(got)} where the reference has {sorted(reference)}")
    worst = 0.0
    for name, wanted in reference.items():
        found = got[name].detach().to("cpu", torch.float32)
        wanted = wanted.detach().to("cpu", torch.float32)
        if found.shape != wanted.shape:
            raise Disagreement(f"{name} has shape {tuple(found.shape)}, the reference {tuple(wanted.shape)}")
        scale = wanted.abs().max()
        if not wanted.std() > 1e-3 * scale:
            raise Disagreement(f"the reference {name} does not vary; a check against it shows nothing")
        worst = max(worst, float((((found - wanted).abs() - rounding * wanted.abs()) / scale).max()))
        if not (worst <= TOLERANCE and found.isfinite().all()):
            raise Disagreement(f"{name} differs by {worst:.2e} of its scale {float(scale):.2e} (allowed {TOLERANCE})")
    return worst
