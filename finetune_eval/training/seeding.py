"""What makes a training the same each time: random states, and operations that always sum in one order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def seed_dropout(model: Any, seed: int) -> None:
    """Start every dropout, and any other layer that draws, at a state that depends on `seed` alone."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    ]
    for index, layer in enumerate(layers):
        layer.seed_generator.state.assign(np.array([seed, index], dtype="uint32"))


def check_deterministic() -> None:
    """Raise where `deterministic=True` cannot be kept.

    Raises:
        ValueError: JAX runs on a GPU without the option that only its start can set.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    option = "--xla_gpu_deterministic_ops=true"
    if jax.default_backend() == "gpu" and option not in os.environ.get("XLA_FLAGS", ""):
        raise ValueError(
            f"`deterministic` needs an option that JAX reads when it starts: set XLA_FLAGS={option} before "
            "the program starts."
        )


@contextlib.contextmanager
def deterministic_operations(on: bool) -> Iterator[None]:
    """Have TensorFlow choose operations that give the same bits each time; what was before is put back.

    On a CPU, and on JAX, they do so anyway, but for the number of threads.
    """
    if not on or keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework import config  # only enabling is public

    if config.is_op_determinism_enabled():
        yield
        return
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        config.disable_op_determinism()
