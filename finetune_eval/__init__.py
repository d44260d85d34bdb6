"""Fine-tune a pre-trained Keras model, and know honestly how good it became.

Importing this package imports neither TensorFlow nor Keras: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from finetune_eval.data.columns import rows_of_columns
    from finetune_eval.data.leakage import find_leaks
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.data.sources import load_dataset
    from finetune_eval.data.splits import split
    from finetune_eval.evaluation.abstention import choose_abstention
    from finetune_eval.evaluation.agreement import agreement
    from finetune_eval.evaluation.comparison import compare, compare_totals
    from finetune_eval.evaluation.drift import check_drift
    from finetune_eval.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions
    from finetune_eval.evaluation.files import evaluate_files
    from finetune_eval.evaluation.saved import load_predictions
    from finetune_eval.evaluation.seeds import compare_seeds, evaluate_seeds
    from finetune_eval.models.build import build_model, load_model, pretrained_features
    from finetune_eval.models.tracing import trace_prediction
    from finetune_eval.reports.card import write_card
    from finetune_eval.reports.html import report
    from finetune_eval.studies.cross_evaluate import CrossEvaluation, cross_evaluate
    from finetune_eval.studies.learning_curve import LearningCurve, learning_curve
    from finetune_eval.studies.self_train import self_train
    from finetune_eval.traces.training import TrainingTrace
    from finetune_eval.training.callbacks import ClassificationMetrics, EpochTrace
    from finetune_eval.training.fine_tune import fine_tune
    from finetune_eval.training.processes import initialize_distributed
    from finetune_eval.training.rate_range import find_learning_rate
    from finetune_eval.training.recipe import Recipe
    from finetune_eval.training.resume import resume

__version__ = "0.1.0"

_HOME = {
    "load_dataset": "data.sources",
    "split": "data.splits",
    "rows_of_columns": "data.columns",
    "find_leaks": "data.leakage",
    "DataTrace": "data.ledger",
    "build_model": "models.build",
    "load_model": "models.build",
    "pretrained_features": "models.build",
    "trace_prediction": "models.tracing",
    "fine_tune": "training.fine_tune",
    "Recipe": "training.recipe",
    "resume": "training.resume",
    "find_learning_rate": "training.rate_range",
    "initialize_distributed": "training.processes",
    "EpochTrace": "training.callbacks",
    "ClassificationMetrics": "training.callbacks",
    "TrainingTrace": "traces.training",
    "evaluate": "evaluation.evaluate",
    "evaluate_predictions": "evaluation.evaluate",
    "evaluate_files": "evaluation.files",
    "Evaluation": "evaluation.evaluate",
    "load_predictions": "evaluation.saved",
    "compare": "evaluation.comparison",
    "compare_totals": "evaluation.comparison",
    "agreement": "evaluation.agreement",
    "check_drift": "evaluation.drift",
    "choose_abstention": "evaluation.abstention",
    "evaluate_seeds": "evaluation.seeds",
    "compare_seeds": "evaluation.seeds",
    "cross_evaluate": "studies.cross_evaluate",
    "CrossEvaluation": "studies.cross_evaluate",
    "learning_curve": "studies.learning_curve",
    "LearningCurve": "studies.learning_curve",
    "self_train": "studies.self_train",
    "report": "reports.html",
    "write_card": "reports.card",
}

__all__ = [
    "ClassificationMetrics",
    "CrossEvaluation",
    "DataTrace",
    "EpochTrace",
    "Evaluation",
    "LearningCurve",
    "Recipe",
    "TrainingTrace",
    "agreement",
    "build_model",
    "check_drift",
    "choose_abstention",
    "compare",
    "compare_seeds",
    "compare_totals",
    "cross_evaluate",
    "evaluate",
    "evaluate_files",
    "evaluate_predictions",
    "evaluate_seeds",
    "find_leaks",
    "find_learning_rate",
    "fine_tune",
    "initialize_distributed",
    "learning_curve",
    "load_dataset",
    "load_model",
    "load_predictions",
    "pretrained_features",
    "report",
    "resume",
    "rows_of_columns",
    "self_train",
    "split",
    "trace_prediction",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finetune_eval' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"finetune_eval.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
