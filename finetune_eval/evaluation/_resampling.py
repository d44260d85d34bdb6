"""Draws of the test rows: which rows might have been there instead.

Rows by themselves and unweighted: the confusion matrix is resampled, exactly and in no time. Weighted,
grouped or multilabel rows: whole units (a row, or a group) are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.confusion import ClassCounts, class_counts, split_counts
from finetune_eval.evaluation.means import mean_interval, mean_of_units
from finetune_eval.evaluation.proportions import effective_wilson
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import resample_sums
from finetune_eval.evaluation.tables import (
    Support,
    dirichlet,
    few_outcomes,
    resample_class_counts,
    resampled_interval,
)
from finetune_eval.evaluation.units import clustered_variance, effective_units, independent_units

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
        self._supports: dict[int | None, Support] = {}
        if row_cells is not None:
            size = self.tables.shape[-1]
            cells = row_cells % size**2 if self.tables.ndim == 3 else row_cells[:, 0]
            self._true, self._predicted = np.divmod(cells, size)

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
        """Return how many independent rows these are worth: Kish's n, less what groups make alike.

        Of groups: so many rows as would show the variance that the accuracy has; never fewer than groups, nor
        more than rows.

        Reference:
            Korn and Graubard 1998, Survey Methodology 24:193-201 (the effective sample size of a share).
        """
        rows = self._row_weights()
        fewest = effective_units(rows, self._groups)
        if self._groups is None:
            return fewest
        right = (self._true == self._predicted).reshape(len(rows), -1).all(axis=1)
        away = right - np.average(right, weights=rows)
        spread = float(rows @ away**2 / rows.sum())
        if spread <= 0:  # all right, or all wrong: nothing shows how alike the rows of a group are
            return fewest
        variance, _ = clustered_variance(rows * away / rows.sum(), self._groups)
        most = effective_units(rows, None)
        return most if variance * most <= spread else max(fewest, spread / variance)

    def _row_weights(self) -> Floats:
        if self._weights is not None:
            return self._weights
        assert self._row_cells is not None
        return np.ones(len(self._row_cells))

    def _support(self, of_class: int | None) -> Support | None:
        """Count the independent rows or groups behind the tables; None where the tables do so themselves."""
        if self._row_cells is None:
            return None
        if of_class not in self._supports:
            true, predicted, rows = self._true, self._predicted, self._row_weights()
            if of_class is not None and self.tables.ndim == 3:
                true, predicted = true[:, of_class], predicted[:, of_class]
            elif of_class is not None:
                true, predicted = true == of_class, predicted == of_class
            columns = true.reshape(len(rows), -1).T
            values = 2 if of_class is not None else self.tables.shape[-1]

            def units(side: NDArray[np.bool_]) -> float:
                return independent_units(side, rows, self._groups)

            classes = np.array([[units(column == k) for k in range(values)] for column in columns])
            same = (true == predicted).reshape(len(rows), -1)
            self._supports[of_class] = Support(
                classes if true.ndim == 2 else classes[0],
                effective_units(rows * same.any(axis=1), self._groups),
                effective_units(rows * ~same.all(axis=1), self._groups),
                effective_units(rows, self._groups),
                "row" if self._groups is None else "group",
            )
        return self._supports[of_class]

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
        scale = 1.0
        if self._row_cells is not None:
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
            support=self._support(of_class),
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

    def accuracy(self, correct: NDArray[np.bool_]) -> Estimate:
        """Estimate the share of rows that are right; wider, where few groups or weights have a wrong one."""
        found = self.mean(correct.astype(np.float64), high=1.0)
        support = self._support(None)
        assert support is not None
        few = few_outcomes(support)
        if not few:
            return found
        share = effective_wilson(found.value, self._independent_rows(), confidence=self.confidence)
        method = f"wider of bootstrap and {share.method} ({few})"
        low, high = min(found.low, share.low), max(found.high, share.high)
        return Estimate(found.value, low, high, method, self.confidence)

    def mean(self, rows: Floats, *, high: float) -> Estimate:
        """Estimate the (weighted) mean of one number a row, each in [0, high]."""
        if self._groups is None and self._weights is None:
            return mean_interval(rows, confidence=self.confidence, bounds=(0.0, high))
        return mean_of_units(
            rows,
            confidence=self.confidence,
            bounds=(0.0, high),
            groups=self._groups,
            sample_weight=self._weights,
            n_resamples=self.n_resamples,
            seed=self.seed,
        )


def one_against_rest(counts: ClassCounts, k: int) -> Floats:
    """Return the (..., 2, 2) tables of class k against the others, from hits, predicted and true rows."""
    total = counts[2].sum(axis=-1)
    hits, predicted, true = (part[..., k] for part in counts)
    rest = total - true - predicted + hits
    return np.stack([np.stack([rest, predicted - hits], -1), np.stack([true - hits, hits], -1)], -2)
