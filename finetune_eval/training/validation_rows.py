"""Validation rows one by one: the interval of an epoch's F1, and whether it is better by more than noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from finetune_eval.evaluation._paired_differences import difference_of
from finetune_eval.evaluation._paired_rows import Settings
from finetune_eval.evaluation.sample import Sample, Sampling
from finetune_eval.evaluation.scores import f1
from finetune_eval.models.batching import Batches
from finetune_eval.models.halves import in_strategy
from finetune_eval.training.callbacks import ClassificationMetrics

_LEVEL = 0.05
_N_RESAMPLES = 2000
# With more classes than this macro F1 has no interval: of 1,000 classes it takes seconds an epoch.
_MOST_CLASSES = 100
_TINY = 1e-7  # the distance of a float32 from 1 that can be told


@dataclass(frozen=True)
class EpochRows:
    """What one epoch's weights made of the validation rows; `difference_of` compares two of them.

    Attributes:
        y: (n,) class indices, or (n, K) zeros and ones.
        predicted: The answers, in the same shape.
        loss: (n,) loss of each row, of the kind that the training has.
        entropy: (n,) entropy of the probabilities of each row.
        labels: The class indices.
        weights: (n,) weights of mean 1; None where all rows count the same.
        name: What the interval calls the model of this epoch.
    """

    y: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    entropy: np.ndarray
    labels: range
    weights: np.ndarray | None
    name: str = "this epoch"
    folds: None = None
    unlabelled: bool = False

    @property
    def average(self) -> str:
        """How F1 is averaged, as in the trace."""
        return "binary" if len(self.labels) == 2 and self.y.ndim == 1 else "macro"

    @property
    def correct(self) -> np.ndarray:
        """(n,) 1 where the row is right, in all of its labels, else 0."""
        same = self.y == self.predicted
        return np.asarray(same if same.ndim == 1 else same.all(axis=1), dtype=np.int64)

    def codes(self, column: str) -> np.ndarray:
        """Return (n,) class indices: the truth, or the answers."""
        return self.y if column == "label" else self.predicted

    def of_rows(self, metric: str) -> np.ndarray:
        """Return the number a row that `metric` is the mean of."""
        return self.correct.astype(np.float64) if metric == "accuracy" else self.loss


class _ByRow(keras.metrics.Metric):
    """Keeps what is found for each validation row, in the order of the batches; it has no result."""

    def __init__(self, rows: int, columns: int):
        super().__init__(name="by_row")
        self.found = self.add_weight(
            name="found", shape=(rows, columns), initializer="zeros", dtype="float32"
        )
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", dtype="int32")

    def update_state(self, found: Any) -> None:
        """Keep (rows, columns) numbers of the next batch."""
        count = ops.shape(found)[0]
        places = ops.expand_dims(self.seen + ops.arange(count, dtype="int32"), -1)
        self.found.assign(ops.scatter_update(self.found, places, ops.cast(found, "float32")))
        self.seen.assign_add(count)

    def reset_state(self) -> None:
        """Begin with the first row, as Keras asks before every evaluation; what is there is written over."""
        self.seen.assign(0)

    def result(self) -> dict[str, Any]:
        """Return nothing: the logs of an epoch hold no rows."""
        return {}


class RowMetrics(ClassificationMetrics):
    """`ClassificationMetrics` that knows the validation rows one by one, from the pass that counts them.

    Args:
        validation: The validation rows, in the same order in every epoch; None for none. Inside a
            `tf.distribute` strategy, whose replicas see parts of them, they are counted only.
        classes: How many classes, or labels, there are.
        task: "classification" or "multilabel".
        by_row: False where devices share the rows, which are then counted only.
    """

    def __init__(self, validation: Batches | None, classes: int, *, task: str, by_row: bool = True):
        super().__init__(weighted=validation is not None and validation.sample_weight is not None)
        self._validation = validation if by_row and not in_strategy() else None
        self._classes, self._multilabel = classes, task == "multilabel"
        self._by_row: _ByRow | None = None

    def rows(self) -> EpochRows | None:
        """Return what the last validation found for each row; None where no row was looked at."""
        validation, found = self._validation, self._by_row
        if (
            validation is None
            or found is None
            or int(ops.convert_to_numpy(found.seen)) != len(validation.rows)
        ):
            return None
        values = validation.as_they_came(np.array(ops.convert_to_numpy(found.found)))
        answers = values[:, 2:].astype(np.int64)
        return EpochRows(
            y=np.asarray(validation.y, dtype=np.int64),
            predicted=answers if self._multilabel else answers[:, 0],
            loss=values[:, 0].astype(np.float64),
            entropy=values[:, 1].astype(np.float64),
            labels=range(self._classes),
            weights=None if validation.sample_weight is None else np.asarray(validation.sample_weight, float),
        )

    def f1_interval(self) -> tuple[float, float] | None:
        """Return the 95 % limits of the F1 of the last validation; None without rows, and of many classes."""
        rows = self.rows() if self._classes <= _MOST_CLASSES else None
        if rows is None:
            return None
        sample = Sample(
            rows.y, None, rows.predicted, average=rows.average, classes=self._classes, weights=rows.weights
        )
        found = f1(sample, Sampling(1 - _LEVEL, _N_RESAMPLES))
        return (found.low, found.high) if math.isfinite(found.low + found.high) else None

    def _attach(self, shape: Any) -> None:
        super()._attach(shape)
        if self._validation is not None:
            answers = self._classes if self._multilabel else 1
            self._by_row = _ByRow(len(self._validation.rows), 2 + answers)
            self.model._metrics.append(self._by_row)

    def _detach(self) -> None:
        if self._by_row is not None:
            self.model._metrics.remove(self._by_row)
            self._by_row = None
        super()._detach()

    def _count(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        super()._count(y, y_pred, sample_weight)
        if self._testing and self._by_row is not None:
            self._by_row.update_state(self._found(y, ops.cast(y_pred, "float32")))

    def _found(self, y: Any, p: Any) -> Any:
        """Return (rows, 2 + answers): loss, entropy and answer of each row."""
        # `self.model` would have Keras on JAX put its state back in the middle of the trace.
        loss, inside = self._model.loss.call(y, p), ops.clip(p, _TINY, 1 - _TINY)
        entropy = -ops.sum(inside * ops.log(inside) + (1 - inside) * ops.log(1 - inside), axis=-1)
        answers = p >= 0.5 if self._multilabel else ops.expand_dims(ops.argmax(p, axis=-1), -1)
        columns = [ops.expand_dims(loss, -1), ops.expand_dims(entropy, -1), answers]
        return ops.concatenate([ops.cast(column, "float32") for column in columns], axis=-1)


class WithinNoise:
    """Counts the epochs since one was better than the best before it by more than noise.

    Args:
        rows: Gives what the epoch that ended made of the validation rows.
        monitor: The metric that says which epoch is better, such as "val_loss".
    """

    def __init__(self, rows: Callable[[], EpochRows | None], monitor: str):
        self._rows, self._metric = rows, monitor.removeprefix("val_")
        self._best: dict[str, np.ndarray] | None = None  # what the best epoch made of the rows
        self._waited = 0

    def waited(self, *, better: bool) -> int:
        """Return for how many epochs no improvement was above noise, the one that ended included.

        Args:
            better: Whether the monitor is better than it ever was.
        """
        rows = self._rows()
        if rows is None:
            raise ValueError(
                "`stop_within_noise` saw no validation row: a ClassificationMetrics in `callbacks` took over "
                "their metrics. Leave it out: `fine_tune` has one of its own."
            )
        self._waited = 0 if better and self._is_clear(rows) else self._waited + 1
        if better:
            self._best = {name: getattr(rows, name) for name in ("predicted", "loss", "entropy")}
        return self._waited

    def _is_clear(self, rows: EpochRows) -> bool:
        """Whether the paired interval of the improvement over the best epoch before excludes 0."""
        if self._best is None:
            return True
        settings = Settings(self._metric, rows.average, _N_RESAMPLES, 0, None)
        kept: dict[str, Any] = {"name": "the best epoch", **self._best}
        now, best = cast(Any, rows), cast(Any, dataclasses.replace(rows, **kept))  # as `ScoredRows`
        found = difference_of(now, best, settings).interval(_LEVEL)
        return found.high < 0 if self._metric == "loss" else found.low > 0

    def get_state(self) -> dict[str, Any]:
        """Return the count, and what the best epoch made of the rows."""
        return {"waited": self._waited, "best": self._best}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._waited, self._best = state["waited"], state["best"]
