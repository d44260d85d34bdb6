"""Divergence: a loss that is not finite, or explodes, ends the training and says where it happened."""

from __future__ import annotations

import collections
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _text
from finetune_eval.models.batching import Batches
from finetune_eval.training import schedules
from finetune_eval.training.callbacks import last_rate
from finetune_eval.training.checkpoints import trained_weights

# A loss explodes where the mean of so many batches is above that of knowing nothing and above the lowest such
# mean so far, by these factors: a spike of one batch does not reach that.
_BATCHES, _AT_LEAST = 10, 5
_TIMES_KNOWING_NOTHING, _TIMES_LOWEST = 5.0, 10.0
_ROWS_NAMED = 8


class StopOnDivergence(keras.callbacks.Callback):
    """Stop `fit` at the first batch whose loss is not finite, or explodes.

    Args:
        train: The training rows; None: no rows are named, and no loss explodes.
        classes: How many the model tells apart.
        keep: Whether to keep the weights of the last epoch that ended well: where no other callback keeps
            those of the best.
    """

    def __init__(self, train: Batches | None = None, classes: int = 2, *, keep: bool = False):
        super().__init__()
        self._train, self._keep = train, keep
        weights = None if train is None else train.sample_weight
        self._limit = _TIMES_KNOWING_NOTHING * math.log(max(2, classes))
        if weights is not None:  # a batch may be all of the heaviest rows
            self._limit *= max(1.0, float(weights.max()))
        self.diverged = False
        self.epoch = 0
        self._what, self._step, self._rows = "", 0, np.zeros(0, dtype=np.int64)
        self._rate: float | None = None
        self._last: collections.deque[tuple[float, int]] = collections.deque(maxlen=_BATCHES)
        self._lowest = math.inf
        self._seen, self._total = 0, 0.0
        self._next = 0
        self.good: dict[int, np.ndarray] = {}  # by place in `model.weights`
        self.good_epoch = 0

    def get_state(self) -> dict[str, Any]:
        """Return what the losses so far were."""
        names = ("_lowest", "_seen", "_total", "_next")
        return {"last": list(self._last), **{name: getattr(self, name) for name in names}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._last.extend(state["last"])
        for name in ("_lowest", "_seen", "_total", "_next"):
            setattr(self, name, state[name])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch; its running loss begins anew."""
        self.epoch = epoch + 1
        self._seen, self._total, self._next = 0, 0.0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the loss of the batch."""
        loss = float((logs or {}).get("loss", 0.0))
        first = self._next
        self._next = batch + 1 if self._train is None else min(batch + 1, len(self._train))
        batches = [] if self._train is None else self._train.order[first : batch + 1]
        rows = np.concatenate(batches) if batches else np.zeros(0, dtype=np.int64)
        if not math.isfinite(loss):
            self._stop(f"The loss became {'NaN' if math.isnan(loss) else 'infinite'}", rows)
        elif len(rows):
            self._look(loss, rows)

    def _look(self, loss: float, rows: np.ndarray) -> None:
        """Hold the mean loss of the last batches against the lowest; `loss` is the mean over the epoch."""
        self._seen += len(rows)
        total = loss * self._seen
        self._last.append(((total - self._total) / len(rows), len(rows)))
        self._total = total
        mean = sum(value * count for value, count in self._last) / sum(count for _, count in self._last)
        if len(self._last) >= _AT_LEAST and mean > max(self._limit, _TIMES_LOWEST * self._lowest):
            self._stop(f"The loss exploded to {mean:.3g} (it had been {self._lowest:.3g})", rows)
        self._lowest = min(self._lowest, mean)

    def _stop(self, what: str, rows: np.ndarray) -> None:
        if self.diverged:
            return
        self.diverged = self.model.stop_training = True
        self._what, self._step, self._rows = what, self._next, rows
        self._rate = last_rate(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the weights, if nobody else does and they are finite."""
        if not self._keep or self.diverged:
            return
        weights = trained_weights(self.model)
        if all(np.isfinite(value).all() for value in weights.values()):
            self.good, self.good_epoch = weights, epoch + 1

    def at_the_end(self) -> None:
        """Note that the last step of all left weights that are not finite: no loss was computed after it."""
        if self.diverged:
            return
        self.diverged, self._what, self._step = True, "The weights became NaN or infinite", self._next
        self._rate = last_rate(self.model)
        if self._train is not None:
            self._rows = self._train.order[-1]

    def restore(self) -> bool:
        """Put the weights of the last epoch that ended well back; return whether there are any."""
        for place, value in self.good.items():
            self.model.weights[place].assign(value)
        return bool(self.good)

    def sentence(self, restored: str, highest_rate: float | None) -> str:
        """Return what happened, where, and what to do.

        Args:
            restored: Which weights are in the model now, such as "of epoch 2".
            highest_rate: The highest learning rate; None: the caller's optimizer has its own.
        """
        steps = "" if self._train is None else f", step {self._step} of {len(self._train)}"
        rate = "" if self._rate is None else f", at the rate {self._rate:.2g}"
        named = _text.listed(np.sort(self._rows).tolist(), _ROWS_NAMED, quote=False)
        rows = f" The batch held the rows {named}." if len(self._rows) else ""
        return (
            f"{self._what} in epoch {self.epoch}{steps}{rate}: training diverged, and the weights {restored} "
            f"are restored.{rows} Lower {schedules.highest(highest_rate, verb='was')}, or look for huge "
            "values and wrong labels in these rows."
        )


def is_finite(model: Any) -> bool:
    """Whether every weight of a model is a number."""
    return all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in model.weights)
