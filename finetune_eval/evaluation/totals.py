"""What the totals of two models alone can say about which is better, without the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_eval._checks import number, one_of, positive_int
from finetune_eval._text import Shown, counted, p_value, wrap
from finetune_eval.evaluation._paired_differences import of_shares
from finetune_eval.evaluation.disagreement import disagreement_text
from finetune_eval.evaluation.outcomes import range_text
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.significance import mcnemar_p_values

_MOST_ROWS = 10_000_000  # every possible overlap of the errors is tested, and there are up to half as many


@dataclass(frozen=True)
class TotalsComparison(Shown):
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
        lines = wrap(self.verdict)
        for w, p, difference in zip(
            self.both_wrong, (self.p_values[0], self.p_values[-1]), self.differences, strict=True
        ):
            lines += [
                f"  {counted(w, 'row'):>11} wrong in both: {p_value(p)}, difference "
                f"{range_text('accuracy', difference)} points"
            ]
        for note in self.notes:
            lines += ["", *wrap(note)]
        return "\n".join(lines)


def compare_totals(
    right_a: int,
    right_b: int,
    n: int,
    *,
    loss_a: float | None = None,
    loss_b: float | None = None,
    method: str = "exact",
    alpha: float = 0.05,
) -> TotalsComparison:
    """Conclude what is possible from how many rows each of two models has right, without the rows.

    Whether the difference is more than chance depends on how many rows are wrong in both, which totals do not
    tell: every possible number is tried.

    Args:
        right_a: Rows that a has right.
        right_b: Rows that b has right.
        n: How many rows both were scored on.
        loss_a: Mean log-loss of a, if known; only to tell whether it disagrees with the accuracy.
        loss_b: Mean log-loss of b.
        method: A method of `mcnemar`, "midp" or "exact".
        alpha: Level of the test.

    Returns:
        The range of possible p-values and differences, and a verdict.

    Raises:
        ValueError: A count or the level is out of range.

    Example:
        >>> totals = compare_totals(180, 170, 200)
        >>> [round(totals.p_values[w], 3) for w in (0, 20)], totals.significant_from
        ([0.203, 0.002], 15)
    """
    n = positive_int("n", n, maximum=_MOST_ROWS)
    right = (_right("right_a", right_a, n), _right("right_b", right_b, n))
    losses = tuple(
        None if value is None else number(name, value, at_least=0)
        for name, value in (("loss_a", loss_a), ("loss_b", loss_b))
    )
    one_of("method", method, ("midp", "exact"))
    alpha = number("alpha", alpha, above=0, below=1)
    wrong_a, wrong_b = n - right[0], n - right[1]
    low, high = max(0, wrong_a + wrong_b - n), min(wrong_a, wrong_b)
    w = np.arange(low, high + 1)
    p_values = mcnemar_p_values(wrong_b - w, wrong_a - w, method)
    under = np.flatnonzero(p_values <= alpha)
    first = None if not len(under) else int(w[under[0]])
    few, most = (
        of_shares(n - wrong_a - wrong_b + end, wrong_b - end, wrong_a - end, end, method=method).interval(
            alpha
        )
        for end in (low, high)
    )
    return TotalsComparison(
        n,
        right,
        (low, high),
        tuple(float(p) for p in p_values),
        "McNemar " + ("exact" if method == "exact" else "mid-p"),
        first,
        alpha,
        (few, most),
        _verdict(right, n, p_values, first, alpha),
        tuple(_notes(right, n, losses)),
    )


def _right(name: str, value: int, n: int) -> int:
    rows = positive_int(name, value, minimum=0)
    if rows > n:
        raise ValueError(f"`{name}` must be at most `n`; got {value} of {n}.")
    return rows


def _verdict(
    right: tuple[int, int], n: int, p_values: NDArray[np.float64], first: int | None, alpha: float
) -> str:
    """Return what the totals decide, whichever rows are wrong in both."""
    low, high = float(p_values.min()), float(p_values.max())
    figures = f"accuracy {right[0] / n:.3f} against {right[1] / n:.3f} on {counted(n, 'row')}"
    if low > alpha:
        return f"A and B cannot be told apart: {figures}; whatever the rows, {p_value(low)} or more."
    if high <= alpha:
        better, other = ("A", "B") if right[0] > right[1] else ("B", "A")
        return f"{better} is better than {other}: {figures}; whatever the rows, {p_value(high)} or less."
    return (
        f"These totals cannot tell whether the difference is more than chance: {figures}; p may be anything "
        f"from {low:.3f} to {high:.3f}, and is at most {alpha:g} only if at least "
        f"{counted(first or 0, 'row')} {'is' if first == 1 else 'are'} wrong in both."
    )


def _notes(right: tuple[int, int], n: int, losses: Sequence[float | None]) -> list[str]:
    notes = ["Compare row by row to know: pass the two evaluations to `compare`."]
    a, b = losses
    if a is None or b is None:
        return notes
    if (right[0] - right[1]) * (a - b) > 0:
        more, less = ("A", "B") if right[0] > right[1] else ("B", "A")
        shares = max(right) / n, min(right) / n
        notes.append(
            f"{disagreement_text(more, less, *shares, max(a, b), min(a, b))} The log-loss charges for "
            "misplaced confidence, the accuracy does not. Whether that is a matter of calibration, which a "
            "temperature would mend, or of how well the probabilities separate right from wrong answers, "
            "totals cannot say; `compare` can."
        )
    notes.append("Whether the losses differ by more than chance, totals cannot say at all.")
    return notes
