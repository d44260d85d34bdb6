"""What speaks against an evaluation: leaks, repeats, one answer to every row, a better simple model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval._text import counted, quoted, visible
from finetune_eval.data.words import same_text
from finetune_eval.evaluation.records import Estimate
from finetune_eval.runs import Run

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation
    from finetune_eval.evaluation.baselines import Baseline

_NEARLY_EVERY = 0.99  # of the rows have the same answer: said as a warning


@dataclass(frozen=True)
class LeakScores:
    """What a model is worth with and without the test rows that may be in the training rows too.

    Attributes:
        n_train: Training rows looked at.
        n_test: Test rows looked at.
        counts: Possible leaks of each kind: "exact", "normalised", "near".
        rows: Which test rows.
        examples: Kind, similarity, test row, its text, training row, its text.
        without: The estimates on the other test rows; empty where there are none, or nothing leaked.
        limits: What would not have been found.
        templates: How many test rows share a template with training rows, in a sentence; may be empty.
    """

    n_train: int
    n_test: int
    counts: dict[str, int]
    rows: tuple[int, ...]
    examples: tuple[tuple[str, float, int, str, int, str], ...]
    without: dict[str, Estimate]
    limits: str = ""
    templates: str = ""

    @property
    def verdict(self) -> str:
        """Say how much leaked, what is left of the accuracy without, and what would not have been found."""
        looked = f"{counted(self.n_test, 'test row')} against {counted(self.n_train, 'training row')}"
        limits = f" ({self.limits})" if self.limits else ""
        templates = f" {self.templates}" if self.templates else ""
        if not self.rows:
            return f"No possible leak found: {looked}{limits}.{templates}"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
        start = f"Possible leak: {len(self.rows):,} of {looked} ({kinds})."
        if not self.without:
            return f"{start} No test row is left without them."
        return f"{start} Without them{limits}: accuracy {self.without['accuracy']}.{templates}"


def only_answer(evaluation: Evaluation) -> str:
    """Return that the model answers every row alike, or nothing where it does not (or is right to)."""
    answers, truth = evaluation.predictions["prediction"], evaluation.predictions["label"]
    answer = answers.iloc[0]
    if len(answers) == 1 or (answers != answer).any() or (truth == answer).all():
        return ""
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
    answers = np.bincount(predicted, minlength=len(labels))
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


def _rows_of_run(folder: Path) -> tuple[Any, Any]:
    """Return the training texts and the names of their classes, as a run keeps them in `train.parquet`."""
    path = folder / "train.parquet"
    if not path.is_file():
        missing = "has no train.parquet" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(
            f"`train` {str(folder)!r} {missing}; pass the folder of a run that kept its training rows, or "
            "the rows themselves as a pair (x, y)."
        )
    return Run(folder).training_rows()


def pair_of_rows(train: Any) -> tuple[Any, Any]:
    """Return the x and y of `train`: the folder of a run, a pair, or anything that unpacks into one."""
    if isinstance(train, (str, Path)):
        train = _rows_of_run(Path(train))
    try:
        x, y = train
    except (TypeError, ValueError):
        raise ValueError(
            "`train` must be the training rows as a pair (x, y), such as `dataset.train`, or the folder of a "
            "run; got "
            f"{type(train).__name__}."
        ) from None
    if len(x) != len(y):
        raise ValueError(
            f"`train` must have as many labels as rows; got {counted(len(x), 'row')} and "
            f"{counted(len(y), 'label')}."
        )
    if len(x) == 0:
        raise ValueError("`train` has no rows; at least one is needed.")
    return x, y
