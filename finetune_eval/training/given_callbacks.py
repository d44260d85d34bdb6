"""Which callbacks of the user `fine_tune` takes, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import keras

# Keras callbacks that cannot do their work in `fine_tune`, and why.
_SETS_RATE = keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau
_REFUSED = {
    keras.callbacks.BackupAndRestore: "would go on with other batches, and without the best epoch so far",
    keras.callbacks.SwapEMAWeights: "needs an optimizer with `use_ema=True`",
}


def usable(callbacks: Any, *, may_set_rate: bool = False) -> list[keras.callbacks.Callback]:
    """Return the callbacks for `fine_tune` as a list.

    Args:
        callbacks: A list, one callback, or None.
        may_set_rate: Whether the learning rate is one that a callback can set.

    Raises:
        TypeError: One of them is no callback.
        ValueError: One of them would end the training after the first step, or change it in silence.
    """
    if callbacks is None:
        return []
    listed = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else callbacks
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
        raise TypeError(f"`callbacks` must be Keras callbacks, one or a list; got {type(listed).__name__}.")
    for place, callback in enumerate(listed):
        kinds = keras.callbacks.Callback, keras.callbacks.CallbackList
        if not isinstance(callback, kinds[0]) or isinstance(callback, kinds[1]):
            raise TypeError(
                f"`callbacks` must hold Keras callbacks; number {place} is {callback!r} "
                f"({type(callback).__name__})."
                + (" Is it a class? Make one of it: add ()." if isinstance(callback, type) else "")
            )
        name = type(callback).__name__
        why = next((why for kind, why in _REFUSED.items() if isinstance(callback, kind)), None)
        if why is not None:
            raise ValueError(
                f"`callbacks` has a {name}, which {why}; `fine_tune` has its own warm-up, decay and best "
                "epoch. Leave it out, or train with `model.compile` and `model.fit`."
            )
        if isinstance(callback, _SETS_RATE) and not may_set_rate:
            raise ValueError(
                f"`callbacks` has a {name}, which sets the learning rate; `fine_tune` has its own warm-up "
                "and decay. Pass `schedule='constant', warmup=0` with it, or leave it out."
            )
        whole = isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only
        if whole and not str(callback.filepath).endswith(".keras"):
            raise ValueError(
                f"`callbacks` has a ModelCheckpoint that writes {str(callback.filepath)!r}, which cannot "
                "hold the vocabulary; end its `filepath` in '.keras'."
            )
        if isinstance(callback, keras.callbacks.TensorBoard) and find_spec("tensorboard") is None:
            raise ImportError(
                "`callbacks` has a TensorBoard, which needs a package that is not installed; "
                "`pip install tensorboard`, or leave it out."
            )
    return list(listed)
