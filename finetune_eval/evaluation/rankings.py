"""Intervals of ROC-AUC and PR-AUC, from the influence of each row."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, same_length
from finetune_eval.evaluation._limits import boundary, checked_confidence, expit, quantile, times
from finetune_eval.evaluation.precision_bias import mean_precision_bias
from finetune_eval.evaluation.proportions import clopper_pearson_limits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.units import (
    FEW_ROWS,
    clustered_variance,
    freedom_and_carried,
    independent_units,
    sums_of_groups,
)

Floats = NDArray[np.float64]


def _binary_rows(y_true: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    y, s = np.asarray(y_true), np.asarray(scores, dtype=np.float64)
    same_length("y_true", y, "scores", s)
    if y.ndim != 1 or s.ndim != 1:
        raise ValueError(f"`y_true` and `scores` must have shape (rows,); got {y.shape} and {s.shape}.")
    not_empty("y_true", y)
    if not np.isin(y, (0, 1)).all():
        bad = int(np.flatnonzero(~np.isin(y, (0, 1)))[0])
        raise ValueError(f"`y_true` must be 0 or 1 (1 is positive); row {bad} is {y[bad]!r}.")
    if np.isnan(s).any():
        raise ValueError(f"`scores` has NaN in row {int(np.flatnonzero(np.isnan(s))[0])}; a score is needed.")
    return y.astype(bool), s


def auc_influence(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> tuple[float, Floats]:
    """Compute the ROC-AUC and the influence of each row on it, in O(N log N).

    Args:
        positive: (n,) True for rows of the positive class; both classes must be there.
        scores: (n,) higher means more positive; ties count half.
        weights: (n,) row weights, or None.

    Returns:
        The AUC, and (n,) influences that sum to 0. They are DeLong's structural components, divided by the
        rows of their class; their squares add up to the variance of the AUC.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Sun and Xu 2014, IEEE Signal Proc. Letters 21:1389-1393.
    """
    w = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    of_positive = np.bincount(place, weights=w * positive)
    of_negative = np.bincount(place, weights=w * ~positive)
    up_to_positive, up_to_negative = np.cumsum(of_positive), np.cumsum(of_negative)
    total_positive, total_negative = up_to_positive[-1], up_to_negative[-1]
    # The share of the other class that a row beats (ties count half) follows from its midrank.
    negatives_below = (up_to_negative - of_negative / 2) / total_negative
    positives_above = 1 - (up_to_positive - of_positive / 2) / total_positive
    # The sum runs over what is ranked wrongly, so that a perfect ranking gives 1 however the weights are
    # rounded.
    auc = max(1 - float(of_positive @ (1 - negatives_below) / total_positive), 0.0)
    components = np.where(positive, negatives_below[place], positives_above[place]) - auc
    return auc, w * components / np.where(positive, total_positive, total_negative)


def average_precision_influence(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> tuple[float, Floats]:
    """Compute the average precision (PR-AUC) and the influence of each row on it, in O(N log N).

    Average precision is the mean, over positive rows, of the precision among the rows that score at least as
    high; the influence of a row is its weight times the derivative by that weight.

    Args:
        positive: (n,) True for rows of the positive class; at least one.
        scores: (n,) higher means more positive.
        weights: (n,) row weights, or None.

    Returns:
        The average precision, and (n,) influences that sum to 0.
    """
    w = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(-scores, return_inverse=True)
    of_positive = np.bincount(place, weights=w * positive)
    total = np.cumsum(np.bincount(place, weights=w))
    hits = np.cumsum(of_positive)
    # Leading rows of weight 0 have no precision.
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    value = max(1 - float(of_positive @ (1 - precision) / hits[-1]), 0.0)

    def from_here_down(terms: Floats) -> Floats:
        return np.cumsum(terms[::-1])[::-1]

    safe = np.where(total > 0, total, 1.0)
    gain = from_here_down(of_positive / safe)[place]
    loss = from_here_down(of_positive * precision / safe)[place]
    derivative = (positive * (precision[place] - value + gain) - loss) / hits[-1]
    return value, w * derivative


def logit_limits(value: float, variance: float, t: float) -> tuple[float, float]:
    """Return limits inside (0, 1), made on the logit scale, of an estimate inside it.

    Args:
        value: The estimate.
        variance: Its variance.
        t: Student's or the normal quantile.

    Reference:
        Qin and Hotilovac 2008, Stat. Methods Med. Res. 17:207-221.
    """
    centre, half = _logit(value), t * math.sqrt(variance) / (value * (1 - value))
    return expit(centre - half), expit(centre + half)


def shows_variance(value: float, variance: float) -> bool:
    """Return whether a ranking shows a variance: a perfect or a constant ranking does not."""
    return variance > 1e-15 and 1e-9 < value < 1 - 1e-9


def newcombe_auc(value: float, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    """Find the AUCs that a score test with the variance of exponential scores does not reject.

    The variance is that of the AUC that is tested. The variance of the rows is of little use where a class
    has few rows and nearly all of them are ranked rightly.

    Args:
        value: The AUC.
        positives: Rows of the positive class.
        negatives: Rows of the negative class.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit.

    Example:
        >>> [round(limit, 3) for limit in newcombe_auc(1.0, 10, 10, 0.95)]
        [0.8, 1.0]

    Reference:
        Newcombe 2006, Stat. Med. 25:559-573, method 5; the variance: Hanley and McNeil 1982, Radiology
        143:29-36.
    """
    z, m = quantile(confidence), (positives + negatives) / 2 - 1

    def rejected(auc: float) -> bool:
        ties = 1 + m * (1 - auc) / (2 - auc) + m * auc / (1 + auc)
        return (value - auc) ** 2 > z * z * auc * (1 - auc) * ties / (positives * negatives)

    return boundary(rejected, value, 0.0), boundary(rejected, value, 1.0)


def delong(y_true: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Estimate the ROC-AUC with DeLong's interval, in O(N log N).

    Other programs, such as pROC, print the same limits: the normal quantile on the plain scale, cut off at 0
    and 1. A perfect (or perfectly wrong, or constant) ranking has no variance, and its limits are those of
    Clopper-Pearson on the smaller class. DeLong's limits cover too little near 1 and where a class has few
    rows (docs/statistics.md); `evaluate` therefore prints `ranking_interval`.

    Args:
        y_true: (n,) zeros and ones; 1 is positive.
        scores: (n,) any numbers, higher means more positive; ties count half.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The AUC in [0, 1] with its interval.

    Raises:
        ValueError: There is only one class, a label is not 0 or 1, or a score is NaN.

    Example:
        >>> print(delong([0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9]))
        0.889 [0.581, 1.000]

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Sun and Xu 2014, IEEE Signal Proc. Letters 21:1389-1393.
    """
    positive, s = _binary_rows(y_true, scores)
    checked_confidence(confidence)
    if positive.all() or not positive.any():
        raise ValueError(
            f"`y_true` must have rows of both classes for a ROC-AUC; all {len(s)} are {int(positive[0])}."
        )
    auc, influence = auc_influence(positive, s)
    variance = delong_variance(positive, influence)[0]
    if not shows_variance(auc, variance):
        rows = min(positive.sum(), (~positive).sum())
        return _unseen(auc, float(rows), "row", "DeLong", confidence)
    half = quantile(confidence) * math.sqrt(variance)
    return Estimate(auc, max(0.0, auc - half), min(1.0, auc + half), "DeLong", confidence)


