"""A model card in Markdown: the sections of a report, with tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_eval import _checks
from finetune_eval._files import write_text
from finetune_eval._text import counted, share
from finetune_eval.evaluation._result import with_no_label
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.sections import Section, count, directed_title, metric_names, metric_title
from finetune_eval.reports import _findings, _made, _words
from finetune_eval.reports._arguments import check
from finetune_eval.reports._words import Contents
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
    contents = Contents(evaluation, training, data, prediction, comparison, seeds, manifest)
    parts = [f"# {_escape(name)}", *([_escape(_made.headline(manifest)) + "."] if manifest else [])]
    for section in contents.sections():
        paragraphs = _paragraphs(section)
        if section.key in _FIGURES:
            paragraphs += _FIGURES[section.key](contents)
        if paragraphs and section.key not in _WITHOUT_HEADING:
            parts.append(f"## {_escape(section.title)}")
        parts += paragraphs
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _paragraphs(section: Section) -> list[str]:
    if section.key in _WITHOUT_HEADING:
        return [*(f"**{_escape(one)}**" for one in section.warnings), *map(_escape, section.sentences)]
    if section.key in _LISTED:
        lines = [*section.warnings, *section.sentences]
        return ["\n".join(f"- {_escape(sentence)}" for sentence in lines)] if lines else []
    return [_escape(sentence) for sentence in (*section.warnings, *section.sentences)]


def _leaks(contents: Contents) -> list[str]:
    """Return the scores with and without possible leaks, and pairs of texts to judge them by."""
    evaluation = contents.evaluation
    leaks = evaluation.leaks
    if leaks is None or not leaks.rows:
        return []
    all_rows = f"All {counted(evaluation.n, 'row')}"
    scores = [
        [metric_title(evaluation, name), str(evaluation.estimates[name]), str(leaks.without[name])]
        for name in metric_names(evaluation)[:5]
        if name in leaks.without
    ]
    heads = ["Metric", all_rows, f"The other {leaks.n_test - len(leaks.rows):,}"]
    examples = [
        [
            f"{kind} {similarity:.2f}",
            f"{row}: {clip(printable(text), _TEXT)}",
            f"{other}: {clip(printable(other_text), _TEXT)}",
        ]
        for kind, similarity, row, text, other, other_text in leaks.examples
    ]
    return [
        *([_table(heads, scores)] if scores else []),
        _table(["Possible leak", "Test row", "Training row"], examples),
    ]


def _metrics(contents: Contents) -> list[str]:
    evaluation, comparison = contents.evaluation, contents.comparison
    rows = [
        [
            directed_title(evaluation, name),
            share(evaluation.estimates[name].value),
            f"{share(evaluation.estimates[name].low)} to {share(evaluation.estimates[name].high)}",
            evaluation.estimates[name].method,
        ]
        for name in metric_names(evaluation, "accuracy" if comparison is None else comparison.metric)
    ]
    return [
        _table(
            ["Metric", "Value", f"{evaluation.confidence * 100:g} % interval", "Method of the interval"], rows
        )
    ]


def _confusion(evaluation: Evaluation) -> list[str]:
    labels = evaluation.labels
    if evaluation.task != "classification" or len(labels) > _MOST_CELLS:
        return []
    rows = [
        [label, *map(count, row)]
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


def _classes(contents: Contents) -> list[str]:
    evaluation = contents.evaluation
    scores = sorted(evaluation.per_class, key=lambda score: score.f1.value)
    rows = [
        [
            score.label,
            count(score.support),
            *(str(e) for e in (score.precision, score.recall, score.f1)),
        ]
        for score in scores[:_MOST_CLASSES]
    ]
    parts = [*_confusion(evaluation), _table(["Class", "Rows", "Precision", "Recall", "F1"], rows)]
    left = len(scores) - len(rows)
    if left:
        parts.append(f"{left} more classes have a higher F1.")
    return parts


def _comparison(contents: Contents) -> list[str]:
    comparison = contents.comparison
    if comparison is None:
        return []
    title = METRICS[comparison.metric].title
    models = [[name, f"{value:.4f}"] for name, value in zip(comparison.names, comparison.values, strict=True)]
    pairs = [
        [
            " against ".join(pair.names),
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
    ]


def _baselines(contents: Contents) -> list[str]:
    baselines = contents.evaluation.baselines
    if not baselines:
        return []
    rows = [
        [
            one.name,
            str(one.estimates[one.metric]),
            ", ".join(_words.difference(one.metric, one.difference)),
            _words.p_value(one.p_value),
        ]
        for one in baselines
    ]
    its = f"Its {METRICS[baselines[0].metric].title}"
    return [_table(["Simple model", its, "This model minus the simple one", "p"], rows)]


def _weak(contents: Contents) -> list[str]:
    evaluation = contents.evaluation
    parts = []
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
        parts.append(_table(["Part", "Rows", "Accuracy", "Accuracy of the rest", ""], rows))
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
            f"{which}; {suspects:,} of all rows are possible label errors, unless the model is wrong:"
            if suspects
            else f"{which}:"
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
    return parts


def _prediction(contents: Contents) -> list[str]:
    prediction = contents.prediction
    if prediction is None:
        return []
    likely = sorted(zip(prediction.probabilities, prediction.labels, strict=True), key=lambda one: -one[0])
    said = ", ".join(f"{label} {probability:.3f}" for probability, label in likely[:5])
    return [
        f"> {_escape(clip(printable(prediction.text), _TEXT))}",
        f"{len(prediction.tokens):,} tokens; {_escape(said)}: **{_escape(prediction.answer)}**.",
    ]


def _data(contents: Contents) -> list[str]:
    if contents.data is None:
        return []
    rows = [
        [
            f"{step.stage}: {step.name}",
            f"{step.rows_in:,} x {step.columns_in}",
            f"{step.rows_out:,} x {step.columns_out}",
            step.note,
            step.hash,
        ]
        for step in contents.data
    ]
    return [_table(["Step", "Rows x columns in", "Out", "Note", "Hash"], rows)]


def _training(contents: Contents) -> list[str]:
    epochs = contents.training.epochs if contents.training is not None else ()
    lines = [f"{record.epoch}. {_escape(record.observation)}" for record in epochs]
    return ["\n".join(lines)] if lines else []


def _model(contents: Contents) -> list[str]:
    return [_table(["", ""], _made.facts(contents.manifest))] if contents.manifest else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, heads)) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(_escape, row)) + " |" for row in rows)])


def _escape(text: str) -> str:
    """Make a user's text mean itself in Markdown, tables and the HTML that Markdown lets through."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", text)


_WITHOUT_HEADING = {"verdict", "comparison verdict", "care"}  # they stand under the name of the model
_LISTED = {"trust", "limits"}
_FIGURES: dict[str, Callable[[Contents], list[str]]] = {
    "trust": _leaks,
    "metrics": _metrics,
    "classes": _classes,
    "comparison": _comparison,
    "baselines": _baselines,
    "weak": _weak,
    "data": _data,
    "model": _model,
    "training": _training,
    "prediction": _prediction,
}


__all__ = ["write_card"]
