"""Exact one-sided bounds of a share, and thresholds that guarantee a recall or a precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ALPHA = 0.05  # of the limits that are printed, and of the fewest rows that can show a precision
# Of the error probability of a guaranteed precision: the share of the sequence of thresholds that begins at
# the fewest rows that can prove it, and where the other one begins, in multiples of the fewest that it needs.
_FIRST_SHARE, _LATER_START = 0.8, 3
# Of the error probability of a guaranteed error: the share of the sequence of confidences that begins at the
# fewest rows that can prove it. The others share the rest, and begin at these shares of all rows.
_SUREST_SHARE, _LARGE_STARTS = 0.7, (0.25, 0.5, 1.0)


def fewest_rows(share: float, alpha: float = ALPHA) -> int:
    """Return how many rows, all of them right, show that at least a share of all rows is right.

    Args:
        share: In (0, 1).
        alpha: The probability to be wrong.

    Example:
        >>> fewest_rows(0.9), fewest_rows(0.99)
        (29, 299)
    """
    return math.ceil(math.log(alpha) / math.log(share) - 1e-9)


def rows_to_show(share: float, bound: float, alpha: float) -> int:
    """Return about how many rows, of which a share is right, show that at least `bound` of all rows is."""
    rows = fewest_rows(bound, alpha)
    while float(at_least(np.floor(share * rows), rows, bound)) > alpha:
        rows = math.ceil(rows * 1.05)
    return rows


def at_least(hits: Any, rows: Any, share: float) -> Floats:
    """Return the probability of at least `hits` of `rows`, where each is one with probability `share`."""
    from scipy.special import bdtrc

    hits, rows = np.asarray(hits), np.asarray(rows).astype(np.int64)
    return np.where(hits > 0, bdtrc(np.maximum(hits - 1, 0), rows, share), 1.0)


def lower_limit(hits: float, rows: float) -> float:
    """Return the one-sided 95 % limit of a share (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(hits, rows - hits + 1, ALPHA)) if hits > 0 else 0.0


def probability_under(bound: float, hits: float, rows: float) -> float:
    """Return how often the true recall is under a bound, where a threshold is set to find `hits` of `rows`.

    With k misses of m rows allowed, the true recall has a Beta(m - k, k + 1) distribution (Wilks 1941).
    """
    from scipy.special import betainc

    return float(betainc(hits, rows - hits + 1, bound)) if hits > 0 else 1.0


def allowed_misses(rows: int, bound: float, alpha: float) -> int:
    """Return the most misses that a threshold may have whose true recall is to be at least `bound`.

    A threshold with a recall under the bound has so few misses with a probability of at most `alpha`.

    Returns:
        The misses; -1 where not even none of them would show it.

    Example:
        >>> [allowed_misses(rows, 0.9, 0.05) for rows in (20, 50, 100, 200)]
        [-1, 1, 4, 12]
    """
    from scipy.special import bdtr

    misses = np.arange(rows)
    return int(np.count_nonzero(bdtr(misses, rows, 1 - bound) <= alpha + 1e-12)) - 1


def first_alpha(alpha: float) -> float:
    """Return the error probability of the first sequence of `proven`."""
    return _FIRST_SHARE * alpha


def proven(hits: Floats, rows: Floats, bound: float, alpha: float) -> NDArray[np.bool_]:
    """Mark the thresholds whose precision is proven to be at least `bound`.

    The thresholds are tested one after the other, from few rows predicted to many, until the first one fails.
    Two such sequences share the error probability: one begins at the fewest rows that can prove the bound,
    the other at three times as many as it needs, for models whose surest rows are now and then wrong.

    Args:
        hits: (t,) rows rightly predicted at each threshold.
        rows: (t,) rows predicted, ascending.
        bound: The precision, in (0, 1).
        alpha: The probability that any threshold that is marked has a lower precision.

    Reference:
        Angelopoulos, Bates, Candes, Jordan, Lei 2021, "Learn then test", arXiv:2110.01052 (fixed-sequence
        testing with several starts).
    """
    first, later = first_alpha(alpha), alpha - first_alpha(alpha)
    return passed(
        hits,
        rows,
        bound,
        [(first, fewest_rows(bound, first)), (later, _LATER_START * fewest_rows(bound, later))],
    )


def starts_of_answers(rows: int, bound: float, alpha: float) -> list[tuple[float, float]]:
    """Return where sequences of confidences begin that are to prove an accuracy of what is answered.

    Of few rows there is one sequence, from the fewest rows that can prove it. Of more rows, others begin at a
    quarter, a half and all of them: where the surest rows are now and then wrong, as many proofs fail early.

    Args:
        rows: How many rows there are.
        bound: The accuracy, in (0, 1).
        alpha: The error probability, which the sequences share.

    Returns:
        The error probability of each sequence, and the number of answered rows from which on it tests.

    Example:
        >>> starts_of_answers(100, 0.95, 0.05)
        [(0.05, 59)]
        >>> [(round(level, 3), first) for level, first in starts_of_answers(1000, 0.95, 0.05)]
        [(0.035, 66), (0.005, 250.0), (0.005, 500.0), (0.005, 1000.0)]
    """
    first = _SUREST_SHARE * alpha
    fewest = fewest_rows(bound, first)
    large = [share * rows for share in _LARGE_STARTS if share * rows >= 2 * fewest]
    if not large:
        return [(alpha, fewest_rows(bound, alpha))]
    return [(first, fewest), *(((alpha - first) / len(large), start) for start in large)]


def passed(hits: Floats, rows: Floats, bound: float, starts: list[tuple[float, float]]) -> NDArray[np.bool_]:
    """Mark what the exact binomial test passes in any of several sequences, each up to its first failure.

    Args:
        hits: (t,) right rows of each test.
        rows: (t,) rows of each test, ascending.
        bound: The share to be proven, in (0, 1).
        starts: For each sequence its error probability, and the rows from which on it tests.
    """
    p = at_least(hits, rows, bound)
    marked = np.zeros(len(p), dtype=bool)
    for level, first in starts:
        tested = np.flatnonzero(rows >= first)
        failed = p[tested] > level
        marked[tested[: int(failed.argmax()) if failed.any() else None]] = True
    return marked
