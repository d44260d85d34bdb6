"""Intervals of the mean of losses, and of the mean of any number that each row has."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._limits import quantile, times
from finetune_eval.evaluation.losses import Expected, Ruled
from finetune_eval.evaluation.proportions import wilson_limits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import constant_interval
from finetune_eval.evaluation.units import (
    FEWEST_FREEDOM,
    independent_units,
    sums_of_groups,
)

Floats = NDArray[np.float64]


# `.method` says "unreliable" where fewer rows than this make up the variance of a loss. There the intervals
# of over-confident models cover less than 95 %, and those of calibrated models more (docs/statistics.md).
FEW_CARRYING = 6
# Where as many rows as this make up the variance that the rows show, the variance that the probabilities
# expect is not used, unless it is more than four times as large.
ENOUGH_CARRYING = 30


class Spread(NamedTuple):
    """The variance of a mean of independent units (rows, or groups of rows), and how well it is known.

    Attributes:
        units: How many units there are.
        variance: The variance of the mean; 0 where the units do not vary.
        freedom: Degrees of freedom of the variance.
        carried: How many units make up the variance: the squared sum of the units' squared deviations,
            divided by the sum of their fourth powers. It is m where m units deviate equally and no other
            deviates.
        move: How far one such unit moves the mean.
    """

    units: int
    variance: float
    freedom: float
    carried: float
    move: float


def spread(mean: float, second: float, third: float, fourth: float, *, units: int) -> Spread:
    """Return the spread of a mean from sums of the powers of the units' influences on it."""
    # Rounding moves equal rows by about 1e-16 of their mean.
    if units < 2 or not second > 1e-26 * mean**2 or not fourth > 0:
        return Spread(units, 0.0, 1.0, 0.0, 0.0)
    second, third, fourth = float(second), float(third), float(fourth)
    carried = second**2 / fourth
    # As `degrees_of_freedom`: 2 n / (k - 1) at a kurtosis k of n / carried.
    freedom = 2 * units * carried / (units - carried) if carried < units else math.inf
    return Spread(units, second * units / (units - 1), freedom, carried, abs(third) / second)


def loss_interval(
    rows: Floats,
    *,
    confidence: float,
    high: float,
    expected: Expected | None = None,
    ruled: Ruled | None = None,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
    doubt: str = "",
) -> Estimate:
    """Estimate the mean of losses: Student's t with a variance that grows with the mean.

    Losses are skewed, and a few wrong rows make up most of a good model's loss. If the true mean were twice
    as large, such rows would be twice as many and the variance would be twice as large, too. The limits are
    therefore those of Wilson's interval of a share, on as many rows as would show the variance that is seen.
    Degrees of freedom come from the kurtosis, so that the interval is wider where few rows make up the
    variance.

    The rows of a good model may show too little variance, since none of them need be wrong. Where the
    probabilities expect a larger variance, the interval is the wider of the above and one whose ratio of
    variance to mean is the ratio that the probabilities expect. This ratio is right if the probabilities are
    right about the loss of a wrong row; they may be wrong about how many rows are wrong.

    A row whose true class was given a probability of 0 has a fixed large loss. The share of such rows has
    Jeffreys limits, whose distances are squared and added to those of the other losses.

    Args:
        rows: (n,) losses, 0 to `high`.
        confidence: Nominal coverage in (0, 1).
        high: The largest possible loss of a row.
        expected: Moments of each row's loss by its probabilities; None where they are not known.
        ruled: The rows that give a class a probability of 0; None where no row does.
        weights: (n,) row weights, or None.
        groups: (n,) index of the group of each row, or None where rows are independent.
        doubt: What else makes the interval unreliable, such as "only 3 rows wrong"; `.method` says so unless
            it names few rows that make up the variance.

    Returns:
        The mean with its interval inside [0, `high`]; never of zero width.

    Reference:
        Wilson 1927, JASA 22:209-212, with effective rows as Korn and Graubard 1998, Survey Methodology
        24:193-201; degrees of freedom: Box 1953, Biometrika 40:318-335; Jeffreys limits: Brown, Cai and
        DasGupta 2001, Stat. Sci. 16:101-133.
    """
    part = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
    value = float(rows.mean() if weights is None else rows @ weights / weights.sum())
    zeros = None if ruled is None else _zeros(ruled, part, groups)
    if ruled is None or zeros is None or not zeros.may_happen(confidence):
        smooth, zeros = rows, None
    else:
        smooth = np.where(ruled.happened, 0.0, rows)
    seen, expects = _spreads(smooth, part, expected, groups)
    return estimate_loss(
        value,
        float(part @ smooth),
        seen,
        expects,
        zeros,
        confidence=confidence,
        high=high,
        what="row" if groups is None else "group",
        doubt=doubt,
    )


