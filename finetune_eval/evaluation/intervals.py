"""Confidence intervals: each says which method made it, and none has zero width.

An interval covers the sampling of rows only: not the seed of the training, not drift. `docs/statistics.md`
has the simulated coverage by which the defaults were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, number, one_of, positive_int, same_length
from finetune_eval.evaluation.metrics import ClassCounts, class_counts, from_confusion, resolve_average

Floats = NDArray[np.float64]


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
        return f"[{self.low:.3f}, {self.high:.3f}]"


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
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _confidence(value: float) -> float:
    return number("confidence", value, above=0, below=1)


def _z(confidence: float, df: float = math.inf) -> float:
    """Return the normal quantile that leaves (1 - confidence) / 2 above it, or Student's with `df`."""
    from scipy.special import ndtri, stdtrit

    above = 0.5 + confidence / 2
    return float(ndtri(above) if math.isinf(df) else stdtrit(df, above))


def _count(successes: int, n: int, name: str = "successes", name_n: str = "n") -> tuple[int, int]:
    n = positive_int(name_n, n)
    successes = positive_int(name, successes, minimum=0)
    if successes > n:
        raise ValueError(f"`{name}` must be at most `{name_n}`; got {successes} of {n}.")
    return successes, n


def _wilson(successes: ArrayLike, n: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Wilson limits, vectorised; the counts may be real (effective numbers of rows)."""
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = _z(confidence)
    centre = k + z * z / 2
    half = z * np.sqrt(np.maximum(k * (n - k) / n, 0.0) + z * z / 4)
    low = np.where(k <= 0, 0.0, (centre - half) / (n + z * z))
    high = np.where(k >= n, 1.0, (centre + half) / (n + z * z))
    return low, high


def _clopper_pearson(successes: ArrayLike, n: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Clopper-Pearson limits through the beta quantile, vectorised; the counts may be real."""
    from scipy.special import betaincinv

    k, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k <= 0, 0.0, betaincinv(np.maximum(k, 1e-12), n - k + 1, tail))
        high = np.where(k >= n, 1.0, betaincinv(k + 1, np.maximum(n - k, 1e-12), 1 - tail))
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
    low, high = _wilson(successes, n, _confidence(confidence))
    return Estimate(successes / n, float(low), float(high), "Wilson", confidence)


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
    # Sums round: a share of 1 less a trifle would lose its upper limit of 1.
    value, rows = round(share, 14), round(rows, 9)
    low, high = _pair(_wilson(value * rows, rows, confidence))
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
    low, high = _clopper_pearson(successes, n, _confidence(confidence))
    return Estimate(successes / n, float(low), float(high), "Clopper-Pearson", confidence)


