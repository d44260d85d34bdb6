"""Intervals of the mean of several classes' shares, and of shares of rows with weights or in groups."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._limits import quantile
from finetune_eval.evaluation.units import (
    FEWEST_FREEDOM,
    clustered_variance,
    effective_units,
)

Floats = NDArray[np.float64]


def score_limits(hits: Floats, trials: Floats, z: float) -> tuple[float, float]:
    """Find the means of K shares that a score test does not reject, the shares independent and binomial.

    The standard error is that of the most likely shares with such a mean, and not of the shares seen: of a
    single share these are Wilson's limits. A class that is far from its limit of 0 or 1 moves little.

    With a multiplier m the most likely shares p solve hits - trials p = m p (1 - p); the test rejects their
    mean where m times (sum of the shares seen - sum of these) exceeds z squared.

    Args:
        hits: (K,) hits of each class; may be effective numbers.
        trials: (K,) rows of each class, more than 0.
        z: The normal (or Student's) quantile.

    Returns:
        The lower and the upper limit of the mean, inside [0, 1].

    Reference:
        Martin Andres, Alvarez Hernandez and Herranz Tejedor 2011, Stat. Methods Med. Res. 20:369-387 (score
        limits of linear combinations of proportions); Yan and Su 2010, Stat. Biopharm. Res. 2:329-335.
    """
    return _lower_mean(hits, trials, z), 1 - _lower_mean(trials - hits, trials, z)


def _lower_mean(hits: Floats, trials: Floats, z: float) -> float:
    if not (hits > 0).any():
        return 0.0
    seen = hits / trials
    multiplier = z / math.sqrt(float(((seen * (1 - seen) + 0.5 / trials) / trials).sum()))
    shares = seen
    # Newton's steps for the root of a convex function: from the first one on they come from its right.
    for _ in range(200):
        total = trials + multiplier
        bent = np.sqrt(np.maximum(total * total - 4 * multiplier * hits, 0.0))
        shares = np.minimum(2 * hits / (total + bent), seen)
        away = float((seen - shares).sum())
        if away <= 0:  # no share moves yet: all trials were hits
            multiplier *= 2
            continue
        slope = away + multiplier * float((shares * (1 - shares) / np.maximum(bent, 1e-300)).sum())
        step = (multiplier * away - z * z) / slope
        multiplier -= step
        if abs(step) <= 1e-10 * multiplier:
            break
    return float(shares.mean())


class Shares(NamedTuple):
    """Weighted shares of rows that are right, one for each class, and how many rows they are worth.

    Attributes:
        values: (K,) share of each class.
        trials: (K,) independent rows that would show the mean of the shares as exactly.
    """

    values: Floats
    trials: Floats


def effective_shares(
    right: NDArray[np.bool_],
    classes: NDArray[np.int64],
    weights: Floats,
    groups: NDArray[np.int64] | None,
    confidence: float,
) -> Shares:
    """Compute weighted shares, and the rows they are worth by the variance that the rows, or groups, show.

    The rows of all classes are multiplied by one design effect: the variance of the mean share, added up from
    the influences of the units, divided by that of independent rows, and made larger as Student's quantile is
    than the normal one, since few units show a variance badly.

    Args:
        right: (n,) whether each row counts as a hit.
        classes: (n,) class of each row, 0 to K - 1; each has a row with a weight.
        weights: (n,) row weights, more than 0.
        groups: (n,) index of the group of each row, or None where rows are independent.
        confidence: Nominal coverage, for the quantiles.

    Returns:
        The shares; where no unit differs, each class is worth its effective number of units.

    Reference:
        Korn and Graubard 1998, Survey Methodology 24:193-201.
    """
    total = np.bincount(classes, weights=weights)
    values = np.minimum(np.bincount(classes, weights=weights * right) / total, 1.0)
    rows = total**2 / np.bincount(classes, weights=weights**2)
    influence = weights * (right - values[classes]) / total[classes] / len(total)
    variance, freedom = clustered_variance(influence, groups)
    independent = float((values * (1 - values) / rows).sum()) / len(total) ** 2
    if not (variance > 1e-18 and independent > 1e-18):
        if groups is not None:
            rows = np.array([effective_units(weights * (classes == k), groups) for k in range(len(total))])
        return Shares(values, rows)
    units = len(right) if groups is None else len(np.unique(groups))
    freedom = min(max(freedom, FEWEST_FREEDOM), units - 1)
    t, z = quantile(confidence, freedom), quantile(confidence)
    worth = rows * independent / variance * (z / t) ** 2
    # A row of little weight that is the only one that is wrong shows less variance than there is.
    return Shares(values, worth if groups is not None else np.minimum(worth, np.bincount(classes)))
