"""What speaks against an evaluation: leaks, repeats, one answer to every row, a better simple model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune_eval._text import counted, quoted, visible
from finetune_eval.data.words import same_text

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation
    from finetune_eval.evaluation.records import Baseline

_NEARLY_EVERY = 0.99  # of the rows have the same answer: said as a warning


def only_answer(evaluation: Evaluation) -> str:
    """Return that the model answers every row alike, or nothing where it does not (or is right to)."""
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


def nearly_only_answer(
    y: NDArray[np.int64], predicted: NDArray[np.int64], labels: tuple[str, ...]
) -> list[str]:
    """Say that the model answers nearly every row alike, though more rows are of another class."""
    answers = np.bincount(predicted, minlength=len(labels))[: len(labels)]
    most = int(answers.argmax())
    others, answered_otherwise = int((y != most).sum()), len(y) - int(answers[most])
    if not 0 < answered_otherwise <= (1 - _NEARLY_EVERY) * len(y) or others <= 2 * answered_otherwise:
        return []
    return [
        f"The model answers {quoted(labels[most])} to {answers[most]:,} of {counted(len(y), 'row')}, though "
        f"{others:,} {'is' if others == 1 else 'are'} of another class."
    ]


def better_baselines(evaluation: Evaluation) -> list[Baseline]:
    """Return the simple models that are better than the one that was evaluated."""
    return [baseline for baseline in evaluation.baselines if baseline.outcome == "worse"]


def opening(evaluation: Evaluation, verdict: str) -> str:
    """Return a verdict with what must be known to read it: one answer to all rows, a better baseline."""
    answer = only_answer(evaluation)
    better = [
        f"{baseline.name} ({baseline.estimates[baseline.metric].value:.3f})"
        for baseline in better_baselines(evaluation)
    ]
    are = "is" if len(better) == 1 else "are"
    return (
        (f"{answer}; " if answer else "")
        + verdict
        + (f"; {' and '.join(better)} {are} better on the same rows" if better else "")
    )


def repeats(texts: list[str], y: NDArray[np.int64]) -> list[str]:
    """Say how many rows are there more than once, and how many of them contradict each other.

    Texts that differ only in case, white space, Unicode form or invisible characters are the same, as in a
    split.
    """
    labels_of: dict[str, set[bytes]] = {}
    for text, label in zip(texts, y, strict=True):
        labels_of.setdefault(same_text(text), set()).add(label.tobytes())
    extra = len(texts) - len(labels_of)
    if not extra:
        return []
    one = extra == 1
    out = [
        f"{extra:,} of {counted(len(texts), 'row')} {'repeats' if one else 'repeat'} the text of "
        "another row: "
        f"{'it counts' if one else 'they count'} twice."
    ]
    conflicts = sum(len(labels) > 1 for labels in labels_of.values())
    if conflicts:
        stands = "stands" if conflicts == 1 else "stand"
        out.append(
            f"{conflicts:,} of the repeated texts {stands} there with different labels: no model gets "
            "both right."
        )
    return out
