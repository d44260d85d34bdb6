"""One self-contained page about an evaluation: opens offline, prints, reads on a phone, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from finetune_eval import _checks
from finetune_eval._files import write_text
from finetune_eval._text import counted, share
from finetune_eval.evaluation._result import with_no_label
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.sections import (
    class_shares,
    count,
    metric_meaning,
    metric_names,
    metric_title,
)
from finetune_eval.reports import _drawings, _findings, _made, _words, plots
from finetune_eval.reports._arguments import check
from finetune_eval.reports._words import Contents
from finetune_eval.traces.prediction import clip, printable

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.outcomes import Comparison
    from finetune_eval.evaluation.records import Estimate
    from finetune_eval.evaluation.seeds import SeedSummary
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.traces.training import TrainingTrace

_MOST_CELLS = 12  # classes up to which the confusion matrix is a table that a phone can scroll
_MOST_CLASSES = 100
_WORST = 10
_TEXT = 300  # characters shown of a row
_NAME = 80  # and of a name or a value


def report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    training: TrainingTrace | None = None,
    data: DataTrace | None = None,
    prediction: PredictionTrace | None = None,
    comparison: Comparison | None = None,
    seeds: SeedSummary | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write an evaluation as one HTML page that needs nothing else: no network, no script, no other file.

    Args:
        evaluation: What to report.
        path: The file to write; an existing one is replaced, whole or not at all.
        training: How the model was trained: adds the curves and the per-epoch table.
        data: Where the rows came from: adds the drawing of the data flow.
        prediction: One text through the model: adds the drawing of it.
        comparison: This evaluation against others on the same rows: adds its verdict.
        seeds: What `evaluate_seeds` returns of runs that differ in their seed only.
        manifest: How the model was made, `FineTuneResult.manifest`: its backbone, settings and versions.

    Returns:
        The path.
    """
    path = _checks.path("path", path)
    check(evaluation, training, data, prediction, comparison, seeds, manifest)
    write_text(path, _render(Contents(evaluation, training, data, prediction, comparison, seeds, manifest)))
    return path


def _render(contents: Contents) -> str:
    folder = resources.files("finetune_eval.reports")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    evaluation, manifest = contents.evaluation, contents.manifest
    comparison = contents.comparison
    first = "accuracy" if comparison is None else comparison.metric
    return template.render(
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        sections={section.key: section for section in contents.sections()},
        counted=counted,
        share=share,
        evaluation=evaluation,
        accuracy=evaluation.estimates["accuracy"],
        confidence=f"{evaluation.confidence * 100:g} %",
        metrics=[_metric(evaluation, name) for name in metric_names(evaluation, first)],
        leaks=_leaks(evaluation),
        comparison=None if comparison is None else _comparison(comparison),
        baselines=_baselines(evaluation),
        made=None if manifest is None else printable(_made.headline(manifest)),
        facts=[] if manifest is None else [(name, printable(text)) for name, text in _made.facts(manifest)],
        training=contents.training,
        data=contents.data,
        prediction=contents.prediction,
        **_of_classes(evaluation),
        **_of_weaknesses(evaluation),
        **_drawn(contents),
    )


def _of_classes(evaluation: Evaluation) -> dict[str, Any]:
    single, few = evaluation.task == "classification", len(evaluation.labels) <= _MOST_CELLS
    none = evaluation.no_label
    return {
        "classes": _classes(evaluation),
        "more_classes": max(0, len(evaluation.per_class) - _MOST_CLASSES),
        "confusion": _confusion(evaluation) if single and few else None,
        "confusion_figure": _figure(plots.confusion(evaluation), "confusion") if single and not few else None,
        "no_label": None
        if none is None
        else [(clip(printable(word), _TEXT) or "(no answer)", n) for word, n in none.examples],
    }


def _of_weaknesses(evaluation: Evaluation) -> dict[str, Any]:
    wrong, suspects = _findings.wrong_rows(evaluation, n=_WORST, width=_TEXT)
    parts = _parts(evaluation)
    return {
        "parts": parts,
        "few": any(part["small"] for part in parts),
        "looked": len(evaluation.slices),
        "weak": any(part.weak for part in evaluation.slices),
        "confused": [
            {
                "label": printable(pair.label),
                "prediction": printable(pair.prediction),
                "n": f"{pair.n:,}",
                "share": pair.share,
                "bar": _bar(pair.share),
            }
            for pair in _findings.confused(evaluation)
        ],
        "wrong": wrong,
        "suspects": suspects,
        "marked": sum(row.suspect for row in wrong),
    }


def _drawn(contents: Contents) -> dict[str, Any]:
    evaluation, training, data = contents.evaluation, contents.training, contents.data
    calibration, prediction, seeds = evaluation.calibration, contents.prediction, contents.seeds
    return {
        "reliability": None
        if calibration is None
        else _figure(plots.reliability(calibration, positive=evaluation.labels[-1]), "reliability"),
        "seeds_drawing": None if seeds is None else _drawings.seeds(seeds),
        "curves": [] if training is None else _training_figures(training),
        "data_drawing": None if data is None else _drawings.data_flow(data),
        "prediction_drawing": None if prediction is None else _drawings.prediction_flow(prediction),
    }


