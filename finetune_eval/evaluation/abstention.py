"""From which confidence on a model answers: chosen for the error of what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval._text import counted
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation import guarantees
from finetune_eval.evaluation._inputs import class_probabilities
from finetune_eval.evaluation.goals import Goal, parse_error_goal
from finetune_eval.evaluation.sample import decided
from finetune_eval.evaluation.thresholds import Threshold, operating_points, weights_for

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

__all__ = ["Abstention", "choose_abstention"]

Floats = NDArray[np.float64]
WITHHELD = "(none of these)"  # what is printed in the place of a label


@dataclass(frozen=True)
class Abstention:
    """From which confidence on an answer is given, and why.

    The confidence of an answer is the probability of the class that is answered. Coverage and error are those
    of the rows that chose it; those of test rows count.

    Attributes:
        value: The confidence; 0 where every row is answered.
        goal: What it was chosen for.
        n: On how many rows.
        answered: How many of them are answered (an effective number, where rows have weights).
        coverage: The share of the rows that is answered.
        error: The share of wrong answers among these.
        rows_hash: Hash of those rows' probabilities and labels: `evaluate_predictions` warns where it is
            given the same rows.
        threshold: From which probability on the second of two classes was the answer; None: the most
            probable class.
    """

    value: float
    goal: str
    n: int
    answered: float
    coverage: float
    error: float
    rows_hash: str
    threshold: float | None = None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return (
            f"answers from a confidence of {self.value:.4g} on, chosen for {self.goal} on "
            f"{counted(self.n, 'row')}\n(there: coverage {self.coverage:.3f}, error of what is answered "
            f"{self.error:.3f})\n{self.promise}"
        )

    @property
    def origin(self) -> str:
        """What it was chosen for and on how many rows, and what that promises; without the last full stop."""
        return f"chosen for {self.goal} on {counted(self.n, 'row')}. {self.promise.removesuffix('.')}"

    @property
    def promise(self) -> str:
        """Say how far the bound that was asked for can be relied on."""
        goal = parse_error_goal(self.goal)
        assert goal.bound is not None
        if goal.confidence is not None:
            return (
                f"With {100 * goal.confidence:g} % confidence the true error of what is answered is at "
                f"most {goal.bound:g}, for rows from the same source."
            )
        right = (1 - self.error) * self.answered
        high = 1 - guarantees.lower_limit(right, self.answered)
        return (
            f"This is a point estimate: the error was {self.error:.3f} on {self.answered:,.0f} answered "
            f"rows; for a confidence given beforehand it would be at most {high:.3f} (95 %). Of many "
            "confidences a lucky one was taken: the true error is higher more often than not; ask for "
            f'"error<={goal.bound:g}@95%" to rely on it.'
        )


def sentence(evaluation: Evaluation) -> str:
    """Return what is answered and how well, or nothing where no answer is withheld."""
    found = evaluation.answered
    if found is None:
        return ""
    origin = f", {found.origin}" if found.origin else ""
    if found.confidence == 0:
        return f"Every row is answered, whatever its confidence{origin}. The error is {found.error}."
    what = f"Answers below a confidence of {found.confidence:.4g} are withheld{origin}."
    if found.error is None:
        return f"{what} Here none of the {counted(evaluation.n, 'row')} is answered."
    return (
        f"{what} Here {found.n:,} of {counted(evaluation.n, 'row')} {'is' if found.n == 1 else 'are'} "
        f"answered: coverage {found.coverage}, error of what is answered {found.error}. All other scores "
        "count every row."
    )


def answer_confidence(p: NDArray[Any], predicted: NDArray[np.int64]) -> NDArray[Any]:
    """Return (n,) the probability of the class that is answered."""
    return np.asarray(p[np.arange(len(p)), predicted])


def choose_abstention(
    y_true: Any,
    probabilities: Any,
    *,
    goal: str = "error<=0.05@95%",
    threshold: float | Threshold | None = None,
    sample_weight: Any = None,
) -> Abstention:
    """Choose the confidence below which answers are withheld; on validation rows, not on test rows.

    As many rows as possible are answered, the surest first, while the error of the answers keeps the bound.

    "error<=0.05@95%" guarantees it with that confidence, the search over confidences included: confidences
    are tested one after the other by the exact binomial test, from one that answers few rows to lower ones,
    until the first one fails (fixed-sequence testing). Several such sequences share the error probability
    where there are many rows (`guarantees.starts_of_answers`). Rows must be independent. The guarantee is
    exact where the error does not fall as less sure rows are answered too, and simulated elsewhere
    (docs/statistics.md). "error<=0.05" is kept on these rows only, and is a point estimate.

    Args:
        y_true: (n,) class indices, or class names.
        probabilities: (n, K), or (n,) or (n, 1) probabilities of the second of two classes.
        goal: The largest error among the rows that are answered, such as "error<=0.05@95%" or "error<=0.05".
            Either takes so many answered rows as could show it (59 for 0.05).
        threshold: From which probability on the second of two classes is the answer; None: the most probable
            class.
        sample_weight: (n,) weights of the rows, or None. Not with a guaranteed goal.

    Returns:
        The confidence with its goal, and what it gives on these rows.

    Raises:
        ValueError: The goal cannot be read, or no confidence reaches it; the sentence says how many rows it
            would take.

    Example:
        >>> y, p = np.ones(400), np.linspace(0.5, 1, 400, endpoint=False)
        >>> y[:200:10] = 0  # one in ten answers of the less sure half is wrong, and none of the others
        >>> print(choose_abstention(y, p).promise)  # doctest: +NORMALIZE_WHITESPACE
        With 95 % confidence the true error of what is answered is at most 0.05, for rows from the same
        source.

    Reference:
        Geifman and El-Yaniv 2017, arXiv:1705.08500 (selective classification with a guaranteed risk);
        Angelopoulos et al. 2021, arXiv:2110.01052 (fixed-sequence testing).
    """
    asked = parse_error_goal(goal)
    y, p = class_probabilities(y_true, probabilities)
    value = _threshold_value(threshold, p.shape[1])
    weights = weights_for(asked, sample_weight, y)
    given = decided(p, value)
    right, confidence = y == given, answer_confidence(p, given)
    check_rows(goal, len(y))
    if not (weights * right).any():
        raise ValueError(f"The goal {goal!r} is reached by no confidence: no answer is right.")
    points = operating_points(right, confidence, weights)
    error = np.where(points.rows > 0, 1 - points.precision, 1.0)
    if asked.confidence is None:
        kept, cuts = _enough(points.rows, error, asked, goal), points.cuts
    else:
        rows = points.hits + points.false_alarms
        kept, cuts = _proven(points.hits, rows, asked, goal, len(y)), points.lowest_cuts
    at = int(np.flatnonzero(kept)[0])  # the lowest confidence answers the most rows
    total = float(weights.sum())
    covered = float(points.hits[at] + points.false_alarms[at])
    return Abstention(
        value=0.0 if (confidence >= cuts[at])[weights > 0].all() else float(cuts[at]),
        goal=goal,
        n=len(y),
        answered=float(points.rows[at]),
        coverage=min(covered / total, 1.0),
        error=float(error[at]),
        rows_hash=decided_rows_hash(y, p),
        threshold=value,
    )


def decided_rows_hash(y: NDArray[np.int64], p: NDArray[Any]) -> str:
    """Hash the rows that chose an abstention: their labels and their largest probabilities."""
    return rows_hash(p.max(axis=1).astype(np.float64), y)


def fewest_rows(goal: Goal) -> int:
    """Return how many rows, all of them answered rightly, can show that an error keeps its bound."""
    assert goal.bound is not None
    if goal.confidence is None:
        return guarantees.fewest_rows(1 - goal.bound)
    return guarantees.fewest_rows(1 - goal.bound, 1 - goal.confidence)


def check_rows(goal: str, rows: int, name: str = "goal") -> None:
    """Raise where there are too few rows for a goal, whatever the answers; it needs no training to know.

    Args:
        goal: The goal.
        rows: How many rows will choose.
        name: What the caller's argument is called, for the error.
    """
    fewest = fewest_rows(parse_error_goal(goal, name))
    if rows < fewest:
        raise ValueError(
            f"`{name}` {goal!r} needs at least {fewest:,} rows to choose on, all of them answered rightly; "
            f"there {'is' if rows == 1 else 'are'} {rows:,}."
        )


def _threshold_value(threshold: float | Threshold | None, classes: int) -> float | None:
    if threshold is None:
        return None
    if classes != 2:
        raise ValueError(f"`threshold` needs exactly two classes; got {classes} classes.")
    value = threshold.value if isinstance(threshold, Threshold) else threshold
    return _checks.number("threshold", value, above=0, below=1)


def _enough(rows: Floats, error: Floats, goal: Goal, text: str) -> NDArray[np.bool_]:
    """Mark the confidences with so small an error on these rows, and enough rows answered to show it."""
    assert goal.bound is not None
    fewest = fewest_rows(goal)
    shown = rows >= fewest - 1e-9
    kept = shown & (error <= goal.bound + 1e-12)
    if not kept.any():
        best = f"the lowest error there is {error[shown].min():.4g}" if shown.any() else "none does"
        raise ValueError(
            f"The goal {text!r} is reached by no confidence from which {fewest:,} rows or more are answered, "
            f"the fewest that could show it; {best}."
        )
    return kept


def _proven(hits: Floats, rows: Floats, goal: Goal, text: str, n: int) -> NDArray[np.bool_]:
    """Mark the confidences whose error is proven to keep the bound, or say how many rows that would take."""
    assert goal.bound is not None and goal.confidence is not None
    alpha, least = 1 - goal.confidence, 1 - goal.bound
    hits, rows = np.rint(hits[::-1]), np.rint(rows[::-1])  # from few rows answered to many
    starts = guarantees.starts_of_answers(n, least, alpha)
    kept = guarantees.passed(hits, rows, least, starts)
    if kept.any():
        return kept[::-1]
    level, fewest = starts[0]
    enough = rows >= fewest
    right = hits[enough] / rows[enough]
    best = int(right.argmax())
    start = (
        f"The goal {text!r} is proven for no confidence: of those from which {fewest:,} rows or more are "
        f"answered, the lowest error is {1 - right[best]:.3f}"
    )
    if right[best] <= least:
        raise ValueError(f"{start}. Allow more, or use a better model.")
    needed = guarantees.rows_to_show(float(right[best]), least, level)
    factor = max(needed / rows[enough][best], 1)
    raise ValueError(
        f"{start}, on {int(rows[enough][best]):,} rows. About {float(f'{factor * n:.1e}'):,.0f} rows like "
        f"these {n:,} would show it."
    )
