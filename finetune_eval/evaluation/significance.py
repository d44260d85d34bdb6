"""Significance tests of paired results, and the adjustment of many p-values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval import _rows
from finetune_eval._checks import not_empty, one_of, positive_int
from finetune_eval._text import p_value

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedTest:
    """The outcome of a significance test.

    Attributes:
        method: Which test it was.
        statistic: Its statistic.
        p_value: Its two-sided p-value, in (0, 1].
        df: Degrees of freedom, where it has them.
    """

    method: str
    statistic: float
    p_value: float
    df: int | None = None

    def __str__(self) -> str:
        return f"{self.method}: statistic {self.statistic:.4g}, {p_value(self.p_value)}"


def mcnemar(only_a: int, only_b: int, *, method: str = "midp") -> PairedTest:
    """Test whether two models are right equally often, from the rows on which they differ.

    Args:
        only_a: Rows that only a has right.
        only_b: Rows that only b has right.
        method: "midp" (the exact test with half the probability of what was seen: close to nominal),
            "exact" (conservative), "chi2" or "chi2_corrected" (Edwards' continuity correction).

    Returns:
        The test; p is 1 where no row differs.

    Raises:
        ValueError: A count is negative or the method unknown.

    Example:
        >>> print(mcnemar(6, 16))
        McNemar mid-p: statistic 6, p = 0.035

    Reference:
        McNemar 1947, Psychometrika 12:153-157; mid-p: Fagerland, Lydersen and Laake 2013, BMC Med. Res.
        Methodol. 13:91.
    """
    a = positive_int("only_a", only_a, minimum=0)
    b = positive_int("only_b", only_b, minimum=0)
    one_of("method", method, ("midp", "exact", "chi2", "chi2_corrected"))
    if method in ("midp", "exact"):
        name = "McNemar mid-p" if method == "midp" else "McNemar exact"
        return PairedTest(name, float(min(a, b)), float(mcnemar_p_values(np.array(a), np.array(b), method)))
    from scipy.special import chdtrc

    gap = abs(a - b)
    if method == "chi2_corrected":
        gap = max(gap - 1, 0)
    statistic = gap**2 / (a + b) if a + b else 0.0
    name = "McNemar chi-squared" + (", continuity-corrected" if method == "chi2_corrected" else "")
    return PairedTest(name, statistic, float(chdtrc(1, statistic)), 1)


def mcnemar_p_values(a: NDArray[Any], b: NDArray[Any], method: str) -> Floats:
    """Two-sided exact or mid-p values, vectorised."""
    from scipy.special import bdtr

    n, k = a + b, np.minimum(a, b)
    up_to = bdtr(k, np.maximum(n, 1), 0.5)
    if method == "midp":
        below = np.where(k > 0, bdtr(np.maximum(k - 1, 0), np.maximum(n, 1), 0.5), 0.0)
        up_to = (up_to + below) / 2
    return np.asarray(np.where(n == 0, 1.0, np.minimum(1.0, 2 * up_to)))


def cochran_q(correct: ArrayLike) -> PairedTest:
    """Test whether several models are right equally often on the same rows.

    Args:
        correct: (n, models) zeros and ones: which model has which row right.

    Returns:
        The test, chi-squared with models - 1 degrees of freedom; p is 1 where no row tells them apart.

    Raises:
        ValueError: The shape is not (rows, at least two models), or an entry is not 0 or 1.

    Example:
        >>> print(cochran_q([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [1, 1, 0]]))
        Cochran's Q: statistic 4.5, p = 0.105

    Reference:
        Cochran 1950, Biometrika 37:256-266.
    """
    table = np.asarray(correct)
    if table.ndim != 2 or table.shape[1] < 2 or table.shape[0] < 1:
        raise ValueError(f"`correct` must have shape (rows, at least 2 models); got {table.shape}.")
    if not np.isin(table, (0, 1)).all():
        raise ValueError("`correct` must hold 0 (wrong) and 1 (right); got other values.")
    from scipy.special import chdtrc

    table = table.astype(np.float64)
    models = table.shape[1]
    of_model, of_row = table.sum(axis=0), table.sum(axis=1)
    spread = float((of_row * (models - of_row)).sum())
    top = (models - 1) * (models * float((of_model**2).sum()) - float(of_model.sum()) ** 2)
    statistic = top / spread if spread else 0.0
    return PairedTest("Cochran's Q", statistic, float(chdtrc(models - 1, statistic)), models - 1)


def randomisation_test(
    differences: ArrayLike,
    *,
    n_resamples: int = 9999,
    seed: int = 0,
    groups: ArrayLike | None = None,
    method: str = "exact",
) -> PairedTest:
    """Test whether paired differences have mean 0, by flipping their signs at random.

    Args:
        differences: (n,) of each row, a minus b.
        n_resamples: How many random flips B; the smallest possible p is 1 / (B + 1).
        seed: Seed of the flips.
        groups: (n,) group of each row: the signs of a group flip together; None: rows are independent.
        method: "exact": flips as far from 0 as the rows themselves count in full, and the test errs at most
            as often as it says; or "midp": they count half, as in `mcnemar`, which is closer to nominal where
            few rows differ, or by few different amounts.

    Returns:
        The test; its statistic is the mean difference, and p = (k + 1) / (B + 1) with k flips at least as
        far from 0. Above 20,000 different sizes the flips' sum is taken as normal.

    Raises:
        ValueError: There are no rows, or a difference is not a finite number.

    Example:
        >>> print(randomisation_test([1, 1, 1, 0, 1, 1, -1, 1, 1, 1]))
        sign flips: statistic 0.7, p = 0.038

    Reference:
        Noreen 1989, Computer-Intensive Methods; Phipson and Smyth 2010 for the (k + 1) / (B + 1).
    """
    rows = np.asarray(differences, dtype=np.float64)
    if rows.ndim != 1:
        raise ValueError(f"`differences` must have shape (rows,); got {rows.shape}.")
    not_empty("differences", rows)
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows))[0])
        raise ValueError(f"`differences` must be finite numbers; row {bad} is {rows[bad]}.")
    n_resamples = positive_int("n_resamples", n_resamples, minimum=99)
    one_of("method", method, ("exact", "midp"))
    statistic = float(rows.mean())
    units = rows if groups is None else np.bincount(_rows.groups("groups", groups, len(rows)), weights=rows)
    sizes, counts = np.unique(np.abs(units[units != 0]), return_counts=True)
    observed = abs(float(units.sum()))
    name = "sign flips" + (", mid-p" if method == "midp" else "")
    if not len(sizes):
        return PairedTest(name, statistic, 1.0)
    if len(sizes) > 20_000:
        from scipy.special import ndtr

        p = 2 * float(ndtr(-observed / math.sqrt(float(counts @ sizes**2))))
        return PairedTest(f"{name}, normal limit", statistic, max(p, 1e-300))
    p = randomisation_p(
        _flipped_sums(sizes, counts, n_resamples, seed), observed, float(counts @ sizes), method
    )
    return PairedTest(name, statistic, p)


def _flipped_sums(sizes: Floats, counts: NDArray[np.int64], n_resamples: int, seed: int) -> Iterator[Floats]:
    """Draw sums of differences with random signs, a chunk of them at a time."""
    random = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(sizes))
    # The sum of m signs is 2 Binomial(m, 1/2) - m: one draw for each different size, not for each row. One
    # sign is a bit, at a fifth of the time.
    single, more = sizes[counts == 1], counts > 1
    for start in range(0, n_resamples, step):
        flips = min(step, n_resamples - start)
        sums = (2.0 * random.integers(0, 2, (flips, len(single)), dtype=np.int8) - 1) @ single
        repeated = random.binomial(counts[more], 0.5, size=(flips, int(more.sum())))
        yield sums + (2.0 * repeated - counts[more]) @ sizes[more]


def randomisation_p(drawn: Iterable[Floats], observed: float, scale: float, method: str) -> float:
    """Return the p-value of a statistic among its random permutations; 1 where it is 0.

    Args:
        drawn: The statistic of the permutations, in chunks.
        observed: The statistic of the rows themselves.
        scale: How large the statistic can be: its rounding errors are of that size times 1e-12.
        method: "exact" or "midp", as in `randomisation_test`.

    Reference:
        Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39 (the rows themselves are one permutation).
    """
    beyond, ties, total, slack = 0, 0, 0, 1e-12 * scale
    if abs(observed) <= slack:
        return 1.0
    for chunk in drawn:
        distance = np.abs(chunk) - abs(observed)
        beyond += int((distance > slack).sum())
        ties += int((np.abs(distance) <= slack).sum())
        total += len(chunk)
    return (beyond + (ties / 2 if method == "midp" else ties) + 1) / (total + 1)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values so that the chance of any false alarm stays below alpha.

    Args:
        p_values: (m,) in [0, 1].

    Returns:
        (m,) adjusted p-values in the order given; those at most alpha are significant.

    Raises:
        ValueError: A p-value is not in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]

    Reference:
        Holm 1979, Scand. J. Stat. 6:65-70.
    """
    p, order = _sorted_p_values(p_values)
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def holm_levels(p_values: ArrayLike, alpha: float) -> Floats:
    """Return the level at which Holm's procedure tests each hypothesis.

    The smallest of m p-values is tested at alpha / m, the next one at alpha / (m - 1), and so on up to the
    first that is not significant: it and those above it are tested at its level. A p-value is at most its
    level exactly where `holm` adjusts it to at most alpha.

    Args:
        p_values: (m,) in [0, 1].
        alpha: The chance of any false alarm.

    Returns:
        (m,) levels in the order given.

    Example:
        >>> holm_levels([0.01, 0.04, 0.03], 0.05).round(4).tolist()
        [0.0167, 0.025, 0.025]

    Reference:
        Holm 1979, Scand. J. Stat. 6:65-70.
    """
    p, order = _sorted_p_values(p_values)
    levels = alpha / np.arange(len(p), 0, -1)
    failed = np.flatnonzero(p[order] > levels)
    if failed.size:
        levels[failed[0] :] = levels[failed[0]]
    out = np.empty_like(p)
    out[order] = levels
    return out


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjust p-values so that the expected share of false alarms among the findings stays below alpha.

    Args:
        p_values: (m,) in [0, 1].

    Returns:
        (m,) adjusted p-values in the order given; those at most alpha are findings.

    Raises:
        ValueError: A p-value is not in [0, 1].

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.04, 0.04]

    Reference:
        Benjamini and Hochberg 1995, JRSS B 57:289-300.
    """
    p, order = _sorted_p_values(p_values)
    m = len(p)
    scaled = p[order] * m / np.arange(1, m + 1)
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return out


def _sorted_p_values(p_values: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("`p_values` must be (m,) numbers from 0 to 1; got others.")
    return p, np.argsort(p, kind="stable")
