"""Several devices of one host by `tf.distribute.MirroredStrategy`: what makes them equal to one device.

Keras takes the mean of the devices' means; where the devices have unequal numbers of rows, as in the last
batch, that is not the mean of the batch. Here each device's mean counts by its rows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import keras

from finetune_eval.models.halves import in_strategy

P = ParamSpec("P")
R = TypeVar("R")


def in_scope(run: Callable[P, R]) -> Callable[P, R]:
    """Have a function whose first argument, or `model`, is a model run inside the scope of its strategy.

    Outside of it, optimizers would have variables that no device ever updates.
    """

    @functools.wraps(run)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with scope(args[0] if args else kwargs.get("model")):
            return run(*args, **kwargs)

    return inside


def scope(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Return the scope of the strategy that a model was built in; where there was none, a context of nothing.

    Raises:
        ValueError: The caller is in the scope of another strategy than the model was built in.
    """
    if not in_strategy():
        own = getattr(model, "_distribute_strategy", None)
        return contextlib.nullcontext() if own is None else own.scope()
    check_strategy()
    if isinstance(model, keras.Model) and model._distribute_strategy is not _strategy():
        raise ValueError(
            "`model` was not built in the `tf.distribute` strategy that it is used in; build or load it "
            "inside the same `strategy.scope()`."
        )
    return contextlib.nullcontext()


def check_strategy() -> None:
    """Raise inside the scope of a `tf.distribute` strategy that models cannot be trained in."""
    if not in_strategy():
        return
    import tensorflow as tf

    known = tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy
    if not isinstance(strategy := _strategy(), known):
        name = type(strategy).__name__.replace("CollectiveAllReduce", "MultiWorkerMirrored")
        raise ValueError(
            f"A {name} cannot be used: models do not train in it. Use `tf.distribute.MirroredStrategy` for "
            "the devices of one host, and the JAX backend (KERAS_BACKEND=jax) with "
            '`fine_tune(..., distribution="data_parallel")` for several hosts.'
        )


def check_training(model: Any) -> None:
    """Raise inside a strategy for layers whose training looks at all the rows of a batch."""
    if not in_strategy():
        return
    for layer in model._flatten_layers():
        batch = isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        if batch or getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"The layer {layer.name!r} cannot be trained inside a `tf.distribute` strategy: "
                f"{'batch normalisation' if batch else 'its activity regulariser'} looks at all rows of a "
                "batch, of which each device has a part. Freeze the backbone "
                "(`build_model(..., freeze=True)`), or train on one device."
            )


def check_compiled(optimizer: Any, loss: Any) -> None:
    """Raise inside a strategy for an optimizer of another scope, and for a loss that is no mean over rows."""
    if not in_strategy():
        return
    own = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_distribution_strategy", None)
    if own is not None and own is not _strategy():
        raise ValueError(
            "`optimizer` was made outside of the model's `tf.distribute` strategy and would train nothing; "
            "make it inside `strategy.scope()`."
        )
    for each in keras.tree.flatten(loss):
        reduction = getattr(each, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean"):
            raise ValueError(
                f"`loss` must have the reduction 'sum_over_batch_size' inside a `tf.distribute` strategy; "
                f"{type(each).__name__} has {reduction!r}."
            )


def train_step(model: Any, data: Any) -> Any:
    """Do Keras' training step on one device's part of a batch, whose loss counts by its rows."""
    import tensorflow as tf

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    rows = tf.shape(y)[0]
    context = tf.distribute.get_replica_context()
    all_rows, devices = context.all_reduce("SUM", rows), context.num_replicas_in_sync
    weights = model.trainable_weights
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        # Keras has divided it by the number of devices, for the sum of their gradients to be a mean.
        loss = devices * model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )
        part_of_all = model.optimizer.scale_loss(loss * tf.cast(rows / all_rows, loss.dtype))
    model._loss_tracker.update_state(loss, sample_weight=rows)
    model.optimizer.apply_gradients(zip(tape.gradient(part_of_all, weights), weights, strict=True))
    return model.compute_metrics(x, y, y_pred, sample_weight)


class Totals:
    """A step of Keras, whose logs are the metrics of all devices' rows: Keras gives the mean of their means.

    Args:
        model: The model.
        step: Its training or evaluation function, for one or several devices.
    """

    def __init__(self, model: Any, step: Callable[[Any], Any]):
        self._model, self._step = model, step

    def __call__(self, data: Any) -> Any:
        """Do the step, and return the logs."""
        self._step(data)
        return self._model.get_metrics_result()


def add_totals(model: Any, name: str) -> None:
    """Inside a strategy, wrap the step that Keras keeps under a name in `Totals`."""
    step = getattr(model, name)
    if in_strategy() and not isinstance(step, Totals):
        setattr(model, name, Totals(model, step))


def _strategy() -> Any:
    import tensorflow as tf

    return tf.distribute.get_strategy()
