"""What a comparison of models found, as records that print themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune_eval._text import Shown, counted, in_words, p_value, wrap
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.power import percent
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.significance import PairedTest

BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no difference that matters"
CANNOT_TELL = "cannot tell yet"
IDENTICAL = "identical answers"

# What p is, for a reader who takes it for the probability of being wrong.
P_VALUE = (
    "p is the probability of a result at least this extreme if there were nothing to find; it is not the "
    "probability that the verdict is wrong."
)

# The smallest difference that is taken to matter unless the user says otherwise: two points of a share, and
# 5 % of a loss.
MATTERS = 0.02
MATTERS_OF_LOSS = 0.05


def smallest_that_matters(metric: str, values: Sequence[float]) -> float:
    """Return the difference that is taken to matter where the user does not say which one does."""
    return MATTERS_OF_LOSS * min(values) if METRICS[metric].is_loss else MATTERS


def outcome_of(metric: str, difference: Estimate, matters: float) -> str:
    """Return the outcome that an interval decides: where it lies beside 0 and the differences that matter.

    Args:
        metric: The metric, whose direction says which side is better.
        difference: The first model less the second, with the interval.
        matters: The smallest difference that matters.
    """
    if difference.low > 0 or difference.high < 0:
        return BETTER if (difference.low > 0) == (METRICS[metric].direction == "higher") else WORSE
    if -matters <= difference.low and difference.high <= matters:
        return NO_DIFFERENCE
    return CANNOT_TELL


@dataclass(frozen=True)
class Pair:
    """Two models, compared.

    Attributes:
        names: What they are called.
        values: The metric of each.
        difference: The first minus the second, with its paired interval. Of several pairs the interval's
            confidence is 1 less the level at which Holm's procedure tests this pair.
        test: The paired test, before any adjustment.
        p_value: Its p-value, adjusted by Holm where several pairs are compared. It is at most alpha exactly
            where the interval excludes 0.
        outcome: "better" (the first is), "worse", "no difference that matters", "cannot tell yet", or
            "identical answers".
        detectable: The smallest true difference that a test on so many rows detects with 80 % probability, at
            the level alpha divided by the number of pairs.
        disagreement: Share of rows that exactly one of the two gets right, where `detectable` rests on it
            (accuracy of rows by themselves), or None.
    """

    names: tuple[str, str]
    values: tuple[float, float]
    difference: Estimate
    test: PairedTest
    p_value: float
    outcome: str
    detectable: float
    disagreement: float | None = None


@dataclass(frozen=True)
class Comparison(Shown):
    """Which model is better, and whether the difference is more than chance.

    Attributes:
        names: What the models are called.
        metric: The declared metric: it alone ranks.
        values: The metric of each model.
        n: How many rows they were compared on.
        alpha: Level of all tests together. The interval of two models has confidence 1 - alpha.
        matters: The smallest difference that is taken to matter.
        pairs: Each pair of models, compared.
        overall: Cochran's Q where more than two models are compared by accuracy, else None.
        verdict: What came of it, in a few sentences.
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
        """The smallest true difference of the first two models that such a test detects."""
        return self.pairs[0].detectable

    def power(self, pair: Pair) -> str:
        """Return the sentence that says which true difference a test like this one detects."""
        level = self.alpha / len(self.pairs)
        return power_sentence(self.metric, pair, self.n, level if len(self.pairs) > 1 else None)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        title = METRICS[self.metric].title
        lines = [*wrap(self.verdict), ""]
        lines += [
            f"  {name:{width}s}  {title} {value:.4f}"
            for name, value in zip(self.names, self.values, strict=True)
        ]
        if self.overall is not None:
            lines += ["", *wrap(f"All models together, {self.overall}")]
        for pair in self.pairs:
            lines += ["", *wrap(f"{pair.names[0]} against {pair.names[1]}: {pair.outcome}")]
            for head, text in self._facts(pair):
                lines += wrap(text, indent=f"  {head:<12}")
        for note in self.notes:
            lines += ["", *wrap(note)]
        lines += wrap(P_VALUE)
        return "\n".join(lines)

    def _facts(self, pair: Pair) -> list[tuple[str, str]]:
        confidence = f"{100 * pair.difference.confidence:.4g} % interval"
        after = ""
        if len(self.pairs) > 1:
            confidence += ", adjusted by Holm"
            after = f"; after Holm {p_value(pair.p_value)}"
        return [
            (
                "difference",
                f"{signed_text(self.metric, pair.difference.value)} "
                f"{range_text(self.metric, pair.difference)} ({confidence}, n = {self.n:,})",
            ),
            ("interval", pair.difference.method),
            ("test", f"{pair.test}{after}"),
            ("power", self.power(pair)),
        ]


