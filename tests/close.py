"""Every tolerance of the test suite, in one place.

EXACT: nothing edited. FLOAT64: algebra in double precision. FLOAT32: the same algorithm in single precision. OTHER:
another implementation of the same thing. FINITE: a slope by finite differences through norms that compute in single
precision, relative.
"""

EXACT = 0.0
FLOAT64 = 1e-9
FLOAT32 = 1e-5
FINITE = 2e-3
OTHER = 1e-4


def largest(a, b) -> float:
    """Return the largest absolute difference of two tensors of one shape; NaN counts as infinite."""
    assert a.shape == b.shape, (a.shape, b.shape)
    gap = (a.double() - b.double()).abs()
    return float("inf") if gap.isnan().any() else gap.max().item()
