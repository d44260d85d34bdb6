"""Intervals of a mean of shares over classes, and of shares of rows that have weights or come in groups."""

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
    """Find the means of K independent binomial shares that a score test does not reject.

    The score test of a mean takes its standard error from the most likely shares that have this mean, and not
    from the shares that were seen. Its limits of a single share are Wilson's.

    With a Lagrange multiplier m, the most likely shares p solve hits - trials p = m p (1 - p). The test
    rejects their mean where m (sum of the shares seen - sum of p) exceeds z squared.

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
    # Newton's method on a convex function: from the first step on, all steps stay on the right of the root.
    for _ in range(200):
        total = trials + multiplier
        bent = np.sqrt(np.maximum(total * total - 4 * multiplier * hits, 0.0))
        shares = np.minimum(2 * hits / (total + bent), seen)
        away = float((seen - shares).sum())
        if away <= 0:  # all trials were hits, and no share has moved yet
            multiplier *= 2
            continue
        slope = away + multiplier * float((shares * (1 - shares) / np.maximum(bent, 1e-300)).sum())
        step = (multiplier * away - z * z) / slope
        multiplier -= step
        if abs(step) <= 1e-10 * multiplier:
            break
    return float(shares.mean())


class Shares(NamedTuple):
    """Weighted share of right rows in each class, and the number of independent rows it is worth.

    Attributes:
        values: (K,) share of each class.
        trials: (K,) how many independent rows of each class would show the mean of the shares as exactly.
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
    """Compute weighted shares, and how many independent rows would show the same variance.

    The number of rows in each class is divided by a design effect, which is the same for all classes: the
    variance of the mean share, from the influences of the units (rows, or groups), divided by the variance
    that independent rows would have. It is larger where there are few units, by the squared ratio of
    Student's to the normal quantile, since few units show a variance less well.

    Args:
        right: (n,) whether each row counts as a hit.
        classes: (n,) class of each row, 0 to K - 1; each has a row with a weight.
        weights: (n,) row weights, more than 0.
        groups: (n,) index of the group of each row, or None where rows are independent.
        confidence: Nominal coverage, for the quantiles.

    Returns:
        The shares. Where the units show no variance, each class is worth its effective number of units.

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
    # If the only wrong row has little weight, the rows show less variance than there is.
    return Shares(values, worth if groups is not None else np.minimum(worth, np.bincount(classes)))
