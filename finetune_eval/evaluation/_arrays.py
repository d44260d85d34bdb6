"""The rows of an evaluation as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


class ClassifiedRows(NamedTuple):
    """Rows with one label each, and the probabilities that a model gave them.

    Attributes:
        y: (n,) true class indices.
        predicted: (n,) class indices of the answers.
        p: (n, K) probabilities.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None.
    """

    y: NDArray[np.int64]
    predicted: NDArray[np.int64]
    p: NDArray[Any]
    weights: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None


def classified_rows(
    predictions: pd.DataFrame, labels: tuple[str, ...], task: str, name: str = "evaluation"
) -> ClassifiedRows:
    """Return the rows of an evaluation as arrays.

    Args:
        predictions: `Evaluation.predictions`.
        labels: The K class names.
        task: "classification" or "multilabel".
        name: What the caller calls the evaluation, for the error.

    Raises:
        ValueError: There are no probabilities, or rows have several labels each.
    """
    if task != "classification":
        raise ValueError(f"`{name}` must be of rows with one label each; these rows may have several.")
    if "loss" not in predictions:
        raise ValueError(f"`{name}` must have probabilities; this model gave answers only.")
    import pandas as pd

    places = pd.Index(list(labels))
    return ClassifiedRows(
        np.asarray(places.get_indexer(predictions["label"]), dtype=np.int64),
        np.asarray(places.get_indexer(predictions["prediction"]), dtype=np.int64),
        predictions[[f"p_{label}" for label in labels]].to_numpy(),
        predictions["weight"].to_numpy(np.float64) if "weight" in predictions else None,
        np.unique(predictions["group"], return_inverse=True)[1] if "group" in predictions else None,
    )
