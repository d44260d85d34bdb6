"""One table of metrics: what each is a function of, which direction is better, how its interval is made.

Functions of the confusion matrix are vectorised over leading axes, so that a thousand resampled matrices
cost one call. Everything here needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of
from finetune_eval.evaluation import confusion as formulas
from finetune_eval.evaluation.confusion import (
    AVERAGES,
    ClassCounts,
    class_counts,
    confusion_matrix,
    per_class_scores,
    precision_recall_f1,
    resolve_average,
    scores_from_counts,
)
from finetune_eval.evaluation.losses import SMALLEST_PROBABILITY, row_brier, row_loss

__all__ = [
    "AVERAGES",
    "METRICS",
    "SMALLEST_PROBABILITY",
    "ClassCounts",
    "Metric",
    "class_counts",
    "confusion_matrix",
    "from_confusion",
    "per_class_scores",
    "precision_recall_f1",
    "resolve_average",
    "row_brier",
    "row_loss",
    "scores_from_counts",
]

Floats = NDArray[np.float64]


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
    "accuracy": Metric("accuracy", "confusion", "higher", "wilson", 0.0, 1.0, formulas.accuracy),
    "balanced_accuracy": Metric(
        "balanced accuracy", "confusion", "higher", "classes", 0.0, 1.0, formulas.balanced_accuracy
    ),
    "precision": Metric(
        "precision", "confusion", "higher", "classes", 0.0, 1.0, formulas.averaged_score("precision")
    ),
    "recall": Metric("recall", "confusion", "higher", "classes", 0.0, 1.0, formulas.averaged_score("recall")),
    "f1": Metric("F1", "confusion", "higher", "bootstrap", 0.0, 1.0, formulas.averaged_score("f1")),
    "mcc": Metric("MCC", "confusion", "higher", "bootstrap", -1.0, 1.0, formulas.mcc),
    "kappa": Metric("kappa", "confusion", "higher", "bootstrap", -1.0, 1.0, formulas.kappa),
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
