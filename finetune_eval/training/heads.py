"""Training heads on a frozen backbone: the features of all rows are computed once for many heads."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from finetune_eval.models.batching import by_row, forward
from finetune_eval.models.build import build_model
from finetune_eval.models.classifier import Classifier


def is_head_alone(model: Any) -> bool:
    """Return whether nothing but the head of a classifier is trained, on the features of texts or numbers."""
    return isinstance(model, Classifier) and model.columns is None and not model.backbone.trainable_variables


def features_of(model: Classifier, x: Any) -> np.ndarray:
    """Return (rows, width) float32: what the head of a classifier sees of raw rows."""
    backbone = keras.Model(model.input, model.get_layer("logits").input)
    batches = model.batches(x, batch_size=None)
    return by_row(forward(backbone, batches.spec), batches)


def head_of(model: Classifier, seed: int) -> Classifier:
    """Return a new classifier of the features of `model`: its head, with initial weights by the seed."""
    width = model.get_layer("logits").input.shape[1:]
    inputs = keras.Input(width, name="features")
    identity = keras.Model(inputs, keras.layers.Identity()(inputs))
    rate = model.get_layer("head_dropout").rate
    return build_model(identity, model.labels, dropout=rate, task=model.task, seed=seed)


def with_head(model: Classifier, head: Classifier) -> Classifier:
    """Give a classifier the weights of a head that was trained on its features, and return it."""
    for name in ("logits", "probabilities"):
        model.get_layer(name).set_weights(head.get_layer(name).get_weights())
    return model