def estimate_loss(
    value: float,
    middle: float,
    seen: Spread,
    expects: Spread,
    zeros: Zeros | None,
    *,
    confidence: float,
    high: float,
    what: str = "row",
    doubt: str = "",
) -> Estimate:
    """Make the interval of a mean loss from what its rows add up to; `loss_interval` says how and why.

    Args:
        value: The mean of all losses.
        middle: The same with a loss of 0 where `zeros` has a row whose true class was given 0.
        seen: The spread of that mean that the rows show.
        expects: The spread that the probabilities expect, held against `seen` by `held_against`.
        zeros: Rows that give a class a probability of 0; None where none does, or none of them matters.
        confidence: Nominal coverage in (0, 1).
        high: The largest possible loss of a row.
        what: "row" or "group".
        doubt: As in `loss_interval`.

    Returns:
        The mean with its interval inside [0, `high`]; never of zero width.
    """
    value = min(max(value, 0.0), high)
    method = f"Student's t of {what}s, variance growing with the mean"
    low, top = _limits(middle, seen, expects, confidence, high)
    if zeros is not None:
        down, up = zeros.distances(confidence)
        low, top = value - math.hypot(middle - low, down), value + math.hypot(top - middle, up)
        method += f"; {times(zeros.rows, 'row')} {'gives' if zeros.rows == 1 else 'give'} a class 0"
        method += f", and one more such row of that class would move it by {zeros.move:.2g}"
    elif seen.variance == expects.variance == 0:
        reason = f"the {what}s do not vary{_unreliable(doubt)}"
        return constant_interval(value, seen.units, (0.0, high), confidence, reason)
    return Estimate(
        value,
        min(max(low, 0.0), value),
        max(min(top, high), value),
        method + _unreliable(_few_carry(seen, expects, what) or doubt),
        confidence,
    )


class Zeros(NamedTuple):
    """What the rows that give some class a probability of 0 add up to.

    Attributes:
        rows: How many rows do.
        share: Their share in the mean.
        happened: The part of that share in which such a class was the true one.
        units: How many independent units they are.
        rate: The mean probability that rounding can have turned into their zeros.
        move: By how much one more row whose true class was given 0 would move the mean.
        cost: The loss of such a row.
    """

    rows: int
    share: float
    happened: float
    units: float
    rate: float
    move: float
    cost: float

    def may_happen(self, confidence: float) -> bool:
        """Tell whether such a class was the true one, or could have been in rows like these."""
        if self.happened > 0 or self.rows == 0:
            return self.happened > 0
        return self.rate * self.units > (1 - confidence) / 2

    def distances(self, confidence: float) -> tuple[float, float]:
        """Return how far the true mean may lie below and above, by the Jeffreys limits of `happened`."""
        from scipy.special import betaincinv

        tail = (1 - confidence) / 2
        hits, misses = self.happened * self.units + 0.5, (1 - self.happened) * self.units + 0.5
        low = float(betaincinv(hits, misses, tail)) if self.happened > 0 else 0.0
        top = float(betaincinv(hits, misses, 1 - tail)) if self.happened < 1 else 1.0
        scale = self.cost * self.share
        return scale * (self.happened - low), scale * (top - self.happened)


