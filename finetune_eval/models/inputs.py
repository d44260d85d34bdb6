"""Rows, labels and weights as callers have them: checked, and put into arrays, before a model sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune_eval import _checks, _columns, _labels, _pairs, _rows
from finetune_eval._text import listed
from finetune_eval.data.splits import Rows

Arrays = np.ndarray | dict[str, np.ndarray]


def read(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    *,
    name: str = "x",
    batch: bool = False,
) -> tuple[Arrays, np.ndarray | None, np.ndarray | None]:
    """Return rows, labels and weights as arrays of one length. Arrays from here are read as they are.

    Args:
        model: The `Classifier` that they are for.
        x: As for `Classifier.encode`.
        y: Labels, or None.
        sample_weight: (n,) weights, or None.
        class_weight: Weights by class, or "balanced"; they are multiplied into the weights of the rows.
        name: What the caller calls `x`, for errors; labels have the same name with a y.
        batch: Whether these are one batch of many, in which all weights may be 0.

    Returns:
        The rows as `read_rows` gives them; (n,) `ClassIndices`, or (n, K) float32 where labels came one-hot
        or a row may have several; (n,) float32 weights. None stands for labels or weights that were not
        given.
    """
    y_name, w_name = (f"{name.removesuffix('x')}{part}" for part in ("y", "sample_weight"))
    _rows.same_order(**{name: _one_column(model, name, x), y_name: y, w_name: sample_weight})
    rows = read_rows(model, name, x)
    n = row_count(rows)
    labels: np.ndarray | None = None
    places: np.ndarray | None = None
    if y is not None and model.multilabel:
        if class_weight is not None:
            raise ValueError(
                "`class_weight` needs one class a row; with task='multilabel' pass `sample_weight` instead."
            )
        labels = _labels.read_many(y_name, y, model.labels).astype(np.float32)
        _checks.same_length(name, range(n), y_name, labels)
    elif y is not None:
        labels = places = _labels.ClassIndices(_labels.read(y_name, y, model.labels), model.labels)
        _checks.same_length(name, range(n), y_name, places)
        if np.ndim(y) == 2 and np.shape(y)[1] == len(model.labels):
            labels = np.eye(len(model.labels), dtype=np.float32)[places]
    weights = None if sample_weight is None else _rows.weights(w_name, sample_weight, n, zeros=batch)
    if class_weight is not None and places is not None:
        by_class = class_weights(class_weight, model.labels, places, weights)[places]
        weights = by_class if weights is None else weights * by_class
    if weights is None:
        return rows, labels, None
    narrow = _rows.float32(w_name, weights)
    if not batch and not narrow.any():
        raise ValueError(
            "`class_weight` and `sample_weight` leave no row with a weight above 0 (in float32, which ends "
            "at 1e-45): nothing would be learned or measured."
        )
    return rows, labels, narrow


def read_rows(model: Any, name: str, x: Any) -> Arrays:
    """Return checked rows: (n,) texts, (n, 2) texts of pairs, (n, ...) float32 numbers, or tokens by name.

    Where the model reads columns: a structured array of shape (n,), as `_columns` has it.
    """
    if model.columns is not None:
        rows: Arrays = model.columns.read(name, x)
    elif _are_tokens(model, x):
        rows = _tokens(name, {key: x[key] for key in model.input}, windows=model.windows)
    elif model.takes_pairs:
        rows = _pairs.pairs(name, x)
    elif model.takes_text:
        rows = _texts(name, _one_column(model, name, x))
    else:
        rows = _numbers(name, _one_column(model, name, x), model.input_shape[1:])
    if row_count(rows) == 0:
        raise ValueError(f"`{name}` has no rows; at least one is needed.")
    return rows


def _are_tokens(model: Any, x: Any) -> bool:
    return isinstance(x, Mapping) and model.takes_text and set(x) >= set(model.input)


def _one_column(model: Any, name: str, x: Any) -> Any:
    """Return the rows of a dictionary of one column; others as they are."""
    if model.columns is not None:
        return x.get(model.columns.text) if isinstance(x, Mapping) else x
    if not isinstance(x, Mapping) or model.takes_pairs or _are_tokens(model, x):
        return x
    return x[only_column(name, x)]


def only_column(name: str, columns: Any) -> Any:
    """Return the key of the one column there is."""
    if len(columns) != 1:
        raise ValueError(
            f"`{name}` has the columns {', '.join(map(repr, columns))}; this model reads one: pass that one."
        )
    return next(iter(columns))


def _texts(name: str, x: Any) -> np.ndarray:
    if _pairs.are_pairs(x):
        raise TypeError(
            f"`{name}` holds two texts a row, and this model reads one; build it with "
            "`build_model(..., pairs=True)`, or join the two."
        )
    if _columns.are_columns(x):
        raise TypeError(
            f"`{name}` holds the columns {listed(x.dtype.names)}, and this model reads one text; build it "
            "with `build_model(..., columns=...)`, or pass the text alone."
        )
    return _rows.texts(name, x)


def _numbers(name: str, x: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    rows = _rows.float32(name, x)
    fits = rows.ndim == len(shape) + 1 and all(
        want in (None, got) for want, got in zip(shape, rows.shape[1:], strict=True)
    )
    if len(rows) and not fits:
        wanted = ", ".join(map(str, ("rows", *shape)))
        raise ValueError(f"`{name}` must have shape ({wanted}); got {rows.shape}.")
    return rows


def _tokens(name: str, columns: dict[str, Any], *, windows: bool) -> dict[str, np.ndarray]:
    """Return a backbone's own inputs as arrays of whole numbers, all of one shape: (rows, tokens).

    For a model that reads windows: (rows, windows, tokens); rows that came as (rows, tokens) have one window.
    """
    arrays = {key: _rows.column(f"{name}[{key!r}]", values) for key, values in columns.items()}
    shape = arrays["padding_mask"].shape
    for key, array in arrays.items():
        known = array.ndim == 2 or (windows and array.ndim == 3)
        if not known or array.shape != shape or array.dtype.kind not in "biu":
            either = " or (rows, windows, tokens)" if windows else ""
            raise ValueError(
                f"`{name}` must hold (rows, tokens){either} whole numbers, all of the shape of "
                f"'padding_mask', {shape}; {key!r} has shape {array.shape} and dtype {array.dtype}."
            )
    if windows and len(shape) == 2:
        return {key: array[:, np.newaxis] for key, array in arrays.items()}
    return arrays


def row_count(rows: Arrays) -> int:
    """Return the number of rows: of a dictionary, of its first column."""
    return len(next(iter(rows.values())) if isinstance(rows, dict) else rows)


def class_weights(
    class_weight: Any, labels: Sequence[str], places: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return (K,) weights of the classes.

    Args:
        class_weight: A dictionary from class (by name or by place, as labels are read) to weight; or
            "balanced": rows / (classes * rows of the class), as in scikit-learn.
        labels: The K class names.
        places: (n,) labels of the rows, which "balanced" counts.
        weights: (n,) weights of the rows, by which they are counted; None counts each as 1.

    Raises:
        TypeError: It is neither a dictionary nor "balanced".
        ValueError: A class has no weight, or two, or (balanced) no row.
    """
    _checks.class_weight(class_weight)
    if isinstance(class_weight, str):
        counts = np.bincount(places, weights, minlength=len(labels))
        if (counts == 0).any():
            raise ValueError(
                "`class_weight` 'balanced' needs a row of every class; there is none of "
                f"{labels[int(counts.argmin())]!r}."
            )
        return np.asarray(counts.sum() / (len(labels) * counts))
    by_class = np.full(len(labels), np.nan)
    classes = _labels.read("class_weight.keys()", list(class_weight), labels) if class_weight else ()
    for place, (key, weight) in zip(classes, class_weight.items(), strict=True):
        if not np.isnan(by_class[place]):
            raise ValueError(f"`class_weight` has two weights for {labels[place]!r}; the second is {key!r}.")
        by_class[place] = _checks.number(f"class_weight[{key!r}]", weight, at_least=0)
    if np.isnan(by_class).any():
        raise ValueError(
            f"`class_weight` has no weight for {labels[int(np.isnan(by_class).argmax())]!r}; give every "
            "class one."
        )
    return by_class


def split_off(
    share: Any, rows: Arrays, labels: np.ndarray | None, weights: np.ndarray | None
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rows that train and the rows that validate, with their labels and weights, as Keras does.

    The first floor(n * (1 - share)) rows train, in the order they come.
    """
    n = row_count(rows)
    first = math.floor(n * (1.0 - _checks.number("validation_split", share, above=0, below=1)))
    if first == 0:
        raise ValueError(f"`validation_split` {share} leaves none of {n} rows to train on.")

    def part(values: Any, chosen: slice) -> Any:
        if isinstance(values, dict):
            return {name: column[chosen] for name, column in values.items()}
        return None if values is None else values[chosen]

    train, held_out = (
        tuple(part(values, chosen) for values in (rows, labels, weights))
        for chosen in (slice(None, first), slice(first, None))
    )
    return train, held_out


def validation_parts(data: Any) -> tuple[Any, ...]:
    """Return `(x, y)` or `(x, y, sample_weight)`; `Rows` of a data set are the former."""
    if isinstance(data, Rows):
        return tuple(data)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "`validation_data` must be `(x, y)`, `(x, y, sample_weight)` or a pipeline; "
            f"got {type(data).__name__}."
        )
    return tuple(data)