def _unseen(value: float, trials: float, what: str, method: str, confidence: float) -> Estimate:
    low, high = clopper_pearson_limits(value * trials, trials, confidence)
    method += f", Clopper-Pearson on {times(trials, what)}: no variance to see"
    return Estimate(value, min(low, value), max(high, value), method, confidence)


def delong_variance(
    positive: NDArray[np.bool_], influence: Floats, counts: Floats | None = None
) -> tuple[float, float]:
    """Add up squared influences, with a factor n / (n - 1) for each class, as DeLong has it.

    Args:
        positive: (n,) True for rows of the positive class.
        influence: (n,) influence of each row on an AUC, or on the difference of two AUCs.
        counts: (n,) how many such rows there are; None: one of each.

    Returns:
        The variance (0 where a class has a single row), and its degrees of freedom: Satterthwaite's, from
        those of the two classes.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Satterthwaite 1946, Biometrics Bull. 2:110-114.
    """
    parts = []
    for side in (positive, ~positive):
        squares = influence[side] ** 2
        n = len(squares) if counts is None else int(counts[side].sum())
        if n < 2:
            return 0.0, 1.0
        second = float(squares.sum() if counts is None else squares @ counts[side])
        parts.append((second * n / (n - 1), n - 1))
    variance = parts[0][0] + parts[1][0]
    spread = sum(part**2 / df for part, df in parts)
    return variance, variance**2 / spread if spread > 0 else 1.0


class Ranking(NamedTuple):
    """ROC-AUC or PR-AUC, and the influence of each row on it.

    Attributes:
        value: The area.
        influence: (n,) influence of each row; they sum to 0.
        smallest: Independent rows (or groups) of the smallest side: of a class, or of all other classes.
        classes: How many classes the area is the mean of.
        asked: How many classes there are in all; 1 where the area is that of the second of two.
    """

    value: float
    influence: Floats
    smallest: float
    classes: int
    asked: int


