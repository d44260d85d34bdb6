"""bfloat16 matrix products on processors that have them, for as long as a context lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from finetune_eval import _checks
from finetune_eval.models.backbones import PRODUCTS, BertBackbone
from finetune_eval.models.halves import on_gpu

PRECISIONS = ("auto", "float32", "bfloat16")


def resolve(precision: str, backbone: Any) -> str:
    """Return "float32" or "bfloat16": for "auto", what is fast on this machine without emulation.

    Raises:
        ValueError: bfloat16 is asked for where it would be emulated, or ignored.
    """
    _checks.one_of("precision", precision, PRECISIONS)
    able = (
        isinstance(backbone, BertBackbone)
        and keras.backend.backend() == "tensorflow"
        and _processor_has_bfloat16()
        and not on_gpu()
    )
    if precision == "auto":
        return "bfloat16" if able else "float32"
    if precision == "bfloat16" and not able:
        raise ValueError(
            "`precision` 'bfloat16' needs a BERT backbone, the TensorFlow backend, no GPU, and a processor "
            "with avx512_bf16 or amx_bf16; use 'auto' or 'float32'."
        )
    return precision


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Have encoder layers that are trained inside the context multiply in `precision`.

    Products are rounded to bfloat16; they are summed in float32. Weights and their updates, softmax, GELU,
    normalisation and the loss stay float32, and so does all that is computed without training. TensorFlow's
    own switch (`auto_mixed_precision_onednn_bfloat16`) is not used: the gradients of biases that it gives are
    wrong by most of their size (docs/performance.md). A graph keeps the precision it was made with: graphs
    made inside must not be used outside.
    """
    token = PRODUCTS.set(precision)
    try:
        yield
    finally:
        PRODUCTS.reset(token)


def _processor_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
