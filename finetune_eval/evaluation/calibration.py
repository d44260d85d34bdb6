"""Calibration: whether what is given a probability of 0.8 happens eight times in ten.

A calibration error is never 0 on finite rows, even for perfect probabilities: each one here stands beside
the level it would have by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval._text import Shown, p_value
from finetune_eval.evaluation._inputs import class_probabilities, row_weights
from finetune_eval.evaluation._reliability import Deviation, binned, debiased, deviation, error, simulated
from finetune_eval.evaluation.proportions import effective_wilson, wilson
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.temperature import apply_temperature, fit_temperature
from finetune_eval.evaluation.units import effective_units

__all__ = [
    "BrierParts",
    "Calibration",
    "ReliabilityBin",
    "apply_temperature",
    "brier_decomposition",
    "calibrate",
    "debiased_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "null_calibration_error",
]

Floats = NDArray[np.float64]
NORMS = ("l1", "l2", "max")
EVENTS = ("auto", "positive", "top")
BINS = 15  # Guo et al. 2017
_ALPHA = 0.05
_CONFIDENT = {1: "Over-confident", -1: "Under-confident", 0: "Miscalibrated"}


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of similar probability.

    Attributes:
        low: The smallest probability in the bin.
        high: The largest.
        n: How many rows.
        share: Their share of all rows (of all weight, where rows have weights).
        predicted: Their mean probability.
        observed: The share of them that came true, with its Wilson interval.
    """

    low: float
    high: float
    n: int
    share: float
    predicted: float
    observed: Estimate


