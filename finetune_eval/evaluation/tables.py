"""Intervals of functions of the confusion matrix: bootstrap, Dirichlet posterior and delta method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of, positive_int
from finetune_eval.evaluation._limits import checked_confidence, pair, quantile, times
from finetune_eval.evaluation.confusion import (
    ClassCounts,
    class_counts,
    resolve_average,
    scores_from_counts,
    split_counts,
    sum_counts,
)
from finetune_eval.evaluation.proportions import square_and_add, wilson_f1_interval, wilson_limits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import CHUNK, bias_corrected
from finetune_eval.evaluation.units import expanded_confidence

Floats = NDArray[np.float64]


def resample_confusion(confusion: ArrayLike, n_resamples: int, seed: int) -> NDArray[np.int64]:
    """Resample the rows behind a confusion matrix: exact multinomial draws of its non-empty cells.

    Drawing n rows with replacement and counting them is a multinomial draw of the cells, so this is the row
    bootstrap itself, at a cost that does not depend on the number of rows.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K, K) counts, each summing to the number of rows.

    Raises:
        ValueError: The matrix is not square, empty, or does not hold whole counts.

    Example:
        >>> resample_confusion([[8, 2], [1, 9]], 3, seed=0).sum(axis=(1, 2)).tolist()
        [20, 20, 20]
    """
    table = _whole_counts(confusion)
    cells = np.flatnonzero(table)
    counts = table.reshape(-1)[cells]
    drawn = np.random.default_rng(seed).multinomial(
        int(counts.sum()), counts / counts.sum(), size=positive_int("n_resamples", n_resamples)
    )
    out = np.zeros((n_resamples, table.size), dtype=np.int64)
    out[:, cells] = drawn
    return out.reshape(n_resamples, *table.shape)


def resample_class_counts(confusion: ArrayLike, n_resamples: int, seed: int) -> ClassCounts:
    """Resample the rows behind a confusion matrix, as hits, predicted and true rows of each class.

    The draws of `resample_confusion`, without the K x K matrices: fast where there are many classes.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.
    """
    table = _whole_counts(confusion)
    cells = np.flatnonzero(table)
    counts = table.reshape(-1)[cells]
    random, (true, predicted) = np.random.default_rng(seed), np.divmod(cells, len(table))
    step = max(1, CHUNK // len(cells))
    sums = []
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = random.multinomial(int(counts.sum()), counts / counts.sum(), size=size)
        sums.append(sum_counts(drawn, true, predicted, len(table)))
    return split_counts(np.concatenate(sums))


def _whole_counts(confusion: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(confusion)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(
            f"`confusion` must be square (rows true, columns predicted); got shape {table.shape}."
        )
    if table.dtype.kind not in "biuf" or not np.all((table >= 0) & (table == np.floor(table))):
        raise ValueError("`confusion` must hold whole counts of rows, none negative; got other numbers.")
    if table.sum() == 0:
        raise ValueError("`confusion` has no rows; at least one is needed.")
    return table.astype(np.int64)


def dirichlet(
    function: Callable[[Any], Floats], table: Floats, confidence: float, n_resamples: int, seed: int
) -> tuple[float, float]:
    """Take the limits of a metric over a Dirichlet posterior of the cells, with one prior row in all.

    Args:
        function: (B, ...) tables to (B,) values; of a (K, K) table: the class counts of B tables.
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
        drawn: Any = dirichlet_counts(table, n_resamples, seed)
    else:
        random = np.random.default_rng(seed)
        gammas = random.standard_gamma(table.ravel() + 1 / table.size, size=(n_resamples, table.size))
        gammas *= table.sum() / gammas.sum(axis=1, keepdims=True)
        drawn = gammas.reshape(-1, *table.shape)
    low, high = np.quantile(function(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


# Breaks of the stick; each leaves at most half of it in the mean, so that what is left is below rounding. Up
# to four times as many empty cells are drawn sooner one by one.
_STICKS = 50


def dirichlet_counts(table: Floats, n_resamples: int, seed: int) -> ClassCounts:
    """Draw tables of a Dirichlet posterior with one prior row in all, without drawing each of the K^2 cells.

    Many empty cells together are one gamma variate (a Dirichlet adds up to a Dirichlet), shared out among
    them by breaking a stick.

    Args:
        table: (K, K) counts, or effective counts.
        n_resamples: How many draws B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.

    Reference:
        Sethuraman 1994, Stat. Sinica 4:639-650 (exact, whatever the cells that share the stick).
    """
    random, k, flat = np.random.default_rng(seed), len(table), table.ravel()
    empty = np.flatnonzero(flat <= 0)
    empty = empty if len(empty) > 4 * _STICKS else empty[:0]
    seen = np.setdiff1d(np.arange(table.size), empty)
    prior = 1 / table.size
    gammas = random.standard_gamma(flat[seen] + prior, size=(n_resamples, len(seen)))
    total, sums = gammas.sum(axis=1), sum_counts(gammas, *np.divmod(seen, k), k)
    if len(empty):
        mass = random.standard_gamma(prior * len(empty), size=n_resamples)
        left = np.cumprod(1 - random.beta(1, prior * len(empty), size=(n_resamples, _STICKS - 1)), axis=1)
        left = np.column_stack([np.ones(n_resamples), left, np.zeros(n_resamples)]) * mass[:, None]
        true, predicted = np.divmod(empty[random.integers(0, len(empty), (n_resamples, _STICKS))], k)
        parts, draw = (left[:, :-1] - left[:, 1:]).ravel(), np.repeat(np.arange(n_resamples), _STICKS)
        true, predicted = true.ravel(), predicted.ravel()
        for weights, place in (
            (parts * (true == predicted), true),
            (parts, k + predicted),
            (parts, 2 * k + true),
        ):
            sums += np.bincount(draw * 3 * k + place, weights, n_resamples * 3 * k).reshape(-1, 3 * k)
        total += mass
    return split_counts(sums * (table.sum() / total)[:, None])


def delta_interval(
    function: Callable[[ClassCounts], Floats], table: Floats, confidence: float
) -> tuple[float, float]:
    """Take the limits of a function of multinomial counts by the delta method, unclipped.

    Args:
        function: (B, K) class counts to (B,) values.
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
    # A cell counts in its row and its column, and on the diagonal as a hit.
    gradient = (of_true[:, None] + of_predicted + np.diag(of_hits)).ravel()
    flat = share.ravel()
    variance = max(float(flat @ gradient**2) - float(flat @ gradient) ** 2, 0.0) / n
    value, half = float(function(split_counts(at[None]))[0]), quantile(confidence) * math.sqrt(variance)
    return value - half, value + half


# Rows of a class below which the bootstrap covers too little (docs/statistics.md) and the interval is called
# unreliable.
FEW_ROWS = 5
# Rows wrong (or right) in all below which the same holds: coverage .91 with 4 wrong of 200.
FEW_OUTCOMES = 10


class Support(NamedTuple):
    """How many independent units (groups, or weighted rows by Kish's number) a table rests on.

    Attributes:
        classes: (..., K) units with rows of each class.
        right: Units with rows that are right, as Kish's effective number of them.
        wrong: Units with rows that are wrong, likewise.
        units: All of them, as Kish's effective number.
        unit: "row" or "group".
    """

    classes: Floats
    right: float
    wrong: float
    units: float
    unit: str


def few_outcomes(support: Support) -> str:
    """Say how few units have a right, or a wrong, row; nothing where they are enough for a bootstrap."""
    outcome, least = min((("wrong", support.wrong), ("right", support.right)), key=lambda pair: pair[1])
    if least >= FEW_OUTCOMES - 1e-9:
        return ""
    if support.unit == "row":
        return f"only {times(least, 'row')} {outcome}"
    return f"{outcome} rows in only {times(least, 'group')}"


def resampled_interval(
    function: Callable[[Any], Floats],
    table: Floats,
    draws: Floats | ClassCounts,
    *,
    confidence: float,
    what: str = "confusion matrix",
    macro: str | None = None,
    trials: float | None = None,
    support: Support | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Estimate:
    """Estimate a function of confusion tables: by bias-corrected bootstrap, and not where that fails.

    It fails where nothing (or everything) is wrong, since then the resamples do not vary; where fewer than
    ten rows are wrong (or right); and where a class has fewer than five rows. Then the interval is the wider
    of the bootstrap's and one that does not rest on it: Wilson limits of the classes, combined (macro means),
    or a Dirichlet posterior. Macro precision and recall of independent rows are means of independent shares:
    there the combined limits are the default.

    Args:
        function: (B, ..., K, K) tables, or the class counts of (B, K, K) ones, to (B,) values.
        table: (..., K, K) counts or weights.
        draws: (B, ..., K, K) resampled tables, or their class counts.
        confidence: Nominal coverage in (0, 1).
        what: What was resampled, for the method; "confusion matrix" if rows are independent and equal.
        macro: "precision", "recall", "f1" or "balanced_accuracy" where the metric is the macro mean of it;
            None otherwise.
        trials: How many independent rows the table is worth; None: its sum.
        support: The units that were drawn, where they are not the rows of the table.
        bounds: The smallest and the largest possible value.
        seed: Seed of the Dirichlet draws.

    Returns:
        The value with its interval, inside `bounds`, never of zero width.
    """
    value = float(function(table[None])[0])
    scale = 1.0 if trials is None else trials / float(table.sum())
    hits, predicted, true = class_counts(table)
    # A class that was predicted and has no rows counts (as 0) in every mean but balanced accuracy.
    counted = true > 0 if macro == "balanced_accuracy" else predicted + true > 0
    right = float(hits.sum())
    if support is None:
        support = Support(true, right, float(true.sum()) - right, math.inf, "row")
    fewest = float(support.classes[counted].min())
    few = fewest < FEW_ROWS - 1e-9
    by_class = macro is not None and table.ndim == 2
    combined = "Wilson limits of the classes, combined"

    def of_classes() -> tuple[float, float]:
        assert macro is not None
        hits, predicted, true = class_counts(table)
        with_resamples = class_counts(draws) if macro == "f1" else None
        counts = (scale * hits, scale * predicted, scale * true)
        return square_and_add(macro, counts, confidence, resampled=with_resamples)

    if by_class and macro != "f1" and what == "confusion matrix" and not few:
        limits, method = of_classes(), combined
    else:
        values = function(draws)
        limits = bias_corrected(value, values, expanded_confidence(confidence, support.units))
        method = f"bias-corrected bootstrap of {what}"
        reasons = []
        if limits[1] - limits[0] <= 1e-9:
            reasons.append("resamples do not vary")
        elif outcomes := few_outcomes(support):
            reasons.append(outcomes)
        if few:
            having = "has" if support.unit == "row" else "is in"
            reasons.append(f"unreliable: a class {having} {times(fewest, support.unit)}")
        if reasons:
            other = (
                of_classes()
                if by_class
                else dirichlet(function, scale * table, confidence, len(values), seed)
            )
            limits = min(limits[0], other[0]), max(limits[1], other[1])
            fallback = combined if by_class else "Dirichlet posterior"
            method = f"wider of bootstrap and {fallback} ({'; '.join(reasons)})"
    low, high = max(bounds[0], min(limits[0], value)), min(bounds[1], max(limits[1], value))
    return Estimate(value, low, high, method, confidence)


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
    table = _whole_counts(confusion).astype(np.float64)
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
            return estimate(pair(wilson_limits(hits.sum(), true.sum(), confidence)), "Wilson")
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
    draws = resample_class_counts(confusion, n_resamples, seed)
    if method == "percentile" and np.ptp(resampled := f1(draws)) > 1e-12:
        tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
        return estimate(pair(np.quantile(resampled, tails)), "percentile bootstrap")
    macro = "f1" if average == "macro" else None
    return resampled_interval(f1, table, draws, confidence=confidence, macro=macro, seed=seed)
