"""The Keras model behind `Classifier`: backbone, pooling and head, how it is compiled and how it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import keras
import keras_hub
import numpy as np

from finetune_eval import _labels
from finetune_eval._columns import Columns
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.models import devices, lora, micro_batches, mirrored
from finetune_eval.models.adamw import public_names
from finetune_eval.models.decisions import AnyThreshold, Decisions, as_data, threshold_of
from finetune_eval.models.frozen import freeze, layers_asked, set_trainable
from finetune_eval.models.halves import in_halves, in_strategy, side_by_side
from finetune_eval.models.head import new_head
from finetune_eval.models.inputs import read
from finetune_eval.models.layers import (
    LOSSES,
    CrossEntropy,
    Pooling,
    as_read,
    metric_of_labels,
    plain,
    reads_one_hot,
    takes_logits,
)
from finetune_eval.models.precision import matmul_precision
from finetune_eval.models.steps import Plan, structure
from finetune_eval.models.windows import EachWindow, MeanOfWindows


class Network(Decisions, keras_hub.models.Task):
    """A backbone with a head, on the backbone's own inputs; `Classifier` has it read raw rows.

    Args:
        backbone: A KerasHub backbone, or any `keras.Model` with one input and a (rows, width) output.
        preprocessor: Turns strings into the backbone's inputs; None where rows are numbers already.
        labels: The class names, in index order.
        pooling: "mean", "cls", "max" or "last" for a backbone with a token axis; None without.
        task: "classification": a row has one of the classes, and the head is a softmax. "multilabel": a row
            may have any number of them, and each has a sigmoid of its own.
        dropout: Dropout rate before the head.
        seed: Of the head's initial weights and the head's dropout.
        threshold: With two classes, the probability of the second from which it is the answer; multilabel,
            that from which a label is given, or one for each label; None for 0.5.
        abstention: From which confidence on an answer is given; None where all are. Not of multilabel rows.
        frozen: Names of the backbone's layers that are not trained.
        columns: The columns beside the text of a row, or their `config`; None where a row is a text alone.
        **kwargs: Of `keras_hub.models.Task`.

    Attributes:
        source: Where the backbone came from, as `build_model` was told: "backbone", "weights_sha256".
        windows: Whether rows are (windows, tokens): a text that is too long is read as several windows.
        moved: Layer name -> how far `fine_tune` moved its weights, relative to their size.
    """

    def __init__(
        self,
        backbone: Any,
        preprocessor: Any,
        *,
        labels: Sequence[str],
        pooling: str | None,
        task: str = "classification",
        dropout: float = 0.1,
        seed: int = 0,
        threshold: AnyThreshold | dict[str, Any] = None,
        abstention: Abstention | dict[str, Any] | float | None = None,
        frozen: Sequence[str] = (),
        columns: Columns | list[Any] | None = None,
        **kwargs: Any,
    ):
        mirrored.check_strategy()
        labels = _labels.class_names(labels)
        self.backbone = backbone
        self.pooling = pooling
        layers = [backbone.get_layer(name) for name in frozen]
        layers = [layer for layer in layers if layer is not self._unused]
        if layers:
            set_trainable(backbone, True)  # its own config tells only of all of it
            freeze(backbone, layers)
        self.windows = getattr(preprocessor, "truncation_side", None) == "windows"
        self.columns = Columns.of_config(columns) if isinstance(columns, list) else columns
        inputs = tokens = backbone.input
        if self.windows:
            inputs = {
                name: keras.Input((None, None), dtype=each.dtype, name=name) for name, each in tokens.items()
            }
            tokens = {name: EachWindow(name=f"each_window_{name}")(each) for name, each in inputs.items()}
        outputs = backbone(tokens)
        if pooling is not None:
            sequence = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
            features = Pooling(pooling, name="pooling")(sequence, tokens["padding_mask"])
        else:
            features = outputs
        if self.windows:
            features = MeanOfWindows(name="mean_of_windows")(features, inputs["padding_mask"])
        probabilities, beside = new_head(
            features, self.columns, labels=labels, task=task, dropout=dropout, seed=seed
        )
        if beside:
            inputs = {**inputs, **beside}
        self.preprocessor = preprocessor
        self.task = task
        self.labels = labels
        self.dropout = dropout
        self.seed = seed
        self.threshold = threshold_of(threshold) if isinstance(threshold, dict) else threshold
        self.abstention = Abstention(**abstention) if isinstance(abstention, dict) else abstention
        self.source: dict[str, Any] = {}
        self.moved: dict[str, float] = {}
        self._of_logits: list[str] = []
        self._plan = Plan()
        self._optimizer_was_built = False
        self._graphs: dict[str, tuple[Any, Any]] = {}
        super().__init__(inputs=inputs, outputs=probabilities, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable" and getattr(self, "_initialized", False):
            for layer in self._flatten_layers(include_self=False):  # as `set_trainable` has it
                layer.trainable = value
        super().__setattr__(name, value)

    # --- what it is ------------------------------------------------------------

    @property
    def input_spec(self) -> Any:
        """What inputs are held against; with a cut they are of two kinds, and the graph itself tells."""
        return None if self._plan.cut is not None else super().input_spec

    @property
    def _unused(self) -> Any:
        """BERT's own pooler, which gets no gradient where the tokens are pooled here."""
        return None if self.pooling is None else getattr(self.backbone, "pooled_dense", None)

    @property
    def takes_text(self) -> bool:
        """Whether rows are strings."""
        return self.preprocessor is not None

    @property
    def takes_pairs(self) -> bool:
        """Whether rows are pairs of texts."""
        return bool(getattr(self.preprocessor, "pairs", False))

    @property
    def inputs_of_features(self) -> Any:
        """The inputs that the head's features are computed from: all but those of the columns."""
        if self.columns is None:
            return self.input
        return {name: each for name, each in self.input.items() if name != "columns"}

    @property
    def multilabel(self) -> bool:
        """Whether a row may have any number of the labels."""
        return self.task == "multilabel"

    @property
    def rows_apart(self) -> bool:
        """Whether a batch can be computed in parts: in training, too, no row depends on another.

        Backbones that are not KerasHub's may have layers that look at all rows of a batch, as batch
        normalisation does; an activity regulariser adds up what it finds in each part.
        """
        regular = (getattr(layer, "activity_regularizer", None) for layer in self._flatten_layers())
        return isinstance(self.backbone, keras_hub.models.Backbone) and not any(regular)

    def learn_columns(self, x: Any, sample_weight: Any = None) -> None:
        """Learn the mean and spread of each number and the values of each category.

        `fine_tune` does it by itself; Keras' `fit` needs it to be called before. What was learnt is saved
        with the model.

        Args:
            x: The training rows.
            sample_weight: (n,) weights; rows of weight 0 do not count, all others count alike.

        Raises:
            ValueError: The model reads no columns, or learnt them already: its weights are for those.
        """
        if self.columns is None:
            raise ValueError("The model reads no columns; build it with `build_model(..., columns=...)`.")
        if self.columns.learnt is not None:
            raise ValueError(
                "The model has learnt its columns already, and its weights are for what it learnt; build a "
                "new model for other rows."
            )
        rows, _, weights = read(self, x, None, sample_weight)
        assert not isinstance(rows, dict)  # which tokens would be
        self.columns = self.columns.learn(rows, weights)

    def unfreeze(self, layers: int | None = None) -> None:
        """Have the backbone, or its top layers, be trained (again).

        `fine_tune` trains accordingly from its next call on; before `fit`, call `compile`.

        Args:
            layers: Number of layers to unfreeze, counted from the top; None for the whole backbone.
        """
        known = self.backbone.layers
        below = []
        if layers is not None:
            top = layers_asked("layers", layers, self.backbone, instead="None")
            below = [layer for layer in known[: known.index(top[-layers])] if not layer.trainable]
        set_trainable(self.backbone, True)
        freeze(self.backbone, below)

    def merge_lora(self) -> None:
        """Add the adapters that the strategy "lora" trained to the weights beside them, and remove them.

        The model answers as before, but for rounding. A saved model is merged already. Then `compile`.
        """
        lora.merge(self)

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """Quantize the backbone, as `keras.Model.quantize` does; the head stays float32. Then `compile`."""
        # Not all of this model: Keras would stop halfway, at the preprocessor, which has no weights.
        self.backbone.quantize(mode, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the model, weights apart."""
        return {
            **super().get_config(),
            "labels": list(self.labels),
            "pooling": self.pooling,
            "task": self.task,
            "dropout": self.dropout,
            "seed": self.seed,
            "threshold": as_data(self.threshold),
            "abstention": as_data(self.abstention),
            "columns": None if self.columns is None else self.columns.config(),
            # Keras loads an optimizer's state where there is a place for it, and warns if there is none.
            "optimizer_built": bool(getattr(getattr(self, "optimizer", None), "built", False)),
            # A backbone's own config tells only whether all of it is frozen.
            "frozen": [
                layer.name for layer in self.backbone.layers if not (layer.trainable or layer is self._unused)
            ],
        }

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model as a `.keras` file: weights, vocabulary, labels, and how it decides.

        Adapters are saved merged into the weights beside them, and so without the state of their optimizer.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"`filepath` {str(filepath)!r} is an HDF5 file, which cannot hold the vocabulary; end it in "
                "'.keras'."
            )
        before: Any = getattr(self, "optimizer", None)
        if before is None or not lora.adapted(self):
            super().save(filepath, *args, **kwargs)
            return
        self.optimizer = type(before).from_config(before.get_config())
        try:
            super().save(filepath, *args, **kwargs)
        finally:
            self.optimizer = before

    # --- how it computes -------------------------------------------------------

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Return probabilities; with a cut, also of what its frozen layers gave."""
        masked = any(part is not None for part in keras.tree.flatten(mask))
        if side_by_side() and self.rows_apart and not masked:
            return in_halves(lambda rows: self._whole(rows, training), inputs)
        return devices.by_rows(lambda rows: self._whole(rows, training, mask), inputs)

    def _whole(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if self._plan.cut is None:
            return super().call(inputs, training=training, mask=mask)
        return self._plan.cut(inputs, training)

    def train_step(self, *arguments: Any) -> Any:
        """Train on one batch, as Keras does, or on its micro-batches one by one."""
        if in_strategy():
            return mirrored.train_step(self, arguments[0])
        if self._plan.micro_batches == 1:
            return super().train_step(*arguments)
        if keras.backend.backend() == "jax":
            return micro_batches.train_step_on_jax(self, arguments, self._plan.micro_batches)
        if keras.backend.backend() == "torch":
            return micro_batches.train_step_on_torch(self, arguments[0], self._plan.micro_batches)
        return micro_batches.train_step(self, arguments[0], self._plan.micro_batches)

    @contextlib.contextmanager
    def computing(self, plan: Plan) -> Iterator[None]:
        """Have steps inside the context computed by a plan; what was before is put back."""
        before: tuple[Plan, int] = self._plan, self.steps_per_execution  # type: ignore[has-type]
        self._plan, self.steps_per_execution = plan, plan.steps_per_execution
        try:
            with matmul_precision(plan.precision):
                yield
        finally:
            self._plan, self.steps_per_execution = before
            self._graphs.clear()

    @property
    def plan(self) -> Plan:
        """How steps are computed; `computing` sets it."""
        return self._plan

    def _graph(self, name: str, make: Any, *of: Any) -> Any:
        """Return `make()`, kept under a name for as long as what it was made of does not change."""
        if self._graphs.get(name, (None,))[0] != of:
            self._graphs[name] = (of, make())
        return self._graphs[name][1]

    def _is_new(self, name: str) -> bool:
        """Whether the graph that Keras keeps under a name was traced for another structure or plan."""
        if self._of_logits and name != "predict":  # not in `compile`: a saved model should still load
            raise ValueError(
                f"The model is compiled with {self._of_logits[0]}(from_logits=True), which would take the "
                "softmax of what are probabilities already; call `model.compile` with `from_logits` left out."
            )
        now = (structure(self), self._plan, self.steps_per_execution, devices.mesh())
        new = self._graphs.get(name, (None,))[0] != now
        self._graphs[name] = (now, None)
        return new

    def make_train_function(self, force: bool = False) -> Any:
        """Make Keras' training function, anew if it was traced for another structure."""
        super().make_train_function(force=self._is_new("train") or force)
        mirrored.add_totals(self, "train_function")

    def make_test_function(self, force: bool = False) -> Any:
        """Make Keras' evaluation function, anew if it was traced for another structure."""
        super().make_test_function(force=self._is_new("test") or force)
        mirrored.add_totals(self, "test_function")

    def make_predict_function(self, force: bool = False) -> Any:
        """Make Keras' prediction function, anew if it was traced for another structure."""
        return super().make_predict_function(force=self._is_new("predict") or force)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Make what a strategy needs made before the first step.

        Keras takes a batch of the pipeline for it, and then starts the pipeline anew.
        """
        if in_strategy():
            self.build_metrics()

    def build_metrics(self) -> None:
        """Make the variables of the metrics, which Keras makes in the first step."""
        probabilities = np.zeros((1, len(self.labels)), dtype=np.float32)
        labels = probabilities if self.multilabel else np.zeros(1, dtype=np.int32)
        if self._compile_metrics is not None and not self._compile_metrics.built:
            self._compile_metrics.build(labels, probabilities)

    @mirrored.in_scope
    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        metrics: Any = "auto",
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training; "auto" is AdamW at 5e-5, cross-entropy, accuracy weighted as the loss.

        Accuracy is the share of the rows that are right, of several labels a row those right in each.

        Losses and metrics of Keras get labels as they take them, class indices or one-hot rows, whichever
        `fit` is given; your own functions get the labels as you give them, names as indices.
        """
        if self._unused is not None:
            set_trainable(self._unused, False)
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.AdamW(5e-5)
        if isinstance(loss, str) and loss == "auto":
            loss = LOSSES[self.task]["cross_entropy"]()
        if isinstance(metrics, str) and metrics == "auto":
            metrics = None
            weighted_metrics = weighted_metrics or ["accuracy"]
        mirrored.check_compiled(optimizer, loss)
        of_logits = filter(takes_logits, keras.tree.flatten([loss, metrics, weighted_metrics]))
        self._of_logits = [type(target).__name__ for target in of_logits]
        only = keras.tree.flatten(loss)[0]
        by_shape = isinstance(only, str) and only.lower() in ("crossentropy", "ce")
        if self.multilabel:
            self._loss_reads = None
        else:
            self._loss_reads = False if by_shape or only is None else reads_one_hot(keras.losses.get(only))
        # On TensorFlow XLA would compile one program for every batch width.
        compiled = keras.backend.backend() == "jax" and not kwargs.get("run_eagerly")
        kwargs.setdefault("jit_compile", compiled)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=self._metrics_of_labels(metrics),
            weighted_metrics=self._metrics_of_labels(weighted_metrics),
            **kwargs,
        )

    def _metrics_of_labels(self, metrics: Any) -> Any:
        if metrics is None:
            return None
        return [
            metric_of_labels(metric, len(self.labels), multilabel=self.multilabel)
            for metric in keras.tree.flatten(metrics)
        ]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss, its labels as it takes them."""
        if not isinstance(self.loss, CrossEntropy):
            y, y_pred = as_read(y, self._loss_reads, len(self.labels)), plain(y_pred)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def get_compile_config(self) -> Any:
        """Return how the model is compiled, by names that every backend knows."""
        return public_names(super().get_compile_config())

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        built = config.pop("optimizer_built", self._optimizer_was_built)  # files of before have it here
        config.pop("jit_compile", None)  # what is right depends on the backend that loads
        self.compile(**keras.saving.deserialize_keras_object(config))
        if built:
            optimizer: Any = self.optimizer
            optimizer.build(self.trainable_variables)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Recreate the model, not yet compiled: Keras compiles it next, as it was."""
        settings = {"compile": False, **config}
        built = settings.pop("optimizer_built", False)
        model: Self = super().from_config(settings)
        model._optimizer_was_built = built
        return model
