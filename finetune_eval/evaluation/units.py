"""How many independent rows a set of rows is worth that come in groups or have unequal weights."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Student's quantiles at one or two degrees of freedom make intervals too wide to be of use, so that no
# variance is taken to have fewer degrees of freedom than this (docs/statistics.md).
FEWEST_FREEDOM = 3.0
# Where a class has fewer rows than this, intervals that depend on each class cover too little
# (docs/statistics.md), and `.method` says "unreliable". The bootstrap also needs as many right rows of each
# class: a class without a hit has none in any resample, and the bootstrap covers .42-.73.
FEW_ROWS = 5


def group_indices(groups: ArrayLike, n: int) -> NDArray[np.int64]:
    """Number the groups from 0.

    Args:
        groups: (n,) name or number of the group of each row.
        n: How many rows there are.

    Returns:
        (n,) indices from 0 to the number of groups less 1.
    """
    array = np.asarray(groups)
    if array.shape != (n,):
        raise ValueError(f"`groups` must have one entry for each of the {n} rows; got shape {array.shape}.")
    if array.dtype == object:
        array = array.astype(str)
    return np.asarray(np.unique(array, return_inverse=True)[1], dtype=np.int64)


def sums_of_groups(values: Floats, groups: NDArray[np.int64] | None) -> Floats:
    """Return (groups,) sums of the values in each group, or the values where there are no groups."""
    return values if groups is None else np.asarray(np.bincount(groups, weights=values), dtype=np.float64)


def independent_units(side: NDArray[np.bool_], weights: Floats, groups: NDArray[np.int64] | None) -> float:
    """Count the groups, or else the rows (Kish's effective number where weights differ), of some rows.

    Args:
        side: (n,) which rows.
        weights: (n,) row weights; a row of weight 0 is not counted.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The number; 0 where no row has a weight.
    """
    counted = side & (weights > 0)
    if groups is not None:
        return float(np.count_nonzero(np.bincount(groups[counted])))
    return _kish(weights[counted])


def units_of_classes(
    classes: NDArray[np.int64], weights: Floats, groups: NDArray[np.int64] | None, many: int
) -> Floats:
    """Count the groups, or else the rows (Kish's effective number where weights differ), of each class.

    Args:
        classes: (n,) class of each row.
        weights: (n,) row weights; a row of weight 0 is not counted.
        groups: (n,) index of the group of each row, or None.
        many: How many classes K there are.

    Returns:
        (K,) numbers; 0 where no row has a weight.
    """
    if groups is not None:
        counted = weights > 0
        pairs = np.unique(groups[counted] * many + classes[counted])
        return np.bincount(pairs % many, minlength=many).astype(np.float64)
    squares = np.bincount(classes, weights**2, many)
    return np.divide(np.bincount(classes, weights, many) ** 2, squares, out=np.zeros(many), where=squares > 0)


def effective_units(weights: Floats, groups: NDArray[np.int64] | None) -> float:
    """Return Kish's effective number of rows, or groups: how many of equal weight show a mean as exactly.

    Args:
        weights: (n,) row weights; ones where rows count the same.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The number, at most that of the rows or groups.

    Reference:
        Kish 1965, Survey Sampling, section 11.7.
    """
    return _kish(weights if groups is None else np.asarray(np.bincount(groups, weights=weights)))


def _kish(weights: Floats) -> float:
    largest = float(weights.max(initial=0.0))
    if largest == 0:
        return 0.0
    parts = weights / largest  # squares of very small or large weights are no numbers
    return float(parts.sum() ** 2 / (parts**2).sum())


def expanded_confidence(confidence: float, units: float) -> float:
    """Return the confidence at which a percentile bootstrap of few units has the nominal coverage.

    Bootstrap limits of n units are too narrow by a factor of sqrt((n - 1) / n), and because they use normal
    in place of Student's quantiles. A nominal .95 becomes .962 for 30 units, and .951 for 500.

    Args:
        confidence: The nominal confidence, in (0, 1).
        units: How many rows or groups are drawn.

    Reference:
        Hesterberg 2015, American Statistician 69:371-386 (expanded percentile interval).
    """
    from scipy.special import ndtr, stdtrit

    if math.isinf(units):
        return confidence
    freedom = max(units - 1, 1.0)
    t = float(stdtrit(freedom, 0.5 + confidence / 2))
    # For two units this would round to 1, which is not a confidence.
    return min(float(2 * ndtr(t * math.sqrt((freedom + 1) / freedom)) - 1), 1 - 1e-12)


def degrees_of_freedom(units: Floats) -> float:
    """Compute the degrees of freedom of a sum of squared influences, from the kurtosis of the influences.

    A variance is known less well where few units make up most of it, as the rows of a rare class do. The
    variance of n units of kurtosis k varies like that of 2 n / (k - 1) normal units.

    Args:
        units: (n,) influences of the units; they sum to 0.

    Returns:
        Degrees of freedom, from 1 to n - 1.

    Reference:
        Box 1953, Biometrika 40:318-335; Shoemaker 2003, Am. Stat. 57:105-110.
    """
    squares = units * units
    return freedom_of(len(units), float(squares.sum()), float((squares * squares).sum()))


def freedom_of(n: int, second: float, fourth: float) -> float:
    """Return the `degrees_of_freedom` of n units, from the sums of their second and fourth powers."""
    kurtosis = n * fourth / second**2 if second > 0 else 3.0
    return min(max(2 * n / (kurtosis - 1), 1.0) if kurtosis > 1 else math.inf, max(n - 1.0, 1.0))


def freedom_and_carried(units: Floats, freedom: float, counts: Floats | None = None) -> tuple[float, float]:
    """Return the degrees of freedom of the sum of squared influences, and how many units make it up.

    Args:
        units: (m,) influence of each row, or group.
        freedom: Those of the kurtosis are taken where they are fewer.
        counts: (m,) how many such rows there are; None: one of each.
    """
    squares = units * units
    n = len(units) if counts is None else int(counts.sum())
    powers = squares, squares * squares
    second, fourth = (float(part.sum() if counts is None else part @ counts) for part in powers)
    carried = second**2 / fourth if fourth > 0 else math.inf
    return max(min(freedom, freedom_of(n, second, fourth)), FEWEST_FREEDOM), carried


def clustered_variance(influence: Floats, groups: NDArray[np.int64] | None) -> tuple[float, float]:
    """Add up the squared influences of the units (rows, or groups of rows), times n / (n - 1).

    Args:
        influence: (n,) of each row; they sum to 0.
        groups: (n,) index of the group of each row, or None where rows are independent.

    Returns:
        The variance, 0 for a single unit, and its `degrees_of_freedom`.
    """
    units = sums_of_groups(influence, groups)
    n = len(units)
    return float((units**2).sum()) * n / (n - 1) if n > 1 else 0.0, degrees_of_freedom(units)