@dataclass(frozen=True)
class BrierParts:
    """The Brier score, taken apart: brier = reliability - resolution + uncertainty + within.

    Attributes:
        brier: The Brier score; lower is better.
        reliability: How far the bins' probabilities are from what happened; 0 is perfect.
        resolution: How far what happened in the bins differs from the average; more is better.
        uncertainty: The Brier score of always saying how frequent each class is.
        within: What remains because probabilities differ inside a bin.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True)
class Calibration(Shown):
    """How far the probabilities can be taken at their word.

    Attributes:
        event: "positive" (the second of two classes comes true) or "top" (the predicted class is right).
        ece: Expected calibration error (l1) in equal-mass bins.
        debiased: The root mean squared error (l2) of the same bins, less what chance adds to its square.
        null: What `ece` would be on average if the probabilities were perfect.
        null_high: The 95th percentile of the same: perfect probabilities show more in one set of 20.
        brier: The Brier score and its parts.
        bins: The reliability data.
        deviation: The test whether the probabilities are perfect, and in which direction they are not.
        positive: What the second class is called; nothing where the event is "top".
    """

    event: str
    ece: float
    debiased: float
    null: float
    null_high: float
    brier: BrierParts
    bins: tuple[ReliabilityBin, ...]
    deviation: Deviation
    positive: str = "the second class"

    @property
    def predicted(self) -> float:
        """The mean probability of the event."""
        return sum(one.share * one.predicted for one in self.bins)

    @property
    def observed(self) -> float:
        """The share of the rows in which it came true."""
        return sum(one.share * one.observed.value for one in self.bins)

    @property
    def verdict(self) -> str:
        """Say in two sentences what the numbers mean."""
        level = (
            f"error {self.ece:.3f}; perfect probabilities would show {self.null:.3f} on average, and up to "
            f"{self.null_high:.3f} in 19 of 20 such sets."
        )
        found = self.deviation
        if found.p_value > _ALPHA:
            return f"No miscalibration detected: calibration {level}"
        word, details = self._positive() if self.event == "positive" else self._top()
        what = f"{'; '.join(details)} ({p_value(found.p_value)}). Calibration" if details else "calibration"
        return f"{word}: {what} {level}"

    def _positive(self) -> tuple[str, list[str]]:
        shift, spread = self.deviation.shift, self.deviation.spread
        details = []
        if spread:
            details.append(f"the probabilities are too {'near' if spread > 0 else 'far from'} 0 and 1")
        if shift:
            whose = "those" if spread else "the probabilities"
            details.append(
                f"{whose} of {self.positive} are too {'high' if shift > 0 else 'low'} on average, "
                f"{self.predicted:.3f} where {self.observed:.3f} came true"
            )
        return _CONFIDENT[spread], details

    def _top(self) -> tuple[str, list[str]]:
        shift, spread = self.deviation.shift, self.deviation.spread
        details = []
        if shift:
            details.append(
                f"the predicted class has a probability of {self.predicted:.3f} on average and is right in "
                f"{self.observed:.3f} of the rows"
            )
        if spread:
            high, low = ("high", "low") if spread > 0 else ("low", "high")
            details.append(f"high probabilities are too {high}, compared with the low ones")
        return _CONFIDENT[shift], details

    def __str__(self) -> str:
        lines = [self.verdict, f"{'probability':<16} {'rows':>8}  predicted  came true"]
        for one in self.bins:
            lines.append(
                f"{f'{one.low:.3f} to {one.high:.3f}':<16} {one.n:>8,}  {one.predicted:>9.3f}  {one.observed}"
            )
        return "\n".join(lines)


def _event(
    y_true: Any, probabilities: Any, event: str, sample_weight: Any = None
) -> tuple[Floats, Floats, Floats, str]:
    """Return what was forecast (n,), whether it happened (n,) and the weights of the rows, after checks."""
    _checks.one_of("event", event, EVENTS)
    y, p, weights = _weighted(y_true, probabilities, sample_weight)
    if event == "auto":
        event = "positive" if p.shape[1] == 2 else "top"
    if event == "positive":
        if p.shape[1] != 2:
            raise ValueError(f"`event` 'positive' needs two classes; got {p.shape[1]}. Use 'top'.")
        return p[:, 1].astype(np.float64), (y == 1).astype(np.float64), weights, event
    top = p.argmax(axis=1)
    return p[np.arange(len(p)), top].astype(np.float64), (top == y).astype(np.float64), weights, event


def _weighted(
    y_true: Any, probabilities: Any, sample_weight: Any
) -> tuple[NDArray[np.int64], NDArray[Any], Floats]:
    """Return the labels, probabilities and weights of the rows that have a weight, after checks."""
    y, p = class_probabilities(y_true, probabilities)
    if sample_weight is None:
        return y, p, np.ones(len(y))
    w = row_weights(sample_weight)
    _checks.same_length("y_true", y, "sample_weight", w)
    return y[w > 0], p[w > 0], w[w > 0]


def expected_calibration_error(
    y_true: Any,
    probabilities: Any,
    *,
    bins: int = BINS,
    norm: str = "l1",
    binning: str = "width",
    event: str = "auto",
    sample_weight: Any = None,
) -> float:
    """Compute the expected calibration error.

    Rows are put in bins by their probability p; in each bin the mean of p is held against the share of rows
    that came true. l1: sum of (rows in bin / n) |share - mean|; l2: the root of the sum of its squares; max:
    the largest of the gaps.

    Args:
        y_true: (n,) class indices.
        probabilities: (n,) or (n, 1) probabilities of the second of two classes, or (n, K).
        bins: How many bins.
        norm: "l1", "l2" or "max".
        binning: "width" (equal intervals of [0, 1]) or "mass" (equally many rows; equal p stay together).
        event: "positive": the probability of the second class against whether it is the true one; "top": the
            probability of the predicted class against whether it is right. "auto": "positive" for two
            classes, "top" for more. The two must not be mixed.
        sample_weight: (n,) weights of the rows, or None.

    Returns:
        The error, in [0, 1]. Compare it with `null_calibration_error`.

    Raises:
        ValueError: Labels or probabilities do not fit, or a name is unknown.

    Example:
        >>> expected_calibration_error([0, 0, 1, 1, 1], [0.25, 0.25, 0.55, 0.75, 0.75], bins=2)
        0.29...

    Reference:
        Naeini et al. 2015, AAAI; Guo et al. 2017, ICML; Kumar et al. 2019, NeurIPS (norms).
    """
    _checks.one_of("norm", norm, NORMS)
    forecast, happened, weights, _ = _event(y_true, probabilities, event, sample_weight)
    made = binned(forecast, happened, weights, bins, binning)
    return float(error(made.weights, made.gaps, norm))


def debiased_calibration_error(
    y_true: Any,
    probabilities: Any,
    *,
    bins: int = BINS,
    norm: str = "l2",
    binning: str = "mass",
    event: str = "auto",
) -> float:
    """Compute the calibration error less what chance alone adds to it.

    l2: from each squared gap its sampling variance a (1 - a) / (n_b - 1) is taken, a being the share that
    came true in the bin. l1: with a normal gap of mean g and variance s^2 = a (1 - a) / n_b, |g| is too large
    by s sqrt(2 / pi) exp(-g^2 / 2 s^2) - 2 |g| Phi(-|g| / s) on average, and that is taken; since g is itself
    too large, this takes too little of small errors, and l2 is the better one.

    Args:
        y_true: (n,) class indices.
        probabilities: (n,), (n, 1) or (n, K) probabilities.
        bins: How many bins.
        norm: "l2" or "l1".
        binning: "width" or "mass".
        event: "positive", "top" or "auto", as in `expected_calibration_error`.

    Returns:
        The error, in [0, 1]; 0 where chance alone would show more.

    Example:
        >>> y, p = [0, 0, 1, 1] * 50, [0.1, 0.4, 0.6, 0.9] * 50
        >>> round(expected_calibration_error(y, p, norm="l2"), 4), round(debiased_calibration_error(y, p), 4)
        (0.2915, 0.2915)

    Reference:
        Kumar et al. 2019, NeurIPS, section 4 (l2); the normal approximation for l1 is that of their software.
    """
    _checks.one_of("norm", norm, ("l1", "l2"))
    forecast, happened, weights, _ = _event(y_true, probabilities, event)
    return debiased(binned(forecast, happened, weights, bins, binning), norm)


def null_calibration_error(
    y_true: Any,
    probabilities: Any,
    *,
    bins: int = BINS,
    norm: str = "l1",
    binning: str = "mass",
    event: str = "auto",
    n_resamples: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Simulate the calibration errors that these rows would show if their probabilities were perfect.

    Args:
        y_true: (n,) class indices; only checked.
        probabilities: (n,), (n, 1) or (n, K) probabilities.
        bins: How many bins.
        norm: "l1", "l2" or "max".
        binning: "width" or "mass".
        event: "positive", "top" or "auto".
        n_resamples: How many simulations B.
        seed: Their seed.

    Returns:
        (B,) errors; their mean is the null level.

    Example:
        >>> p = np.linspace(0.5, 1, 200)
        >>> round(float(null_calibration_error(np.ones(200), p).mean()), 2)
        0.09

    Reference:
        Broecker and Smith 2007, Weather and Forecasting 22:651-661 (consistency resampling).
    """
    _checks.one_of("norm", norm, NORMS)
    n_resamples = _checks.positive_int("n_resamples", n_resamples)
    forecast, happened, weights, _ = _event(y_true, probabilities, event)
    made = binned(forecast, happened, weights, bins, binning)
    return error(made.weights, simulated(forecast, made, n_resamples, seed)[0], norm)


