"""The rows of several evaluations, checked to be the same rows in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation.folds import FoldScores
from finetune_eval.evaluation.metrics import row_brier
from finetune_eval.evaluation.rankings import Ranking, ranking_influence

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Checked options of a comparison."""

    metric: str
    average: str
    n_resamples: int
    seed: int
    groups: NDArray[np.int64] | None


class ScoredRows:
    """What a comparison needs of an evaluation, as arrays.

    Attributes:
        name: What the model is called.
        labels: The class names.
        frame: The table of predictions.
        average: How the evaluation averages precision, recall and F1 over the classes.
        multilabel: Whether a row may have several labels.
        correct: (n,) 1 where the row is right, else 0.
        loss: (n,) log-loss of each row.
        weights: (n,) weights of mean 1; None where all rows count the same.
        folds: The scores of the folds of a cross-evaluation; None of an evaluation.
    """

    def __init__(self, evaluation: Any, name: str) -> None:
        self.folds: FoldScores | None = getattr(evaluation, "fold_scores", None)
        if self.folds is not None:
            evaluation = evaluation.evaluation
        frame = evaluation.predictions
        self.name, self.labels, self.frame = name, tuple(evaluation.labels), frame
        self._ranking: list[Ranking | None] = []
        self._codes: dict[str, NDArray[np.int64]] = {}
        self.average = evaluation.average
        self.multilabel = evaluation.task == "multilabel"
        self.correct = (frame["label"].to_numpy() == frame["prediction"].to_numpy()).astype(np.int64)
        self.loss: Floats = np.asarray(frame["loss"], dtype=np.float64)
        self.weights = _of_mean_1(frame["weight"].to_numpy(np.float64)) if "weight" in frame else None
        self._identified, self._hash = evaluation.identified, evaluation.rows_hash

    def codes(self, column: str) -> NDArray[np.int64]:
        """Return (n,) class indices of a column of class names; computed once."""
        import pandas as pd

        if column not in self._codes:
            found = pd.Categorical(self.frame[column], categories=self.labels).codes
            self._codes[column] = np.array(found, dtype=np.int64)
        return self._codes[column]

    @cached_property
    def probabilities(self) -> Floats:
        """(n, K) probabilities of the classes."""
        return np.asarray(self.frame[[f"p_{label}" for label in self.labels]], dtype=np.float64)

    def of_rows(self, metric: str) -> Floats:
        """Return the number a row that `metric` is the mean of."""
        if metric == "accuracy":
            return np.asarray(self.correct, dtype=np.float64)
        if metric == "loss":
            return self.loss
        return row_brier(self.codes("label"), self.probabilities)

    def ranking(self, settings: Settings) -> Ranking | None:
        """Return the AUC and the influence of each row; computed once."""
        if not self._ranking:
            y = self.codes("label")
            self._ranking.append(
                ranking_influence(
                    settings.metric, y, self.probabilities, settings.average, self.weights, settings.groups
                )
            )
        return self._ranking[0]

    @property
    def has_texts(self) -> bool:
        """Whether the rows are known by their texts."""
        return "text_hash" in self.frame

    @property
    def has_names(self) -> bool:
        """Whether the ids are other than 0, 1, 2, ..., which rows without ids have too."""
        ids = self.frame["id"].to_numpy()
        return ids.dtype.kind not in "iu" or not bool((ids == np.arange(len(ids))).all())

    @cached_property
    def contents_hash(self) -> str | None:
        """Return the hash of what the rows hold, where they are known by that: not by texts or ids."""
        if not self._identified or self.has_texts or self.has_names or self.multilabel:
            return None
        of_ids = rows_hash(self.frame["id"].to_numpy(), self.codes("label"))
        return None if self._hash == of_ids else self._hash

    def surely_pairs_with(self, other: ScoredRows) -> bool:
        """Return whether more than the order says which row is which, once both were checked."""
        if self.has_texts and other.has_texts or self.has_names:
            return True
        if not (self._identified and other._identified) or self.has_texts or other.has_texts:
            return False
        return (self.contents_hash is None) == (other.contents_hash is None)