def agresti_coull(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Make an Agresti-Coull interval of a proportion: Wald's, after z squared rows are added, half right.

    It has the centre of Wilson's and is never narrower; near 0 and 1 it covers more than was asked for.

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
    z = _z(_confidence(confidence))
    total = n + z * z
    centre = (successes + z * z / 2) / total
    half = z * math.sqrt(centre * (1 - centre) / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(successes / n, low, high, "Agresti-Coull", confidence)


def resample_confusion(confusion: ArrayLike, n_resamples: int, seed: int) -> NDArray[np.int64]:
    """Resample the rows behind a confusion matrix: exact multinomial draws of its non-empty cells.

    Drawing n rows with replacement and counting them is a multinomial draw of the cells, so this is the row
    bootstrap itself, at a cost that does not depend on the number of rows.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K, K) counts, each summing to the number of rows.

    Raises:
        ValueError: The matrix is not square, empty, or does not hold whole counts.

    Example:
        >>> resample_confusion([[8, 2], [1, 9]], 3, seed=0).sum(axis=(1, 2)).tolist()
        [20, 20, 20]
    """
    table = _whole_counts(confusion)
    cells = np.flatnonzero(table)
    counts = table.reshape(-1)[cells]
    drawn = np.random.default_rng(seed).multinomial(
        int(counts.sum()), counts / counts.sum(), size=positive_int("n_resamples", n_resamples)
    )
    out = np.zeros((n_resamples, table.size), dtype=np.int64)
    out[:, cells] = drawn
    return out.reshape(n_resamples, *table.shape)


def resample_class_counts(confusion: ArrayLike, n_resamples: int, seed: int) -> ClassCounts:
    """Resample the rows behind a confusion matrix, as hits, predicted and true rows of each class.

    The draws of `resample_confusion`, without the K x K matrices: fast where there are many classes.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.
    """
    table = _whole_counts(confusion)
    cells = np.flatnonzero(table)
    counts = table.reshape(-1)[cells]
    random, (true, predicted) = np.random.default_rng(seed), np.divmod(cells, len(table))
    step = max(1, _CHUNK // len(cells))
    sums = []
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = random.multinomial(int(counts.sum()), counts / counts.sum(), size=size)
        sums.append(sum_counts(drawn, true, predicted, len(table)))
    return split_counts(np.concatenate(sums))


def sum_counts(
    values: NDArray[Any], true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Floats:
    """Add numbers of cells up to hits, predicted and true rows of the classes.

    Args:
        values: (B, cells) numbers.
        true: (cells,) true class of each cell.
        predicted: (cells,) predicted class of each.
        classes: How many classes K.

    Returns:
        (B, 3 K) sums, for `split_counts`.
    """
    from scipy.sparse import csr_matrix

    cells, hit = np.arange(len(true)), np.flatnonzero(true == predicted)
    place = np.concatenate([true[hit], classes + predicted, 2 * classes + true])
    ones = np.ones(len(place))
    gather = csr_matrix((ones, (place, np.concatenate([hit, cells, cells]))), (3 * classes, len(true)))
    return np.asarray((gather @ values.T).T)


def split_counts(sums: Floats) -> ClassCounts:
    """Split (..., 3 K) numbers into hits, predicted and true rows of the K classes."""
    return ClassCounts(*np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1))


def _whole_counts(confusion: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(confusion)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(
            f"`confusion` must be square (rows true, columns predicted); got shape {table.shape}."
        )
    if table.dtype.kind not in "biuf" or not np.all((table >= 0) & (table == np.floor(table))):
        raise ValueError("`confusion` must hold whole counts of rows, none negative; got other numbers.")
    if table.sum() == 0:
        raise ValueError("`confusion` has no rows; at least one is needed.")
    return table.astype(np.int64)


def bias_corrected(values: float, resampled: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Take the bias-corrected percentile limits of a bootstrap distribution.

    With z0 = the normal quantile of the share of resamples below the value (ties count half), the limits are
    the quantiles at Phi(2 z0 -+ z).

    Args:
        values: The value on the rows themselves.
        resampled: (B,) values on the resamples.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit.

    Example:
        >>> bias_corrected(0.5, [0.3, 0.4, 0.5, 0.6, 0.7], 0.5)
        (0.4, 0.6)

    Reference:
        Efron 1981, Can. J. Stat. 9:139-172; Efron and Tibshirani 1993, chapter 14.
    """
    from scipy.special import ndtr

    draws = np.asarray(resampled, dtype=np.float64)
    z0, z = _bias(values, draws), _z(confidence)
    low, high = np.quantile(draws, [float(ndtr(2 * z0 - z)), float(ndtr(2 * z0 + z))])
    return float(low), float(high)


def _bias(value: float, draws: Floats) -> float:
    """Return the normal quantile of the share of draws below the value; ties count half."""
    from scipy.special import ndtri

    # Resamples that equal the value up to rounding are ties, whatever order they were summed in.
    slack = 1e-12 * max(1.0, abs(value))
    below = np.mean(draws < value - slack) + np.mean(np.abs(draws - value) <= slack) / 2
    # Never let the correction run off the end of the draws.
    return float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))


def expanded_confidence(confidence: float, units: float) -> float:
    """Return the confidence at which a percentile bootstrap of few units is as wide as it ought to be.

    Bootstrap limits of n units are too narrow by sqrt((n - 1) / n), and by normal instead of Student's
    quantiles: .95 of 30 units becomes .962, of 500 units .951.

    Args:
        confidence: The nominal one, in (0, 1).
        units: How many rows or groups are drawn.

    Reference:
        Hesterberg 2015, American Statistician 69:371-386 (expanded percentile interval).
    """
    from scipy.special import ndtr, stdtrit

    if math.isinf(units):
        return confidence
    freedom = max(units - 1, 1.0)
    t = float(stdtrit(freedom, 0.5 + confidence / 2))
    # Of two units the limits are the ends of the draws; 1 itself is no confidence.
    return min(float(2 * ndtr(t * math.sqrt((freedom + 1) / freedom)) - 1), 1 - 1e-12)


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
    low_a, high_a = map(float, _wilson(successes_a, n_a, _confidence(confidence)))
    low_b, high_b = map(float, _wilson(successes_b, n_b, confidence))
    low, high = _limits_of_difference(a - b, a - low_a, high_a - a, b - low_b, high_b - b, 0.0)
    return Estimate(a - b, low, high, "Newcombe hybrid score", confidence)


def newcombe_paired_difference(
    both: int, only_a: int, only_b: int, neither: int, *, confidence: float = 0.95
) -> Estimate:
    """Make an interval of the difference of two proportions on the same rows (a minus b).

    The distances of the two proportions from their Wilson limits are squared and added, less the part that
    their correlation phi explains; a positive phi is corrected for continuity.

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

    These are the three that Fagerland, Lydersen and Laake 2014 recommend; Wald's is not among them.

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
    z = _z(_confidence(confidence))
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
    low_a, high_a = map(float, _wilson(both + only_a, n, confidence))
    low_b, high_b = map(float, _wilson(both + only_b, n, confidence))
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
        # The share of rows that only b has right, most likely at this difference: a root of Tango's (9).
        linear = -only_a - only_b + (2 * n - only_a + only_b) * difference
        constant = -only_b * difference * (1 - difference)
        share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return (only_a - only_b - n * difference) ** 2 > z * z * max(variance, 0.0)

    return _boundary(rejected, value, -1.0), _boundary(rejected, value, 1.0)


def _boundary(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Halve the way from a value that is not rejected to one that is, until it is as short as floats are."""
    if not rejected(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return inside


def _binary_rows(y_true: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    y, s = np.asarray(y_true), np.asarray(scores, dtype=np.float64)
    same_length("y_true", y, "scores", s)
    if y.ndim != 1 or s.ndim != 1:
        raise ValueError(f"`y_true` and `scores` must have shape (rows,); got {y.shape} and {s.shape}.")
    not_empty("y_true", y)
    if not np.isin(y, (0, 1)).all():
        bad = int(np.flatnonzero(~np.isin(y, (0, 1)))[0])
        raise ValueError(f"`y_true` must be 0 or 1 (1 is positive); row {bad} is {y[bad]!r}.")
    if np.isnan(s).any():
        raise ValueError(f"`scores` has NaN in row {int(np.flatnonzero(np.isnan(s))[0])}; a score is needed.")
    return y.astype(bool), s


def auc_influence(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> tuple[float, Floats]:
    """Compute the ROC-AUC and how much each row moves it, in O(N log N).

    Args:
        positive: (n,) True for rows of the positive class; both classes must be there.
        scores: (n,) higher means more positive; ties count half.
        weights: (n,) row weights, or None.

    Returns:
        The AUC, and (n,) influences that sum to 0: the squares of DeLong's structural components add up to
        its variance.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Sun and Xu 2014, IEEE Signal Proc. Letters 21:1389-1393.
    """
    w = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    of_positive = np.bincount(place, weights=w * positive)
    of_negative = np.bincount(place, weights=w * ~positive)
    total_positive, total_negative = of_positive.sum(), of_negative.sum()
    # Share of the other class that a row beats, ties half: the midrank, less the ranks of its own class.
    negatives_below = (np.cumsum(of_negative) - of_negative / 2) / total_negative
    positives_above = 1 - (np.cumsum(of_positive) - of_positive / 2) / total_positive
    auc = float(of_positive @ negatives_below / total_positive)
    components = np.where(positive, negatives_below[place], positives_above[place]) - auc
    return auc, w * components / np.where(positive, total_positive, total_negative)


def average_precision_influence(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> tuple[float, Floats]:
    """Compute the average precision (PR-AUC) and how much each row moves it, in O(N log N).

    Average precision is the mean, over positive rows, of the precision among the rows that score at least as
    high; the influence of a row is its weight times the derivative by that weight.

    Args:
        positive: (n,) True for rows of the positive class; at least one.
        scores: (n,) higher means more positive.
        weights: (n,) row weights, or None.

    Returns:
        The average precision, and (n,) influences that sum to 0.
    """
    w = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(-scores, return_inverse=True)
    of_positive = np.bincount(place, weights=w * positive)
    total = np.cumsum(np.bincount(place, weights=w))
    hits = np.cumsum(of_positive)
    # Leading rows of weight 0 are no rows at all.
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    value = float(of_positive @ precision / hits[-1])

    def from_here_down(terms: Floats) -> Floats:
        return np.cumsum(terms[::-1])[::-1]

    safe = np.where(total > 0, total, 1.0)
    gain = from_here_down(of_positive / safe)[place]
    loss = from_here_down(of_positive * precision / safe)[place]
    derivative = (positive * (precision[place] - value + gain) - loss) / hits[-1]
    return value, w * derivative


def limits_of_share(
    value: float,
    variance: float,
    *,
    confidence: float,
    trials: float,
    df: float = math.inf,
    logit: bool | None = True,
    what: str = "row",
) -> tuple[float, float, str]:
    """Turn the variance of an estimate inside [0, 1] into limits inside [0, 1].

    Args:
        value: The estimate.
        variance: Its variance; 0 where the rows show none.
        confidence: Nominal coverage in (0, 1).
        trials: How many trials the estimate is worth at least; used where the rows show no variance.
        df: Degrees of freedom of the variance, for Student's t; infinite: it is known.
        logit: Make the limits on the logit scale; None: only near 0 or 1, where the plain limits are off.
        what: What a trial is, for the method: "row" or "group".

    Returns:
        The lower limit, the upper limit, and what was done, to be added to the method.

    Reference:
        Logit scale: Qin and Hotilovac 2008, Stat. Methods Med. Res. 17:207-221.
    """
    if not variance > 1e-15 or not 1e-9 < value < 1 - 1e-9:
        low, high = _clopper_pearson(value * trials, trials, confidence)
        return float(low), float(high), f", Clopper-Pearson on {times(trials, what)}: no variance to see"
    half = _z(confidence, df) * math.sqrt(variance)
    if logit is None:
        logit = not 0.1 <= value <= 0.9 or value - half < 0 or value + half > 1
    if not logit:
        return value - half, value + half, ""
    centre, half = math.log(value / (1 - value)), half / (value * (1 - value))
    return _expit(centre - half), _expit(centre + half), ", logit scale" + ("" if math.isinf(df) else ", t")


def degrees_of_freedom(units: Floats) -> float:
    """Compute how many degrees of freedom the sum of squared influences has, from their kurtosis.

    Few units that carry most of the variance (the rows of a rare class) tell it less well than many equal
    ones: a variance from n units of kurtosis k varies as one from 2 n / (k - 1) normal ones.

    Args:
        units: (n,) influences of the units; they sum to 0.

    Returns:
        Degrees of freedom, from 1 to n - 1.

    Reference:
        Box 1953, Biometrika 40:318-335; Shoemaker 2003, Am. Stat. 57:105-110.
    """
    n, square = len(units), float((units**2).sum())
    kurtosis = n * float((units**4).sum()) / square**2 if square > 0 else 3.0
    return min(max(2 * n / (kurtosis - 1), 1.0) if kurtosis > 1 else math.inf, max(n - 1.0, 1.0))


def newcombe_auc(value: float, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    """Find the AUCs that a score test with the variance of exponential scores does not reject.

    The variance is that of the AUC it would be, and not that of the rows, which a few rows of a class show
    badly where nearly all of them are ranked rightly.

    Args:
        value: The AUC.
        positives: Rows of the positive class.
        negatives: Rows of the other.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit.

    Example:
        >>> [round(limit, 3) for limit in newcombe_auc(1.0, 10, 10, 0.95)]
        [0.8, 1.0]

    Reference:
        Newcombe 2006, Stat. Med. 25:559-573, method 5; the variance: Hanley and McNeil 1982, Radiology
        143:29-36.
    """
    z, m = _z(confidence), (positives + negatives) / 2 - 1

    def rejected(auc: float) -> bool:
        ties = 1 + m * (1 - auc) / (2 - auc) + m * auc / (1 + auc)
        return (value - auc) ** 2 > z * z * auc * (1 - auc) * ties / (positives * negatives)

    return _boundary(rejected, value, 0.0), _boundary(rejected, value, 1.0)


def times(number: float, what: str) -> str:
    """Return how many of something there are: "1 row", "30 groups", "7.25 rows" of effective ones."""
    shown = f"{number:,.0f}" if number >= 100 or number == round(number) else f"{number:.3g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def delong(y_true: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Estimate the ROC-AUC with DeLong's interval, in O(N log N).

    These are the limits that other programs print. Above 0.9 and below 0.1 they are made on the logit scale.
    A perfect (or perfectly wrong, or constant) ranking has no variance: then Clopper-Pearson on the smaller
    class gives the limits. With few rows in a class all of them cover too little (docs/statistics.md): what
    `evaluate` prints is `ranking_interval`, which makes up for that.

    Args:
        y_true: (n,) zeros and ones; 1 is positive.
        scores: (n,) any numbers, higher means more positive; ties count half.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The AUC in [0, 1] with its interval.

    Raises:
        ValueError: There is only one class, a label is not 0 or 1, or a score is NaN.

    Example:
        >>> print(delong([0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9]))
        0.889 [0.261, 0.995]

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Sun and Xu 2014, IEEE Signal Proc. Letters 21:1389-1393.
    """
    positive, s = _binary_rows(y_true, scores)
    _confidence(confidence)
    if positive.all() or not positive.any():
        raise ValueError(
            f"`y_true` must have rows of both classes for a ROC-AUC; all {len(s)} are {int(positive[0])}."
        )
    auc, influence = auc_influence(positive, s)
    low, high, note = limits_of_share(
        auc,
        delong_variance(positive, influence)[0],
        confidence=confidence,
        trials=min(positive.sum(), (~positive).sum()),
        logit=None,
    )
    return Estimate(auc, low, high, "DeLong" + note, confidence)


def delong_variance(positive: NDArray[np.bool_], influence: Floats) -> tuple[float, float]:
    """Add up squared influences with each class's own n / (n - 1), as DeLong has it; 0 where n is 1.

    Args:
        positive: (n,) True for rows of the positive class.
        influence: (n,) of an AUC, or of the difference of two.

    Returns:
        The variance, and its degrees of freedom: Welch's and Satterthwaite's, of two parts with n - 1 each.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Satterthwaite 1946, Biometrics Bull. 2:110-114.
    """
    parts = []
    for side in (positive, ~positive):
        n = int(side.sum())
        if n < 2:
            return 0.0, 1.0
        parts.append((float((influence[side] ** 2).sum()) * n / (n - 1), n - 1))
    variance = parts[0][0] + parts[1][0]
    spread = sum(part**2 / df for part, df in parts)
    return variance, variance**2 / spread if spread > 0 else 1.0


def clustered_variance(influence: Floats, groups: NDArray[np.int64] | None) -> tuple[float, float]:
    """Add up the squared influences of the units (rows, or groups of rows), times n / (n - 1).

    Args:
        influence: (n,) of each row; they sum to 0.
        groups: (n,) index of the group of each row, or None where rows are independent.

    Returns:
        The variance, 0 for a single unit, and its `degrees_of_freedom`.
    """
    units = (
        influence if groups is None else np.asarray(np.bincount(groups, weights=influence), dtype=np.float64)
    )
    n = len(units)
    return float((units**2).sum()) * n / (n - 1) if n > 1 else 0.0, degrees_of_freedom(units)


_BLOCKS = 20_000  # more independent units than this are drawn as random blocks of units
_CHUNK = 4_000_000  # numbers held at a time while drawing: 32 MB


def resample_counts(units: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    """Draw units with replacement, and say how often each was drawn.

    Args:
        units: How many units there are.
        n_resamples: How many draws B in total.
        seed: Seed of the draws.

    Yields:
        (b, units) counts, each row summing to `units`; the b add up to B.
    """
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // units)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cells = random.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        yield np.bincount(cells.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def resample_sums(sums: Any, n_resamples: int, seed: int) -> Floats:
    """Draw units with replacement and add up what each contributes.

    More than 20,000 units are first put together at random into 20,000 blocks, and blocks are drawn: the
    same variance, at a cost that does not grow with the rows.

    Args:
        sums: (units, M) what each unit contributes; a NumPy array or a SciPy sparse matrix.
        n_resamples: How many draws B.
        seed: Seed of the draws.

    Returns:
        (B, M) sums.
    """
    units = sums.shape[0]
    if units > _BLOCKS:
        from scipy.sparse import csr_matrix

        block = np.random.default_rng(seed).permutation(units) % _BLOCKS
        gather = csr_matrix((np.ones(units), (block, np.arange(units))), shape=(_BLOCKS, units))
        sums = gather @ sums
        units = _BLOCKS
    transposed = sums.T
    return np.concatenate(
        [np.asarray(transposed @ counts.T).T for counts in resample_counts(units, n_resamples, seed)]
    )


def bootstrap(
    values: ArrayLike,
    statistic: str | Callable[[NDArray[Any], Floats], Floats] = "mean",
    *,
    method: str = "bca",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Make a bootstrap interval of a mean, or of any statistic of weighted rows.

    Args:
        values: (n, ...) one value (or row of values) for each row.
        statistic: "mean", or a function (values, weights (B, n)) -> (B,): the statistic of the rows, each
            counted as often as its weight says.
        method: "bca" (bias-corrected and accelerated), "bias_corrected" or "percentile".
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples, at least 100.
        seed: Seed of the draws.
        groups: (n,) group of each row: groups are drawn, whole; None: rows are.
        sample_weight: (n,) row weights, or None.
        bounds: The smallest and the largest possible value; used to clip, and where the rows do not vary.

    Returns:
        The statistic with its interval. Where the resamples do not vary, Clopper-Pearson says how many rows
        unlike these there may be, each as far off as `bounds` allow.

    Raises:
        ValueError: There are no rows, lengths differ, or a name or number is out of range.

    Example:
        >>> estimate = bootstrap([10, 12, 12.5, 12.5, 13.9, 15, 21, 22, 23, 34, 50, 81, 89, 121, 134, 213])
        >>> print(estimate.method, 31 < estimate.low < 34, 89 < estimate.high < 94)
        BCa bootstrap of rows True True

    Reference:
        Efron 1987, JASA 82:171-185.
    """
    rows = np.asarray(values)
    not_empty("values", rows)
    one_of("method", method, ("bca", "bias_corrected", "percentile"))
    if isinstance(statistic, str):
        one_of("statistic", statistic, ("mean",))
        if rows.ndim != 1:
            raise ValueError(f"`values` must have shape (rows,) for a mean; got {rows.shape}.")
    _confidence(confidence)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)
    weights = np.ones(len(rows)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    same_length("values", rows, "sample_weight", weights)
    unit = None if groups is None else group_indices(groups, len(rows))
    units = len(rows) if unit is None else int(unit.max()) + 1
    if statistic == "mean":
        value, draws, influence = _mean_draws(rows.astype(np.float64), weights, unit, n_resamples, seed)
    else:
        assert callable(statistic)
        value = float(statistic(rows, weights[None, :])[0])
        spread = slice(None) if unit is None else unit
        chunks = resample_counts(units, n_resamples, seed)
        draws = np.concatenate([statistic(rows, counts[:, spread] * weights) for counts in chunks])
        influence = None
        if method == "bca" and units > 1:
            influence = _jackknife(statistic, rows, weights, np.arange(units) if unit is None else unit)
    draws = draws[np.isfinite(draws)]
    what = "rows" if unit is None else "groups"
    if not len(draws) or np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
        return _constant(value, units, bounds, confidence, f"the resamples of {what} do not vary")
    if method == "bca":
        assert influence is not None
        low, high = _bca(value, draws, influence, confidence)
    elif method == "bias_corrected":
        low, high = bias_corrected(value, draws, confidence)
    else:
        low, high = map(float, np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2]))
    name = {"bca": "BCa bootstrap", "bias_corrected": "bias-corrected bootstrap", "percentile": "bootstrap"}
    return Estimate(
        value,
        max(bounds[0], low),
        min(bounds[1], high),
        f"{name[method]} of {what}",
        confidence,
    )


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


def _mean_draws(
    rows: Floats, weights: Floats, unit: NDArray[np.int64] | None, n_resamples: int, seed: int
) -> tuple[float, Floats, Floats]:
    """Return the weighted mean, its resamples and the influence of each unit."""
    total = float(weights.sum())
    value = float(rows @ weights / total)
    influence = weights * (rows - value) / total
    pairs = np.column_stack([weights * rows, weights])
    if unit is not None:
        influence = np.asarray(np.bincount(unit, weights=influence), dtype=np.float64)
        pairs = np.column_stack([np.bincount(unit, weights=pairs[:, i]) for i in range(2)])
    sums = resample_sums(pairs, n_resamples, seed)
    means = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    return value, means, influence


def _jackknife(
    statistic: Callable[[NDArray[Any], Floats], Floats],
    rows: NDArray[Any],
    weights: Floats,
    unit: NDArray[np.int64],
) -> Floats:
    """Leave each unit (or, of more than 200, each of 200 random parts) out, and see how the value moves."""
    parts = min(int(unit.max()) + 1, 200)
    part = (np.random.default_rng(0).permutation(int(unit.max()) + 1) % parts)[unit]
    left = np.concatenate([statistic(rows, (weights * (part != i))[None, :]) for i in range(parts)])
    left = left[np.isfinite(left)]
    return np.asarray(left.mean() - left)


def _bca(value: float, draws: Floats, influence: Floats, confidence: float) -> tuple[float, float]:
    from scipy.special import ndtr

    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    z0 = _bias(value, draws)
    z = _z(confidence) * np.array([-1.0, 1.0])
    low, high = np.quantile(draws, ndtr(z0 + (z0 + z) / (1 - acceleration * (z0 + z))))
    return float(low), float(high)


def _constant(
    value: float, units: int, bounds: tuple[float, float], confidence: float, reason: str
) -> Estimate:
    """Bound a mean of rows that are all the same: how many unlike them may there be, and how far off?"""
    unlike = 1 - ((1 - confidence) / 2) ** (1 / units)
    return Estimate(
        value,
        value - unlike * (value - bounds[0]),
        value + unlike * (bounds[1] - value),
        f"Clopper-Pearson: {reason}",
        confidence,
    )


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
        return _constant(value, n, bounds, confidence, "the rows do not vary")
    skewness = math.sqrt(n) * float((moves**3).sum()) / square**1.5
    se = math.sqrt(square * n / (n - 1))
    t = _z(confidence, n - 1)
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


def wilson_f1(hits: ArrayLike, union: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Turn Wilson limits of the Jaccard share J = hits / union into limits of F1 = 2J / (1 + J).

    Given the rows that are of the class or predicted as it, the hits are binomial; F1 grows with J, so limits
    of the one are limits of the other.

    Args:
        hits: (...) true positives.
        union: (...) rows that are of the class or predicted as it, more than 0.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limits.
    """
    low, high = _wilson(hits, union, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


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
    low, high = _pair(wilson_f1(hits, union, _confidence(confidence)))
    value = 2 * hits / (hits + union)
    return Estimate(value, min(low, value), max(high, value), "Wilson, through the Jaccard share", confidence)


def square_and_add(
    name: str,
    counts: tuple[Floats, Floats, Floats],
    confidence: float,
    *,
    resampled: tuple[Floats, Floats, Floats] | None = None,
) -> tuple[float, float]:
    """Combine Wilson limits of the classes into limits of their macro mean.

    The distances of each class's value from its own limits are squared and added (for F1 with the
    correlations that the resamples show between classes), then divided by the number of classes.

    Args:
        name: "precision", "recall", "f1" or "balanced_accuracy" (recall of the classes that have rows).
        counts: (K,) hits, predicted rows and true rows of each class; may be effective numbers.
        confidence: Nominal coverage in (0, 1).
        resampled: The same as (B, K), for the correlations of F1; None: the classes are independent.

    Returns:
        The lower and the upper limit.

    Reference:
        Zou and Donner 2008, Stat. Med. 27:1693-1702 (recovering variances from the limits).
    """
    hits, predicted, true = counts
    present = true > 0 if name == "balanced_accuracy" else predicted + true > 0
    hits, predicted, true = hits[present], predicted[present], true[present]
    if name == "f1":
        low, high = wilson_f1(hits, predicted + true - hits, confidence)
        values = 2 * hits / (predicted + true)
    else:
        trials = predicted if name == "precision" else true
        some = trials > 0
        safe = np.where(some, trials, 1.0)
        low, high = _wilson(hits, safe, confidence)
        # No row to tell: the class counts as 0, as in the value, and could be anything.
        low, high, values = np.where(some, low, 0.0), np.where(some, high, 1.0), hits / safe
    correlation = np.eye(len(values))
    if resampled is not None:
        hits, predicted, true = (part[:, present] for part in resampled)
        draws = np.divide(2 * hits, predicted + true, out=np.zeros_like(hits), where=predicted + true > 0)
        spread = draws.std(axis=0)
        standard = (draws - draws.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        correlation = standard.T @ standard / len(draws)
        np.fill_diagonal(correlation, 1.0)
    down, up, mean = values - low, high - values, float(values.mean())
    length = [math.sqrt(max(float(d @ correlation @ d), 0.0)) / len(values) for d in (down, up)]
    return max(0.0, mean - length[0]), min(1.0, mean + length[1])


def dirichlet(
    function: Callable[[Any], Floats], table: Floats, confidence: float, n_resamples: int, seed: int
) -> tuple[float, float]:
    """Take the limits of a metric over a Dirichlet posterior of the cells, with one prior row in all.

    Args:
        function: (B, ...) tables to (B,) values; of a (K, K) table: the class counts of B tables.
        table: (...) counts, or effective counts.
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many draws.
        seed: Seed of the draws.

    Returns:
        The lower and the upper limit.

    Reference:
        Goutte and Gaussier 2005, ECIR, LNCS 3408:345-359.
    """
    if table.ndim == 2:
        drawn: Any = dirichlet_counts(table, n_resamples, seed)
    else:
        random = np.random.default_rng(seed)
        gammas = random.standard_gamma(table.ravel() + 1 / table.size, size=(n_resamples, table.size))
        gammas *= table.sum() / gammas.sum(axis=1, keepdims=True)
        drawn = gammas.reshape(-1, *table.shape)
    low, high = np.quantile(function(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


# Breaks of the stick; each leaves at most half of it in the mean, so that what is left is below rounding. Up
# to four times as many empty cells are drawn sooner one by one.
_STICKS = 50


def dirichlet_counts(table: Floats, n_resamples: int, seed: int) -> ClassCounts:
    """Draw tables of a Dirichlet posterior with one prior row in all, without drawing each of the K^2 cells.

    Many empty cells together are one gamma variate (a Dirichlet adds up to a Dirichlet), shared out among
    them by breaking a stick.

    Args:
        table: (K, K) counts, or effective counts.
        n_resamples: How many draws B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.

    Reference:
        Sethuraman 1994, Stat. Sinica 4:639-650 (exact, whatever the cells that share the stick).
    """
    random, k, flat = np.random.default_rng(seed), len(table), table.ravel()
    empty = np.flatnonzero(flat <= 0)
    empty = empty if len(empty) > 4 * _STICKS else empty[:0]
    seen = np.setdiff1d(np.arange(table.size), empty)
    prior = 1 / table.size
    gammas = random.standard_gamma(flat[seen] + prior, size=(n_resamples, len(seen)))
    total, sums = gammas.sum(axis=1), sum_counts(gammas, *np.divmod(seen, k), k)
    if len(empty):
        mass = random.standard_gamma(prior * len(empty), size=n_resamples)
        left = np.cumprod(1 - random.beta(1, prior * len(empty), size=(n_resamples, _STICKS - 1)), axis=1)
        left = np.column_stack([np.ones(n_resamples), left, np.zeros(n_resamples)]) * mass[:, None]
        true, predicted = np.divmod(empty[random.integers(0, len(empty), (n_resamples, _STICKS))], k)
        parts, draw = (left[:, :-1] - left[:, 1:]).ravel(), np.repeat(np.arange(n_resamples), _STICKS)
        true, predicted = true.ravel(), predicted.ravel()
        for weights, place in (
            (parts * (true == predicted), true),
            (parts, k + predicted),
            (parts, 2 * k + true),
        ):
            sums += np.bincount(draw * 3 * k + place, weights, n_resamples * 3 * k).reshape(-1, 3 * k)
        total += mass
    return split_counts(sums * (table.sum() / total)[:, None])


def delta_interval(
    function: Callable[[ClassCounts], Floats], table: Floats, confidence: float
) -> tuple[float, float]:
    """Take the limits of a function of multinomial counts by the delta method, unclipped.

    Args:
        function: (B, K) class counts to (B,) values.
        table: (K, K) counts.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit.
    """
    n, step = float(table.sum()), 1e-6
    share = table / n
    at = np.concatenate(class_counts(share))
    steps = step * np.eye(len(at))
    slope = function(split_counts(at + steps)) - function(split_counts(at - steps))
    of_hits, of_predicted, of_true = np.split(slope / (2 * step), 3)
    # A cell counts in its row and its column, and on the diagonal as a hit.
    gradient = (of_true[:, None] + of_predicted + np.diag(of_hits)).ravel()
    flat = share.ravel()
    variance = max(float(flat @ gradient**2) - float(flat @ gradient) ** 2, 0.0) / n
    value, half = float(function(split_counts(at[None]))[0]), _z(confidence) * math.sqrt(variance)
    return value - half, value + half


# Rows of a class below which the bootstrap covers too little (docs/statistics.md) and the interval is called
# unreliable.
FEW_ROWS = 5
# Rows wrong (or right) in all below which the same holds: coverage .91 with 4 wrong of 200.
FEW_OUTCOMES = 10


def few_outcomes(support: Support) -> str:
    """Say how few units have a right, or a wrong, row; nothing where they are enough for a bootstrap."""
    outcome, least = min((("wrong", support.wrong), ("right", support.right)), key=lambda pair: pair[1])
    if least >= FEW_OUTCOMES - 1e-9:
        return ""
    if support.unit == "row":
        return f"only {times(least, 'row')} {outcome}"
    return f"{outcome} rows in only {times(least, 'group')}"


def resampled_interval(
    function: Callable[[Any], Floats],
    table: Floats,
    draws: Floats | ClassCounts,
    *,
    confidence: float,
    what: str = "confusion matrix",
    macro: str | None = None,
    trials: float | None = None,
    support: Support | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Estimate:
    """Estimate a function of confusion tables: by bias-corrected bootstrap, and not where that fails.

    It fails where nothing (or everything) is wrong, since then the resamples do not vary; where fewer than
    ten rows are wrong (or right); and where a class has fewer than five rows. Then the interval is the wider
    of the bootstrap's and one that does not rest on it: Wilson limits of the classes, combined (macro means),
    or a Dirichlet posterior. Macro precision and recall of independent rows are means of independent shares:
    there the combined limits are the default.

    Args:
        function: (B, ..., K, K) tables, or the class counts of (B, K, K) ones, to (B,) values.
        table: (..., K, K) counts or weights.
        draws: (B, ..., K, K) resampled tables, or their class counts.
        confidence: Nominal coverage in (0, 1).
        what: What was resampled, for the method; "confusion matrix" if rows are independent and equal.
        macro: "precision", "recall", "f1" or "balanced_accuracy" where the metric is the macro mean of it;
            None otherwise.
        trials: How many independent rows the table is worth; None: its sum.
        support: The units that were drawn, where they are not the rows of the table.
        bounds: The smallest and the largest possible value.
        seed: Seed of the Dirichlet draws.

    Returns:
        The value with its interval, inside `bounds`, never of zero width.
    """
    value = float(function(table[None])[0])
    scale = 1.0 if trials is None else trials / float(table.sum())
    hits, predicted, true = class_counts(table)
    # A class that was predicted and has no rows counts (as 0) in every mean but balanced accuracy.
    counted = true > 0 if macro == "balanced_accuracy" else predicted + true > 0
    right = float(hits.sum())
    if support is None:
        support = Support(true, right, float(true.sum()) - right, math.inf, "row")
    fewest = float(support.classes[counted].min())
    few = fewest < FEW_ROWS - 1e-9
    by_class = macro is not None and table.ndim == 2
    combined = "Wilson limits of the classes, combined"

    def of_classes() -> tuple[float, float]:
        assert macro is not None
        hits, predicted, true = class_counts(table)
        with_resamples = class_counts(draws) if macro == "f1" else None
        counts = (scale * hits, scale * predicted, scale * true)
        return square_and_add(macro, counts, confidence, resampled=with_resamples)

    if by_class and macro != "f1" and what == "confusion matrix" and not few:
        limits, method = of_classes(), combined
    else:
        values = function(draws)
        limits = bias_corrected(value, values, expanded_confidence(confidence, support.units))
        method = f"bias-corrected bootstrap of {what}"
        reasons = []
        if limits[1] - limits[0] <= 1e-9:
            reasons.append("resamples do not vary")
        elif outcomes := few_outcomes(support):
            reasons.append(outcomes)
        if few:
            having = "has" if support.unit == "row" else "is in"
            reasons.append(f"unreliable: a class {having} {times(fewest, support.unit)}")
        if reasons:
            other = (
                of_classes()
                if by_class
                else dirichlet(function, scale * table, confidence, len(values), seed)
            )
            limits = min(limits[0], other[0]), max(limits[1], other[1])
            fallback = combined if by_class else "Dirichlet posterior"
            method = f"wider of bootstrap and {fallback} ({'; '.join(reasons)})"
    low, high = max(bounds[0], min(limits[0], value)), min(bounds[1], max(limits[1], value))
    return Estimate(value, low, high, method, confidence)


def f1_interval(
    confusion: ArrayLike,
    *,
    average: str = "auto",
    method: str = "bootstrap",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate F1 from a confusion matrix, with an interval.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted".
        method: "bootstrap" (bias-corrected, of the confusion matrix; falls back, and says so, where fewer
            than ten rows are wrong or right or a class has fewer than five rows), "percentile", "dirichlet"
            (posterior), "delta" (Takahashi et al.'s analytic variance), or "wilson" (binary and micro only).
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples, at least 100.
        seed: Seed of the draws.

    Returns:
        F1 in [0, 1] with its interval.

    Raises:
        ValueError: The matrix is not square whole counts, or a name or number is out of range.

    Example:
        >>> print(f1_interval([[8, 2], [1, 9]], average="binary", method="wilson"))
        0.857 [0.637, 0.953]

    Reference:
        Takahashi et al. 2022, Applied Intelligence 52:4961-4972 (analytic variance of micro and macro F1).
    """
    table = _whole_counts(confusion).astype(np.float64)
    average = resolve_average(average, len(table))
    one_of("method", method, ("bootstrap", "percentile", "dirichlet", "delta", "wilson"))
    if method == "wilson" and average not in ("binary", "micro"):
        raise ValueError(f"`method` 'wilson' needs `average` 'binary' or 'micro'; got {average!r}.")
    _confidence(confidence)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)

    def f1(tables: ArrayLike | ClassCounts) -> Floats:
        return from_confusion("f1", tables, average)

    value = float(f1(table))

    def estimate(limits: tuple[float, float], name: str) -> Estimate:
        low, high = max(0.0, min(limits[0], value)), min(1.0, max(limits[1], value))
        return Estimate(value, low, high, name, confidence)

    if method == "wilson":
        hits, predicted, true = class_counts(table)
        if average == "micro":
            return estimate(_pair(_wilson(hits.sum(), true.sum(), confidence)), "Wilson")
        union = float(predicted[1] + true[1] - hits[1])
        if union == 0:
            return estimate((0.0, 1.0), "undefined: no row is of the class or predicted as it")
        return wilson_f1_interval(int(hits[1]), int(union), confidence=confidence)
    if method == "dirichlet":
        return estimate(dirichlet(f1, table, confidence, n_resamples, seed), "Dirichlet posterior")
    if method == "delta":
        limits = delta_interval(f1, table, confidence)
        if limits[1] - limits[0] > 1e-9:
            return estimate(limits, "delta method")
    draws = resample_class_counts(confusion, n_resamples, seed)
    if method == "percentile" and np.ptp(resampled := f1(draws)) > 1e-12:
        tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
        return estimate(_pair(np.quantile(resampled, tails)), "percentile bootstrap")
    macro = "f1" if average == "macro" else None
    return resampled_interval(f1, table, draws, confidence=confidence, macro=macro, seed=seed)


def _pair(limits: Any) -> tuple[float, float]:
    low, high = limits
    return float(low), float(high)


class Support(NamedTuple):
    """How many independent units (groups, or weighted rows by Kish's number) a table rests on.

    Attributes:
        classes: (..., K) units with rows of each class.
        right: Units with rows that are right, as Kish's effective number of them.
        wrong: Units with rows that are wrong, likewise.
        units: All of them, as Kish's effective number.
        unit: "row" or "group".
    """

    classes: Floats
    right: float
    wrong: float
    units: float
    unit: str


class Ranking(NamedTuple):
    """ROC-AUC or PR-AUC, and how much each row moves it.

    Attributes:
        value: The area.
        influence: (n,) of each row; they sum to 0.
        smallest: Independent rows (groups, where rows are grouped) of the smallest side it rests on.
        classes: How many classes it is the mean of.
    """

    value: float
    influence: Floats
    smallest: float
    classes: int


def ranking_influence(
    name: str,
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Ranking | None:
    """Compute ROC-AUC or PR-AUC, one class against the rest, and how much each row moves it.

    Args:
        name: "roc_auc" or "pr_auc".
        y: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) scores.
        average: "binary" (the second class), "macro" (classes that have rows and are not all rows),
            "weighted" (by their rows) or "micro" (all (row, class) pairs in one ranking).
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None; only `smallest` depends on them.

    Returns:
        The ranking; None where no class has both rows and others.
    """
    function = auc_influence if name == "roc_auc" else average_precision_influence
    n, classes = probabilities.shape
    one_hot = y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(classes)
    rows = np.ones(n) if weights is None else weights
    if average == "micro":
        flat = one_hot.ravel()
        repeated = np.repeat(rows, classes)
        if not (repeated * flat).any() or not (repeated * ~flat).any():
            return None
        value, pairs = function(flat, probabilities.ravel(), None if weights is None else repeated)
        influence = pairs.reshape(-1, classes).sum(axis=1)
        sides = np.asarray(one_hot.any(axis=1)), np.asarray((~one_hot).any(axis=1))
        smallest = min(independent_units(side, rows, groups) for side in sides)
        return Ranking(value, influence, smallest, classes)
    total, share, smallest, found = 0.0, 0.0, math.inf, 0
    influence = np.zeros(n)
    for k in [1] if average == "binary" else range(classes):
        positive = one_hot[:, k]
        if not (rows * positive).any() or not (rows * ~positive).any():
            continue
        value, moves = function(positive, probabilities[:, k], weights)
        part = float((rows * positive).sum()) if average == "weighted" else 1.0
        total, share, found = total + part * value, share + part, found + 1
        influence += part * moves
        smallest = min(smallest, *(independent_units(side, rows, groups) for side in (positive, ~positive)))
    return Ranking(total / share, influence / share, smallest, found) if found else None


def independent_units(side: NDArray[np.bool_], weights: Floats, groups: NDArray[np.int64] | None) -> float:
    """Count the groups, or else the rows (Kish's effective number where weights differ), of some rows.

    Args:
        side: (n,) which rows.
        weights: (n,) row weights; rows of weight 0 are no rows.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The number; 0 where no row has a weight.
    """
    counted = side & (weights > 0)
    if groups is not None:
        return float(np.count_nonzero(np.bincount(groups[counted])))
    squares = float((weights[counted] ** 2).sum())
    return float(weights[counted].sum() ** 2 / squares) if squares else 0.0


def effective_units(weights: Floats, groups: NDArray[np.int64] | None) -> float:
    """Return how many units of equal weight these rows, or groups, are worth: Kish's effective number.

    Args:
        weights: (n,) row weights; ones where rows count the same.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The number, at most that of the rows or groups.

    Reference:
        Kish 1965, Survey Sampling, section 11.7.
    """
    units = weights if groups is None else np.bincount(groups, weights=weights)
    squares = float((units**2).sum())
    return float(units.sum() ** 2 / squares) if squares else 0.0


# How many rows of the smaller class are ranked wrongly in all (rows worth their degrees of freedom, times the
# distance of the AUC from 0 or 1) below which DeLong's variance cannot be trusted: coverage .75-.92.
FEW_MISRANKED = 2


def ranking_interval(
    name: str,
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    *,
    confidence: float,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Estimate | None:
    """Estimate ROC-AUC or PR-AUC from the influence of each row: Student's t limits on the logit scale.

    The influences of the ROC-AUC are DeLong's. Of two classes where fewer than two rows of the smaller one
    are ranked wrongly, all told, the limits are the wider of these and Newcombe's, whose variance does not
    rest on so few.

    Args:
        name: "roc_auc" or "pr_auc".
        y: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) scores.
        average: As in `ranking_influence`.
        confidence: Nominal coverage in (0, 1).
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The estimate; None where no class has both rows and others.
    """
    found = ranking_influence(name, y, probabilities, average, weights, groups)
    if found is None:
        return None
    positive = (y[:, -1] if y.ndim == 2 else y == 1).astype(bool)
    variance, df, delongs = ranking_variance(name, positive, found.influence, average, weights, groups)
    if average == "binary" and found.smallest < 2:
        variance = 0.0  # a single row (or group) of a class shows nothing of how such rows vary
    low, high, note = limits_of_share(
        found.value,
        variance,
        confidence=confidence,
        trials=found.smallest,
        df=df,
        what="row" if groups is None else "group",
    )
    if delongs and "logit" in note and df * min(found.value, 1 - found.value) < FEW_MISRANKED:
        rows = int(positive.sum())
        other = newcombe_auc(found.value, rows, len(positive) - rows, confidence)
        low, high = min(low, other[0]), max(high, other[1])
        note += f"; widened by Newcombe's method 5 (few of {times(found.smallest, 'row')} ranked wrongly)"
    method = "DeLong" if name == "roc_auc" else "influence of each row"
    method += ("" if groups is None else ", by groups") + note
    classes = 1 if average == "binary" else probabilities.shape[1]
    if found.classes < classes:
        method += f", over {found.classes} of {classes} classes"
    return Estimate(found.value, low, high, method, confidence)


def ranking_variance(
    name: str,
    positive: NDArray[np.bool_],
    influence: Floats,
    average: str,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
) -> tuple[float, float, bool]:
    """Compute the variance that the influences of an area, or of a difference of two, add up to.

    Args:
        name: "roc_auc" or "pr_auc".
        positive: (n,) True for rows of the positive class, of two.
        influence: (n,) of each row.
        average: As in `ranking_influence`.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The variance, its degrees of freedom, and whether it is DeLong's own of two classes.
    """
    delongs = name == "roc_auc" and average == "binary" and weights is None and groups is None
    found = delong_variance(positive, influence) if delongs else clustered_variance(influence, groups)
    return (*found, delongs)
