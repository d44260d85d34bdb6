"""Functions that several kinds of intervals share: quantiles, a search for a limit, and words for counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from finetune_eval._checks import number


def checked_confidence(value: float) -> float:
    return number("confidence", value, above=0, below=1)


@lru_cache(maxsize=256)
def quantile(confidence: float, df: float = math.inf) -> float:
    """Return the normal quantile that leaves (1 - confidence) / 2 above it, or Student's with `df`."""
    from scipy.special import ndtri, stdtrit

    above = 0.5 + confidence / 2
    return float(ndtri(above) if math.isinf(df) else stdtrit(df, above))


def pair(limits: Any) -> tuple[float, float]:
    low, high = limits
    return float(low), float(high)


def boundary(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Find by bisection the last value that is not rejected, between one that is not and one that may be."""
    if not rejected(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return inside


def expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def times(number: float, what: str) -> str:
    """Format a number of things: "1 row", "30 groups", or "7.25 rows" where they are effective rows."""
    shown = f"{number:,.0f}" if number >= 100 or number == round(number) else f"{number:.3g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"
