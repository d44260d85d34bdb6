"""What speaks against an evaluation: a simple model that is ahead, repeats, one answer to every row."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _labels
from finetune_eval._text import counted, quoted, share, visible
from finetune_eval.data.words import same_text
from finetune_eval.evaluation._outputs import SIGMOID_RESOLUTION
from finetune_eval.evaluation.losses import SMALLEST_PROBABILITY
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.outcomes import range_text, signed_text
from finetune_eval.evaluation.records import MAJORITY

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation
    from finetune_eval.evaluation.records import Baseline

# Rows of a class below which its interval is not to be trusted.
SMALL_CLASS = 5
_NEARLY_EVERY = 0.99  # of the rows have the same answer: said as a warning


def only_answer(evaluation: Evaluation) -> str:
    """Return that the model answers every row alike, or nothing where it does not (or is right to)."""
    if not evaluation.keeps_rows:
        table = evaluation.confusion_matrix
        given = np.flatnonzero(table.sum(axis=0))
        if evaluation.n == 1 or len(given) > 1 or table.trace() == table.sum():
            return ""
        return f"The model answers {quoted(evaluation.labels[given[0]])} to every row"
    answers, truth = evaluation.predictions["prediction"], evaluation.predictions["label"]
    answer = answers.iloc[0]
    if len(answers) == 1 or (answers != answer).any() or (truth == answer).all():
        return ""
    if evaluation.task == "classification" and not answer:
        return "The model gives no row an answer"
    if evaluation.task == "classification":
        return f"The model answers {quoted(answer)} to every row"
    return (
        f"The model gives every row the same labels, {visible(answer)}"
        if answer
        else "The model gives no row a label"
    )


def about_classes(counts: NDArray[np.int64], labels: tuple[str, ...]) -> list[str]:
    """Name the classes without rows, and those with few; `counts` holds the rows of each class."""
    out = []
    absent = [labels[k] for k in np.flatnonzero(counts == 0)]
    if absent:
        out.append(f"No row is {_listed(absent)}: nothing is known about how such rows fare.")
    small = [f"{labels[k]} ({counts[k]})" for k in np.flatnonzero((counts > 0) & (counts < SMALL_CLASS))]
    if small:
        out.append(
            f"Fewer than {SMALL_CLASS} rows of {_listed(small)}: the intervals of their scores, and "
            "of macro averages, are unreliable."
        )
    return out


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def about_unseen(
    y_train: NDArray[np.int64],
    y: NDArray[np.int64],
    labels: tuple[str, ...],
    weights: NDArray[np.float64] | None,
) -> list[str]:
    """Name the classes of the rows that no training row has; both as (rows,) places or (rows, K) 0 and 1."""
    at = _labels.unseen(y_train, len(labels))
    here = np.setdiff1d(at, _labels.unseen(y, len(labels), weights))
    rows = {k: int((y[:, k] > 0).sum() if y.ndim == 2 else (y == k).sum()) for k in here.tolist()}
    if not rows:
        return []
    named = _listed([f"{labels[k]} ({counted(n, 'row')} here)" for k, n in rows.items()])
    return [f"No training row is {named}: the model can hardly be right there."]


def undecided(p: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the rows that have two equally probable classes."""
    return np.asarray((p == p.max(axis=1, keepdims=True)).sum(axis=1) > 1)


def about_ties(ties: int, n: int) -> list[str]:
    """Say how many of n rows are `undecided`."""
    if not ties:
        return []
    return [
        f"{ties:,} of {counted(n, 'row')} {'has' if ties == 1 else 'have'} two equally "
        "probable classes; the first was taken."
    ]


