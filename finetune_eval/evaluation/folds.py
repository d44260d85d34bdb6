"""The scores of cross-validation: of the models that were trained, and of the recipe that trained them.

Two questions have two intervals. "How good are these k models?" asks for their average over new rows: the
rows of all folds, each judged by a model that never saw it, are as good as independent for that. "How good is
this recipe on so many rows?" asks for models that were never trained: the spread of the folds' scores
answers, made wider because the folds share their training rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.confusion import averaged_labels
from finetune_eval.evaluation.metrics import METRICS, from_confusion
from finetune_eval.evaluation.rankings import (
    logit_limits,
    ranking_influence,
    ranking_variance,
    shows_variance,
)
from finetune_eval.evaluation.records import Estimate, Interval
from finetune_eval.evaluation.sample import Sample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

THESE_MODELS = "central limit theorem for cross-validation"
THIS_RECIPE = "corrected resampled t"


@dataclass(frozen=True)
class FoldScores:
    """What a comparison needs to know of a cross-evaluation.

    Attributes:
        fold_of_row: (repeats, n) number of the fold that each row is in, in each repeat.
        values: Metric name to its value over all folds and repeats.
        scores: Metric name to the score of each fold, of all repeats in turn.
        average: How precision, recall, F1 and AUC are averaged over the classes.
    """

    fold_of_row: Ints
    values: dict[str, float]
    scores: dict[str, tuple[float, ...]]
    average: str

    @property
    def test_share(self) -> float:
        """Rows that judge a model, per row that trained it, over all folds: 1/4 with five folds."""
        folds = int(self.fold_of_row.max()) + 1
        return 1 / (folds - 1)  # n / k test rows and n - n / k training rows, on average


def corrected_error(scores: Sequence[float] | Floats, share: float) -> float:
    """Compute the standard error of a mean of scores whose models share training rows.

    Args:
        scores: (J,) the score of each fold, of all repeats.
        share: Test rows per training row of a fold, such as 1/4.

    Returns:
        The root of (1 / J + share) times the variance of the scores.

    Example:
        >>> round(corrected_error([0.7, 0.8, 0.9], 0.5), 6)  # the variance is 0.01
        0.091287

    Reference:
        Nadeau and Bengio 2003, Machine Learning 52:239-281, equation 9. Of repeated folds: Bouckaert and
        Frank 2004, PAKDD.
    """
    values = np.asarray(scores, dtype=np.float64)
    return math.sqrt((1 / len(values) + share) * float(values.var(ddof=1)))


def recipe_interval(
    name: str, value: float, scores: Sequence[float], share: float, *, models: Estimate
) -> Interval:
    """Return the interval of a recipe's score: that of models trained on as many other rows.

    It is never narrower than that of the models that were trained: a few folds whose scores are equal by luck
    do not show how much other rows would change.

    Args:
        name: The metric.
        value: Its value over all folds.
        scores: (J,) the score of each fold.
        share: Test rows per training row of a fold.
        models: The estimate of the models that were trained.
    """
    from scipy.special import stdtrit

    metric = METRICS[name]
    half = float(stdtrit(len(scores) - 1, 0.5 + models.confidence / 2)) * corrected_error(scores, share)
    low, high = max(metric.low, value - half), min(metric.high, value + half)
    method = f"{THIS_RECIPE} over {len(scores)} folds"
    if models.low < low or models.high > high:
        low, high = min(low, models.low), max(high, models.high)
        method += ", not narrower than that of these models"
    return Interval(low, high, method, models.confidence)


def average_of_areas(y: Ints, classes: int) -> str:
    """Return how an evaluation averages areas: that of the second of two classes, else of all classes."""
    return "binary" if y.ndim == 1 and classes == 2 else "macro"


def fold_score(
    name: str, y: Ints, p: Floats, predicted: Ints, average: str, weights: Floats | None = None
) -> float:
    """Return a metric of the rows of a fold; NaN where these rows do not have it.

    Args:
        name: The metric.
        y: (n,) class indices, or (n, K) zeros and ones.
        p: (n, K) probabilities.
        predicted: The answers, in the shape of `y`.
        average: How precision, recall and F1 are averaged over the classes.
        weights: (n,) weights of the rows, or None.
    """
    metric, several = METRICS[name], y.ndim == 2
    if metric.source == "ranking":
        found = ranking_influence(name, y, p, average_of_areas(y, p.shape[1]), weights)
        return math.nan if found is None else found.value
    sample = Sample(y, p, predicted, average=average, weights=weights)
    if several and name == "accuracy":
        return float(np.average(sample.right, weights=sample.rows))
    if metric.source == "confusion":
        if several:
            return float(averaged_labels(name)(sample.counts, average))
        return float(from_confusion(name, sample.counts, average))
    assert metric.function is not None
    return float(np.average(metric.function(sample.y, sample.p), weights=sample.rows))


def ranking_over_folds(
    name: str,
    y: Ints,
    p: Floats,
    fold_of_row: Ints,
    average: str,
    *,
    confidence: float,
    weights: Floats | None = None,
    groups: Ints | None = None,
) -> Estimate | None:
    """Estimate the mean AUC of the folds' models: rows are ranked among those that the same model scored.

    Args:
        name: "roc_auc" or "pr_auc".
        y: (n,) class indices, or (n, K) zeros and ones.
        p: (n, K) out-of-fold probabilities.
        fold_of_row: (n,) number of the fold of each row.
        average: As in `ranking_influence`.
        confidence: Nominal coverage.
        weights: (n,) weights of the rows, or None.
        groups: (n,) group of each row, or None.

    Returns:
        The estimate; None where a fold lacks a class that is needed, or nothing shows how the areas vary.
    """
    from scipy.special import stdtrit

    value = variance = spread = 0.0
    counts = np.ones(len(y)) if weights is None else weights / weights.max()
    for fold in range(int(fold_of_row.max()) + 1):
        rows = np.flatnonzero((fold_of_row == fold) & (counts > 0))
        inside = None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
        weighing = None if weights is None else counts[rows]
        found = ranking_influence(name, y[rows], p[rows], average, weighing, inside)
        if found is None or found.smallest < 2:
            return None
        positive = (y[rows, -1] if y.ndim == 2 else y[rows]) == 1
        of_fold, df, _ = ranking_variance(name, positive, found.influence, average, weighing, inside)
        weight = counts[rows].sum() / counts.sum()
        value += weight * found.value
        variance += weight**2 * of_fold
        spread += (weight**2 * of_fold) ** 2 / max(df, 1.0)
    if not shows_variance(value, variance):
        return None
    t = float(stdtrit(max(variance**2 / spread, 1.0), 0.5 + confidence / 2))
    method = "DeLong" if name == "roc_auc" else "influence of each row"
    limits = logit_limits(value, variance, t)
    return Estimate(value, *limits, f"{method}, mean of the folds, logit scale", confidence)


def of_these_models(estimate: Estimate) -> Estimate:
    """Return an estimate of out-of-fold rows as what it is: one of the models that were trained."""
    return dataclasses.replace(estimate, method=f"{estimate.method}; {THESE_MODELS}")
