"""Intervals of shares of rows, of their means over classes, and of the difference of two shares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from finetune_eval._checks import one_of, positive_int
from finetune_eval.evaluation._limits import boundary, checked_confidence, quantile, times
from finetune_eval.evaluation.records import Estimate

Floats = NDArray[np.float64]


def _count(successes: int, n: int, name: str = "successes", name_n: str = "n") -> tuple[int, int]:
    n = positive_int(name_n, n)
    successes = positive_int(name, successes, minimum=0)
    if successes > n:
        raise ValueError(f"`{name}` must be at most `{name_n}`; got {successes} of {n}.")
    return successes, n


def wilson_limits(successes: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson limits at a normal or Student's quantile; counts may be effective numbers of rows."""
    square = z * z
    centre = successes + square / 2
    half = z * math.sqrt(max(successes * (n - successes) / n, 0.0) + square / 4)
    low = 0.0 if successes <= 0 else (centre - half) / (n + square)
    high = 1.0 if successes >= n else (centre + half) / (n + square)
    return low, high


# Up to so many hits or errors (two of at most 50 rows) Wilson's limit next to 0 or 1 is replaced.
_FEW_HITS, _FEW_HITS_OF_50 = 3, 2
_MODIFIED = "Wilson, modified for few hits or errors (conservative)"


def modified_wilson_limits(
    successes: float, n: float, z: float, confidence: float
) -> tuple[tuple[float, float], str]:
    """Return Wilson limits, moved towards 0 or 1 where there are one to three hits or errors.

    Wilson's interval covers as little as .84 where less than one hit, or one error, is expected, since its
    limit next to 0 or 1 is too far from it. The lower limit is then that of a Poisson distribution: the mean
    of which `successes` or more hits are as improbable as 1 - confidence.

    Args:
        successes: Hits, 0 to n; may be an effective number.
        n: Rows; may be an effective number.
        z: The normal (or Student's) quantile.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit, and the name of the method.

    Reference:
        Brown, Cai and DasGupta 2001, Stat. Sci. 16:101-133, section 4.1.1 (modified Wilson interval).
    """
    low, high = wilson_limits(successes, n, z)
    few = (_FEW_HITS if n > 50 else _FEW_HITS_OF_50) + 1e-9
    nearest_low, nearest_high = (
        min(limit, _fewest_poisson(count, confidence) / n) if 0 < count <= few else limit
        for count, limit in ((successes, low), (n - successes, 1 - high))
    )
    same = nearest_low == low and nearest_high == 1 - high
    return (nearest_low, high if same else 1 - nearest_high), "Wilson" if same else _MODIFIED


def _fewest_poisson(hits: float, confidence: float) -> float:
    """Return the Poisson mean at which `hits` or more have the probability 1 - confidence."""
    from scipy.special import gammaincinv

    return float(gammaincinv(hits, 1 - confidence))


