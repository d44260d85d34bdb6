"""The rows of several evaluations, checked to be the same rows, and put into the same order by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation.folds import FoldScores
from finetune_eval.evaluation.metrics import METRICS
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
    """What a comparison needs of an evaluation, as arrays; rows of weight 0 are not among these.

    Attributes:
        name: What the model is called.
        labels: The class names.
        frame: The table of predictions, of all rows.
        counts: (all rows) which rows have a weight above 0; None where all have.
        average: How the evaluation averages precision, recall and F1 over the classes.
        multilabel: Whether a row may have several labels.
        correct: (n,) 1 where the row is right, else 0.
        has_probabilities: Whether the model gave probabilities, and not answers only.
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
        self.average = evaluation.average
        self.multilabel = evaluation.task == "multilabel"
        self.has_probabilities = "loss" in frame
        self._identified, self._hash = evaluation.identified, evaluation.rows_hash
        self._read_rows()

    def _read_rows(self) -> None:
        self._codes: dict[str, NDArray[np.int64]] = {}
        self.counts = None
        if "weight" in self.frame and not self.frame["weight"].all():
            self.counts = (self.frame["weight"] > 0).to_numpy()
        frame = self._counted = self.frame if self.counts is None else self.frame[self.counts]
        self.correct = (frame["label"].to_numpy() == frame["prediction"].to_numpy()).astype(np.int64)
        self.weights = _of_mean_1(frame["weight"].to_numpy(np.float64)) if "weight" in frame else None

    @property
    def ids(self) -> NDArray[Any] | None:
        """(n,) ids that somebody gave the rows, each another; None where they are only counted."""
        ids = self.frame["id"].to_numpy()
        given = self.has_names or (
            self._identified and not self.has_texts and not self.multilabel and self.contents_hash is None
        )
        return ids if given and self.frame["id"].is_unique else None

    def in_order_of(self, other: ScoredRows) -> None:
        """Put the rows into the order of another's where both have the same ids in different orders.

        Nothing changes where they have not: then the order says which row is which, and it is checked.
        """
        mine, theirs = self.ids, other.ids
        if mine is None or theirs is None or len(mine) != len(theirs) or (mine == theirs).all():
            return
        place = {name: row for row, name in enumerate(mine.tolist())}
        order = [place.get(name, -1) for name in theirs.tolist()]
        if -1 not in order:
            self.frame = self.frame.iloc[order].reset_index(drop=True)
            self._read_rows()

    def codes(self, column: str) -> NDArray[np.int64]:
        """Return (n,) class indices of a column of class names, K for no label; computed once."""
        if column not in self._codes:
            self._codes[column] = self._places(self._counted[column])
        return self._codes[column]

    def _places(self, words: Any) -> NDArray[np.int64]:
        import pandas as pd

        codes = np.asarray(pd.Index(self.labels).get_indexer(words), dtype=np.int64)
        return np.where(codes < 0, len(self.labels), codes)

    @cached_property
    def unlabelled(self) -> bool:
        """Whether some answer is no label."""
        return not self.multilabel and bool((self.codes("prediction") == len(self.labels)).any())

    @cached_property
    def loss(self) -> Floats:
        """(n,) log-loss of each row."""
        return np.asarray(self._counted["loss"], dtype=np.float64)

    def answers_as(self, other: ScoredRows) -> bool:
        """Return whether both give every row the same probabilities; the same answer where one has none."""
        if self.has_probabilities and other.has_probabilities:
            return np.array_equal(self.loss, other.loss)
        return self.predicts_as(other)

    def predicts_as(self, other: ScoredRows) -> bool:
        """Return whether both give every row the same class, or labels."""
        return bool((self._counted["prediction"].to_numpy() == other._counted["prediction"].to_numpy()).all())

    @cached_property
    def probabilities(self) -> Floats:
        """(n, K) probabilities of the classes."""
        return np.asarray(self._counted[[f"p_{label}" for label in self.labels]], dtype=np.float64)

    @cached_property
    def entropy(self) -> Floats:
        """(n,) entropy of the probabilities of each row, each class taken by itself."""
        return entropy(self.probabilities)

    def of_rows(self, metric: str) -> Floats:
        """Return the number a row that `metric` is the mean of."""
        if metric == "accuracy":
            return np.asarray(self.correct, dtype=np.float64)
        if metric == "loss":
            return self.loss
        function = METRICS[metric].function
        assert function is not None
        return function(self.codes("label"), self.probabilities)

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
    def shares(self) -> Floats:
        """(all rows) what each weighs, of 1 in all."""
        weights = self.frame["weight"] if "weight" in self.frame else np.ones(len(self.frame))
        scaled = np.asarray(weights, dtype=np.float64) / np.max(
            weights
        )  # sums of the largest numbers overflow
        return np.asarray(scaled / scaled.sum())

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
        of_ids = rows_hash(self.frame["id"].to_numpy(), self._places(self.frame["label"]))
        return None if self._hash == of_ids else self._hash

    def surely_pairs_with(self, other: ScoredRows) -> bool:
        """Return whether more than the order says which row is which, once both were checked."""
        if self.has_texts and other.has_texts or self.has_names:
            return True
        if not (self._identified and other._identified) or self.has_texts or other.has_texts:
            return False
        return (self.contents_hash is None) == (other.contents_hash is None)


def entropy(probabilities: Floats) -> Floats:
    """Return (n,) how unsure (n, K) probabilities are, each class taken by itself."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-15, 1 - 1e-15)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(axis=1))


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
                order = (
                    " The rows are the same, their order is not: sort both alike, or give every row of both "
                    "an id of its own."
                )
            raise ValueError(
                f"{where} row {row} has {column} {str(a[row])!r} in {first.name} and {str(b[row])!r} in "
                f"{other.name}.{order or ' ' + then}"
            )
    contents = first.contents_hash, other.contents_hash
    if not texts and None not in contents and contents[0] != contents[1]:
        raise ValueError(f"{where} what the rows hold differs. {then}")
    a, b = (rows.shares for rows in (first, other))
    if not np.allclose(a, b, rtol=1e-9, atol=0):
        row = int(np.flatnonzero(~np.isclose(a, b, rtol=1e-9, atol=0))[0])
        raise ValueError(f"{where} their row weights differ (first in row {row}). {then}")


def check_same_rows(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[ScoredRows]:
    """Raise ValueError unless all evaluations are of the same rows, in the same order or with the same ids.

    Args:
        evaluations: At least one.
        names: What to call each in the error.

    Returns:
        The rows of each, all in the order of the first.
    """
    rows = [ScoredRows(evaluation, name) for evaluation, name in zip(evaluations, names, strict=True)]
    for other in rows[1:]:
        other.in_order_of(rows[0])
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
