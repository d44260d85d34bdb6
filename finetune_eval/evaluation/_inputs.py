"""Labels and probabilities as users have them, checked and put into one form."""

from __future__ import annotations

import math
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
    if isinstance(labels, (set, frozenset)):
        raise TypeError("`labels` must be in the order of the columns; a set has no order: pass a list.")
    names = tuple(str(label) for label in labels)
    if len(names) < 2 and names != ():
        raise ValueError(f"`labels` must name at least two classes; got {list(names)}.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`labels` must differ from each other; {twice!r} is there twice.")
    return names


def by_names(y: Any, named: tuple[str, ...]) -> Any:
    """Read labels that are numbers as the names of columns, where those are numbers other than 0, 1, 2, ...

    A label 1 beside the columns "1", "2", "3" is the first class by its name and the second by its place.
    What only one reading allows is read so; what both allow is refused.
    """
    array = np.asarray(y)
    numbers = {_number_of(name): name for name in named}
    if named == default_labels(len(named)) or None in numbers or len(numbers) < len(named):
        return y
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not set(array.tolist()) <= set(numbers):
        return y
    if array.min() >= 0 and array.max() < len(named):
        raise ValueError(
            f"`y_true` holds numbers that may be the names or the places of the columns "
            f"({', '.join(named[:5])}{', ...' if len(named) > 5 else ''}); pass names as text, or "
            "probabilities as an array where they are places."
        )
    return np.array([numbers[value] for value in array.tolist()], dtype=object)


def _number_of(name: str) -> float | None:
    if name.lower() in ("false", "true"):
        return float(name.lower() == "true")
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def labels_of_file(y: Any, named: Sequence[str]) -> Any:
    """Return the labels of a file as names where all of them name a class, however the number is written.

    Else numbers, also those written as text, are places.

    Args:
        y: (n,) texts, numbers or truth values; None and "" are missing.
        named: The class names that are known; they may be none.
    """
    numbers: dict[float | None, str] = {_number_of(name): name for name in named}
    unique = None not in numbers and len(numbers) == len(named)
    found: dict[Any, tuple[str | None, float | None]] = {}
    values = [None if value is None or value == "" else value for value in y]
    for value in set(values) - {None}:
        number = _number_of(str(value))
        name = str(value) if str(value) in named else numbers.get(number) if unique else None
        found[value] = (name, number)
    if all(name is not None for name, _ in found.values()):
        return np.array([None if value is None else found[value][0] for value in values], dtype=object)
    if all(number is not None for _, number in found.values()):
        return np.array([np.nan if value is None else found[value][1] for value in values], dtype=np.float64)
    return np.array(values, dtype=object)


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


def row_weights(values: Any) -> NDArray[np.float64]:
    """Return (n,) weights of rows, checked: finite, not negative, not all 0."""
    try:
        weights = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`sample_weight` must be numbers: {error}.") from None
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise ValueError(
            f"`sample_weight` must be finite and not negative; row {bad[0]} is {float(weights[bad[0]])!r}."
        )
    if weights.sum() == 0:
        raise ValueError("`sample_weight` is 0 in every row; at least one row must count.")
    return weights


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
