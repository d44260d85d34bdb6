"""What the head is made of: the pooling over tokens, the probabilities with their temperature, the losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _checks

# The smallest positive normal float32: a probability that underflowed to 0 costs 87 nats, not infinity.
_TINY = float(np.finfo("float32").tiny)
POOLINGS = ("mean", "cls", "max", "last")


@keras.saving.register_keras_serializable(package="finetune_eval")
class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of softmax probabilities and integer or one-hot labels.

    `loss = -log p[true]`, with label smoothing `(1 - s) * loss + s * mean over classes of -log p`. Unlike
    Keras' own, probabilities are not clipped at 1e-7: a row that is confidently wrong keeps its true loss and
    its gradient.

    Args:
        label_smoothing: `s`, in [0, 1).
        name: Name of the loss.
        reduction: How rows are combined, as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        name: str = "cross_entropy",
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(name=name, reduction=reduction)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return (rows,) losses in nats."""
        nats = self._costs(ops.maximum(y_pred, _TINY))
        if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
            loss = ops.sum(ops.cast(y_true, nats.dtype) * nats, axis=-1)
        else:
            target = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
            loss = ops.take_along_axis(nats, target, axis=-1)[:, 0]
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * ops.mean(nats, axis=-1)
        return loss

    def _costs(self, probabilities: Any) -> Any:
        """Return what each class would cost, were it the true one."""
        return -ops.log(probabilities)

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the loss."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="finetune_eval")
class FocalLoss(CrossEntropy):
    """Focal loss: the cross-entropy of a class times `(1 - p) ** gamma`, so that rows well known count less.

    Takes integer or one-hot labels. It has no factor for each class, as other implementations do: that is
    what class weights are for.

    Args:
        gamma: 0 gives the cross-entropy.
        label_smoothing: As for `CrossEntropy`.
        name: Name of the loss.
        reduction: How rows are combined, as in `keras.losses.Loss`.

    Reference:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", which finds a gamma of 2 best.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        label_smoothing: float = 0.0,
        name: str = "focal_loss",
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(label_smoothing, name=name, reduction=reduction)
        self.gamma = gamma

    def _costs(self, probabilities: Any) -> Any:
        return ops.power(ops.maximum(1 - probabilities, 0.0), self.gamma) * super()._costs(probabilities)

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the loss."""
        return {**super().get_config(), "gamma": self.gamma}


class _EachLabel:
    """Has a loss judge each label by itself: (rows, labels) zeros and ones, sigmoid probabilities."""

    def call(self: Any, y_true: Any, y_pred: Any) -> Any:
        """Return (rows,) losses in nats, the mean over the labels; smoothing takes a target to 1/2."""
        there, not_there = (self._costs(ops.maximum(p, _TINY)) for p in (y_pred, 1 - y_pred))
        target = ops.cast(y_true, there.dtype)
        target = (1 - self.label_smoothing) * target + self.label_smoothing / 2
        return ops.mean(target * there + (1 - target) * not_there, axis=-1)


@keras.saving.register_keras_serializable(package="finetune_eval")
class MultilabelCrossEntropy(_EachLabel, CrossEntropy):
    """Binary cross-entropy of each label, the mean over labels; its arguments are those of `CrossEntropy`."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class MultilabelFocalLoss(_EachLabel, FocalLoss):
    """Focal loss of each label, the mean over labels; its arguments are those of `FocalLoss`."""


# The losses of `fine_tune` by task and name.
LOSSES = {
    "classification": {"cross_entropy": CrossEntropy, "focal": FocalLoss},
    "multilabel": {"cross_entropy": MultilabelCrossEntropy, "focal": MultilabelFocalLoss},
}


@keras.saving.register_keras_serializable(package="finetune_eval")
def all_labels_right(y_true: Any, y_pred: Any) -> Any:
    """Return (rows,) 1 where each label is given from a probability of 1/2 on exactly if it is true."""
    right = ops.equal(ops.cast(y_true, "bool"), y_pred >= 0.5)
    return ops.cast(ops.all(right, axis=-1), "float32")


@keras.saving.register_keras_serializable(package="finetune_eval")
class Pooling(keras.layers.Layer):
    """(rows, tokens, width) and a (rows, tokens) mask -> (rows, width), by `mode`: mean, max, cls or last."""

    def __init__(self, mode: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.mode = mode

    def call(self, sequence: Any, mask: Any) -> Any:
        """Pool over the tokens that are not padding."""
        if self.mode == "cls":
            return sequence[:, 0]
        mask = ops.cast(mask, sequence.dtype)
        if self.mode == "last":
            # The last token by position: the largest index whose mask is 1.
            positions = ops.arange(ops.shape(mask)[1], dtype=sequence.dtype)
            last = ops.cast(ops.argmax(mask * (positions + 1), axis=1), "int32")
            return ops.take_along_axis(sequence, last[:, None, None], axis=1)[:, 0]
        mask = ops.expand_dims(mask, -1)
        if self.mode == "max":
            lowest = float(np.finfo("float32").min)
            return ops.max(ops.where(mask > 0, sequence, lowest), axis=1)
        return ops.sum(sequence * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1)

    def compute_output_shape(self, sequence_shape: Any, mask_shape: Any = None) -> Any:
        """Return (rows, width)."""
        return (sequence_shape[0], sequence_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the layer."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="finetune_eval")
class TemperedSoftmax(keras.layers.Layer):
    """`softmax(logits / temperature)` in float32; the temperature is saved, never trained."""

    def build(self, input_shape: Any) -> None:
        """Make the temperature, 1 until calibration sets it."""
        self.temperature = self.add_weight(name="temperature", shape=(), initializer="ones", trainable=False)
        self.built = True

    def load_own_variables(self, store: Any) -> None:
        """Load the temperature, unless it would turn answers into others or into NaN."""
        saved = float(np.asarray(store["0"]))
        super().load_own_variables({"0": _checks.number("temperature", saved, above=0)})

    def call(self, logits: Any) -> Any:
        """Return (rows, classes) probabilities."""
        return ops.softmax(ops.cast(logits, "float32") / self.temperature, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the logits."""
        return input_shape


