"""One table of metrics: what each is a function of, which direction is better, how its interval is made.

Functions of the confusion matrix are vectorised over leading axes, so that a thousand resampled matrices
cost one call. Everything here needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of

Floats = NDArray[np.float64]

AVERAGES = ("binary", "macro", "micro", "weighted")

# A probability of 0 in float32 would be an infinite loss; the smallest normal float32 (2**-126) stands in.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


def resolve_average(average: str, classes: int) -> str:
    """Turn "auto" into "binary" for two classes and "macro" for any other number, and check the rest.

    Args:
        average: "auto", "binary", "macro", "micro" or "weighted".
        classes: The number of classes K.

    Returns:
        One of "binary", "macro", "micro", "weighted".

    Raises:
        ValueError: The name is unknown, or "binary" with other than two classes.

    Example:
        >>> resolve_average("auto", 2), resolve_average("auto", 3)
        ('binary', 'macro')
    """
    one_of("average", average, ("auto", *AVERAGES))
    if average == "auto":
        return "binary" if classes == 2 else "macro"
    if average == "binary" and classes != 2:
        raise ValueError(
            f"`average` 'binary' needs exactly two classes, the second one positive; got {classes} classes. "
            "Use 'macro', 'micro' or 'weighted'."
        )
    return average


def confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, classes: int, *, sample_weight: ArrayLike | None = None
) -> NDArray[Any]:
    """Count the rows of each (true class, predicted class).

    Args:
        y_true: (n,) true class indices in [0, classes).
        y_pred: (n,) predicted class indices in [0, classes).
        classes: The number of classes K.
        sample_weight: (n,) weights, or None to count rows.

    Returns:
        (K, K), rows true, columns predicted: int64 counts, or float64 sums of weights.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    cells = np.asarray(y_true, dtype=np.int64) * classes + np.asarray(y_pred, dtype=np.int64)
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    counts = np.bincount(cells, weights=weights, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with 0 / 0 = 0 as scikit-learn has it."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


class ClassCounts(NamedTuple):
    """All that the metrics here use of a confusion matrix: 3 K numbers in place of K squared.

    Attributes:
        hits: (..., K) rows of the class that were predicted as it.
        predicted: (..., K) rows predicted as the class.
        true: (..., K) rows of the class.
    """

    hits: Floats
    predicted: Floats
    true: Floats


def class_counts(confusion: ArrayLike | ClassCounts) -> ClassCounts:
    """Return hits, predicted and true rows of each class.

    Args:
        confusion: (..., K, K) counts, rows true, columns predicted; or class counts, which are returned.

    Returns:
        Three (..., K) float64 arrays.

    Example:
        >>> hits, predicted, true = class_counts([[3, 1], [2, 4]])
        >>> hits.tolist(), predicted.tolist(), true.tolist()
        ([3.0, 4.0], [5.0, 5.0], [4.0, 6.0])
    """
    if isinstance(confusion, ClassCounts):
        return confusion
    table = np.asarray(confusion, dtype=np.float64)
    if table.ndim < 2 or table.shape[-1] != table.shape[-2] or table.shape[-1] < 1:
        raise ValueError(
            "`confusion` must be square in its last two axes (rows true, columns predicted); "
            f"got shape {table.shape}."
        )
    hits = np.diagonal(table, axis1=-2, axis2=-1).copy()
    return ClassCounts(hits, table.sum(axis=-2), table.sum(axis=-1))


def _averaged(values: Floats, predicted: Floats, true: Floats, average: str) -> Floats:
    """Average per-class values as scikit-learn does: a class in neither y_true nor y_pred is left out."""
    if average == "binary":
        return values[..., 1]
    if average == "weighted":
        return _ratio((values * true).sum(axis=-1), true.sum(axis=-1))
    present = (predicted + true) > 0
    return _ratio((values * present).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def scores_from_counts(name: str, hits: Floats, predicted: Floats, true: Floats, average: str) -> Floats:
    """Compute precision, recall or F1 from per-class counts.

    Args:
        name: "precision", "recall" or "f1".
        hits: (..., K) rows of the class predicted as it.
        predicted: (..., K) rows predicted as the class.
        true: (..., K) rows of the class.
        average: "binary" (the second class), "macro", "micro" or "weighted".

    Returns:
        (...) values in [0, 1]; 0 where nothing was predicted or nothing is true, as scikit-learn has it.
    """
    if average == "micro":
        hits, predicted, true = (part.sum(axis=-1, keepdims=True) for part in (hits, predicted, true))
        average = "macro"
    if name == "precision":
        values = _ratio(hits, predicted)
    elif name == "recall":
        values = _ratio(hits, true)
    else:
        values = _ratio(2 * hits, predicted + true)
    return _averaged(values, predicted, true, average)


def precision_recall_f1(confusion: ArrayLike, average: str = "auto") -> tuple[float, float, float]:
    """Compute precision, recall and F1, equal to scikit-learn's `precision_recall_fscore_support`.

    Precision = hits / predicted, recall = hits / true, F1 = 2 hits / (predicted + true); 0 where that is
    0 / 0. The macro mean leaves out a class that is in neither the true nor the predicted labels.

    Args:
        confusion: (K, K) counts, rows true, columns predicted.
        average: "auto", "binary", "macro", "micro" or "weighted".

    Returns:
        Precision, recall and F1, each in [0, 1].

    Raises:
        ValueError: The matrix is not square or `average` is unknown.

    Example:
        >>> [round(value, 4) for value in precision_recall_f1([[8, 2], [1, 9]])]
        [0.8182, 0.9, 0.8571]
    """
    hits, predicted, true = class_counts(confusion)
    average = resolve_average(average, hits.shape[-1])
    precision, recall, f1 = (
        float(scores_from_counts(name, hits, predicted, true, average))
        for name in ("precision", "recall", "f1")
    )
    return precision, recall, f1


def per_class_scores(confusion: ArrayLike) -> dict[str, Floats]:
    """Compute precision, recall and F1 of every class, and its number of true rows.

    Args:
        confusion: (..., K, K) counts, rows true, columns predicted.

    Returns:
        "precision", "recall", "f1" in [0, 1] and "support", each (..., K).

    Example:
        >>> per_class_scores([[8, 2], [1, 9]])["recall"].tolist()
        [0.8, 0.9]
    """
    hits, predicted, true = class_counts(confusion)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, predicted + true),
        "support": true,
    }


