"""How many answers are wrong where only the surest are given: the risk-coverage curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval._text import Shown, fill, share
from finetune_eval.evaluation._limits import quantile
from finetune_eval.evaluation.proportions import clopper_pearson_limits
from finetune_eval.evaluation.rankings import logit_limits, shows_variance
from finetune_eval.evaluation.records import Answered, Estimate
from finetune_eval.evaluation.sample import Sample, Sampling
from finetune_eval.evaluation.scores import accuracy
from finetune_eval.evaluation.units import (
    FEW_ROWS,
    FEWEST_FREEDOM,
    clustered_variance,
    effective_units,
    independent_units,
)

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_STEPS = 20  # points of the curve: one for each twentieth of the rows


@dataclass(frozen=True)
class CoveragePoint:
    """The surest rows, and how many of them are answered wrongly.

    Attributes:
        confidence: From which probability of the answer on rows are among them.
        coverage: Their share of all rows (of the weight, where rows have weights).
        error: The share of them that is wrong. Its interval is that of a confidence given beforehand.
    """

    confidence: float
    coverage: float
    error: Estimate


@dataclass(frozen=True)
class RiskCoverage(Shown):
    """How the error grows with the share of the rows that is answered, the surest answers first.

    Attributes:
        augrc: The area under the generalised risk-coverage curve: the mean, over all shares of the rows that
            may be answered, of the share of all rows that is answered wrongly; in [0, 0.5], lower is better.
            It is error^2 / 2 where every wrong row is less sure than every right one, and error / 2 where
            confidence says nothing.
        points: The curve at each twentieth of the rows; fewer where confidences are equal.

    Reference:
        Traub et al. 2024, "Overcoming Common Flaws in the Evaluation of Selective Classification Systems",
        arXiv:2407.01032 (AUGRC). The curve: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """

    augrc: Estimate
    points: tuple[CoveragePoint, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return the curve as a table: confidence, coverage, error, low, high; one row for each point."""
        import pandas as pd

        rows = [(p.confidence, p.coverage, p.error.value, p.error.low, p.error.high) for p in self.points]
        return pd.DataFrame(rows, columns=["confidence", "coverage", "error", "low", "high"])

    def __str__(self) -> str:
        level = f"{100 * self.augrc.confidence:g} %"
        lines = [f"{'answered':>8}  {'confidence':>10}  error, with the {level} interval of each point"]
        for point in self.points:
            lines.append(f"{share(point.coverage):>8}  {point.confidence:>10.4g}  {point.error}")
        floor = self.points[-1].error.value
        lines.append(
            fill(
                f"AUGRC {_small(self.augrc)}; confidence that says nothing would have {floor / 2:.4f}, and "
                f"confidence that ranks every wrong row last {floor**2 / 2:.4f}."
            )
        )
        return "\n".join(lines)


