"""Draws of the test rows: which rows might have been there instead.

Rows by themselves and unweighted: the confusion matrix is resampled, exactly and in no time. Weighted,
grouped or multilabel rows: whole units (a row, or a group) are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.intervals import (
    Estimate,
    bias_corrected,
    clopper_pearson,
    resample_confusion,
)

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # numbers drawn at a time: 32 MB


class Resampler:
    """Resampled confusion tables and row means of one set of rows, drawn once and shared by every metric."""

    def __init__(
        self,
        tables: NDArray[Any],
        *,
        n_resamples: int,
        seed: int,
        confidence: float,
        row_cells: NDArray[np.int64] | None = None,
        weights: Floats | None = None,
        units: NDArray[np.int64] | None = None,
    ) -> None:
        """Draw.

        Args:
            tables: (K, K), or (K, 2, 2) for multilabel rows.
            n_resamples: How many draws B.
            seed: Their seed.
            confidence: Nominal coverage of the intervals.
            row_cells: (n, C) index of the cells of `tables`, flattened, that each row counts in: one for
                classification, K for multilabel. None: resample the table itself.
            weights: (n,) weights of the rows, or None.
            units: (n,) index of the unit each row belongs to, or None where each row is its own.
        """
        self.tables = tables
        self.confidence = confidence
        self.n_resamples = n_resamples
        self.seed = seed
        self._weights = weights
        self._units = units
        self._row_cells = row_cells
        self._resampled: Floats | None = None
        if row_cells is None:
            self.method = "confusion-matrix bootstrap"
        elif units is not None:
            self.method = "bootstrap of groups"
        else:
            self.method = "bootstrap of rows"

    @property
    def by_units(self) -> bool:
        """Whether rows or groups are drawn, instead of the table."""
        return self._row_cells is not None

    def resampled(self) -> Floats:
        """Return the (B, ...) resampled tables."""
        if self._resampled is None:
            if self._row_cells is None:
                drawn: Any = resample_confusion(self.tables, self.n_resamples, self.seed)
            else:
                drawn = self._unit_draws(self._cell_sums())
            self._resampled = np.asarray(drawn, dtype=np.float64).reshape(-1, *self.tables.shape)
        return self._resampled

    def _unit_of_row(self) -> NDArray[np.int64]:
        if self._units is not None:
            return self._units
        assert self._row_cells is not None
        return np.arange(len(self._row_cells))

    def _cell_sums(self) -> Any:
        """Return the (U, cells) sparse matrix of the weight each unit puts in each cell."""
        from scipy.sparse import csr_matrix

        assert self._row_cells is not None
        units, cells = self._unit_of_row(), self._row_cells
        weights = np.ones(len(cells)) if self._weights is None else self._weights
        columns = cells.shape[1]
        return csr_matrix(
            (np.repeat(weights, columns), (np.repeat(units, columns), cells.ravel())),
            shape=(int(units.max()) + 1, self.tables.size),
        )

    def _unit_draws(self, sums: Any) -> Floats:
        """Draw units with replacement, B times, and add up their rows of `sums`; the same draws each time."""
        units = sums.shape[0]
        random = np.random.default_rng(self.seed)
        out = np.empty((self.n_resamples, sums.shape[1]))
        step = max(1, _CHUNK // units)
        for start in range(0, self.n_resamples, step):
            stop = min(start + step, self.n_resamples)
            counts = np.empty((stop - start, units))
            for i in range(stop - start):
                counts[i] = np.bincount(random.integers(0, units, units), minlength=units)
            out[start:stop] = (sums.T @ counts.T).T
        return out

    def interval(
        self, value: float, function: Callable[[Floats], Floats], *, low: float, high: float
    ) -> Estimate:
        """Estimate a function of the tables, with bias-corrected percentile limits.

        Where every resample gives the same value (nothing wrong, or nothing right), the bootstrap knows no
        width; a Dirichlet posterior with half a row in each cell takes its place and the method says so.

        Args:
            value: The function of the tables themselves.
            function: (B, ...) tables to (B,) values.
            low: The smallest possible value.
            high: The largest possible value.
        """
        limits = bias_corrected(value, function(self.resampled()), self.confidence)
        method = self.method
        if not limits[1] - limits[0] > 1e-9:
            limits = self._posterior(value, function)
            method = "Dirichlet posterior: resamples do not vary"
        return Estimate(
            value,
            max(low, min(limits[0], value)),
            min(high, max(limits[1], value)),
            method,
            self.confidence,
        )

    def _posterior(self, value: float, function: Callable[[Floats], Floats]) -> tuple[float, float]:
        """Return the limits of the posterior of the cells' shares (Goutte and Gaussier 2005)."""
        random = np.random.default_rng(self.seed)
        tables = (
            self.tables.reshape(-1, *self.tables.shape[-2:]) if self.tables.ndim == 3 else self.tables[None]
        )
        n = self._effective_rows()
        parts = []
        for table in tables:
            share = table / max(float(table.sum()), 1e-300)
            drawn = random.dirichlet(share.ravel() * n + 0.5, size=self.n_resamples) * n
            parts.append(drawn.reshape(-1, *table.shape))
        stacked = np.stack(parts, axis=1) if self.tables.ndim == 3 else parts[0]
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(function(stacked), [tail, 1 - tail])
        return float(low), float(high)

    def _effective_rows(self) -> float:
        """Return how many independent rows these are worth: groups, or Kish's n of weighted rows."""
        if self._row_cells is None:
            return float(self.tables.sum())
        if self._units is not None:
            return float(self._units.max() + 1)
        if self._weights is not None:
            return float(self._weights.sum() ** 2 / (self._weights**2).sum())
        return float(len(self._row_cells))

    def mean(self, rows: Floats, *, high: float) -> Estimate:
        """Estimate the (weighted) mean of one number a row, with its interval.

        Independent, unweighted rows: Student's t. Otherwise the bootstrap of the units. Where the rows do
        not vary at all, neither knows a width: then Clopper-Pearson says how many rows unlike these
        there may be, and such rows may be anything from 0 to `high`.

        Args:
            rows: (n,) numbers, each at least 0.
            high: The largest a row can be.
        """
        tail = (1 - self.confidence) / 2
        weights = np.ones(len(rows)) if self._weights is None else self._weights
        value = float(np.average(rows, weights=self._weights))
        if np.ptp(rows) <= 1e-12 * max(1.0, abs(value)):
            unseen = clopper_pearson(0, max(1, int(self._effective_rows())), confidence=self.confidence).high
            method = "Clopper-Pearson: rows do not vary"
            return Estimate(
                value, value * (1 - unseen), value + unseen * (high - value), method, self.confidence
            )
        if self._weights is None and self._units is None:
            from scipy.special import stdtrit

            half = float(stdtrit(len(rows) - 1, 1 - tail)) * float(rows.std(ddof=1)) / len(rows) ** 0.5
            return Estimate(
                value, max(0.0, value - half), min(high, value + half), "Student's t", self.confidence
            )
        from scipy.sparse import csr_matrix

        units = np.arange(len(rows)) if self._units is None else self._units
        size = int(units.max()) + 1
        sums = csr_matrix(
            np.column_stack([np.bincount(units, weights * rows, size), np.bincount(units, weights, size)])
        )
        drawn = self._unit_draws(sums)
        means = np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), value), where=drawn[:, 1] > 0)
        limits = bias_corrected(value, means, self.confidence)
        name = "bootstrap of rows" if self._units is None else "bootstrap of groups"
        return Estimate(
            value, max(0.0, min(limits[0], value)), min(high, max(limits[1], value)), name, self.confidence
        )
