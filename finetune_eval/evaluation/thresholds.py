"""An operating point for two classes, chosen on validation rows for a stated goal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation._inputs import class_probabilities

__all__ = ["Threshold", "choose_threshold"]

Floats = NDArray[np.float64]
_MAXIMISED = ("f1", "accuracy", "balanced_accuracy")
_GOALS = (*_MAXIMISED, "cost", "recall>=0.9", "precision>=0.9")
_BOUND = re.compile(r"\s*(recall|precision)\s*>=\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True)
class Threshold:
    """From which probability on the second class is predicted, and why.

    The scores are those on the rows that chose it, so they are optimistic; those on test rows count.

    Attributes:
        value: The probability.
        goal: What it was chosen for.
        n: On how many rows.
        precision: Precision of the second class there.
        recall: Recall of the second class there.
        f1: F1 of the second class there.
        accuracy: Accuracy there.
        cost: Mean cost of a row there, or None where no costs were given.
        rows_hash: Hash of those rows' probabilities and labels: `evaluate_predictions` warns where it is
            given the same rows.
    """

    value: float
    goal: str
    n: int
    precision: float
    recall: float
    f1: float
    accuracy: float
    cost: float | None
    rows_hash: str

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:.4g} a row"
        return (
            f"threshold {self.value:.4g}, chosen for {self.goal} on {counted(self.n, 'row')}\n"
            f"(there: precision {self.precision:.3f}, recall {self.recall:.3f}, F1 {self.f1:.3f}{cost})"
        )


def choose_threshold(
    y_true: Any,
    probabilities: Any,
    *,
    goal: str = "f1",
    false_positive_cost: float | None = None,
    false_negative_cost: float | None = None,
) -> Threshold:
    """Choose the probability from which the second class is predicted; on validation rows, not on test rows.

    Every threshold that decides the rows differently is tried. Of equally good ones the one nearest to 0.5
    is taken, half-way between the two probabilities it separates.

    Args:
        y_true: (n,) indices of the two classes; both must be there.
        probabilities: (n,) or (n, 1) probabilities of the second class, or (n, 2).
        goal: "f1", "accuracy" or "balanced_accuracy": the highest; "recall>=0.9" (any number): the highest
            precision with at least that recall; "precision>=0.9": the highest recall with at least that
            precision; "cost": the lowest mean cost.
        false_positive_cost: What a row of the first class costs that is predicted as the second; for "cost".
        false_negative_cost: What a row of the second class costs that is predicted as the first.

    Returns:
        The threshold with its goal and what it gives on these rows.

    Raises:
        ValueError: There are not two classes, the goal cannot be read, or no threshold reaches it.

    Example:
        >>> y, p = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
        >>> round(choose_threshold(y, p, goal="recall>=0.99").value, 3)
        0.25
        >>> round(choose_threshold(y, p, goal="precision>=0.99").value, 3)
        0.5
    """
    name, bound = _read_goal(goal)
    costs = _read_costs(name, false_positive_cost, false_negative_cost)
    y, p = class_probabilities(y_true, probabilities)
    if p.shape[1] != 2:
        raise ValueError(f"`probabilities` must be of two classes for a threshold; got {p.shape[1]} classes.")
    positive = y == 1
    if positive.all() or not positive.any():
        raise ValueError(
            f"`y_true` must have rows of both classes to choose a threshold; all {len(y)} are {y[0]}."
        )
    cuts, hits, false_alarms = _operating_points(positive, p[:, 1])
    positives, negatives = int(positive.sum()), int((~positive).sum())
    predicted = hits + false_alarms
    recall = hits / positives
    precision = np.divide(hits, predicted, out=np.zeros(len(hits)), where=predicted > 0)
    f1 = 2 * hits / (predicted + positives)
    right = hits + negatives - false_alarms
    mean_cost = (costs[0] * false_alarms + costs[1] * (positives - hits)) / len(y) if costs else None
    if name == "recall":
        score = _within(recall, bound, precision, goal, predicted > 0)
    elif name == "precision":
        score = _within(precision, bound, recall, goal, predicted > 0)
    elif name == "cost":
        assert mean_cost is not None
        score = -mean_cost
    else:
        specificity = 1 - false_alarms / negatives
        score = {"f1": f1, "accuracy": right / len(y), "balanced_accuracy": (recall + specificity) / 2}[name]
    best = np.flatnonzero(score >= score.max() - 1e-12)
    at = int(best[np.argmin(np.abs(cuts[best] - 0.5))])
    return Threshold(
        value=float(cuts[at]),
        goal=goal,
        n=len(y),
        precision=float(precision[at]),
        recall=float(recall[at]),
        f1=float(f1[at]),
        accuracy=float(right[at] / len(y)),
        cost=None if mean_cost is None else float(mean_cost[at]),
        rows_hash=decided_rows_hash(y, p),
    )


def decided_rows_hash(y: NDArray[np.int64], p: NDArray[Any]) -> str:
    """Hash the rows a threshold decides: their labels and the probabilities of their second class."""
    from finetune_eval.data.ledger import rows_hash

    return rows_hash(p[:, 1].astype(np.float64), y)


def _read_goal(goal: Any) -> tuple[str, float]:
    if isinstance(goal, str):
        if goal in _MAXIMISED or goal == "cost":
            return goal, 0.0
        match = _BOUND.fullmatch(goal)
        if match:
            try:
                value = float(match[2])
            except ValueError:
                value = -1.0
            if 0 < value <= 1:
                return match[1], value
            raise ValueError(f"`goal` must ask for a share above 0 and at most 1; got {goal!r}.")
    _checks.one_of("goal", goal, _GOALS)
    raise AssertionError("the two examples in _GOALS match _BOUND")


def _read_costs(
    name: str, false_positive: float | None, false_negative: float | None
) -> tuple[float, float] | None:
    if name == "cost" and (false_positive is None or false_negative is None):
        raise ValueError("`goal` 'cost' needs `false_positive_cost` and `false_negative_cost`.")
    if (false_positive is None) != (false_negative is None):
        raise ValueError("`false_positive_cost` and `false_negative_cost` must be given together.")
    if false_positive is None or false_negative is None:
        return None
    costs = (
        _checks.number("false_positive_cost", false_positive, at_least=0),
        _checks.number("false_negative_cost", false_negative, at_least=0),
    )
    if costs == (0.0, 0.0):
        raise ValueError(
            "`false_positive_cost` and `false_negative_cost` are both 0; one must cost something."
        )
    return costs


def _operating_points(
    positive: NDArray[np.bool_], scores: NDArray[Any]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return every threshold inside (0, 1) that decides differently, with its hits and false alarms."""
    values, place = np.unique(scores, return_inverse=True)
    of_positive = np.bincount(place, weights=positive).astype(np.int64)
    of_negative = np.bincount(place, weights=~positive).astype(np.int64)
    # At the i-th threshold, the values from the i-th on are predicted; at the last, none is.
    hits = np.append(np.cumsum(of_positive[::-1])[::-1], 0)
    false_alarms = np.append(np.cumsum(of_negative[::-1])[::-1], 0)
    edges = values.astype(np.float64)
    below, above = np.append(0.0, edges), np.append(edges, 1.0)
    # Half-way, as a float32: models compare it with float32 probabilities and must decide the same.
    middle = ((below + above) / 2).astype(np.float32).astype(np.float64)
    cuts = np.where((middle > below) & (middle <= above), middle, above)
    usable = (cuts > below) & (cuts > 0) & (cuts < 1)
    return cuts[usable], hits[usable], false_alarms[usable]


def _within(bounded: Floats, bound: float, score: Floats, goal: str, some: NDArray[np.bool_]) -> Floats:
    """Return the score where the bound is kept, and minus infinity elsewhere."""
    kept = (bounded >= bound - 1e-12) & some
    if not kept.any():
        name = goal.split(">")[0].strip()
        raise ValueError(
            f"`goal` {goal!r} is reached by no threshold; the highest {name} on these rows is "
            f"{bounded.max():.4g}."
        )
    return np.where(kept, score, -np.inf)