def _small(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def risk_coverage(
    right: Flags,
    confidence: NDArray[Any],
    *,
    weights: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
    level: float = 0.95,
) -> RiskCoverage:
    """Compute the risk-coverage curve and the area under the generalised one.

    Args:
        right: (n,) whether each row's answer is right.
        confidence: (n,) how sure the model is of it; only the order counts.
        weights: (n,) row weights, not all 0, or None.
        groups: (n,) index of the group of each row, or None where rows are independent.
        level: Nominal coverage of the intervals, in (0, 1).

    Example:
        >>> curve = risk_coverage(np.array([True, True, False, True]), np.array([0.9, 0.8, 0.7, 0.6]))
        >>> [(point.coverage, round(point.error.value, 3)) for point in curve.points]
        [(0.25, 0.0), (0.5, 0.0), (0.75, 0.333), (1.0, 0.25)]
        >>> curve.augrc.value  # (0 + 0 + 1/8 + 1/4) / 4, by trapezoids
        0.09375
    """
    if weights is not None:  # rows of weight 0 are as rows that are not there
        some = weights > 0
        right, confidence, weights = right[some], confidence[some], weights[some]
        groups = None if groups is None else np.unique(groups[some], return_inverse=True)[1]
    points = []
    for cut in _cuts(confidence, weights):
        kept = confidence >= cut
        covered = float(kept.mean() if weights is None else weights @ kept / weights.sum())
        error = error_among(kept, right, weights=weights, groups=groups, level=level)
        if error is not None:
            points.append(CoveragePoint(float(cut), covered, error))
    area = _area(~right, confidence, weights, groups, level)
    return RiskCoverage(area, tuple(points))


def answered(
    value: float,
    origin: str | None,
    right: Flags,
    confidence: NDArray[Any],
    *,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
    level: float,
) -> Answered:
    """Count the rows that are answered from a confidence on, and estimate how many of them are wrong.

    Args:
        value: From which confidence on a row is answered.
        origin: What that was chosen for and on how many rows, or None.
        right: As in `risk_coverage`.
        confidence: As in `risk_coverage`.
        weights: As in `risk_coverage`.
        groups: As in `risk_coverage`.
        level: As in `risk_coverage`.
    """
    kept = confidence >= value
    every = np.ones(len(kept), dtype=bool)
    withheld = error_among(every, kept, weights=weights, groups=groups, level=level)
    assert withheld is not None
    error = error_among(kept, right, weights=weights, groups=groups, level=level)
    return Answered(value, origin, int(kept.sum()), _complement(withheld), error)


def error_among(
    kept: Flags,
    right: Flags,
    *,
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
    level: float,
) -> Estimate | None:
    """Estimate the share of wrong answers among the rows that are kept; None where they have no weight.

    The interval is that of an accuracy: Wilson's, on effective rows where there are weights or groups.
    """
    if not (kept.any() if weights is None else (weights[kept] > 0).any()):
        return None
    sample = Sample(
        np.ones(int(kept.sum()), dtype=np.int64),
        None,
        right[kept].astype(np.int64),
        average="binary",
        classes=2,
        weights=None if weights is None else weights[kept],
        groups=None if groups is None else np.unique(groups[kept], return_inverse=True)[1],
    )
    return _complement(accuracy(sample, Sampling(confidence=level)))


def _complement(estimate: Estimate) -> Estimate:
    return replace(estimate, value=1 - estimate.value, low=1 - estimate.high, high=1 - estimate.low)


def _cuts(confidence: NDArray[Any], weights: Floats | None) -> NDArray[Any]:
    """Return the confidences that keep each twentieth of the rows, the highest first, and all of them."""
    values, place = np.unique(-confidence, return_inverse=True)
    share_of = np.bincount(place, weights=weights) / (len(place) if weights is None else weights.sum())
    reached = np.cumsum(share_of)
    steps = np.arange(1, _STEPS + 1) / _STEPS
    at = np.minimum(np.searchsorted(reached, steps - 1e-9), len(values) - 1)
    return np.asarray(-values[np.unique(at)])


def _area(
    wrong: Flags,
    confidence: NDArray[Any],
    weights: Floats | None,
    groups: NDArray[np.int64] | None,
    level: float,
) -> Estimate:
    """Estimate the AUGRC from the influence of each row: Student's t limits on the logit scale.

    The area is the probability that of two rows the first is wrong and at least as sure as the second (equal
    ones count half). So each row counts twice: as a wrong row that stands above others, and as a row that
    wrong rows stand above. Where fewer than five rows (or groups) are wrong, or right, the limits are the
    wider of these and of what the limits of the error allow, whatever the order of the rows.
    """
    w = np.full(len(wrong), 1 / len(wrong)) if weights is None else weights / weights.sum()
    _, place = np.unique(confidence, return_inverse=True)
    at, of_wrong = np.bincount(place, weights=w), np.bincount(place, weights=w * wrong)
    below = (np.cumsum(at) - at / 2)[place]
    wrong_above = (of_wrong.sum() - np.cumsum(of_wrong) + of_wrong / 2)[place]
    parts = wrong * below + wrong_above
    twice = min(float(w @ parts), 1.0)  # the area of confidences that are all equal is at most 1/2
    variance, freedom = clustered_variance(2 * w * (parts - twice), groups)
    limits, method = [], []
    if shows_variance(twice, variance):
        limits.append(logit_limits(twice, variance, quantile(level, max(freedom, FEWEST_FREEDOM))))
        method.append("influence of each row, logit scale, t")
    units = [independent_units(side, w, groups) for side in (wrong, ~wrong)]
    if min(units) < FEW_ROWS or not limits:
        trials = sum(units) if groups is None else effective_units(w, groups)
        low, high = clopper_pearson_limits(float(w @ wrong) * trials, trials, level)
        limits.append((low**2, high * (2 - high)))  # wrong rows last, or first
        method.append("limits of the error, for few rows are wrong, or right")
    lows, highs = zip(*limits, strict=True)
    return Estimate(
        twice / 2,
        min(*lows, twice) / 2,
        max(*highs, twice) / 2,
        "; ".join(method),
        level,
    )
