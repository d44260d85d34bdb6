"""Whether a probability of 0.8 comes true eight times in ten.

A calibration error is never 0 on finite rows, even for perfect probabilities: each one here stands beside
the level it would have by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._inputs import class_probabilities, row_weights
from finetune_eval.evaluation.intervals import Estimate, effective_units, effective_wilson, wilson

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
BINNINGS = ("width", "mass")
EVENTS = ("auto", "positive", "top")
BINS = 15  # Guo et al. 2017
# Rows times resamples above which the hits of a bin are drawn as one normal number and not row by row.
_MANY_DRAWS = 20_000_000
# Temperatures beyond these change nothing that can be seen, and come of rows that are all right or all wrong.
TEMPERATURES = (0.05, 20.0)


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
class Calibration:
    """How far the probabilities can be taken at their word.

    Attributes:
        event: "positive" (the second of two classes comes true) or "top" (the predicted class is right).
        ece: Expected calibration error (l1) in equal-mass bins.
        debiased: The root mean squared error (l2) of the same bins, less what chance adds to its square.
        null: What `ece` would be on average if the probabilities were perfect.
        null_high: The 95th percentile of the same.
        brier: The Brier score and its parts.
        bins: The reliability data.
    """

    event: str
    ece: float
    debiased: float
    null: float
    null_high: float
    brier: BrierParts
    bins: tuple[ReliabilityBin, ...]

    @property
    def verdict(self) -> str:
        """Say in one sentence what the numbers mean."""
        level = (
            f"calibration error {self.ece:.3f}; perfect probabilities would show {self.null:.3f} on average"
        )
        if self.ece <= self.null_high:
            return f"No miscalibration detected: {level} and up to {self.null_high:.3f} by chance."
        gap = sum(one.share * (one.predicted - one.observed.value) for one in self.bins)
        if self.event == "top" and abs(gap) > self.ece / 2:
            word = "Over-confident" if gap > 0 else "Under-confident"
        else:
            word = "Miscalibrated"
        return f"{word}: {level}, at most {self.null_high:.3f}."

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


def _bin_of(forecast: Floats, weights: Floats, bins: int, binning: str) -> NDArray[np.int64]:
    """Number the bins from 0: [low, high), the last one closed; equal probabilities stay together."""
    if binning == "width":
        # Edges as torchmetrics and scikit-learn make them, so that a probability on an edge falls as there.
        place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], forecast, side="right")
    else:
        at = np.linspace(0, 1, bins + 1)[1:-1]
        equal = bool((weights == weights[0]).all())
        edges = (
            np.quantile(forecast, at)
            if equal
            else np.quantile(forecast, at, weights=weights, method="inverted_cdf")
        )
        place = np.searchsorted(np.unique(edges), forecast, side="right")
    return np.asarray(np.unique(place, return_inverse=True)[1], dtype=np.int64)


@dataclass(frozen=True)
class _Binned:
    n: Floats  # rows, by Kish's effective number
    weights: Floats  # of the rows in each bin, summed
    predicted: Floats  # mean forecast
    observed: Floats  # share that happened
    variance: Floats  # of the share that happens, were the forecasts perfect
    place: NDArray[np.int64]
    row_weights: Floats

    @property
    def gaps(self) -> Floats:
        return self.observed - self.predicted


def _binned(forecast: Floats, happened: Floats, weights: Floats, bins: int, binning: str) -> _Binned:
    _checks.one_of("binning", binning, BINNINGS)
    place = _bin_of(forecast, weights, _checks.positive_int("bins", bins), binning)

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(place, values), dtype=np.float64)

    total, squares = sums(weights), sums(weights**2)
    return _Binned(
        total**2 / squares,
        total,
        sums(weights * forecast) / total,
        sums(weights * happened) / total,
        sums(weights**2 * forecast * (1 - forecast)) / total**2,
        place,
        weights,
    )


def _error(weights: Floats, gaps: Floats, norm: str) -> Floats:
    """Return the norm of (..., bins) gaps, weighted by the rows in each bin."""
    share = weights / weights.sum()
    if norm == "l1":
        return np.asarray((share * np.abs(gaps)).sum(axis=-1))
    if norm == "l2":
        return np.asarray(np.sqrt((share * gaps**2).sum(axis=-1)))
    return np.asarray(np.abs(gaps).max(axis=-1))


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
    binned = _binned(forecast, happened, weights, bins, binning)
    return float(_error(binned.weights, binned.gaps, norm))


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
    return _debiased(_binned(forecast, happened, weights, bins, binning), norm)


def _debiased(binned: _Binned, norm: str) -> float:
    gaps = np.abs(binned.gaps)
    spread = binned.observed * (1 - binned.observed)
    share = binned.weights / binned.weights.sum()
    if norm == "l2":
        # A bin of one row tells nothing of its variance; its squared gap is all noise at worst.
        noise = np.divide(spread, binned.n - 1, out=gaps**2, where=binned.n > 1 + 1e-9)
        return math.sqrt(max(0.0, float((share * (gaps**2 - noise)).sum())))
    from scipy.special import ndtr

    sd = np.sqrt(spread / binned.n)
    safe = np.where(sd > 0, sd, 1.0)
    bias = sd * math.sqrt(2 / math.pi) * np.exp(-((gaps / safe) ** 2) / 2) - 2 * gaps * ndtr(-gaps / safe)
    return max(0.0, float((share * (gaps - np.where(sd > 0, bias, 0.0))).sum()))


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
    return _null(forecast, _binned(forecast, happened, weights, bins, binning), norm, n_resamples, seed)


def _null(forecast: Floats, binned: _Binned, norm: str, n_resamples: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    size = len(binned.n)
    if len(forecast) * n_resamples > _MANY_DRAWS:
        noise = random.normal(size=(n_resamples, size)) * np.sqrt(binned.variance)
        return _error(binned.weights, noise, norm)
    gaps = np.empty((n_resamples, size))
    for i in range(n_resamples):
        happened = (random.random(len(forecast)) < forecast) * binned.row_weights
        gaps[i] = np.bincount(binned.place, happened, size) / binned.weights - binned.predicted
    return _error(binned.weights, gaps, norm)


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
        binned = _binned(forecast, happened, weights, bins, binning)
        share, base = binned.weights / weights.sum(), float(np.average(happened, weights=weights))
        brier = float(np.average((forecast - happened) ** 2, weights=weights))
        reliability = float((share * (binned.predicted - binned.observed) ** 2).sum())
        resolution = float((share * (binned.observed - base) ** 2).sum())
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
) -> Calibration:
    """Hold probabilities against what happened, in equal-mass bins.

    Args:
        y_true: (n,) class indices.
        probabilities: (n,), (n, 1) or (n, K) probabilities.
        bins: How many bins; fewer where there are fewer than about five rows in each.
        event: "positive", "top" or "auto", as in `expected_calibration_error`.
        confidence: Nominal coverage of the bins' intervals.
        sample_weight: (n,) weights of the rows, or None. Everything is of the weighted rows then; intervals
            and the null level take the rows as drawn independently, weights and all.
        n_resamples: Simulations of the null level.
        seed: Their seed.

    Returns:
        The calibration.

    Example:
        >>> y, p = [0, 0, 1, 1] * 50, [0.1, 0.4, 0.6, 0.9] * 50
        >>> print(calibrate(y, p).verdict)
        Miscalibrated: calibration error 0.250; perfect probabilities would show 0.044 on average, at most ...
    """
    bins = _checks.positive_int("bins", bins)
    forecast, happened, weights, event = _event(y_true, probabilities, event, sample_weight)
    bins = max(1, min(bins, int(effective_units(weights, None) + 1e-9) // 5))
    binned = _binned(forecast, happened, weights, bins, "mass")
    null = _null(forecast, binned, "l1", _checks.positive_int("n_resamples", n_resamples), seed)
    lows, highs = np.full(len(binned.n), np.inf), np.full(len(binned.n), -np.inf)
    np.minimum.at(lows, binned.place, forecast)
    np.maximum.at(highs, binned.place, forecast)
    counts, hits = np.bincount(binned.place), np.bincount(binned.place, happened)

    def one_bin(b: int) -> ReliabilityBin:
        return ReliabilityBin(
            float(lows[b]),
            float(highs[b]),
            int(counts[b]),
            float(binned.weights[b] / weights.sum()),
            float(binned.predicted[b]),
            wilson(round(hits[b]), int(counts[b]), confidence=confidence)
            if sample_weight is None
            else effective_wilson(float(binned.observed[b]), float(binned.n[b]), confidence=confidence),
        )

    return Calibration(
        event=event,
        ece=float(_error(binned.weights, binned.gaps, "l1")),
        debiased=_debiased(binned, "l2"),
        null=float(null.mean()),
        null_high=float(np.quantile(null, 0.95)),
        brier=brier_decomposition(y_true, probabilities, bins=bins, sample_weight=sample_weight),
        bins=tuple(map(one_bin, range(len(counts)))),
    )


def fit_temperature(y_true: Any, probabilities: Any) -> float:
    """Find the temperature that makes probabilities fit best; do it on validation rows, never on test rows.

    The log-probabilities are the logits z; the T with the smallest log-loss of softmax(z / T) is found. That
    loss is convex in 1 / T, so there is one.

    Args:
        y_true: (n,) class indices of validation rows.
        probabilities: (n,), (n, 1) or (n, K) probabilities of the same rows.

    Returns:
        T; above 1 the model was over-confident. Between 0.05 and 20: the ends are reached where every row is
        right, or none.

    Raises:
        ValueError: Labels or probabilities do not fit.

    Example:
        >>> round(fit_temperature([0, 1, 1, 0, 1], [0.01, 0.99, 0.99, 0.99, 0.99]), 2)
        3.31

    Reference:
        Guo et al. 2017, ICML, section 4.2.
    """
    from scipy.optimize import brentq

    y, p = class_probabilities(y_true, probabilities)
    logits = _log(p)
    right = logits[np.arange(len(y)), y]

    def slope(inverse: float) -> float:
        """Derivative of the mean log-loss by 1 / T: the expected logit less that of the true class."""
        powers = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
        return float(((powers * logits).sum(axis=1) / powers.sum(axis=1) - right).mean())

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return float(1 / brentq(slope, low, high, xtol=1e-10))


def apply_temperature(probabilities: Any, temperature: float) -> NDArray[np.float64]:
    """Soften (above 1) or sharpen (below 1) probabilities: softmax(log(p) / T); the order stays.

    Args:
        probabilities: (n,), (n, 1) or (n, K) probabilities; one column is that of the second of two classes.
        temperature: T, above 0.

    Returns:
        (n, K) probabilities; (n, 2) where one column was given.

    Example:
        >>> apply_temperature([[0.9, 0.1]], 2.0).round(3).tolist()
        [[0.75, 0.25]]
    """
    temperature = _checks.number("temperature", temperature, above=0)
    _, p = class_probabilities(None, probabilities)
    from finetune_eval.evaluation._outputs import softmax

    return softmax(_log(p) / temperature)


def _log(p: NDArray[Any]) -> Floats:
    """Return log-probabilities; 0 counts as the smallest normal float32."""
    from finetune_eval.evaluation.metrics import SMALLEST_PROBABILITY

    return np.asarray(np.log(np.maximum(p.astype(np.float64), SMALLEST_PROBABILITY)))
