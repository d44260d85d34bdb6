"""A power law through the points of a learning curve, and what it says of more rows.

The mean error of a recipe on n rows is taken to be a + b n^-c: what no number of rows would mend, and what
falls with them. Few points leave a, b and c undecided together, so that one best curve says nothing of how
sure
it is; here every curve counts, by how well it fits the points (a posterior on a grid), and intervals are what
those curves say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# How fast learning curves fall before any point is seen: the exponent is 0.5 to within a factor of about 3
# (19 of
# 20 curves); Figueroa et al. 2012 and Hestness et al. 2017 found 0.1 to 1 in text and elsewhere.
_EXPONENT, _EXPONENT_SPREAD = 0.5, 0.6
_EXPONENTS, _FLOORS, _LEVELS = 41, 41, 61  # points of the grid


@dataclass(frozen=True)
class PowerLaw:
    """One curve: error = floor + scale n^-exponent.

    Attributes:
        floor: What no number of rows would mend.
        scale: The error above the floor that one row would leave.
        exponent: How fast it falls.
    """

    floor: float
    scale: float
    exponent: float

    def __call__(self, n: float) -> float:
        """Return the error on n rows."""
        return self.floor + self.scale * math.exp(-self.exponent * math.log(n))


@dataclass(frozen=True)
class Curves:
    """All power laws, each with a weight that says how well it fits.

    Attributes:
        sizes: (s,) rows of each point, ascending.
        errors: (s,) mean error of each point.
        covariance: (s, s) of the means.
    """

    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    covariance: NDArray[np.float64]

    @cached_property
    def _grid(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Error at the largest size, floor as a share of it, exponent, weight, and misfit of each curve."""
        errors, last = np.array(self.errors), self.sizes[-1]
        spread = math.sqrt(float(self.covariance[-1, -1]))
        levels = errors[-1] + spread * np.linspace(-4, 4, _LEVELS)
        levels = levels[levels > 0]
        floors = (np.arange(_FLOORS) + 0.5) / _FLOORS
        steps = np.linspace(-2.5, 2.5, _EXPONENTS)
        exponents = _EXPONENT * np.exp(_EXPONENT_SPREAD * steps)
        level, floor, exponent = (
            part.ravel() for part in np.meshgrid(levels, floors, exponents, indexing="ij")
        )
        prior = np.tile(-(steps**2) / 2, len(levels) * _FLOORS)
        ratio = (last / np.array(self.sizes)) ** exponent[:, None]
        expected = level[:, None] * (floor[:, None] + (1 - floor[:, None]) * ratio)
        residuals = expected - errors
        misfit = np.einsum("ij,jk,ik->i", residuals, np.linalg.pinv(self.covariance), residuals)
        weight = np.exp(prior - (misfit - misfit.min()) / 2)
        return level, floor, exponent, weight / weight.sum(), misfit

    def errors_at(self, n: float) -> Floats:
        """Return the error of each curve on n rows."""
        level, floor, exponent, _, _ = self._grid
        return np.asarray(level * (floor + (1 - floor) * (self.sizes[-1] / n) ** exponent))

    def rows_for(self, error: float) -> Floats:
        """Return the rows on which each curve falls to an error; infinite where it never does."""
        level, floor, exponent, _, _ = self._grid
        above = error - level * floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rows = self.sizes[-1] * (level * (1 - floor) / above) ** (1 / exponent)
        return np.where(above > 0, rows, np.inf)

    def quantiles(self, values: Floats, confidence: float) -> tuple[float, float, float]:
        """Return the median and the limits of a quantity of the curves."""
        order = np.argsort(values)
        shares = np.cumsum(self._grid[3][order])
        tail = (1 - confidence) / 2
        places = np.searchsorted(shares, [0.5, tail, 1 - tail]).clip(0, len(values) - 1)
        middle, low, high = values[order][places]
        return float(middle), float(low), float(high)

    @property
    def best(self) -> PowerLaw:
        """The curve of the highest weight."""
        level, floor, exponent, weight, _ = self._grid
        k = int(weight.argmax())
        above = float(level[k] * (1 - floor[k]))
        return PowerLaw(
            float(level[k] * floor[k]),
            above * float(self.sizes[-1]) ** float(exponent[k]),
            float(exponent[k]),
        )

    @property
    def fits(self) -> bool:
        """Whether the points may lie on a power law: the best misfit is one of 99 in 100 such curves."""
        from scipy.special import chdtri

        freedom = max(len(self.sizes) - 3, 1)  # a level, a floor and an exponent were fitted
        return float(self._grid[4].min()) <= float(chdtri(freedom, 0.01))


def covariance_of_means(
    scores: Floats, repeat_scores: Floats, sizes: tuple[int, ...], rows: int, groups: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Estimate the covariance of the mean scores of several sizes, that were judged by the same rows.

    Two things vary: the rows that judge, which all sizes share, and the training rows. The first is estimated
    from the rows (or groups). The second is what the repeats' scores vary more than their test rows explain;
    it is taken to fall with the size, as it is of so few repeats, and grows for the rows that repeats share.

    Args:
        scores: (m, s) score of each row that judged, for each size; the mean where it judged several times.
        repeat_scores: (r, s) mean score of each repeat.
        sizes: Training rows of each size.
        rows: How many rows there are to train on.
        groups: (m,) group of each row, or None.
    """
    m, repeats = len(scores), len(repeat_scores)
    centred = scores - scores.mean(axis=0)
    if groups is not None:
        sums = np.zeros((int(groups.max()) + 1, scores.shape[1]))
        np.add.at(sums, groups, centred)
        centred = sums
    units = len(centred)
    of_rows = centred.T @ centred / m**2 * units / max(units - 1, 1)
    explained = np.diag(of_rows) * repeats  # a repeat is judged by so many fewer rows
    excess = np.maximum(repeat_scores.var(axis=0, ddof=1) - explained, 0.0)
    n = np.array(sizes, dtype=np.float64)
    of_training = float((excess * n).mean()) / n
    shared = np.minimum(n / rows, 1.0)
    smallest = 1e-12 + (0.5 / m) ** 2  # scores that do not vary are known to no less than half a row
    return np.asarray(of_rows + np.diag(of_training * (1 / repeats + shared) + smallest))
