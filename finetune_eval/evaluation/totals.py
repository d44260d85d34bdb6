"""What the totals of two models alone can say about which is better, without the rows."""

from __future__ import annotations

import numpy as np

from finetune_eval._checks import number, one_of, positive_int
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation.intervals import newcombe_paired_difference
from finetune_eval.evaluation.outcomes import TotalsComparison, disagreement_text
from finetune_eval.evaluation.significance import mcnemar_p_values, p_text


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
    """Say what can be concluded from how many rows each of two models has right, without the rows.

    Whether the difference is more than chance depends on how many rows are wrong in both, which totals do not
    tell: every possible number is tried.

    Args:
        right_a: Rows that a has right.
        right_b: Rows that b has right.
        n: How many rows both were scored on.
        loss_a: Mean loss of a, if known; only to explain a disagreement with the accuracy.
        loss_b: Mean loss of b.
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
    n = positive_int("n", n)
    counts = []
    for name, value in (("right_a", right_a), ("right_b", right_b)):
        counts.append(positive_int(name, value, minimum=0))
        if value > n:
            raise ValueError(f"`{name}` must be at most `n`; got {value} of {n}.")
    one_of("method", method, ("midp", "exact"))
    alpha = number("alpha", alpha, above=0, below=1)
    wrong_a, wrong_b = n - counts[0], n - counts[1]
    low, high = max(0, wrong_a + wrong_b - n), min(wrong_a, wrong_b)
    w = np.arange(low, high + 1)
    p_values = mcnemar_p_values(wrong_b - w, wrong_a - w, method)
    under = np.flatnonzero(p_values <= alpha)
    first = None if not len(under) else int(w[under[0]])
    ends = tuple(
        newcombe_paired_difference(
            n - wrong_a - wrong_b + end, wrong_b - end, wrong_a - end, end, confidence=1 - alpha
        )
        for end in (low, high)
    )
    p_low, p_high = float(p_values.min()), float(p_values.max())
    figures = f"accuracy {counts[0] / n:.3f} against {counts[1] / n:.3f} on {counted(n, 'row')}"
    possible = f"p may be anything from {p_low:.3f} to {p_high:.3f}"
    if p_low > alpha:
        verdict = f"A and B cannot be told apart: {figures}; whatever the rows, {p_text(p_low)} or more."
    elif p_high <= alpha:
        better, other = ("A", "B") if counts[0] > counts[1] else ("B", "A")
        verdict = f"{better} is better than {other}: {figures}; whatever the rows, {p_text(p_high)} or less."
    else:
        verdict = (
            f"These totals cannot tell whether the difference is more than chance: {figures}; {possible}, "
            f"and is at most {alpha:g} only if at least {counted(first or 0, 'row')} "
            f"{'is' if first == 1 else 'are'} wrong in both."
        )
    notes = ["Compare row by row to know: pass the two evaluations to `compare`."]
    accuracy = (counts[0] / n, counts[1] / n)
    if loss_a is not None and loss_b is not None:
        if (accuracy[0] - accuracy[1]) * (loss_a - loss_b) > 0:
            more, less = ("A", "B") if accuracy[0] > accuracy[1] else ("B", "A")
            losses = (max(loss_a, loss_b), min(loss_a, loss_b))
            notes.append(disagreement_text(more, less, max(accuracy), min(accuracy), *losses, "accuracy"))
        notes.append("Whether the losses differ by more than chance, totals cannot say at all.")
    return TotalsComparison(
        n,
        (counts[0], counts[1]),
        (low, high),
        tuple(float(p) for p in p_values),
        "McNemar " + ("exact" if method == "exact" else "mid-p"),
        first,
        alpha,
        (ends[0], ends[1]),
        verdict,
        tuple(notes),
    )
