"""The Keras model: backbone, pooling, a softmax head, and the preprocessor that lets it eat raw rows."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from keras import ops

from finetune_eval import _checks
from finetune_eval.evaluation.calibration import fit_temperature
from finetune_eval.evaluation.thresholds import Threshold, choose_threshold
from finetune_eval.models import micro_batches
from finetune_eval.models.batching import (
    Batches,
    Encoded,
    by_row,
    encoder,
    forward,
    widths,
    without_autotune,
)
from finetune_eval.models.frozen import Cut
from finetune_eval.models.halves import in_halves, side_by_side
from finetune_eval.models.tokenizers import preprocessing

# The smallest positive normal float32: a probability that underflowed to 0 costs 87 nats, not infinity.
_TINY = float(np.finfo("float32").tiny)
_POOLINGS = ("mean", "cls", "max", "last")
_EVALUATION_BATCH = 32


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
        nats = -ops.log(ops.maximum(y_pred, _TINY))
        if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
            loss = ops.sum(ops.cast(y_true, nats.dtype) * nats, axis=-1)
        else:
            target = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
            loss = ops.take_along_axis(nats, target, axis=-1)[:, 0]
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * ops.mean(nats, axis=-1)
        return loss

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the loss."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


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

    def call(self, logits: Any) -> Any:
        """Return (rows, classes) probabilities."""
        return ops.softmax(ops.cast(logits, "float32") / self.temperature, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the logits."""
        return input_shape


