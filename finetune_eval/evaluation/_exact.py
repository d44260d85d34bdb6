"""Sums of many numbers, without rounding: they are the same for any order and any split of the rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Totals are whole numbers of this unit, 2**-1074: the smallest number that a float64 holds.
UNIT = 1074
_LARGEST = 27  # numbers are below 2**27
_MOST_ROWS = 16  # at most 2**16 of them are added at once
_DIGITS = 53  # of a float64, in bits
_FINEST = -900  # what is below 2**-900 is left out, of every number alike


def exact_totals(values: Floats) -> list[int]:
    """Add up each row of a table without rounding.

    Every number is taken apart into pieces on fixed grids, so coarse that float64 adds up the pieces of a
    whole chunk exactly, in any order.

    Args:
        values: (m, n) numbers between -2**27 and 2**27; n is at most 65,536.

    Returns:
        m totals, in units of 2**-1074. Totals of parts are added as whole numbers.

    Example:
        >>> total = exact_totals(np.array([[1e7, 1e-20, -1e7]]))[0]
        >>> total / 2**UNIT
        1e-20

    Reference:
        Rump, Ogita and Oishi 2008, SIAM J. Sci. Comput. 31:189-224 (splitting by adding a large constant).
    """
    rest = np.array(values, dtype=np.float64)
    assert rest.shape[1] <= 2**_MOST_ROWS, "too many numbers at once"
    totals = [0] * len(rest)
    grid = _LARGEST + _MOST_ROWS - _DIGITS
    piece = np.empty(rest.shape[1])
    live = list(range(len(rest)))
    while live and grid > _FINEST:
        large = 1.5 * 2.0 ** (_DIGITS - 1 + grid)
        for row in list(live):
            np.add(rest[row], large, out=piece)
            piece -= large
            rest[row] -= piece
            totals[row] += int(math.ldexp(float(piece.sum()), -grid)) << (UNIT + grid)
            if not rest[row].any():
                live.remove(row)
        grid -= _DIGITS - 1 - _MOST_ROWS  # the rest is at most half a step of the grid
    return totals


def number(total: int) -> float:
    """Return a total as the nearest float."""
    return float(total / 2**UNIT)


def central_moments(totals: tuple[int, int, int, int], n: int, low: float, high: float) -> Floats:
    """Return the sums of the second, third and fourth powers of the distances of n numbers from their mean.

    The differences of totals are exact, but the powers that were added up are rounded. Where the numbers are
    so alike that this would show, the largest sums that their range allows take their place, which makes
    intervals wider and never narrower.

    Args:
        totals: Of the numbers and of their second, third and fourth powers.
        n: How many numbers.
        low: The smallest of them.
        high: The largest.

    Reference:
        Popoviciu 1935 (the largest variance in a range).
    """
    if low == high:
        return np.zeros(3)
    s1, s2, s3, s4 = (Fraction(total, 2**UNIT) for total in totals)
    mean = s1 / n
    second = s2 - mean * s1
    third = s3 - 3 * mean * s2 + 3 * mean**2 * s1 - n * mean**3
    fourth = s4 - 4 * mean * s3 + 6 * mean**2 * s2 - 4 * mean**3 * s1 + n * mean**4
    width = Fraction(high) - Fraction(low)
    rounding = Fraction(1, 2**48)
    if second < 10_000 * rounding * s2:
        second = n * width**2 / 4
    if fourth < 10_000 * rounding * s4:
        third, fourth = width * second, width**2 * second
    return np.array([float(second), float(third), float(fourth)])
