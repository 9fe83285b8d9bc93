"""What a count says about the chance behind it. Pure."""

from math import sqrt

SIGMAS = 3.3
"""A count left to chance is off by more than this many deviations once in a thousand looks."""


def wilson(seen: float, of: float) -> tuple[float, float]:
    """Bounds of the share behind `seen` of `of`, at `SIGMAS` deviations.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference
    (1927).
    """
    z = SIGMAS * SIGMAS
    middle = (seen + z / 2) / (of + z)
    half = SIGMAS / (of + z) * sqrt(max(0.0, seen * (of - seen) / of) + z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)
