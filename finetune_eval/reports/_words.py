"""Sentences that every report says: verdict, warnings, what a metric means, what the numbers do not cover."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finetune_eval.data.ledger import counted
from finetune_eval.evaluation._result import NO_PROBABILITIES
from finetune_eval.evaluation._trust import better_baselines, opening
from finetune_eval.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.outcomes import Comparison
    from finetune_eval.evaluation.records import Estimate
    from finetune_eval.evaluation.seeds import SeedSummary

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
    right = "right" if evaluation.task == "classification" else "right in every label"
    sentence = (
        f"{evaluation.right:,} of {counted(evaluation.n, 'row')} {right}: {weighted}accuracy "
        f"{accuracy.value:.3f}, {evaluation.confidence * 100:g} % interval {accuracy.low:.3f} to "
        f"{accuracy.high:.3f}"
    )
    sentence = f"{opening(evaluation, sentence)}."
    if evaluation.task != "classification":
        return sentence
    label, rows = evaluation.majority
    share = rows / evaluation.total
    if accuracy.low > share:
        where = "the whole interval is above that"
    elif accuracy.high < share:
        where = "the whole interval is below that"
    else:
        where = "the interval does not exclude that"
    return f"{sentence} Always answering {label!r} would give {share:.3f}: {where}."


def care(evaluation: Evaluation) -> str:
    """Return what speaks so loudly against the verdict that it stands beside it, or nothing."""
    reasons = []
    if evaluation.leaks is not None and evaluation.leaks.rows:
        rows = f"{len(evaluation.leaks.rows):,} of the rows"
        reasons.append(f"{rows} may be in the training rows too")
    if evaluation.looks is not None and evaluation.looks.optimistic:
        reasons.append(
            f"it is the best of {evaluation.looks.models} models on these rows, which is optimistic if it "
            "was chosen for that"
        )
    return f"Read with care: {'; '.join(reasons)}." if reasons else ""


def trust(evaluation: Evaluation) -> tuple[list[str], list[str]]:
    """Return what speaks against the numbers, and what was looked for and does not."""
    against = [*(baseline.verdict for baseline in better_baselines(evaluation)), *evaluation.warnings]
    neutral: list[str] = []
    looks, leaks = evaluation.looks, evaluation.leaks
    if looks is not None:
        (against if looks.models > 1 else neutral).insert(0, looks.verdict)
    if leaks is not None:
        (against if leaks.rows else neutral).insert(0, leaks.verdict)
    if not evaluation.has_probabilities:
        neutral.append(NO_PROBABILITIES)
    return against, neutral


def majority(evaluation: Evaluation) -> str:
    """Return on how many rows the commonest class would be right, always answered."""
    label, rows = evaluation.majority
    total = evaluation.total
    return (
        f"Always answering {label!r} would be right on {count(rows)} of {count(total)} ({rows / total:.3f})."
    )


def brier(evaluation: Evaluation) -> str:
    """Return the Brier score in its parts."""
    assert evaluation.calibration is not None
    parts = evaluation.calibration.brier
    return (
        f"Brier score {parts.brier:.3f} = reliability {parts.reliability:.3f} (0 is perfect) - resolution "
        f"{parts.resolution:.3f} (more is better) + uncertainty {parts.uncertainty:.3f} (of the class sizes) "
        f"+ within bins {parts.within:.3f}."
    )


def seeds(summary: SeedSummary) -> str:
    """Return what runs that differ in their seed only say, as one paragraph."""
    said = " ".join(str(summary).split())
    return said[:1].upper() + said[1:]


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


def metric_names(evaluation: Evaluation, declared: str = "accuracy") -> list[str]:
    """Return the names of the estimates: the declared one, those that everybody asks for, the others."""
    first = [name for name in dict.fromkeys((declared, *_FIRST)) if name in evaluation.estimates]
    return [*first, *(name for name in evaluation.estimates if name not in first)]


def title(evaluation: Evaluation, name: str) -> str:
    """Return a metric's name for a table, with the class or the average that it is of."""
    shown = METRICS[name].title if name in METRICS else name
    if name in METRICS and METRICS[name].averaged:
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
    return _MEANINGS.get(name, METRICS[name].meaning if name in METRICS else "")


def limits(evaluation: Evaluation) -> tuple[str, ...]:
    """Return what the numbers do not cover."""
    return (
        f"The intervals ({evaluation.confidence * 100:g} %) cover the choice of "
        f"{'this one row' if evaluation.n == 1 else f'these {evaluation.n:,} rows'} only: not another "
        "seed of the training, and not rows from another source or time.",
        "Two intervals that overlap are no test: compare two models row by row, on the same rows.",
        "If these rows chose the model, its settings or its threshold, every number here is optimistic.",
    )


def count(value: float) -> str:
    """Return a count, or a sum of weights, with thousands separated."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
