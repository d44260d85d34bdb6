"""Out-of-fold answers on their way to a `CrossEvaluation`: the scores of the folds and both intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation import label_thresholds
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation.folds import (
    FoldScores,
    average_of_areas,
    fold_score,
    of_these_models,
    ranking_over_folds,
    recipe_interval,
)
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import decided
from finetune_eval.studies.crossed import CrossEstimate, CrossEvaluation, Fold

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OutOfFold:
    """Rows that were judged by models which never saw them.

    Attributes:
        y: (n,) class indices, or (n, K) zeros and ones.
        p: (repeats, n, K) probabilities.
        fold_of_row: (repeats, n) the fold of each row.
        threshold: From which probability on the second class is the answer, or each label; None for the most
            probable class, and for 0.5.
        average: How precision, recall and F1 are averaged over the classes.
        weights: (n,) weights of the rows, or None.
        groups: (n,) group of each row, or None.
    """

    y: Ints
    p: Floats
    fold_of_row: Ints
    threshold: float | tuple[float, ...] | None
    average: str
    weights: Floats | None
    groups: Ints | None

    @cached_property
    def predicted(self) -> Ints:
        """(repeats, n) class indices of the answers, or (repeats, n, K) zeros and ones."""
        if self.y.ndim == 2:
            return label_thresholds.given(self.p, self.threshold)
        assert not isinstance(self.threshold, tuple)
        return np.stack([decided(p, self.threshold) for p in self.p])

    def score(self, metric: str, repeat: int, rows: Any) -> float:
        """Return a metric of some of the rows, as one repeat answered them."""
        weights = None if self.weights is None else self.weights[rows]
        said = self.predicted[repeat, rows]
        return fold_score(metric, self.y[rows], self.p[repeat, rows], said, self.average, weights)

    def result(
        self,
        evaluation: Evaluation,
        seconds: Sequence[float],
        models: tuple[Any, ...],
        seed: int,
        settings: dict[str, Any],
    ) -> CrossEvaluation:
        """Put the folds' scores and the two intervals of each metric together.

        Args:
            evaluation: Of the probabilities of the first repeat.
            seconds: Of each fold, repeat after repeat.
            models: Those that were kept.
            seed: Of the first training.
            settings: Those of the trainings.
        """
        folds = int(self.fold_of_row.max()) + 1
        records = []
        for place in range(len(self.p) * folds):
            repeat, fold = divmod(place, folds)
            rows = self.fold_of_row[repeat] == fold
            scores = {metric: self.score(metric, repeat, rows) for metric in evaluation.estimates}
            n_test = int(rows.sum())
            records.append(
                Fold(
                    repeat=repeat + 1,
                    number=fold + 1,
                    n_train=len(self.y) - n_test,
                    n_test=n_test,
                    seed=seed + place,
                    seconds=seconds[place],
                    scores=scores,
                )
            )
        estimates, kept = {}, {}
        for metric, pooled in evaluation.estimates.items():
            of_folds = tuple(record.scores[metric] for record in records)
            if not np.isfinite(of_folds).all():  # the rows of a fold do not have it
                continue
            models_estimate = self._of_these_models(metric, pooled, of_folds)
            recipe = recipe_interval(
                metric, models_estimate.value, of_folds, 1 / (folds - 1), models=models_estimate
            )
            estimates[metric] = CrossEstimate(models_estimate.value, models_estimate, recipe)
            kept[metric] = of_folds
        values = {metric: estimate.value for metric, estimate in estimates.items()}
        compared = FoldScores(self.fold_of_row, values, kept, self.average)
        return CrossEvaluation(evaluation, tuple(records), estimates, compared, self.p, models, settings)

    def _of_these_models(self, metric: str, pooled: Estimate, of_folds: Sequence[float]) -> Estimate:
        """Return the estimate of the models that were trained.

        Of several repeats the value is their mean; the interval keeps the width of the first, which is not
        too narrow.
        """
        if METRICS[metric].source == "ranking":
            mean = float(np.mean(of_folds))
            first = self._ranked(metric, pooled, mean)
        else:
            later = [self.score(metric, repeat, slice(None)) for repeat in range(1, len(self.p))]
            mean, first = float(np.mean([pooled.value, *later])), of_these_models(pooled)
        moved = mean - first.value
        low = max(METRICS[metric].low, first.low + moved)
        high = min(METRICS[metric].high, first.high + moved)
        return dataclasses.replace(first, value=mean, low=low, high=high)

    def _ranked(self, metric: str, pooled: Estimate, mean: float) -> Estimate:
        """Return the mean AUC of the first repeat's folds, with wide limits where it shows no variance."""
        found = ranking_over_folds(
            metric,
            self.y,
            self.p[0],
            self.fold_of_row[0],
            average_of_areas(self.y, self.p.shape[2]),
            confidence=pooled.confidence,
            weights=self.weights,
            groups=self.groups,
        )
        return found or dataclasses.replace(
            pooled,
            value=mean,
            low=min(pooled.low, mean),
            high=max(pooled.high, mean),
            method=f"{pooled.method}, of all folds ranked together",
        )