def clopper_pearson_limits(successes: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Clopper-Pearson limits, quantiles of beta distributions; the counts may be effective numbers."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if successes <= 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes >= n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Make a Wilson score interval of a proportion.

    Args:
        successes: How many of the n rows are right (or hits), 0 to n.
        n: How many rows, at least 1.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The proportion with its interval inside [0, 1].

    Raises:
        ValueError: A count is out of range, or the confidence is not in (0, 1).

    Example:
        >>> print(wilson(158, 200))
        0.790 [0.728, 0.841]

    Reference:
        Wilson 1927, JASA 22:209-212; recommended by Newcombe 1998, Stat. Med. 17:857-872 (method 3).
    """
    successes, n = _count(successes, n)
    low, high = wilson_limits(successes, n, quantile(checked_confidence(confidence)))
    return Estimate(successes / n, low, high, "Wilson", confidence)


def effective_wilson(share: float, rows: float, *, confidence: float = 0.95) -> Estimate:
    """Make a Wilson interval of a weighted share, with Kish's effective number of rows.

    Args:
        share: The weighted share of rows that are right (or hits), in [0, 1].
        rows: The square of the sum of the weights, divided by the sum of their squares.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The share with its interval; that of `wilson` where all weights are the same.

    Example:
        >>> print(effective_wilson(0.79, 200))
        0.790 [0.728, 0.841]

    Reference:
        Kish 1965, Survey Sampling, section 11.7; Korn and Graubard 1998, Survey Methodology 24:193-201.
    """
    # Sums are rounded, and a share of 0.999... in place of 1 would lose its upper limit of 1.
    value, rows = round(share, 14), round(rows, 9)
    low, high = wilson_limits(value * rows, rows, quantile(confidence))
    return Estimate(value, low, high, f"Wilson on {times(rows, 'effective row')}", confidence)


def clopper_pearson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Make a Clopper-Pearson interval of a proportion: coverage is at least the nominal one.

    Args:
        successes: How many of the n rows are right (or hits), 0 to n.
        n: How many rows, at least 1.
        confidence: Guaranteed coverage in (0, 1).

    Returns:
        The proportion with its interval inside [0, 1].

    Raises:
        ValueError: A count is out of range, or the confidence is not in (0, 1).

    Example:
        >>> print(clopper_pearson(200, 200))
        1.000 [0.982, 1.000]

    Reference:
        Clopper and Pearson 1934, Biometrika 26:404-413.
    """
    successes, n = _count(successes, n)
    low, high = clopper_pearson_limits(successes, n, checked_confidence(confidence))
    return Estimate(successes / n, low, high, "Clopper-Pearson", confidence)


def agresti_coull(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Make an Agresti-Coull interval of a proportion: Wald's, with z squared rows added, half of them right.

    It has the centre of Wilson's interval and is never narrower. Near 0 and 1 it covers more than nominal.

    Args:
        successes: How many of the n rows are right (or hits), 0 to n.
        n: How many rows, at least 1.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The proportion with its interval, cut off at 0 and 1.

    Raises:
        ValueError: A count is out of range, or the confidence is not in (0, 1).

    Example:
        >>> print(agresti_coull(18, 20))
        0.900 [0.687, 0.984]

    Reference:
        Agresti and Coull 1998, Am. Stat. 52:119-126.
    """
    successes, n = _count(successes, n)
    z = quantile(checked_confidence(confidence))
    total = n + z * z
    centre = (successes + z * z / 2) / total
    half = z * math.sqrt(centre * (1 - centre) / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(successes / n, low, high, "Agresti-Coull", confidence)


def wilson_f1_interval(hits: int, union: int, *, confidence: float = 0.95) -> Estimate:
    """Estimate the F1 of one class from its hits, with Wilson limits of the Jaccard share.

    Args:
        hits: True positives.
        union: Rows that are of the class or predicted as it, at least 1.
        confidence: Nominal coverage in (0, 1).

    Returns:
        F1 in [0, 1] with its interval.

    Raises:
        ValueError: The hits are not from 0 to `union`, or the confidence is not in (0, 1).

    Example:
        >>> print(wilson_f1_interval(9, 12))
        0.857 [0.637, 0.953]
    """
    hits, union = _count(hits, union, "hits", "union")
    # Among the rows that are of the class or predicted as it, the hits are binomial. F1 = 2 J / (1 + J) grows
    # with their share J, so that limits of J give limits of F1.
    limits = wilson_limits(hits, union, quantile(checked_confidence(confidence)))
    low, high = (2 * share / (1 + share) for share in limits)
    value = 2 * hits / (hits + union)
    return Estimate(value, min(low, value), max(high, value), "Wilson, through the Jaccard share", confidence)


def _limits_of_difference(
    value: float, low_a: float, high_a: float, low_b: float, high_b: float, correlation: float
) -> tuple[float, float]:
    """Square and add the distances of the two proportions from their own limits."""

    def length(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))

    return max(-1.0, value - length(low_a, high_b)), min(1.0, value + length(high_a, low_b))


def newcombe_difference(
    successes_a: int, n_a: int, successes_b: int, n_b: int, *, confidence: float = 0.95
) -> Estimate:
    """Make an interval of the difference of two proportions on different rows (a minus b).

    Args:
        successes_a: How many of the n_a rows are right.
        n_a: Rows of the first sample, at least 1.
        successes_b: How many of the n_b rows are right.
        n_b: Rows of the second sample, at least 1.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The difference in [-1, 1] with its interval.

    Raises:
        ValueError: A count is out of range, or the confidence is not in (0, 1).

    Example:
        >>> print(newcombe_difference(56, 70, 48, 80))
        0.200 [0.052, 0.334]

    Reference:
        Newcombe 1998, Stat. Med. 17:873-890, method 10 (hybrid score).
    """
    successes_a, n_a = _count(successes_a, n_a, "successes_a", "n_a")
    successes_b, n_b = _count(successes_b, n_b, "successes_b", "n_b")
    a, b = successes_a / n_a, successes_b / n_b
    z = quantile(checked_confidence(confidence))
    low_a, high_a = wilson_limits(successes_a, n_a, z)
    low_b, high_b = wilson_limits(successes_b, n_b, z)
    low, high = _limits_of_difference(a - b, a - low_a, high_a - a, b - low_b, high_b - b, 0.0)
    return Estimate(a - b, low, high, "Newcombe hybrid score", confidence)


def newcombe_paired_difference(
    both: int, only_a: int, only_b: int, neither: int, *, confidence: float = 0.95
) -> Estimate:
    """Make an interval of the difference of two proportions on the same rows (a minus b).

    The distances of the two proportions from their Wilson limits are squared and added, less a part for their
    correlation phi. A positive phi is corrected for continuity.

    Args:
        both: Rows that both have right.
        only_a: Rows that only a has right.
        only_b: Rows that only b has right.
        neither: Rows that neither has right.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The difference in [-1, 1] with its interval.

    Raises:
        ValueError: A count is negative, there are no rows, or the confidence is not in (0, 1).

    Example:
        >>> print(newcombe_paired_difference(170, 10, 0, 20))
        0.050 [0.018, 0.087]

    Reference:
        Newcombe 1998, Stat. Med. 17:2635-2650, method 10 (square-and-add with corrected phi).
    """
    return paired_difference(both, only_a, only_b, neither, method="newcombe", confidence=confidence)


def paired_difference(
    both: int,
    only_a: int,
    only_b: int,
    neither: int,
    *,
    method: str = "newcombe",
    confidence: float = 0.95,
) -> Estimate:
    """Make an interval of the difference of two proportions on the same rows (a minus b).

    The three methods are those that Fagerland, Lydersen and Laake 2014 recommend. Wald's is not among them.

    Args:
        both: Rows that both have right.
        only_a: Rows that only a has right.
        only_b: Rows that only b has right.
        neither: Rows that neither has right.
        method: "newcombe" (square-and-add), "tango" (the differences that a score test does not reject) or
            "bonett_price" (Wald's formula after a row is added to each of `only_a` and `only_b`).
        confidence: Nominal coverage in (0, 1).

    Returns:
        The difference in [-1, 1] with its interval.

    Raises:
        ValueError: A count is negative, there are no rows, the method is unknown, or the confidence is not
            in (0, 1).

    Example:
        >>> print(paired_difference(59, 6, 16, 80, method="tango"))
        -0.062 [-0.124, -0.005]

    Reference:
        Fagerland et al. 2014, Stat. Med. 33:2850-2875; Newcombe 1998, Stat. Med. 17:2635-2650; Tango 1998,
        Stat. Med. 17:891-908; Bonett and Price 2012, J. Educ. Behav. Stat. 37:479-488.
    """
    both, only_a, only_b, neither = (
        positive_int(name, value, minimum=0)
        for name, value in (("both", both), ("only_a", only_a), ("only_b", only_b), ("neither", neither))
    )
    n = both + only_a + only_b + neither
    if n == 0:
        raise ValueError("`both`, `only_a`, `only_b` and `neither` are all 0; at least one row is needed.")
    one_of("method", method, ("newcombe", "tango", "bonett_price"))
    z = quantile(checked_confidence(confidence))
    value = (only_a - only_b) / n
    if method == "tango":
        limits, name = _tango(only_a, only_b, n, z), "Tango score"
    elif method == "bonett_price":
        a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
        half = z * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
        limits, name = (a - b - half, a - b + half), "Bonett-Price adjusted Wald"
        limits = max(-1.0, min(limits[0], value)), min(1.0, max(limits[1], value))
    else:
        limits, name = _newcombe_paired(both, only_a, only_b, neither, confidence), _NEWCOMBE_PAIRED
    return Estimate(value, *limits, name, confidence)


_NEWCOMBE_PAIRED = "Newcombe paired square-and-add"


def _newcombe_paired(
    both: int, only_a: int, only_b: int, neither: int, confidence: float
) -> tuple[float, float]:
    n = both + only_a + only_b + neither
    a, b = (both + only_a) / n, (both + only_b) / n
    low_a, high_a = wilson_limits(both + only_a, n, quantile(confidence))
    low_b, high_b = wilson_limits(both + only_b, n, quantile(confidence))
    cross = float(both * neither - only_a * only_b)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    phi = cross / math.sqrt(margins) if margins else 0.0
    value = (only_a - only_b) / n
    return _limits_of_difference(value, a - low_a, high_a - a, b - low_b, high_b - b, phi)


def _tango(only_a: int, only_b: int, n: int, z: float) -> tuple[float, float]:
    """Find the differences at which Tango's score is -+ z."""
    value = (only_a - only_b) / n

    def rejected(difference: float) -> bool:
        # The most likely share of rows that only b has right at this difference is a root of Tango's (9).
        linear = -only_a - only_b + (2 * n - only_a + only_b) * difference
        constant = -only_b * difference * (1 - difference)
        share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return (only_a - only_b - n * difference) ** 2 > z * z * max(variance, 0.0)

    return boundary(rejected, value, -1.0), boundary(rejected, value, 1.0)