def ranking_influence(
    name: str,
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Ranking | None:
    """Compute ROC-AUC or PR-AUC, one class against the rest, and the influence of each row on it.

    Args:
        name: "roc_auc" or "pr_auc".
        y: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) scores.
        average: "binary" (the second class), "macro" (classes that have rows and are not all rows),
            "weighted" (by their rows) or "micro" (all (row, class) pairs in one ranking).
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None; only `smallest` depends on them.

    Returns:
        The ranking; None where no class has both rows and others.
    """
    function = auc_influence if name == "roc_auc" else average_precision_influence
    n, classes = probabilities.shape
    one_hot = y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(classes)
    rows = np.ones(n) if weights is None else weights
    if average == "micro":
        flat = one_hot.ravel()
        repeated = np.repeat(rows, classes)
        if not (repeated * flat).any() or not (repeated * ~flat).any():
            return None
        value, pairs = function(flat, probabilities.ravel(), None if weights is None else repeated)
        influence = pairs.reshape(-1, classes).sum(axis=1)
        sides = np.asarray(one_hot.any(axis=1)), np.asarray((~one_hot).any(axis=1))
        smallest = min(independent_units(side, rows, groups) for side in sides)
        return Ranking(value, influence, smallest, classes, classes)
    total, share, smallest, found = 0.0, 0.0, math.inf, 0
    influence = np.zeros(n)
    asked = [1] if average == "binary" else range(classes)
    for k in asked:
        positive = one_hot[:, k]
        if not (rows * positive).any() or not (rows * ~positive).any():
            continue
        value, moves = function(positive, probabilities[:, k], weights)
        part = float((rows * positive).sum()) if average == "weighted" else 1.0
        total, share, found = total + part * value, share + part, found + 1
        influence += part * moves
        smallest = min(smallest, *(independent_units(side, rows, groups) for side in (positive, ~positive)))
    if not found:
        return None
    return Ranking(total / share, influence / share, smallest, found, len(asked))


# "Misranked rows" are the rows of the smaller class times the distance of the AUC from 0 or 1. With fewer
# misranked rows than FEW_MISRANKED, DeLong's variance cannot be trusted where fewer than FEW_CARRYING rows
# make it up, or where the class has fewer than SMALL_CLASS rows.
FEW_MISRANKED = 2
FEW_CARRYING = 5
SMALL_CLASS = 20


def ranking_interval(
    name: str,
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    *,
    confidence: float,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Estimate | None:
    """Estimate ROC-AUC or PR-AUC from the influence of each row: Student's t limits on the logit scale.

    The influences of the ROC-AUC are DeLong's. The degrees of freedom are the fewer of Satterthwaite's and
    those of the kurtosis of the influences. Where two classes have fewer than two misranked rows, and few
    rows make up the variance or the smaller class is small, the limits are the wider of these and
    Newcombe's, whose variance does not depend on so few rows.

    Args:
        name: "roc_auc" or "pr_auc".
        y: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) scores.
        average: As in `ranking_influence`.
        confidence: Nominal coverage in (0, 1).
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The estimate; None where no class has both rows and others.
    """
    found = ranking_influence(name, y, probabilities, average, weights, groups)
    if found is None:
        return None
    positive = (y[:, -1] if y.ndim == 2 else y == 1).astype(bool)
    variance, df, delongs = ranking_variance(name, positive, found.influence, average, weights, groups)
    if average == "binary" and found.smallest < 2:
        variance = 0.0  # a single row (or group) of a class shows no variance
    rows = int(positive.sum())
    bias = 0.0
    if name == "pr_auc" and average != "binary":
        bias = mean_precision_bias(y, probabilities, average, weights, groups)
    return estimate_area(
        name,
        found,
        average,
        variance,
        freedom_and_carried(sums_of_groups(found.influence, groups), df),
        sides=(rows, len(positive) - rows) if delongs else None,
        bias=bias,
        confidence=confidence,
        grouped=groups is not None,
    )


def estimate_area(
    name: str,
    found: Ranking,
    average: str,
    variance: float,
    known: tuple[float, float],
    *,
    sides: tuple[int, int] | None,
    bias: float,
    confidence: float,
    grouped: bool = False,
) -> Estimate:
    """Make the interval of an area from its variance; `ranking_interval` says how and why.

    Args:
        name: "roc_auc" or "pr_auc".
        found: The area.
        average: As in `ranking_influence`.
        variance: Of the area.
        known: Degrees of freedom of the variance, and how many rows, or groups, make it up.
        sides: Rows of the second and of the first class where the variance is DeLong's; else None.
        bias: By how much a mean PR-AUC is too high because each positive row counts itself.
        confidence: Nominal coverage in (0, 1).
        grouped: Whether the units are groups.
    """
    what = "group" if grouped else "row"
    method = "DeLong" if name == "roc_auc" else "influence of each row"
    method += ", by groups" if grouped else ""
    few_rows = False
    newcombe = None if sides is None else newcombe_auc(found.value, *sides, confidence)
    if newcombe is not None and found.value in (0.0, 1.0) and found.smallest >= SMALL_CLASS:
        none = f"none of {times(found.smallest, 'row')} is ranked wrongly" if found.value else "all are"
        method = f"Newcombe's method 5: no variance to see ({none})"
        estimate = Estimate(found.value, *newcombe, method, confidence)
    elif not shows_variance(found.value, variance):
        estimate = _unseen(found.value, found.smallest, what, method, confidence)
    else:
        estimate, few_rows = _with_few(found, variance, known, newcombe, method, what, confidence)
    if bias:
        estimate = replace(estimate, low=_lower(estimate, bias))
    rare = "" if few_rows else _rare_class(found, average, what)
    left_out = f", over {found.classes:,} of {found.asked:,} classes" if found.classes < found.asked else ""
    return replace(estimate, method=f"{estimate.method}{rare}{left_out}")


def _rare_class(found: Ranking, average: str, what: str) -> str:
    """Return words for `.method` where a mean over classes has a class of few rows."""
    if average in ("macro", "weighted") and found.smallest < FEW_ROWS - 1e-9:
        return f" (unreliable: a class {'has' if what == 'row' else 'is in'} {times(found.smallest, what)})"
    return ""


def _with_few(
    found: Ranking,
    variance: float,
    known: tuple[float, float],
    newcombe: tuple[float, float] | None,
    method: str,
    what: str,
    confidence: float,
) -> tuple[Estimate, bool]:
    """Make the limits of an area that shows a variance, widened where few rows, or groups, make it up.

    Args:
        found: The area.
        variance: The variance of the area.
        known: Degrees of freedom of the variance, and how many rows, or groups, make it up.
        newcombe: Newcombe's limits; None where they do not apply.
        method: How the variance was computed, in words.
        what: "row" or "group".
        confidence: Nominal coverage in (0, 1).

    Returns:
        The estimate, and whether its `.method` says that it rests on few rows.
    """
    df, carried = known
    low, high = logit_limits(found.value, variance, quantile(confidence, df))
    method += ", logit scale, t"
    few, widened = carried < FEW_CARRYING, False
    misranked = found.smallest * min(found.value, 1 - found.value)
    if newcombe is not None and misranked < FEW_MISRANKED and (few or found.smallest < SMALL_CLASS):
        low, high = min(low, newcombe[0]), max(high, newcombe[1])
        method += "; widened by Newcombe's method 5, which is conservative"
        method += f" (few of {times(found.smallest, 'row')} are ranked wrongly)"
        widened = True
    elif few:
        method += f" (unreliable: it rests on about {times(max(1, round(carried)), what)})"
    estimate = Estimate(found.value, min(low, found.value), max(high, found.value), method, confidence)
    return estimate, few and not widened


def _lower(estimate: Estimate, bias: float) -> float:
    """Return the lower limit of an estimate from which a bias is taken, at the same distance in logits."""
    centre = estimate.value - bias
    if not (0 < centre < 1 and 0 < estimate.low < 1 and estimate.value < 1):
        return max(estimate.low - bias, 0.0)
    distance = _logit(estimate.value) - _logit(estimate.low)
    return min(estimate.low, expit(_logit(centre) - distance))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def ranking_variance(
    name: str,
    positive: NDArray[np.bool_],
    influence: Floats,
    average: str,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
) -> tuple[float, float, bool]:
    """Compute the variance of an area, or of the difference of two areas, from the influences of the rows.

    Args:
        name: "roc_auc" or "pr_auc".
        positive: (n,) True for rows of the positive class, of two.
        influence: (n,) influence of each row.
        average: As in `ranking_influence`.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The variance, its degrees of freedom, and whether it is DeLong's (of two classes, without weights or
        groups).
    """
    delongs = name == "roc_auc" and average == "binary" and weights is None and groups is None
    found = delong_variance(positive, influence) if delongs else clustered_variance(influence, groups)
    return (*found, delongs)
