"""How far a measured proportion may be from the true one; nothing here knows what was measured."""

import math

Z95 = 1.959964  # the 97.5 % quantile of the normal distribution


def wilson_interval(num_correct: int, num_total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927), which stays inside [0, 1] also near the ends."""
    if num_total == 0:
        return 0.0, 1.0
    share = num_correct / num_total
    factor = Z95**2 / num_total
    centre = (share + factor / 2) / (1 + factor)
    half = Z95 / (1 + factor) * math.sqrt(share * (1 - share) / num_total + factor / (4 * num_total))
    return max(0.0, centre - half), min(1.0, centre + half)
