"""Intervals of ROC-AUC and PR-AUC, from how much each row moves them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, same_length
from finetune_eval.evaluation._limits import boundary, checked_confidence, expit, quantile, times
from finetune_eval.evaluation.proportions import clopper_pearson_limits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.units import clustered_variance, independent_units

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
    """Compute the ROC-AUC and how much each row moves it, in O(N log N).

    Args:
        positive: (n,) True for rows of the positive class; both classes must be there.
        scores: (n,) higher means more positive; ties count half.
        weights: (n,) row weights, or None.

    Returns:
        The AUC, and (n,) influences that sum to 0: the squares of DeLong's structural components add up to
        its variance.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Sun and Xu 2014, IEEE Signal Proc. Letters 21:1389-1393.
    """
    w = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    of_positive = np.bincount(place, weights=w * positive)
    of_negative = np.bincount(place, weights=w * ~positive)
    total_positive, total_negative = of_positive.sum(), of_negative.sum()
    # Share of the other class that a row beats, ties half: the midrank, less the ranks of its own class.
    negatives_below = (np.cumsum(of_negative) - of_negative / 2) / total_negative
    positives_above = 1 - (np.cumsum(of_positive) - of_positive / 2) / total_positive
    auc = float(of_positive @ negatives_below / total_positive)
    components = np.where(positive, negatives_below[place], positives_above[place]) - auc
    return auc, w * components / np.where(positive, total_positive, total_negative)


def average_precision_influence(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> tuple[float, Floats]:
    """Compute the average precision (PR-AUC) and how much each row moves it, in O(N log N).

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
    # Leading rows of weight 0 are no rows at all.
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    value = float(of_positive @ precision / hits[-1])

    def from_here_down(terms: Floats) -> Floats:
        return np.cumsum(terms[::-1])[::-1]

    safe = np.where(total > 0, total, 1.0)
    gain = from_here_down(of_positive / safe)[place]
    loss = from_here_down(of_positive * precision / safe)[place]
    derivative = (positive * (precision[place] - value + gain) - loss) / hits[-1]
    return value, w * derivative


def limits_of_share(
    value: float,
    variance: float,
    *,
    confidence: float,
    trials: float,
    df: float = math.inf,
    logit: bool | None = True,
    what: str = "row",
) -> tuple[float, float, str]:
    """Turn the variance of an estimate inside [0, 1] into limits inside [0, 1].

    Args:
        value: The estimate.
        variance: Its variance; 0 where the rows show none.
        confidence: Nominal coverage in (0, 1).
        trials: How many trials the estimate is worth at least; used where the rows show no variance.
        df: Degrees of freedom of the variance, for Student's t; infinite: it is known.
        logit: Make the limits on the logit scale; None: only near 0 or 1, where the plain limits are off.
        what: What a trial is, for the method: "row" or "group".

    Returns:
        The lower limit, the upper limit, and what was done, to be added to the method.

    Reference:
        Logit scale: Qin and Hotilovac 2008, Stat. Methods Med. Res. 17:207-221.
    """
    if not variance > 1e-15 or not 1e-9 < value < 1 - 1e-9:
        low, high = clopper_pearson_limits(value * trials, trials, confidence)
        return float(low), float(high), f", Clopper-Pearson on {times(trials, what)}: no variance to see"
    half = quantile(confidence, df) * math.sqrt(variance)
    if logit is None:
        logit = not 0.1 <= value <= 0.9 or value - half < 0 or value + half > 1
    if not logit:
        return value - half, value + half, ""
    centre, half = math.log(value / (1 - value)), half / (value * (1 - value))
    return expit(centre - half), expit(centre + half), ", logit scale" + ("" if math.isinf(df) else ", t")


