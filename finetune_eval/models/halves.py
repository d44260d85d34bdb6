"""Computing two halves of a batch at the same time, each on half of the cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from finetune_eval._cores import cores

# What the first half made for both, by whose it is; None outside of `in_halves`.
_SHARED: ContextVar[dict[int, Any] | None] = ContextVar("shared", default=None)


def on_gpu() -> bool:
    """Whether the backend computes on a GPU, or on another accelerator."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available())
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def in_strategy() -> bool:
    """Whether TensorFlow computes inside a `tf.distribute` strategy."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def on_one_cpu() -> bool:
    """Whether TensorFlow computes, on this machine's cores: no GPU, no `tf.distribute` strategy."""
    return keras.backend.backend() == "tensorflow" and not (in_strategy() or on_gpu())


def side_by_side() -> bool:
    """Whether a graph made now should compute halves: on a CPU where an operation has half the cores or less.

    An operation that all cores share makes them wait for each other at its end, thousands of times a step.
    Two halves of a batch, each computed by its own cores, wait only where their gradients meet.
    """
    if not on_one_cpu():
        return False
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    said = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    threads = threads or (int(said) if said.isdecimal() else 0)  # TensorFlow too ignores what is no number
    return 0 < 2 * threads <= cores()


def in_halves(run: Callable[[Any], Any], inputs: Any) -> Any:
    """Return `run(inputs)`, (rows, ...), the first half of the rows computed apart from the others."""
    middle = (ops.shape(keras.tree.flatten(inputs)[0])[0] + 1) // 2
    token = _SHARED.set({})
    try:
        first = run(keras.tree.map_structure(lambda part: part[:middle], inputs))
        return ops.concatenate([first, run(keras.tree.map_structure(lambda part: part[middle:], inputs))])
    finally:
        _SHARED.reset(token)


def once(owner: Any, make: Callable[[], Any]) -> Any:
    """Return `make()`; inside `in_halves`, what it gave for this owner in the first half."""
    shared = _SHARED.get()
    if shared is None:
        return make()
    if id(owner) not in shared:
        shared[id(owner)] = make()
    return shared[id(owner)]
