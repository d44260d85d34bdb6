"""The goal that a threshold is chosen for, such as "recall>=0.9", read from one line of text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from finetune_eval import _checks

__all__ = ["Goal", "parse_goal"]

MAXIMISED = ("f1", "accuracy", "balanced_accuracy")
BOUNDED = ("recall", "precision")
_GOAL = re.compile(r"\s*(\w+)\s*>=\s*([0-9.eE+-]+)\s*(%?)\s*(?:@\s*([0-9.]+)\s*(%?)\s*)?")


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for.

    Attributes:
        name: "f1", "accuracy", "balanced_accuracy", "cost", "recall" or "precision".
        bound: The least recall or precision; None for the others.
        confidence: With which probability the true value is to be at least that; None for a point estimate.
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
    if found is None:
        listed = ", ".join(map(repr, known))
        near = _checks.nearest(str(goal).lower(), known)
        raise ValueError(
            f"`{name}` must be one of {listed}, or a bound such as 'recall>=0.9', 'precision>=0.9' or "
            f"'recall>=0.9@95%'; got {goal!r}.{near}"
        )
    if found[1] not in BOUNDED:
        near = _checks.nearest(found[1], BOUNDED)
        raise ValueError(f"`{name}` can bound 'recall' or 'precision'; got {goal!r}.{near}")
    bound = _share(found[2], found[3])
    if not 0 < bound <= 1:
        raise ValueError(f"`{name}` must ask for a share above 0 and at most 1; got {goal!r}.")
    confidence = None
    if found[4] is not None:
        confidence = _share(found[4], found[5] or ("%" if _share(found[4], "") > 1 else ""))
        if not 0.5 <= confidence < 1:
            raise ValueError(
                f"`{name}` must ask for a confidence of at least 50 % and under 100 %; got {goal!r}."
            )
    if bound == 1 and (confidence is not None or found[1] == "precision"):
        raise ValueError(f"`{name}` {goal!r} could be shown by no number of rows; ask for less than 1.")
    return Goal(found[1], bound, confidence)


def _share(number: str, percent: str) -> float:
    try:
        value = float(number)
    except ValueError:
        return math.nan
    return value / 100 if percent else value