def too_small(y: NDArray[np.int64], p: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the rows whose loss is known from below only; `y` as in `row_loss`."""
    right = np.where(y > 0, p, 1.0 - p).min(axis=1) if y.ndim == 2 else p[np.arange(len(y)), y]
    return np.asarray((right < SMALLEST_PROBABILITY) | (right == SIGMOID_RESOLUTION))


def about_small(capped: int, n: int) -> list[str]:
    """Say how many of n rows have a true class whose probability is `too_small`."""
    if not capped:
        return []
    gives, their = ("gives", "its") if capped == 1 else ("give", "their")
    return [
        f"{capped:,} of {counted(n, 'row')} {gives} {their} true class a probability too small "
        f"for float32; {their} loss is counted as large as float32 can tell, and may be larger."
    ]


def nearly_only_answer(
    counts: NDArray[np.int64], answers: NDArray[np.int64], labels: tuple[str, ...]
) -> list[str]:
    """Say that the model answers nearly every row alike, though more rows are of another class.

    Args:
        counts: (K,) rows of each class.
        answers: (K,) rows that were answered by it; some may be answered by no label.
        labels: The K class names.
    """
    most, n = int(answers.argmax()), int(counts.sum())
    others, answered_otherwise = n - int(counts[most]), n - int(answers[most])
    if not 0 < answered_otherwise <= (1 - _NEARLY_EVERY) * n or others <= 2 * answered_otherwise:
        return []
    return [
        f"The model answers {quoted(labels[most])} to {answers[most]:,} of {counted(n, 'row')}, though "
        f"{others:,} {'is' if others == 1 else 'are'} of another class."
    ]


def simpler_models(evaluation: Evaluation) -> tuple[str, ...]:
    """Return a sentence on each simple model that is ahead of the one that was evaluated: read them first.

    The majority class counts only where it is ahead by more than chance: of a rare class it nearly always is
    ahead by chance, and what a model is worth there is not told by its accuracy.
    """
    out = []
    for baseline in evaluation.baselines:
        value, metric = baseline.difference.value, baseline.metric
        better = baseline.outcome == "worse"
        ahead = value < 0 if METRICS[metric].direction == "higher" else value > 0
        if better or (ahead and baseline.name != MAJORITY):
            out.append(_ahead(evaluation, baseline, better=better))
    return tuple(out)


def _ahead(evaluation: Evaluation, baseline: Baseline, *, better: bool) -> str:
    metric, found = baseline.metric, baseline.difference
    constant = baseline.name == MAJORITY
    who = "Always answering the commonest class" if constant else f"{baseline.name}, a far simpler model,"
    theirs, ours = (share(of.estimates[metric].value) for of in (baseline, evaluation))
    turned = dataclasses.replace(found, value=-found.value, low=-found.high, high=-found.low)
    is_ahead = "is better than" if better else "is ahead of"
    sentence = (
        f"{who[0].upper()}{who[1:]} {is_ahead} this model on the same rows: {METRICS[metric].title} {theirs} "
        f"against {ours}, {signed_text(metric, turned.value)} {range_text(metric, turned)} (paired "
        f"{found.confidence * 100:g} % interval)."
    )
    if not better:
        sentence += " The interval includes 0, so these rows do not show that this model is worth its cost."
    use = "" if constant else ", or use the simpler model"
    return f'{sentence} Train on more rows or with recipe="careful"{use}.'


def opening(evaluation: Evaluation, verdict: str) -> str:
    """Return a verdict after what must be known to read it: that all rows have one answer."""
    answer = only_answer(evaluation)
    return (f"{answer}; " if answer else "") + verdict


def repeats(texts: list[str], y: NDArray[np.int64], beside: NDArray[np.object_] | None = None) -> list[str]:
    """Say how many rows are there more than once, and how many of them contradict each other.

    Texts that differ only in case, white space, Unicode form or invisible characters are the same, as in a
    split. Rows that have something beside their text are the same where that is the same, too.
    """
    labels_of: dict[tuple[str, str], set[bytes]] = {}
    others = itertools.repeat("", len(texts)) if beside is None else beside
    for text, other, label in zip(texts, others, y, strict=True):
        labels_of.setdefault((same_text(text), other), set()).add(label.tobytes())
    extra = len(texts) - len(labels_of)
    if not extra:
        return []
    one = extra == 1
    what, many = ("text", "texts") if beside is None else ("text and the columns", "rows")
    out = [
        f"{extra:,} of {counted(len(texts), 'row')} {'repeats' if one else 'repeat'} the {what} of "
        "another row: "
        f"{'it counts' if one else 'they count'} twice."
    ]
    conflicts = sum(len(labels) > 1 for labels in labels_of.values())
    if conflicts:
        stands = "stands" if conflicts == 1 else "stand"
        out.append(
            f"{conflicts:,} of the repeated {many} {stands} there with different labels: no model gets "
            "both right."
        )
    return out
