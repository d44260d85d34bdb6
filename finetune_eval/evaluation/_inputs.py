"""Labels and probabilities as users have them, checked and put into one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation._outputs import two_columns

_SUM_TOLERANCE = 1e-3  # a float32 softmax stays within; logits do not
_HALF_SUM_TOLERANCE = 1e-2  # float16


def default_labels(classes: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(classes))


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, (str, bytes)):
        raise TypeError(f"`labels` must be a list of class names; got the single text {labels!r}.")
    names = tuple(str(label) for label in labels)
    if len(names) < 2 and names != ():
        raise ValueError(f"`labels` must name at least two classes; got {list(names)}.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`labels` must differ from each other; {twice!r} is there twice.")
    return names


def holds_names(y: Any) -> bool:
    array = np.asarray(y)
    if array.dtype.kind in "UST":
        return True
    return array.dtype.kind == "O" and any(isinstance(value, (str, bytes)) for value in array.ravel()[:100])


def true_labels(name: str, y: Any, labels: tuple[str, ...], task: str) -> NDArray[np.int64]:
    """Return (n,) class indices, or (n, K) zeros and ones for multilabel rows."""
    if task != "multilabel" or y is None:
        return _checks.label_indices(name, y, labels)
    array = np.asarray(y)
    if array.ndim != 2 or array.shape[1] != len(labels) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be zeros and ones of shape (rows, {len(labels)}) where task='multilabel'; "
            f"got shape {array.shape}, dtype {array.dtype}."
        )
    bad = np.flatnonzero(~((array == 0) | (array == 1)).all(axis=1))
    if bad.size:
        raise ValueError(f"`{name}` must be zeros and ones; row {bad[0]} is {array[bad[0]].tolist()}.")
    return array.astype(np.int64)


def read_probabilities(values: Any, task: str) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return (n, K) float probabilities, and the labels where the columns name them."""
    named = None
    if hasattr(values, "columns"):
        named = tuple(str(name).removeprefix("p_") for name in values.columns)
        values = values.to_numpy()
    try:
        p = np.asarray(values)
        if p.dtype.kind != "f":
            p = p.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`probabilities` must be numbers of shape (rows, classes): {error}.") from None
    _checks.not_empty("probabilities", p if p.ndim else [0])
    if p.ndim not in (1, 2):
        raise ValueError(f"`probabilities` must have shape (rows, classes) or (rows,); got {p.shape}.")
    half = p.dtype.itemsize < 4
    if half:
        p = p.astype(np.float32)
    flat = p[:, None] if p.ndim == 1 else p
    low, high = flat.min(axis=1), flat.max(axis=1)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~((low >= 0) & (high <= 1 + _SUM_TOLERANCE)))
    if bad.size:
        row = flat[bad[0]]
        raise ValueError(
            f"`probabilities` must lie in [0, 1]; row {bad[0]} is {_shown(row)}."
            + ("" if np.isnan(row).any() else " Are these logits? Take their softmax first.")
        )
    if flat.shape[1] == 1 and task != "multilabel":
        return two_columns(flat[:, 0]), named if named and len(named) == 2 else None
    if task != "multilabel":
        tolerance = _HALF_SUM_TOLERANCE if half else _SUM_TOLERANCE
        sums = p.sum(axis=1, dtype=np.float64)
        bad = np.flatnonzero(np.abs(sums - 1) > tolerance)
        if bad.size:
            raise ValueError(
                f"`probabilities` must sum to 1 in each row; row {bad[0]}, {_shown(p[bad[0]])}, sums to "
                f"{sums[bad[0]]:.4g}. Take the softmax of logits first, or pass task='multilabel' for "
                "labels that do not exclude each other."
            )
    return p, named


def _shown(row: NDArray[Any]) -> str:
    values = ", ".join(f"{value:.4g}" for value in row[:6])
    return f"[{values}{', ...' if len(row) > 6 else ''}]"


def class_probabilities(y_true: Any, probabilities: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return (n,) class indices and (n, K) probabilities of classification rows, checked.

    Args:
        y_true: Labels in any form, or None where only the probabilities matter (an empty array is returned).
        probabilities: (n,), (n, 1) or (n, K).
    """
    p, named = read_probabilities(probabilities, "classification")
    if y_true is None:
        return np.empty(0, dtype=np.int64), p
    y = _checks.label_indices("y_true", y_true, named or default_labels(p.shape[1]))
    _checks.same_length("y_true", y, "probabilities", p)
    return y, p
