"""Pipelines of batches that are few enough to be read whole: once, into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune_eval import _labels, _rows


def gives_batches(x: Any) -> bool:
    """Return whether `x` gives batches, not rows: a tf.data pipeline or a PyDataset."""
    return hasattr(x, "element_spec") or hasattr(x, "num_batches")


def refuse_beside(name: str, pipeline: Any, **given: Any) -> None:
    """Raise ValueError where labels or weights come beside a pipeline, which has its own."""
    if any(value is not None for value in given.values()):
        raise ValueError(
            f"`{name}` is a pipeline ({type(pipeline).__name__}), which gives the labels and weights; pass "
            "neither beside it."
        )


def collected(name: str, pipeline: Any) -> tuple[Any, Any, Any]:
    """Return the rows, labels and weights (or None) of a pipeline, read once: another pass may differ.

    Args:
        name: What the caller calls it, for errors.
        pipeline: What `gives_batches` is true of; each batch `(x, y)` or `(x, y, weights)`. A generator
            is refused: it does not tell whether it ends.

    Raises:
        ValueError: It never ends, is empty, or has no labels or single rows.
    """
    batches = _batches(name, pipeline)
    what = f"`{name}` is a pipeline ({type(pipeline).__name__})"
    if not batches:
        raise ValueError(f"{what} without a batch; at least one row is needed.")
    if not all(isinstance(batch, (tuple, list)) and len(batch) in (2, 3) for batch in batches):
        raise ValueError(f"{what} without labels; each batch must be (x, y) or (x, y, weights).")
    if len({len(batch) for batch in batches}) > 1:
        raise ValueError(f"{what} that gives weights in some batches only; give them in all or in none.")
    if any(np.ndim(batch[1]) == 0 for batch in batches):
        raise ValueError(f"{what} of single rows; batch it first: `x.batch(32)`.")
    if isinstance(batches[0][0], dict):
        rows: Any = {key: np.concatenate([batch[0][key] for batch in batches]) for key in batches[0][0]}
    else:
        rows = np.concatenate([_rows.column(name, batch[0]) for batch in batches])
        if rows.dtype.kind == "O" and rows.ndim == 1:
            rows = _rows.texts(name, rows)
    labels = _joined([batch[1] for batch in batches])
    weights = np.concatenate([np.asarray(batch[2]) for batch in batches]) if len(batches[0]) == 3 else None
    return rows, labels, weights


def _joined(batches: list[Any]) -> Any:
    """Return the labels of all batches as one; they keep the names that they know, or that columns have."""
    first = batches[0]
    if all(_labels.known_names(batch) is not None for batch in batches):
        return _labels.ClassIndices(
            np.concatenate([_labels.read("y", batch, first.labels) for batch in batches]), first.labels
        )
    words = [_labels.column_words(batch) for batch in batches]
    if words[0] is not None and None not in words:
        order = [_labels.column_order("y", each or (), words[0]) for each in words]
        tables = [batch.to_numpy()[:, places] for batch, places in zip(batches, order, strict=True)]
        return type(first)(np.concatenate(tables), columns=first.columns)
    return np.concatenate([_rows.column("y", batch) for batch in batches])


def _batches(name: str, pipeline: Any) -> list[Any]:
    what = f"`{name}` is a pipeline ({type(pipeline).__name__})"
    if hasattr(pipeline, "element_spec"):
        if int(pipeline.cardinality()) == -1:
            raise ValueError(f"{what} that never ends; take a number of batches: `{name}.take(100)`.")
        return list(pipeline.as_numpy_iterator())
    if getattr(pipeline, "num_batches", None) is None:  # a generator, too
        raise ValueError(f"{what} that does not tell how many batches it has.")
    return [pipeline[i] for i in range(pipeline.num_batches)]
