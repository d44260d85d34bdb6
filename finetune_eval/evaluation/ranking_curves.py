"""The points of ROC and precision-recall curves, as tables to draw or to look a threshold up in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._result import Evaluation

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


def roc_curve(evaluation: Evaluation, label: str | None = None) -> pd.DataFrame:
    """Return the points of the ROC curve of one class, from the highest threshold to the lowest.

    Args:
        evaluation: Of a model that gave probabilities.
        label: The class; None: the second of two.

    Returns:
        threshold, false_positive_rate, true_positive_rate: one row for each probability that occurs, after a
        first one where nothing is predicted (its threshold is infinite). Rows count by their weights. A rate
        of no rows is NaN.

    Raises:
        ValueError: There are no probabilities, or the class is unknown or not given.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> result = evaluate_predictions([0, 1, 1], [0.2, 0.4, 0.9], labels=["ham", "spam"])
        >>> roc_curve(result)["true_positive_rate"].tolist()
        [0.0, 0.5, 1.0, 1.0]
    """
    import pandas as pd

    thresholds, hits, alarms = _counts(evaluation, label)
    with np.errstate(invalid="ignore"):
        rates = alarms / alarms[-1], hits / hits[-1]
    return pd.DataFrame(
        {"threshold": thresholds, "false_positive_rate": rates[0], "true_positive_rate": rates[1]}
    )


def precision_recall_curve(evaluation: Evaluation, label: str | None = None) -> pd.DataFrame:
    """Return the points of the precision-recall curve of one class, from the highest threshold to the lowest.

    Args:
        evaluation: Of a model that gave probabilities.
        label: The class; None: the second of two.

    Returns:
        threshold, precision, recall: one row for each probability that occurs. Rows count by their weights.

    Raises:
        ValueError: There are no probabilities, or the class is unknown or not given.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> result = evaluate_predictions([0, 1, 0, 1], [0.2, 0.4, 0.6, 0.9], labels=["ham", "spam"])
        >>> precision_recall_curve(result)["precision"].round(2).tolist()
        [1.0, 0.5, 0.67, 0.5]
    """
    import pandas as pd

    thresholds, hits, alarms = (part[1:] for part in _counts(evaluation, label))
    with np.errstate(invalid="ignore"):
        recall = hits / hits[-1]
    predicted = hits + alarms
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    return pd.DataFrame({"threshold": thresholds, "precision": precision, "recall": recall})


def _counts(evaluation: Evaluation, label: str | None) -> tuple[Floats, Floats, Floats]:
    """Return the thresholds, highest first, and the weights of hits and false alarms from each one on."""
    if not evaluation.has_probabilities:
        raise ValueError(
            "`evaluation` must have probabilities to have a curve; this model gave answers only."
        )
    if label is None:
        if evaluation.task != "classification" or len(evaluation.labels) != 2:
            raise ValueError(
                f"`label` is needed: which of the {len(evaluation.labels)} classes is the curve of?"
            )
        label = evaluation.labels[1]
    _checks.one_of("label", label, evaluation.labels)
    frame = evaluation.predictions
    true = (
        (frame["label"] == label).to_numpy()
        if evaluation.task == "classification"
        else np.array([label in words.split(" + ") for words in frame["label"]])
    )
    weights = frame["weight"].to_numpy(np.float64) if "weight" in frame else np.ones(len(frame))
    p = frame[f"p_{label}"].to_numpy(np.float64)
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # of equal probabilities
    hits, alarms = (np.cumsum((weights * side)[order])[last] for side in (true, ~true))
    return np.append(np.inf, p[order][last]), np.append(0.0, hits), np.append(0.0, alarms)


__all__ = ["precision_recall_curve", "roc_curve"]
