"""A check whether a model learned anything in its first epoch, which says so where it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _text
from finetune_eval.models.batching import Batches
from finetune_eval.training import schedules
from finetune_eval.training.callbacks import ClassificationMetrics


class LearningCheck(keras.callbacks.Callback):
    """Look at the answers and at the validation loss of the first epoch; put it after `counts`.

    A model that gives all rows one answer, or whose loss is above that of always answering with the shares of
    the classes, knows nothing of the rows yet.

    Args:
        counts: Counts the answers.
        labels: The class names.
        validation: The validation rows, or None.
        rate: The highest learning rate; None: the caller's optimizer has its own.
        show: Called with the sentence; None for silence.
    """

    def __init__(
        self,
        counts: ClassificationMetrics,
        labels: Sequence[str],
        validation: Batches | None,
        rate: float | None,
        show: Callable[[str], Any] | None,
    ):
        super().__init__()
        self._counts, self._labels, self._validation = counts, labels, validation
        self._rate, self._show = rate, show
        self.sentence: str | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the first epoch."""
        problem = self._problem(logs or {}) if epoch == 0 else None
        if problem is None:
            return
        self.sentence = (
            f"After the first epoch {problem}: it has learned nothing of the rows yet. If more epochs do not "
            f"help, change {schedules.highest(self._rate, verb='is')}, and check that each row has its own "
            "label."
        )
        if self._show is not None:
            self._show(_text.fill(self.sentence))

    def get_state(self) -> str | None:
        """Return the sentence, if there is one."""
        return self.sentence

    def set_state(self, state: str | None) -> None:
        """Take a sentence that was said before the run was interrupted."""
        self.sentence = state

    def _problem(self, logs: Any) -> str | None:
        true, answered = self._counts.totals()
        if not self.model.multilabel and (answered > 0).sum() == 1 and (true > 0).sum() > 1:
            rows = "training" if self._validation is None else "validation"
            return f"the model answers {self._labels[int(answered.argmax())]!r} for every {rows} row"
        if self._validation is None:  # the loss of an epoch of training is a mean over all of its steps
            return None
        loss, least = float(logs["val_loss"]), _loss_of_shares(self.model.loss, self._validation, len(true))
        if not loss > least:
            return None
        return (
            f"the validation loss of the model is {loss:.3f}, above the {least:.3f} of always answering with "
            "the shares of the classes"
        )


def _loss_of_shares(loss: Any, rows: Batches, classes: int) -> float:
    """Return the loss of predicting, for each row, the share of each class among these rows."""
    y = np.asarray(rows.y)
    each = np.eye(classes)[y] if y.ndim == 1 else y
    shares = np.average(each, axis=0, weights=rows.sample_weight)
    predicted = np.tile(shares.astype(np.float32), (len(y), 1))
    return float(ops.convert_to_numpy(loss(y, predicted, rows.sample_weight)))
