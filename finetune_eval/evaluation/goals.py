"""The goal that a threshold or an abstention is chosen for, such as "recall>=0.9", read from its text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from finetune_eval import _checks

__all__ = ["Goal", "parse_error_goal", "parse_goal"]

MAXIMISED = ("f1", "accuracy", "balanced_accuracy")
BOUNDED = ("recall", "precision")
_GOAL = re.compile(r"\s*(\w+)\s*(>=|<=)\s*([0-9.eE+-]+)\s*(%?)\s*(?:@\s*([0-9.]+)\s*(%?)\s*)?")


@dataclass(frozen=True)
class Goal:
    """What a threshold or an abstention is chosen for.

    Attributes:
        name: "f1", "accuracy", "balanced_accuracy", "cost", "recall", "precision" or "error".
        bound: The least recall or precision, or the largest error; None for the others.
        confidence: With which probability the true value is to keep the bound; None for a point estimate.
    """

    name: str
    bound: float | None = None
    confidence: float | None = None


def parse_goal(goal: Any, name: str = "goal") -> Goal:
    """Read a goal: "f1", "accuracy", "balanced_accuracy", "cost", "recall>=0.9" or "precision>=0.9@95%".

    Needs no rows, so that a goal can be refused before anything slow.

    Args:
        goal: The goal as text.
        name: What the caller's argument is called, for the error.

    Raises:
        ValueError: The goal cannot be read, or no number of rows could show that it is reached.

    Example:
        >>> parse_goal("recall >= 90 % @ 95 %")
        Goal(name='recall', bound=0.9, confidence=0.95)
    """
    known = (*MAXIMISED, "cost")
    if isinstance(goal, str) and goal in known:
        return Goal(goal)
    found = _GOAL.fullmatch(goal) if isinstance(goal, str) else None
    if found is not None and found[1] == "error":
        raise ValueError(
            f"`{name}` {goal!r} bounds the error among the rows that are answered: `abstain_for` and "
            "choose_abstention take it. A threshold alone answers every row; ask for 'accuracy' to have the "
            "fewest errors."
        )
    if found is None or found[2] == "<=":
        listed = ", ".join(map(repr, known))
        near = _checks.nearest(str(goal).lower(), known)
        raise ValueError(
            f"`{name}` must be one of {listed}, or a bound such as 'recall>=0.9', 'precision>=0.9' or "
            f"'recall>=0.9@95%'; got {goal!r}.{near}"
        )
    if found[1] not in BOUNDED:
        near = _checks.nearest(found[1], BOUNDED)
        raise ValueError(f"`{name}` can bound 'recall' or 'precision'; got {goal!r}.{near}")
    bound = _share(found[3], found[4])
    if not 0 < bound <= 1:
        raise ValueError(f"`{name}` must ask for a share above 0 and at most 1; got {goal!r}.")
    confidence = _confidence(found, goal, name)
    if bound == 1 and (confidence is not None or found[1] == "precision"):
        raise ValueError(f"`{name}` {goal!r} could be shown by no number of rows; ask for less than 1.")
    return Goal(found[1], bound, confidence)


def parse_error_goal(goal: Any, name: str = "goal") -> Goal:
    """Read the goal of an abstention: "error<=0.05" or "error<=0.05@95%".

    Args:
        goal: The goal as text.
        name: What the caller's argument is called, for the error.

    Raises:
        ValueError: The goal cannot be read, or no number of rows could show that it is reached.

    Example:
        >>> parse_error_goal("error <= 5 % @ 95 %")
        Goal(name='error', bound=0.05, confidence=0.95)
    """
    found = _GOAL.fullmatch(goal) if isinstance(goal, str) else None
    if found is None or found[1] != "error" or found[2] != "<=":
        known = (found is not None and found[1] in BOUNDED) or (
            isinstance(goal, str) and goal in (*MAXIMISED, "cost")
        )
        elsewhere = " `threshold_for` takes other goals." if known else ""
        raise ValueError(
            f"`{name}` must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got {goal!r}."
            f"{elsewhere}"
        )
    bound = _share(found[3], found[4])
    if not 0 < bound < 1:
        raise ValueError(f"`{name}` must allow an error above 0 and below 1; got {goal!r}.")
    return Goal("error", bound, _confidence(found, goal, name))


def _confidence(found: re.Match[str], goal: str, name: str) -> float | None:
    """Return the confidence that stands behind the "@", or None where there is none."""
    if found[5] is None:
        return None
    confidence = _share(found[5], found[6] or ("%" if _share(found[5], "") > 1 else ""))
    if not 0.5 <= confidence < 1:
        raise ValueError(
            f"`{name}` must ask for a confidence of at least 50 % and under 100 %; got {goal!r}."
        )
    return confidence


def _share(number: str, percent: str) -> float:
    try:
        value = float(number)
    except ValueError:
        return math.nan
    return value / 100 if percent else value
