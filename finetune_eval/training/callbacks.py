"""Keras callbacks for any model: precision, recall and F1 in the logs, and a readable trace of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _checks, _files
from finetune_eval.traces.training import EpochRecord, TrainingTrace, best_epoch, header, observe, row

_AVERAGES = ("auto", "binary", "macro", "micro", "weighted")
_LONG_EPOCH = 1.0  # seconds


class _Counts(keras.metrics.Metric):
    """A confusion matrix (rows true, columns predicted) whose result is precision, recall and F1."""

    ROWS: int | None = None  # of the counts; None: as many as classes

    def __init__(self, classes: int, average: str, cut: float | None):
        super().__init__(name="classification_metrics")
        self.classes, self.average, self.cut = classes, average, cut
        self.counts = self.add_weight(
            name="counts", shape=(self.ROWS or classes, classes), initializer="zeros", dtype="float32"
        )
        # Rows seen, and those whose label is no class: kept until `fit` ends, so that none goes unnoticed.
        self.seen = self.add_weight(name="seen", shape=(2,), initializer="zeros", dtype="float32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch: rows, or their weights where there are any."""
        if self.cut is not None:  # one output
            predicted = ops.cast(ops.reshape(y_pred, (-1,)) >= self.cut, "int32")
        else:
            predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        one_hot = self.cut is None and len(y_true.shape) == 2 and y_true.shape[-1] == self.classes
        if one_hot:
            true = ops.argmax(y_true, axis=-1)
            total = ops.sum(ops.cast(y_true, "float32"), axis=-1)
            strange = ops.abs(total - 1) > 1e-3  # several labels, or none
        else:
            values = ops.cast(ops.reshape(y_true, (-1,)), "float32")
            true = ops.cast(values, "int32")
            outside = true != ops.clip(true, 0, self.classes - 1)
            strange = ops.logical_or(ops.cast(true, "float32") != values, outside)
        self.seen.assign_add(
            ops.stack([ops.cast(ops.size(true), "float32"), ops.sum(ops.cast(strange, "float32"))])
        )
        rows = ops.one_hot(ops.cast(true, "int32"), self.classes, dtype="float32")
        columns = ops.one_hot(predicted, self.classes, dtype="float32")
        if sample_weight is not None:
            rows = rows * ops.reshape(ops.cast(sample_weight, rows.dtype), (-1, 1))
        self.counts.assign_add(ops.matmul(ops.transpose(rows), columns))

    def by_class(self) -> tuple[Any, Any, Any]:
        """Return (classes,) rows that are right, rows of each class, and rows answered with it."""
        counts = ops.convert_to_tensor(self.counts)
        return ops.diagonal(counts), ops.sum(counts, axis=1), ops.sum(counts, axis=0)

    def reset_state(self) -> None:
        """Forget the counts, as Keras asks before every epoch and every evaluation."""
        self.counts.assign(ops.zeros(self.counts.shape))

    def result(self) -> dict[str, Any]:
        """Return precision, recall and F1, as scikit-learn computes them with `zero_division=0`."""
        hits, support, predicted = self.by_class()
        if self.average == "binary":
            hits, support, predicted = hits[1:], support[1:], predicted[1:]
        if self.average == "micro":
            sums = map(ops.sum, (hits, support, predicted))
            hits, support, predicted = (ops.reshape(part, (1,)) for part in sums)
        # What hits are a share of in precision, recall and F1: (3, classes). Where it is below 1, none are.
        out_of = ops.stack([predicted, support, (support + predicted) / 2])
        # Averaged over classes, a class that is neither in the labels nor in the answers does not count.
        weight = support if self.average == "weighted" else ops.cast(out_of[2] > 0, "float32")
        share = weight / ops.maximum(ops.sum(weight), 1)
        averages = ops.unstack(ops.sum(hits / ops.maximum(out_of, 1) * share, axis=1))
        return dict(zip(("precision", "recall", "f1"), averages, strict=True))


