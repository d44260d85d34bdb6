"""bfloat16 matrix multiplications where the processor has them; what is set is put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from finetune_eval import _checks
from finetune_eval.models.backbones import ONEDNN_BFLOAT16

PRECISIONS = ("auto", "float32", "bfloat16")


def resolve(precision: str) -> str:
    """Return "float32" or "bfloat16": for "auto", what is fast on this machine without emulation.

    Raises:
        ValueError: bfloat16 is asked for where it would be emulated.
    """
    _checks.one_of("precision", precision, PRECISIONS)
    able = keras.backend.backend() == "tensorflow" and _processor_has_bfloat16()
    if precision == "auto":
        return "bfloat16" if able else "float32"
    if precision == "bfloat16" and not able:
        raise ValueError(
            "`precision` 'bfloat16' needs the TensorFlow backend and a processor with avx512_bf16 or "
            "amx_bf16; "
            "use 'auto' or 'float32'."
        )
    return precision


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Run matrix multiplications in `precision` ("float32" or "bfloat16") inside the context.

    Weights, sums, softmax and loss stay float32. A graph keeps the precision it was first run with, so graphs
    made inside must not be used outside.
    """
    if precision == "float32":
        yield
        return
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options().get(ONEDNN_BFLOAT16, False)
    tf.config.optimizer.set_experimental_options({ONEDNN_BFLOAT16: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({ONEDNN_BFLOAT16: before})


def _processor_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
