"""Intervals of the mean of one number a row: log-loss and Brier score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._limits import quantile, times
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import bootstrap, constant_interval
from finetune_eval.evaluation.units import effective_units, expanded_confidence

Floats = NDArray[np.float64]


# With fewer rows (or groups) than this a mean whose rows can be ten times as large as any seen is covered too
# seldom, since the largest losses may not be among them: .78-.96 with 30 or 50 rows (docs/statistics.md).
MANY_UNITS = 100
FAR = 10


def _unreliable_mean(rows: Floats, units: float, what: str, bounds: tuple[float, float]) -> str:
    if units < MANY_UNITS and bounds[1] > FAR * float(np.abs(rows).max()):
        return f" (unreliable: only {times(units, what)})"
    return ""


def mean_interval(rows: Floats, *, confidence: float, bounds: tuple[float, float]) -> Estimate:
    """Estimate the mean of one number a row with Student's t, after a transformation that removes skewness.

    Losses are skewed: a few rows are far off. Plain t limits then sit too low. Nothing is drawn. Where there
    are few rows and others could be much worse than any of these, the method says that it is unreliable.

    Args:
        rows: (n,) numbers of independent rows that count the same.
        confidence: Nominal coverage in (0, 1).
        bounds: The smallest and the largest a row can be.

    Returns:
        The mean with its interval; never of zero width.

    Reference:
        Hall 1992, JRSS B 54:221-228 (the monotone transformation).
    """
    value, n = float(rows.mean()), len(rows)
    moves = (rows - value) / n
    square = float((moves**2).sum())
    if math.sqrt(square) <= 1e-12 * max(1.0, abs(value)):
        return constant_interval(value, n, bounds, confidence, "the rows do not vary")
    skewness = math.sqrt(n) * float((moves**3).sum()) / square**1.5
    se = math.sqrt(square * n / (n - 1))
    t = quantile(confidence, n - 1)
    low, high = (value - se * math.sqrt(n) * _unskewed(x / math.sqrt(n), skewness, n) for x in (t, -t))
    low, high = max(bounds[0], min(low, value)), min(bounds[1], max(high, value))
    method = "Student's t of rows, skewness removed" + _unreliable_mean(rows, n, "row", bounds)
    return Estimate(value, low, high, method, confidence)


def mean_of_units(
    rows: Floats,
    *,
    confidence: float,
    bounds: tuple[float, float],
    groups: NDArray[np.int64] | None,
    sample_weight: Floats | None,
    n_resamples: int,
    seed: int,
    method: str = "bca",
) -> Estimate:
    """Estimate the mean of rows in groups or with weights: by `bootstrap`, wider where units are few.

    Args:
        rows: (n,) numbers.
        confidence: Nominal coverage in (0, 1); the draws' is `expanded_confidence`.
        bounds: The smallest and the largest a row can be.
        groups: (n,) index of the group of each row, or None.
        sample_weight: (n,) row weights, or None.
        n_resamples: How many resamples.
        seed: Seed of the draws.
        method: As in `bootstrap`.

    Returns:
        The mean with its interval; never of zero width.
    """
    units = effective_units(np.ones(len(rows)) if sample_weight is None else sample_weight, groups)
    found = bootstrap(
        rows,
        method=method,
        confidence=expanded_confidence(confidence, units),
        n_resamples=n_resamples,
        seed=seed,
        groups=groups,
        sample_weight=sample_weight,
        bounds=bounds,
    )
    note = _unreliable_mean(rows, units, "row" if groups is None else "group", bounds)
    return replace(found, method=found.method + note, confidence=confidence)


def _unskewed(x: float, skewness: float, n: int) -> float:
    """Invert Hall's g(t) = t + s t^2 / 3 + s^2 t^3 / 27 + s / (6 n)."""
    if abs(skewness) < 1e-6:
        return x
    return 3 / skewness * (float(np.cbrt(1 + skewness * (x - skewness / (6 * n)))) - 1)
