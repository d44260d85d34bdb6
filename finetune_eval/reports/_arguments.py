"""What `report` and `write_card` are given, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_eval import _checks
from finetune_eval.data.ledger import DataTrace
from finetune_eval.evaluation.comparison import Comparison
from finetune_eval.evaluation.evaluate import Evaluation
from finetune_eval.evaluation.seeds import SeedSummary
from finetune_eval.traces.prediction import PredictionTrace
from finetune_eval.traces.training import TrainingTrace


def check(
    evaluation: Any, training: Any, data: Any, prediction: Any, comparison: Any, seeds: Any, manifest: Any
) -> None:
    """Raise TypeError where an argument is of another kind than its name says."""
    _checks.instance("evaluation", evaluation, Evaluation, "`evaluate`")
    for name, value, kind, made_by in (
        ("training", training, TrainingTrace, "`fine_tune(...).trace`"),
        ("data", data, DataTrace, "`load_dataset(...).trace`"),
        ("prediction", prediction, PredictionTrace, "`trace_prediction`"),
        ("comparison", comparison, Comparison, "`compare`"),
        ("seeds", seeds, SeedSummary, "`evaluate_seeds`"),
        ("manifest", manifest, Mapping, "`fine_tune(...).manifest`"),
    ):
        if value is not None:
            _checks.instance(name, value, kind, made_by)
