"""Keep the weights of the best epoch: in memory, and on the disk while training goes on."""

from __future__ import annotations

import concurrent.futures
import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _checks
from finetune_eval.models import lora
from finetune_eval.training.validation_rows import WithinNoise


class BestEpoch(keras.callbacks.Callback):
    """Keep the weights of the best epoch in memory, and stop when it lies far back; `restore` puts them back.

    Args:
        monitor: The metric that chooses.
        mode: "min" or "max".
        patience: Stop after so many epochs without a better one; None never stops.
        noise: Tells which epochs are better by more than noise, which alone count for `patience`; None: every
            better one does.
    """

    def __init__(
        self, monitor: str, *, mode: str, patience: int | None = None, noise: WithinNoise | None = None
    ):
        super().__init__()
        self.monitor, self.patience, self.noise = monitor, patience, noise
        self._sign = 1.0 if mode == "min" else -1.0
        self.best: float = math.inf
        self.best_epoch = 0
        self.weights: dict[int, np.ndarray] = {}  # by place in `model.weights`

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep these weights if they are the best so far."""
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"`monitor` must be one of {', '.join(map(repr, logs or {}))}; got {self.monitor!r}."
                f"{_checks.nearest(self.monitor, logs or {})}"
            )
        value = self._sign * float(logs[self.monitor])
        better = value < self.best
        if better:
            self.best, self.best_epoch = value, epoch + 1
            self.weights = trained_weights(self.model)
        waited = epoch + 1 - self.best_epoch if self.noise is None else self.noise.waited(better=better)
        if self.patience is not None and waited >= self.patience:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        """Return what is known of the best epoch, its weights apart."""
        noise = {} if self.noise is None else {"noise": self.noise.get_state()}
        return {"best": self.best, "best_epoch": self.best_epoch, **noise}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned; the weights have to be set beside it."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        if self.noise is not None:
            self.noise.set_state(state["noise"])

    def restore(self) -> None:
        """Put the best weights back, if there are any."""
        for place, value in self.weights.items():
            self.model.weights[place].assign(value)
        self.weights = {}


def frozen_weights(model: Any) -> set[int]:
    """Return the `id` of each weight of a frozen layer: it keeps its bits."""
    return {
        id(weight)
        for layer in model._flatten_layers()
        if not (layer.trainable or layer._layers)  # of a frozen one inner ones may be trained
        for weight in layer.weights
    }


def trained_weights(model: Any) -> dict[int, np.ndarray]:
    """Return copies of a model's weights but those of frozen layers, by their place in `model.weights`."""
    frozen = frozen_weights(model)
    # What `convert_to_numpy` gives is a copy on TensorFlow, elsewhere it may be a view.
    own = np.asarray if keras.backend.backend() == "tensorflow" else np.array
    return {
        place: own(ops.convert_to_numpy(weight))
        for place, weight in enumerate(model.weights)
        if id(weight) not in frozen
    }


class Checkpoint(keras.callbacks.Callback):
    """Have the weights of the best epoch so far written while training goes on.

    A thread writes. Where an epoch ends before it is ready, the weights wait for the end of the next one.

    Args:
        save: Called with the weights by their place in `model.weights`, written as text.
        best: The callback that keeps the best epoch, called before this one; None where the last epoch is the
            best.
    """

    def __init__(self, save: Callable[[dict[str, np.ndarray]], Any], best: BestEpoch | None):
        super().__init__()
        self._save, self._best = save, best
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future[Any] | None = None
        self._written = 0  # the epoch whose weights are on the disk, or on their way there

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Hand over weights that are not written yet."""
        best = epoch + 1 if self._best is None else self._best.best_epoch
        if best == self._written or (self._writing is not None and not self._writing.done()):
            return
        weights = trained_weights(self.model) if self._best is None else self._best.weights
        self._finish()
        self._written = best
        named = {str(place): value for place, value in lora.as_saved(self.model, weights).items()}
        self._writing = self._writer.submit(self._save, named)

    def close(self) -> None:
        """Wait for the last write."""
        self._finish()
        self._writer.shutdown()

    def _finish(self) -> None:
        if self._writing is None:
            return
        problem, self._writing = self._writing.exception(), None
        if isinstance(problem, OSError):
            warnings.warn(
                f"The weights of epoch {self._written} could not be written: {problem} Training goes on.",
                RuntimeWarning,
                stacklevel=2,
            )
        elif problem is not None:
            raise problem
