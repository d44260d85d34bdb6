"""Averaged weights: the model has them while it is validated and saved, and its own ones while it trains."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


class Averages(keras.callbacks.Callback):
    """Have what an epoch ends with be the averaged weights that `AdamW` keeps, once it has averaged any.

    They are in the model while validation rows are judged, and when later callbacks see the end of the
    epoch: what was measured is what they keep. The next epoch goes on from the weights of the last step; the
    averages of the last epoch stay. Put it before the callbacks that keep weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own: list[np.ndarray] | None = None  # the last step's, while the averages are in the model

    def on_test_begin(self, logs: Any = None) -> None:
        """Put the averages in, for validation."""
        self._put_in()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Put the averages in where there was no validation."""
        self._put_in()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put the weights of the last step back."""
        if self._own is not None:
            _assign(self.model.optimizer._trainable_variables, self._own)
            self._own = None

    def _put_in(self) -> None:
        optimizer: Any = self.model.optimizer
        averages = optimizer.averaged()
        if self._own is None and averages is not None:
            variables = optimizer._trainable_variables
            self._own = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
            _assign(variables, averages)


def _assign(variables: Any, values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
