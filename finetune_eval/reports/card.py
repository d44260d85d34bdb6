"""A model card in Markdown: what was measured, on which rows, and what the numbers do not cover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_eval.data.ledger import write_text_atomically
from finetune_eval.reports import _words
from finetune_eval.traces.prediction import printable

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.evaluation.comparison import Comparison
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.traces.training import TrainingTrace

_MOST_CLASSES = 30


def write_card(
    evaluation: Evaluation,
    path: str | Path,
    *,
    name: str = "Fine-tuned model",
    training: TrainingTrace | None = None,
    data: DataTrace | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write a model card, in the sections of Mitchell et al. for which there are facts.

    Args:
        evaluation: What to report.
        path: The file to write; an existing one is replaced, whole or not at all.
        name: The model's name, the card's heading.
        training: How the model was trained.
        data: Where the rows came from.
        comparison: This evaluation against others on the same rows.

    Returns:
        The path.

    Reference:
        M. Mitchell et al., "Model cards for model reporting", FAT* 2019.
    """
    path = Path(path)
    sections = [
        f"# {_escape(name)}",
        _escape(_words.verdict(evaluation)),
        *([_escape(comparison.verdict)] if comparison else []),
        "## Metrics",
        _metrics(evaluation),
        *_classes(evaluation),
        "## Evaluation data",
        f"{evaluation.n:,} rows; hash of rows and labels `{evaluation.rows_hash}`.",
        *(["## Where the rows came from", _data(data)] if data else []),
        *(["## Training", _training(training)] if training and training.epochs else []),
        "## Caveats",
        _list([*evaluation.warnings, *_words.limits(evaluation)]),
    ]
    write_text_atomically(path, "\n\n".join(sections) + "\n")
    return path


def _metrics(evaluation: Evaluation) -> str:
    rows = []
    for name in _words.metric_names(evaluation):
        estimate = evaluation.estimates[name]
        rows.append(
            [
                _words.title(evaluation, name),
                f"{estimate.value:.3f}",
                f"{estimate.low:.3f} to {estimate.high:.3f}",
                estimate.method,
            ]
        )
    return _table(["Metric", "Value", f"{evaluation.confidence * 100:g} % interval", "Interval by"], rows)


def _classes(evaluation: Evaluation) -> list[str]:
    scores = sorted(evaluation.per_class, key=lambda score: score.f1.value)
    rows = [
        [
            score.label,
            _words.count(score.support),
            *(str(e) for e in (score.precision, score.recall, score.f1)),
        ]
        for score in scores[:_MOST_CLASSES]
    ]
    parts = ["## Each class", _table(["Class", "Rows", "Precision", "Recall", "F1"], rows)]
    left = len(scores) - len(rows)
    if left:
        parts.append(f"{left} more classes have a higher F1.")
    return parts


def _data(data: DataTrace) -> str:
    rows = [
        [
            f"{step.stage}: {step.name}",
            f"{step.rows_in:,} x {step.columns_in}",
            f"{step.rows_out:,} x {step.columns_out}",
            step.note,
            step.hash,
        ]
        for step in data
    ]
    return _table(["Step", "Rows x columns in", "Out", "Note", "Hash"], rows)


def _training(training: TrainingTrace) -> str:
    said = f"{len(training.epochs)} epoch" + ("s" if len(training.epochs) > 1 else "")
    if training.best_epoch is not None:
        said += f"; best epoch {training.best_epoch}" + (
            f", by {training.monitor}" if training.monitor else ""
        )
    observations = [f"{record.epoch}. {_escape(record.observation)}" for record in training.epochs]
    return f"{_escape(said)}.\n\n" + "\n".join(observations)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(_escape, row)) + " |" for row in rows)])


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(sentence)}" for sentence in sentences)


def _escape(text: str) -> str:
    """Make a user's text mean itself in Markdown, tables and the HTML that Markdown lets through."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", text)
