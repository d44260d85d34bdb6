"""Probabilities counted in bins of log-odds: what a ranking and a calibration need of a billion rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.calibration import Forecasts
from finetune_eval.evaluation.precision_bias import average_precision_bias
from finetune_eval.evaluation.rankings import (
    Ranking,
    auc_influence,
    average_precision_influence,
    delong_variance,
    estimate_area,
    shows_variance,
)
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.units import freedom_and_carried

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_BINS = 2**16
_FEWEST_BINS = 2**10
_ALL_BINS = 2**19  # of all classes together: about 20 MB
_GRAIN = 2.0**31  # probabilities are added up as whole numbers of 2**-31
MOST_ROWS = 2**32  # so many times 2**31 fit into 64 bits


def bins_for(classes: int) -> int:
    """Return how many bins each class gets: fewer where there are many classes."""
    return int(min(MOST_BINS, max(_FEWEST_BINS, 2 ** int(math.log2(_ALL_BINS / classes)))))


class Histogram:
    """Rows by the probability of an event and whether it came true.

    The bin of a probability p is the whole part of bins x r / (1 + r), where r is the fourth root of the odds
    p / (1 - p). The bins are narrow where the log-odds of a classifier mostly are: of 65,536 bins one is
    0.00024 wide at p = 0.5 and 0.00095 wide at p = 0.99997, in log-odds.

    Attributes:
        rows: (2, bins) how many rows; first those whose event did not happen.
        mass: (bins,) the sum of the probabilities, in units of 2**-31.
        low: (bins,) the smallest probability of each bin; infinite where it is empty.
        high: (bins,) the largest.
    """

    __slots__ = ("high", "low", "mass", "rows")

    def __init__(self, bins: int) -> None:
        self.rows: Counts = np.zeros((2, bins), dtype=np.int64)
        self.mass: Counts = np.zeros(bins, dtype=np.int64)
        self.low: Floats = np.full(bins, np.inf)
        self.high: Floats = np.full(bins, -np.inf)

    def count(self, p: Floats, happened: NDArray[np.bool_]) -> None:
        """Count (n,) rows."""
        bins = len(self.mass)
        of_event, of_rest = np.sqrt(np.sqrt(p)), np.sqrt(np.sqrt(1 - p))
        place = np.minimum((of_event / (of_event + of_rest) * bins).astype(np.int64), bins - 1)
        self.rows += np.bincount(place + bins * happened, minlength=2 * bins).reshape(2, bins)
        # Sums of whole numbers below 2**53, so that no order of the rows changes them.
        self.mass += np.bincount(place, np.rint(p * _GRAIN), bins).astype(np.int64)
        np.minimum.at(self.low, place, p)
        np.maximum.at(self.high, place, p)

    def add(self, other: Histogram) -> None:
        """Add the rows of another histogram."""
        self.rows += other.rows
        self.mass += other.mass
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)

    def forecasts(self) -> Forecasts:
        """Return an entry for each bin and outcome that has rows, with the mean probability of the bin."""
        full = np.flatnonzero(self.rows.sum(axis=0))
        low, high = self.low[full], self.high[full]
        mean = np.clip(self.mass[full] / _GRAIN / self.rows[:, full].sum(axis=0), low, high)
        happened, place = np.nonzero(self.rows[:, full])
        return Forecasts(
            mean[place],
            happened.astype(np.float64),
            self.rows[:, full][happened, place].astype(np.float64),
            low[place],
            high[place],
            counted=True,
        )


class _Area(NamedTuple):
    """The area of one class against the rest.

    Attributes:
        value: Rows of a bin are taken to be tied.
        low: The smallest area that rows in these bins can have.
        high: The largest.
        variance: Of the area.
        freedom: Degrees of freedom of the variance.
        carried: How many rows make the variance up.
        sides: Rows of the class, and of the rest.
        bias: By how much a PR-AUC is too high because each positive row counts itself.
    """

    value: float
    low: float
    high: float
    variance: float
    freedom: float
    carried: float
    sides: tuple[int, int]
    bias: float


def area_of(name: str, classes: list[Histogram], *, confidence: float) -> Estimate | None:
    """Estimate ROC-AUC or PR-AUC of the second of two classes, or the mean over more, from histograms.

    Args:
        name: "roc_auc" or "pr_auc".
        classes: One histogram of two classes, that of the second; else one for each class.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The estimate, whose limits are moved apart by what the bins leave open; None where no class has both
        rows and others. Of more than two classes the standard error is the mean of those of the classes: it
        is never less than that of their mean.
    """
    binary = len(classes) == 1
    found = [area for one in classes if (area := _area(name, one, delong=binary)) is not None]
    if not found:
        return None
    value, low, high, bias = (
        float(np.mean([getattr(area, part) for area in found])) for part in ("value", "low", "high", "bias")
    )
    smallest = float(min(min(area.sides) for area in found))
    variance = float(np.mean([np.sqrt(area.variance) for area in found])) ** 2
    if binary and smallest < 2:
        variance = 0.0
    made = estimate_area(
        name,
        Ranking(value, np.empty(0), smallest, len(found), len(classes)),
        "binary" if binary else "macro",
        variance,
        (min(area.freedom for area in found), min(area.carried for area in found)),
        sides=found[0].sides if binary and name == "roc_auc" else None,
        bias=0.0 if binary else bias,
        confidence=confidence,
    )
    method = made.method
    if not binary and shows_variance(value, variance):
        method += ", as if all classes erred on the same rows (conservative)"
    bins = len(classes[0].mass)
    if high - low > 5e-8:
        method += f"; counted in {bins:,} bins of log-odds, of rows between {low:.7g} and {high:.7g}"
    else:
        method += f"; counted in {bins:,} bins of log-odds, which lose nothing here"
    return Estimate(
        value,
        max(0.0, min(made.low - (value - low), value)),
        min(1.0, max(made.high + (high - value), value)),
        method,
        confidence,
    )


def _area(name: str, histogram: Histogram, *, delong: bool) -> _Area | None:
    negatives, positives = (int(side) for side in histogram.rows.sum(axis=1))
    if not positives or not negatives:
        return None
    bins = len(histogram.mass)
    place, outcome = np.tile(np.arange(bins), 2), np.repeat([False, True], bins)
    rows = histogram.rows.ravel()
    full = np.flatnonzero(rows)
    positive, scores, counts = outcome[full], place[full].astype(np.float64), rows[full].astype(np.float64)
    function = auc_influence if name == "roc_auc" else average_precision_influence
    value, moves = function(positive, scores, counts)
    each = moves / counts
    if delong and name == "roc_auc":
        variance, freedom = delong_variance(positive, each, counts)
    else:
        n = positives + negatives
        variance, freedom = float(each**2 @ counts) * n / (n - 1), np.inf
    freedom, carried = freedom_and_carried(each, freedom, counts)
    low, high = _bracket(name, histogram)
    bias = 0.0
    if name == "pr_auc":
        bias = max(average_precision_bias(positive, scores, counts=counts), 0.0)
    return _Area(
        value,
        min(low, value),
        max(high, value),
        variance,
        freedom,
        carried,
        (positives, negatives),
        bias,
    )


def _bracket(name: str, histogram: Histogram) -> tuple[float, float]:
    """Return the smallest and the largest area that the rows can have, whatever their order in the bins."""
    from scipy.special import digamma

    full = np.flatnonzero(histogram.rows.sum(axis=0))[::-1]  # the highest probabilities first
    negative, positive = histogram.rows[:, full].astype(np.float64)
    known = histogram.low[full] == histogram.high[full]  # all rows of the bin have the same probability
    if name == "roc_auc":
        above = np.cumsum(negative) - negative
        sure = float((positive * (negative.sum() - above - negative)).sum())
        tied = positive * negative
        pairs = positive.sum() * negative.sum()
        low = (sure + float((tied * np.where(known, 0.5, 0.0)).sum())) / pairs
        return low, (sure + float((tied * np.where(known, 0.5, 1.0)).sum())) / pairs
    hits, alarms = np.cumsum(positive) - positive, np.cumsum(negative) - negative

    def first(passed: Floats) -> Floats:
        """Sum the precisions of the bin's positive rows, one after the other, below `passed` negatives."""
        start = hits + passed
        return np.asarray(positive - passed * (digamma(start + positive + 1) - digamma(start + 1)))

    tied = positive * (hits + positive) / (hits + positive + alarms + negative)
    total = positive.sum()
    low = float(np.where(known, tied, np.minimum(first(alarms + negative), tied)).sum()) / total
    return low, float(np.where(known, tied, np.maximum(first(alarms), tied)).sum()) / total
