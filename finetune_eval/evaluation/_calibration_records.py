"""How far probabilities can be taken at their word: the records, and what they say."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_eval._text import Shown, p_value
from finetune_eval.evaluation._reliability import Deviation
from finetune_eval.evaluation.records import Estimate

_ALPHA = 0.05
_CONFIDENT = {1: "Over-confident", -1: "Under-confident", 0: "Miscalibrated"}


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of similar probability.

    Attributes:
        low: The smallest probability in the bin.
        high: The largest.
        n: How many rows.
        share: Their share of all rows (of all weight, where rows have weights).
        predicted: Their mean probability.
        observed: The share of them that came true, with its Wilson interval.
    """

    low: float
    high: float
    n: int
    share: float
    predicted: float
    observed: Estimate


@dataclass(frozen=True)
class BrierParts:
    """The Brier score, taken apart: brier = reliability - resolution + uncertainty + within.

    Attributes:
        brier: The Brier score; lower is better.
        reliability: How far the bins' probabilities are from what happened; 0 is perfect.
        resolution: How far what happened in the bins differs from the average; more is better.
        uncertainty: The Brier score of always saying how frequent each class is.
        within: What remains because probabilities differ inside a bin.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True)
class Calibration(Shown):
    """How far the probabilities can be taken at their word.

    Attributes:
        event: "positive" (the second of two classes comes true) or "top" (the predicted class is right).
        ece: Expected calibration error (l1) in equal-mass bins.
        debiased: The root mean squared error (l2) of the same bins, less what chance adds to its square.
        null: What `ece` would be on average if the probabilities were perfect.
        null_high: The 95th percentile of the same: perfect probabilities show more in one set of 20.
        brier: The Brier score and its parts.
        bins: The reliability data.
        deviation: The test whether the probabilities are perfect, and in which direction they are not.
        positive: What the second class is called; nothing where the event is "top".
    """

    event: str
    ece: float
    debiased: float
    null: float
    null_high: float
    brier: BrierParts
    bins: tuple[ReliabilityBin, ...]
    deviation: Deviation
    positive: str = "the second class"

    @property
    def predicted(self) -> float:
        """The mean probability of the event."""
        return sum(one.share * one.predicted for one in self.bins)

    @property
    def observed(self) -> float:
        """The share of the rows in which it came true."""
        return sum(one.share * one.observed.value for one in self.bins)

    @property
    def verdict(self) -> str:
        """Say in two sentences what the numbers mean."""
        level = (
            f"error (mean gap to what came true) {self.ece:.3f}; perfect probabilities would "
            f"show {self.null:.3f} on average, and up to {self.null_high:.3f} in 19 of 20 cases."
        )
        found = self.deviation
        if found.p_value > _ALPHA:
            return f"No miscalibration detected: calibration {level}"
        word, details = self._positive() if self.event == "positive" else self._top()
        what = f"{'; '.join(details)} ({p_value(found.p_value)}). Calibration" if details else "calibration"
        return f"{word}: {what} {level}"

    def _positive(self) -> tuple[str, list[str]]:
        shift, spread = self.deviation.shift, self.deviation.spread
        details = []
        if spread:
            near = "too near 0 and 1" if spread > 0 else "not near enough to 0 and 1"
            details.append(f"the probabilities are {near}")
        if shift:
            whose = "those" if spread else "the probabilities"
            details.append(
                f"{whose} of {self.positive} are too {'high' if shift > 0 else 'low'} on average, "
                f"{self.predicted:.3f} where {self.observed:.3f} came true"
            )
        return _CONFIDENT[spread], details

    def _top(self) -> tuple[str, list[str]]:
        shift, spread = self.deviation.shift, self.deviation.spread
        details = []
        if shift:
            details.append(
                f"the predicted class has a probability of {self.predicted:.3f} on average and is right in "
                f"{self.observed:.3f} of the rows"
            )
        if spread:
            high, low = ("high", "low") if spread > 0 else ("low", "high")
            details.append(f"high probabilities are too {high}, compared with the low ones")
        return _CONFIDENT[shift], details

    def __str__(self) -> str:
        lines = [self.verdict, f"{'probability':<16} {'rows':>8}  predicted  came true"]
        for one in self.bins:
            lines.append(
                f"{f'{one.low:.3f} to {one.high:.3f}':<16} {one.n:>8,}  {one.predicted:>9.3f}  {one.observed}"
            )
        return "\n".join(lines)
