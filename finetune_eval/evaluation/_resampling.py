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
    dirichlet,
    mean_interval,
    resample_class_counts,
    resample_sums,
    resampled_interval,
    split_counts,
)
from finetune_eval.evaluation.metrics import ClassCounts, class_counts

Floats = NDArray[np.float64]
# Cells drawn in all resamples together, a few seconds' worth: only beyond 50,000 non-empty cells (or 16,000
# classes of weighted or grouped rows) are there fewer resamples for it.
_MOST_CELLS = 100_000_000
_FEWEST_RESAMPLES = 100
_NO_WIDTH = 1e-9


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
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep what the draws are made from.

        Args:
            tables: (K, K), or (K, 2, 2) for multilabel rows.
            n_resamples: How many draws B.
            seed: Their seed.
            confidence: Nominal coverage of the intervals.
            row_cells: (n, C) index of the cells of `tables`, flattened, that each row counts in: one for
                classification, K for multilabel. None: resample the table itself.
            weights: (n,) weights of the rows, or None.
            groups: (n,) index of the group each row belongs to, or None where each row is its own.
        """
        self.tables = np.asarray(tables, dtype=np.float64)
        drawn = int(np.count_nonzero(tables)) if row_cells is None else 3 * len(tables)
        self.n_resamples = min(n_resamples, max(_FEWEST_RESAMPLES, _MOST_CELLS // max(drawn, 1)))
        self.seed = seed
        self.confidence = confidence
        self._row_cells = row_cells
        self._weights = weights
        self._groups = groups
        self._draws: Floats | ClassCounts | None = None
        self._what = "confusion matrix" if row_cells is None else "rows" if groups is None else "groups"

    def draws(self) -> Floats | ClassCounts:
        """Return the (B, K, 2, 2) resampled tables of multilabel rows, else the class counts of (B, K, K)."""
        if self._draws is None:
            if self._row_cells is None:
                self._draws = resample_class_counts(self.tables, self.n_resamples, self.seed)
            elif self.tables.ndim == 3:
                sums = resample_sums(
                    self._sums(self._row_cells, self.tables.size), self.n_resamples, self.seed
                )
                self._draws = sums.reshape(-1, *self.tables.shape)
            else:
                k = len(self.tables)
                true, predicted = np.divmod(self._row_cells, k)
                # A row that is wrong is no hit: it goes to a column that is not kept.
                hits = np.where(true == predicted, true, 3 * k)
                columns = np.hstack([hits, k + predicted, 2 * k + true])
                sums = resample_sums(self._sums(columns, 3 * k + 1)[:, :-1], self.n_resamples, self.seed)
                self._draws = split_counts(sums)
        return self._draws

    def _sums(self, columns: NDArray[np.int64], width: int) -> Any:
        """Return the (units, width) sparse matrix of the weight each row or group puts in each column."""
        from scipy.sparse import csr_matrix

        rows, each = columns.shape
        units = np.arange(rows) if self._groups is None else self._groups
        weights = np.ones(rows) if self._weights is None else self._weights
        return csr_matrix(
            (np.repeat(weights, each), (np.repeat(units, each), columns.ravel())),
            shape=(int(units.max()) + 1, width),
        )

    def _independent_rows(self) -> float:
        """Return how many independent rows these are worth: groups, or Kish's n of weighted rows."""
        if self._groups is not None:
            return float(self._groups.max() + 1)
        if self._weights is not None:
            return float(self._weights.sum() ** 2 / (self._weights**2).sum())
        return float(self.tables.reshape(-1, *self.tables.shape[-2:])[0].sum())

    def interval(
        self,
        function: Callable[[Any], Floats],
        *,
        low: float = 0.0,
        high: float = 1.0,
        macro: str | None = None,
        of_class: int | None = None,
    ) -> Estimate:
        """Estimate a function of the tables.

        Args:
            function: `draws` to (B,) values; (B, 2, 2) tables to them where `of_class` is given.
            low: The smallest possible value.
            high: The largest possible value.
            macro: The metric this is the macro mean of, or None.
            of_class: Reduce the tables to this class against the rest (multilabel: to this label's) first.
        """
        tables: Floats = self.tables
        draws = self.draws()
        scale = self._independent_rows() / (tables.sum() / (len(tables) if tables.ndim == 3 else 1))
        if of_class is not None and isinstance(draws, ClassCounts):
            tables = one_against_rest(class_counts(tables), of_class)
            draws = one_against_rest(draws, of_class)
        elif of_class is not None:
            tables, draws = tables[of_class], np.asarray(draws)[:, of_class]
        result = resampled_interval(
            function,
            tables,
            draws,
            confidence=self.confidence,
            what=self._what,
            macro=macro,
            trials=scale * float(tables.sum()),
            bounds=(low, high),
            seed=self.seed,
        )
        if result.high - result.low > _NO_WIDTH:
            return result
        # A metric at its bound (kappa of -1) may vary among the resamples and still give two equal limits.
        limits = dirichlet(function, scale * tables, self.confidence, self.n_resamples, self.seed)
        return Estimate(
            result.value,
            max(low, min(limits[0], result.value)),
            min(high, max(limits[1], result.value)),
            "Dirichlet posterior (the limits of the bootstrap coincide)",
            self.confidence,
        )

    def mean(self, rows: Floats, *, high: float) -> Estimate:
        """Estimate the (weighted) mean of one number a row, each in [0, high]."""
        return mean_interval(
            rows,
            confidence=self.confidence,
            bounds=(0.0, high),
            groups=self._groups,
            sample_weight=self._weights,
        )


def one_against_rest(counts: ClassCounts, k: int) -> Floats:
    """Return the (..., 2, 2) tables of class k against the others, from hits, predicted and true rows."""
    total = counts[2].sum(axis=-1)
    hits, predicted, true = (part[..., k] for part in counts)
    rest = total - true - predicted + hits
    return np.stack([np.stack([rest, predicted - hits], -1), np.stack([true - hits, hits], -1)], -2)
