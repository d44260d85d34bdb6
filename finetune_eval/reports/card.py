"""A model card in Markdown: what was measured, on which rows, and what the numbers do not cover."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_eval import _checks
from finetune_eval._files import write_text
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation import thresholds
from finetune_eval.evaluation._result import with_no_label
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.power import detectable_sentence
from finetune_eval.evaluation.slices import about_slices
from finetune_eval.reports import _findings, _made, _words
from finetune_eval.reports._arguments import check
from finetune_eval.traces.prediction import clip, printable

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.outcomes import Comparison
    from finetune_eval.evaluation.records import NoLabel
    from finetune_eval.evaluation.seeds import SeedSummary
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.traces.training import TrainingTrace

_MOST_CLASSES = 30
_MOST_CELLS = 12  # classes up to which the confusion matrix is shown
_WRONG = 5
_TEXT = 120  # characters shown of a row: enough to judge it by, not the data set


def write_card(
    evaluation: Evaluation,
    path: str | Path,
    *,
    name: str = "Fine-tuned model",
    training: TrainingTrace | None = None,
    data: DataTrace | None = None,
    prediction: PredictionTrace | None = None,
    comparison: Comparison | None = None,
    seeds: SeedSummary | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model card, in the sections of Mitchell et al. for which there are facts.

    It quotes the beginnings of some rows: possible leaks and the worst mistakes. Where the rows are not for
    others to read, score them without `texts`.

    Args:
        evaluation: What to report.
        path: The file to write; an existing one is replaced, whole or not at all.
        name: The model's name, the card's heading.
        training: How the model was trained.
        data: Where the rows came from.
        prediction: One text through the model.
        comparison: This evaluation against others on the same rows.
        seeds: What `evaluate_seeds` returns of runs that differ in their seed only.
        manifest: How the model was made, `FineTuneResult.manifest`: its backbone, settings and versions.

    Returns:
        The path.

    Reference:
        M. Mitchell et al., "Model cards for model reporting", FAT* 2019.
    """
    path = _checks.path("path", path)
    check(evaluation, training, data, prediction, comparison, seeds, manifest)
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a text; got {name!r} ({type(name).__name__}).")
    sections = [
        f"# {_escape(name)}",
        *([_escape(_made.headline(manifest)) + "."] if manifest else []),
        _escape(_words.verdict(evaluation)),
        *([_escape(comparison.verdict)] if comparison else []),
        *([f"**{_escape(care)}**"] if (care := _words.care(evaluation)) else []),
        "## Can it be trusted?",
        *_trust(evaluation),
        "## Evaluation data",
        *_rows(evaluation),
        "## Metrics",
        _metrics(evaluation, "accuracy" if comparison is None else comparison.metric),
        "## Each class",
        *_confusion(evaluation),
        *_classes(evaluation),
        *(["## Against another model", *_comparison(comparison)] if comparison else []),
        *(["## Against simple models", _baselines(evaluation)] if evaluation.baselines else []),
        *_section("What these rows could show", detectable_sentence(evaluation)),
        *_calibration(evaluation),
        *_section("Threshold", thresholds.sentence(evaluation)),
        *_weak(evaluation),
        *(["## Other seeds", _escape(_words.seeds(seeds))] if seeds else []),
        "## Caveats",
        _list(_words.limits(evaluation)),
        *(["## Where the rows came from", _data(data)] if data else []),
        *(["## Model", _table(["", ""], _made.facts(manifest))] if manifest else []),
        *(["## Training", _training(training)] if training and training.epochs else []),
        *(["## One prediction", _prediction(prediction)] if prediction else []),
    ]
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def _section(heading: str, sentence: str) -> list[str]:
    return [f"## {heading}", _escape(sentence)] if sentence else []


def _trust(evaluation: Evaluation) -> list[str]:
    against, neutral = _words.trust(evaluation)
    leaks = evaluation.leaks
    parts = [_list([*(against or ["The evaluation raised no warning."]), *neutral])]
    if leaks is not None and leaks.rows:
        if leaks.without:
            heads = [
                "Metric",
                f"All {counted(evaluation.n, 'row')}",
                f"The other {leaks.n_test - len(leaks.rows):,}",
            ]
            names = [name for name in _words.metric_names(evaluation)[:5] if name in leaks.without]
            parts.append(
                _table(
                    heads,
                    [
                        [
                            _words.title(evaluation, name),
                            str(evaluation.estimates[name]),
                            str(leaks.without[name]),
                        ]
                        for name in names
                    ],
                )
            )
        parts.append(
            _table(
                ["Possible leak", "Test row", "Training row"],
                [
                    [
                        f"{kind} {similarity:.2f}",
                        f"{row}: {clip(printable(text), _TEXT)}",
                        f"{other}: {clip(printable(other_text), _TEXT)}",
                    ]
                    for kind, similarity, row, text, other, other_text in leaks.examples
                ],
            )
        )
    return parts


