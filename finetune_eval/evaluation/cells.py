"""Random confusion matrices: bootstrap resamples, and draws from a Dirichlet posterior of the cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import positive_int
from finetune_eval.evaluation.confusion import ClassCounts, split_counts, sum_counts
from finetune_eval.evaluation.resampling import CHUNK

Floats = NDArray[np.float64]


class Cells(NamedTuple):
    """The cells of a confusion matrix that are not empty.

    Attributes:
        true: (C,) true class of each cell.
        predicted: (C,) predicted class of each cell.
        counts: (C,) rows (or effective rows) in each cell.
        classes: How many classes K the matrix has.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: Floats
    classes: int

    @property
    def class_counts(self) -> ClassCounts:
        """Hits, predicted rows and true rows of each class."""
        sums = sum_counts(self.counts[None], self.true, self.predicted, self.classes)
        return split_counts(sums[0])


def cells_of(confusion: ArrayLike) -> Cells:
    """Return the cells of a (K, K) confusion matrix that are not empty."""
    table = np.asarray(confusion)
    full = np.flatnonzero(table)
    return Cells(*np.divmod(full, len(table)), table.reshape(-1)[full].astype(np.float64), len(table))


def cells_of_rows(
    y: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, weights: Floats | None = None
) -> Cells:
    """Count rows into the cells of a confusion matrix.

    Args:
        y: (n,) true class indices.
        predicted: (n,) predicted class indices.
        classes: How many classes K there are.
        weights: (n,) row weights, or None.

    Returns:
        At most n cells.
    """
    codes, cell = np.unique(y * classes + predicted, return_inverse=True)
    return Cells(*np.divmod(codes, classes), np.bincount(cell, weights=weights).astype(np.float64), classes)


def resample_confusion(confusion: ArrayLike, n_resamples: int, seed: int) -> NDArray[np.int64]:
    """Resample the rows behind a confusion matrix: exact multinomial draws of its non-empty cells.

    Drawing n rows with replacement and counting them is a multinomial draw of the cells, so this is the row
    bootstrap itself, at a cost that does not depend on the number of rows.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K, K) counts, each summing to the number of rows.

    Raises:
        ValueError: The matrix is not square, empty, or does not hold whole counts.

    Example:
        >>> resample_confusion([[8, 2], [1, 9]], 3, seed=0).sum(axis=(1, 2)).tolist()
        [20, 20, 20]
    """
    table = whole_counts(confusion)
    cells = np.flatnonzero(table)
    counts = table.reshape(-1)[cells]
    drawn = np.random.default_rng(seed).multinomial(
        int(counts.sum()), counts / counts.sum(), size=positive_int("n_resamples", n_resamples)
    )
    out = np.zeros((n_resamples, table.size), dtype=np.int64)
    out[:, cells] = drawn
    return out.reshape(n_resamples, *table.shape)


def resample_class_counts(confusion: ArrayLike, n_resamples: int, seed: int) -> ClassCounts:
    """Resample the rows behind a confusion matrix, as hits, predicted and true rows of each class.

    The draws are those of `resample_confusion`, but no K x K matrix is built, which is faster for many
    classes.

    Args:
        confusion: (K, K) whole counts, rows true, columns predicted.
        n_resamples: How many resampled matrices B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.
    """
    return draw_cells(cells_of(whole_counts(confusion)), n_resamples, seed)


def whole_counts(confusion: ArrayLike) -> NDArray[np.int64]:
    """Check that a confusion matrix is square and holds whole counts of at least one row."""
    table = np.asarray(confusion)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(
            f"`confusion` must be square (rows true, columns predicted); got shape {table.shape}."
        )
    if table.dtype.kind not in "biuf" or not np.all((table >= 0) & (table == np.floor(table))):
        raise ValueError("`confusion` must hold whole counts of rows, none negative; got other numbers.")
    if table.sum() == 0:
        raise ValueError("`confusion` has no rows; at least one is needed.")
    return table.astype(np.int64)


