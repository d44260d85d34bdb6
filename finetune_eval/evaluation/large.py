"""Evaluation larger than memory: statistics of parts of the rows, which add up to an evaluation of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._additive import Additive
from finetune_eval.evaluation._counts import Counts
from finetune_eval.evaluation._of_counts import evaluation_of
from finetune_eval.evaluation._options import Asked, checked_options
from finetune_eval.evaluation._reading import (
    AT_ONCE,
    Reader,
    as_arrow,
    classes_of,
    column_names,
    located,
    readings_of,
)
from finetune_eval.evaluation._result import LargeEvaluation
from finetune_eval.evaluation.thresholds import Threshold

__all__ = ["LargeEvaluation", "Statistics"]


class Statistics(Additive):
    """What rows with probabilities add up to, in a megabyte, however many there are.

    Statistics of parts of the rows are added with `+`. Counts, and the totals that losses are made of, are
    exact: they are the same to the bit for any split and any order of the rows. ROC-AUC, PR-AUC and
    calibration are made of histograms with up to 65,536 bins, and their `.method` says within which limits
    the exact area lies.

    Rows have one label each and equal weight. Weights, groups, several labels a row and answers without
    probabilities are refused.

    Args:
        labels: The K class names, in the order of their places.
        threshold: As for `evaluate_predictions`.
        metadata: Names of columns in whose values weak parts of the rows are looked for.

    Example:
        >>> empty = Statistics(["ham", "spam"])
        >>> monday = empty.of({"label": ["ham", "spam"], "p_ham": [0.9, 0.2], "p_spam": [0.1, 0.8]})
        >>> tuesday = empty.of({"label": ["spam"], "p_ham": [0.7], "p_spam": [0.3]})
        >>> (monday + tuesday).n, round((monday + tuesday).finish().accuracy, 3)
        (3, 0.667)
    """

    _counts: Counts
    _alike = "labels, threshold and metadata"

    def __init__(
        self,
        labels: Sequence[str],
        *,
        threshold: float | Threshold | None = None,
        metadata: Sequence[str] = (),
    ) -> None:
        self.labels = classes_of(labels)
        self.metadata = column_names(metadata)
        self._asked = threshold
        one = checked_options(1, self.labels, Asked(threshold=threshold)).threshold
        assert not isinstance(one, tuple)  # each row has one class
        self.threshold = one
        self._counts = Counts(len(self.labels), self.metadata)
        self._read = {}

    @property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """(K, K) rows true, columns predicted."""
        return self._counts.table

    def empty(self) -> Statistics:
        """Return statistics of no rows, of the same classes and settings."""
        return Statistics(self.labels, threshold=self._asked, metadata=self.metadata)

    def of(self, table: Any, *, source: str = "", start: int = 0) -> Statistics:
        """Return the statistics of a part of the rows.

        Args:
            table: A pyarrow Table or RecordBatch, a DataFrame, or a dictionary of columns: `label` (or
                `y_true`, `target`) and `p_<class>` of each class, or `probability` (or `score`, `p`) of the
                second of two. `id` is used where it is there.
            source: What the rows are of, such as the name of a file: for errors, and for the worst rows.
            start: The row of the source that the first row of the table is.

        Returns:
            Statistics of these rows alone.

        Raises:
            ValueError: A column is missing, or a label or a probability cannot be one; the sentence names the
                source and the first such row.
        """
        made = self.empty()
        made.count(table, source=source, start=start)
        return made

    def count(self, table: Any, *, source: str = "", start: int = 0) -> None:
        """Add the rows of a table, or none of them where one is wrong; arguments and errors as in `of`."""
        table = as_arrow(table)
        reader = Reader(table.column_names, self.labels, self.metadata, source)
        counts, read = Counts(len(self.labels), self.metadata), dict[str, int]()
        for first in range(0, table.num_rows, AT_ONCE):
            part = table.slice(first, AT_ONCE)
            try:
                y, p, mended, seen = reader.rows(part)
            except (TypeError, ValueError) as error:
                raise located(error, reader, part, source, start + first) from None
            read = readings_of(read, seen, self.labels, source)
            counts.count(
                y,
                p,
                mended,
                threshold=self.threshold,
                columns=reader.values(part),
                source=source,
                start=start + first,
                ids=reader.ids(part),
            )
        self._add(counts, read, source)

    def finish(
        self,
        *,
        average: str = "auto",
        metrics: Sequence[str] = (),
        confidence: float = 0.95,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> LargeEvaluation:
        """Return the evaluation of all rows that were counted; arguments as for `evaluate_predictions`.

        Args:
            average: As for `evaluate_predictions`.
            metrics: As for `evaluate_predictions`.
            confidence: As for `evaluate_predictions`.
            n_resamples: As for `evaluate_predictions`.
            seed: As for `evaluate_predictions`.

        Returns:
            The evaluation. It keeps no rows but the worst: `predictions`, and what is made of them, say so.

        Raises:
            ValueError: No row was counted, or an argument is out of range.
        """
        asked = Asked(
            threshold=self._asked,
            average=average,
            metrics=metrics,
            confidence=confidence,
            n_resamples=n_resamples,
            seed=seed,
        )
        options = checked_options(max(self.n, 1), self.labels, asked)
        if not self.n:
            raise ValueError("There are no rows; at least one is needed.")
        return evaluation_of(self._counts, self.labels, options)

    def _counts_of(self, data: bytes) -> tuple[Counts, dict[str, Any]]:
        return Counts.from_bytes(data)

    def settings(self) -> dict[str, Any]:
        """Return labels, threshold and metadata, as JSON data."""
        return {"labels": list(self.labels), "threshold": self.threshold, "metadata": list(self.metadata)}
