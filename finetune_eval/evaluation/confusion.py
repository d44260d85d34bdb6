"""Metrics of the confusion matrix, computed from the counts of each class.

Arrays may have leading axes, so that one call computes a metric of a thousand resampled matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of

Floats = NDArray[np.float64]


AVERAGES = ("binary", "macro", "micro", "weighted")


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

    Raises:
        ValueError: An index is none of a class, as the -1 of an answer that was withheld.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    true, predicted = (np.asarray(values, dtype=np.int64) for values in (y_true, y_pred))
    for name, places in (("y_true", true), ("y_pred", predicted)):
        if places.size and not (0 <= places.min() and places.max() < classes):
            row = int(((places < 0) | (places >= classes)).argmax())
            raise ValueError(
                f"`{name}` must be class indices from 0 to {classes - 1}; row {row} is {places[row]}."
            )
    cells = true * classes + predicted
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    counts = np.bincount(cells, weights=weights, minlength=classes * classes)
    return counts.reshape(classes, classes)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with 0 / 0 = 0 as scikit-learn has it."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


class ClassCounts(NamedTuple):
    """Counts of each class: the 3 K numbers of a K x K confusion matrix that the metrics here need.

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


def labels_only(counts: ClassCounts) -> ClassCounts:
    """Return the counts without the rows predicted as the last class, which stands for "no label".

    Means over the classes then leave it out: it has neither true nor predicted rows. True rows and hits of
    the labels stay, so that an answer that is no label still counts against the recall of its class.
    """
    predicted = counts.predicted.copy()
    predicted[..., -1] = 0
    return counts._replace(predicted=predicted)


# A matrix with so few entries is faster dense than sparse, and needs no import of scipy.sparse.
_FEW_SUMS = 5_000


def sum_counts(
    values: NDArray[Any], true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Floats:
    """Add the numbers in cells up to hits, predicted rows and true rows of the classes.

    Args:
        values: (B, cells) numbers.
        true: (cells,) true class of each cell.
        predicted: (cells,) predicted class of each.
        classes: How many classes K.

    Returns:
        (B, 3 K) sums, for `split_counts`.
    """
    cells, hit = np.arange(len(true)), np.flatnonzero(true == predicted)
    to = np.concatenate([true[hit], classes + predicted, 2 * classes + true])
    at, shape = np.concatenate([hit, cells, cells]), (3 * classes, len(true))
    if math.prod(shape) <= _FEW_SUMS:
        gather = np.zeros(shape)
        gather[to, at] = 1
        return np.asarray(values @ gather.T)
    from scipy.sparse import csr_matrix

    return np.asarray((csr_matrix((np.ones(len(to)), (to, at)), shape) @ values.T).T)


def split_counts(sums: Floats) -> ClassCounts:
    """Split (..., 3 K) numbers into hits, predicted and true rows of the K classes."""
    return ClassCounts(*np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1))


def _averaged(values: Floats, predicted: Floats, true: Floats, average: str) -> Floats:
    """Average per-class values as scikit-learn does: a class in neither y_true nor y_pred is left out."""
    if average == "binary":
        return values[..., 1]
    if average == "weighted":
        return ratio((values * true).sum(axis=-1), true.sum(axis=-1))
    present = (predicted + true) > 0
    return ratio((values * present).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def scores_from_counts(name: str, hits: Floats, predicted: Floats, true: Floats, average: str) -> Floats:
    """Compute precision, recall or F-beta from per-class counts.

    Args:
        name: "precision", "recall", "f1", "f2" or "f0.5".
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
    return _averaged(class_scores(name, hits, predicted, true), predicted, true, average)


def class_scores(name: str, hits: Floats, predicted: Floats, true: Floats) -> Floats:
    """Return the (..., K) precision, recall or F-beta of each class; 0 where that is 0 / 0.

    F-beta ("f1", "f2", "f0.5") is the weighted harmonic mean in which recall counts beta squared times as
    much as precision (van Rijsbergen 1979).
    """
    if name == "precision":
        return ratio(hits, predicted)
    if name == "recall":
        return ratio(hits, true)
    square = float(name.removeprefix("f")) ** 2
    return ratio((1 + square) * hits, predicted + square * true)


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
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, true),
        "f1": ratio(2 * hits, predicted + true),
        "support": true,
    }


def accuracy(counts: ClassCounts, average: str) -> Floats:
    """Compute the share of rows that are right."""
    hits, _, true = counts
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def balanced_accuracy(counts: ClassCounts, average: str) -> Floats:
    """Compute the mean recall of the classes that have rows."""
    hits, _, true = counts
    return ratio(ratio(hits, true).sum(axis=-1), (true > 0).sum(axis=-1).astype(np.float64))


def averaged_labels(name: str) -> Callable[[ClassCounts, str], Floats]:
    """Return the function that averages precision, recall or F1 of labels: one that never occurs counts."""

    def score(counts: ClassCounts, average: str) -> Floats:
        values = class_scores(name, *counts)
        if average == "macro":
            return np.asarray(values.mean(axis=-1))
        return scores_from_counts(name, *counts, average)

    return score


def averaged_score(name: str) -> Callable[[ClassCounts, str], Floats]:
    """Return the function that computes precision, recall or F1 from class counts and an average."""

    def score(counts: ClassCounts, average: str) -> Floats:
        return scores_from_counts(name, *counts, average)

    return score


def of_first_class(name: str) -> Callable[[ClassCounts, str], Floats]:
    """Return the function that computes precision or recall of the first of two classes, the negative one."""

    def score(counts: ClassCounts, average: str) -> Floats:
        return class_scores(name, *counts)[..., 0]

    return score


def weighted_kappa(tables: Floats, distances: Floats) -> Floats:
    """Compute the kappa of ordered classes: 1 - disagreement / disagreement by chance; 0 where that is 0 / 0.

    Args:
        tables: (..., K, K) confusion matrices.
        distances: (K, K) distance of every two classes.

    Returns:
        (...) values, at most 1.

    Reference:
        Cohen 1968, Psychol. Bull. 70:213-220.
    """
    true, predicted = tables.sum(axis=-1), tables.sum(axis=-2)
    chance = np.einsum("...i,ij,...j->...", true, distances, predicted)
    seen = (tables * distances).sum(axis=(-2, -1)) * true.sum(axis=-1)
    return ratio(chance - seen, chance)


def mcc(counts: ClassCounts, average: str) -> Floats:
    """Compute the Matthews correlation of K classes (Gorodkin 2004, Comput. Biol. Chem. 28:367-374)."""
    hits, predicted, true = counts
    n = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * n - (predicted * true).sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
    return ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))


def kappa(counts: ClassCounts, average: str) -> Floats:
    """Compute Cohen's kappa (1960, Educ. Psychol. Meas. 20:37-46)."""
    hits, predicted, true = counts
    n = true.sum(axis=-1)
    chance = (predicted * true).sum(axis=-1)
    return ratio(hits.sum(axis=-1) * n - chance, n**2 - chance)
