"""Confidence intervals: each says which method made it, and none has zero width.

An interval covers the sampling of rows only: not the seed of the training, not drift. `docs/statistics.md`
has the simulated coverage by which the defaults were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import number, positive_int

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


def _z(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


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
    from scipy.special import ndtr, ndtri

    draws = np.asarray(resampled, dtype=np.float64)
    # Resamples that equal the value up to rounding are ties, whatever order they were summed in.
    slack = 1e-12 * max(1.0, abs(values))
    below = np.mean(draws < values - slack) + np.mean(np.abs(draws - values) <= slack) / 2
    # Never let the correction run off the end of the draws.
    z0 = float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))
    z = _z(confidence)
    low, high = np.quantile(draws, [float(ndtr(2 * z0 - z)), float(ndtr(2 * z0 + z))])
    return float(low), float(high)
