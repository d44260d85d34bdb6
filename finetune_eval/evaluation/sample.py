"""Labelled rows with a model's predictions: counted and resampled once, for all metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.cells import (
    Cells,
    cells_of,
    cells_of_rows,
    dirichlet_counts,
    dirichlet_tables,
    draw_cells,
    resample_confusion,
)
from finetune_eval.evaluation.confusion import (
    ClassCounts,
    class_counts,
    confusion_matrix,
    labels_only,
    split_counts,
)
from finetune_eval.evaluation.resampling import resample_sums
from finetune_eval.evaluation.shares import Shares, effective_shares
from finetune_eval.evaluation.units import effective_units, units_of_classes

Floats = NDArray[np.float64]
# How many cells are drawn in all resamples together, which takes a few seconds. Of more than 50,000 non-empty
# cells there are fewer resamples.
_MOST_CELLS = 100_000_000
_FEWEST_RESAMPLES = 100
# Draws from a Dirichlet posterior, where it is the fallback of a bootstrap.
_POSTERIOR_DRAWS = 1000


def decided(p: NDArray[Any], threshold: float | None) -> NDArray[np.int64]:
    """Return the answer to each row of one label: the most probable class, of equal ones the first.

    Args:
        p: (n, K) probabilities.
        threshold: Probability from which the second of two classes is the answer instead; or None.
    """
    if threshold is not None:
        return (p[:, 1] >= threshold).astype(np.int64)
    return np.asarray(p.argmax(axis=1))


@dataclass(frozen=True)
class Sampling:
    """How intervals are made.

    Attributes:
        confidence: Nominal coverage, in (0, 1).
        n_resamples: How many resamples.
        seed: Seed of the draws.
    """

    confidence: float = 0.95
    n_resamples: int = 2000
    seed: int = 0


class Sample:
    """Labelled rows with a model's predictions, and the counts and draws that its metrics share.

    Attributes:
        y: (n,) true class indices, or (n, K) zeros and ones.
        p: (n, K) probabilities; None where the model gave answers only.
        predicted: Predicted classes or labels, in the shape of `y`; K where an answer is no label.
        classes: How many classes (or labels) K there are.
        unlabelled: Whether some answer is no label. Class counts then have a class more, the last one, which
            has predicted rows and no true ones.
        average: "binary", "macro", "micro" or "weighted".
        multilabel: Whether a row may have any number of labels.
        weights: (n,) row weights, the largest of them 1; None where all rows have the same weight.
        groups: (n,) index of the group of each row; None where rows are independent.
    """

    def __init__(
        self,
        y: NDArray[np.int64],
        p: NDArray[Any] | None,
        predicted: NDArray[np.int64],
        *,
        average: str,
        classes: int | None = None,
        weights: Floats | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.multilabel, self.average = y.ndim == 2, average
        if classes is None:
            assert p is not None, "answers without probabilities need `classes`"
            classes = p.shape[1]
        self.classes = classes
        self.unlabelled = not self.multilabel and bool((predicted == classes).any())
        if weights is not None and not weights.all():  # a row of weight 0 is as one that is not there
            there = weights > 0
            y, predicted, weights = y[there], predicted[there], weights[there]
            p = None if p is None else p[there]
            groups = None if groups is None else np.unique(groups[there], return_inverse=True)[1]
        self.y, self.p, self.predicted = y, p, predicted
        # Metrics depend on ratios of weights only, and squares of tiny weights would round to 0.
        self.weights = None if weights is None else weights / weights.max()
        self.groups = groups
        self._draws: dict[Sampling, ClassCounts] = {}
        self._posterior: dict[Sampling, ClassCounts] = {}

    @property
    def equal(self) -> bool:
        """Whether rows are independent and have the same weight."""
        return self.weights is None and self.groups is None

    @property
    def unit(self) -> str:
        """Name of the independent units: "row" or "group"."""
        return "row" if self.groups is None else "group"

    @cached_property
    def rows(self) -> Floats:
        """(n,) weight of each row."""
        return np.ones(len(self.y)) if self.weights is None else self.weights

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether the row is right; multilabel: in every label."""
        same = self.y == self.predicted
        return np.asarray(same.all(axis=1) if self.multilabel else same)

    @property
    def hits_and_rows(self) -> tuple[int, int]:
        """How many rows are right, and how many there are."""
        return int(self.right.sum()), len(self.right)

    @cached_property
    def classes_of_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """True and predicted class of each row, and the number of classes.

        Where there are more classes than rows can have, the classes that do not occur are merged into one. No
        metric depends on a class without rows. What is no label stays the last class.
        """
        if self.classes <= 2 * len(self.y):
            return self.y, self.predicted, self.classes + self.unlabelled
        occur, index = np.unique(np.concatenate([self.y, self.predicted]), return_inverse=True)
        if self.unlabelled:
            index = np.where(occur[index] == self.classes, len(occur), index)
        return index[: len(self.y)], index[len(self.y) :], len(occur) + 1

    @cached_property
    def cells(self) -> Cells:
        """The non-empty cells of the confusion matrix; not for multilabel rows."""
        return cells_of_rows(*self.classes_of_rows, self.weights)

    @cached_property
    def table(self) -> Floats:
        """(K, K) confusion matrix, by weight; not of multilabel rows, nor where an answer is no label."""
        return confusion_matrix(self.y, self.predicted, self.classes, sample_weight=self.rows)

    def drawn_tables(self, sampling: Sampling) -> Floats:
        """Draw the rows, or groups, with replacement: (B, K, K) confusion matrices."""
        k = self.classes
        many = min(sampling.n_resamples, max(_FEWEST_RESAMPLES, _MOST_CELLS // (10 * k**2)))
        if self.equal:
            return resample_confusion(self.table, many, sampling.seed).astype(np.float64)
        from scipy.sparse import csr_matrix

        units = np.arange(len(self.y)) if self.groups is None else self.groups
        shape = (int(units.max()) + 1, k**2)
        parts = csr_matrix((self.rows, (units, self.y * k + self.predicted)), shape=shape)
        return resample_sums(parts, many, sampling.seed).reshape(-1, k, k)

    def worth(self, sampling: Sampling) -> float:
        """Return how many independent rows a row, or a unit of weight, is worth for the accuracy."""
        if self.equal and not self.multilabel:
            return 1.0
        every = np.arange(len(self.y))
        worth = self.shares(self.right, every, np.zeros_like(every), sampling.confidence).trials[0]
        return float(worth) / float(self.rows.sum())

    @cached_property
    def tables(self) -> Floats:
        """(K, 2, 2) confusion matrices of the labels of multilabel rows."""
        pairs = zip(self.y.T, self.predicted.T, strict=True)
        return np.stack([confusion_matrix(y, said, 2, sample_weight=self.rows) for y, said in pairs])

    @cached_property
    def counts(self) -> ClassCounts:
        """Hits, predicted and true rows of each of the K classes, or labels, by weight."""
        if self.multilabel:
            parts = self.y & self.predicted, self.predicted, self.y
            return split_counts(np.concatenate([self.rows @ part for part in parts]))
        columns = (self.y, self.rows * self.right), (self.predicted, self.rows), (self.y, self.rows)
        many = self.classes
        return ClassCounts(*(np.bincount(side, row, many)[:many].astype(float) for side, row in columns))

    def units_of(self, rows: NDArray[np.int64], classes: NDArray[np.int64]) -> Floats:
        """Count the independent rows, or the groups, of each class among some rows.

        Args:
            rows: (m,) row indices.
            classes: (m,) class of each.

        Returns:
            (K,) numbers. Rows of weight 0 are not counted.
        """
        if self.equal:
            return np.bincount(classes, minlength=self.classes).astype(np.float64)
        groups = None if self.groups is None else self.groups[rows]
        return units_of_classes(classes, self.rows[rows], groups, self.classes)

    def outcomes(self) -> tuple[float, float]:
        """Count the independent rows, or groups, with a right answer, and those with a wrong one."""
        same = (self.y == self.predicted).reshape(len(self.y), -1)
        return (
            effective_units(self.rows * same.any(axis=1), self.groups),
            effective_units(self.rows * ~self.right, self.groups),
        )

    def draws(self, sampling: Sampling) -> ClassCounts:
        """Return (B, K) counts of the classes, or labels, in B resamples of the rows, or groups."""
        if sampling not in self._draws:
            one_by_one = len(self.cells.counts) if self.equal and not self.multilabel else 3 * self.classes
            many = min(sampling.n_resamples, max(_FEWEST_RESAMPLES, _MOST_CELLS // one_by_one))
            if self.equal and not self.multilabel:
                self._draws[sampling] = draw_cells(self.cells, many, sampling.seed)
            else:
                self._draws[sampling] = split_counts(
                    resample_sums(self._contributions(), many, sampling.seed)
                )
        return self._draws[sampling]

    def posterior(self, sampling: Sampling) -> ClassCounts:
        """Return class counts in the shape of `draws`, from a Dirichlet posterior of the table."""
        if sampling not in self._posterior:
            rows = min(len(self.draws(sampling).true), _POSTERIOR_DRAWS), sampling.seed
            scale = self.worth(sampling)
            if self.multilabel:
                tables = class_counts(dirichlet_tables(self.tables * scale, *rows))
                self._posterior[sampling] = ClassCounts(*(part[..., 1] for part in tables))
            else:
                cells = self.cells._replace(counts=self.cells.counts * scale)
                self._posterior[sampling] = dirichlet_counts(cells, *rows)
        return self._posterior[sampling]

    def shares(
        self,
        right: NDArray[np.bool_],
        rows: NDArray[np.int64],
        classes: NDArray[np.int64],
        confidence: float,
    ) -> Shares:
        """Compute the share of hits of each class among some rows, or among pairs of a row and a label.

        Args:
            right: (m,) whether each row or pair is a hit.
            rows: (m,) row index of each.
            classes: (m,) class of each, 0 to K - 1.
            confidence: Nominal coverage, for the quantiles.
        """
        some = self.rows[rows] > 0
        # The labels of a row are not independent of each other, so that each row is a group of labels.
        groups = np.arange(len(self.y)) if self.groups is None and self.multilabel else self.groups
        units = None if groups is None else np.unique(groups[rows[some]], return_inverse=True)[1]
        return effective_shares(right[some], classes[some], self.rows[rows[some]], units, confidence)

    def _contributions(self) -> Any:
        """Return the sparse (units, 3 K) matrix of the class counts of each row, or group."""
        from scipy.sparse import csr_matrix

        if self.multilabel:
            k, (y, said) = self.classes, (self.y, self.predicted)
            parts = [np.nonzero(part) for part in (y & said, said, y)]
        else:
            y, said, k = self.classes_of_rows
            every, hit = np.arange(len(y)), np.flatnonzero(self.right)
            parts = [(hit, y[hit]), (every, said), (every, y)]
        rows = np.concatenate([row for row, _ in parts])
        columns = np.concatenate([column + i * k for i, (_, column) in enumerate(parts)])
        units = rows if self.groups is None else self.groups[rows]
        many = len(self.y) if self.groups is None else int(self.groups.max()) + 1
        return csr_matrix((self.rows[rows], (units, columns)), shape=(many, 3 * k))

    @cached_property
    def pairs(self) -> Sample:
        """The rows as multilabel rows of one label each: an answer that is no label has none."""
        each = np.arange(self.classes)
        y, predicted = ((side[:, None] == each).astype(np.int64) for side in (self.y, self.predicted))
        return Sample(
            y,
            None,
            predicted,
            average=self.average,
            classes=self.classes,
            weights=self.weights,
            groups=self.groups,
        )

    def of_labels(self, counts: ClassCounts) -> ClassCounts:
        """Return class counts, drawn or not, without the answers that are no label."""
        return labels_only(counts) if self.unlabelled else counts

    @cached_property
    def drawn_counts(self) -> ClassCounts:
        """Class counts of the rows, with the classes numbered as in `draws`."""
        return self.counts if self.multilabel else self.cells.class_counts

    def influence(self, of_hits: Floats, of_predicted: Floats, of_true: Floats) -> Floats:
        """Compute the influence of each row, or group, on a metric from its derivatives by the class counts.

        Args:
            of_hits: (K,) derivative by the hits of each class of `drawn_counts`, as shares of all rows.
            of_predicted: (K,) derivative by the predicted rows of each class.
            of_true: (K,) derivative by the true rows of each class.

        Returns:
            (units,) influences of the rows, or the groups; they sum to 0.
        """
        moves = np.concatenate([of_hits, of_predicted, of_true])
        weights = self.rows if self.groups is None else np.bincount(self.groups, weights=self.rows)
        one = self._contributions() @ moves
        return np.asarray(one - weights * (one.sum() / weights.sum()))


class CountedSample(Sample):
    """Rows of one label each, independent and of equal weight, known by their confusion matrix alone.

    Attributes:
        table: (K, K) counts, rows true, columns predicted.
        average: As of a `Sample`.
    """

    def __init__(self, table: NDArray[np.int64], average: str) -> None:
        nothing = np.empty(0, dtype=np.int64)
        super().__init__(nothing, None, nothing, average=average, classes=len(table))
        self.table = table.astype(np.float64)
        self.cells = cells_of(table)
        self.counts = class_counts(table)

    @property
    def hits_and_rows(self) -> tuple[int, int]:
        """How many rows are right, and how many there are."""
        return int(self.counts.hits.sum()), int(self.counts.true.sum())
