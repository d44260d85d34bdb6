"""One self-contained page about an evaluation: opens offline, prints, reads on a phone, light or dark."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from finetune_eval import _checks
from finetune_eval.data.ledger import write_text_atomically
from finetune_eval.evaluation.calibration import Calibration, calibrate
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.reports import _drawings, _words, plots
from finetune_eval.traces.prediction import clip, printable

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.evaluation.comparison import Comparison
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.traces.training import TrainingTrace

_MOST_CELLS = 12  # classes up to which the confusion matrix is a table that a phone can scroll
_MOST_CLASSES = 100
_WORST = 10
_TEXT = 300  # characters shown of a row


def report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    training: TrainingTrace | None = None,
    data: DataTrace | None = None,
    prediction: PredictionTrace | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write an evaluation as one HTML page that needs nothing else: no network, no script, no other file.

    Args:
        evaluation: What to report.
        path: The file to write; an existing one is replaced, whole or not at all.
        training: How the model was trained: adds the curves and the per-epoch table.
        data: Where the rows came from: adds the drawing of the data flow.
        prediction: One text through the model: adds the drawing of it.
        comparison: This evaluation against others on the same rows: adds its verdict.

    Returns:
        The path.
    """
    path = Path(path)
    write_text_atomically(path, _render(evaluation, training, data, prediction, comparison))
    return path


def _render(
    evaluation: Evaluation,
    training: TrainingTrace | None,
    data: DataTrace | None,
    prediction: PredictionTrace | None,
    comparison: Comparison | None,
) -> str:
    folder = resources.files("finetune_eval.reports")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    single = evaluation.task == "classification"
    calibration = _calibration(evaluation)
    return template.render(
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        verdict=_words.verdict(evaluation),
        evaluation=evaluation,
        accuracy=evaluation.estimates["accuracy"],
        confidence=f"{evaluation.confidence * 100:g} %",
        metrics=[_metric(evaluation, name) for name in _words.metric_names(evaluation)],
        classes=_classes(evaluation),
        more_classes=max(0, len(evaluation.per_class) - _MOST_CLASSES),
        confusion=_confusion(evaluation) if single and len(evaluation.labels) <= _MOST_CELLS else None,
        confusion_figure=_figure(plots.confusion(evaluation), "confusion")
        if single and len(evaluation.labels) > _MOST_CELLS
        else None,
        calibration=calibration,
        reliability=None
        if calibration is None
        else _figure(plots.reliability(calibration, positive=evaluation.labels[-1]), "reliability"),
        worst=_worst(evaluation),
        limits=_words.limits(evaluation),
        comparison=comparison,
        comparison_text=None if comparison is None else str(comparison),
        training=training,
        curves=[] if training is None else _training_figures(training),
        data=data,
        data_drawing=None if data is None else _drawings.data_flow(data),
        prediction=prediction,
        prediction_drawing=None if prediction is None else _drawings.prediction_flow(prediction),
    )


def _metric(evaluation: Evaluation, name: str) -> dict[str, Any]:
    estimate = evaluation.estimates[name]
    share = (
        name in METRICS and METRICS[name].direction == "higher" and 0 <= estimate.low <= estimate.high <= 1
    )
    return {
        "title": _words.title(evaluation, name),
        "meaning": _words.meaning(evaluation, name),
        "estimate": estimate,
        "bar": _bar(estimate) if share else "",
    }


def _bar(estimate: Any) -> Markup:
    """An interval on the scale from 0 to 1, its value a dot."""
    low, high, value = (2 + 100 * x for x in (estimate.low, estimate.high, estimate.value))
    return Markup(
        '<svg class="bar" viewBox="0 0 104 12" aria-hidden="true">'
        '<line x1="2" y1="6" x2="102" y2="6" class="rail"/>'
        '<line x1="{:.2f}" y1="6" x2="{:.2f}" y2="6" class="span"/>'
        '<circle cx="{:.2f}" cy="6" r="2.2" class="dot"/></svg>'
    ).format(low, high, value)


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    scores = sorted(evaluation.per_class, key=lambda score: score.f1.value)[:_MOST_CLASSES]
    total = float(sum(score.support for score in evaluation.per_class)) or 1.0
    return [
        {
            "order": evaluation.labels.index(score.label),
            "label": printable(score.label),
            "support": _words.count(score.support),
            "share": f"{100 * score.support / total:.1f} %",
            "estimates": [(e, _bar(e)) for e in (score.precision, score.recall, score.f1)],
        }
        for score in scores
    ]


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]]:
    matrix = np.asarray(evaluation.confusion_matrix, dtype=np.float64)
    totals = matrix.sum(axis=1)
    return [
        {
            "label": printable(label),
            "cells": [
                {
                    "count": _words.count(value),
                    "right": i == j,
                    "shade": f"{value / totals[i]:.2f}" if totals[i] else "0",
                }
                for j, value in enumerate(matrix[i])
            ],
        }
        for i, label in enumerate(evaluation.labels)
    ]


def _calibration(evaluation: Evaluation) -> Calibration | None:
    """How far the probabilities can be believed: of one label a row, and rows that count the same."""
    table = evaluation.predictions
    if evaluation.task != "classification" or "weight" in table:
        return None
    truth = _checks.label_indices("predictions", table["label"].to_numpy(), evaluation.labels)
    probabilities = table[[f"p_{label}" for label in evaluation.labels]].to_numpy(dtype=np.float64)
    return calibrate(truth, probabilities, confidence=evaluation.confidence)


def _worst(evaluation: Evaluation) -> list[dict[str, str]]:
    """The wrong rows of the largest loss: the model was sure, and is not what the label says."""
    table = evaluation.predictions
    wrong = table[table["label"] != table["prediction"]].nlargest(_WORST, "loss")
    texts = wrong["text"] if "text" in wrong else wrong["id"].map(lambda name: f"row {name}")
    return [
        {
            "text": clip(printable(str(text)), _TEXT),
            "label": printable(str(label)),
            "prediction": printable(str(prediction)),
            "loss": f"{loss:.2f}",
        }
        for text, label, prediction, loss in zip(
            texts, wrong["label"], wrong["prediction"], wrong["loss"], strict=True
        )
    ]


def _training_figures(training: TrainingTrace) -> list[Markup]:
    known = {name.removeprefix("val_") for record in training.epochs for name in record.metrics}
    figures = []
    if "loss" in known:
        figures.append(_figure(plots.loss_curves(training), "loss"))
    if "accuracy" in known:
        figures.append(_figure(plots.accuracy_curves(training), "accuracy"))
    return figures


def _figure(figure: Any, name: str) -> Markup:
    return Markup(plots.svg(figure, name))  # matplotlib escapes the texts it writes
