"""Log-loss and Brier score of each row, and the losses that its probabilities lead one to expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_CHUNK = 300_000  # probabilities read at a time: a few times what a processor's cache holds


# A probability of 0 would have an infinite loss. The smallest normal float32 (2**-126) takes its place.
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


def top_k_hits(k: int) -> Callable[[ArrayLike, ArrayLike], Floats]:
    """Return the function that marks the rows whose true class is among the `k` most probable ones.

    Of equally probable classes the first is taken, as for the answer itself (`k` = 1).
    """

    def hits(y_true: ArrayLike, probabilities: ArrayLike) -> Floats:
        y, p = np.asarray(y_true), np.asarray(probabilities)
        return np.asarray(ranks(y, p) < k, dtype=np.float64)

    return hits


def ranks(y: NDArray[np.int64], p: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many classes stand before the true one of each row: more probable, or equal and first."""
    own = p[np.arange(len(y)), y][:, None]
    before = (p > own) | ((p == own) & (np.arange(p.shape[1]) < y[:, None]))
    return np.asarray(before.sum(axis=1))


def row_f1(y_true: ArrayLike, predicted: ArrayLike) -> Floats:
    """Compute F1 of the labels of each row: 2 x right labels / (true labels + predicted labels).

    Args:
        y_true: (n, K) zeros and ones.
        predicted: (n, K) zeros and ones.

    Returns:
        (n,) values in [0, 1]; 1 for a row that has no label and was given none.
    """
    y, said = np.asarray(y_true), np.asarray(predicted)
    both, either = 2.0 * (y & said).sum(axis=1), (y.sum(axis=1) + said.sum(axis=1)).astype(np.float64)
    return np.asarray(np.divide(both, either, out=np.ones(len(y)), where=either > 0))


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


class Expected(NamedTuple):
    """Moments of each row's loss if its probabilities are true.

    Attributes:
        mean: (n,) mean loss.
        variance: (n,) variance of the loss.
        third: (n,) third central moment.
        fourth: (n,) fourth central moment.
    """

    mean: Floats
    variance: Floats
    third: Floats
    fourth: Floats


def log_costs(probabilities: Floats) -> Floats:
    """Return (n, K) the log-loss that each row has where each class is the true one."""
    return np.asarray(-np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0)) + 0.0)


def brier_costs(probabilities: Floats) -> Floats:
    """Return (n, K) the Brier score that each row has where each class is the true one."""
    p = probabilities
    if p.shape[1] == 2:
        return np.column_stack([p[:, 1] ** 2, (p[:, 1] - 1) ** 2])
    return np.asarray((p**2).sum(axis=1, keepdims=True) - p**2 + (1 - p) ** 2)


def expected_loss(
    probabilities: ArrayLike, costs: Callable[[Floats], Floats], *, multilabel: bool = False
) -> Expected:
    """Compute the moments of each row's loss if its probabilities are true.

    Args:
        probabilities: (n, K) in [0, 1].
        costs: `log_costs` or `brier_costs`.
        multilabel: Whether the columns are K labels, whose losses are independent and averaged.

    Returns:
        The moments of each row's loss.
    """
    p = np.asarray(probabilities)
    step = max(1, _CHUNK // p.shape[1])
    parts = [
        _expected(np.asarray(p[start : start + step], dtype=np.float64), costs, multilabel)
        for start in range(0, len(p), step)
    ]
    return Expected(*map(np.concatenate, zip(*parts, strict=True)))


def _expected(p: Floats, costs: Callable[[Floats], Floats], multilabel: bool) -> Expected:
    if multilabel:
        rows, labels = p.shape
        each = _expected(np.column_stack([1 - p.ravel(), p.ravel()]), costs, False)
        mean, variance, third, fourth = (part.reshape(rows, labels) for part in each)
        # Cumulants of independent losses add up; the fourth cumulant is the fourth moment less three times
        # the squared variance.
        spread = variance.sum(axis=1) / labels**2
        excess = (fourth - 3 * variance**2).sum(axis=1) / labels**4
        return Expected(mean.mean(axis=1), spread, third.sum(axis=1) / labels**3, excess + 3 * spread**2)
    cost, share = costs(p), p / p.sum(axis=1, keepdims=True)
    mean = np.einsum("ij,ij->i", share, cost)
    away = cost - mean[:, None]
    square = away * away
    weighed = share * square
    third, fourth = (np.einsum("ij,ij->i", weighed, factor) for factor in (away, square))
    return Expected(mean, weighed.sum(axis=1), third, fourth)


class Ruled(NamedTuple):
    """Rows that give some class a probability of 0, and whether that class was the true one.

    Attributes:
        out: (n,) whether the row gives a class a probability of 0.
        happened: (n,) whether its true class is such a class.
        cost: The smallest loss of a row whose true class was given 0.
        hidden: (n,) the largest probability that rounding can have turned into the zeros of the row: half of
            the smallest probability that is not 0, for each class that is given 0.
    """

    out: NDArray[np.bool_]
    happened: NDArray[np.bool_]
    cost: float
    hidden: Floats


def ruled_out(y_true: NDArray[np.int64], probabilities: ArrayLike) -> Ruled:
    """Find the rows that give a class a probability of 0 (multilabel: that are certain of some label).

    Args:
        y_true: (n,) class indices, or (n, K) zeros and ones.
        probabilities: (n, K) in [0, 1].

    Returns:
        The rows, and the loss of such a row whose true class was given 0.
    """
    p = np.asarray(probabilities)
    zero = p < SMALLEST_PROBABILITY
    cost = -float(np.log(SMALLEST_PROBABILITY))
    if y_true.ndim == 2:
        one = p >= 1.0
        happened = np.asarray(np.where(y_true > 0, zero, one).any(axis=1))
        cost, zero = cost / p.shape[1], zero | one
    else:
        happened = zero[np.arange(len(p)), y_true]
    written = float(p.min(where=~zero, initial=1.0))
    hidden = np.minimum(zero.sum(axis=1) * (written / 2), 1.0)
    return Ruled(np.asarray(zero.any(axis=1)), happened, cost, hidden)
