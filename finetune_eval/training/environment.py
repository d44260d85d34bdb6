"""What a result depends on beside its recipe: versions, hardware, and the weights before training."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from finetune_eval._cores import cores

_PACKAGES = ("finetune-eval", "tensorflow", "jax", "keras", "keras-hub", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return the versions and the hardware that a result depends on."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
            versions[name] = None
    import keras

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "backend": keras.backend.backend(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),  # sums differ in the last bit with it
        "threads_an_operation": os.environ.get("TF_NUM_INTRAOP_THREADS"),  # None: all cores
        "packages": versions,
    }


def weights_hash(model: Any) -> str:
    """Return a hash of all weights of a model, in their order: 32 hexadecimal characters."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:32]


def source_of(model: Any) -> dict[str, Any]:
    """Return where the backbone came from; of a folder's path no more than its name, for runs are shared."""
    source = dict(getattr(model, "source", {}))
    if os.path.isabs(name := str(source.get("backbone"))):
        source["backbone"] = os.path.basename(name)
    return source


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
