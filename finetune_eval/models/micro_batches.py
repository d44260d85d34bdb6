"""Computing a training batch of many tokens in parts, one after the other: the same step in less memory."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from finetune_eval._cores import cores
from finetune_eval.models.batching import Batches
from finetune_eval.models.halves import on_one_cpu

# Tokens of a micro-batch for each core, in a batch of mean size. What is more leaves the processor's caches,
# what is less costs more to begin than it spares (docs/performance.md). The largest batch may have twice
# that.
_TOKENS = 512


def how_many(model: Any, batches: Batches) -> int:
    """Return as how many micro-batches, a power of 2, a batch should be computed.

    1 for short texts, on a GPU, with a `tf.distribute` strategy, on JAX, and where rows may depend on each
    other.
    """
    text = batches.rows.offsets is not None
    if not (text and model.rows_apart and on_one_cpu()):
        return 1
    rows = max(map(len, batches.order))
    tokens = np.array([len(rows) * batches.lengths[rows].max() for rows in batches.order])
    needed = max(tokens.mean(), tokens.max() / 2) / (_TOKENS * max(2, cores()))
    count = 1
    while count < needed and rows >= 4 * count:  # 2 rows in each: a row for each half
        count *= 2
    return count


def train_step(model: Any, data: Any, count: int) -> Any:
    """Do Keras' training step on one batch, on TensorFlow, where the loss is a mean over rows.

    What is kept of a micro-batch for its gradient is free before the next begins. The gradients are those of
    the whole batch but for rounding; dropout draws other masks.
    """
    import tensorflow as tf

    weights = model.trainable_weights
    all_rows = tf.shape(tf.nest.flatten(data)[0])[0]

    def gradients(data: Any) -> list[Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        rows = tf.shape(y)[0]
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            part_of_all = model.optimizer.scale_loss(loss * tf.cast(rows / all_rows, loss.dtype))
        model._loss_tracker.update_state(loss, sample_weight=rows)
        model.compute_metrics(x, y, y_pred, sample_weight)
        found: list[Any] = tape.gradient(part_of_all, weights)
        return found

    # Kept as one function its graph is made once. Calls of it follow each other, for each counts its rows.
    run = tf.function(gradients, autograph=False, experimental_attributes={"_noinline": True})
    summed: list[Any] = []
    for first in range(count):
        # Not neighbours: each micro-batch has short and long rows, and as many tokens in each half.
        found = run(tf.nest.map_structure(lambda array, first=first: array[first::count], data))
        summed = [_sum(*pair) for pair in zip(summed, found, strict=True)] if summed else found
    model.optimizer.apply_gradients(zip(summed, weights, strict=True))
    return model.get_metrics_result()


def train_step_on_jax(model: Any, arguments: tuple[Any, Any], count: int) -> Any:
    """Do what `train_step` does, on JAX: return the logs and the state after the step."""
    import jax

    state, data = arguments
    trainable, non_trainable, of_optimizer, of_metrics = state
    derive = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
    rows = jax.tree_util.tree_leaves(data)[0].shape[0]
    summed: Any = None
    logs: Any = None
    for first in range(min(count, rows)):
        part = jax.tree_util.tree_map(lambda array, first=first: array[first::count], data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(part)
        (_, aux), gradients = derive(
            trainable,
            non_trainable,
            of_metrics,
            x,
            y,
            weight,
            training=True,
            optimizer_variables=of_optimizer,
        )
        loss, y_pred, non_trainable, of_metrics = aux
        share = y.shape[0] / rows
        gradients = [gradient * share for gradient in gradients]
        summed = gradients if summed is None else [a + b for a, b in zip(summed, gradients, strict=True)]
        # One part after the other: XLA would else be free to keep what all of them need for their gradients.
        summed, non_trainable = jax.lax.optimization_barrier((summed, non_trainable))
        logs, of_metrics = model._update_metrics_variables(of_metrics, loss, x, y, y_pred, weight)
    trainable, of_optimizer = model.optimizer.stateless_apply(of_optimizer, summed, trainable)
    return logs, (trainable, non_trainable, of_optimizer, of_metrics)


def train_step_on_torch(model: Any, data: Any, count: int) -> Any:
    """Do what `train_step` does, on torch, which adds up the gradients of the parts by itself."""
    import torch

    weights = model.trainable_weights
    rows = keras.tree.flatten(data)[0].shape[0]
    model.zero_grad()
    for first in range(min(count, rows)):
        part = keras.tree.map_structure(lambda array, first=first: array[first::count], data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
        y_pred = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        model._loss_tracker.update_state(loss, sample_weight=y.shape[0])
        model.optimizer.scale_loss(loss * (y.shape[0] / rows)).backward()
        model.compute_metrics(x, y, y_pred, sample_weight)
    with torch.no_grad():
        model.optimizer.apply([weight.value.grad for weight in weights], weights)
    return model.get_metrics_result()


def _sum(gradient: Any, other: Any) -> Any:
    import tensorflow as tf

    if gradient is None:
        return None
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient + other
    values, indices = (
        tf.concat(parts, axis=0)
        for parts in ((gradient.values, other.values), (gradient.indices, other.indices))
    )
    return tf.IndexedSlices(values, indices, gradient.dense_shape)
