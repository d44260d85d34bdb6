"""Results of the statistics: frozen records, which say how they were made."""

from __future__ import annotations

from dataclasses import dataclass


def digits(number: float) -> str:
    """Return a number with three digits, or as many more as keep it apart from 0 and 1 if it is neither."""
    for many in (3, 4, 5):
        shown = f"{number:.{many}f}"
        if abs(float(shown)) not in (0, 1) or abs(number) in (0, 1):
            break
    return shown


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: The lower limit.
        high: The upper limit.
        method: How it was made, in words.
        confidence: The nominal coverage, in (0, 1).
    """

    low: float
    high: float
    method: str
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"[{digits(self.low)}, {digits(self.high)}]"


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: The point estimate.
        low: The lower limit.
        high: The upper limit.
        method: How the interval was made, in words.
        confidence: The nominal coverage, in (0, 1).

    Example:
        >>> print(Estimate(0.79, 0.7284, 0.8405, "Wilson"))
        0.790 [0.728, 0.841]
    """

    value: float
    low: float
    high: float
    method: str
    confidence: float = 0.95

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{digits(self.value)} [{digits(self.low)}, {digits(self.high)}]"
