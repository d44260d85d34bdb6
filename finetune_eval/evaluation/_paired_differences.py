"""The difference of two models in each kind of metric: a test, and intervals that agree with it."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._limits import times
from finetune_eval.evaluation._paired_resampling import (
    PairedCounts,
    PairedUnits,
    metric_of_counts,
    triple_codes,
)
from finetune_eval.evaluation._paired_rows import ScoredRows, Settings
from finetune_eval.evaluation.folds import THIS_RECIPE, FoldScores, corrected_error
from finetune_eval.evaluation.means import MANY_UNITS, mean_interval
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.power import POWER, minimum_detectable_difference, normal_quantile
from finetune_eval.evaluation.proportions import paired_difference
from finetune_eval.evaluation.rankings import ranking_variance
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.significance import PairedTest, mcnemar, randomisation_test
from finetune_eval.evaluation.units import effective_units

Floats = NDArray[np.float64]
Limits = Callable[[float], Estimate]

_SMALLEST_P = 1e-12  # of those found by searching: 1 - p must be another float than 1
_ABOVE_0 = sys.float_info.min
_N_SWAPS = 9999  # random swaps of a randomisation test; the smallest p-value is 1 / 10,000
# Standard errors by which the mean entropies of two models differ where one is surer of its answers: 5 %.
_SURER = 2.0


@dataclass(frozen=True)
class Difference:
    """How much one model is above another, whether that is more than chance, and how it was found.

    Attributes:
        test: The test of no difference.
        limits: Confidence to the difference with its limits, as the interval's own method has them.
        span: How large a difference can be.
        disagreement: Share of plain rows that exactly one of the two gets right; None of other metrics.
        n: How many rows.
    """

    test: PairedTest
    limits: Limits
    span: float
    n: int
    disagreement: float | None = None

    def interval(self, level: float) -> Estimate:
        """Return the interval at confidence 1 - level; it excludes 0 exactly where p is at most `level`.

        The interval and the test come from different approximations where no interval belongs to the test
        (McNemar's mid-p, randomisation). Near p = level they may differ about 0, and about 0 only the test is
        right by construction: then the limit next to 0 is moved to it.
        """
        found = self.limits(1 - level)
        if self.test.p_value > level:
            low, high = min(found.low, 0.0), max(found.high, 0.0)
        elif found.value > 0:
            low, high = max(found.low, _ABOVE_0), found.high
        else:
            low, high = found.low, min(found.high, -_ABOVE_0)
        if (low, high) == (found.low, found.high):
            return found
        return replace(found, low=low, high=high, method=f"{found.method}; the test decides about 0")

    def detectable(self, level: float) -> float:
        """Return the smallest true difference that a test at this level detects with 80 % probability."""
        if self.disagreement is not None:
            return minimum_detectable_difference(self.disagreement, self.n, alpha=level)
        found, z = self.limits(1 - level), normal_quantile(1 - level / 2)
        return min(self.span, (found.high - found.low) / (2 * z) * (z + normal_quantile(POWER)))


def difference_of(a: ScoredRows, b: ScoredRows, settings: Settings) -> Difference:
    """Compare two models on the same rows by the declared metric."""
    if a.folds is not None and b.folds is not None:
        return of_folds(a.folds, b.folds, settings.metric, len(a.correct))
    metric = METRICS[settings.metric]
    plain = a.weights is None and settings.groups is None
    if settings.metric == "accuracy" or metric.source == "rows":
        of_a, of_b = a.of_rows(settings.metric), b.of_rows(settings.metric)
        if plain and metric.unit == "share":  # each row is right or wrong
            only_a, only_b, both = (int(rows.sum()) for rows in (of_a > of_b, of_b > of_a, of_a * of_b > 0))
            return of_shares(both, only_a, only_b, len(of_a) - both - only_a - only_b)
        rows = of_a - of_b
        if plain:
            return of_means(rows, metric.high, _surer(a, b))
        return of_weighted_means(rows, metric.high, a.weights, settings)
    if metric.source == "ranking":
        return of_rankings(a, b, settings)
    return of_counts(a, b, settings)


def of_folds(a: FoldScores, b: FoldScores, metric: str, n: int) -> Difference:
    """Compare two recipes on the same folds by the differences of their folds' scores.

    Args:
        a: The scores of the first recipe.
        b: Those of the second, on the same folds.
        metric: Which score.
        n: How many rows there are.

    Reference:
        Nadeau and Bengio 2003, Machine Learning 52:239-281: the corrected resampled t-test.
    """
    from scipy.special import stdtr, stdtrit

    bound = METRICS[metric].high - METRICS[metric].low
    value = _within(a.values[metric] - b.values[metric], bound)
    scores = np.subtract(a.scores[metric], b.scores[metric])
    error, df = corrected_error(scores, a.test_share), len(scores) - 1
    if error <= 1e-12 * max(abs(value), 1e-300):
        return _of_constant(value, len(np.unique(a.fold_of_row[0])), bound, n)
    name = f"{THIS_RECIPE} over {len(scores)} folds"

    def limits(confidence: float) -> Estimate:
        half = float(stdtrit(df, 0.5 + confidence / 2)) * error
        return Estimate(value, max(-bound, value - half), min(bound, value + half), name, confidence)

    p = max(2 * float(stdtr(df, -abs(value / error))), 1e-300)
    return Difference(PairedTest(name, value / error, p, df), limits, bound, n)


def of_shares(both: int, only_a: int, only_b: int, neither: int, *, method: str = "midp") -> Difference:
    """Compare two shares of the same plain rows: McNemar's test, and Tango's score interval."""
    n = both + only_a + only_b + neither
    return Difference(
        mcnemar(only_a, only_b, method=method),
        lambda confidence: paired_difference(
            both, only_a, only_b, neither, method="tango", confidence=confidence
        ),
        1.0,
        n,
        (only_a + only_b) / n,
    )


def _surer(a: ScoredRows, b: ScoredRows) -> str:
    more = a.entropy - b.entropy
    return surer_of((a.name, b.name), len(more), float(more.mean()), float(more.std()))


def surer_of(names: tuple[str, str], n: int, mean: float, deviation: float) -> str:
    """Return which of two models is surer of its answers; empty where neither is.

    Args:
        names: What the models are called.
        n: How many rows.
        mean: Of the differences of their entropies, the first minus the second.
        deviation: The standard deviation of these differences.
    """
    if abs(mean) * math.sqrt(n) <= _SURER * deviation:
        return ""
    return names[mean > 0]


def of_means(rows: Floats, bound: float, surer: str = "") -> Difference:
    """Compare two means of plain rows by Student's t of the differences.

    Differences of two like models are symmetric: plain t is right. Where one model is surer of its answers,
    few rows are very bad for it and many slightly good, and t errs on one side: its interval is then widened
    to that of a skewed mean.

    Args:
        rows: (n,) differences, a minus b.
        bound: How large a difference of a row can be.
        surer: Which model is surer of its answers; empty where neither is.
    """

    def skewed(confidence: float) -> Estimate:
        return mean_interval(rows, confidence=confidence, bounds=(-bound, bound))

    return of_mean(len(rows), float(rows.mean()), float(rows.std()), bound, surer, skewed)


def of_mean(n: int, mean: float, deviation: float, bound: float, surer: str, skewed: Limits) -> Difference:
    """Compare two means of plain rows as `of_means` does, from what the differences add up to.

    Args:
        n: How many rows.
        mean: Of the differences.
        deviation: The standard deviation of the differences: the root of their mean squared distance from it.
        bound: As for `of_means`.
        surer: As for `of_means`.
        skewed: The interval of a mean whose skewness is removed.
    """
    from scipy.special import stdtr, stdtrit

    value = _within(mean, bound)
    error = deviation / math.sqrt(max(n - 1, 1))
    if error <= 1e-12 * max(abs(value), 1e-300) or n == 1:
        return _of_constant(value, n, bound, n)

    def student(confidence: float) -> Estimate:
        half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
        return Estimate(
            value,
            max(-bound, value - half),
            min(bound, value + half),
            "Student's t of paired rows",
            confidence,
        )

    def wider(confidence: float) -> Estimate:
        plain, unskewed = student(confidence), skewed(confidence)
        method = f"wider of Student's t with and without skewness removed: {surer} is surer of its answers"
        if n < MANY_UNITS:
            method += f" (unreliable: only {times(n, 'row')})"
        return Estimate(
            value, min(plain.low, unskewed.low), max(plain.high, unskewed.high), method, confidence
        )

    t = value / error
    if surer:
        test = PairedTest("paired t, skewness considered", t, _inverted_p(wider), n - 1)
        return Difference(test, wider, bound, n)
    p = max(2 * float(stdtr(n - 1, -abs(t))), 1e-300)
    return Difference(PairedTest("paired t", t, p, n - 1), student, bound, n)


def _within(value: float, bound: float) -> float:
    """Return a difference without what rounding put it beyond the largest possible one."""
    return min(max(value, -bound), bound)


def _inverted_p(limits: Limits) -> float:
    """Return the smallest level at which the interval excludes 0."""

    def excludes_0(exponent: float) -> bool:
        found = limits(1 - 10**exponent)
        return found.low > 0 or found.high < 0

    low, high = math.log10(_SMALLEST_P), -1e-6
    if not excludes_0(high):
        return 1.0
    if excludes_0(low):
        return _SMALLEST_P
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if excludes_0(middle) else (middle, high)
    return float(10**high)


def _of_constant(value: float, units: float, bound: float, n: int) -> Difference:
    """Compare where every row differs by the same: by how many rows there may be that differ otherwise.

    Rows unseen are taken to differ as much the other way, which makes the test the sign test. Where no row
    differs at all they may differ by anything.
    """

    def limits(confidence: float) -> Estimate:
        unlike = 1 - ((1 - confidence) / 2) ** (1 / units)
        half = unlike * (2 * abs(value) if value else bound)
        method = f"Clopper-Pearson on {times(units, 'row')}: the differences do not vary"
        return Estimate(value, max(-bound, value - half), min(bound, value + half), method, confidence)

    p = min(1.0, max(2.0 * 0.5**units, 1e-300)) if value else 1.0
    return Difference(PairedTest("sign test", value, p), limits, bound, n)


def of_weighted_means(rows: Floats, bound: float, weights: Floats | None, settings: Settings) -> Difference:
    """Compare two means of rows with weights, or in groups: sign flips of whole units, and a score interval.

    A difference t is inside the interval where the sum S(t) of all units' w (d - t) is at most c times the
    root of the sum of their squares. The variance is that at t, as in Wilson's and Tango's interval: a single
    heavy unit, which pulls the mean to itself, does not look as if it varied little. With equal weights and
    no groups, c is such that the limits are Student's t.

    Args:
        rows: (n,) differences, a minus b.
        bound: How large a difference of a row can be.
        weights: (n,) weights, or None.
        settings: The groups and the seed.
    """
    from scipy.special import stdtrit

    n, groups = len(rows), settings.groups
    w = np.ones(n) if weights is None else weights
    place = np.arange(n) if groups is None else groups
    weight, moved = np.bincount(place, weights=w), np.bincount(place, weights=w * rows)
    units, value = effective_units(w, groups), _within(float(moved.sum() / weight.sum()), bound)
    what = "weighted rows" if groups is None else "groups"
    test = randomisation_test(
        w * rows, groups=groups, seed=settings.seed, n_resamples=_N_SWAPS, method="midp"
    )
    test = replace(test, method=f"sign flips of {what}, mid-p", statistic=value)
    if np.abs(moved - value * weight).max() <= 1e-12 * weight.max():  # every unit differs by the same
        return replace(_of_constant(value, units, bound, n), test=test)
    squares = (float(weight @ weight), float(weight @ moved), float(moved @ moved))

    def limits(confidence: float) -> Estimate:
        t = float(stdtrit(max(units - 1, 1e-3), 0.5 + confidence / 2))
        share = 1 / (1 + (units - 1) / t**2)  # c^2 / units
        low, high = _score_limits(float(weight.sum()), float(moved.sum()), squares, share * units)
        low, high = max(-bound, min(low, value)), min(bound, max(high, value))
        return Estimate(value, low, high, f"score interval of {what}, t", confidence)

    return Difference(test, limits, bound, n)


def _score_limits(
    weight: float, moved: float, squares: tuple[float, float, float], c: float
) -> tuple[float, float]:
    """Solve (moved - t weight)^2 = c (squares[2] - 2 t squares[1] + t^2 squares[0]) for t."""
    a = weight**2 - c * squares[0]
    half_b = moved * weight - c * squares[1]
    root = math.sqrt(max(half_b**2 - a * (moved**2 - c * squares[2]), 0.0))
    if not a > 1e-12 * weight**2:  # every difference is inside
        return -math.inf, math.inf
    return (half_b - root) / a, (half_b + root) / a


def of_rankings(a: ScoredRows, b: ScoredRows, settings: Settings) -> Difference:
    """Compare two AUCs by the influence that each row has on their difference: DeLong's, or linearised."""
    from scipy.special import stdtr, stdtrit

    found = [rows.ranking(settings) for rows in (a, b)]
    if found[0] is None or found[1] is None:
        raise ValueError(f"`metric` {settings.metric!r} needs rows of at least two classes; there is one.")
    n, smallest = len(a.correct), found[0].smallest
    value, moves = _within(found[0].value - found[1].value, 1.0), found[0].influence - found[1].influence
    variance, df, delongs = ranking_variance(
        settings.metric, a.codes("label") == 1, moves, settings.average, a.weights, settings.groups
    )
    if variance <= 1e-15 or (settings.average == "binary" and smallest < 2):
        return _of_ranking_without_variance(value, smallest, settings, n)
    name, error = f"{'DeLong' if delongs else 'linearised'}, paired, t", math.sqrt(variance)

    def limits(confidence: float) -> Estimate:
        half = float(stdtrit(df, 0.5 + confidence / 2)) * error
        return Estimate(value, max(-1.0, value - half), min(1.0, value + half), name, confidence)

    test = PairedTest(name, value / error, max(2 * float(stdtr(df, -abs(value / error))), 1e-300))
    return Difference(test, limits, 1.0, n)


def _of_ranking_without_variance(value: float, smallest: float, settings: Settings, n: int) -> Difference:
    """Compare two AUCs that no row moves (perfect against constant): how many rows may there be that do?"""
    what = times(smallest, "row" if settings.groups is None else "group")

    def limits(confidence: float) -> Estimate:
        unlike = 1 - ((1 - confidence) / 2) ** (1 / smallest)
        return Estimate(
            value,
            max(-1.0, value - unlike),
            min(1.0, value + unlike),
            f"Clopper-Pearson on {what}: no variance to see",
            confidence,
        )

    # The level at which `unlike` is as large as the difference.
    p = min(1.0, max(2 * max(1 - abs(value), 0.0) ** smallest, 1e-300))
    return Difference(PairedTest(f"Clopper-Pearson on {what}", value, p), limits, 1.0, n)


def of_counts(a: ScoredRows, b: ScoredRows, settings: Settings) -> Difference:
    """Compare a metric of the confusion matrix: approximate randomisation, and a paired bootstrap."""
    no_label = a.unlabelled or b.unlabelled
    classes = len(a.labels) + no_label
    coded = (a.codes("label"), a.codes("prediction"), b.codes("prediction"))
    paired: PairedCounts | PairedUnits = (
        PairedCounts.of_rows(*coded, classes)
        if a.weights is None and settings.groups is None
        else PairedUnits(triple_codes(*coded, classes), classes, a.weights, settings.groups)
    )
    return of_triples(paired, settings, len(a.labels), len(coded[0]), no_label=no_label)


def of_triples(
    paired: PairedCounts | PairedUnits, settings: Settings, classes: int, n: int, *, no_label: bool = False
) -> Difference:
    """Compare a metric of the confusion matrix as `of_counts` does, from counts of (label, a, b)."""
    score, bound = metric_of_counts(settings.metric, settings.average, classes, no_label=no_label)
    drawn = paired.bootstrap(score, bound, settings.n_resamples, settings.seed)
    test = paired.randomise(score, _N_SWAPS, settings.seed)
    return Difference(test, functools.cache(drawn.interval), bound, n)