def draw_cells(cells: Cells, n_resamples: int, seed: int) -> ClassCounts:
    """Draw the rows of a confusion matrix with replacement; (B, K) class counts of the B draws."""
    random, n = np.random.default_rng(seed), cells.counts.sum()
    step = max(1, CHUNK // len(cells.counts))
    sums = []
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = random.multinomial(int(n), cells.counts / n, size=size)
        sums.append(sum_counts(drawn, cells.true, cells.predicted, cells.classes))
    return split_counts(np.concatenate(sums))


def dirichlet_tables(table: Floats, n_resamples: int, seed: int, *, axes: int = 2) -> Floats:
    """Draw tables from a Dirichlet posterior whose prior is worth one row in all.

    Every table has as many rows as were seen.

    Args:
        table: (...) counts, or effective counts.
        n_resamples: How many draws B.
        seed: Seed of the draws.
        axes: How many of the last axes make up one table. Axes before them count tables, each of which has
            a posterior of its own.

    Returns:
        (B, ...) draws.
    """
    last, prior = tuple(range(-axes, 0)), 1 / math.prod(table.shape[-axes:])
    gammas = np.random.default_rng(seed).standard_gamma(table + prior, size=(n_resamples, *table.shape))
    shares: Floats = gammas / gammas.sum(axis=last, keepdims=True)
    return np.asarray(shares * table.sum(axis=last, keepdims=True))


# Pieces into which a stick is broken. Each break leaves at most half of the stick on average, so that the
# rest is below rounding. Up to four times as many empty cells are drawn one by one, which is then faster.
_STICKS = 50


def dirichlet_counts(cells: Cells, n_resamples: int, seed: int) -> ClassCounts:
    """Draw class counts from a Dirichlet posterior of a confusion matrix, without drawing all K^2 cells.

    The prior is worth one row in all. All empty cells together get one gamma variate, since sums of Dirichlet
    shares are Dirichlet shares. A stick that is broken at random divides it among the cells.

    Args:
        cells: The cells that are not empty, with counts or effective counts.
        n_resamples: How many draws B.
        seed: Seed of the draws.

    Returns:
        (B, K) hits, predicted rows and true rows.

    Reference:
        Sethuraman 1994, Stat. Sinica 4:639-650 (exact, whatever the cells that share the stick).
    """
    random, k = np.random.default_rng(seed), cells.classes
    empty, prior = k**2 - len(cells.counts), 1 / k**2
    true, predicted, counts = cells.true, cells.predicted, cells.counts
    if 0 < empty <= 4 * _STICKS:
        each, counts = np.arange(k**2), np.zeros(k**2)
        counts[cells.true * k + cells.predicted] = cells.counts
        (true, predicted), empty = np.divmod(each, k), 0
    gammas = random.standard_gamma(counts + prior, size=(n_resamples, len(counts)))
    total, sums = gammas.sum(axis=1), sum_counts(gammas, true, predicted, k)
    if empty:
        mass = random.standard_gamma(prior * empty, size=n_resamples)
        left = np.cumprod(1 - random.beta(1, prior * empty, size=(n_resamples, _STICKS - 1)), axis=1)
        left = np.column_stack([np.ones(n_resamples), left, np.zeros(n_resamples)]) * mass[:, None]
        row, column = _empty_cells(cells, random.integers(0, empty, n_resamples * _STICKS))
        parts = (left[:, :-1] - left[:, 1:]).ravel()
        places = np.concatenate([row, k + column, 2 * k + row]) + 3 * k * np.tile(
            np.repeat(np.arange(n_resamples), _STICKS), 3
        )
        weights = np.concatenate([parts * (row == column), parts, parts])
        sums += np.bincount(places, weights, sums.size).reshape(sums.shape)
        total += mass
    return split_counts(sums * (counts.sum() / total)[:, None])


def _empty_cells(cells: Cells, ranks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the true and predicted classes of empty cells, by their positions among the empty cells."""
    full = np.sort(cells.true * cells.classes + cells.predicted)
    # Before the full cell i there are full[i] - i empty ones.
    codes = ranks + np.searchsorted(full - np.arange(len(full)), ranks, side="right")
    true, predicted = np.divmod(codes, cells.classes)
    return true, predicted
