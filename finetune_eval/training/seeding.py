"""What makes a training the same each time: random states, and operations that always sum in one order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras

from finetune_eval.models.layers import start_drawing


def seed_dropout(model: Any, seed: int) -> None:
    """Start every dropout, and any other layer that draws, at a state that depends on `seed` alone."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    ]
    for index, layer in enumerate(layers):
        start_drawing(layer.seed_generator, seed, index)


def check_deterministic() -> None:
    """Raise where `deterministic=True` cannot be kept.

    Raises:
        ValueError: JAX or torch runs on a GPU without the option that only its start can set.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        option = "--xla_gpu_deterministic_ops=true"
        if jax.default_backend() == "gpu" and option not in os.environ.get("XLA_FLAGS", ""):
            raise _needs("JAX", f"XLA_FLAGS={option}")
    if backend == "torch":
        import torch

        option = ":4096:8"
        if torch.cuda.is_available() and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (option, ":16:8"):
            raise _needs("torch", f"CUBLAS_WORKSPACE_CONFIG={option}")


def _needs(backend: str, setting: str) -> ValueError:
    return ValueError(
        f"`deterministic` needs an option that {backend} reads when it starts: set {setting} before "
        "the program starts."
    )


@contextlib.contextmanager
def deterministic_operations(on: bool) -> Iterator[None]:
    """Have TensorFlow or torch choose operations that give the same bits each time, and put back what was.

    On a CPU, and on JAX, they do so anyway, but for the number of threads.
    """
    backend = keras.backend.backend()
    if not on or backend not in ("tensorflow", "torch"):
        yield
        return
    if backend == "torch":
        import torch

        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
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
