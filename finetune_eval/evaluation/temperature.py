"""One number that makes all probabilities of a model softer or sharper, fitted on validation rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._inputs import class_probabilities, read_probabilities, row_weights
from finetune_eval.evaluation._outputs import softmax
from finetune_eval.evaluation.metrics import SMALLEST_PROBABILITY

__all__ = ["apply_temperature", "fit_temperature"]

Floats = NDArray[np.float64]
# A temperature under 0.05 would come of few rows that are all right, and make probabilities of 0 and 1 of all
# others; one above 1,000 makes all classes equally probable, whatever the model says.
TEMPERATURES = (0.05, 1000.0)


def fit_temperature(y_true: Any, probabilities: Any, *, sample_weight: Any = None) -> float:
    """Find the temperature that makes probabilities fit best; do it on validation rows, never on test rows.

    The log-probabilities are the logits z; the T with the smallest log-loss of softmax(z / T) is found. That
    loss is convex in 1 / T, so there is one.

    Args:
        y_true: (n,) class indices of validation rows.
        probabilities: (n,), (n, 1) or (n, K) probabilities of the same rows.
        sample_weight: (n,) weights of the rows, or None: the loss is then the weighted mean.

    Returns:
        T; above 1 the model was over-confident. At least 0.05, which is returned where a smaller T would fit
        better still, as where every row is right. At most 1,000, which is returned where a larger T would fit
        better still, as where the probabilities are no better than chance. 1 where no T changes them.

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
    weights = None if sample_weight is None else row_weights(sample_weight)
    if weights is not None:
        _checks.same_length("y_true", y, "sample_weight", weights)
    logits = _log(p)
    if (logits == logits[:, :1]).all():
        return 1.0
    right = logits[np.arange(len(y)), y]

    def slope(inverse: float) -> float:
        """Derivative of the mean log-loss by 1 / T: the expected logit less that of the true class."""
        powers = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
        rows = (powers * logits).sum(axis=1) / powers.sum(axis=1) - right
        return float(np.average(rows, weights=weights))

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
    p, _, _ = read_probabilities(probabilities, "classification")
    return softmax(_log(p) / temperature)


def _log(p: NDArray[Any]) -> Floats:
    """Return log-probabilities; 0 counts as the smallest normal float32."""
    return np.asarray(np.log(np.maximum(p.astype(np.float64), SMALLEST_PROBABILITY)))