@keras.saving.register_keras_serializable(package="finetune_eval")
class Classifier(keras_hub.models.Task):
    """A backbone with a softmax head that takes raw rows: strings, or numbers.

    It is a functional Keras model. `fit`, `evaluate` and `predict` take lists, arrays, Series and `tf.data`;
    rows are tokenised once, batched by length, and, in `fit`, really shuffled. Make one with `build_model`.

    Args:
        backbone: A KerasHub backbone, or any `keras.Model` with one input and a (rows, width) output.
        preprocessor: Turns strings into the backbone's inputs; None where rows are numbers already.
        labels: The class names, in index order.
        pooling: "mean", "cls", "max" or "last" for a backbone with a token axis; None without.
        dropout: Dropout rate before the head.
        seed: Of the head's initial weights and the head's dropout.
        threshold: With two classes, the probability of the second from which it is the answer; None for 0.5.
        frozen: Names of the backbone's layers that are not trained.
        **kwargs: Of `keras_hub.models.Task`.
    """

    def __init__(
        self,
        backbone: Any,
        preprocessor: Any,
        *,
        labels: Sequence[str],
        pooling: str | None,
        dropout: float = 0.1,
        seed: int = 0,
        threshold: Threshold | dict[str, Any] | float | None = None,
        frozen: Sequence[str] = (),
        **kwargs: Any,
    ):
        for name in frozen:
            backbone.get_layer(name).trainable = False
        inputs = backbone.input
        if pooling is not None and hasattr(backbone, "pooled_dense"):
            # BERT's own pooler: nothing here uses it, so nothing trains it.
            backbone.pooled_dense.trainable = False
        outputs = backbone(inputs)
        if pooling is not None:
            sequence = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
            features = Pooling(pooling, name="pooling")(sequence, inputs["padding_mask"])
        else:
            features = outputs
        x = keras.layers.Dropout(dropout, seed=seed, name="head_dropout")(features)
        logits = keras.layers.Dense(
            len(labels),
            # As BERT's heads: Devlin et al. 2019, initializer_range 0.02.
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=seed),
            dtype="float32",
            name="logits",
        )(x)
        probabilities = TemperedSoftmax(dtype="float32", name="probabilities")(logits)
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.labels = tuple(str(label) for label in labels)
        self.pooling = pooling
        self.dropout = dropout
        self.seed = seed
        self.threshold = Threshold(**threshold) if isinstance(threshold, dict) else threshold
        self.cut: Cut | None = None
        self.micro_batches = 1
        self._encoder: Any = None
        self._forward: Any = None
        self._refused: Exception | None = None
        super().__init__(inputs=inputs, outputs=probabilities, **kwargs)

    # --- what it is ------------------------------------------------------------

    @property
    def input_spec(self) -> Any:
        """What inputs are held against; with a `cut` they are of two kinds, and the graph itself tells."""
        return None if self.cut is not None else super().input_spec

    @property
    def takes_text(self) -> bool:
        """Whether rows are strings."""
        return self.preprocessor is not None

    @property
    def rows_apart(self) -> bool:
        """Whether a batch can be computed in parts: in training, too, no row depends on another.

        Backbones that are not KerasHub's may have layers that look at all rows of a batch, as batch
        normalisation does; an activity regulariser adds up what it finds in each part.
        """
        regular = (getattr(layer, "activity_regularizer", None) for layer in self._flatten_layers())
        return isinstance(self.backbone, keras_hub.models.Backbone) and not any(regular)

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 until calibrated."""
        return float(ops.convert_to_numpy(self.get_layer("probabilities").temperature))

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.get_layer("probabilities").temperature.assign(_checks.number("temperature", value, above=0))

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Return probabilities; with a `cut`, also of what its frozen layers gave."""
        masked = any(part is not None for part in keras.tree.flatten(mask))
        if side_by_side() and self.rows_apart and not masked:
            return in_halves(lambda rows: self._whole(rows, training), inputs)
        return self._whole(inputs, training, mask)

    def train_step(self, *arguments: Any) -> Any:
        """Train on one batch, as Keras does, or on its `micro_batches` one by one."""
        if self.micro_batches == 1:
            return super().train_step(*arguments)
        return micro_batches.train_step(self, arguments[0], self.micro_batches)

    def _whole(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if self.cut is None:
            return super().call(inputs, training=training, mask=mask)
        return self.cut(inputs, training)

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the model, weights apart."""
        return {
            **super().get_config(),
            "labels": list(self.labels),
            "pooling": self.pooling,
            "dropout": self.dropout,
            "seed": self.seed,
            "threshold": dataclasses.asdict(self.threshold)
            if isinstance(self.threshold, Threshold)
            else self.threshold,
            # A backbone's own config tells only whether all of it is frozen.
            "frozen": [layer.name for layer in self.backbone.layers if not layer.trainable],
        }

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        metrics: Any = "auto",
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training; "auto" is AdamW at 5e-5, cross-entropy, accuracy weighted as the loss."""
        if optimizer == "auto":
            optimizer = keras.optimizers.AdamW(5e-5)
        if loss == "auto":
            loss = CrossEntropy()
        if isinstance(metrics, str) and metrics == "auto":
            metrics = None
            weighted_metrics = weighted_metrics or [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        # On TensorFlow XLA would compile one program for every batch width.
        compiled = keras.backend.backend() == "jax" and not kwargs.get("run_eagerly")
        kwargs.setdefault("jit_compile", compiled)
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        built = config.pop("optimizer_built", False)
        config.pop("jit_compile", None)  # what is right depends on the backend that loads
        self.compile(**keras.saving.deserialize_keras_object(config))
        if built:
            optimizer: Any = self.optimizer
            optimizer.build(self.trainable_variables)

    def get_compile_config(self) -> dict[str, Any]:
        """Return what recompiles the model as it is."""
        return {**super().get_compile_config(), "optimizer_built": self.optimizer.built}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Classifier:
        """Recreate the model, not yet compiled: Keras compiles it next, as it was."""
        model: Classifier = super().from_config({"compile": False, **config})
        return model

    # --- raw rows in -----------------------------------------------------------

    def encode(self, x: Any, *, name: str = "x") -> Encoded:
        """Check raw rows and turn them into the backbone's inputs, once.

        Args:
            x: (rows,) strings, or (rows, columns) numbers, as the backbone takes them.
            name: What the caller calls `x`, for errors.

        Raises:
            ValueError, TypeError: A row is missing, not a string, or not finite; the sentence names the
            first.
        """
        if not self.takes_text:
            return Encoded({"x": _numeric_rows(name, x, self.input_shape)}, None)
        if self._encoder is None:
            self._encoder = encoder(preprocessing(self.preprocessor))
        encoded: Encoded = self._encoder(_text_rows(name, x))
        return encoded

    def batches(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None,
        seed: int | None = None,
        sort: bool = True,
        name: str = "x",
    ) -> Batches:
        """Check rows, labels and weights, and return them in batches; see `Batches` for `seed` and `sort`."""
        _rows(name, x)
        if batch_size is not None:
            _checks.positive_int("batch_size", batch_size)
        indices = weights = None
        if y is not None:
            _checks.same_length(name, x, name.replace("x", "y"), y)
            indices = _checks.label_indices(name.replace("x", "y"), y, self.labels).astype(np.int32)
        if sample_weight is not None:
            weights = _weights(sample_weight, len(x))
        rows = self.encode(x, name=name)
        return Batches(rows, indices, batch_size, sample_weight=weights, seed=seed, sort=sort)

    def _fed(self, data: Any, *, labelled: bool) -> Any:
        """Tokenise and check a `tf.data` pipeline of batches, as `encode` and `batches` do rows."""
        spec = data.element_spec
        parts = len(spec) if isinstance(spec, tuple) else 1
        x_spec = spec[0] if isinstance(spec, tuple) else spec
        if labelled and parts == 1:
            raise ValueError("`x` is a tf.data pipeline without labels; each element must be `(x, y)`.")
        if isinstance(x_spec, tf.TensorSpec) and x_spec.shape.rank in (0, len(self._row_shape()) - 1):
            raise ValueError("`x` is a tf.data pipeline of single rows; batch it first: `x.batch(32)`.")
        raw = isinstance(x_spec, tf.TensorSpec)  # not tokens already
        if raw and (x_spec.dtype == tf.string) is not self.takes_text:
            raise TypeError(
                f"`x` is a tf.data pipeline of {x_spec.dtype.name}; this model takes "
                f"{'strings' if self.takes_text else f'{self.input_shape[1:]} numbers a row'}."
            )
        self._refused = None

        def ready(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
            if raw:
                x = self._tokeniser(x) if self.takes_text else self._checked(x, self._numbers, tf.float32)
            if not labelled:
                return (x,)
            y = self._checked(y, self._indices, tf.int32)
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

        mapped: Any = ready if parts > 1 else lambda x: ready(x)  # a one-part element may be a dict
        plain = tf.autograph.experimental.do_not_convert(mapped)
        return without_autotune(data.map(plain, num_parallel_calls=2).prefetch(2))

    def _row_shape(self) -> tuple[Any, ...]:
        return (None,) if self.takes_text else self.input_shape

    @functools.cached_property
    def _tokeniser(self) -> Any:
        """`_tokens` as one graph, traced once for all pipelines."""
        return tf.function(self._tokens, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)

    def _tokens(self, texts: Any) -> dict[str, Any]:
        """Tokenise a batch, its rows moved to the left and trimmed to the longest."""
        features = self.preprocessor(texts)
        mask = tf.cast(features["padding_mask"], tf.int32)
        width = tf.shape(mask)[1]
        first = tf.argmax(mask, axis=1, output_type=tf.int32)[:, tf.newaxis]
        moved = (tf.range(width) + first) % width
        longest = tf.reduce_max(tf.where(tf.gather(mask, moved, batch_dims=1) > 0, tf.range(width) + 1, 1))
        if keras.backend.backend() == "jax":
            few = tf.constant(widths(mask.shape[1]))
            longest = few[tf.searchsorted(few, longest[tf.newaxis])[0]]
        return {
            name: tf.cast(tf.gather(value, moved[:, :longest], batch_dims=1), tf.int32)  # as `encode` gives
            for name, value in features.items()
        }

    def _indices(self, y: np.ndarray) -> np.ndarray:
        return _checks.label_indices("y", y, self.labels).astype(np.int32)

    def _numbers(self, x: np.ndarray) -> np.ndarray:
        return _numeric_rows("x", x, self.input_shape)

    def _checked(self, values: Any, check: Any, dtype: Any) -> Any:
        """Pass a batch through a check that may refuse it; what it says is kept for `_plainly`."""

        def run(array: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(check(array))
            except (ValueError, TypeError) as error:
                self._refused = error
                raise

        checked = tf.numpy_function(run, [values], dtype, stateful=False)
        checked.set_shape([None] if dtype == tf.int32 else self.input_shape)
        return checked

    def _plainly(self, run: Any) -> Any:
        """Run Keras on a checked pipeline; raise what a check said instead of TensorFlow's account of it."""
        try:
            with variables_kept(self):
                return run()
        except tf.errors.OpError:
            if self._refused is None:
                raise
            refused, self._refused = self._refused, None
            raise type(refused)(f"{refused} (Rows are counted within the batch.)") from None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Train on raw rows, as `keras.Model.fit` does; arrays are shuffled anew in every epoch."""
        if self.optimizer is not None and self.optimizer.built:
            known = {id(variable) for variable in self.optimizer._trainable_variables}
            if known != {id(variable) for variable in self.trainable_variables}:
                raise ValueError(
                    "`trainable` was changed since the model was compiled, and would not take effect; "
                    "call `model.compile()` again, then `fit`."
                )
        size = _EVALUATION_BATCH if batch_size is None else batch_size
        if not _is_pipeline(x):
            if y is None:
                raise ValueError(
                    "`y` is None; `fit` needs a label for each row: class indices or class names."
                )
            if validation_split:
                if validation_data is not None:
                    raise ValueError(
                        "`validation_split` and `validation_data` are both given; pass one of them."
                    )
                cut = len(x) - round(
                    len(x) * _checks.number("validation_split", validation_split, above=0, below=1)
                )
                _checks.same_length("x", x, "y", y)
                validation_data = (x[cut:], y[cut:])
                if sample_weight is not None:
                    _checks.same_length("x", x, "sample_weight", sample_weight)
                    validation_data = (*validation_data, sample_weight[cut:])
                    sample_weight = sample_weight[:cut]
                x, y = x[:cut], y[:cut]
            weights = _class_weights(class_weight, y, self.labels, sample_weight)
            # NumPy's global generator is what `keras.utils.set_random_seed` seeds.
            seed = int(np.random.randint(2**31)) if shuffle else None
            x, y = self.batches(x, y, weights, batch_size=size, seed=seed, sort=False).dataset(), None
            sample_weight = batch_size = class_weight = None
            shuffle = False  # done by the batches
        elif isinstance(x, tf.data.Dataset):
            x = self._fed(x, labelled=True)
            if isinstance(class_weight, str):
                raise ValueError(
                    "`class_weight` 'balanced' needs labels that can be counted: pass arrays, or a dict."
                )
            if class_weight is not None:
                class_weight = dict(enumerate(class_weight_vector(class_weight, np.zeros(0), self.labels)))
            shuffle = False  # the pipeline's own business; Keras warns of anything else
        if isinstance(validation_data, tf.data.Dataset):
            validation_data = self._fed(validation_data, labelled=True)
        elif validation_data is not None and not _is_pipeline(validation_data):
            held_out = kwargs.pop("validation_batch_size", None) or size
            validation_data = self.batches(
                *validation_data, batch_size=held_out, name="validation x"
            ).dataset()
        optimizer: Any = self.optimizer
        if optimizer is not None and not optimizer.built:
            # Variables made inside the first step would have TensorFlow trace that step a second time.
            optimizer.build(self.trainable_variables)
        return self._plainly(lambda: keras.Model.fit(
            self, x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks,
            validation_data=validation_data, shuffle=shuffle, class_weight=class_weight,
            sample_weight=sample_weight, **kwargs,
        ))  # fmt: skip

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Return `[loss, accuracy]` on raw rows, as `keras.Model.evaluate` does."""
        if isinstance(x, tf.data.Dataset):
            if not kwargs.get("_use_cached_eval_dataset"):  # within `fit` its validation rows are ready
                x = self._fed(x, labelled=True)
        elif not _is_pipeline(x):
            if y is None:
                raise ValueError(
                    "`y` is None; `evaluate` needs a label for each row: class indices or class names."
                )
            x = self.batches(
                x, y, sample_weight, batch_size=_EVALUATION_BATCH if batch_size is None else batch_size
            ).dataset()
            y = batch_size = sample_weight = None
        return self._plainly(
            lambda: keras.Model.evaluate(
                self, x, y, batch_size=batch_size, verbose=verbose, sample_weight=sample_weight, **kwargs
            )
        )

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any
    ) -> np.ndarray:
        """Return (rows, classes) softmax probabilities, float32, in the order of the rows."""
        if _is_pipeline(x):
            x = self._fed(x, labelled=False) if isinstance(x, tf.data.Dataset) else x
            return np.asarray(
                self._plainly(
                    lambda: keras.Model.predict(self, x, batch_size=batch_size, verbose=verbose, **kwargs)
                )
            )
        batches = self.batches(x, batch_size=batch_size)
        if keras.backend.backend() == "tensorflow" and not kwargs:
            # Keras' own predict traces a graph for every new batch shape; this one is of unknown shape.
            if self._forward is None:
                self._forward = forward(self._whole, batches.spec)  # two batches at a time: no halves
            return by_row(self._forward, batches)
        in_turn = keras.Model.predict(self, batches.dataset(), verbose=verbose, **kwargs)
        return batches.as_they_came(np.asarray(in_turn))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Turn (rows, classes) probabilities into (rows,) class indices, by the model's threshold."""
        if self.threshold is None:
            return np.asarray(probabilities.argmax(axis=1))
        return np.where(probabilities[:, 1] >= float(self.threshold), 1, 0)

    def calibrate(self, x: Any, y: Any) -> float:
        """Fit the temperature on validation rows, and ship it with the model; a threshold is forgotten.

        Args:
            x: Rows that neither trained the model nor will judge it.
            y: Their labels.

        Returns:
            The temperature: above 1 where the model was too sure of itself.

        Reference:
            Guo et al. 2017, "On Calibration of Modern Neural Networks".
        """
        indices = _checks.label_indices("y", y, self.labels)
        before = self.temperature
        try:
            self.temperature = 1.0
            self.temperature = fit_temperature(indices, self.predict(x, verbose=0))
        except BaseException:
            self.temperature = before
            raise
        self.threshold = None
        return self.temperature

    def choose_threshold(self, x: Any, y: Any, *, goal: str = "f1") -> Threshold:
        """Choose on validation rows from which probability on the second class is the answer, and ship it.

        Args:
            x: Rows that neither trained the model nor will judge it.
            y: Their labels.
            goal: As for `finetune_eval.evaluation.thresholds.choose_threshold`: "f1", "recall>=0.9", ...
        """
        if len(self.labels) != 2:
            raise ValueError(f"A threshold needs two classes; the model has {len(self.labels)}.")
        indices = _checks.label_indices("y", y, self.labels)
        self.threshold = choose_threshold(indices, self.predict(x, verbose=0), goal=goal)
        return self.threshold


@contextlib.contextmanager
def variables_kept(model: Classifier) -> Iterator[None]:
    """On JAX, give variables back the values that an error inside the context would lose.

    Keras takes them out of the model while batches run, and puts them back when all went well: a row that is
    refused in the first batch would leave the model without weights.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [*model.variables, *model.metrics_variables, *getattr(model.optimizer, "variables", ())]
    before = [variable.value for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()  # what the last step left, if there was one
        for variable, value in zip(variables, before, strict=True):
            if variable._value is None and not value.is_deleted():
                variable.assign(value)
        raise


def lost(model: Classifier) -> bool:
    """Whether a weight has no value: on JAX, after an interruption in the middle of a step."""
    if keras.backend.backend() != "jax":
        return False
    return any(weight._value is None or weight._value.is_deleted() for weight in model.weights)


def _is_pipeline(x: Any) -> bool:
    return isinstance(x, (tf.data.Dataset, keras.utils.PyDataset, dict))


def _rows(name: str, x: Any) -> None:
    if x is None:
        raise ValueError(f"`{name}` is None; rows are needed.")
    if isinstance(x, (str, bytes)):
        raise TypeError(f"`{name}` is one string; pass a list of strings, even for one row: [{name}].")
    if not hasattr(x, "__len__"):
        raise TypeError(
            f"`{name}` must be a list, array, Series or tf.data pipeline; got {type(x).__name__}."
        )
    _checks.not_empty(name, x)


def _text_rows(name: str, x: Any) -> np.ndarray:
    if isinstance(x, tf.Tensor):
        x = x.numpy()
    rows = np.asarray(x, dtype=object)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1:
        raise ValueError(f"`{name}` must be one string a row, shape (rows,); got shape {rows.shape}.")
    for row, value in enumerate(rows):
        if isinstance(value, bytes):
            rows = rows.copy() if rows is x else rows
            rows[row] = value.decode("utf-8", "replace")
        elif not isinstance(value, str):
            raise TypeError(
                f"`{name}` must hold strings; row {row} is {value!r} ({type(value).__name__}). "
                "Drop the row, or write what is missing as ''."
            )
        elif not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(
                f"`{name}` must hold valid Unicode; row {row} is {value[:40]!r}, with half a surrogate pair. "
                "Write it as `text.encode('utf-8', 'replace').decode()`."
            )
    return rows


def _numeric_rows(name: str, x: Any, input_shape: Any) -> np.ndarray:
    try:
        rows = np.asarray(x, dtype="float32")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must hold numbers, for this model takes {input_shape[1:]} numbers a row."
        ) from error
    if rows.ndim != len(input_shape) or any(
        want is not None and want != got for want, got in zip(input_shape[1:], rows.shape[1:], strict=True)
    ):
        wanted = ("rows", *input_shape[1:])
        raise ValueError(f"`{name}` must have shape ({', '.join(map(str, wanted))}); got {rows.shape}.")
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        raise ValueError(
            f"`{name}` has {'NaN' if np.isnan(rows[tuple(bad[0])]) else 'infinity'} in row {bad[0][0]}, "
            f"column {bad[0][1]}; one such value would turn every weight into NaN. Fill or drop it."
        )
    return rows


def _weights(sample_weight: Any, rows: int) -> np.ndarray:
    weights = np.asarray(sample_weight, dtype="float32")
    if weights.shape != (rows,):
        raise ValueError(f"`sample_weight` must have shape ({rows},), one weight a row; got {weights.shape}.")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise ValueError(f"`sample_weight` must be finite and at least 0; row {bad[0]} is {weights[bad[0]]}.")
    if not weights.any():
        raise ValueError("`sample_weight` is 0 for every row: nothing would be learned or measured.")
    return weights


def _class_weights(class_weight: Any, y: Any, labels: Sequence[str], sample_weight: Any) -> Any:
    """Multiply class weights into the rows' weights, as Keras refuses to."""
    if class_weight is None:
        return sample_weight
    indices = _checks.label_indices("y", y, labels)
    weights = class_weight_vector(class_weight, indices, labels)[indices]
    return weights if sample_weight is None else weights * _weights(sample_weight, len(indices))


def class_weight_vector(class_weight: Any, indices: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return (classes,) weights from a dict by index or name, or from "balanced".

    Balanced is rows / (classes * rows of the class), as in scikit-learn.

    Raises:
        ValueError: A class has no weight, or (balanced) no row.
    """
    if isinstance(class_weight, str):
        _checks.one_of("class_weight", class_weight, ("balanced",))
        counts = np.bincount(indices, minlength=len(labels))
        if (counts == 0).any():
            raise ValueError(
                "`class_weight` 'balanced' needs a row of every class; there is none of "
                f"{labels[int(counts.argmin())]!r}."
            )
        return len(indices) / (len(labels) * counts)
    by_name: dict[Any, int] = {str(label): i for i, label in enumerate(labels)}
    by_name |= {i: i for i in range(len(labels))}
    vector = np.full(len(labels), np.nan)
    for key, weight in dict(class_weight).items():
        if key not in by_name:
            raise ValueError(
                f"`class_weight` has the unknown class {key!r}; the classes are "
                f"{', '.join(map(repr, labels))}."
                f"{_checks.nearest(key, map(str, labels))}"
            )
        vector[by_name[key]] = _checks.number(f"class_weight[{key!r}]", weight, at_least=0)
    if np.isnan(vector).any():
        raise ValueError(
            f"`class_weight` has no weight for {labels[int(np.isnan(vector).argmax())]!r}; give every "
            "class one."
        )
    return vector
