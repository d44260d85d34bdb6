"""The rows of several evaluations, checked to be the same rows in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.intervals import Ranking, ranking_influence
from finetune_eval.evaluation.metrics import row_brier

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Checked options of a comparison."""

    metric: str
    alpha: float
    average: str
    n_resamples: int
    seed: int
    groups: NDArray[np.int64] | None

    @property
    def confidence(self) -> float:
        """Nominal coverage of the intervals."""
        return 1 - self.alpha


class ScoredRows:
    """What `compare` needs of an evaluation, as arrays."""

    def __init__(self, evaluation: Evaluation, name: str) -> None:
        frame = evaluation.predictions
        self.name, self.labels, self.frame = name, tuple(evaluation.labels), frame
        self._ranking: list[Ranking | None] = []
        self.average = evaluation.average
        self.multilabel = evaluation.task == "multilabel"
        self.correct = (frame["label"].to_numpy() == frame["prediction"].to_numpy()).astype(np.int64)
        self.loss: Floats = np.asarray(frame["loss"], dtype=np.float64)
        self.weights: Floats | None = frame["weight"].to_numpy(np.float64) if "weight" in frame else None

    def codes(self, column: str) -> NDArray[np.int64]:
        import pandas as pd

        return np.array(pd.Categorical(self.frame[column], categories=self.labels).codes, dtype=np.int64)

    @property
    def probabilities(self) -> Floats:
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


def _check_same_rows(first: ScoredRows, other: ScoredRows) -> None:
    """Raise ValueError unless both were scored on the same rows in the same order."""
    where = f"{first.name} and {other.name} were not scored on the same rows in the same order:"
    then = "Evaluate both on the same test rows."
    if first.labels != other.labels:
        raise ValueError(f"{where} their classes are {first.labels} and {other.labels}. {then}")
    if len(first.frame) != len(other.frame):
        raise ValueError(f"{where} they have {len(first.frame)} and {len(other.frame)} rows. {then}")
    texts = "text_hash" in first.frame and "text_hash" in other.frame
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
    a, b = (np.ones(0) if rows.weights is None else rows.weights for rows in (first, other))
    if not np.array_equal(a, b):
        raise ValueError(f"{where} their row weights differ. {then}")


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
    return rows


def known_groups(rows: Sequence[ScoredRows]) -> NDArray[np.int64] | None:
    """Return the groups that the evaluations were made with, the same in all that have any."""
    known = [(row.name, row.frame["group"].to_numpy()) for row in rows if "group" in row.frame]
    for name, groups in known[1:]:
        if not np.array_equal(groups, known[0][1]):
            raise ValueError(f"{known[0][0]} and {name} were made with different groups; pass `groups`.")
    return known[0][1] if known else None
