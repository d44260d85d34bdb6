"""An operating point for two classes, chosen on validation rows for a stated goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval._text import counted, listed, quoted
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation import guarantees
from finetune_eval.evaluation._inputs import class_probabilities, row_weights
from finetune_eval.evaluation.goals import Goal, parse_goal

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

__all__ = ["Threshold", "choose_threshold"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
        rests_on: Of how many rows the bounded recall or precision is a share (an effective number, where rows
            have weights); None for other goals.
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
    rests_on: float | None = None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:.4g} a row"
        return (
            f"threshold {self.value:.4g}, chosen for {self.goal} on {counted(self.n, 'row')}\n"
            f"(there: precision {self.precision:.3f}, recall {self.recall:.3f}, F1 {self.f1:.3f}{cost})"
            + (f"\n{self.promise}" if self.promise else "")
        )

    @property
    def origin(self) -> str:
        """What it was chosen for and on how many rows, and what that promises; without the last full stop."""
        promise = f". {self.promise.removesuffix('.')}" if self.promise else ""
        return f"chosen for {self.goal} on {counted(self.n, 'row')}{promise}"

    @property
    def promise(self) -> str:
        """Say how far the bound that was asked for can be relied on; nothing for other goals."""
        goal = parse_goal(self.goal)
        if goal.bound is None or self.rests_on is None:
            return ""
        if goal.confidence is not None:
            return (
                f"With {100 * goal.confidence:g} % confidence the true {goal.name} is at least "
                f"{goal.bound:g}, for rows from the same source."
            )
        share = self.recall if goal.name == "recall" else self.precision
        rows, hits = self.rests_on, share * self.rests_on
        low = f"{guarantees.lower_limit(hits, rows):.3f} with 95 % confidence"
        if goal.name == "recall":
            under = guarantees.probability_under(goal.bound, hits, rows)
            seen = (
                f"recall was {share:.3f} on {rows:,.0f} rows of the second class and is at least {low}. In "
                f"{100 * under:.0f} % of such choices the true recall is under {goal.bound:g}"
            )
        else:
            seen = (
                f"precision was {share:.3f} on {rows:,.0f} rows predicted as the second class; had the "
                f"threshold been given beforehand, it would be at least {low}. Of many thresholds a lucky "
                "one was taken: the true precision is lower more often than not"
            )
        more = f'"{goal.name}>={goal.bound:g}@95%"'
        return f"This is a point estimate: {seen}; ask for {more} to rely on it."


def sentence(evaluation: Evaluation) -> str:
    """Return from which probability on a class is predicted, and where that was chosen, or nothing."""
    threshold = evaluation.threshold
    if threshold is None:
        return ""
    what = f"{quoted(evaluation.labels[1])} is" if evaluation.task == "classification" else "A label is"
    if isinstance(threshold, tuple):
        cuts = [f"{label} {cut:.4g}" for label, cut in zip(evaluation.labels, threshold, strict=True)]
        what += f" predicted from a probability of its own on ({listed(cuts, 8, quote=False)})"
    else:
        what += f" predicted from a probability of {threshold:.4g} on"
    if evaluation.threshold_origin:
        return f"{what}, {evaluation.threshold_origin}."
    return f"{what}. It is honest only if it was chosen on other rows than these."


def choose_threshold(
    y_true: Any,
    probabilities: Any,
    *,
    goal: str = "f1",
    false_positive_cost: float | None = None,
    false_negative_cost: float | None = None,
    sample_weight: Any = None,
) -> Threshold:
    """Choose the probability from which the second class is predicted; on validation rows, not on test rows.

    Every threshold that decides the rows differently is tried. Of equally good ones the one nearest to 0.5
    is taken, half-way between the two probabilities it separates.

    "recall>=0.9" is reached on these rows; the true recall is under 0.9 about every second time.
    "recall>=0.9@95%" guarantees it with that confidence, the search over thresholds included:

    - recall: so many of the m rows of the second class may be missed that a threshold whose true recall is
      under the bound misses no more in 5 % of the cases at most (1 of 50, 4 of 100, 12 of 200 for 0.9).
      Recall falls with the threshold, so that this holds for all lower thresholds at once.
    - precision: thresholds are tested one after the other by the exact binomial test, from one that predicts
      few rows to lower ones, until the first one fails (`guarantees.proven`).

    Args:
        y_true: (n,) indices of the two classes; both must be there.
        probabilities: (n,) or (n, 1) probabilities of the second class, or (n, 2).
        goal: "f1", "accuracy" or "balanced_accuracy": the highest; "recall>=0.9" (any number): the highest
            precision with at least that recall; "precision>=0.9": the highest recall with at least that
            precision, on so many rows predicted as could show it (29 for 0.9); either with "@95%" for a
            guarantee; "cost": the lowest mean cost.
        false_positive_cost: What a row of the first class costs that is predicted as the second; for "cost".
        false_negative_cost: What a row of the second class costs that is predicted as the first.
        sample_weight: (n,) weights of the rows, or None. Not with a guaranteed goal.

    Returns:
        The threshold with its goal and what it gives on these rows.

    Raises:
        ValueError: There are not two classes, the goal cannot be read, or no threshold reaches it.

    Example:
        >>> y, p = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
        >>> round(choose_threshold(y, p, goal="recall>=0.99").value, 3)
        0.25
        >>> print(choose_threshold([0] * 40 + [1] * 60, np.arange(100) / 100, goal="recall>=0.9@95%"))
        threshold 0.405, chosen for recall>=0.9@95% on 100 rows
        (there: precision 1.000, recall 0.983, F1 0.992)
        With 95 % confidence the true recall is at least 0.9, for rows from the same source.

    Reference:
        Wilks 1941, Ann. Math. Stat. 12:91-96 (recall: order statistics); Angelopoulos et al. 2021,
        arXiv:2110.01052 (precision: fixed-sequence testing).
    """
    asked = parse_goal(goal)
    costs = _read_costs(asked.name, false_positive_cost, false_negative_cost)
    y, p = class_probabilities(y_true, probabilities)
    if p.shape[1] != 2:
        raise ValueError(f"`probabilities` must be of two classes for a threshold; got {p.shape[1]} classes.")
    weights = weights_for(asked, sample_weight, y)
    positive = y == 1
    if not weights[positive].any() or not weights[~positive].any():
        raise ValueError(
            f"`y_true` must have rows of both classes to choose a threshold; all {len(y)} are {y[0]}."
        )
    points = operating_points(positive, p[:, 1], weights)
    score = _score(points, asked, costs, goal)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    at = int(best[np.argmin(np.abs(points.cuts[best] - 0.5))])
    proven = asked.name == "precision" and asked.confidence is not None
    return Threshold(
        value=float((points.lowest_cuts if proven else points.cuts)[at]),
        goal=goal,
        n=len(y),
        precision=float(points.precision[at]),
        recall=float(points.recall[at]),
        f1=float(points.f1[at]),
        accuracy=float(points.accuracy[at]),
        cost=None if costs is None else float(points.cost(costs)[at]),
        rows_hash=decided_rows_hash(y, p),
        rests_on={"recall": points.rows_of_class, "precision": float(points.rows[at])}.get(asked.name),
    )


def weights_for(goal: Goal, sample_weight: Any, y: Integers) -> Floats:
    """Return (n,) weights of the rows, 1 where none are given; a goal with a confidence takes none."""
    if sample_weight is None:
        return np.ones(len(y))
    if goal.confidence is not None:
        raise ValueError(
            "`goal` with a confidence needs rows that count alike; leave `sample_weight` or the '@' out."
        )
    weights = row_weights(sample_weight)
    _checks.same_length("y_true", y, "sample_weight", weights)
    return weights


def decided_rows_hash(y: NDArray[np.int64], p: NDArray[Any]) -> str:
    """Hash the rows a threshold decides: their labels and the probabilities of their second class."""
    return rows_hash(p[:, 1].astype(np.float64), y)


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


@dataclass(frozen=True)
class Points:
    """Thresholds, the lowest first, and what they give.

    Attributes:
        cuts: The thresholds; of `operating_points`, half-way between the probabilities they separate.
        lowest_cuts: The lowest thresholds that decide the rows alike.
        hits: Weight of the rows of the second class that are predicted as such.
        false_alarms: Weight of the rows of the first class that are predicted as the second.
        rows: Rows predicted as the second class, by Kish's effective number.
        positives: Weight of the rows of the second class.
        negatives: Weight of the rows of the first class.
        rows_of_class: Rows of the second class, by Kish's effective number.
    """

    cuts: Floats
    lowest_cuts: Floats
    hits: Floats
    false_alarms: Floats
    rows: Floats
    positives: float
    negatives: float
    rows_of_class: float

    @property
    def precision(self) -> Floats:
        predicted = self.hits + self.false_alarms
        return np.divide(self.hits, predicted, out=np.zeros(len(self.hits)), where=predicted > 0)

    @property
    def recall(self) -> Floats:
        return self.hits / self.positives

    @property
    def f1(self) -> Floats:
        return 2 * self.hits / (self.hits + self.false_alarms + self.positives)

    @property
    def accuracy(self) -> Floats:
        return (self.hits + self.negatives - self.false_alarms) / (self.positives + self.negatives)

    @property
    def balanced_accuracy(self) -> Floats:
        return (self.recall + 1 - self.false_alarms / self.negatives) / 2

    def cost(self, costs: tuple[float, float]) -> Floats:
        misses = self.positives - self.hits
        return (costs[0] * self.false_alarms + costs[1] * misses) / (self.positives + self.negatives)


def operating_points(positive: NDArray[np.bool_], scores: NDArray[Any], weights: Floats) -> Points:
    """Return every threshold inside (0, 1) that decides differently, with what it gives."""
    values, place = np.unique(scores, return_inverse=True)

    def from_here_on(of_row: Floats) -> Floats:
        # At the i-th threshold, the values from the i-th on are predicted; at the last, none is.
        return np.append(np.cumsum(np.bincount(place, weights=of_row)[::-1])[::-1], 0.0)

    hits, false_alarms = from_here_on(weights * positive), from_here_on(weights * ~positive)
    squares = from_here_on(weights**2)
    edges = values.astype(np.float64)
    below, above = np.append(0.0, edges), np.append(edges, 1.0)

    def float32(cut: Floats) -> Floats:
        # Models compare the threshold with float32 probabilities and must decide the same.
        rounded = cut.astype(np.float32).astype(np.float64)
        return np.where((rounded > below) & (rounded <= above), rounded, above)

    cuts = float32((below + above) / 2)
    lowest = float32(np.nextafter(below.astype(np.float32), np.float32(1)))
    usable = (cuts > below) & (cuts > 0) & (cuts < 1)
    predicted = hits + false_alarms
    rows = np.divide(predicted**2, squares, out=np.zeros(len(hits)), where=squares > 0)
    of_class = weights[positive]
    return Points(
        cuts[usable],
        lowest[usable],
        hits[usable],
        false_alarms[usable],
        rows[usable],
        float(of_class.sum()),
        float(weights[~positive].sum()),
        float(of_class.sum() ** 2 / (of_class**2).sum()),
    )


def points_at(cuts: Floats, positive: NDArray[np.bool_], scores: NDArray[Any]) -> Points:
    """Return what given thresholds give; each row counts as 1."""
    hits = positive.sum() - np.searchsorted(np.sort(scores[positive]), cuts)
    rows = len(scores) - np.searchsorted(np.sort(scores), cuts)
    positives = float(positive.sum())
    return Points(
        cuts,
        cuts,
        hits.astype(np.float64),
        (rows - hits).astype(np.float64),
        rows.astype(np.float64),
        positives,
        len(scores) - positives,
        positives,
    )


def _score(points: Points, goal: Goal, costs: tuple[float, float] | None, text: str) -> Floats:
    """Return what is to be highest at each threshold; minus infinity where the goal is not reached."""
    if costs is not None and goal.name == "cost":
        return -points.cost(costs)
    if goal.bound is None:
        return np.asarray(getattr(points, goal.name))
    if goal.name == "recall":
        kept = _enough_recall(points, goal, text)
        return np.where(kept, points.precision, -np.inf)
    kept = _enough_precision(points, goal, text) if goal.confidence is None else _proven(points, goal, text)
    return np.where(kept, points.recall, -np.inf)


def _enough_recall(points: Points, goal: Goal, text: str) -> NDArray[np.bool_]:
    """Mark the thresholds with the recall asked for, on these rows or with the confidence asked for."""
    assert goal.bound is not None
    some = points.rows > 0
    if goal.confidence is None:
        kept = (points.recall >= goal.bound - 1e-12) & some
        best = "the highest recall on these rows is"
        if not kept.any():
            raise ValueError(f"`goal` {text!r} is reached by no threshold; {best} {points.recall.max():.4g}.")
        return kept
    m, alpha = round(points.positives), 1 - goal.confidence
    allowed = guarantees.allowed_misses(m, goal.bound, alpha)
    if allowed < 0:
        raise ValueError(
            f"`goal` {text!r} needs at least {guarantees.fewest_rows(goal.bound, alpha):,} rows of the "
            f"second class, none of them missed; there {'is' if m == 1 else 'are'} {m:,}."
        )
    kept = (points.hits >= m - allowed) & some
    if not kept.any():
        lost = m - round(float(points.hits.max(initial=0)))
        raise ValueError(
            f"`goal` {text!r} is reached by no threshold: {lost:,} of {m:,} rows of the second class have a "
            f"probability of 0 or nearly 0, and {allowed:,} may be missed."
        )
    return kept


def _enough_precision(points: Points, goal: Goal, text: str) -> NDArray[np.bool_]:
    """Mark the thresholds with the precision asked for on these rows, and enough rows to show it."""
    assert goal.bound is not None
    fewest = guarantees.fewest_rows(goal.bound)
    shown = points.rows >= fewest - 1e-9
    kept = shown & (points.precision >= goal.bound - 1e-12)
    if not kept.any():
        best = f"the highest there is {points.precision[shown].max():.4g}" if shown.any() else "none does"
        raise ValueError(
            f"`goal` {text!r} is reached by no threshold that predicts {fewest:,} rows or more, the fewest "
            f"that could show it; {best}."
        )
    return kept


def _proven(points: Points, goal: Goal, text: str) -> NDArray[np.bool_]:
    """Mark the thresholds whose precision is proven, or say how many rows that would take."""
    assert goal.bound is not None and goal.confidence is not None
    alpha = 1 - goal.confidence
    rows, hits = np.rint(points.rows[::-1]), np.rint(points.hits[::-1])  # from few rows predicted to many
    kept = guarantees.proven(hits, rows, goal.bound, alpha)
    if kept.any():
        return kept[::-1]
    first = guarantees.first_alpha(alpha)
    fewest = guarantees.fewest_rows(goal.bound, first)
    enough = rows >= fewest
    if not enough.any():
        raise ValueError(
            f"`goal` {text!r} needs at least {fewest:,} rows predicted as the second class, all of them "
            f"right; there are {int(rows.max(initial=0)):,} rows to predict."
        )
    rows, precision = rows[enough], hits[enough] / rows[enough]
    best = int(precision.argmax())
    start = (
        f"`goal` {text!r} is proven for no threshold: the best of those that predict {fewest:,} rows or more "
        f"has a precision of {precision[best]:.3f}"
    )
    if precision[best] <= goal.bound:
        raise ValueError(f"{start}. Ask for less, or for a better model.")
    total = points.positives + points.negatives
    needed = guarantees.rows_to_show(float(precision[best]), goal.bound, first) / rows[best]
    raise ValueError(
        f"{start} on {int(rows[best]):,} rows. About {float(f'{max(needed, 1) * total:.1e}'):,.0f} rows like "
        f"these {round(total):,} would show it."
    )