def brier_decomposition(
    y_true: Any, probabilities: Any, *, bins: int = BINS, binning: str = "mass", sample_weight: Any = None
) -> BrierParts:
    """Take the Brier score apart into reliability, resolution and uncertainty.

    Two classes: of the second one. More: the sum over the classes, each against the rest.

    Args:
        y_true: (n,) class indices.
        probabilities: (n,), (n, 1) or (n, K) probabilities.
        bins: How many bins.
        binning: "width" or "mass".
        sample_weight: (n,) weights of the rows, or None.

    Returns:
        The parts; brier = reliability - resolution + uncertainty + within, exactly.

    Example:
        >>> round(brier_decomposition([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3]).brier, 6)
        0.0375

    Reference:
        Murphy 1973, J. Appl. Meteorology 12:595-600; the term within bins: Stephenson et al. 2008, Weather
        and Forecasting 23:752-757.
    """
    y, p, weights = _weighted(y_true, probabilities, sample_weight)
    total = np.zeros(5)
    for k in [1] if p.shape[1] == 2 else range(p.shape[1]):
        forecast, happened = p[:, k].astype(np.float64), (y == k).astype(np.float64)
        made = binned(forecast, happened, weights, bins, binning)
        share, base = made.weights / weights.sum(), float(np.average(happened, weights=weights))
        brier = float(np.average((forecast - happened) ** 2, weights=weights))
        reliability = float((share * (made.predicted - made.observed) ** 2).sum())
        resolution = float((share * (made.observed - base) ** 2).sum())
        uncertainty = base * (1 - base)
        total += [
            brier,
            reliability,
            resolution,
            uncertainty,
            brier - (reliability - resolution + uncertainty),
        ]
    return BrierParts(*map(float, total))