def _zeros(ruled: Ruled, part: Floats, groups: NDArray[np.int64] | None) -> Zeros | None:
    """Add up the rows that give a class a probability of 0; None where there are none."""
    out = ruled.out
    if not out.any():
        return None
    whole, mean = float(part[out].sum()), float(part[out].mean())
    if whole == 0:  # rows of weight 0
        return None
    return Zeros(
        rows=int(out.sum()),
        share=whole,
        happened=float(part[ruled.happened].sum()) / whole,
        units=independent_units(out, part, groups),
        rate=float(np.average(ruled.hidden[out], weights=part[out])),
        move=ruled.cost * mean,
        cost=ruled.cost,
    )


def _spreads(
    rows: Floats, part: Floats, expected: Expected | None, groups: NDArray[np.int64] | None
) -> tuple[Spread, Spread]:
    """Return the spread of the mean that the rows show, and the one that the probabilities expect.

    The expected variance is divided by the expected mean and multiplied by the mean of the rows.
    """
    value = float(part @ rows)
    units = sums_of_groups(part * (rows - value), groups)
    square = units * units
    seen = spread(value, square.sum(), (square * units).sum(), (square * square).sum(), units=len(units))
    mean = 0.0 if expected is None else float(part @ expected.mean)
    if expected is None or not mean > 0:
        return seen, spread(0.0, 0.0, 0.0, 0.0, units=len(units))
    shift = sums_of_groups(part * (expected.mean - mean), groups)
    alike = _rows_alike(part * (rows - value - (expected.mean - mean)), part, groups)
    # Cumulants of independent rows add up. `alike` rows that move together count as one row of their weight.
    weight = part * part * alike
    second = sums_of_groups(weight * expected.variance, groups)
    third = sums_of_groups(weight * part * alike * expected.third, groups)
    excess = sums_of_groups(weight * weight * alike * (expected.fourth - 3 * expected.variance**2), groups)
    square = shift * shift
    expects = spread(
        mean,
        (square + second).sum(),
        (square * shift + 3 * shift * second + third).sum(),
        (square * square + 6 * square * second + 4 * shift * third + excess + 3 * second**2).sum(),
        units=len(units),
    )
    return held_against(seen, expects, value / mean)


def held_against(seen: Spread, expects: Spread, ratio: float) -> tuple[Spread, Spread]:
    """Return the spread that the rows show, and the one that the probabilities expect of such a mean.

    Args:
        seen: What the rows show.
        expects: What the probabilities expect of the mean that they expect.
        ratio: The mean of the rows, divided by the mean that their probabilities expect.
    """
    expects = expects._replace(variance=expects.variance * ratio)
    if seen.carried >= ENOUGH_CARRYING and seen.variance >= expects.variance / 4:
        return seen, expects._replace(variance=0.0)
    return seen, expects


def _rows_alike(away: Floats, part: Floats, groups: NDArray[np.int64] | None) -> float:
    """Return how many rows of a group count as one: the design effect of what the rows show.

    Args:
        away: (n,) how far each row moves the mean from what its probabilities expect.
        part: (n,) the share of each row in the mean.
        groups: (n,) index of the group of each row, or None where rows are independent.

    Returns:
        The variance between groups divided by that of independent rows: m where groups are m copies of a row.

    Reference:
        Kish 1965, Survey Sampling, section 5.4 (design effect).
    """
    if groups is None:
        return 1.0
    # Rows that all move alike show nothing, and then whole groups are taken as one row.
    shown = away if float(away @ away) > 1e-26 * float(part @ part) else part
    by_group = sums_of_groups(shown, groups)
    return float(by_group @ by_group) / float(shown @ shown)


def _limits(
    value: float, seen: Spread, expects: Spread, confidence: float, high: float
) -> tuple[float, float]:
    limits = [(value, value)]
    if seen.variance > 0:
        freedom = min(max(seen.freedom, FEWEST_FREEDOM), seen.units - 1)
        limits.append(_growing(value, seen.variance, quantile(confidence, freedom), high))
    if expects.variance > seen.variance:
        limits.append(_growing(value, expects.variance, quantile(confidence, seen.units - 1), high))
    return min(low for low, _ in limits), max(top for _, top in limits)


