"""A run on disk: one folder, formats that other programs read, every file whole or absent."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_eval._files import write, write_text
from finetune_eval.models.classifier import Classifier

_PACKAGES = ("finetune-eval", "tensorflow", "jax", "keras", "keras-hub", "numpy", "scikit-learn")


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files go."""

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Make the folder.

        Raises:
            FileExistsError: There is a run in it, which would be lost.
        """
        folder = Path(path)
        if (folder / "manifest.json").exists():
            raise FileExistsError(
                f"`run_dir` {str(path)!r} holds a run already; pass a new folder, or remove it first."
            )
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"`run_dir` {str(path)!r} is a file; pass a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    @property
    def trace(self) -> Path:
        """The per-epoch trace, a line an epoch."""
        return self.path / "trace.jsonl"

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write `manifest.json`."""
        write_text(
            self.path / "manifest.json",
            json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n",
        )

    def save_training_rows(self, texts: Any, labels: Any) -> None:
        """Write the training texts and their labels to `train.parquet`, to look for them in test rows."""
        import pandas as pd

        rows = pd.DataFrame({"text": list(texts), "label": list(labels)})
        write(self.path / "train.parquet", lambda file: rows.to_parquet(file, index=False))

    def save_model(self, model: Classifier) -> None:
        """Write the model to `model/model.keras`."""
        folder = self.path / "model"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing.") as temporary:
            written = Path(temporary) / "model.keras"
            model.save(written)
            os.replace(written, folder / "model.keras")


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
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),  # sums differ in the last bit with it
        "threads_an_operation": os.environ.get("TF_NUM_INTRAOP_THREADS"),  # None: all cores
        "packages": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
