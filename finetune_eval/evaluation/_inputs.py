"""Probabilities as users have them, checked and put into one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import counted, listed
from finetune_eval.evaluation._outputs import two_columns

# A float32 softmax sums to 1 within this. What misses it by more is divided by its sum, and that is said: two
# decimals of a file, bfloat16, a forest's votes. Scores of labels that do not exclude each other miss it by
# much more.
_EXACT_SUM, _ROUNDED_SUM = 1e-3, 0.05
_ROUNDING = 1e-3  # how far outside [0, 1] a probability is still rounding


def read_probabilities(
    values: Any, task: str, labels: Sequence[str] | None = None
) -> tuple[NDArray[Any], tuple[str, ...] | None, tuple[str, ...]]:
    """Return (n, K) probabilities in [0, 1], the names of their columns if any, and what to warn of.

    Args:
        values: (n,), (n, 1) or (n, K). A DataFrame's columns are named `<class>` or `p_<class>`.
        task: "classification" (rows sum to 1) or "multilabel".
        labels: The class names, where they are known: the columns are put into their order.

    Raises:
        ValueError: They are no probabilities; or their columns are named, but not by the classes.
    """
    named = _column_names(values, labels)
    p = _in_bounds(values)
    if named is not None and labels is not None and len(named) == len(labels):
        p, named = p[:, _labels.column_order("probabilities", named, labels)], tuple(labels)
    if task == "multilabel":
        return (p[:, None] if p.ndim == 1 else p), named, ()
    if p.ndim == 1 or p.shape[1] == 1:
        return two_columns(p.reshape(-1)), named if named and len(named) == 2 else None, ()
    p, sums = _summing_to_one(p)
    return p, named, about_sums(len(sums), sums, len(p)) if len(sums) else ()


def _in_bounds(values: Any) -> NDArray[Any]:
    """Return probabilities as float32 or float64, (n,) or (n, K), each of them in [0, 1]."""
    p = _rows.numbers("probabilities", values)
    _checks.not_empty("probabilities", p)
    if p.ndim not in (1, 2):
        raise ValueError(f"`probabilities` must have shape (rows, classes) or (rows,); got {p.shape}.")
    if p.dtype not in (np.float32, np.float64):
        p = p.astype(np.float32 if p.dtype.itemsize < 4 else np.float64)
    return _within_bounds(p)


def read_part(values: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return (n, K) probabilities of classes, read as `read_probabilities` does, and the sums that it mended.

    Args:
        values: (n, K), or (n,) of the second of two classes; without names.
    """
    p = _in_bounds(values)
    return (two_columns(p), np.empty(0)) if p.ndim == 1 else _summing_to_one(p)


def _column_names(values: Any, labels: Sequence[str] | None) -> tuple[str, ...] | None:
    words = _labels.column_words(values)
    if words is None or (labels is not None and set(words) == set(labels)):
        return words
    if all(word.startswith("p_") for word in words):
        return tuple(word.removeprefix("p_") for word in words)
    return words


def _within_bounds(p: NDArray[Any]) -> NDArray[Any]:
    outside = ~((p >= -_ROUNDING) & (p <= 1 + _ROUNDING))
    if outside.any():
        row = int(outside.reshape(len(p), -1).any(axis=1).argmax())
        raise ValueError(
            f"`probabilities` must lie in [0, 1]; row {row} is {_shown(p[row])}. If these are logits, take "
            "their "
            "softmax (of one column: their sigmoid) first."
        )
    return np.asarray(np.clip(p, 0, 1))


def _summing_to_one(p: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Divide rows that miss a sum of 1 by rounding by their sum; return these sums, too."""
    sums = p.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1)
    if (off > _ROUNDED_SUM).any():
        row = int((off > _ROUNDED_SUM).argmax())
        raise ValueError(
            f"`probabilities` must sum to 1 in each row; row {row}, {_shown(p[row])}, sums to "
            f"{sums[row]:.4g}. Pass "
            "task='multilabel' for labels that do not exclude each other; divide each row by its sum where "
            "a class "
            "or a digit was left out."
        )
    scaled = off > _EXACT_SUM
    if scaled.any():
        p = p.copy()
        p[scaled] = (p[scaled] / sums[scaled, None]).astype(p.dtype)
    return p, sums[scaled]


def about_sums(many: int, sums: NDArray[np.float64], n: int) -> tuple[str, ...]:
    """Say that the probabilities of `many` of n rows did not sum to 1; `sums` has the extremes."""
    verb, their = ("sums", "they were") if many == 1 else ("sum", "each was")
    return (
        f"The probabilities of {many:,} of {counted(n, 'row')} {verb} to {sums.min():.3f} to "
        f"{sums.max():.3f}, not to 1, as rounded ones do: {their} divided by the sum.",
    )


def _shown(row: NDArray[Any]) -> str:
    values = ", ".join(f"{value:.4g}" for value in np.atleast_1d(row)[:6])
    return f"[{values}{', ...' if np.size(row) > 6 else ''}]"


def names_of(labels: Any, named: tuple[str, ...] | None, y_true: Any, columns: int) -> tuple[str, ...]:
    """Return the class names: those given, those of the columns, those that the labels know, or "0", "1", ...

    Raises:
        ValueError: The labels are names, and nothing says which column is which; or there is another number
            of names than of columns.
    """
    known = getattr(y_true, "labels", None) if isinstance(y_true, _labels.ClassIndices) else None
    if labels is not None:
        names = _labels.class_names(labels)
    elif named is not None:
        names = _labels.class_names(named)
    elif known is not None and len(known) == columns:
        names = known
    elif _rows.are_texts(y_true) and not _labels.are_numbers(y_true):
        raise ValueError(
            "`labels` is needed when `y_true` holds class names: which column of `probabilities` is "
            "which class? Pass labels=[...] in the order of the columns."
        )
    else:
        names = _labels.default_names(columns)
    if len(names) != columns:
        raise ValueError(
            f"`probabilities` must have one column for each of the {len(names)} labels "
            f"({listed(names, 5, quote=False)}); got {counted(columns, 'column')}."
        )
    return names


def class_probabilities(y_true: Any, probabilities: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return (n,) class indices and (n, K) probabilities of classification rows, checked.

    Args:
        y_true: Labels in any form.
        probabilities: (n,), (n, 1) or (n, K).
    """
    _rows.same_order(y_true=y_true, probabilities=probabilities)
    p, named, _ = read_probabilities(probabilities, "classification")
    y = _labels.read("y_true", y_true, names_of(None, named, y_true, p.shape[1]))
    _checks.same_length("y_true", y, "probabilities", p)
    return y, p


def row_weights(values: Any) -> NDArray[np.float64]:
    """Return (n,) weights of rows, checked."""
    return _rows.weights("sample_weight", values, len(_rows.column("sample_weight", values)))