def _few_carry(seen: Spread, expects: Spread, what: str) -> str:
    """Return that few rows make up the variance of a loss, or nothing where enough do."""
    larger, by = (expects, "by its probabilities ") if expects.variance > seen.variance else (seen, "")
    if larger.carried >= FEW_CARRYING or larger.variance == 0:
        return ""
    few = times(max(1, round(larger.carried)), what)
    return f"{by}it rests on about {few}; one more would move it by {larger.move:.2g}"


def _unreliable(reason: str) -> str:
    return f" (unreliable: {reason})" if reason else ""


def _growing(value: float, variance: float, t: float, high: float) -> tuple[float, float]:
    """Return the means whose distance from `value` is t standard errors, which grow as a share's do."""
    share = value / high
    if not 0 < share < 1:
        return value, value
    trials = share * (1 - share) * high**2 / variance
    low, top = wilson_limits(share * trials, trials, t)
    return low * high, top * high


# With fewer rows than this the mean of numbers that can be ten times as large as any that was seen is
# covered too seldom, since the largest numbers may be missing: .78-.96 of the intervals of 30 or 50 rows
# cover the mean.
MANY_UNITS = 100
FAR = 10


def mean_interval(rows: Floats, *, confidence: float, bounds: tuple[float, float]) -> Estimate:
    """Estimate the mean of one number a row by Student's t, after a transformation that removes skewness.

    Plain t limits of a skewed number lie too far on the side of the short tail. Where there are few rows and
    another row could be much larger than any of them, `.method` says that the interval is unreliable.

    Args:
        rows: (n,) numbers of independent rows of equal weight.
        confidence: Nominal coverage in (0, 1).
        bounds: The smallest and the largest number that a row can have.

    Returns:
        The mean with its interval; never of zero width.

    Reference:
        Hall 1992, JRSS B 54:221-228 (the monotone transformation).
    """
    value, n = float(rows.mean()), len(rows)
    moves = (rows - value) / n
    powers = Powers(n, value, float((moves**2).sum()), float((moves**3).sum()), float(np.abs(rows).max()))
    return interval_of_powers(powers, confidence=confidence, bounds=bounds)


class Powers(NamedTuple):
    """What `mean_interval` needs of n numbers: their mean, and sums of powers of how far each moves it.

    Attributes:
        n: How many numbers.
        mean: Their mean.
        square: The sum of ((number - mean) / n) ** 2.
        cube: The sum of ((number - mean) / n) ** 3.
        largest: The largest absolute value of a number.
    """

    n: int
    mean: float
    square: float
    cube: float
    largest: float


def interval_of_powers(powers: Powers, *, confidence: float, bounds: tuple[float, float]) -> Estimate:
    """Estimate a mean as `mean_interval` does, from what the numbers add up to."""
    n, value, square, cube, largest = powers
    if math.sqrt(square) <= 1e-12 * max(1.0, abs(value)):
        return constant_interval(value, n, bounds, confidence, "the rows do not vary")
    skewness = math.sqrt(n) * cube / square**1.5
    se = math.sqrt(square * n / (n - 1))
    t = quantile(confidence, n - 1)
    low, high = (value - se * math.sqrt(n) * _unskewed(x / math.sqrt(n), skewness, n) for x in (t, -t))
    low, high = max(bounds[0], min(low, value)), min(bounds[1], max(high, value))
    few = n < MANY_UNITS and bounds[1] > FAR * largest
    doubt = f"only {times(n, 'row')}" if few else ""
    method = "Student's t of rows, skewness removed" + _unreliable(doubt)
    return Estimate(value, low, high, method, confidence)


def _unskewed(x: float, skewness: float, n: int) -> float:
    """Invert Hall's g(t) = t + s t^2 / 3 + s^2 t^3 / 27 + s / (6 n)."""
    if abs(skewness) < 1e-6:
        return x
    return 3 / skewness * (float(np.cbrt(1 + skewness * (x - skewness / (6 * n)))) - 1)
