"""Calibration: whether what is given a probability of 0.8 happens eight times in ten.

A calibration error is never 0 on finite rows, even for perfect probabilities: each one here stands beside
the level it would have by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._calibration_records import BrierParts, Calibration, ReliabilityBin
from finetune_eval.evaluation._inputs import class_probabilities, row_weights
from finetune_eval.evaluation._reliability import (
    binned,
    debiased,
    deviation,
    drawn_row_by_row,
    error,
    simulated,
)
from finetune_eval.evaluation.proportions import effective_wilson, wilson
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
    columns = [
        (p[:, k].astype(np.float64), (y == k).astype(np.float64), weights)
        for k in ([1] if p.shape[1] == 2 else range(p.shape[1]))
    ]
    brier = sum(float(np.average((forecast - happened) ** 2, weights=w)) for forecast, happened, w in columns)
    return brier_parts(columns, brier, bins=bins, binning=binning)


def brier_parts(
    columns: Sequence[tuple[Floats, Floats, Floats]], brier: float, *, bins: int = BINS, binning: str = "mass"
) -> BrierParts:
    """Take a Brier score apart that is the sum of those of several columns of forecasts.

    Args:
        columns: Of each: (n,) forecasts, whether they happened, and weights (or counts of
            rows).
        brier: The score.
        bins: How many bins.
        binning: "width" or "mass".
    """
    total = np.zeros(3)
    for forecast, happened, weights in columns:
        made = binned(forecast, happened, weights, bins, binning)
        share, base = made.weights / weights.sum(), float(np.average(happened, weights=weights))
        total += [
            float((share * (made.predicted - made.observed) ** 2).sum()),
            float((share * (made.observed - base) ** 2).sum()),
            base * (1 - base),
        ]
    reliability, resolution, uncertainty = map(float, total)
    within = brier - (reliability - resolution + uncertainty)
    return BrierParts(brier, reliability, resolution, uncertainty, within)


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
        Under-confident: the probabilities are not near enough to 0 and 1 (p ...). Calibration error ...

    Reference:
        Cox 1958, Biometrika 45:562-565 (shift and spread); Broecker and Smith 2007, Weather and Forecasting
        22:651-661 (labels drawn from the forecasts).
    """
    bins = _checks.positive_int("bins", bins)
    forecast, happened, weights, event = _event(y_true, probabilities, event, sample_weight)
    bins = bins_of(bins, effective_units(weights, None))
    return of_forecasts(
        Forecasts(forecast, happened, weights, forecast, forecast),
        event,
        brier_decomposition(y_true, probabilities, bins=bins, sample_weight=sample_weight),
        bins=bins,
        confidence=confidence,
        weighted=sample_weight is not None,
        n_resamples=_checks.positive_int("n_resamples", n_resamples),
        seed=seed,
        positive=positive,
    )


def bins_of(bins: int, rows: float) -> int:
    """Return how many bins to use: fewer where there are fewer than about five rows in each."""
    return max(1, min(bins, int(rows + 1e-9) // 5))


class Forecasts(NamedTuple):
    """Forecasts and what became of them; an entry may stand for many rows of nearly the same forecast.

    Attributes:
        forecast: (m,) probability of the event, or the mean of those that the entry stands for.
        happened: (m,) whether it came true, 0 or 1.
        weights: (m,) of each row, or how many rows the entry stands for.
        low: (m,) the smallest probability of an entry.
        high: (m,) the largest.
        counted: Whether `weights` are numbers of rows.
    """

    forecast: Floats
    happened: Floats
    weights: Floats
    low: Floats
    high: Floats
    counted: bool = False

    def one_a_row(self) -> Forecasts:
        """Return counted entries as rows of weight 1."""
        rows = np.repeat(np.arange(len(self.weights)), self.weights.astype(np.int64))
        parts = (part[rows] for part in (self.forecast, self.happened, self.low, self.high))
        forecast, happened, low, high = parts
        return Forecasts(forecast, happened, np.ones(len(rows)), low, high)


def of_forecasts(
    given: Forecasts,
    event: str,
    brier: BrierParts,
    *,
    bins: int,
    confidence: float,
    weighted: bool,
    n_resamples: int = 1000,
    seed: int = 0,
    positive: str = "the second class",
) -> Calibration:
    """Return the `calibrate` of forecasts that were read already.

    Args:
        given: The forecasts, and what happened.
        event: "positive" or "top".
        brier: The parts of the Brier score.
        bins: As `bins_of` has it.
        confidence: As in `calibrate`.
        weighted: Whether the rows have weights.
        n_resamples: As in `calibrate`.
        seed: As in `calibrate`.
        positive: As in `calibrate`.
    """
    if given.counted and drawn_row_by_row(int(given.weights.sum()), n_resamples):
        given = given.one_a_row()
    forecast, happened, weights, low, high, counted = given
    made = binned(forecast, happened, weights, bins, "mass", counted=counted)
    gaps, scores = simulated(forecast, made, n_resamples, seed)
    null = error(made.weights, gaps, "l1")
    lows, highs = np.full(len(made.n), np.inf), np.full(len(made.n), -np.inf)
    np.minimum.at(lows, made.place, low)
    np.maximum.at(highs, made.place, high)
    rows = weights if counted else np.ones(len(weights))
    counts, hits = np.bincount(made.place, rows), np.bincount(made.place, happened * rows)

    def one_bin(b: int) -> ReliabilityBin:
        return ReliabilityBin(
            float(lows[b]),
            float(highs[b]),
            int(counts[b]),
            float(made.weights[b] / weights.sum()),
            float(made.predicted[b]),
            wilson(round(hits[b]), int(counts[b]), confidence=confidence)
            if not weighted
            else effective_wilson(float(made.observed[b]), float(made.n[b]), confidence=confidence),
        )

    return Calibration(
        event=event,
        ece=float(error(made.weights, made.gaps, "l1")),
        debiased=debiased(made, "l2"),
        null=float(null.mean()),
        null_high=float(np.quantile(null, 0.95)),
        brier=brier,
        bins=tuple(map(one_bin, range(len(counts)))),
        deviation=deviation(forecast, happened, made, gaps, scores),
        positive=positive if event == "positive" else "",
    )
