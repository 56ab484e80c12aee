"""How sure a share of counted rows is. Light: no numpy."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Standard deviations to either side that hold 95 % of a normal distribution."""


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `total` (1 or more): Wilson 1927, good for few rows and shares near 0
    or 1 too."""
    share, spread = right / total, Z * Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / total + spread / total / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
