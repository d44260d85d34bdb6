"""A threshold for each label of rows that may have several, chosen together on validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import counted, listed
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation._inputs import names_of, read_probabilities
from finetune_eval.evaluation.goals import Goal, parse_goal
from finetune_eval.evaluation.thresholds import Points, operating_points, points_at

__all__ = ["LabelThresholds", "check_goal", "choose_label_thresholds"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A label's own threshold counts as the rows that have the label, the common one as this many. Of 5, 10, 20
# and 40 this was best or nearly so at 50 to 500 rows, whether labels wanted thresholds that were alike or not
# (benchmarks/label_thresholds.py).
_ROWS_OF_COMMON = 5
# Thresholds tried as the common one.
_TRIED = 1_000


@dataclass(frozen=True)
class LabelThresholds:
    """From which probability on each label is given, and why.

    The scores are those on the rows that chose them, so they are optimistic; those on test rows count.

    Attributes:
        values: The threshold of each label, in the order of the labels.
        common: The threshold that is best where all labels share it.
        goal: What they were chosen for.
        n: On how many rows.
        positives: How many of the rows have each label.
        f1: Macro-averaged F1 there; a label that no row has, and that is given to none, counts as 0.
        labels: The names of the labels.
        rows_hash: Hash of those rows' probabilities and labels: `evaluate_predictions` warns where it is
            given the same rows.
    """

    values: tuple[float, ...]
    common: float
    goal: str
    n: int
    positives: tuple[int, ...]
    f1: float
    labels: tuple[str, ...]
    rows_hash: str

    def __str__(self) -> str:
        each = (
            f"{label} {value:.4g} ({counted(rows, 'row')} with it)"
            for label, value, rows in zip(self.labels, self.values, self.positives, strict=True)
        )
        return f"thresholds {self.origin}\n(there: macro F1 {self.f1:.3f})\n" + "\n".join(each)

    @property
    def origin(self) -> str:
        """What they were chosen for, on how many rows and how; without the last full stop."""
        return (
            f"chosen for {self.goal} on {counted(self.n, 'row')}, each drawn towards the common threshold "
            f"{self.common:.4g}, the more the fewer rows have its label"
        )


def choose_label_thresholds(
    y_true: Any, probabilities: Any, *, goal: str = "f1", labels: Any = None
) -> LabelThresholds:
    """Choose from which probability on each label is given; on validation rows, not on test rows.

    Each label has a threshold of its own, the best one on its rows. All labels together have a common one,
    which is best for the mean of their scores. Few rows have a rare label, and what is best on them is chance
    for the most part; so, on the scale of logits, the threshold that is used is the mean of the two, the
    label's own counted as the number of rows that have the label, the common one as 5 rows. A label that no
    row has, or that all have, gets the common one. In simulations this was nearer to the best F1 than either
    alone at 50, 100, 200 and 500 rows (benchmarks/label_thresholds.py).

    Args:
        y_true: (n, K) zeros and ones.
        probabilities: (n, K) probabilities of the labels.
        goal: "f1", "accuracy" or "balanced_accuracy": the highest, for each label; "recall>=0.9" (any
            number): the highest precision with at least that recall. What is drawn towards the common
            threshold may miss that recall for a single label, on these rows too.
        labels: The names of the labels; None for those of the columns, else "0", "1", ...

    Returns:
        The thresholds with their goal and what they give on these rows.

    Raises:
        ValueError: The goal cannot be read or is not one of these, or no label is there in some rows and
            absent in others.

    Example:
        >>> y, p = [[0, 1], [1, 1], [1, 0], [0, 0]], [[0.1, 0.6], [0.3, 0.7], [0.4, 0.2], [0.2, 0.1]]
        >>> chosen = choose_label_thresholds(y, p)
        >>> chosen.common, [round(value, 3) for value in chosen.values]
        (0.25, [0.25, 0.289])

    Reference:
        Morris 1983, "Parametric Empirical Bayes Inference", JASA 78:47-55 (shrinking towards a common value);
        the number of rows that the common threshold counts for was chosen by simulation.
    """
    asked = check_goal(goal)
    p, named, _ = read_probabilities(probabilities, "multilabel", labels)
    names = names_of(labels, named, y_true, p.shape[1])
    y = _labels.read_many("y_true", y_true, names)
    _checks.same_length("y_true", y, "probabilities", p)
    positives = y.sum(axis=0)
    useful = np.flatnonzero((positives > 0) & (positives < len(y)))
    if not len(useful):
        raise ValueError(
            "`y_true` must have a label that some rows have and others have not, to choose thresholds; "
            f"of {listed(names)} there is none."
        )
    own = np.full(len(names), np.nan)
    for place in useful:
        points = operating_points(y[:, place] == 1, p[:, place], np.ones(len(y)))
        own[place] = _best(points.cuts, *_scores([points], asked))
    common = _common(y[:, useful] == 1, p[:, useful], asked)
    counts = np.where(np.isnan(own), 0, positives)
    logits = (counts * _logit(np.nan_to_num(own, nan=common)) + _ROWS_OF_COMMON * _logit(common)) / (
        counts + _ROWS_OF_COMMON
    )
    values = tuple(_as_compared(1 / (1 + np.exp(-logits))).tolist())
    answers = given(p, values)
    hits = (answers * y).sum(axis=0)
    return LabelThresholds(
        values=values,
        common=float(_as_compared(np.array(common))),
        goal=goal,
        n=len(y),
        positives=tuple(positives.tolist()),
        f1=float((2 * hits / np.maximum(answers.sum(axis=0) + positives, 1)).mean()),
        labels=names,
        rows_hash=decided_rows_hash(y, p),
    )


def check_goal(goal: Any, name: str = "goal") -> Goal:
    """Read a goal, and refuse those that single labels cannot have.

    Args:
        goal: As for `choose_label_thresholds`.
        name: What the caller's argument is called, for the error.
    """
    asked = parse_goal(goal, name)
    if asked.name in ("precision", "cost") or asked.confidence is not None:
        raise ValueError(
            f"`{name}` must be 'f1', 'accuracy', 'balanced_accuracy' or a bound such as 'recall>=0.9' where "
            f"a row may have several labels; got {goal!r}. Thresholds that are drawn towards a common one "
            "guarantee nothing for a single label."
        )
    return asked


def decided_rows_hash(y: Integers, p: NDArray[Any]) -> str:
    """Hash the rows that thresholds decide: their labels and all of their probabilities."""
    return rows_hash(p.astype(np.float64), y.ravel())


def read_thresholds(name: str, values: Any, labels: int) -> tuple[float, ...]:
    """Return a threshold for each label, each checked to be inside (0, 1).

    Raises:
        ValueError: There is another number of them, or one is out of range.
    """
    column = _rows.column(name, values)
    if len(column) != labels:
        raise ValueError(
            f"`{name}` must be one number, or one for each of the {labels} labels; got {len(column)}."
        )
    return tuple(
        _checks.number(f"{name}[{place}]", value, above=0, below=1)
        for place, value in enumerate(column.tolist())
    )


def given(p: NDArray[Any], threshold: float | tuple[float, ...] | None) -> Integers:
    """Return (n, K) zeros and ones: whether a label's probability reaches its threshold, 0.5 where None."""
    cut = 0.5 if threshold is None else threshold
    return np.asarray(p >= (np.asarray(cut) if isinstance(cut, tuple) else cut)).astype(np.int64)


