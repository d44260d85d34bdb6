"""Intervals of metrics of the confusion matrix: bootstrap, Dirichlet posterior and delta method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of, positive_int
from finetune_eval.evaluation._limits import checked_confidence, pair, quantile, times
from finetune_eval.evaluation.cells import (
    Cells,
    cells_of,
    dirichlet_counts,
    dirichlet_tables,
    draw_cells,
    whole_counts,
)
from finetune_eval.evaluation.confusion import (
    ClassCounts,
    class_counts,
    resolve_average,
    scores_from_counts,
    split_counts,
)
from finetune_eval.evaluation.proportions import wilson_f1_interval, wilson_limits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import bias_corrected
from finetune_eval.evaluation.units import FEW_ROWS, expanded_confidence

Floats = NDArray[np.float64]


def dirichlet(
    function: Callable[[Any], Floats], table: Floats, confidence: float, n_resamples: int, seed: int
) -> tuple[float, float]:
    """Compute limits of a metric from a Dirichlet posterior of the cells, with a prior worth one row in all.

    Args:
        function: Function that returns (B,) values of (B, ...) tables, or of the class counts of B tables
            where the table is (K, K).
        table: (...) counts, or effective counts.
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many draws.
        seed: Seed of the draws.

    Returns:
        The lower and the upper limit.

    Reference:
        Goutte and Gaussier 2005, ECIR, LNCS 3408:345-359.
    """
    if table.ndim == 2:
        return tail_limits(function(dirichlet_counts(cells_of(table), n_resamples, seed)), confidence)
    drawn = dirichlet_tables(table, n_resamples, seed, axes=table.ndim)
    return tail_limits(function(drawn), confidence)


def tail_limits(values: Floats, confidence: float) -> tuple[float, float]:
    """Return the two quantiles of draws that leave (1 - confidence) / 2 below and above them."""
    return pair(np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2]))


def delta_interval(
    function: Callable[[ClassCounts], Floats], table: Floats, confidence: float
) -> tuple[float, float]:
    """Compute limits of a function of multinomial counts by the delta method, without clipping.

    Args:
        function: Function that returns (B,) values of (B, K) class counts.
        table: (K, K) counts.
        confidence: Nominal coverage in (0, 1).

    Returns:
        The lower and the upper limit.
    """
    n, step = float(table.sum()), 1e-6
    share = table / n
    at = np.concatenate(class_counts(share))
    steps = step * np.eye(len(at))
    slope = function(split_counts(at + steps)) - function(split_counts(at - steps))
    of_hits, of_predicted, of_true = np.split(slope / (2 * step), 3)
    # A row in a cell adds to a true class and a predicted class, and on the diagonal to the hits.
    gradient = (of_true[:, None] + of_predicted + np.diag(of_hits)).ravel()
    flat = share.ravel()
    variance = max(float(flat @ gradient**2) - float(flat @ gradient) ** 2, 0.0) / n
    value, half = float(function(split_counts(at[None]))[0]), quantile(confidence) * math.sqrt(variance)
    return value - half, value + half


# Where fewer rows than this are wrong (or right) in all, the bootstrap covers too little: .91 with 4 wrong
# of 200.
FEW_OUTCOMES = 10
_EDGE = 1e-9


class Support(NamedTuple):
    """How many independent units (rows by Kish's effective number, or groups) a confusion matrix has.

    Attributes:
        classes: Units that have rows of a class, for each class that the metric averages.
        hits: Units that have right rows of a class, for each class that has rows.
        right: Units that have right rows, as Kish's effective number.
        wrong: Units that have wrong rows, as Kish's effective number.
        freedom: Degrees of freedom of the metric's variance.
        unit: "row" or "group".
    """

    classes: Floats
    hits: Floats
    right: float
    wrong: float
    freedom: float
    unit: str

    @property
    def reasons(self) -> list[str]:
        """Reasons why a bootstrap of these units would cover too little; empty where there are none."""
        few = few_outcomes(self.right, self.wrong, self.unit)
        out = [few] if few else []
        fewest, hits = (float(part.min(initial=math.inf)) for part in (self.classes, self.hits))
        row = self.unit == "row"
        if fewest < FEW_ROWS - _EDGE:
            having = "has" if row else "is in"
            out.append(f"unreliable: a class {having} {times(fewest, self.unit)}")
        elif hits < FEW_ROWS - _EDGE:
            few = times(hits, self.unit)
            few = f"only {few}" if hits else f"no {self.unit}"
            out.append(f"{few} of a class right" if row else f"rows of a class right in {few}")
        return out


def support_of(counts: ClassCounts) -> Support:
    """Count the rows of an unweighted table of independent rows."""
    hits, predicted, true = counts
    right = float(hits.sum())
    return Support(
        true[predicted + true > 0], hits[true > 0], right, float(true.sum()) - right, math.inf, "row"
    )


def few_outcomes(right: float, wrong: float, unit: str) -> str:
    """Return the reason "only 3 rows wrong", or right, where they are too few for a bootstrap; else ""."""
    outcome, least = min((("wrong", wrong), ("right", right)), key=lambda pair: pair[1])
    if least >= FEW_OUTCOMES - _EDGE:
        return ""
    if unit == "row":
        return f"only {times(least, 'row')} {outcome}"
    return f"{outcome} rows in only {times(least, 'group')}"


def resampled_interval(
    value: float,
    resampled: Floats,
    posterior: Callable[[], Floats],
    support: Support,
    *,
    confidence: float,
    what: str = "confusion matrix",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Make a bias-corrected bootstrap interval of a metric, widened where the bootstrap fails.

    The bootstrap fails where nothing (or everything) is wrong, since the resamples then do not vary; where
    fewer than ten rows are wrong (or right); and where a class has fewer than five rows, or fewer than five
    right rows. The interval is then the wider of the bootstrap's and that of a Dirichlet posterior. Where
    resamples reach the end of the scale although an error was seen, the limit is the posterior's.

    Args:
        value: The metric of the rows themselves.
        resampled: (B,) the metric of resampled rows.
        posterior: Function that draws the metric from a Dirichlet posterior; called only where needed.
        support: How many independent rows, or groups, the metric rests on.
        confidence: Nominal coverage in (0, 1).
        what: Name of what was resampled, for `.method`.
        bounds: The smallest and the largest possible value.

    Returns:
        The value with its interval, inside `bounds`, never of zero width.
    """
    low, high = bias_corrected(value, resampled, expanded_confidence(confidence, support.freedom + 1))
    reasons = support.reasons
    if high - low <= _EDGE:
        reasons = [
            "resamples do not vary",
            *reasons[bool(few_outcomes(support.right, support.wrong, support.unit)) :],
        ]
    ends = low <= bounds[0] + _EDGE < value - _EDGE, value + _EDGE < bounds[1] - _EDGE <= high
    if any(ends) and not reasons:
        reasons = ["resamples reach the end of the scale"]
    method = f"bias-corrected bootstrap of {what}"
    if reasons:
        other = tail_limits(posterior(), confidence)
        low = other[0] if ends[0] else min(low, other[0])
        high = other[1] if ends[1] else max(high, other[1])
        method = f"wider of bootstrap and Dirichlet posterior ({'; '.join(reasons)})"
    low, high = max(bounds[0], min(low, value)), min(bounds[1], max(high, value))
    return Estimate(value, low, high, method, confidence)


def table_interval(
    function: Callable[[ClassCounts], Floats],
    cells: Cells,
    *,
    confidence: float,
    n_resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
    draws: ClassCounts | None = None,
) -> Estimate:
    """Estimate a function of the confusion matrix of independent rows of equal weight.

    Args:
        function: Function that returns (B,) values of (B, K) class counts.
        cells: The cells that are not empty.
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples.
        seed: Seed of the draws.
        bounds: The smallest and the largest possible value.
        draws: Class counts of resamples, where they have been drawn already.

    Returns:
        The value with its interval.
    """
    counts = cells.class_counts
    drawn = draw_cells(cells, n_resamples, seed) if draws is None else draws
    return resampled_interval(
        float(function(ClassCounts(*(part[None] for part in counts)))[0]),
        function(drawn),
        lambda: function(dirichlet_counts(cells, len(drawn.true), seed)),
        support_of(counts),
        confidence=confidence,
        bounds=bounds,
    )


def f1_interval(
    confusion: ArrayLike,
    *,
    average: str = "auto",
    method: str = "bootstrap",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate F1 from a confusion matrix, with an interval.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted".
        method: "bootstrap" (bias-corrected, of the confusion matrix; falls back, and says so, where fewer
            than ten rows are wrong or right or a class has fewer than five rows), "percentile", "dirichlet"
            (posterior), "delta" (Takahashi et al.'s analytic variance), or "wilson" (binary and micro only).
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples, at least 100.
        seed: Seed of the draws.

    Returns:
        F1 in [0, 1] with its interval.

    Raises:
        ValueError: The matrix is not square whole counts, or a name or number is out of range.

    Example:
        >>> print(f1_interval([[8, 2], [1, 9]], average="binary", method="wilson"))
        0.857 [0.637, 0.953]

    Reference:
        Takahashi et al. 2022, Applied Intelligence 52:4961-4972 (analytic variance of micro and macro F1).
    """
    table = whole_counts(confusion).astype(np.float64)
    average = resolve_average(average, len(table))
    one_of("method", method, ("bootstrap", "percentile", "dirichlet", "delta", "wilson"))
    if method == "wilson" and average not in ("binary", "micro"):
        raise ValueError(f"`method` 'wilson' needs `average` 'binary' or 'micro'; got {average!r}.")
    checked_confidence(confidence)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)

    def f1(tables: ArrayLike | ClassCounts) -> Floats:
        return scores_from_counts("f1", *class_counts(tables), average)

    value = float(f1(table))

    def estimate(limits: tuple[float, float], name: str) -> Estimate:
        low, high = max(0.0, min(limits[0], value)), min(1.0, max(limits[1], value))
        return Estimate(value, low, high, name, confidence)

    if method == "wilson":
        hits, predicted, true = class_counts(table)
        if average == "micro":
            return estimate(
                wilson_limits(float(hits.sum()), float(true.sum()), quantile(confidence)), "Wilson"
            )
        union = float(predicted[1] + true[1] - hits[1])
        if union == 0:
            return estimate((0.0, 1.0), "undefined: no row is of the class or predicted as it")
        return wilson_f1_interval(int(hits[1]), int(union), confidence=confidence)
    if method == "dirichlet":
        return estimate(dirichlet(f1, table, confidence, n_resamples, seed), "Dirichlet posterior")
    if method == "delta":
        limits = delta_interval(f1, table, confidence)
        if limits[1] - limits[0] > 1e-9:
            return estimate(limits, "delta method")
    cells = cells_of(table)
    draws = draw_cells(cells, n_resamples, seed)
    if method == "percentile" and np.ptp(resampled := f1(draws)) > 1e-12:
        return estimate(tail_limits(resampled, confidence), "percentile bootstrap")
    return table_interval(f1, cells, confidence=confidence, seed=seed, draws=draws)