def _accuracy(counts: ClassCounts, average: str) -> Floats:
    hits, _, true = counts
    return _ratio(hits.sum(axis=-1), true.sum(axis=-1))


def _balanced_accuracy(counts: ClassCounts, average: str) -> Floats:
    hits, _, true = counts
    return _ratio(_ratio(hits, true).sum(axis=-1), (true > 0).sum(axis=-1).astype(np.float64))


def _averaged_score(name: str) -> Callable[[ClassCounts, str], Floats]:
    def score(counts: ClassCounts, average: str) -> Floats:
        return scores_from_counts(name, *counts, average)

    return score


def _mcc(counts: ClassCounts, average: str) -> Floats:
    hits, predicted, true = counts
    n = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * n - (predicted * true).sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))


def _kappa(counts: ClassCounts, average: str) -> Floats:
    hits, predicted, true = counts
    n = true.sum(axis=-1)
    chance = (predicted * true).sum(axis=-1)
    return _ratio(hits.sum(axis=-1) * n - chance, n**2 - chance)


def row_loss(y_true: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Compute the log-loss of each row, -log p(true class), in float64.

    Args:
        y_true: (n,) class indices, or (n, K) zeros and ones (multilabel: the mean of the K losses).
        probabilities: (n, K) in [0, 1].

    Returns:
        (n,) losses of at least 0, in nats; a probability below the smallest normal float32 counts as it.

    Example:
        >>> row_loss([1, 0], [[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    y = np.asarray(y_true)
    p = np.asarray(probabilities)
    if y.ndim == 2:
        right = np.where(y > 0, p, 1.0 - p.astype(np.float64))
        return np.asarray(-np.log(np.clip(right, SMALLEST_PROBABILITY, 1.0)).mean(axis=1) + 0.0)
    right = p[np.arange(len(y)), y].astype(np.float64)
    return np.asarray(-np.log(np.clip(right, SMALLEST_PROBABILITY, 1.0)) + 0.0)


def row_brier(y_true: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Compute the Brier score of each row.

    Two classes: (p(second class) - y)**2 in [0, 1]. More: the sum over classes in [0, 2]. Multilabel: the
    mean over labels in [0, 1]. The same conventions as scikit-learn's `brier_score_loss`.

    Args:
        y_true: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) in [0, 1].

    Returns:
        (n,) scores; lower is better.

    Example:
        >>> row_brier([1, 0], [[0.5, 0.5], [1.0, 0.0]]).tolist()
        [0.25, 0.0]
    """
    y = np.asarray(y_true)
    p = np.asarray(probabilities, dtype=np.float64)
    if y.ndim == 2:
        return np.asarray(((p - y) ** 2).mean(axis=1))
    if p.shape[1] == 2:
        return np.asarray((p[:, 1] - y) ** 2)
    right = p[np.arange(len(y)), y]
    return np.asarray((p**2).sum(axis=1) - right**2 + (1.0 - right) ** 2)


@dataclass(frozen=True)
class Metric:
    """What the library knows about a metric.

    Attributes:
        title: What a table calls it.
        source: "confusion" (a function of the confusion matrix), "rows" (a mean over rows) or "ranking"
            (a function of the order of the scores).
        direction: "higher" or "lower" is better.
        interval: How its interval is made for independent, unweighted rows, chosen by simulated coverage
            (docs/statistics.md): "wilson"; "classes" (Wilson, of one class; macro means combine the
            classes' limits); "bootstrap" (of the confusion matrix; F1 of one class: Wilson through the
            Jaccard share); "delong"; "linearised" (influence of each row, logit scale); "mean" (t, skewness
            removed).
        low: The smallest possible value.
        high: The largest possible value (of the log-loss: that of a true class given probability 0).
        function: (class counts (..., K), average) -> (...) for "confusion"; (y_true, probabilities) ->
            (n,) for "rows"; None for "ranking", which `intervals` computes with its variance.
    """

    title: str
    source: Literal["confusion", "rows", "ranking"]
    direction: Literal["higher", "lower"]
    interval: str
    low: float
    high: float
    function: Callable[..., Floats] | None


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "confusion", "higher", "wilson", 0.0, 1.0, _accuracy),
    "balanced_accuracy": Metric(
        "balanced accuracy", "confusion", "higher", "classes", 0.0, 1.0, _balanced_accuracy
    ),
    "precision": Metric(
        "precision", "confusion", "higher", "classes", 0.0, 1.0, _averaged_score("precision")
    ),
    "recall": Metric("recall", "confusion", "higher", "classes", 0.0, 1.0, _averaged_score("recall")),
    "f1": Metric("F1", "confusion", "higher", "bootstrap", 0.0, 1.0, _averaged_score("f1")),
    "mcc": Metric("MCC", "confusion", "higher", "bootstrap", -1.0, 1.0, _mcc),
    "kappa": Metric("kappa", "confusion", "higher", "bootstrap", -1.0, 1.0, _kappa),
    "roc_auc": Metric("ROC-AUC", "ranking", "higher", "delong", 0.0, 1.0, None),
    "pr_auc": Metric("PR-AUC", "ranking", "higher", "linearised", 0.0, 1.0, None),
    "loss": Metric("log-loss", "rows", "lower", "mean", 0.0, -float(np.log(SMALLEST_PROBABILITY)), row_loss),
    "brier": Metric("Brier", "rows", "lower", "mean", 0.0, 2.0, row_brier),
}


def from_confusion(name: str, confusion: ArrayLike | ClassCounts, average: str = "auto") -> Floats:
    """Compute a metric of the confusion matrix, vectorised over leading axes.

    Args:
        name: "accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc" or "kappa".
        confusion: (..., K, K) counts, rows true, columns predicted; or their `class_counts`.
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted"; used by precision,
            recall and F1.

    Returns:
        (...) float64; 0 where the metric is 0 / 0 (one class only in MCC and kappa).

    Raises:
        ValueError: The name or the average is unknown, or the matrix is not square.

    Example:
        >>> from_confusion("f1", [[8, 2], [1, 9]], "macro").round(4).item()
        0.8496

    Reference:
        MCC of K classes: Gorodkin 2004, Comput. Biol. Chem. 28:367-374. Kappa: Cohen 1960.
    """
    one_of("name", name, [key for key, metric in METRICS.items() if metric.source == "confusion"])
    counts = class_counts(confusion)
    metric = METRICS[name]
    assert metric.function is not None
    values = metric.function(counts, resolve_average(average, counts.true.shape[-1]))
    return np.clip(values, metric.low, metric.high)  # sums of weights round: an MCC of -1.0000000000000002