class _LabelCounts(_Counts):
    """The same of rows with any number of labels: each label is given from a probability of 1/2 on."""

    ROWS = 3

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch: rows, or their weights where there are any."""
        true, given = ops.cast(y_true, "float32"), ops.cast(y_pred >= 0.5, "float32")
        strange = ops.any(true * (1 - true) != 0, axis=-1)
        rows = ops.cast(ops.size(strange), "float32")
        self.seen.assign_add(ops.stack([rows, ops.sum(ops.cast(strange, "float32"))]))
        weight = 1.0 if sample_weight is None else ops.reshape(ops.cast(sample_weight, true.dtype), (-1, 1))
        counted = [ops.sum(part * weight, axis=0) for part in (true * given, true, given)]
        self.counts.assign_add(ops.stack(counted))

    def by_class(self) -> tuple[Any, Any, Any]:
        """Return (labels,) rows that rightly have each label, rows that should, and rows given it."""
        hits, support, predicted = ops.unstack(ops.convert_to_tensor(self.counts), num=3)
        return hits, support, predicted


class ClassificationMetrics(keras.callbacks.Callback):
    """Add `precision`, `recall` and `f1`, and the same with `val_`, to the logs of `fit`.

    They are counted in the same pass that computes the loss: no second look at the rows. Works on any
    compiled classifier with one output: integer or one-hot labels, probabilities or logits, one sigmoid
    output or K outputs, arrays or `tf.data`; and on a multilabel model of `build_model`. Other callbacks see
    the values, whatever the order: `EarlyStopping(monitor="val_f1", mode="max")`. Rows are counted, not
    weighted, unless validation rows are to be.

    Args:
        average: "binary" (of class 1), "macro", "micro", "weighted", or "auto": binary for two classes, else
            macro.
        from_logits: Whether the outputs are logits; needed with one output only, where None reads it off the
            loss.
        weighted: Whether validation rows count by their weights, as in their loss. Training rows, whose
            weights tell what to learn from, never do.

    Raises:
        ValueError: When `fit` begins: the model has several outputs, no known number of classes, or one
            output that may be a logit or a probability. After an epoch: a label is no class, or nothing was
            counted.

    Example:
        >>> stop = keras.callbacks.EarlyStopping("val_f1", mode="max", patience=2)
        >>> callbacks = [ClassificationMetrics(), stop]

    Reference:
        scikit-learn 1.9, `precision_recall_fscore_support(zero_division=0)`.
    """

    def __init__(self, *, average: str = "auto", from_logits: bool | None = None, weighted: bool = False):
        super().__init__()
        _checks.one_of("average", average, _AVERAGES)
        self.average, self.from_logits, self.weighted = average, from_logits, weighted
        self._testing = False  # a graph is traced, and keeps its value, while rows of its kind are counted
        self._metric: _Counts | None = None
        self._hook: Any = None

    def set_model(self, model: Any) -> None:
        """Attach to the model that `fit` trains, before its training function is made."""
        super().set_model(model)
        self._detach()
        try:
            shape = model.output_shape
        except AttributeError:  # subclassed, or not built: the first batch tells
            shape = None
        if shape is not None:
            self._attach(shape)
        original = model.compute_metrics

        def compute_metrics(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            if self._metric is None:
                self._attach(keras.tree.map_structure(lambda part: tuple(part.shape), y_pred))
            self._count(y, y_pred, sample_weight)
            return original(x, y, y_pred, sample_weight)

        # `compute_metrics` is the hook Keras offers for own metrics; being in `metrics` as well has Keras
        # reset the counts at each epoch and each evaluation, and put the result in the logs.
        object.__setattr__(model, "compute_metrics", compute_metrics)
        self._hook = compute_metrics
        self._forget_graphs()

    def _count(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        assert self._metric is not None
        self._metric.update_state(y, y_pred, sample_weight if self.weighted and self._testing else None)

    def on_test_begin(self, logs: Any = None) -> None:
        """Remember that what is counted next are validation rows."""
        self._testing = True

    def on_test_end(self, logs: Any = None) -> None:
        """Remember that what is counted next are training rows."""
        self._testing = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Refuse numbers that do not stand for the rows."""
        if vars(self.model).get("compute_metrics") is not self._hook:  # another such callback took over
            return
        rows, strange = (0, 0) if self._metric is None else ops.convert_to_numpy(self._metric.seen)
        if not rows:
            raise ValueError(
                "`ClassificationMetrics` counted no row: the model's own `train_step` must call "
                "`self.compute_metrics(x, y, y_pred, sample_weight)`."
            )
        if strange and isinstance(self._metric, _LabelCounts):
            raise ValueError(f"`y` must be zeros and ones; {strange:.0f} of {rows:.0f} rows have others.")
        if strange:
            classes = self._metric.classes  # type: ignore[union-attr]
            raise ValueError(
                f"`y` must be class indices from 0 to {classes - 1} or one-hot rows, for the model has "
                f"{classes} classes; {strange:.0f} of {rows:.0f} labels seen are not."
            )

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the model as it was."""
        self._detach()

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (classes,) rows of each class, and (classes,) rows answered with it, since the reset."""
        if self._metric is None:  # another such callback took over
            return np.zeros(0), np.zeros(0)
        _, support, predicted = map(ops.convert_to_numpy, self._metric.by_class())
        return support, predicted

    def _attach(self, shape: Any) -> None:
        outputs = _outputs(shape)
        average, multilabel = self.average, getattr(self.model, "task", None) == "multilabel"
        if average == "auto":
            average = "binary" if outputs <= 2 and not multilabel else "macro"
        elif average == "binary" and (outputs > 2 or multilabel):
            raise ValueError(
                f"`average` 'binary' needs two classes; the model has {outputs}"
                f"{' labels of which a row may have several' if multilabel else ''}. Use 'macro', 'micro' "
                "or 'weighted'."
            )
        counts = _LabelCounts if multilabel else _Counts
        self._metric = counts(max(outputs, 2), average, self._cut() if outputs == 1 else None)
        self.model._metrics.append(self._metric)

    def _detach(self) -> None:
        if self._model is None:  # `fit` was refused before it began
            return
        if "compute_metrics" in vars(self.model):
            object.__delattr__(self.model, "compute_metrics")
        for metric in [m for m in self.model._metrics if isinstance(m, _Counts)]:
            self.model._metrics.remove(metric)
        self._metric = self._hook = None
        self._forget_graphs()

    def _forget_graphs(self) -> None:
        self.model.train_function = self.model.test_function = None

    def _cut(self) -> float:
        """Where one output means class 1: probability 0.5, or logit 0."""
        loss = self.model.loss
        while isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
            loss = next(iter(loss.values())) if isinstance(loss, dict) else loss[0]
        named = getattr(loss, "name", None) or getattr(loss, "__name__", "")
        name = loss if isinstance(loss, str) else str(named)
        if "categorical" in name:
            raise ValueError(
                f"The model has one output and the loss {name!r}, whose softmax over one output is always "
                "1; use a binary cross-entropy, or one output a class."
            )
        logits = self.from_logits
        if logits is None:
            settings = {**getattr(loss, "keywords", {}), **getattr(loss, "_fn_kwargs", {})}
            logits = getattr(loss, "from_logits", settings.get("from_logits"))
        if logits is None:
            ending = getattr(self.model.layers[-1], "activation", None) if self.model.layers else None
            if "binary" not in name and ending is not keras.activations.sigmoid:
                raise ValueError(
                    "The model's one output may be a logit or a probability; say which: "
                    "`ClassificationMetrics(from_logits=True)` or `from_logits=False`."
                )
        return 0.0 if logits else 0.5


