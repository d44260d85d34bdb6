"""Losses of single rows: log-loss and Brier score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


# A probability of 0 in float32 would be an infinite loss; the smallest normal float32 (2**-126) stands in.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


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