def newcombe_auc(value: float, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    """Find the AUCs that a score test with the variance of exponential scores does not reject.

    The variance is that of the AUC it would be, and not that of the rows, which a few rows of a class show
    badly where nearly all of them are ranked rightly.

    Args:
        value: The AUC.
        positives: Rows of the positive class.
        negatives: Rows of the other.
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

    These are the limits that other programs print. Above 0.9 and below 0.1 they are made on the logit scale.
    A perfect (or perfectly wrong, or constant) ranking has no variance: then Clopper-Pearson on the smaller
    class gives the limits. With few rows in a class all of them cover too little (docs/statistics.md): what
    `evaluate` prints is `ranking_interval`, which makes up for that.

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
        0.889 [0.261, 0.995]

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
    low, high, note = limits_of_share(
        auc,
        delong_variance(positive, influence)[0],
        confidence=confidence,
        trials=min(positive.sum(), (~positive).sum()),
        logit=None,
    )
    return Estimate(auc, low, high, "DeLong" + note, confidence)


def delong_variance(positive: NDArray[np.bool_], influence: Floats) -> tuple[float, float]:
    """Add up squared influences with each class's own n / (n - 1), as DeLong has it; 0 where n is 1.

    Args:
        positive: (n,) True for rows of the positive class.
        influence: (n,) of an AUC, or of the difference of two.

    Returns:
        The variance, and its degrees of freedom: Welch's and Satterthwaite's, of two parts with n - 1 each.

    Reference:
        DeLong et al. 1988, Biometrics 44:837-845; Satterthwaite 1946, Biometrics Bull. 2:110-114.
    """
    parts = []
    for side in (positive, ~positive):
        n = int(side.sum())
        if n < 2:
            return 0.0, 1.0
        parts.append((float((influence[side] ** 2).sum()) * n / (n - 1), n - 1))
    variance = parts[0][0] + parts[1][0]
    spread = sum(part**2 / df for part, df in parts)
    return variance, variance**2 / spread if spread > 0 else 1.0


class Ranking(NamedTuple):
    """ROC-AUC or PR-AUC, and how much each row moves it.

    Attributes:
        value: The area.
        influence: (n,) of each row; they sum to 0.
        smallest: Independent rows (groups, where rows are grouped) of the smallest side it rests on.
        classes: How many classes it is the mean of.
    """

    value: float
    influence: Floats
    smallest: float
    classes: int


def ranking_influence(
    name: str,
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Ranking | None:
    """Compute ROC-AUC or PR-AUC, one class against the rest, and how much each row moves it.

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
        return Ranking(value, influence, smallest, classes)
    total, share, smallest, found = 0.0, 0.0, math.inf, 0
    influence = np.zeros(n)
    for k in [1] if average == "binary" else range(classes):
        positive = one_hot[:, k]
        if not (rows * positive).any() or not (rows * ~positive).any():
            continue
        value, moves = function(positive, probabilities[:, k], weights)
        part = float((rows * positive).sum()) if average == "weighted" else 1.0
        total, share, found = total + part * value, share + part, found + 1
        influence += part * moves
        smallest = min(smallest, *(independent_units(side, rows, groups) for side in (positive, ~positive)))
    return Ranking(total / share, influence / share, smallest, found) if found else None


# How many rows of the smaller class are ranked wrongly in all (rows worth their degrees of freedom, times the
# distance of the AUC from 0 or 1) below which DeLong's variance cannot be trusted: coverage .75-.92.
FEW_MISRANKED = 2


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

    The influences of the ROC-AUC are DeLong's. Of two classes where fewer than two rows of the smaller one
    are ranked wrongly, all told, the limits are the wider of these and Newcombe's, whose variance does not
    rest on so few.

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
        variance = 0.0  # a single row (or group) of a class shows nothing of how such rows vary
    low, high, note = limits_of_share(
        found.value,
        variance,
        confidence=confidence,
        trials=found.smallest,
        df=df,
        what="row" if groups is None else "group",
    )
    if delongs and "logit" in note and df * min(found.value, 1 - found.value) < FEW_MISRANKED:
        rows = int(positive.sum())
        other = newcombe_auc(found.value, rows, len(positive) - rows, confidence)
        low, high = min(low, other[0]), max(high, other[1])
        note += f"; widened by Newcombe's method 5 (few of {times(found.smallest, 'row')} ranked wrongly)"
    method = "DeLong" if name == "roc_auc" else "influence of each row"
    method += ("" if groups is None else ", by groups") + note
    classes = 1 if average == "binary" else probabilities.shape[1]
    if found.classes < classes:
        method += f", over {found.classes} of {classes} classes"
    return Estimate(found.value, low, high, method, confidence)


def ranking_variance(
    name: str,
    positive: NDArray[np.bool_],
    influence: Floats,
    average: str,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
) -> tuple[float, float, bool]:
    """Compute the variance that the influences of an area, or of a difference of two, add up to.

    Args:
        name: "roc_auc" or "pr_auc".
        positive: (n,) True for rows of the positive class, of two.
        influence: (n,) of each row.
        average: As in `ranking_influence`.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.

    Returns:
        The variance, its degrees of freedom, and whether it is DeLong's own of two classes.
    """
    delongs = name == "roc_auc" and average == "binary" and weights is None and groups is None
    found = delong_variance(positive, influence) if delongs else clustered_variance(influence, groups)
    return (*found, delongs)
