"""Resamples of rows or groups, drawn with replacement, and bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, one_of, positive_int, same_length
from finetune_eval.evaluation._limits import checked_confidence, quantile
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.units import group_indices

Floats = NDArray[np.float64]


_BLOCKS = 20_000  # more independent units than this are drawn as random blocks of units
CHUNK = 4_000_000  # numbers held at a time while drawing: 32 MB


def resample_counts(units: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    """Draw units with replacement, and count how often each was drawn.

    Args:
        units: How many units there are.
        n_resamples: How many draws B in total.
        seed: Seed of the draws.

    Yields:
        (b, units) counts, each row summing to `units`; the b add up to B.
    """
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // units)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cells = random.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        yield np.bincount(cells.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def resample_sums(sums: Any, n_resamples: int, seed: int) -> Floats:
    """Draw units with replacement and add up the contributions of each unit.

    More than 20,000 units are first assigned at random to 20,000 blocks, and blocks are drawn. This keeps the
    variance, at a cost that does not grow with the number of rows.

    Args:
        sums: (units, M) contributions of each unit; a NumPy array or a SciPy sparse matrix.
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


def bias_corrected(values: float, resampled: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the bias-corrected percentile limits of a bootstrap distribution.

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
    z0, z = _bias(values, draws), quantile(confidence)
    low, high = np.quantile(draws, [float(ndtr(2 * z0 - z)), float(ndtr(2 * z0 + z))])
    return float(low), float(high)


def _bias(value: float, draws: Floats) -> float:
    """Return the normal quantile of the share of draws below the value; ties count half."""
    from scipy.special import ndtri

    # Resamples that equal the value up to rounding are ties.
    slack = 1e-12 * max(1.0, abs(value))
    below = np.mean(draws < value - slack) + np.mean(np.abs(draws - value) <= slack) / 2
    # The correction must not leave the range of the draws.
    return float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))


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
        The statistic with its interval. Where the resamples do not vary, Clopper-Pearson bounds the share of
        rows unlike these, and each such row is taken to be as far off as `bounds` allow.

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
    checked_confidence(confidence)
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
        return constant_interval(value, units, bounds, confidence, f"the resamples of {what} do not vary")
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
        max(bounds[0], min(low, value)),
        min(bounds[1], max(high, value)),
        f"{name[method]} of {what}",
        confidence,
    )


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
    """Return the influence of each unit, or of each of 200 random parts, on a statistic by leaving it out."""
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
    away = z0 + quantile(confidence) * np.array([-1.0, 1.0])
    # A single heavy unit can make the acceleration so large that the formula jumps to the other end of the
    # draws. The limit is then the near end.
    bend = 1 - acceleration * away
    at = np.where(bend > 0, z0 + away / np.where(bend > 0, bend, 1.0), np.copysign(np.inf, away))
    low, high = np.quantile(draws, ndtr(at))
    return float(low), float(high)


def constant_interval(
    value: float, units: int, bounds: tuple[float, float], confidence: float, reason: str
) -> Estimate:
    """Bound the mean of rows that are all the same, by the largest share of rows unlike them."""
    unlike = 1 - ((1 - confidence) / 2) ** (1 / units)
    return Estimate(
        value,
        value - unlike * (value - bounds[0]),
        value + unlike * (bounds[1] - value),
        f"Clopper-Pearson: {reason}",
        confidence,
    )