def calibrate(
    y_true: Any,
    probabilities: Any,
    *,
    bins: int = BINS,
    event: str = "auto",
    confidence: float = 0.95,
    sample_weight: Any = None,
    n_resamples: int = 1000,
    seed: int = 0,
    positive: str = "the second class",
) -> Calibration:
    """Hold probabilities against what happened: in equal-mass bins, on average, and in their spread.

    The calibration error alone misses most of what is wrong on few rows: labels are drawn from the
    probabilities, and error, shift and spread are tested together against what is seen of such labels.

    Args:
        y_true: (n,) class indices.
        probabilities: (n,), (n, 1) or (n, K) probabilities.
        bins: How many bins; fewer where there are fewer than about five rows in each.
        event: "positive", "top" or "auto", as in `expected_calibration_error`.
        confidence: Nominal coverage of the bins' intervals.
        sample_weight: (n,) weights of the rows, or None. Everything is of the weighted rows then; intervals
            and the null level take the rows as drawn independently, weights and all.
        n_resamples: Simulations of the null level and of the test, which needs a hundred or more.
        seed: Their seed.
        positive: What to call the second class in the verdict.

    Returns:
        The calibration.

    Example:
        >>> y, p = [0, 0, 1, 1] * 50, [0.1, 0.4, 0.6, 0.9] * 50
        >>> print(calibrate(y, p).verdict)
        Under-confident: the probabilities are too far from 0 and 1 (p ...). Calibration error 0.250...

    Reference:
        Cox 1958, Biometrika 45:562-565 (shift and spread); Broecker and Smith 2007, Weather and Forecasting
        22:651-661 (labels drawn from the forecasts).
    """
    bins = _checks.positive_int("bins", bins)
    forecast, happened, weights, event = _event(y_true, probabilities, event, sample_weight)
    bins = max(1, min(bins, int(effective_units(weights, None) + 1e-9) // 5))
    made = binned(forecast, happened, weights, bins, "mass")
    gaps, scores = simulated(forecast, made, _checks.positive_int("n_resamples", n_resamples), seed)
    null = error(made.weights, gaps, "l1")
    lows, highs = np.full(len(made.n), np.inf), np.full(len(made.n), -np.inf)
    np.minimum.at(lows, made.place, forecast)
    np.maximum.at(highs, made.place, forecast)
    counts, hits = np.bincount(made.place), np.bincount(made.place, happened)

    def one_bin(b: int) -> ReliabilityBin:
        return ReliabilityBin(
            float(lows[b]),
            float(highs[b]),
            int(counts[b]),
            float(made.weights[b] / weights.sum()),
            float(made.predicted[b]),
            wilson(round(hits[b]), int(counts[b]), confidence=confidence)
            if sample_weight is None
            else effective_wilson(float(made.observed[b]), float(made.n[b]), confidence=confidence),
        )

    return Calibration(
        event=event,
        ece=float(error(made.weights, made.gaps, "l1")),
        debiased=debiased(made, "l2"),
        null=float(null.mean()),
        null_high=float(np.quantile(null, 0.95)),
        brier=brier_decomposition(y_true, probabilities, bins=bins, sample_weight=sample_weight),
        bins=tuple(map(one_bin, range(len(counts)))),
        deviation=deviation(forecast, happened, made, gaps, scores),
        positive=positive if event == "positive" else "",
    )
