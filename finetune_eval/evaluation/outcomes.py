"""What a comparison of models found, as records that print themselves."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from finetune_eval.data.ledger import counted
from finetune_eval.evaluation.intervals import Estimate
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.significance import PairedTest, p_text


@dataclass(frozen=True)
class Pair:
    """Two models, compared.

    Attributes:
        names: What they are called.
        values: The metric of each.
        difference: The first minus the second, with its paired interval.
        test: The paired test, before any adjustment.
        p_value: Its p-value, adjusted by Holm where several pairs are compared.
        outcome: "better" (the first is), "worse", "no difference detected" or "underpowered".
        detectable: The smallest difference this test set would have shown with 80 % power.
    """

    names: tuple[str, str]
    values: tuple[float, float]
    difference: Estimate
    test: PairedTest
    p_value: float
    outcome: str
    detectable: float


@dataclass(frozen=True)
class Comparison:
    """Which model is better, and whether the difference is more than chance.

    Attributes:
        names: What the models are called.
        metric: The declared metric: it alone ranks.
        values: The metric of each model.
        n: How many rows they were compared on.
        alpha: Level of the tests; the intervals have confidence 1 - alpha.
        matters: The smallest difference that is taken to matter.
        pairs: Each pair of models, compared.
        overall: Cochran's Q where more than two models are compared by accuracy, else None.
        verdict: One sentence.
        notes: What else to know, a sentence each.
    """

    names: tuple[str, ...]
    metric: str
    values: tuple[float, ...]
    n: int
    alpha: float
    matters: float
    pairs: tuple[Pair, ...]
    overall: PairedTest | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def difference(self) -> Estimate:
        """The first model minus the second."""
        return self.pairs[0].difference

    @property
    def p_value(self) -> float:
        """The p-value of the first model against the second."""
        return self.pairs[0].p_value

    @property
    def outcome(self) -> str:
        """What came of the first model against the second."""
        return self.pairs[0].outcome

    @property
    def detectable(self) -> float:
        """The smallest difference between the first two models that these rows would have shown."""
        return self.pairs[0].detectable

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [*textwrap.wrap(self.verdict, 80), ""]
        title = METRICS[self.metric].title
        lines += [
            f"  {name:{width}s}  {title} {value:.4f}"
            for name, value in zip(self.names, self.values, strict=True)
        ]
        if self.overall is not None:
            lines += ["", *textwrap.wrap(str(self.overall), 80)]
        for pair in self.pairs:
            lines += [
                "",
                *textwrap.wrap(f"{pair.names[0]} - {pair.names[1]}: {pair.outcome}", 80),
                f"  difference  {signed_text(self.metric, pair.difference.value)} "
                f"{range_text(self.metric, pair.difference)} ({1 - self.alpha:.0%} interval, n = {self.n:,})",
                *textwrap.wrap(
                    f"interval    {pair.difference.method}",
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
                *textwrap.wrap(
                    f"test        {pair.test}"
                    + (f"; after Holm {p_text(pair.p_value)}" if len(self.pairs) > 1 else ""),
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
                *textwrap.wrap(
                    f"size        {power_text(self.metric, pair.detectable, self.n)}",
                    78,
                    initial_indent="  ",
                    subsequent_indent=" " * 14,
                ),
            ]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)


def in_points(metric: str) -> bool:
    """Return whether differences of a metric are told in points, hundredths of its range."""
    return METRICS[metric].source != "rows"


def amount_text(metric: str, value: float) -> str:
    """Return the size of a difference, with its unit."""
    if not in_points(metric):
        return f"{value:.4f}"
    return f"{100 * value:.1f} points" if value >= 0.0005 else f"{100 * value:.2g} points"


def signed_text(metric: str, value: float) -> str:
    """Return a difference with its sign and its unit."""
    return f"{100 * value:+.1f} points" if in_points(metric) else f"{value:+.4f}"


def range_text(metric: str, difference: Estimate) -> str:
    """Return the interval of a difference."""
    if in_points(metric):
        return f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"[{difference.low:+.4f}, {difference.high:+.4f}]"


def power_text(metric: str, least: float, n: int) -> str:
    """Say how large a difference rows like these find reliably: not what they found this time."""
    if in_points(metric) and least >= 1:
        return f"On {counted(n, 'row')} no difference, however large, is found 4 times in 5."
    return (
        f"Of true differences of {amount_text(metric, least)}, tests on {counted(n, 'row')} find 4 in 5; "
        "smaller ones are found less often."
    )


def disagreement_text(
    more: str, less: str, high: float, low: float, high_loss: float, low_loss: float, metric: str
) -> str:
    """Return what it means that one model has the better accuracy and the other the better loss."""
    return (
        f"Loss and accuracy disagree: {more} has more rows right ({high:.3f} against {low:.3f}), {less} the "
        f"lower loss ({low_loss:.3f} against {high_loss:.3f}). Loss charges for misplaced confidence: {less} "
        f"is better calibrated, or less over-confident where it is wrong; {more} decides more rows rightly. "
        f"The metric declared to decide is {METRICS[metric].title}. Calibrating the probabilities "
        f"(temperature) would lower the loss of {more} and change no decision."
    )


@dataclass(frozen=True)
class TotalsComparison:
    """What two totals alone say about two models, and what they cannot.

    Attributes:
        n: How many rows.
        right: Rows each model has right.
        both_wrong: (low, high): how many rows may be wrong in both.
        p_values: The test's p-value for each possible number of rows wrong in both, from low to high.
        method: Which test.
        significant_from: The smallest number of rows wrong in both from which p is at most alpha, or None.
        alpha: Level of the test.
        differences: The paired difference where fewest and where most rows are wrong in both.
        verdict: One sentence.
        notes: What else to know, a sentence each.
    """

    n: int
    right: tuple[int, int]
    both_wrong: tuple[int, int]
    p_values: tuple[float, ...]
    method: str
    significant_from: int | None
    alpha: float
    differences: tuple[Estimate, Estimate]
    verdict: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = textwrap.wrap(self.verdict, 80)
        for w, p, difference in zip(
            self.both_wrong, (self.p_values[0], self.p_values[-1]), self.differences, strict=True
        ):
            lines += [
                f"  {counted(w, 'row'):>11} wrong in both: {p_text(p)}, difference "
                f"{range_text('accuracy', difference)} points"
            ]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)
