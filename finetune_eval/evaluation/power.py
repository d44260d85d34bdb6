"""Which true differences a test on so many rows detects: to be asked before the data are seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finetune_eval._checks import number, positive_int

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

POWER = 0.8  # the usual probability with which a test should detect a difference


def normal_quantile(share: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(share))


def _discordance(p_only_a: float, p_only_b: float) -> tuple[float, float]:
    a = number("p_only_a", p_only_a, at_least=0, at_most=1)
    b = number("p_only_b", p_only_b, at_least=0, at_most=1)
    if a + b > 1:
        raise ValueError(f"`p_only_a` and `p_only_b` must add up to at most 1; got {a:g} and {b:g}.")
    return a + b, abs(a - b)


def _tail(alpha: float, sides: int) -> float:
    number("alpha", alpha, above=0, below=1)
    if sides not in (1, 2):
        raise ValueError(f"`sides` must be 1 or 2; got {sides!r}.")
    return normal_quantile(1 - alpha / sides)


def mcnemar_power(p_only_a: float, p_only_b: float, n: int, *, alpha: float = 0.05, sides: int = 2) -> float:
    """Compute the chance that McNemar's test on n rows finds a difference that is there.

    Args:
        p_only_a: Share of rows that only a gets right, in [0, 1].
        p_only_b: Share of rows that only b gets right, in [0, 1].
        n: How many rows.
        alpha: Level of the test.
        sides: 1 or 2.

    Returns:
        The power in [0, 1], by Connor's normal approximation.

    Raises:
        ValueError: A share, n, alpha or sides is out of range.

    Example:
        >>> round(mcnemar_power(0.10, 0.05, 200), 3)
        0.446

    Reference:
        Connor 1987, Biometrics 43:207-211.
    """
    n = positive_int("n", n)
    disagreement, difference = _discordance(p_only_a, p_only_b)
    z = _tail(alpha, sides)
    return _connor_power(disagreement, difference, n, z, alpha)


def _connor_power(disagreement: float, difference: float, n: int, z: float, alpha: float) -> float:
    from scipy.special import ndtr

    if difference == 0:
        return alpha
    top = difference * math.sqrt(n) - z * math.sqrt(disagreement)
    spread = math.sqrt(max(disagreement - difference**2, 0.0))
    if spread == 0:
        return float(top > 0)
    return float(ndtr(top / spread))


def mcnemar_sample_size(
    p_only_a: float, p_only_b: float, *, alpha: float = 0.05, power: float = POWER, sides: int = 2
) -> int:
    """Compute how many test rows McNemar's test needs to find a difference.

    Args:
        p_only_a: Share of rows that only a gets right, in [0, 1].
        p_only_b: Share of rows that only b gets right; must differ from `p_only_a`.
        alpha: Level of the test.
        power: Wanted chance of finding the difference, in (0, 1).
        sides: 1 or 2.

    Returns:
        The number of rows, rounded up.

    Raises:
        ValueError: The shares are equal, or a number is out of range.

    Example:
        >>> mcnemar_sample_size(0.45, 0.05, power=0.9, sides=1)
        23

    Reference:
        Connor 1987, Biometrics 43:207-211.
    """
    disagreement, difference = _discordance(p_only_a, p_only_b)
    if difference == 0:
        raise ValueError(
            f"`p_only_a` and `p_only_b` must differ; both are {p_only_a:g}, and no number of rows finds that."
        )
    number("power", power, above=0, below=1)
    z, z_power = _tail(alpha, sides), normal_quantile(power)
    root = z * math.sqrt(disagreement) + z_power * math.sqrt(max(disagreement - difference**2, 0.0))
    return max(1, math.ceil((max(root, 0.0) / difference) ** 2))


def minimum_detectable_difference(
    disagreement: float, n: int, *, alpha: float = 0.05, power: float = POWER, sides: int = 2
) -> float:
    """Compute the smallest difference in accuracy that McNemar's test on n rows detects.

    Args:
        disagreement: Share of rows that exactly one of the two models gets right, in [0, 1]. A difference
            above it takes more disagreement; then all of it is on one side.
        n: How many rows.
        alpha: Level of the test.
        power: Wanted chance of finding the difference, in (0, 1).
        sides: 1 or 2.

    Returns:
        The difference in (0, 1]; 1 where even that would be missed.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> round(minimum_detectable_difference(0.15, 200), 3)
        0.076

    Reference:
        Connor 1987, Biometrics 43:207-211; Card et al. 2020, EMNLP (most comparisons are underpowered).
    """
    disagreement = number("disagreement", disagreement, at_least=0, at_most=1)
    n = positive_int("n", n)
    number("power", power, above=0, below=1)
    z = _tail(alpha, sides)
    low, high = 0.0, 1.0
    if _connor_power(1.0, 1.0, n, z, alpha) < power:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _connor_power(max(disagreement, middle), middle, n, z, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def planned_difference(accuracy: float, n: int) -> tuple[float, float]:
    """Compute which difference to a model not seen yet a test on n rows detects, and what that assumes.

    The other model is taken to have the same accuracy, and half of its errors (or of its right answers, if
    those are fewer) on the same rows as this one. Then the two disagree on as many rows as this one gets
    wrong (or right); on one row at least; and on no fewer than the difference, which is not possible else.

    Args:
        accuracy: Of the model there is, in [0, 1].
        n: How many rows.

    Returns:
        The share of rows assumed to be right in exactly one of the two, and the smallest difference in
        accuracy, not above that share, that a test at the 5 % level detects with 80 % probability.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> [round(share, 3) for share in planned_difference(0.85, 200)]
        [0.15, 0.076]
        >>> [round(share, 3) for share in planned_difference(0.99, 200)]
        [0.039, 0.039]

    Reference:
        Connor 1987, Biometrics 43:207-211.
    """
    accuracy = number("accuracy", accuracy, at_least=0, at_most=1)
    disagreement = max(min(accuracy, 1 - accuracy), 1 / positive_int("n", n))
    difference = minimum_detectable_difference(disagreement, n)
    return max(disagreement, difference), difference


def detectable_sentence(evaluation: Evaluation) -> str:
    """Return which difference to another model a test on the rows of an evaluation detects.

    Args:
        evaluation: Of one label a row.

    Returns:
        A sentence or two; nothing of multilabel, weighted or grouped rows, for which the formula is not made.
    """
    frame, n, accuracy = evaluation.predictions, evaluation.n, evaluation.accuracy
    if evaluation.task != "classification" or "weight" in frame or "group" in frame:
        return ""
    disagreement, difference = planned_difference(accuracy, n)
    # No model is better than right in all rows, or worse than wrong in all.
    possible = {"better": difference <= 1 - accuracy, "worse": difference <= accuracy}
    ways = " or ".join(way for way, may_be in possible.items() if may_be)
    these = "this one row" if n == 1 else f"these {n:,} rows"
    if not ways or difference == 1.0:
        return (
            f"A test on {these} detects no difference to another model, however large, with 80 % probability."
        )
    return (
        f"Another model that is about {percent(difference)} points {ways} in accuracy is told apart by a "
        f"test on {these} with 80 % probability (if the two disagree on "
        f"{percent(disagreement).removesuffix('.0')} % of the rows). Smaller differences are found less "
        "often."
    )


def percent(share: float) -> str:
    """Return a share in percent, with one decimal, or two digits where that would be 0.0."""
    return f"{100 * share:.1f}" if share >= 0.0005 else f"{100 * share:.2g}"
