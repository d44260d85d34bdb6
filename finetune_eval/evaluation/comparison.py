"""Which of two (or more) models, and is the difference more than chance?

Everything is paired by row: two models that were scored on the same rows share those rows' luck.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, number, one_of, positive_int, same_length
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation.intervals import (
    FEW_ROWS,
    Estimate,
    Ranking,
    bias_corrected,
    dirichlet,
    effective_units,
    expanded_confidence,
    group_indices,
    independent_units,
    mean_interval,
    mean_of_units,
    newcombe_paired_difference,
    ranking_influence,
    ranking_variance,
    resample_sums,
    split_counts,
    sum_counts,
    times,
)
from finetune_eval.evaluation.metrics import (
    METRICS,
    ClassCounts,
    confusion_matrix,
    from_confusion,
    resolve_average,
    row_brier,
)

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation

Floats = NDArray[np.float64]

POWER = 0.8  # the usual chance of seeing a difference, by which "could be missed" is defined
# The smallest difference that is taken to matter unless the user says otherwise: two points of a share, and
# 5 % of a loss.
MATTERS = 0.02
MATTERS_OF_LOSS = 0.05


_MOST_UNSEEN = 2000


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
        return f"{self.method}: statistic {self.statistic:.4g}, {_p(self.p_value)}"


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.0005 else "p < 0.001"


def _z_of(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


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
        return PairedTest(name, float(min(a, b)), float(_mcnemar_p(np.array(a), np.array(b), method)))
    from scipy.special import chdtrc

    gap = abs(a - b)
    if method == "chi2_corrected":
        gap = max(gap - 1, 0)
    statistic = gap**2 / (a + b) if a + b else 0.0
    name = "McNemar chi-squared" + (", continuity-corrected" if method == "chi2_corrected" else "")
    return PairedTest(name, statistic, float(chdtrc(1, statistic)), 1)


def _mcnemar_p(a: NDArray[Any], b: NDArray[Any], method: str) -> Floats:
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
    differences: ArrayLike, *, n_resamples: int = 9999, seed: int = 0, groups: ArrayLike | None = None
) -> PairedTest:
    """Test whether paired differences have mean 0, by flipping their signs at random.

    Args:
        differences: (n,) of each row, a minus b.
        n_resamples: How many random flips B; the smallest possible p is 1 / (B + 1).
        seed: Seed of the flips.
        groups: (n,) group of each row: the signs of a group flip together; None: rows are independent.

    Returns:
        The test; its statistic is the mean difference, and p = (k + 1) / (B + 1) with k flips at least as
        far from 0. Above 20,000 different sizes the flips' sum is taken as normal.

    Raises:
        ValueError: There are no rows, or a difference is not a finite number.

    Example:
        >>> print(randomisation_test([1, 1, 1, 0, 1, 1, -1, 1, 1, 1]))
        sign-flip randomisation: statistic 0.7, p = 0.038

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
    statistic = float(rows.mean())
    units = rows if groups is None else np.bincount(group_indices(groups, len(rows)), weights=rows)
    sizes, counts = np.unique(np.abs(units[units != 0]), return_counts=True)
    observed = abs(float(units.sum()))
    if not len(sizes):
        return PairedTest("sign-flip randomisation", statistic, 1.0)
    if len(sizes) > 20_000:
        from scipy.special import ndtr

        p = 2 * float(ndtr(-observed / math.sqrt(float(counts @ sizes**2))))
        return PairedTest("sign-flip randomisation, normal limit", statistic, max(p, 1e-300))
    random = np.random.default_rng(seed)
    far, step = 0, max(1, 4_000_000 // len(sizes))
    # The sum of m signs is 2 Binomial(m, 1/2) - m: one draw for each different size, not for each row. One
    # sign is a bit, at a fifth of the time.
    single, more = sizes[counts == 1], counts > 1
    for start in range(0, n_resamples, step):
        flips = min(step, n_resamples - start)
        sums = (2.0 * random.integers(0, 2, (flips, len(single)), dtype=np.int8) - 1) @ single
        repeated = random.binomial(counts[more], 0.5, size=(flips, int(more.sum())))
        sums += (2.0 * repeated - counts[more]) @ sizes[more]
        far += int((np.abs(sums) >= observed * (1 - 1e-12)).sum())
    return PairedTest("sign-flip randomisation", statistic, (far + 1) / (n_resamples + 1))


def _triple(
    y: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    return (y * classes + a) * classes + b


class _Triples:
    """Two models' predictions on the same rows, as counts of the distinct (label, a, b)."""

    def __init__(self, cells: NDArray[np.int64], counts: NDArray[np.int64], classes: int) -> None:
        self.cells, self.counts, self.classes, self.n = cells, counts, classes, int(counts.sum())
        self.label, rest = np.divmod(cells, classes**2)
        self.a, self.b = np.divmod(rest, classes)

    @classmethod
    def of_rows(
        cls, y: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], classes: int
    ) -> _Triples:
        cells, counts = np.unique(_triple(y, a, b, classes), return_counts=True)
        return cls(cells, counts, classes)

    def with_unseen(self, seed: int) -> _Triples:
        """Add triples that could have occurred but did not, with count 0; at most 2,000, at random."""
        every = self.classes**3
        if every > _MOST_UNSEEN:
            unseen = np.unique(np.random.default_rng(seed).integers(0, every, _MOST_UNSEEN))
        else:
            unseen = np.arange(every)
        cells = np.union1d(self.cells, unseen)
        counts = np.zeros(len(cells), dtype=np.int64)
        counts[np.searchsorted(cells, self.cells)] = self.counts
        return _Triples(cells, counts, self.classes)

    def _chunks(self, n_resamples: int) -> list[int]:
        """Split the resamples so that no array of them takes more than 32 MB."""
        step = max(1, 4_000_000 // max(len(self.cells), 3 * self.classes))
        return [min(step, n_resamples - start) for start in range(0, n_resamples, step)]

    def sums(self, counts: NDArray[Any], column: NDArray[np.int64]) -> Floats:
        """Add counts (..., triples) up to the (..., 3 K) class counts of one of the models."""
        summed = sum_counts(np.atleast_2d(counts), self.label, column, self.classes)
        return summed.reshape(*counts.shape[:-1], -1)

    def difference(self, counts: NDArray[Any], score: Callable[[ClassCounts], Floats]) -> Floats:
        """Return score(a) - score(b) for counts (..., triples)."""
        counts = np.asarray(counts, dtype=np.float64)
        return score(split_counts(self.sums(counts, self.a))) - score(split_counts(self.sums(counts, self.b)))

    def swapped(
        self, kept: NDArray[Any], swapped: NDArray[Any], score: Callable[[ClassCounts], Floats]
    ) -> Floats:
        """Return the difference where some of the counts (..., triples) have a and b swapped."""
        of_a = self.sums(kept, self.a) + self.sums(swapped, self.b)
        of_b = self.sums(kept, self.b) + self.sums(swapped, self.a)
        return score(split_counts(of_a)) - score(split_counts(of_b))

    def bootstrap(
        self,
        score: Callable[[ClassCounts], Floats],
        bound: float,
        confidence: float,
        n_resamples: int,
        seed: int,
    ) -> Estimate:
        value = float(self.difference(self.counts, score))
        random = np.random.default_rng(seed)
        resampled = np.concatenate(
            [
                self.difference(random.multinomial(self.n, self.counts / self.n, size=size), score)
                for size in self._chunks(n_resamples)
            ]
        )
        support = np.bincount(self.label, weights=self.counts)
        few = float(support[support > 0].min())
        limits = bias_corrected(value, resampled, confidence)
        why = _unreliable(bool(np.ptp(resampled) <= 1e-12), few, "row")
        if why:
            limits = self.widened(limits, self.counts, score, confidence, seed)
        return _of_bootstrap(value, limits, bound, confidence, "paired bootstrap", why)

    def widened(
        self,
        limits: tuple[float, float],
        counts: NDArray[Any],
        score: Callable[[ClassCounts], Floats],
        confidence: float,
        seed: int,
    ) -> tuple[float, float]:
        """Widen limits to those of a Dirichlet posterior of counts (triples,), unseen ones among them."""
        every = self.with_unseen(seed)
        seen = np.zeros(len(every.cells))
        seen[np.searchsorted(every.cells, self.cells)] = counts
        other = dirichlet(
            lambda drawn: every.difference(drawn, score),
            seen,
            confidence,
            max(100, every._chunks(1000)[0]),
            seed,
        )
        return min(limits[0], other[0]), max(limits[1], other[1])

    def randomise(self, score: Callable[[ClassCounts], Floats], n_resamples: int, seed: int) -> PairedTest:
        """Swap the two models' predictions on random rows: each row keeps its pair, not whose is whose."""
        observed = float(self.difference(self.counts, score))
        random, far = np.random.default_rng(seed), 0
        for size in self._chunks(n_resamples):
            swapped = random.binomial(self.counts, 0.5, size=(size, len(self.counts)))
            kept = self.counts - swapped
            far += int((np.abs(self.swapped(kept, swapped, score)) >= abs(observed) - 1e-12).sum())
        return PairedTest("approximate randomisation", observed, (far + 1) / (n_resamples + 1))


def _unreliable(same: bool, fewest: float, unit: str) -> str:
    """Say why a paired bootstrap is not to be relied on; nothing where it is."""
    if same:
        return "resamples do not vary"
    if fewest >= FEW_ROWS - 1e-9:
        return ""
    return f"unreliable: a class {'has' if unit == 'row' else 'is in'} {times(fewest, unit)}"


def _of_bootstrap(
    value: float, limits: tuple[float, float], bound: float, confidence: float, method: str, why: str
) -> Estimate:
    method = f"wider of {method} and Dirichlet posterior ({why})" if why else f"{method}, bias-corrected"
    low, high = max(-bound, min(limits[0], value)), min(bound, max(limits[1], value))
    return Estimate(value, low, high, method, confidence)


_MOST_BLOCKS = 2_000  # units swapped together beyond this many: still 2**2000 ways to swap


class _UnitTriples:
    """The same for rows with weights, or in groups: whole units (rows, or groups) are drawn and swapped."""

    def __init__(
        self,
        triples: NDArray[np.int64],
        classes: int,
        weights: Floats | None,
        groups: NDArray[np.int64] | None,
    ) -> None:
        from scipy.sparse import csr_matrix

        n = len(triples)
        self._weights, self._groups = np.ones(n) if weights is None else weights, groups
        cells, place, counts = np.unique(triples, return_inverse=True, return_counts=True)
        self._cells, self._label = _Triples(cells, counts, classes), triples // classes**2
        units = np.arange(n) if groups is None else groups
        self._sums = csr_matrix((self._weights, (units, place)), shape=(int(units.max()) + 1, len(cells)))
        self._sums.sum_duplicates()

    def _units(self, rows: NDArray[np.bool_]) -> float:
        return independent_units(rows, self._weights, self._groups)

    def bootstrap(
        self,
        score: Callable[[ClassCounts], Floats],
        bound: float,
        confidence: float,
        n_resamples: int,
        seed: int,
    ) -> Estimate:
        cells, total = self._cells, np.asarray(self._sums.sum(axis=0)).ravel()
        value = float(cells.difference(total, score))
        sizes = cells._chunks(n_resamples)
        seeds = np.random.default_rng(seed).integers(2**32, size=len(sizes)).tolist()
        resampled = np.concatenate(
            [
                cells.difference(resample_sums(self._sums, size, one), score)
                for size, one in zip(sizes, seeds, strict=True)
            ]
        )
        units = effective_units(self._weights, self._groups)
        limits = bias_corrected(value, resampled, expanded_confidence(confidence, units))
        unit = "row" if self._groups is None else "group"
        few = min(self._units(self._label == k) for k in np.unique(self._label[self._weights > 0]))
        why = _unreliable(bool(np.ptp(resampled) <= 1e-12), few, unit)
        if why:
            limits = cells.widened(limits, total * units / total.sum(), score, confidence, seed)
        return _of_bootstrap(value, limits, bound, confidence, f"paired bootstrap of {unit}s", why)

    def randomise(self, score: Callable[[ClassCounts], Floats], n_resamples: int, seed: int) -> PairedTest:
        """Swap the two models' predictions on random units, whole."""
        from scipy.sparse import csr_matrix

        random, far, sums, cells = np.random.default_rng(seed), 0, self._sums, self._cells
        units = sums.shape[0]
        if units > _MOST_BLOCKS:
            block = random.permutation(units) % _MOST_BLOCKS
            sums = csr_matrix((np.ones(units), (block, np.arange(units))), (_MOST_BLOCKS, units)) @ sums
            units = _MOST_BLOCKS
        total = np.asarray(sums.sum(axis=0)).ravel()
        observed, transposed = float(cells.difference(total, score)), sums.T.tocsr()
        for size in cells._chunks(n_resamples):
            swapped = np.asarray(transposed @ random.integers(0, 2, (units, size)).astype(np.float64)).T
            kept = total - swapped
            # Sums of weights round: what is swapped back to itself must count as equally far.
            far += int((np.abs(cells.swapped(kept, swapped, score)) >= abs(observed) - 1e-9).sum())
        name = "approximate randomisation" + (" of groups" if self._groups is not None else "")
        return PairedTest(name, observed, (far + 1) / (n_resamples + 1))


def paired_bootstrap(
    y_true: ArrayLike,
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    *,
    metric: str = "f1",
    average: str = "auto",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate how much a metric differs between two models on the same rows, with a bootstrap interval.

    The rows are drawn once for both models, as counts of the distinct (label, a, b) triples: exact, and the
    cost does not grow with the rows.

    Args:
        y_true: (n,) class indices from 0.
        predicted_a: (n,) class indices that model a predicts.
        predicted_b: (n,) class indices that model b predicts.
        metric: A metric of the confusion matrix: "accuracy", "f1", "mcc", ...
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted".
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples, at least 100.
        seed: Seed of the draws.

    Returns:
        a minus b, with its interval; where no resample differs, a Dirichlet posterior widens it.

    Raises:
        ValueError: Lengths differ, a class is negative, or a name or number is out of range.

    Example:
        >>> y = [0, 1] * 50
        >>> a = [0, 1] * 45 + [1, 0] * 5
        >>> b = [0, 1] * 40 + [1, 0] * 10
        >>> print(paired_bootstrap(y, a, b, metric="accuracy"))
        0.100 [0.050, 0.170]

    Reference:
        Efron and Tibshirani 1993, chapter 14; Berg-Kirkpatrick et al. 2012, EMNLP.
    """
    arrays = [np.asarray(array) for array in (y_true, predicted_a, predicted_b)]
    for name, array in zip(("y_true", "predicted_a", "predicted_b"), arrays, strict=True):
        if array.ndim != 1 or array.dtype.kind not in "biu" or (len(array) and array.min() < 0):
            raise ValueError(
                f"`{name}` must be (rows,) whole class indices from 0; got {array.dtype} {array.shape}."
            )
        same_length("y_true", arrays[0], name, array)
    not_empty("y_true", arrays[0])
    number("confidence", confidence, above=0, below=1)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)
    y, a, b = (array.astype(np.int64) for array in arrays)
    classes = max(2, int(max(y.max(), a.max(), b.max())) + 1)
    score, bound = _scorer(metric, average, classes)
    return _Triples.of_rows(y, a, b, classes).bootstrap(score, bound, confidence, n_resamples, seed)


def _scorer(metric: str, average: str, classes: int) -> tuple[Callable[[ClassCounts], Floats], float]:
    one_of("metric", metric, [name for name, entry in METRICS.items() if entry.source == "confusion"])
    resolved = resolve_average(average, classes)
    entry = METRICS[metric]
    return (lambda counts: from_confusion(metric, counts, resolved)), entry.high - entry.low


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


def _discordance(p_only_a: float, p_only_b: float) -> tuple[float, float]:
    a = number("p_only_a", p_only_a, at_least=0, at_most=1)
    b = number("p_only_b", p_only_b, at_least=0, at_most=1)
    if a + b > 1:
        raise ValueError(f"`p_only_a` and `p_only_b` must add up to at most 1; got {a:g} and {b:g}.")
    return a + b, abs(a - b)


def _tail(alpha: float, sides: int) -> float:
    number("alpha", alpha, above=0, below=1)
    if sides not in (1, 2):
        raise ValueError(f"`sides` must be 1 or 2; got {sides!r}.")
    return _z_of(1 - alpha / sides)


def mcnemar_power(p_only_a: float, p_only_b: float, n: int, *, alpha: float = 0.05, sides: int = 2) -> float:
    """Compute the chance that McNemar's test on n rows finds a difference that is there.

    Args:
        p_only_a: Share of rows that only a gets right, in [0, 1].
        p_only_b: Share of rows that only b gets right, in [0, 1].
        n: How many rows.
        alpha: Level of the test.
        sides: 1 or 2.

    Returns:
        The power in [0, 1], by Connor's normal approximation.

    Raises:
        ValueError: A share, n, alpha or sides is out of range.

    Example:
        >>> round(mcnemar_power(0.10, 0.05, 200), 3)
        0.446

    Reference:
        Connor 1987, Biometrics 43:207-211.
    """
    n = positive_int("n", n)
    disagreement, difference = _discordance(p_only_a, p_only_b)
    z = _tail(alpha, sides)
    return _connor_power(disagreement, difference, n, z, alpha)


def _connor_power(disagreement: float, difference: float, n: int, z: float, alpha: float) -> float:
    from scipy.special import ndtr

    if difference == 0:
        return alpha
    top = difference * math.sqrt(n) - z * math.sqrt(disagreement)
    spread = math.sqrt(max(disagreement - difference**2, 0.0))
    if spread == 0:
        return float(top > 0)
    return float(ndtr(top / spread))


def mcnemar_sample_size(
    p_only_a: float, p_only_b: float, *, alpha: float = 0.05, power: float = POWER, sides: int = 2
) -> int:
    """Compute how many test rows McNemar's test needs to find a difference.

    Args:
        p_only_a: Share of rows that only a gets right, in [0, 1].
        p_only_b: Share of rows that only b gets right; must differ from `p_only_a`.
        alpha: Level of the test.
        power: Wanted chance of finding the difference, in (0, 1).
        sides: 1 or 2.

    Returns:
        The number of rows, rounded up.

    Raises:
        ValueError: The shares are equal, or a number is out of range.

    Example:
        >>> mcnemar_sample_size(0.45, 0.05, power=0.9, sides=1)
        23

    Reference:
        Connor 1987, Biometrics 43:207-211.
    """
    disagreement, difference = _discordance(p_only_a, p_only_b)
    if difference == 0:
        raise ValueError(
            f"`p_only_a` and `p_only_b` must differ; both are {p_only_a:g}, and no number of rows finds that."
        )
    number("power", power, above=0, below=1)
    z, z_power = _tail(alpha, sides), _z_of(power)
    root = z * math.sqrt(disagreement) + z_power * math.sqrt(max(disagreement - difference**2, 0.0))
    return max(1, math.ceil((max(root, 0.0) / difference) ** 2))


def minimum_detectable_difference(
    disagreement: float, n: int, *, alpha: float = 0.05, power: float = POWER, sides: int = 2
) -> float:
    """Compute the smallest difference in accuracy that n paired rows would have shown.

    Args:
        disagreement: Share of rows that exactly one of the two models gets right, in [0, 1]. A difference
            above it takes more disagreement; then all of it is on one side.
        n: How many rows.
        alpha: Level of the test.
        power: Wanted chance of finding the difference, in (0, 1).
        sides: 1 or 2.

    Returns:
        The difference in (0, 1]; 1 where even that would be missed.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> round(minimum_detectable_difference(0.15, 200), 3)
        0.076

    Reference:
        Connor 1987, Biometrics 43:207-211; Card et al. 2020, EMNLP (most comparisons are underpowered).
    """
    disagreement = number("disagreement", disagreement, at_least=0, at_most=1)
    n = positive_int("n", n)
    number("power", power, above=0, below=1)
    z = _tail(alpha, sides)
    low, high = 0.0, 1.0
    if _connor_power(1.0, 1.0, n, z, alpha) < power:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _connor_power(max(disagreement, middle), middle, n, z, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def planned_difference(accuracy: float, n: int) -> tuple[float, float]:
    """Compute which difference to a model not seen yet n rows could show, and the disagreement assumed.

    The other model is taken to have the same accuracy, and half of its errors to be errors of this one too:
    then they disagree on as many rows as this one gets wrong; on one row where it gets none wrong.

    Args:
        accuracy: Of the model there is, in [0, 1].
        n: How many rows.

    Returns:
        The share of rows assumed to be right in exactly one of the two, and the smallest difference in
        accuracy that a test at the 5 % level sees with 80 % power.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> [round(share, 3) for share in planned_difference(0.85, 200)]
        [0.15, 0.076]
        >>> [round(share, 3) for share in planned_difference(1.0, 200)]
        [0.005, 0.039]
    """
    accuracy = number("accuracy", accuracy, at_least=0, at_most=1)
    disagreement = max(1 - accuracy, 1 / positive_int("n", n))
    return disagreement, minimum_detectable_difference(disagreement, n)


def detectable_sentence(evaluation: Evaluation) -> str:
    """Say which difference to another model the rows of an evaluation could show.

    Args:
        evaluation: Of one label a row.

    Returns:
        One sentence; nothing of multilabel, weighted or grouped rows, for which the formula is not made.
    """
    frame, n = evaluation.predictions, evaluation.n
    if evaluation.task != "classification" or "weight" in frame or "group" in frame:
        return ""
    disagreement, difference = planned_difference(evaluation.accuracy, n)
    these = "this one row" if n == 1 else f"these {n:,} rows"
    if difference == 1.0:
        return f"No difference to another model, however large, would be found on {these} 4 times in 5."
    # Below one percent one digit more: a disagreement is never none.
    share = f"{100 * disagreement:{'.0f' if disagreement >= 0.01 else '.1g'}} %"
    return (
        f"Another model would have to be about {100 * difference:.1f} points better or worse in "
        "accuracy for a "
        f"comparison on {these} to find it 4 times in 5 (if the two disagree on {share} of the rows)."
    )


@dataclass(frozen=True)
class Pair:
    """Two models, compared.

    Attributes:
        names: What they are called.
        values: The metric of each.
        difference: The first minus the second, with its paired interval.
        test: The paired test, before any adjustment.
        p_value: Its p-value, adjusted by Holm where several pairs are compared.
        outcome: "better" (the first is), "worse", "no difference detected" or "underpowered".
        detectable: The smallest difference this test set would have shown with 80 % power.
    """

    names: tuple[str, str]
    values: tuple[float, float]
    difference: Estimate
    test: PairedTest
    p_value: float
    outcome: str
    detectable: float


@dataclass(frozen=True)
class Comparison:
    """Which model is better, and whether the difference is more than chance.

    Attributes:
        names: What the models are called.
        metric: The declared metric: it alone ranks.
        values: The metric of each model.
        n: How many rows they were compared on.
        alpha: Level of the tests; the intervals have confidence 1 - alpha.
        matters: The smallest difference that is taken to matter.
        pairs: Each pair of models, compared.
        overall: Cochran's Q where more than two models are compared by accuracy, else None.
        verdict: One sentence.
        notes: What else to know, a sentence each.
    """

    names: tuple[str, ...]
    metric: str
    values: tuple[float, ...]
    n: int
    alpha: float
    matters: float
    pairs: tuple[Pair, ...]
    overall: PairedTest | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def difference(self) -> Estimate:
        """The first model minus the second."""
        return self.pairs[0].difference

    @property
    def p_value(self) -> float:
        """The p-value of the first model against the second."""
        return self.pairs[0].p_value

    @property
    def outcome(self) -> str:
        """What came of the first model against the second."""
        return self.pairs[0].outcome

    @property
    def detectable(self) -> float:
        """The smallest difference between the first two models that these rows would have shown."""
        return self.pairs[0].detectable

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [*textwrap.wrap(self.verdict, 80), ""]
        title = METRICS[self.metric].title
        lines += [
            f"  {name:{width}s}  {title} {value:.4f}"
            for name, value in zip(self.names, self.values, strict=True)
        ]
        if self.overall is not None:
            lines += ["", *textwrap.wrap(str(self.overall), 80)]
        for pair in self.pairs:
            lines += [
                "",
                *textwrap.wrap(f"{pair.names[0]} - {pair.names[1]}: {pair.outcome}", 80),
                f"  difference  {_signed(self.metric, pair.difference.value)} "
                f"{_range(self.metric, pair.difference)} ({1 - self.alpha:.0%} interval, n = {self.n:,})",
                *textwrap.wrap(
                    f"interval    {pair.difference.method}",
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
                *textwrap.wrap(
                    f"test        {pair.test}"
                    + (f"; after Holm {_p(pair.p_value)}" if len(self.pairs) > 1 else ""),
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
                *textwrap.wrap(
                    f"size        {_found(self.metric, pair.detectable, self.n)}",
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
            ]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)


def _in_points(metric: str) -> bool:
    return METRICS[metric].source != "rows"


def _amount(metric: str, value: float) -> str:
    if not _in_points(metric):
        return f"{value:.4f}"
    return f"{100 * value:.1f} points" if value >= 0.0005 else f"{100 * value:.2g} points"


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f} points" if _in_points(metric) else f"{value:+.4f}"


def _range(metric: str, difference: Estimate) -> str:
    if _in_points(metric):
        return f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"[{difference.low:+.4f}, {difference.high:+.4f}]"


class _Rows:
    """What `compare` needs of an evaluation, as arrays."""

    def __init__(self, evaluation: Evaluation, name: str) -> None:
        frame = evaluation.predictions
        self.name, self.labels, self.frame = name, tuple(evaluation.labels), frame
        self._ranking: list[Ranking | None] = []
        self.average = evaluation.average
        self.multilabel = evaluation.task == "multilabel"
        self.correct = (frame["label"].to_numpy() == frame["prediction"].to_numpy()).astype(np.int64)
        self.loss: Floats = np.asarray(frame["loss"], dtype=np.float64)
        self.weights: Floats | None = frame["weight"].to_numpy(np.float64) if "weight" in frame else None

    def codes(self, column: str) -> NDArray[np.int64]:
        import pandas as pd

        return np.array(pd.Categorical(self.frame[column], categories=self.labels).codes, dtype=np.int64)

    @property
    def probabilities(self) -> Floats:
        return np.asarray(self.frame[[f"p_{label}" for label in self.labels]], dtype=np.float64)

    def of_rows(self, metric: str) -> Floats:
        """Return the number a row that `metric` is the mean of."""
        if metric == "accuracy":
            return np.asarray(self.correct, dtype=np.float64)
        if metric == "loss":
            return self.loss
        return row_brier(self.codes("label"), self.probabilities)

    def ranking(self, settings: _Settings) -> Ranking | None:
        """Return the AUC and the influence of each row; computed once."""
        if not self._ranking:
            y = self.codes("label")
            self._ranking.append(
                ranking_influence(
                    settings.metric, y, self.probabilities, settings.average, self.weights, settings.groups
                )
            )
        return self._ranking[0]


_ROW_METRICS = ("accuracy", "loss", "brier")


def _check_same_rows(first: _Rows, other: _Rows) -> None:
    """Raise ValueError unless both were scored on the same rows in the same order."""
    where = f"{first.name} and {other.name} were not scored on the same rows in the same order:"
    then = "Evaluate both on the same test rows."
    if first.labels != other.labels:
        raise ValueError(f"{where} their classes are {first.labels} and {other.labels}. {then}")
    if len(first.frame) != len(other.frame):
        raise ValueError(f"{where} they have {len(first.frame)} and {len(other.frame)} rows. {then}")
    texts = "text_hash" in first.frame and "text_hash" in other.frame
    for column in ("text_hash" if texts else "id", "label"):
        a, b = first.frame[column].to_numpy(), other.frame[column].to_numpy()
        differ = (
            np.flatnonzero(a.astype(str) != b.astype(str)) if a.dtype != b.dtype else np.flatnonzero(a != b)
        )
        if len(differ):
            row = int(differ[0])
            order = ""
            if column != "label" and sorted(map(str, a)) == sorted(map(str, b)):
                order = " The rows are the same, their order is not: sort both alike."
            raise ValueError(
                f"{where} row {row} has {column} {str(a[row])!r} in {first.name} and {str(b[row])!r} in "
                f"{other.name}.{order or ' ' + then}"
            )
    a, b = (np.ones(0) if rows.weights is None else rows.weights for rows in (first, other))
    if not np.array_equal(a, b):
        raise ValueError(f"{where} their row weights differ. {then}")


def check_same_rows(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[_Rows]:
    """Raise ValueError unless all evaluations are of the same rows in the same order.

    Args:
        evaluations: At least one.
        names: What to call each in the error.

    Returns:
        The rows of each.
    """
    rows = [_Rows(evaluation, name) for evaluation, name in zip(evaluations, names, strict=True)]
    for other in rows[1:]:
        _check_same_rows(rows[0], other)
    return rows


def _known_groups(rows: Sequence[_Rows]) -> NDArray[np.int64] | None:
    """Return the groups that the evaluations were made with, the same in all that have any."""
    known = [(row.name, row.frame["group"].to_numpy()) for row in rows if "group" in row.frame]
    for name, groups in known[1:]:
        if not np.array_equal(groups, known[0][1]):
            raise ValueError(f"{known[0][0]} and {name} were made with different groups; pass `groups`.")
    return known[0][1] if known else None


@dataclass(frozen=True)
class _Settings:
    metric: str
    alpha: float
    average: str
    n_resamples: int
    seed: int
    groups: NDArray[np.int64] | None

    @property
    def confidence(self) -> float:
        return 1 - self.alpha


def _detectable_from(difference: Estimate, alpha: float) -> float:
    """Turn the width of an interval into the difference that would have been seen with 80 % power."""
    z = _z_of(1 - alpha / 2)
    return (difference.high - difference.low) / (2 * z) * (z + _z_of(POWER))


def _compare_pair(a: _Rows, b: _Rows, settings: _Settings) -> tuple[Estimate, PairedTest, float]:
    """Return the difference, the test and the smallest detectable difference of two models."""
    metric, confidence = settings.metric, settings.confidence
    plain = a.weights is None and settings.groups is None
    if metric == "accuracy" and plain:
        only_a = int((a.correct > b.correct).sum())
        only_b = int((b.correct > a.correct).sum())
        both, n = int((a.correct & b.correct).sum()), len(a.correct)
        difference = newcombe_paired_difference(
            both, only_a, only_b, n - both - only_a - only_b, confidence=confidence
        )
        detectable = minimum_detectable_difference((only_a + only_b) / n, n, alpha=settings.alpha)
        return difference, mcnemar(only_a, only_b), detectable
    if metric in _ROW_METRICS:
        difference, test = _difference_of_means(a.of_rows(metric) - b.of_rows(metric), a, settings)
    elif METRICS[metric].source == "ranking":
        difference, test = _difference_of_rankings(a, b, settings)
    else:
        score, bound = _scorer(metric, settings.average, len(a.labels))
        coded, classes = (a.codes("label"), a.codes("prediction"), b.codes("prediction")), len(a.labels)
        triples: _Triples | _UnitTriples = (
            _Triples.of_rows(*coded, classes)
            if plain
            else _UnitTriples(_triple(*coded, classes), classes, a.weights, settings.groups)
        )
        difference = triples.bootstrap(score, bound, confidence, settings.n_resamples, settings.seed)
        test = triples.randomise(score, 9999, settings.seed)
    return difference, test, _detectable_from(difference, settings.alpha)


def _difference_of_means(rows: Floats, a: _Rows, settings: _Settings) -> tuple[Estimate, PairedTest]:
    high, confidence = METRICS[settings.metric].high, settings.confidence
    if a.weights is None and settings.groups is None:
        difference = mean_interval(rows, confidence=confidence, bounds=(-high, high))
    else:
        # A few heavy rows (or large groups) make the acceleration of BCa noise: .90 where this covers .945.
        difference = mean_of_units(
            rows,
            method="percentile",
            confidence=confidence,
            bounds=(-high, high),
            groups=settings.groups,
            sample_weight=a.weights,
            n_resamples=settings.n_resamples,
            seed=settings.seed,
        )
    weighted = rows if a.weights is None else rows * a.weights / a.weights.mean()
    return difference, randomisation_test(weighted, groups=settings.groups, seed=settings.seed)


def _difference_of_rankings(a: _Rows, b: _Rows, settings: _Settings) -> tuple[Estimate, PairedTest]:
    from scipy.special import stdtr, stdtrit

    y = a.codes("label")
    found = [rows.ranking(settings) for rows in (a, b)]
    if found[0] is None or found[1] is None:
        raise ValueError(f"`metric` {settings.metric!r} needs rows of at least two classes; there is one.")
    value, moves = found[0].value - found[1].value, found[0].influence - found[1].influence
    smallest = found[0].smallest
    variance, df, delongs = ranking_variance(
        settings.metric, y == 1, moves, settings.average, a.weights, settings.groups
    )
    name = f"{'DeLong' if delongs else 'linearised'}, paired, t"
    if variance <= 1e-15 or (settings.average == "binary" and smallest < 2):
        unlike = 1 - (settings.alpha / 2) ** (1 / smallest)
        what = times(smallest, "row" if settings.groups is None else "group")
        method = f"Clopper-Pearson on {what}: no variance to see"
        return Estimate(
            value, max(-1.0, value - unlike), min(1.0, value + unlike), method, settings.confidence
        ), PairedTest(name, 0.0, 1.0)
    se = math.sqrt(variance)
    half = float(stdtrit(df, 1 - settings.alpha / 2)) * se
    return (
        Estimate(value, max(-1.0, value - half), min(1.0, value + half), name, settings.confidence),
        PairedTest(name, value / se, max(2 * float(stdtr(df, -abs(value / se))), 1e-300)),
    )


def _outcome(
    metric: str, difference: Estimate, p_value: float, detectable: float, alpha: float, matters: float
) -> str:
    apart = difference.low > 0 or difference.high < 0
    if p_value <= alpha and apart:
        higher = difference.value > 0
        return "better" if higher == (METRICS[metric].direction == "higher") else "worse"
    return "underpowered" if detectable > matters else "no difference detected"


def compare(
    *evaluations: Evaluation,
    metric: str = "accuracy",
    alpha: float = 0.05,
    names: Sequence[str] | None = None,
    average: str | None = None,
    matters: float | None = None,
    groups: ArrayLike | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two or more evaluations of the same rows: which is better, and is it more than chance?

    Accuracy: McNemar's mid-p and Newcombe's paired interval; more than two models: Cochran's Q first, then
    every pair with Holm's adjustment. Other metrics of the confusion matrix: paired bootstrap and approximate
    randomisation, of whole groups where rows come in groups. Loss and Brier: t interval (groups, weights: a
    bootstrap) and sign flips. AUCs: DeLong. A model is called better only where the test and the interval
    both say so.

    Args:
        *evaluations: At least two, of the same rows in the same order.
        metric: The metric that decides, declared beforehand.
        alpha: Level of the tests, in (0, 1).
        names: What to call the models; None: A, B, C...
        average: Of precision, recall, F1 and AUC; None: as the first evaluation prints it.
        matters: The smallest difference that would matter to you, in the metric's own unit. Where nothing
            is detected, a test set that could have missed such a difference is called underpowered. None:
            0.02, of a loss or Brier score 5 % of the smallest.
        groups: (n,) group of each row, where rows come in groups. None: those that the evaluations were made
            with.
        n_resamples: Resamples of a bootstrap, at least 100.
        seed: Seed of bootstrap and randomisation.

    Returns:
        The verdict with each pair's difference, interval, p-value and smallest detectable difference.

    Raises:
        ValueError: Fewer than two evaluations, different rows, or an unknown metric.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0, 1] * 100
        >>> a = evaluate_predictions(y, [0.1, 0.9] * 90 + [0.9, 0.1] * 10)
        >>> b = evaluate_predictions(y, [0.2, 0.8] * 85 + [0.8, 0.2] * 15)
        >>> compare(a, b).outcome
        'better'
    """
    if len(evaluations) < 2:
        raise ValueError(f"`evaluations` must be at least two to compare; got {len(evaluations)}.")
    one_of("metric", metric, tuple(METRICS))
    alpha = number("alpha", alpha, above=0, below=1)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)
    called = _names(names, len(evaluations))
    rows = check_same_rows(evaluations, called)
    n = len(rows[0].correct)
    if groups is None:
        groups = _known_groups(rows)
    if average is None:  # as the evaluations print it: `average` is not of the rankings there
        average = "auto" if METRICS[metric].source == "ranking" else rows[0].average
    resolved = resolve_average(average, len(rows[0].labels))
    settings = _Settings(
        metric, alpha, resolved, n_resamples, seed, None if groups is None else group_indices(groups, n)
    )
    _check_supported(rows[0], settings)
    found = [(a, b, *_compare_pair(a, b, settings)) for a, b in itertools.combinations(rows, 2)]
    values = tuple(_value(row, settings) for row in rows)
    if matters is None:
        matters = MATTERS_OF_LOSS * min(values) if METRICS[metric].source == "rows" else MATTERS
    matters = number("matters", matters, at_least=0)
    adjusted = holm([test.p_value for *_, test, _ in found])
    value_of = dict(zip(called, values, strict=True))
    pairs = tuple(
        Pair(
            (a.name, b.name),
            (value_of[a.name], value_of[b.name]),
            difference,
            test,
            float(p),
            _outcome(metric, difference, float(p), detectable, alpha, matters),
            detectable,
        )
        for (a, b, difference, test, detectable), p in zip(found, adjusted, strict=True)
    )
    plain = settings.groups is None and rows[0].weights is None
    overall = None
    if len(rows) > 2 and metric == "accuracy" and plain:
        overall = cochran_q(np.column_stack([row.correct for row in rows]))
    verdict = (
        _verdict_of_two(metric, pairs[0], n)
        if len(rows) == 2
        else _verdict_of_many(metric, called, values, pairs, n)
    )
    notes = []
    if len(rows) == 2:
        notes += _disagreement(rows, settings)
    if len(rows) > 2 and overall is not None and overall.p_value > alpha and _decided(pairs):
        notes.append("Cochran's Q over all models is not significant: take single pairs with caution.")
    notes.append("The interval covers the sampling of these rows only, not training seeds or drift.")
    return Comparison(called, metric, values, n, alpha, matters, pairs, overall, verdict, tuple(notes))


def _names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(chr(65 + i) if i < 26 else f"model {i + 1}" for i in range(count))
    called = tuple(str(name) for name in names)
    if len(called) != count or len(set(called)) != count:
        raise ValueError(f"`names` must be {count} different names, one for each evaluation; got {called}.")
    return called


def _check_supported(rows: _Rows, settings: _Settings) -> None:
    if settings.metric not in ("accuracy", "loss") and rows.multilabel:
        raise ValueError(
            f"`metric` of multilabel evaluations must be 'accuracy' (all labels right) or 'loss'; "
            f"got {settings.metric!r}."
        )


def _value(rows: _Rows, settings: _Settings) -> float:
    metric = settings.metric
    if metric in _ROW_METRICS:
        return float(np.average(rows.of_rows(metric), weights=rows.weights))
    if METRICS[metric].source == "ranking":
        found = rows.ranking(settings)
        return math.nan if found is None else found.value
    y = rows.codes("label")
    table = confusion_matrix(y, rows.codes("prediction"), len(rows.labels), sample_weight=rows.weights)
    return float(from_confusion(metric, table, settings.average))


def _decided(pairs: Sequence[Pair]) -> bool:
    return any(pair.outcome in ("better", "worse") for pair in pairs)


def _figures(metric: str, pair: Pair, n: int) -> str:
    digits = 3 if _in_points(metric) else 4
    return (
        f"{METRICS[metric].title} {pair.values[0]:.{digits}f} against {pair.values[1]:.{digits}f}, "
        f"{_signed(metric, pair.difference.value)} {_range(metric, pair.difference)} on {counted(n, 'row')}, "
        f"{_p(pair.p_value)}"
    )


def _verdict_of_two(metric: str, pair: Pair, n: int) -> str:
    a, b = pair.names
    figures, missed = _figures(metric, pair, n), _missed(metric, pair.detectable)
    if pair.outcome in ("better", "worse"):
        return f"{a} is {pair.outcome} than {b}: {figures}. {_found(metric, pair.detectable, n)}"
    if pair.outcome == "underpowered":
        return f"Underpowered, no difference detected between {a} and {b}: {figures}; {missed}."
    return f"No difference detected between {a} and {b}: {figures}; {missed}."


def _found(metric: str, least: float, n: int) -> str:
    """Say how large a difference rows like these find reliably: not what they found this time."""
    if _in_points(metric) and least >= 1:
        return f"On {counted(n, 'row')} no difference, however large, is found 4 times in 5."
    return (
        f"Of true differences of {_amount(metric, least)}, tests on {counted(n, 'row')} find 4 in 5; smaller "
        "ones are found less often."
    )


def _missed(metric: str, least: float) -> str:
    if _in_points(metric) and least >= 1:
        return "any difference could be missed"
    return f"differences under {_amount(metric, least)} could be missed"


def _verdict_of_many(
    metric: str, names: Sequence[str], values: Sequence[float], pairs: Sequence[Pair], n: int
) -> str:
    sign = 1 if METRICS[metric].direction == "higher" else -1
    best = names[int(np.argmax(sign * np.asarray(values)))]
    beaten: list[str] = []
    open_: list[str] = []
    for pair in pairs:
        if best in pair.names:
            other = pair.names[1] if pair.names[0] == best else pair.names[0]
            (beaten if pair.outcome in ("better", "worse") else open_).append(other)
    title, word = METRICS[metric].title, "highest" if sign > 0 else "lowest"
    sentence = f"{best} has the {word} {title} of {len(names)} models on {counted(n, 'row')}"
    if beaten:
        sentence += f" and is better than {', '.join(beaten)}"
    if open_:
        least = max(pair.detectable for pair in pairs if best in pair.names)
        sentence += f"; no difference detected from {', '.join(open_)}, {_missed(metric, least)}"
    return sentence + " (Holm-adjusted)."


def _disagreement(rows: Sequence[_Rows], settings: _Settings) -> list[str]:
    """Say what it means that one model has the better accuracy and the other the better loss."""
    a, b = rows
    accuracy = [float(np.average(row.correct, weights=row.weights)) for row in rows]
    loss = [float(np.average(row.loss, weights=row.weights)) for row in rows]
    if (accuracy[0] - accuracy[1]) * (loss[0] - loss[1]) <= 0:
        return []
    more, less = (a.name, b.name) if accuracy[0] > accuracy[1] else (b.name, a.name)
    on_loss = _Settings(
        "loss", settings.alpha, settings.average, settings.n_resamples, settings.seed, settings.groups
    )
    difference, test, detectable = _compare_pair(a, b, on_loss)
    apart = _outcome("loss", difference, test.p_value, detectable, settings.alpha, 0.0) in ("better", "worse")
    return [
        _disagreement_text(more, less, max(accuracy), min(accuracy), max(loss), min(loss), settings.metric)
        + f" The loss differs by {difference.value:+.4f} {_range('loss', difference)}, {_p(test.p_value)}: "
        + ("more than chance." if apart else "it may be chance.")
    ]


def _disagreement_text(
    more: str, less: str, high: float, low: float, high_loss: float, low_loss: float, metric: str
) -> str:
    return (
        f"Loss and accuracy disagree: {more} has more rows right ({high:.3f} against {low:.3f}), {less} the "
        f"lower loss ({low_loss:.3f} against {high_loss:.3f}). Loss charges for misplaced confidence: {less} "
        f"is better calibrated, or less over-confident where it is wrong; {more} decides more rows rightly. "
        f"The metric declared to decide is {METRICS[metric].title}. Calibrating the probabilities "
        f"(temperature) would lower the loss of {more} and change no decision."
    )


@dataclass(frozen=True)
class TotalsComparison:
    """What two totals alone say about two models, and what they cannot.

    Attributes:
        n: How many rows.
        right: Rows each model has right.
        both_wrong: (low, high): how many rows may be wrong in both.
        p_values: The test's p-value for each possible number of rows wrong in both, from low to high.
        method: Which test.
        significant_from: The smallest number of rows wrong in both from which p is at most alpha, or None.
        alpha: Level of the test.
        differences: The paired difference where fewest and where most rows are wrong in both.
        verdict: One sentence.
        notes: What else to know, a sentence each.
    """

    n: int
    right: tuple[int, int]
    both_wrong: tuple[int, int]
    p_values: tuple[float, ...]
    method: str
    significant_from: int | None
    alpha: float
    differences: tuple[Estimate, Estimate]
    verdict: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = textwrap.wrap(self.verdict, 80)
        for w, p, difference in zip(
            self.both_wrong, (self.p_values[0], self.p_values[-1]), self.differences, strict=True
        ):
            lines += [
                f"  {counted(w, 'row'):>11} wrong in both: {_p(p)}, difference "
                f"{_range('accuracy', difference)} points"
            ]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)


def compare_totals(
    right_a: int,
    right_b: int,
    n: int,
    *,
    loss_a: float | None = None,
    loss_b: float | None = None,
    method: str = "exact",
    alpha: float = 0.05,
) -> TotalsComparison:
    """Say what can be concluded from how many rows each of two models has right, without the rows.

    Whether the difference is more than chance depends on how many rows are wrong in both, which totals do not
    tell: every possible number is tried.

    Args:
        right_a: Rows that a has right.
        right_b: Rows that b has right.
        n: How many rows both were scored on.
        loss_a: Mean loss of a, if known; only to explain a disagreement with the accuracy.
        loss_b: Mean loss of b.
        method: A method of `mcnemar`, "midp" or "exact".
        alpha: Level of the test.

    Returns:
        The range of possible p-values and differences, and a verdict.

    Raises:
        ValueError: A count or the level is out of range.

    Example:
        >>> totals = compare_totals(180, 170, 200)
        >>> [round(totals.p_values[w], 3) for w in (0, 20)], totals.significant_from
        ([0.203, 0.002], 15)
    """
    n = positive_int("n", n)
    counts = []
    for name, value in (("right_a", right_a), ("right_b", right_b)):
        counts.append(positive_int(name, value, minimum=0))
        if value > n:
            raise ValueError(f"`{name}` must be at most `n`; got {value} of {n}.")
    one_of("method", method, ("midp", "exact"))
    alpha = number("alpha", alpha, above=0, below=1)
    wrong_a, wrong_b = n - counts[0], n - counts[1]
    low, high = max(0, wrong_a + wrong_b - n), min(wrong_a, wrong_b)
    w = np.arange(low, high + 1)
    p_values = _mcnemar_p(wrong_b - w, wrong_a - w, method)
    under = np.flatnonzero(p_values <= alpha)
    first = None if not len(under) else int(w[under[0]])
    ends = tuple(
        newcombe_paired_difference(
            n - wrong_a - wrong_b + end, wrong_b - end, wrong_a - end, end, confidence=1 - alpha
        )
        for end in (low, high)
    )
    p_low, p_high = float(p_values.min()), float(p_values.max())
    figures = f"accuracy {counts[0] / n:.3f} against {counts[1] / n:.3f} on {counted(n, 'row')}"
    possible = f"p may be anything from {p_low:.3f} to {p_high:.3f}"
    if p_low > alpha:
        verdict = f"A and B cannot be told apart: {figures}; whatever the rows, {_p(p_low)} or more."
    elif p_high <= alpha:
        better, other = ("A", "B") if counts[0] > counts[1] else ("B", "A")
        verdict = f"{better} is better than {other}: {figures}; whatever the rows, {_p(p_high)} or less."
    else:
        verdict = (
            f"These totals cannot tell whether the difference is more than chance: {figures}; {possible}, "
            f"and is at most {alpha:g} only if at least {counted(first or 0, 'row')} "
            f"{'is' if first == 1 else 'are'} wrong in both."
        )
    notes = ["Compare row by row to know: pass the two evaluations to `compare`."]
    accuracy = (counts[0] / n, counts[1] / n)
    if loss_a is not None and loss_b is not None:
        if (accuracy[0] - accuracy[1]) * (loss_a - loss_b) > 0:
            more, less = ("A", "B") if accuracy[0] > accuracy[1] else ("B", "A")
            losses = (max(loss_a, loss_b), min(loss_a, loss_b))
            notes.append(_disagreement_text(more, less, max(accuracy), min(accuracy), *losses, "accuracy"))
        notes.append("Whether the losses differ by more than chance, totals cannot say at all.")
    return TotalsComparison(
        n,
        (counts[0], counts[1]),
        (low, high),
        tuple(float(p) for p in p_values),
        "McNemar " + ("exact" if method == "exact" else "mid-p"),
        first,
        alpha,
        (ends[0], ends[1]),
        verdict,
        tuple(notes),
    )