def _rows(evaluation: Evaluation) -> list[str]:
    rows_hash = re.sub(r"\W", "", evaluation.rows_hash)  # as read from a file, it may be anything
    parts = [f"{counted(evaluation.n, 'row')}; hash of rows and labels `{rows_hash}`."]
    if evaluation.task == "classification":
        parts.append(_escape(_words.majority(evaluation)))
    return parts


def _metrics(evaluation: Evaluation, declared: str) -> str:
    rows = []
    for name in _words.metric_names(evaluation, declared):
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


def _confusion(evaluation: Evaluation) -> list[str]:
    labels = evaluation.labels
    if evaluation.task != "classification" or len(labels) > _MOST_CELLS:
        return []
    rows = [
        [label, *map(_words.count, row)]
        for label, row in zip(labels, with_no_label(evaluation).tolist(), strict=True)
    ]
    answers = [*labels, *(["no label"] if evaluation.no_label else [])]
    return [
        _table(["True, down; predicted, across", *answers], rows),
        *([_no_label(evaluation.no_label)] if evaluation.no_label else []),
    ]


def _no_label(none: NoLabel) -> str:
    """Return the commonest answers that are no label, as a table."""
    rows = [[clip(printable(word), _TEXT) or "(no answer)", f"{n:,}"] for word, n in none.examples]
    return _table(["Answers that are no label, the commonest", "Rows"], rows)


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
    parts = [_table(["Class", "Rows", "Precision", "Recall", "F1"], rows)]
    left = len(scores) - len(rows)
    if left:
        parts.append(f"{left} more classes have a higher F1.")
    return parts


def _comparison(comparison: Comparison) -> list[str]:
    title = METRICS[comparison.metric].title
    models = [[name, f"{value:.4f}"] for name, value in zip(comparison.names, comparison.values, strict=True)]
    pairs = [
        [
            " less ".join(pair.names),
            pair.outcome,
            ", ".join(_words.difference(comparison.metric, pair.difference)),
            _words.p_value(pair.p_value),
            str(pair.test),
        ]
        for pair in comparison.pairs
    ]
    return [
        _table(["Model", title], models),
        _table(
            ["Row by row", "Outcome", f"Difference, {_words.interval_of(comparison)}", "p", "Test"], pairs
        ),
        *map(_escape, comparison.notes),
    ]


def _baselines(evaluation: Evaluation) -> str:
    return _list(
        [
            f"{one.name}, {METRICS[one.metric].title} {one.estimates[one.metric]}: {one.verdict}"
            for one in evaluation.baselines
        ]
    )


def _calibration(evaluation: Evaluation) -> list[str]:
    if evaluation.calibration is None:
        return []
    return ["## Calibration", _escape(evaluation.calibration.verdict), _escape(_words.brier(evaluation))]


def _weak(evaluation: Evaluation) -> list[str]:
    parts = [_escape(said) for said in about_slices(evaluation)]
    found = _findings.parts(evaluation)
    if found:
        rows = [
            [
                f"{one.column}: {one.value}",
                f"{one.n:,}",
                str(one.accuracy),
                f"{one.rest:.3f}",
                "weak" if one.weak else "few rows" if one.small else "",
            ]
            for one in found
        ]
        parts.append(_table(["Part", "Rows", "Accuracy", "Of the rest", ""], rows))
    confused = _findings.confused(evaluation)
    if confused:
        rows = [[pair.label, pair.prediction, f"{pair.n:,}", str(pair.share)] for pair in confused]
        parts.append(_table(["What it is", "Predicted", "Rows", "Of that class"], rows))
    wrong, suspects = _findings.wrong_rows(evaluation, n=_WRONG, width=_TEXT)
    if wrong:
        which = "The wrong rows that the model was surest about"
        if not evaluation.has_probabilities:
            which = "The first wrong rows (the model did not say how sure it was)"
        parts.append(
            f"{which}; {suspects:,} of all rows are possible label errors:" if suspects else f"{which}:"
        )
        rows = [
            [
                row.text,
                row.label,
                row.prediction,
                "" if row.loss is None else f"{row.loss:.2f}",
                "possible label error" if row.suspect else "",
            ]
            for row in wrong
        ]
        parts.append(_table(["Row", "Label", "Predicted", "Loss", ""], rows))
    return ["## Where it is weak", *parts] if parts else []


def _prediction(prediction: PredictionTrace) -> str:
    likely = sorted(zip(prediction.probabilities, prediction.labels, strict=True), key=lambda one: -one[0])
    said = ", ".join(f"{label} {probability:.3f}" for probability, label in likely[:5])
    return (
        f"> {_escape(clip(printable(prediction.text), _TEXT))}\n\n"
        f"{len(prediction.tokens):,} tokens; {_escape(said)}: **{_escape(prediction.answer)}**."
    )


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
    lines = ["| " + " | ".join(map(_escape, heads)) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(_escape, row)) + " |" for row in rows)])


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(sentence)}" for sentence in sentences)


def _escape(text: str) -> str:
    """Make a user's text mean itself in Markdown, tables and the HTML that Markdown lets through."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", text)
