"""The record of a learning curve: its points, the power law through them, and one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval._text import Shown, counted, fill, share
from finetune_eval.evaluation.curves import Curves, PowerLaw
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.records import Estimate
from finetune_eval.training.recipe import described

FARTHEST = 4  # times the rows: beyond that a power law of few points says nothing (docs/statistics.md)
_METHOD = "normal, from rows and repeats"
_STEP = 0.05  # of the accuracy that is looked at where no goal is given


@dataclass(frozen=True)
class CurvePoint:
    """The score of a recipe on so many rows.

    Attributes:
        n_train: Rows that it was trained on.
        estimate: The mean score, with its interval.
        scores: The score of each repeat.
    """

    n_train: int
    estimate: Estimate
    scores: tuple[float, ...]

    @classmethod
    def of(
        cls,
        metric: str,
        n_train: int,
        value: float,
        variance: float,
        confidence: float,
        scores: tuple[float, ...],
    ) -> CurvePoint:
        """Return a point from its mean and the variance of that."""
        from scipy.special import ndtri

        half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
        low, high = max(METRICS[metric].low, value - half), min(METRICS[metric].high, value + half)
        return cls(n_train, Estimate(value, low, high, _METHOD, confidence), scores)


@dataclass(frozen=True)
class Forecast:
    """What the curve says of so many rows.

    Attributes:
        n: How many rows.
        estimate: The mean score of the recipe, with its interval; None where it is not known.
    """

    n: int
    estimate: Estimate | None

    def __str__(self) -> str:
        return f"{counted(self.n, 'row')}: {'unknown' if self.estimate is None else self.estimate}"


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurve(Shown):
    """How the score of a recipe grows with the rows it learns from.

    Attributes:
        metric: "accuracy", "loss" or "brier".
        points: The score for each size that was tried.
        n: How many labelled rows there are to train on.
        n_judged: How many rows judged.
        repeats: How often each size was trained.
        confidence: Nominal coverage of the intervals.
        goal: The score to reach, where one was given.
        covariance: (s, s) of the points' means.
        settings: As in `CrossEvaluation`.
    """

    metric: str
    points: tuple[CurvePoint, ...]
    n: int
    n_judged: int
    repeats: int
    confidence: float
    goal: float | None
    covariance: NDArray[np.float64]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def _falls(self) -> bool:
        return METRICS[self.metric].direction == "lower"

    @cached_property
    def _curves(self) -> Curves:
        values = [point.estimate.value for point in self.points]
        errors = tuple(value if self._falls else 1 - value for value in values)
        return Curves(tuple(point.n_train for point in self.points), errors, self.covariance)

    @property
    def fit(self) -> PowerLaw:
        """The likeliest power law of the error (1 - accuracy) or the loss."""
        return self._curves.best

    @property
    def fits(self) -> bool:
        """Whether the points may lie on a power law."""
        return self._curves.fits

    def more(self, n: int) -> Forecast:
        """Return the score to expect of the recipe on n rows; unknown beyond four times the rows there are.

        Args:
            n: How many rows, at least as many as the smallest size that was tried.

        Returns:
            The forecast: the median of the curves that fit, with an interval.

        Raises:
            ValueError: n is smaller than every size.
        """
        n = _checks.positive_int("n", n, minimum=self.points[0].n_train)
        if n > FARTHEST * self.n:
            return Forecast(n, None)
        value, low, high = self._curves.quantiles(self._curves.errors_at(n), self.confidence)
        if not self._falls:
            value, low, high = 1 - value, 1 - high, 1 - low
        return Forecast(n, Estimate(value, low, high, "power laws, by how well they fit", self.confidence))

    def gain(self, n: int) -> Estimate | None:
        """Return how much better the recipe is expected to be on n rows than on those there are.

        Args:
            n: How many rows, at least as many as there are.

        Returns:
            The gain with its interval, above 0 where it helps; None beyond four times the rows.
        """
        n = _checks.positive_int("n", n, minimum=self.n)
        if n > FARTHEST * self.n:
            return None
        gains = self._curves.errors_at(self.n) - self._curves.errors_at(n)
        return Estimate(
            *self._curves.quantiles(gains, self.confidence),
            "power laws, by how well they fit",
            self.confidence,
        )

    def rows_for(self, goal: float) -> tuple[float, float, float]:
        """Return how many rows the recipe needs to reach a score: the median and the limits.

        Args:
            goal: The score.

        Returns:
            Three numbers of rows; infinite where more than four times the rows there are would be needed.
        """
        goal = _checks.number("goal", goal, above=METRICS[self.metric].low, below=METRICS[self.metric].high)
        found = self._curves.rows_for(goal if self._falls else 1 - goal)
        found = np.where(found > FARTHEST * self.n, np.inf, found)
        return self._curves.quantiles(found, self.confidence)

    @property
    def sentence(self) -> str:
        """What twice the labels would give, and how many it takes to the goal."""
        gain = self.gain(2 * self.n)
        assert gain is not None
        if self._falls:
            more = f"-{gain.value:.3f} of {METRICS[self.metric].title} [{gain.low:.3f}, {gain.high:.3f}]"
        else:
            more = f"{100 * gain.value:+.1f} points [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"
        return f"{self.n:,} → {2 * self.n:,} labels: {more}{self._to_goal()}"

    def _to_goal(self) -> str:
        goal = self.goal
        if goal is None:
            if self._falls:
                return "."
            now = self.more(self.n).estimate
            assert now is not None
            goal = math.floor(now.value / _STEP + 1) * _STEP
            if goal > 1 - _STEP / 2:
                return "."
        value, low, high = self.rows_for(goal)
        if value <= self.n:
            return f"; {goal:.2f} is reached with about {_rows(value)} [{_rows(low)}, {self._most(high)}]."
        if math.isinf(low):
            return f"; to reach {goal:.2f} {self._most(low)}."
        if math.isinf(value):
            return f"; to reach {goal:.2f} {self._most(value)} [{_rows(low)}, {self._most(high)}]."
        return f"; to reach {goal:.2f} about {_rows(value)} [{_rows(low)}, {self._most(high)}]."

    def _most(self, rows: float) -> str:
        return f"more than {FARTHEST * self.n:,}" if math.isinf(rows) else _rows(rows)

    def __repr__(self) -> str:
        return f"<LearningCurve of {counted(self.n, 'row')}: {self.sentence}>"

    def __str__(self) -> str:
        title, level = METRICS[self.metric].title, f"{100 * self.confidence:g} % intervals"
        lines = [fill(self.sentence), "", f"{'rows':>9}  {title} ({level})"]
        lines += [f"{point.n_train:>9,}  {point.estimate}" for point in self.points]
        forecasts = [self.more(n) for n in (self.n, 2 * self.n, FARTHEST * self.n)]
        lines += [f"{each.n:>9,}  {each.estimate}  expected" for each in forecasts]
        law = self.fit
        error = title if self._falls else f"1 - {title}"
        lines += [
            "",
            fill(
                f"Each size was trained {self.repeats} times; {counted(self.n_judged, 'row')} judged. "
                f"Likeliest curve: {error} = {share(law.floor)} + {law.scale:.3g} n^-{law.exponent:.2f}. The "
                "intervals are of the recipe's mean, not of one training."
            ),
        ]
        if self.settings:
            lines.append(fill(described(self.settings)))
        if not self.fits:
            lines.append(
                fill("The points do not lie on a power law: do not rely on what is expected.", indent="! ")
            )
        return "\n".join(lines)

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the points and what is expected of up to four times the rows.

        Args:
            ax: Matplotlib axes; None makes new ones.

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(layout="constrained").subplots()
        sizes = np.unique(np.geomspace(self.points[0].n_train, FARTHEST * self.n, 60).astype(int))
        expected = [each for n in sizes.tolist() if (each := self.more(n).estimate) is not None]
        ax.fill_between(sizes, [e.low for e in expected], [e.high for e in expected], alpha=0.2)
        ax.plot(sizes, [e.value for e in expected], label=f"expected, {100 * self.confidence:g} %")
        values = np.array([point.estimate.value for point in self.points])
        limits = np.array([(point.estimate.low, point.estimate.high) for point in self.points]).T
        trained = [point.n_train for point in self.points]
        ax.errorbar(trained, values, yerr=np.abs(limits - values), fmt="o", label="tried")
        ax.set(xscale="log", xlabel="rows to train on", ylabel=METRICS[self.metric].title)
        ax.legend()
        return ax


def _rows(value: float) -> str:
    """Return a number of rows to two digits: these are orders of magnitude."""
    return f"{float(f'{value:.1e}'):,.0f}"