def _scores(points: list[Points], goal: Goal) -> tuple[Floats, Floats]:
    """Return the mean score of the labels at each threshold, and where the goal's bound is kept."""
    if goal.bound is None:
        score = np.mean([getattr(each, goal.name) for each in points], axis=0)
        return score, np.ones(len(score), dtype=bool)
    recall = np.mean([each.recall for each in points], axis=0)
    return np.mean([each.precision for each in points], axis=0), recall >= goal.bound - 1e-12


def _best(cuts: Floats, score: Floats, kept: Floats) -> float:
    """Return the threshold with the highest score; of equal ones the nearest to 0.5, as for two classes."""
    score = np.where(kept, score, -np.inf)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


def _common(positive: NDArray[np.bool_], p: NDArray[Any], goal: Goal) -> float:
    """Return the threshold that is best for the mean of the labels' scores."""
    values = np.unique(p.astype(np.float64))
    edges = np.concatenate([[0.0], values, [1.0]])
    cuts = np.unique((edges[:-1] + edges[1:]) / 2)
    cuts = cuts[(cuts > 0) & (cuts < 1)]
    if len(cuts) > _TRIED:
        cuts = cuts[np.linspace(0, len(cuts) - 1, _TRIED).round().astype(int)]
    points = [points_at(cuts, positive[:, place], p[:, place]) for place in range(p.shape[1])]
    return _best(cuts, *_scores(points, goal))


def _logit(value: Any) -> Any:
    return np.log(value) - np.log1p(-value)


def _as_compared(values: Floats) -> Floats:
    """Round to float32, in which models give probabilities, so that all who compare decide alike."""
    tiny = np.finfo(np.float32).tiny
    return np.clip(values, tiny, 1 - 2**-24).astype(np.float32).astype(np.float64)
