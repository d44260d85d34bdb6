"""Bins of probabilities, the error in them, and what perfect probabilities would show on the same rows.

Whether rows come true as often as their probabilities say is tested by simulation: labels are drawn from the
probabilities themselves, so that the level holds for few rows, rare classes and tied probabilities alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks

Floats = NDArray[np.float64]
BINNINGS = ("width", "mass")
# Rows times simulations above which sums over rows are drawn as normal numbers and not row by row.
_MANY_DRAWS = 20_000_000
_CHUNK = 1_000_000  # rows times simulations held in memory at a time
_SMALLEST = 2.0**-40  # a probability nearer to 0 or 1 counts as this far from it: its log-odds are 28 or less
_ALPHA = 0.05


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
class Binned:
    """Rows in bins of like forecasts."""

    n: Floats  # rows, by Kish's effective number
    weights: Floats  # of the rows in each bin, summed
    predicted: Floats  # mean forecast
    observed: Floats  # share that happened
    variance: Floats  # of the share that happens, were the forecasts perfect
    place: NDArray[np.int64]
    row_weights: Floats
    row_squares: Floats  # of the weights; of an entry that stands for many rows: their sum
    rows: int

    @property
    def gaps(self) -> Floats:
        """Share that happened less mean forecast."""
        return self.observed - self.predicted


def binned(
    forecast: Floats,
    happened: Floats,
    weights: Floats,
    bins: int,
    binning: str,
    *,
    counted: bool = False,
) -> Binned:
    """Put (n,) forecasts into bins and compare each bin with what happened there.

    Args:
        forecast: (n,) probabilities.
        happened: (n,) zeros and ones.
        weights: (n,) of the rows.
        bins: How many bins.
        binning: "width" or "mass".
        counted: Whether the weights are numbers of rows that are alike, each of them of weight 1.
    """
    _checks.one_of("binning", binning, BINNINGS)
    place = _bin_of(forecast, weights, _checks.positive_int("bins", bins), binning)

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(place, values), dtype=np.float64)

    each = weights if counted else weights**2
    total = sums(weights)
    return Binned(
        total**2 / sums(each),
        total,
        sums(weights * forecast) / total,
        sums(weights * happened) / total,
        sums(each * forecast * (1 - forecast)) / total**2,
        place,
        weights,
        each,
        int(weights.sum()) if counted else len(weights),
    )


def error(weights: Floats, gaps: Floats, norm: str) -> Floats:
    """Return the norm of (..., bins) gaps, weighted by the rows in each bin."""
    share = weights / weights.sum()
    if norm == "l1":
        return np.asarray((share * np.abs(gaps)).sum(axis=-1))
    if norm == "l2":
        return np.asarray(np.sqrt((share * gaps**2).sum(axis=-1)))
    return np.asarray(np.abs(gaps).max(axis=-1))


def debiased(bins: Binned, norm: str) -> float:
    """Return the error less what chance alone adds to it, never below 0."""
    gaps = np.abs(bins.gaps)
    spread = bins.observed * (1 - bins.observed)
    share = bins.weights / bins.weights.sum()
    if norm == "l2":
        # A bin of one row tells nothing of its variance; its squared gap is all noise at worst.
        noise = np.divide(spread, bins.n - 1, out=gaps**2, where=bins.n > 1 + 1e-9)
        return math.sqrt(max(0.0, float((share * (gaps**2 - noise)).sum())))
    from scipy.special import ndtr

    sd = np.sqrt(spread / bins.n)
    safe = np.where(sd > 0, sd, 1.0)
    bias = sd * math.sqrt(2 / math.pi) * np.exp(-((gaps / safe) ** 2) / 2) - 2 * gaps * ndtr(-gaps / safe)
    return max(0.0, float((share * (gaps - np.where(sd > 0, bias, 0.0))).sum()))


def _centred_log_odds(forecast: Floats, squares: Floats) -> Floats:
    """Return the log-odds of the forecasts, less their mean by the variance that each row adds."""
    inside = np.clip(forecast, _SMALLEST, 1 - _SMALLEST)
    odds = np.log(inside / (1 - inside))
    variance = squares * forecast * (1 - forecast)
    return np.asarray(odds - np.average(odds, weights=variance if variance.sum() > 0 else None))


def drawn_row_by_row(rows: int, n_resamples: int) -> bool:
    """Return whether `simulated` draws a label for each row, and not the sums over rows as normal numbers."""
    return rows * n_resamples <= _MANY_DRAWS


def simulated(forecast: Floats, bins: Binned, n_resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Draw labels from the forecasts, and return what is then seen of them.

    Returns:
        (B, bins) gaps of the bins, and (B, 2) sums over the rows: of residual times weight (the score of a
        shift), and of that times the centred log-odds (the score of a spread).
    """
    random = np.random.default_rng(seed)
    weights, odds = bins.row_weights, _centred_log_odds(forecast, bins.row_squares)
    rows, size = bins.rows, len(bins.n)
    if not drawn_row_by_row(rows, n_resamples):
        variance = bins.row_squares * forecast * (1 - forecast)
        gaps = random.normal(size=(n_resamples, size)) * np.sqrt(bins.variance)
        scores = random.normal(size=(n_resamples, 2)) * np.sqrt([variance.sum(), (variance * odds**2).sum()])
        return gaps, scores
    order = np.argsort(bins.place, kind="stable")
    forecast, weights, odds = forecast[order], weights[order], odds[order]
    begin = np.searchsorted(bins.place[order], np.arange(size))
    inside, spread = np.empty((n_resamples, size)), np.empty(n_resamples)
    step = max(1, _CHUNK // rows)
    for start in range(0, n_resamples, step):
        end = min(start + step, n_resamples)
        residual = ((random.random((end - start, rows)) < forecast) - forecast) * weights
        inside[start:end] = np.add.reduceat(residual, begin, axis=1)
        # Not `@`, which wakes the threads of BLAS for a millisecond's work.
        spread[start:end] = np.einsum("ij,j->i", residual, odds)
    return inside / bins.weights, np.column_stack([inside.sum(axis=1), spread])


@dataclass(frozen=True)
class Deviation:
    """How forecasts deviate from what happened.

    Attributes:
        p_value: Of the joint test of error, shift and spread: the share of sets with perfect forecasts in
            which one of the three is as rare as here.
        shift: Whether the mean forecast is above (1) or below (-1) what happened, or neither (0), by itself.
        spread: Whether the forecasts are too far apart (1), too near to each other (-1) or neither (0).
    """

    p_value: float
    shift: int
    spread: int


def deviation(forecast: Floats, happened: Floats, bins: Binned, gaps: Floats, scores: Floats) -> Deviation:
    """Test whether what happened fits the forecasts: in the error of the bins, on average, in their spread.

    The scores are those of Cox's model logit P(happened) = a + b logit(forecast) at a = 0 and b = 1, that of
    b free of that of a. Of the three p-values the smallest counts, held against the smallest of each
    simulated set, so that the level is that of one test.

    Args:
        forecast: (n,) in [0, 1].
        happened: (n,) zeros and ones.
        bins: The rows in bins.
        gaps: (B, bins) of `simulated`.
        scores: (B, 2) of `simulated`.

    Reference:
        Cox 1958, Biometrika 45:562-565; Westfall and Young 1993, Resampling-based multiple testing (min-P).
    """
    residual = (happened - forecast) * bins.row_weights
    own = np.array([residual.sum(), residual @ _centred_log_odds(forecast, bins.row_squares)])
    seen = np.append(error(bins.weights, bins.gaps, "l1"), np.abs(own))
    null = np.column_stack([error(bins.weights, gaps, "l1"), np.abs(scores)])
    sets = np.vstack([seen, null])
    # Sums of the same numbers in another order may differ in their last bits: such are equal.
    sets = np.round(sets / np.maximum(sets.max(axis=0), np.finfo(float).tiny), 9)
    rank = [np.searchsorted(np.sort(column), column) for column in sets.T]
    p = 1 - np.column_stack(rank) / len(sets)
    joint = float((p.min(axis=1) <= p[0].min()).mean())
    shift, spread = (int(-np.sign(score)) if p[0, i] <= _ALPHA else 0 for i, score in enumerate(own, start=1))
    return Deviation(joint, shift, spread)
