"""Several runs of one recipe, or of two: what the seed alone does to the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_eval import _checks
from finetune_eval._checks import number, one_of, positive_int
from finetune_eval._text import Shown, counted, fill, p_value
from finetune_eval.evaluation._paired_rows import check_same_rows
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.outcomes import (
    BETTER,
    CANNOT_TELL,
    NO_DIFFERENCE,
    amount_text,
    outcome_of,
    smallest_that_matters,
)
from finetune_eval.evaluation.records import Estimate

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

# Runs of a recipe below which the report says that there are few: the standard deviation of five normal
# scores is off by a third (1 / sqrt(2 (n - 1))) as it is.
FEW_SEEDS = 5
_NO_SPREAD = "; the runs score the same: their spread is taken as rounding to one row"


@dataclass(frozen=True)
class SeedSummary(Shown):
    """The scores of several runs that differ in their seed only.

    Attributes:
        metric: Which score.
        values: The score of each run, in the order given.
        mean: Their mean, with an interval over seeds (Student's t).
        spread: Their standard deviation (n - 1).
        best_of: Expected score of the best of 1, 2, ... of these runs; the last one is the best run seen.
        luck: How far beyond the mean the best of that many equal runs is by luck alone, on average, in
            standard deviations.
        n: How many test rows each run was scored on.
    """

    metric: str
    values: tuple[float, ...]
    mean: Estimate
    spread: float
    best_of: tuple[float, ...]
    luck: float
    n: int

    def __str__(self) -> str:
        runs, title = len(self.values), METRICS[self.metric].title
        text = [
            f"{title[:1].upper()}{title[1:]} of {runs} seeds: mean {self.mean.value:.4f} "
            f"[{self.mean.low:.4f}, {self.mean.high:.4f}], standard deviation {self.spread:.4f}, "
            f"from {min(self.values):.4f} to {max(self.values):.4f}.",
            "Every run: " + ", ".join(f"{value:.4f}" for value in self.values) + ".",
            "The best of k such runs is expected to score "
            + ", ".join(f"{value:.4f} (k = {k})" for k, value in enumerate(self.best_of, 1))
            + f". By luck alone, the best of {runs} equal runs lies {self.luck:.2f} standard deviations "
            "beyond their mean on average.",
            "The interval covers the seed of the training only: every run has the same "
            f"{counted(self.n, 'test row')}, and other rows would move all of them.",
        ]
        return "\n".join(fill(part) for part in text)


def expected_best_of(k: int) -> float:
    """Compute how far the best of k equal runs is expected above their mean, by luck alone.

    Args:
        k: How many runs, at least 1.

    Returns:
        The expected largest of k standard normal draws, in standard deviations.

    Raises:
        ValueError: k is less than 1.

    Example:
        >>> [round(expected_best_of(k), 5) for k in (2, 5, 10)]
        [0.56419, 1.16296, 1.53875]

    Reference:
        Harter 1961, Biometrika 48:151-165 (expected values of normal order statistics).
    """
    k = positive_int("k", k)
    from scipy.special import log_ndtr, ndtr

    # E max = integral over x > 0 of P(max > x) less that over x < 0 of P(max < x).
    x = np.linspace(0.0, 12.0, 24_001)
    above = -np.expm1(k * log_ndtr(x))
    below = ndtr(-x) ** k
    return float(np.trapezoid(above - below, x))


def evaluate_seeds(
    evaluations: Sequence[Evaluation], *, metric: str = "accuracy", confidence: float = 0.95
) -> SeedSummary:
    """Summarise runs of one recipe that differ in their seed only.

    Args:
        evaluations: At least two runs, scored on the same rows.
        metric: The score to summarise.
        confidence: Nominal coverage of the interval of the mean, in (0, 1).

    Returns:
        Every value, mean, spread and the expected best of k.

    Raises:
        ValueError: Fewer than two runs, different rows, runs that are copies, or an unknown metric.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0, 1] * 50
        >>> right, wrong = [0.1, 0.9], [0.9, 0.1]
        >>> runs = [evaluate_predictions(y, right * k + wrong * (50 - k)) for k in (40, 42, 44)]
        >>> print(evaluate_seeds(runs).mean)
        0.840 [0.741, 0.939]

    Reference:
        Expected best of k: Tang et al. 2020, ACL. Bouthillier et al. 2021, MLSys.
    """
    _checks.evaluations("evaluations", evaluations)
    if len(evaluations) < 2:
        raise ValueError(f"`evaluations` must be at least two runs; got {len(evaluations)}.")
    one_of("metric", metric, tuple(evaluations[0].estimates))
    confidence = number("confidence", confidence, above=0, below=1)
    rows = check_same_rows(evaluations, [f"run {i}" for i in range(1, len(evaluations) + 1)])
    if all(run.answers_as(rows[0]) for run in rows[1:]):
        raise ValueError("`evaluations` are all the same to the last digit; give each run its own seed.")
    values = np.array([evaluation.estimates[metric].value for evaluation in evaluations])
    runs, n = len(values), len(rows[0].correct)
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    entry = METRICS[metric]
    return SeedSummary(
        metric,
        tuple(values.tolist()),
        _mean(mean, spread, runs, n, confidence, entry.low, entry.high),
        spread,
        _best_of(values, higher=entry.direction == "higher"),
        expected_best_of(runs),
        n,
    )


@dataclass(frozen=True)
class SeedComparison(Shown):
    """Two recipes, each trained with several seeds.

    Attributes:
        metric: Which score.
        a: The runs of the first recipe.
        b: The runs of the second.
        difference: Mean of a less mean of b, with an interval over seeds (Welch's t).
        p_value: Welch's, two-sided.
        matters: The smallest difference that is taken to matter.
    """

    metric: str
    a: SeedSummary
    b: SeedSummary
    difference: Estimate
    p_value: float
    matters: float

    @property
    def outcome(self) -> str:
        """Which is better: "better" (the first), "worse", "no difference that matters", "cannot tell yet"."""
        return outcome_of(self.metric, self.difference, self.matters)

    @property
    def verdict(self) -> str:
        """Return in one sentence which recipe is better over seeds, or that these seeds cannot tell."""
        means = f"the means differ by {abs(self.difference.value):.4f}"
        limit = amount_text(self.metric, self.matters)
        if self.outcome == NO_DIFFERENCE:
            return (
                f"There is no difference over seeds that matters: {means}, and the interval holds no "
                f"difference above {limit}."
            )
        if self.outcome == CANNOT_TELL:
            return (
                f"These seeds cannot tell yet which recipe is better: {means}. There may be no difference "
                f"or one above {limit}, which would matter."
            )
        return f"The {'first' if self.outcome == BETTER else 'second'} recipe is better over seeds: {means}."

    def __str__(self) -> str:
        low, high = self.difference.low, self.difference.high
        text = [self.verdict]
        for name, runs in (("First", self.a), ("Second", self.b)):
            values = ", ".join(f"{value:.4f}" for value in runs.values)
            text.append(
                f"{name}: mean {runs.mean.value:.4f}, standard deviation {runs.spread:.4f}; "
                f"every run: {values}."
            )
        text.append(
            f"First less second in {METRICS[self.metric].title}: {self.difference.value:+.4f} [{low:+.4f}, "
            f"{high:+.4f}], {p_value(self.p_value)} ({self.difference.method})."
        )
        fewest = min(len(self.a.values), len(self.b.values))
        if fewest < FEW_SEEDS:
            text.append(
                f"Only {fewest} seeds of a recipe: so few tell little of the spread; the interval is wide."
            )
        text.append(
            "The interval covers the seed of the training only: every run has the same "
            f"{counted(self.a.n, 'test row')}. Whether two single runs differ on other rows too is for "
            "`compare`."
        )
        return "\n".join(fill(part) for part in text)


def compare_seeds(
    a: Sequence[Evaluation],
    b: Sequence[Evaluation],
    *,
    metric: str = "accuracy",
    confidence: float = 0.95,
    matters: float | None = None,
) -> SeedComparison:
    """Compare two recipes that were each trained with several seeds: is one better whatever the seed?

    Args:
        a: At least two runs of the first recipe, scored on the same rows.
        b: At least two runs of the second, on the same rows too; as many or not.
        metric: The score that decides.
        confidence: Nominal coverage of the interval of the difference, in (0, 1).
        matters: The smallest difference that would matter to you, as in `compare`.

    Returns:
        The difference of the means with an interval over seeds, and every value.

    Raises:
        ValueError: Fewer than two runs, different rows, runs that are copies, or an unknown metric.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0, 1] * 50
        >>> right, wrong = [0.1, 0.9], [0.9, 0.1]
        >>> a, b = (
        ...     [evaluate_predictions(y, right * k + wrong * (50 - k)) for k in ks]
        ...     for ks in ((40, 42, 44), (32, 33, 36, 35))
        ... )
        >>> compare_seeds(a, b).verdict
        'The first recipe is better over seeds: the means differ by 0.1600.'

    Reference:
        Welch 1947, Biometrika 34:28-35.
    """
    for name, runs in (("a", a), ("b", b)):
        _checks.evaluations(name, runs)
        if len(runs) < 2:
            raise ValueError(f"`{name}` must be at least two runs of one recipe; got {len(runs)}.")
    if matters is not None:
        matters = number("matters", matters, at_least=0)
    first, second = (evaluate_seeds(runs, metric=metric, confidence=confidence) for runs in (a, b))
    names = [f"run {i} of {name}" for name, runs in (("a", a), ("b", b)) for i in range(1, len(runs) + 1)]
    rows = check_same_rows([*a, *b], names)
    for one in rows[: len(a)]:
        for other in rows[len(a) :]:
            if one.answers_as(other):
                raise ValueError(
                    f"{one.name} and {other.name} are the same to the last digit; a run is of one recipe."
                )
    value = first.mean.value - second.mean.value
    spreads, note = [first.spread, second.spread], ""
    if not any(_varies(runs.spread, runs.mean.value) for runs in (first, second)):
        spreads, note = [_rounding(first.n)] * 2, _NO_SPREAD
    part = [spread**2 / len(runs) for spread, runs in zip(spreads, (a, b), strict=True)]
    half, p_value = _welch(value, part, [len(a) - 1, len(b) - 1], confidence)
    most = METRICS[metric].high - METRICS[metric].low
    difference = Estimate(
        value,
        max(-most, value - half),
        min(most, value + half),
        f"Welch's t over seeds{note}",
        confidence,
    )
    if matters is None:
        matters = smallest_that_matters(metric, [first.mean.value, second.mean.value])
    return SeedComparison(metric, first, second, difference, p_value, matters)


def _welch(
    value: float, variances: list[float], degrees: list[int], confidence: float
) -> tuple[float, float]:
    """Return half the width of the interval, and the two-sided p-value, from the variances of two means."""
    from scipy.special import stdtr, stdtrit

    total = sum(variances)
    freedom = total**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(total)
    return half, float(2 * stdtr(freedom, -abs(value) / math.sqrt(total)))


def _mean(
    mean: float, spread: float, runs: int, n: int, confidence: float, lowest: float, highest: float
) -> Estimate:
    from scipy.special import stdtrit

    method = "Student's t over seeds"
    if not _varies(spread, mean):
        spread, method = _rounding(n), method + _NO_SPREAD
    half = float(stdtrit(runs - 1, 0.5 + confidence / 2)) * spread / math.sqrt(runs)
    return Estimate(mean, max(lowest, mean - half), min(highest, mean + half), method, confidence)


def _varies(spread: float, mean: float) -> bool:
    return spread > 1e-12 * max(1.0, abs(mean))


def _rounding(n: int) -> float:
    """Return the standard deviation of rounding to a row: runs that score the same may differ by so much."""
    return 1 / (n * math.sqrt(12))


def _best_of(values: np.ndarray, *, higher: bool) -> tuple[float, ...]:
    """Return the expected best of k = 1, 2, ... of the runs, drawn without replacement: unbiased.

    The i-th of n sorted runs is the best of k where it is drawn with k - 1 of the i - 1 before it: in
    C(i - 1, k - 1) of C(n, k) draws.

    Reference:
        Tang et al. 2020, ACL, "Showing Your Work Doesn't Always Work", section 3.
    """
    ordered, n = np.sort(values) if higher else np.sort(values)[::-1], len(values)
    return tuple(
        float(sum(math.comb(i, k - 1) / math.comb(n, k) * value for i, value in enumerate(ordered.tolist())))
        for k in range(1, n + 1)
    )


__all__ = ["SeedComparison", "SeedSummary", "compare_seeds", "evaluate_seeds", "expected_best_of"]
