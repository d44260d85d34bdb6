"""Fine-tune a pre-trained Keras model, and know honestly how good it became.

Importing this package imports neither TensorFlow nor Keras: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load_dataset": "data.sources",
    "split": "data.splits",
    "find_leaks": "data.leakage",
    "DataTrace": "data.ledger",
    "build_model": "models.build",
    "load_model": "models.build",
    "pretrained_features": "models.build",
    "trace_prediction": "models.tracing",
    "fine_tune": "training.fine_tune",
    "EpochTrace": "training.callbacks",
    "ClassificationMetrics": "training.callbacks",
    "TrainingTrace": "traces.training",
    "evaluate": "evaluation.evaluate",
    "evaluate_predictions": "evaluation.evaluate",
    "Evaluation": "evaluation.evaluate",
    "load_predictions": "evaluation.saved",
    "compare": "evaluation.comparison",
    "compare_totals": "evaluation.comparison",
    "evaluate_seeds": "evaluation.seeds",
    "compare_seeds": "evaluation.seeds",
    "report": "reports.html",
    "write_card": "reports.card",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finetune_eval' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"finetune_eval.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
