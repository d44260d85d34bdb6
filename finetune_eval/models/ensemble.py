"""One classifier that averages the probabilities of several, saves, and loads like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from finetune_eval.models.build import build_model
from finetune_eval.models.classifier import Classifier

_SMALLEST = float(np.finfo(np.float32).tiny)  # the smallest probability whose logarithm float32 has


@keras.saving.register_keras_serializable("finetune_eval")
class MeanLogProbability(keras.layers.Layer):
    """The logarithm of the mean of several models' probabilities: a vector a row, or the same one a token."""

    def call(self, probabilities: Any, padding_mask: Any = None) -> Any:
        """Return (rows, classes), or (rows, tokens, classes) where a mask is given."""
        mean = sum(probabilities) / len(probabilities)
        logarithm = keras.ops.log(keras.ops.maximum(mean, _SMALLEST))
        if padding_mask is None:
            return logarithm
        # A classifier pools what its backbone gives for each token: the mean of equal vectors is that vector.
        tokens = keras.ops.ones_like(padding_mask, dtype=logarithm.dtype)
        return keras.ops.expand_dims(logarithm, 1) * keras.ops.expand_dims(tokens, -1)

    def compute_output_shape(self, probabilities_shape: Any, padding_mask_shape: Any = None) -> Any:
        """Return the shape of what `call` gives."""
        rows, classes = probabilities_shape[0]
        return (rows, classes) if padding_mask_shape is None else (*padding_mask_shape, classes)


def average_of(models: Sequence[Classifier]) -> Classifier:
    """Return one classifier on raw rows whose probabilities are the mean of those of several.

    It holds the weights of all of them: k times the memory, and k times the time of a `predict`.

    Args:
        models: Classifiers of the same classes, with the same tokenizer or the same numbers a row.

    Raises:
        ValueError: They read long texts in windows, or columns, or give several labels a row.
    """
    first = models[0]
    if first.multilabel:
        raise ValueError(
            "`ensemble` averages models of one class a row; these may give several labels. Average the "
            "`predict` of `.models`."
        )
    if first.columns is not None:
        raise ValueError(
            "`ensemble` cannot be one model where rows have columns, which each model learnt from other "
            "rows; average the `predict` of `.models`."
        )
    if first.windows:
        raise ValueError(
            "`ensemble` cannot be one model where long texts are read in windows; average the `predict` of "
            "`.models`."
        )
    if first.takes_text:
        inputs: Any = {
            name: keras.Input(each.shape[1:], dtype=each.dtype, name=name)
            for name, each in first.input.items()
        }
    else:
        inputs = keras.Input(first.input.shape[1:], name="rows")
    members = [
        keras.Model(model.input, model.output, name=f"member_{place}") for place, model in enumerate(models)
    ]
    mask = inputs["padding_mask"] if first.takes_text else None
    mean = MeanLogProbability(name="mean")([member(inputs) for member in members], mask)
    backbone = keras.Model(inputs, mean, name="ensemble")
    preprocessor = first.preprocessor if first.takes_text else None
    pooling = "mean" if first.takes_text else "auto"
    model = build_model(backbone, first.labels, pooling=pooling, dropout=0.0, preprocessor=preprocessor)
    classes = len(first.labels)
    model.get_layer("logits").set_weights([np.eye(classes), np.zeros(classes)])  # softmax(log p) is p
    return model
