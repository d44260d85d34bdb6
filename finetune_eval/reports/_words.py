"""Sentences that every report says: the verdict, what a metric means, what the numbers do not cover."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finetune_eval.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation

_FIRST = ("accuracy", "precision", "recall", "f1", "loss")
_MEANINGS = {
    "accuracy": "share of rows that are right",
    "balanced_accuracy": "recall, averaged over the classes: 1/K is guessing",
    "mcc": "correlation of prediction and truth: 0 is guessing, 1 is perfect",
    "kappa": "agreement beyond what the class sizes alone would give: 0 is guessing",
    "roc_auc": "how often a row of the class is ranked above one that is not: 0.5 is guessing",
    "pr_auc": "precision, averaged over every level of recall",
    "brier": "mean squared error of the probabilities; lower is better",
}


def verdict(evaluation: Evaluation) -> str:
    """Return how many rows are right, the accuracy with its interval, and what guessing would give."""
    accuracy = evaluation.estimates["accuracy"]
    weighted = "weighted " if "weight" in evaluation.predictions else ""
    sentence = (
        f"{evaluation.right:,} of {evaluation.n:,} rows right: {weighted}accuracy {accuracy.value:.3f}, "
        f"{evaluation.confidence * 100:g} % interval {accuracy.low:.3f} to {accuracy.high:.3f}."
    )
    if evaluation.task != "classification":
        return sentence
    label, rows = evaluation.majority
    share = rows / float(evaluation.confusion_matrix.sum())
    if accuracy.low > share:
        where = "the whole interval is above that"
    elif accuracy.high < share:
        where = "the whole interval is below that"
    else:
        where = "the interval does not exclude that"
    return f"{sentence} Always answering {label!r} would give {share:.3f}: {where}."


def metric_names(evaluation: Evaluation) -> list[str]:
    """Return the names of the estimates, the five that everybody asks for first."""
    first = [name for name in _FIRST if name in evaluation.estimates]
    return [*first, *(name for name in evaluation.estimates if name not in first)]


def title(evaluation: Evaluation, name: str) -> str:
    """Return a metric's name for a table, with the class or the average that it is of."""
    shown = METRICS[name].title if name in METRICS else name
    if name in ("precision", "recall", "f1"):
        of = f"of {evaluation.labels[1]!r}" if evaluation.average == "binary" else evaluation.average
        return f"{shown} ({of})"
    return shown


def meaning(evaluation: Evaluation, name: str) -> str:
    """Return what a metric is, in the words of someone who is no statistician."""
    binary = evaluation.average == "binary"
    one = repr(evaluation.labels[1]) if binary else "a class"
    over = {"macro": ", averaged over the classes", "micro": ", all classes counted together"}.get(
        evaluation.average, "" if binary else ", averaged over the classes by their rows"
    )
    if name == "precision":
        return f"of the rows predicted as {one}, the share that is{over}"
    if name == "recall":
        return f"of the rows that are {one}, the share that was predicted so{over}"
    if name == "f1":
        return f"harmonic mean of precision and recall{over}"
    if name == "loss":
        classes = len(evaluation.labels)
        guessing = f"; {math.log(classes):.3f} is guessing" if evaluation.task == "classification" else ""
        return f"mean of -log(probability given to the truth); lower is better{guessing}"
    if name == "accuracy" and evaluation.task != "classification":
        return "share of rows that are right in every label"
    return _MEANINGS.get(name, "")


def limits(evaluation: Evaluation) -> tuple[str, ...]:
    """Return what the numbers do not cover."""
    return (
        f"The intervals ({evaluation.confidence * 100:g} %) cover the choice of these {evaluation.n:,} rows "
        "only: not another seed of the training, and not rows from another source or time.",
        "Two intervals that overlap are no test: compare two models row by row, on the same rows.",
        "If these rows chose the model, its settings or its threshold, every number here is optimistic.",
    )


def count(value: float) -> str:
    """Return a count, or a sum of weights, with thousands separated."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
