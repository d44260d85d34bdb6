"""The bias of an average precision, which is too high because each positive row counts itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def average_precision_bias(
    positive: NDArray[np.bool_],
    scores: Floats,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
    *,
    counts: Floats | None = None,
) -> float:
    """Estimate by how much an average precision is too high because each positive row counts itself.

    The precision at a row is compared with the precision among the rows of other groups (or the other rows)
    that score at least as high. Where there are no such rows, the difference is taken to be 0.

    Args:
        positive: (n,) True for rows of the positive class; at least one.
        scores: (n,) higher means more positive.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None where rows are independent.
        counts: (n,) how many such rows there are, without weights and groups; None: one of each.

    Returns:
        The mean difference over the positive rows.
    """
    w = np.ones(len(scores)) if weights is None else weights
    own_w = w
    if counts is not None:
        w = counts
    _, place = np.unique(-scores, return_inverse=True)
    together = np.zeros_like(place)
    total, hits = (_as_high(part, place, together)[positive] for part in (w, w * positive))
    own, own_hits = (_as_high(part, place, groups)[positive] for part in (own_w, own_w * positive))
    w, others = w[positive], total - own
    precision = np.divide(hits, total, out=np.zeros_like(w), where=total > 0)
    there = others > 1e-12 * total
    among_others = np.divide(hits - own_hits, others, out=precision.copy(), where=there)
    return float(w @ (precision - among_others) / w.sum())


def _as_high(weights: Floats, place: NDArray[np.int64], groups: NDArray[np.int64] | None) -> Floats:
    """Return (n,) sums of the weights of the rows of the same group whose place is at most the row's own."""
    if groups is None:
        return weights
    many = int(place.max()) + 1
    cells, cell = np.unique(groups * many + place, return_inverse=True)
    sums = np.r_[0.0, np.cumsum(np.bincount(cell, weights=weights))]
    return np.asarray(sums[cell + 1] - sums[np.searchsorted(cells, groups * many)])


def mean_precision_bias(
    y: NDArray[np.int64],
    probabilities: Floats,
    average: str,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
) -> float:
    """Return the mean bias over the classes. Biases of classes add up, while their errors average out."""
    one_hot = y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(probabilities.shape[1])
    rows = np.ones(len(y)) if weights is None else weights
    if average == "micro":
        return 0.0
    columns = [k for k in range(one_hot.shape[1]) if 0 < rows @ one_hot[:, k] < rows.sum()]
    shares = [float(rows @ one_hot[:, k]) if average == "weighted" else 1.0 for k in columns]
    biases = [average_precision_bias(one_hot[:, k], probabilities[:, k], weights, groups) for k in columns]
    return max(float(np.average(biases, weights=shares)), 0.0)
