"""The results of an evaluation: frozen records, which say how they were made and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_eval import _text
from finetune_eval._text import counted, fill, share

FALSE_DISCOVERIES = 0.05  # the rate of them among the slices that are called weak


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: The lower limit.
        high: The upper limit.
        method: How it was made, in words.
        confidence: The nominal coverage, in (0, 1).
    """

    low: float
    high: float
    method: str
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"[{share(self.low)}, {share(self.high)}]"


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: The point estimate.
        low: The lower limit.
        high: The upper limit.
        method: How the interval was made, in words.
        confidence: The nominal coverage, in (0, 1).

    Example:
        >>> print(Estimate(0.79, 0.7284, 0.8405, "Wilson"))
        0.790 [0.728, 0.841]
    """

    value: float
    low: float
    high: float
    method: str
    confidence: float = 0.95

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{share(self.value)} [{share(self.low)}, {share(self.high)}]"


@dataclass(frozen=True)
class ClassScore:
    """How one class fares.

    Attributes:
        label: The class name.
        support: Rows of this class (their weight, where rows are weighted).
        predicted: Rows predicted as this class.
        precision: Of the rows predicted as this class, the share that is.
        recall: Of the rows of this class, the share that was predicted so.
        f1: The harmonic mean of the two.
    """

    label: str
    support: float
    predicted: float
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class NoLabel:
    """Answers that are no label, where a model answers with words. They count as wrong.

    Attributes:
        counts: Rows of each true class (their weight, where rows are weighted) with such an answer: the
            column that stands beside the confusion matrix.
        examples: The commonest of these answers, "" for a missing one, each with its number of rows.
        n: How many rows have such an answer.
    """

    counts: tuple[float, ...]
    examples: tuple[tuple[str, int], ...]
    n: int


@dataclass(frozen=True)
class Answered:
    """The rows that a model answers where it withholds unsure answers. All other scores count every row.

    Attributes:
        confidence: From which probability of the answer on it is given.
        origin: What that confidence was chosen for and on how many rows, where that is known.
        n: How many rows are answered.
        coverage: The share of the rows that is answered (of their weight, where rows have weights).
        error: The share of wrong answers among the rows that are answered; None where none is.
    """

    confidence: float
    origin: str | None
    n: int
    coverage: Estimate
    error: Estimate | None


@dataclass(frozen=True)
class Slice:
    """Rows that have something in common.

    Attributes:
        column: What was looked at: "length", "word", or the name of a metadata column.
        value: Which rows: "3 to 12 words", "not", "2020".
        n: How many rows.
        accuracy: The share of them that is right (of their weight, where rows have weights), with its Wilson
            interval. A slice that is called weak was picked for looking bad: its interval is so much wider
            that 95 % of the intervals of such slices cover (false coverage rate).
        rest: The share of the other rows that is right.
        p_value: One-sided: how often so few would be right if the slice were a random part of the rows.
        q_value: The same after Benjamini-Hochberg over all slices looked at. Half of the false discoveries
        are
            allowed to the words, the other half in equal parts to the lengths and each column, however many
            values it has.
        small: Fewer than 30 rows (effective ones, where rows have weights).
    """

    column: str
    value: str
    n: int
    accuracy: Estimate
    rest: float
    p_value: float
    q_value: float
    small: bool

    @property
    def weak(self) -> bool:
        """Whether the slice does worse than the rest at a false discovery rate of 5 %."""
        return self.q_value <= FALSE_DISCOVERIES

    def __str__(self) -> str:
        mark = "weak" if self.weak else "small" if self.small else ""
        room = max(12, _text.width() - 42)  # what the numbers leave
        name = _text.shorten(_text.visible(f"{self.column}: {self.value}"), room)
        return f"{_text.pad(name, room)} {self.n:>7,}  {self.accuracy}  {self.rest:.3f}  {mark}".rstrip()


@dataclass(frozen=True)
class SliceSearch:
    """How far a search for weak slices went, and what it could have found.

    Attributes:
        parts: Lengths and values of columns that were looked at.
        words: Words that were looked at.
        left_out: Columns that were not looked at, each with the reason.
        rows: The size of a part, for the next attribute.
        points: By how much less of such a part would have to be right than of the other rows, in [0, 1], for
            it to be found with a probability of 80 %; None where not even a part that is all wrong would be.
    """

    parts: int
    words: int
    left_out: tuple[tuple[str, str], ...]
    rows: int
    points: float | None

    @property
    def nothing_found(self) -> str:
        """Say that no slice is weak, and how weak one would have had to be."""
        looked = counted(self.parts, "part") + (f" and {counted(self.words, 'word')}" if self.words else "")
        part = f"a part of {counted(self.rows, 'row')}"
        if self.points is None:
            power = f"Not even {part} that are all wrong would be found with 80 % probability"
        else:
            power = (
                f"A{part[1:]} must be about {100 * self.points:.0f} points worse to be found with 80 % "
                "probability"
            )
        return f"No part of the rows was found that does worse than the rest, among {looked}. {power}."

    @property
    def not_looked_at(self) -> str:
        """Name the columns that were left out, and why; nothing where there are none."""
        if not self.left_out:
            return ""
        listed = ", ".join(f"{_text.quoted(column)} ({reason})" for column, reason in self.left_out)
        return f"Not looked at for weak parts: {listed}."


MAJORITY = "the majority class"
TFIDF = "TF-IDF + logistic regression"
FROZEN = "logistic regression on frozen features"


@dataclass(frozen=True)
class Baseline:
    """A simple model on the same test rows, compared with the one that was evaluated.

    Attributes:
        name: What it is.
        estimates: Its accuracy, F1, loss, ... with their intervals.
        metric: The metric of the comparison.
        difference: The evaluated model less the baseline, with the paired interval.
        p_value: Of the paired test.
        outcome: "better" (the evaluated model is), "worse", "no difference that matters", "cannot tell yet"
            or "identical answers".
        verdict: What came of it, in a few sentences.
    """

    name: str
    estimates: dict[str, Estimate]
    metric: str
    difference: Estimate
    p_value: float
    outcome: str
    verdict: str

    def __str__(self) -> str:
        return fill(self.verdict)


@dataclass(frozen=True)
class LeakScores:
    """What a model is worth with and without the test rows that may be in the training rows too.

    Attributes:
        n_train: Training rows looked at.
        n_test: Test rows looked at.
        counts: Possible leaks of each kind: "exact", "normalised", "near".
        rows: Which test rows.
        examples: Kind, similarity, test row, its text, training row, its text.
        without: The estimates on the other test rows; empty where there are none, or nothing leaked.
        limits: What would not have been found.
        templates: How many test rows share a template with training rows, in a sentence; may be empty.
    """

    n_train: int
    n_test: int
    counts: dict[str, int]
    rows: tuple[int, ...]
    examples: tuple[tuple[str, float, int, str, int, str], ...]
    without: dict[str, Estimate]
    limits: str = ""
    templates: str = ""

    @property
    def verdict(self) -> str:
        """Say how much leaked, what is left of the accuracy without, and what would not have been found."""
        test, train = counted(self.n_test, "test row"), counted(self.n_train, "training row")
        limits = f" ({self.limits})" if self.limits else ""
        templates = f" {self.templates}" if self.templates else ""
        if not self.rows:
            match = "matches" if self.n_test == 1 else "match"
            return f"No possible leak found: {test} {match} none of {train}{limits}.{templates}"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
        kinds += f"; {self.limits}" if self.limits else ""
        match = "matches" if len(self.rows) == 1 else "match"
        start = f"Possible leak: {len(self.rows):,} of {test} {match} one of {train} ({kinds})."
        if not self.without:
            return f"{start} No test row is left without them."
        return f"{start} Without these rows the accuracy is {self.without['accuracy']}.{templates}"


@dataclass(frozen=True)
class Looks:
    """How often these test rows were looked at, this time included.

    Attributes:
        rows: Hash of the rows and their labels, whatever their order.
        count: Looks so far.
        models: How many different models (told apart by their probabilities) were scored.
        best: Whether no other of them has a higher accuracy.
        first: When the rows were first looked at (UTC).
        luck: By how much the best of so many equally good models would look better than it is, on average.
        correlation: How the errors of the models correlate, on average over the pairs, in [0, 1]: `luck` has
            it in. None: it is not known, and `luck` is what independent errors give, which is the most.
    """

    rows: str
    count: int
    models: int
    best: bool
    first: str
    luck: float
    correlation: float | None = None

    @property
    def optimistic(self) -> bool:
        """Whether the test set may have chosen the model: the best of several that it scored."""
        return self.best and self.models > 1

    @property
    def verdict(self) -> str:
        """Say in one or two sentences what the count means."""
        if self.count == 1:
            return "First recorded look at these test rows."
        times = f"These test rows were looked at {counted(self.count, 'time')} since {self.first[:10]}"
        if self.models == 1:
            return f"{times}, always with the same model."
        if not self.optimistic:
            return f"{times}, with {self.models} models; others scored as well or better than this one."
        luck = (
            f"at most {100 * self.luck:.1f} points too good by luck; less, if they err on the same rows"
            if self.correlation is None
            else f"about {100 * self.luck:.1f} points too good by luck (their errors correlate by "
            f"{self.correlation:.2f})"
        )
        return (
            f"{times}, with {self.models} models, and this is the best of them: if it was chosen for that, "
            f"its accuracy is optimistic. If the {self.models} models were equally good, the best of them "
            f"would look {luck}."
        )

    def __str__(self) -> str:
        return fill(self.verdict)
