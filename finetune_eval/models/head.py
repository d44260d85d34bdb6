"""The head of a classifier: dropout, a linear layer over features and columns, and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from finetune_eval._columns import Columns
from finetune_eval.models.layers import TemperedSigmoid, TemperedSoftmax


def new_head(
    features: Any,
    columns: Columns | None,
    *,
    labels: Sequence[str],
    task: str,
    dropout: float,
    seed: int,
) -> tuple[Any, dict[str, Any]]:
    """Return the probabilities that a new head gives, and its input of columns by name, where there are any.

    Args:
        features: (rows, width), of the backbone.
        columns: The columns beside the text of a row, or None.
        labels: As for `Network`.
        task: As for `Network`.
        dropout: As for `Network`.
        seed: As for `Network`.
    """
    x = keras.layers.Dropout(dropout, seed=seed, name="head_dropout")(features)
    logits = keras.layers.Dense(
        len(labels),
        # As BERT's heads: Devlin et al. 2019, initializer_range 0.02.
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=seed),
        dtype="float32",
        name="logits",
    )(x)
    beside = input_of(columns)
    if beside:
        # 0 until the first training begins (`strategies.start_head`).
        of_columns = keras.layers.Dense(
            len(labels), use_bias=False, kernel_initializer="zeros", dtype="float32", name="columns_logits"
        )(beside["columns"])
        logits = keras.layers.Add(dtype="float32", name="all_logits")([logits, of_columns])
    head = TemperedSigmoid if task == "multilabel" else TemperedSoftmax
    return head(dtype="float32", name="probabilities")(logits), beside


def input_of(columns: Columns | None) -> dict[str, Any]:
    """Return a new Keras input of columns by its name; none where there are no columns."""
    if columns is None:
        return {}
    return {"columns": keras.Input((columns.width,), dtype="float32", name="columns")}


def through_head(model: Any, features: Any, beside: dict[str, Any]) -> Any:
    """Return the probabilities that a model's head gives for other features, and other columns."""
    logits = model.get_layer("logits")(model.get_layer("head_dropout")(features))
    if beside:
        of_columns = model.get_layer("columns_logits")(beside["columns"])
        logits = model.get_layer("all_logits")([logits, of_columns])
    return model.get_layer("probabilities")(logits)