@keras.saving.register_keras_serializable(package="finetune_eval")
class TemperedSigmoid(TemperedSoftmax):
    """`sigmoid(logits / temperature)`, each label by itself."""

    def call(self, logits: Any) -> Any:
        """Return (rows, labels) probabilities."""
        return ops.sigmoid(ops.cast(logits, "float32") / self.temperature)


def start_drawing(generator: keras.random.SeedGenerator, seed: int, index: int) -> None:
    """Have the random numbers of a layer depend on `seed` and on the layer's `index` alone."""
    generator.state.assign(np.array([seed, index], dtype="uint32"))
    if keras.backend.backend() == "torch":  # which draws by the state only where a seed was given
        generator._initial_seed = seed


def takes_logits(target: Any) -> bool:
    """Return whether a loss or metric of Keras was made with `from_logits=True`."""
    settings = getattr(target, "_fn_kwargs", None) or getattr(target, "keywords", None) or {}
    return bool(settings.get("from_logits", getattr(target, "_from_logits", False)))


def reads_one_hot(target: Any) -> bool | None:
    """Return whether a loss or metric of Keras takes one-hot labels; None for others: labels as given."""
    function = getattr(target, "_fn", None) or getattr(target, "fn", None) or target
    if not function.__module__.startswith("keras."):
        return None
    if hasattr(target, "sparse_y_true"):
        return not target.sparse_y_true
    return not getattr(function, "__name__", type(function).__name__).lower().startswith("sparse")


def as_read(y: Any, one_hot: bool | None, classes: int) -> Any:
    """Return labels, (rows,) indices or (rows, classes) one-hot, in the form that `reads_one_hot` tells."""
    given = len(y.shape) == 2 and y.shape[-1] == classes
    if one_hot is None or one_hot is given:
        return y
    return ops.one_hot(ops.reshape(y, (-1,)), classes) if one_hot else ops.argmax(y, axis=-1)


def plain(probabilities: Any) -> Any:
    """Return probabilities that do not remember their logits.

    A softmax on TensorFlow does, and Keras' binary cross-entropy then takes the sigmoid of those logits: it
    is off by 0.001 where the softmax is near 1/2, and by more elsewhere (Keras 3.15).
    """
    return ops.copy(probabilities)


def metric_of_labels(identifier: Any, classes: int, *, multilabel: bool = False) -> Any:
    """Return a metric, named as Keras would, that is fed labels in the form it takes, however they come."""
    if str(identifier).lower() in ("accuracy", "acc"):  # Keras would choose by the labels it sees first
        metric: Any = (
            keras.metrics.MeanMetricWrapper(all_labels_right)
            if multilabel
            else keras.metrics.SparseCategoricalAccuracy()
        )
    else:
        metric = keras.metrics.get(identifier)
    if not isinstance(metric, keras.metrics.Metric):
        metric = keras.metrics.MeanMetricWrapper(metric, name=metric.__name__)
    if isinstance(identifier, str):
        metric.name = identifier
    one_hot, update = None if multilabel else reads_one_hot(metric), type(metric).update_state

    def update_state(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return update(metric, as_read(y_true, one_hot, classes), plain(y_pred), sample_weight=sample_weight)

    metric.update_state = update_state
    return metric
