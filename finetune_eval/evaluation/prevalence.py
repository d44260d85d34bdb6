"""Precision, NPV and accuracy of a model where another share of the rows is of the second class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation.confusion import ratio
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.shares import effective_shares

Floats = NDArray[np.float64]
_DRAWS = 20_000


def at_prevalence(evaluation: Evaluation, prevalence: float, *, seed: int = 0) -> dict[str, Estimate]:
    """Estimate precision, NPV and accuracy for rows of which another share is of the second class.

    Recall and specificity are those of the evaluation: the rows of each class are taken to be like these.
    It is for test rows whose classes were balanced on purpose. A share that is itself estimated, or a change
    of what the rows are like, is not in the intervals.

    Args:
        evaluation: Of two classes.
        prevalence: The share of the second class among the rows that the model will see, in (0, 1).
        seed: Seed of the draws.

    Returns:
        "precision", "npv" and "accuracy" with intervals at the evaluation's confidence.

    Raises:
        ValueError: There are not two classes, a class has no row, an answer is no label, or the prevalence is
            out of range.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0] * 100 + [1] * 100
        >>> result = evaluate_predictions(y, predicted=[0] * 90 + [1] * 10 + [0] * 20 + [1] * 80)
        >>> [round(one.value, 3) for one in (result["precision"], at_prevalence(result, 0.02)["precision"])]
        [0.889, 0.14]

    Reference:
        Altman and Bland 1994, BMJ 309:102 (the formulas). Intervals: quantiles over Jeffreys posteriors of
        recall and specificity, which are independent (Brown, Cai and DasGupta 2001, Stat. Sci. 16:101-133).
    """
    if evaluation.task != "classification" or len(evaluation.labels) != 2:
        raise ValueError(f"`evaluation` must be of two classes; got {len(evaluation.labels)} labels.")
    if evaluation.no_label is not None:
        raise ValueError(
            "`evaluation` must have a label in every answer; "
            f"{evaluation.no_label.n:,} of {evaluation.n:,} are no label."
        )
    share = _checks.number("prevalence", prevalence, above=0, below=1)
    frame = evaluation.predictions
    weights = frame["weight"].to_numpy(np.float64) if "weight" in frame else np.ones(len(frame))
    frame, weights = frame[weights > 0], weights[weights > 0]
    y = (frame["label"] == evaluation.labels[1]).to_numpy().astype(np.int64)
    if y.min() == y.max():
        raise ValueError("`evaluation` must have rows of both classes; there is one.")
    right = (frame["label"] == frame["prediction"]).to_numpy()
    groups = np.unique(frame["group"], return_inverse=True)[1] if "group" in frame else None
    found = effective_shares(right, y, weights, groups, evaluation.confidence)
    hits = found.values * found.trials
    random, level = np.random.default_rng(seed), evaluation.confidence
    drawn = random.beta(hits + 0.5, found.trials - hits + 0.5, size=(_DRAWS, 2))
    method = f"Jeffreys posteriors of recall and specificity, at a prevalence of {share:g}"
    out = {}
    for name, draws in _at(drawn, share).items():
        value = float(_at(found.values[None], share)[name][0])
        low, high = (float(limit) for limit in np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2]))
        out[name] = Estimate(value, min(low, value), max(high, value), method, level)
    return out


def _at(shares: Floats, prevalence: float) -> dict[str, Floats]:
    """Return precision, NPV and accuracy from (..., 2) specificity and recall; 0 where they are 0 / 0."""
    negatives, positives = shares[..., 0] * (1 - prevalence), shares[..., 1] * prevalence
    alarms, missed = 1 - prevalence - negatives, prevalence - positives
    return {
        "precision": ratio(positives, positives + alarms),
        "npv": ratio(negatives, negatives + missed),
        "accuracy": positives + negatives,
    }


__all__ = ["at_prevalence"]