def _outputs(shape: Any) -> int:
    if isinstance(shape, (list, dict)) or (shape and isinstance(shape[0], (tuple, list))):
        raise ValueError("`ClassificationMetrics` needs a model with one output; this one has several.")
    if len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            "`ClassificationMetrics` needs a model whose output is (rows, classes); "
            f"its output is {tuple(shape)}."
        )
    return int(shape[-1])


class EpochTrace(keras.callbacks.Callback):
    """Record every epoch of `fit`: logs, rate, seconds, and one sentence that the numbers bear out.

    Put `ClassificationMetrics` beside it for precision, recall and F1. Read `trace` at any time.

    Args:
        rows: Training rows, and
        val_rows: validation rows, if known: with them, changes that are within noise are called so.
        path: A `trace.jsonl` to append to, a line an epoch, flushed as the epoch ends; None for no file.
        show: Called with the table's header and with each epoch's row as it ends, such as `print`; None for
            silence.
        monitor: The metric that chooses the best epoch; None for `val_loss` where there is one.
        mode: "min" or "max"; needed only for a monitor whose direction its name does not tell.
        chooses: Whether the best epoch is the one that is kept; where it is not, the trace names none.
        val_f1_interval: Called as an epoch ends for the limits of its `val_f1`; None for none.

    Example:
        >>> tracer = EpochTrace(show=print)
        >>> print(tracer.trace)
        no epoch was trained
    """

    def __init__(
        self,
        *,
        rows: int | None = None,
        val_rows: int | None = None,
        path: str | Path | None = None,
        show: Callable[[str], Any] | None = None,
        monitor: str | None = None,
        mode: str | None = None,
        chooses: bool = True,
        val_f1_interval: Callable[[], tuple[float, float] | None] | None = None,
    ):
        super().__init__()
        self.rows, self.val_rows, self.show = rows, val_rows, show
        self.val_f1_interval = val_f1_interval
        self.path = None if path is None else _checks.path("path", path)
        self.monitor, self.mode, self.chooses = monitor, mode, chooses
        self.records: list[EpochRecord] = []
        self._behind = False  # whether the file lacks epochs
        self._started = math.nan

    @property
    def trace(self) -> TrainingTrace:
        """What has been recorded so far."""
        monitor = self.monitor
        if monitor is None and self.chooses and any("val_loss" in record.metrics for record in self.records):
            monitor = "val_loss"
        best = best_epoch(self.records, monitor, mode=self.mode) if monitor and self.records else None
        return TrainingTrace(tuple(self.records), best, monitor)

    def on_train_begin(self, logs: Any = None) -> None:
        """Start a new trace."""
        self.records = []
        if self.show is not None:
            self.show(header())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the epoch."""
        metrics = {
            name: float(value)
            for name, value in (logs or {}).items()
            if name != "learning_rate" and np.ndim(value) == 0  # not a metric with a value for every class
        }
        history = [record.metrics for record in self.records] + [metrics]
        record = EpochRecord(
            epoch=epoch + 1,
            metrics=metrics,
            learning_rate=last_rate(self.model),
            seconds=time.perf_counter() - self._started,
            observation=observe(history, rows=self.rows, val_rows=self.val_rows),
            rows=self.rows,
            val_rows=self.val_rows,
            val_f1_interval=None if self.val_f1_interval is None else self.val_f1_interval(),
        )
        self.records.append(record)
        if self.path is not None:
            self._write(self.path, record)
        if self.show is not None:
            try:
                self.show(row(record))
            except OSError:  # the reader has gone, as `head` does: that is no reason to stop training
                self.show = None

    def get_state(self) -> dict[str, Any]:
        """Return the epochs so far, and for how long the one that runs has run."""
        return {
            "records": [record.record() for record in self.records],
            "seconds": time.perf_counter() - self._started,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned; the file is written anew at the end of the epoch."""
        self.records = [EpochRecord.of_record(record) for record in state["records"]]
        self._started = time.perf_counter() - state["seconds"]
        self._behind = True
        if self.show is not None:
            for record in self.records:
                self.show(row(record))

    def _write(self, path: Path, record: EpochRecord) -> None:
        """Append the epoch; after a failure, which is no reason to stop training, write all epochs anew."""
        try:
            if self._behind:
                _files.write_text(path, TrainingTrace(tuple(self.records)).to_jsonl())
            else:
                # To wait for the disk would be felt in epochs of milliseconds.
                _files.append_line(path, record.record(), flush=record.seconds > _LONG_EPOCH)
            self._behind = False
        except OSError as error:
            if not self._behind:
                warnings.warn(
                    f"The trace of the epochs could not be written: {error} Training goes on.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._behind = True


def last_rate(model: Any) -> float | None:
    """Return the rate of the last step; `optimizer.learning_rate` itself is that of the step after it."""
    optimizer = model.optimizer
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        if keras.backend.backend() == "jax":
            model.jax_state_sync()  # between two steps Keras holds the number of steps outside of the model
        rate = rate(optimizer.iterations - 1)
    return None if rate is None else float(ops.convert_to_numpy(rate))


class StepProgress(keras.callbacks.Callback):
    """Tell of every training step.

    Args:
        advance: Called with the number of steps done since the last call and, by keyword, a `note` on the
            loss.
    """

    def __init__(self, advance: Callable[..., Any]):
        super().__init__()
        self._advance = advance
        self._calls = 0

    def get_state(self) -> int:
        """Return how many steps were told of."""
        return self._calls

    def set_state(self, state: int) -> None:
        """Tell of the steps before the run was interrupted."""
        self._calls = state
        self._advance(state, note="")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Report one step."""
        self._calls += 1
        self._advance(1, note=f"loss {float((logs or {}).get('loss', math.nan)):.3f}")


__all__ = ["ClassificationMetrics", "EpochTrace"]