def power_sentence(metric: str, pair: Pair, n: int, level: float | None) -> str:
    """Return which true difference a test on n rows detects: what to ask before the rows are seen.

    Args:
        metric: The metric.
        pair: The two models; its outcome plays no part.
        n: How many rows.
        level: The level of the test, where it is not the one of the whole comparison.
    """
    at = "" if level is None else f" at the level {level:.2g} (alpha shared by all pairs)"
    span = METRICS[metric].high - METRICS[metric].low
    if in_points(metric) and pair.detectable >= span:
        return (
            f"A test on {counted(n, 'row')}{at} detects no difference, however large, with 80 % probability."
        )
    given = ""
    if pair.disagreement is not None:
        share = percent(max(pair.disagreement, pair.detectable)).removesuffix(".0")
        given = f", if the models disagree on {share} % of the rows"
    return (
        f"A test on {counted(n, 'row')}{at} detects a true difference of "
        f"{amount_text(metric, pair.detectable)} with 80 % probability{given}."
    )


def in_points(metric: str) -> bool:
    """Return whether differences of a metric are told in points, hundredths of its unit."""
    return not METRICS[metric].is_loss


def amount_text(metric: str, value: float) -> str:
    """Return the size of a difference, with its unit."""
    return f"{percent(value)} points" if in_points(metric) else f"{value:.4f}"


def signed_text(metric: str, value: float) -> str:
    """Return a difference with its sign and its unit."""
    return f"{100 * value:+.1f} points" if in_points(metric) else f"{value:+.4f}"


def range_text(metric: str, difference: Estimate) -> str:
    """Return the interval of a difference."""
    if in_points(metric):
        return f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"[{difference.low:+.4f}, {difference.high:+.4f}]"


def figures_text(metric: str, pair: Pair, n: int) -> str:
    """Return the two values, their difference with its interval, and the p-value that decides."""
    digits = 3 if in_points(metric) else 4
    return (
        f"{METRICS[metric].title} {pair.values[0]:.{digits}f} against {pair.values[1]:.{digits}f}, "
        f"{signed_text(metric, pair.difference.value)} {range_text(metric, pair.difference)} "
        f"on {counted(n, 'row')}, {p_value(pair.p_value)}"
    )


def verdict_of_two(metric: str, pair: Pair, n: int, matters: float) -> str:
    """Return what came of two models, in one to three sentences."""
    a, b = pair.names
    figures, limit = figures_text(metric, pair, n), amount_text(metric, matters)
    low, high = pair.difference.low, pair.difference.high
    if pair.outcome == IDENTICAL:
        return f"{a} and {b} give every row the same {'answer' if in_points(metric) else 'loss'}: {figures}."
    if pair.outcome == NO_DIFFERENCE:
        return (
            f"There is no difference that matters between {a} and {b}: {figures}. The interval holds no "
            f"difference above {limit}."
        )
    if pair.outcome == CANNOT_TELL:
        return (
            f"These rows cannot tell yet whether {a} or {b} is better: {figures}. There may be no difference "
            f"or one above {limit}, which would matter.{_rows_needed(pair, n, matters, limit)}"
        )
    small = max(abs(low), abs(high)) <= matters
    return f"{a} is {pair.outcome} than {b}: {figures}." + (
        f" The difference is more than chance, but too small to matter (below {limit})." if small else ""
    )


def _rows_needed(pair: Pair, n: int, matters: float, limit: str) -> str:
    """Return how many rows would narrow the interval to what matters: its width falls as the root of n."""
    half = (pair.difference.high - pair.difference.low) / 2
    if not matters or half <= matters:
        return ""
    rows = float(f"{n * (half / matters) ** 2:.1e}")
    return f" About {rows:,.0f} rows like these in all would narrow the interval to {limit} either way."


def verdict_of_many(
    metric: str, names: Sequence[str], values: Sequence[float], pairs: Sequence[Pair], n: int
) -> str:
    """Return which of several models is first, and what came of it against each other."""
    sign = 1 if METRICS[metric].direction == "higher" else -1
    first = int(np.argmax(sign * np.asarray(values)))
    best, same = (
        names[first],
        [name for name, value in zip(names, values, strict=True) if value == values[first]],
    )
    also = f", as {'has' if len(same) == 2 else 'have'} {in_words(same[1:])}" if len(same) > 1 else ""
    others: dict[str, list[str]] = {}
    for pair in pairs:
        if best in pair.names:
            outcome = BETTER if pair.outcome == WORSE else pair.outcome
            others.setdefault(outcome, []).append(pair.names[pair.names[0] == best])
    word = "highest" if sign > 0 else "lowest"
    said = [
        f"{best} has the {word} {METRICS[metric].title} of {len(names)} models on {counted(n, 'row')}{also}.",
        *(
            start + in_words(others[outcome]) + end
            for outcome, start, end in (
                (BETTER, "It is better than ", "."),
                (CANNOT_TELL, "These rows cannot tell yet whether it is better than ", "."),
                (NO_DIFFERENCE, "There is no difference that matters between it and ", "."),
                (IDENTICAL, "It gives every row the same answer as ", "."),
            )
            if outcome in others
        ),
        f"p-values and intervals are adjusted for {counted(len(pairs), 'pair')} (Holm).",
    ]
    return " ".join(said)