def _leaks(evaluation: Evaluation) -> dict[str, Any] | None:
    """The scores with and without the rows that possibly leaked, and pairs of texts to judge by."""
    leaks = evaluation.leaks
    if leaks is None or not leaks.rows:
        return None
    names = [name for name in metric_names(evaluation)[:5] if name in leaks.without]
    return {
        "left": leaks.n_test - len(leaks.rows),
        "scores": [
            (metric_title(evaluation, name), evaluation.estimates[name], leaks.without[name])
            for name in names
        ],
        "examples": [
            {
                "kind": kind,
                "similarity": f"{similarity:.2f}",
                "sides": [
                    ("test", row, clip(printable(text), _TEXT)),
                    ("train", other, clip(printable(other_text), _TEXT)),
                ],
            }
            for kind, similarity, row, text, other, other_text in leaks.examples
        ],
    }


def _metric(evaluation: Evaluation, name: str) -> dict[str, Any]:
    estimate = evaluation.estimates[name]
    share = (
        name in METRICS and METRICS[name].direction == "higher" and 0 <= estimate.low <= estimate.high <= 1
    )
    return {
        "title": metric_title(evaluation, name),
        "meaning": metric_meaning(evaluation, name),
        "estimate": estimate,
        "bar": _bar(estimate) if share else "",
    }


def _bar(estimate: Estimate, *, reach: float | None = None) -> Markup:
    """An interval on the scale from 0 to 1, its value a dot; with `reach`, from -reach to reach around 0."""
    least, width = (0.0, 1.0) if reach is None else (-reach, 2 * reach)
    low, high, value = (2 + 100 * (x - least) / width for x in (estimate.low, estimate.high, estimate.value))
    zero = Markup("") if reach is None else Markup('<line x1="52" y1="1" x2="52" y2="11" class="zero"/>')
    return Markup(
        '<svg class="bar" viewBox="0 0 104 12" aria-hidden="true">'
        '<line x1="2" y1="6" x2="102" y2="6" class="rail"/>{}'
        '<line x1="{:.2f}" y1="6" x2="{:.2f}" y2="6" class="span"/>'
        '<circle cx="{:.2f}" cy="6" r="2.2" class="dot"/></svg>'
    ).format(zero, low, high, value)


def _differences(metric: str, differences: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Differences for a table, their bars on one scale."""
    reach = max((max(abs(one.low), abs(one.high)) for one in differences), default=1.0) or 1.0
    shown = []
    for one in differences:
        value, interval = _words.difference(metric, one)
        shown.append({"value": value, "interval": interval, "bar": _bar(one, reach=reach)})
    return shown


def _comparison(comparison: Comparison) -> dict[str, Any]:
    pairs = comparison.pairs
    return {
        "metric": METRICS[comparison.metric].title,
        "interval": _words.interval_of(comparison),
        "models": list(zip(map(printable, comparison.names), comparison.values, strict=True)),
        "overall": None if comparison.overall is None else f"All models together, {comparison.overall}",
        "adjusted": len(pairs) > 1,
        "pairs": [
            {
                "names": " against ".join(map(printable, pair.names)),
                "outcome": pair.outcome,
                "p": _words.p_value(pair.p_value),
                "test": str(pair.test),
                "method": pair.difference.method,
                "confidence": f"{100 * pair.difference.confidence:.4g} %",
                "power": comparison.power(pair),
                **shown,
            }
            for pair, shown in zip(
                pairs, _differences(comparison.metric, [pair.difference for pair in pairs]), strict=True
            )
        ],
    }


def _baselines(evaluation: Evaluation) -> list[dict[str, Any]]:
    found = evaluation.baselines
    shown = _differences(found[0].metric, [one.difference for one in found]) if found else []
    return [
        {
            "name": printable(one.name),
            "metric": METRICS[one.metric].title,
            "estimate": one.estimates[one.metric],
            "p": _words.p_value(one.p_value),
            **difference,
        }
        for one, difference in zip(found, shown, strict=True)
    ]


def _parts(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "value": clip(printable(part.value), _NAME),
            "column": clip(printable(part.column), _NAME),
            "n": f"{part.n:,}",
            "accuracy": part.accuracy,
            "bar": _bar(part.accuracy),
            "rest": f"{part.rest:.3f}",
            "weak": part.weak,
            "small": part.small,
        }
        for part in _findings.parts(evaluation)
    ]


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    ranked = sorted(
        zip(evaluation.per_class, class_shares(evaluation), strict=True), key=lambda pair: pair[0].f1.value
    )
    return [
        {
            "label": printable(score.label),
            "support": count(score.support),
            "share": f"{100 * part:.1f} %",
            "estimates": [(e, _bar(e)) for e in (score.precision, score.recall, score.f1)],
        }
        for score, part in ranked[:_MOST_CLASSES]
    ]


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]]:
    matrix = np.asarray(with_no_label(evaluation), dtype=np.float64)
    totals = matrix.sum(axis=1)
    return [
        {
            "label": printable(label),
            "cells": [
                {
                    "count": count(value),
                    "right": i == j,
                    "shade": f"{value / totals[i]:.2f}" if totals[i] else "0",
                }
                for j, value in enumerate(matrix[i])
            ],
        }
        for i, label in enumerate(evaluation.labels)
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


__all__ = ["report"]
