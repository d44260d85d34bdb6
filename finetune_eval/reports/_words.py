"""What the page and the model card share beside the sections of an evaluation: how a run is described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_eval._text import counted
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.sections import Section, sections

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.outcomes import Comparison
    from finetune_eval.evaluation.records import Estimate
    from finetune_eval.evaluation.seeds import SeedSummary
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.traces.training import TrainingTrace


@dataclass(frozen=True)
class Contents:
    """What a report is made of: an evaluation, and what else is known; each as `report` takes it."""

    evaluation: Evaluation
    training: TrainingTrace | None = None
    data: DataTrace | None = None
    prediction: PredictionTrace | None = None
    comparison: Comparison | None = None
    seeds: SeedSummary | None = None
    manifest: Mapping[str, Any] | None = None

    def sections(self) -> list[Section]:
        """Return what is said of the evaluation, then the sections on the data and on the run."""
        training = self.training if self.training is not None and self.training.epochs else None
        parts = [
            Section("data", "Where the rows came from") if self.data is not None else None,
            Section("model", "The model") if self.manifest is not None else None,
            Section("training", "The training", _training(training)) if training is not None else None,
            Section("prediction", "One prediction, step by step") if self.prediction is not None else None,
        ]
        said = sections(self.evaluation, comparison=self.comparison, seeds=self.seeds)
        return [*said, *(part for part in parts if part is not None)]


def _training(training: TrainingTrace) -> tuple[str, ...]:
    sentence = counted(len(training.epochs), "epoch")
    if training.best_epoch is not None:
        sentence += f"; best epoch {training.best_epoch}"
        sentence += f", by {training.monitor}" if training.monitor else ""
    known = any(record.val_f1_interval is not None for record in training.epochs)
    brackets = ("Brackets hold the 95 % interval of the F1 on the validation rows.",) if known else ()
    return (
        f"{sentence}.",
        "Training values are averages over an epoch, while the weights moved; validation values are of the "
        "weights at its end. The first epochs can look better on validation rows for that reason alone.",
        *brackets,
    )


def difference(metric: str, estimate: Estimate) -> tuple[str, str]:
    """Return a difference and its interval: in points where the metric is a share, else as it is."""
    if METRICS[metric].is_loss:
        return f"{estimate.value:+.4f}", f"{estimate.low:+.4f} to {estimate.high:+.4f}"
    return f"{100 * estimate.value:+.1f} points", f"{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}"


def interval_of(comparison: Comparison) -> str:
    """Return which interval the differences of a comparison have, for the head of a table."""
    if len(comparison.pairs) > 1:
        return "interval adjusted by Holm"
    return f"{100 * (1 - comparison.alpha):g} % interval"


def p_value(p: float) -> str:
    """Return a p-value for a table."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