def _of_mean_1(weights: Floats) -> Floats | None:
    """Scale weights to the mean 1; None where all are the same: they say nothing."""
    scaled = weights / weights.max()
    return None if (scaled == 1).all() else np.asarray(scaled / scaled.mean())


def _check_same_rows(first: ScoredRows, other: ScoredRows) -> None:
    """Raise ValueError unless both were scored on the same rows in the same order."""
    where = f"{first.name} and {other.name} were not scored on the same rows in the same order:"
    then = "Evaluate both on the same test rows."
    if first.labels != other.labels:
        raise ValueError(f"{where} their classes are {first.labels} and {other.labels}. {then}")
    if len(first.frame) != len(other.frame):
        raise ValueError(f"{where} they have {len(first.frame)} and {len(other.frame)} rows. {then}")
    texts = first.has_texts and other.has_texts
    for column in ("text_hash" if texts else "id", "label"):
        a, b = first.frame[column].to_numpy(), other.frame[column].to_numpy()
        differ = (
            np.flatnonzero(a.astype(str) != b.astype(str)) if a.dtype != b.dtype else np.flatnonzero(a != b)
        )
        if len(differ):
            row = int(differ[0])
            order = ""
            if column != "label" and sorted(map(str, a)) == sorted(map(str, b)):
                order = " The rows are the same, their order is not: sort both alike."
            raise ValueError(
                f"{where} row {row} has {column} {str(a[row])!r} in {first.name} and {str(b[row])!r} in "
                f"{other.name}.{order or ' ' + then}"
            )
    contents = first.contents_hash, other.contents_hash
    if not texts and None not in contents and contents[0] != contents[1]:
        raise ValueError(f"{where} what the rows hold differs. {then}")
    a, b = (np.ones(len(rows.frame)) if rows.weights is None else rows.weights for rows in (first, other))
    if not np.allclose(a, b, rtol=1e-9, atol=0):
        row = int(np.flatnonzero(~np.isclose(a, b, rtol=1e-9, atol=0))[0])
        raise ValueError(f"{where} their row weights differ (first in row {row}). {then}")


def check_same_rows(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[ScoredRows]:
    """Raise ValueError unless all evaluations are of the same rows in the same order.

    Args:
        evaluations: At least one.
        names: What to call each in the error.

    Returns:
        The rows of each.
    """
    rows = [ScoredRows(evaluation, name) for evaluation, name in zip(evaluations, names, strict=True)]
    for other in rows[1:]:
        _check_same_rows(rows[0], other)
        _check_same_folds(rows[0], other)
    return rows


def _check_same_folds(first: ScoredRows, other: ScoredRows) -> None:
    """Raise ValueError where one of two is no cross-evaluation, or both are of different folds."""
    a, b = first.folds, other.folds
    if (a is None) != (b is None):
        crossed, plain = (other, first) if a is None else (first, other)
        raise ValueError(
            f"{crossed.name} is a cross-evaluation and {plain.name} is none. Compare two of a kind; "
            "`.evaluation` of a cross-evaluation compares the models that it trained."
        )
    if a is not None and b is not None and not np.array_equal(a.fold_of_row, b.fold_of_row):
        raise ValueError(
            f"{first.name} and {other.name} were cross-evaluated on different folds. Use the same folds, "
            "repeats, groups and seed for both."
        )


def known_groups(rows: Sequence[ScoredRows]) -> NDArray[np.int64] | None:
    """Return the groups that the evaluations were made with, the same in all that have any."""
    known = [(row.name, row.frame["group"].to_numpy()) for row in rows if "group" in row.frame]
    for name, groups in known[1:]:
        if not np.array_equal(groups, known[0][1]):
            raise ValueError(f"{known[0][0]} and {name} were made with different groups; pass `groups`.")
    return known[0][1] if known else None
