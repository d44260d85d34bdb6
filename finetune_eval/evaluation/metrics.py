"""The table of metrics: what each means, which direction is better, and the function that estimates it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import one_of
from finetune_eval.evaluation import confusion as formulas
from finetune_eval.evaluation import scores
from finetune_eval.evaluation.confusion import (
    AVERAGES,
    ClassCounts,
    class_counts,
    confusion_matrix,
    labels_only,
    per_class_scores,
    precision_recall_f1,
    resolve_average,
    scores_from_counts,
)
from finetune_eval.evaluation.losses import SMALLEST_PROBABILITY, row_brier, row_loss, top_k_hits
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import Sample, Sampling

__all__ = [
    "AVERAGES",
    "METRICS",
    "SMALLEST_PROBABILITY",
    "ClassCounts",
    "Metric",
    "class_counts",
    "confusion_matrix",
    "from_confusion",
    "per_class_scores",
    "precision_recall_f1",
    "resolve_average",
    "row_brier",
    "row_loss",
    "scores_from_counts",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the library knows about a metric.

    Attributes:
        title: What a table calls it.
        meaning: What it is, in words; `sections.metric_meaning` puts the class, the average and the loss of
            guessing where {one}, {over}, {in_every_label} and {guessing} stand.
        unit: "share" (of rows, in [0, 1]), "correlation" (in [-1, 1]), "nats" or "squared error".
        direction: "higher" or "lower" is better.
        source: "confusion" (a function of the class counts), "rows" (a mean over rows), "ranking" (a
            function of the order of the scores), "order" (a function of the confusion matrix of ordered
            classes) or "labels" (a mean over rows of what their several labels are worth).
        low: The smallest possible value.
        high: The largest possible value (of the log-loss: that of a true class given probability 0).
        function: (class counts (..., K), average) -> (...) for "confusion"; (y_true, probabilities) ->
            (n,) for "rows"; None for the others: "ranking" is computed by `rankings` with its variance.
        interval: The estimate of a sample, with the interval that was chosen by simulated coverage
            (docs/statistics.md); None where the rows do not have the metric.
        averaged: Whether `average` says what it is of: one class, or which mean over the classes.
        multilabel: Whether rows with any number of labels have it.
        single: Whether rows of one label each have it.
        main: Whether it is among the few that are computed wherever rows are scored.
        asked: Whether it is computed only where somebody asked for it.
        probabilities: Whether it needs probabilities.
        classes: Fewest and most classes that it can be of; evaluations of other numbers leave it out.
    """

    title: str
    meaning: str
    unit: Literal["share", "correlation", "nats", "squared error"] = "share"
    direction: Literal["higher", "lower"] = "higher"
    source: Literal["confusion", "rows", "ranking", "order", "labels"]
    low: float = 0.0
    high: float = 1.0
    function: Callable[..., Floats] | None
    interval: Callable[[Sample, Sampling], Estimate | None]
    averaged: bool = False
    multilabel: bool = True
    single: bool = True
    main: bool = False
    asked: bool = False
    probabilities: bool = False
    classes: tuple[int, float] = (2, math.inf)

    @property
    def is_loss(self) -> bool:
        """Whether differences of it are told in its own unit, and not in points."""
        return self.unit in ("nats", "squared error")

    def suits(self, classes: int) -> bool:
        """Whether it can be of so many classes."""
        fewest, most = self.classes
        return fewest <= classes <= most

    def check_classes(self, argument: str, name: str, classes: int) -> None:
        """Raise where it cannot be of so many classes; `argument` is what named it."""
        if not self.suits(classes):
            fewest, most = self.classes
            needs = f"exactly {fewest}" if fewest == most else f"at least {fewest}"
            raise ValueError(f"`{argument}` {name!r} needs {needs} classes; there are {classes}.")


# In the order in which reports show them.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        title="accuracy",
        meaning="share of rows that are right{in_every_label}",
        source="confusion",
        function=formulas.accuracy,
        interval=scores.accuracy,
        main=True,
    ),
    "precision": Metric(
        title="precision",
        meaning="of the rows predicted as {one}, the share that is{over}",
        source="confusion",
        function=formulas.averaged_score("precision"),
        interval=scores.precision,
        averaged=True,
        main=True,
    ),
    "recall": Metric(
        title="recall",
        meaning="of the rows that are {one}, the share that was predicted so{over}",
        source="confusion",
        function=formulas.averaged_score("recall"),
        interval=scores.recall,
        averaged=True,
        main=True,
    ),
    "f1": Metric(
        title="F1",
        meaning="harmonic mean of precision and recall{over}",
        source="confusion",
        function=formulas.averaged_score("f1"),
        interval=scores.f1,
        averaged=True,
        main=True,
    ),
    "loss": Metric(
        title="log-loss",
        meaning="mean of -log(probability given to the truth); lower is better{guessing}",
        unit="nats",
        direction="lower",
        source="rows",
        high=-float(np.log(SMALLEST_PROBABILITY)),
        function=row_loss,
        interval=scores.log_loss,
        probabilities=True,
        main=True,
    ),
    "balanced_accuracy": Metric(
        title="balanced accuracy",
        meaning="recall, averaged over the classes; 1 / (number of classes) is guessing",
        source="confusion",
        function=formulas.balanced_accuracy,
        interval=scores.balanced_accuracy,
        multilabel=False,
    ),
    "mcc": Metric(
        title="MCC",
        meaning="correlation of prediction and truth: 0 is guessing, 1 is perfect",
        unit="correlation",
        source="confusion",
        low=-1.0,
        function=formulas.mcc,
        interval=scores.table_metric(formulas.mcc, low=-1.0),
        multilabel=False,
    ),
    "kappa": Metric(
        title="kappa",
        meaning="agreement beyond what the class sizes alone would give: 0 is guessing",
        unit="correlation",
        source="confusion",
        low=-1.0,
        function=formulas.kappa,
        interval=scores.table_metric(formulas.kappa, low=-1.0),
        multilabel=False,
    ),
    "roc_auc": Metric(
        title="ROC-AUC",
        meaning="how often a row of the class is ranked above one that is not: 0.5 is guessing",
        source="ranking",
        function=None,
        interval=scores.roc_auc,
        probabilities=True,
    ),
    "pr_auc": Metric(
        title="PR-AUC",
        meaning="precision, averaged over every level of recall; the share of the class is guessing",
        source="ranking",
        function=None,
        interval=scores.pr_auc,
        probabilities=True,
    ),
    "brier": Metric(
        title="Brier",
        meaning="mean squared error of the probabilities; lower is better",
        unit="squared error",
        direction="lower",
        source="rows",
        high=2.0,
        function=row_brier,
        interval=scores.brier_score,
        probabilities=True,
    ),
    "f0.5": Metric(
        title="F0.5",
        meaning="weighted harmonic mean of precision and recall{over}; precision counts four times as much",
        source="confusion",
        function=formulas.averaged_score("f0.5"),
        interval=scores.f_beta("f0.5"),
        averaged=True,
        asked=True,
    ),
    "f2": Metric(
        title="F2",
        meaning="weighted harmonic mean of precision and recall{over}; recall counts four times as much",
        source="confusion",
        function=formulas.averaged_score("f2"),
        interval=scores.f_beta("f2"),
        averaged=True,
        asked=True,
    ),
    "specificity": Metric(
        title="specificity",
        meaning="share of the rows of the first of two classes that are predicted as it",
        source="confusion",
        function=formulas.of_first_class("recall"),
        interval=scores.specificity,
        multilabel=False,
        asked=True,
        classes=(2, 2),
    ),
    "npv": Metric(
        title="NPV",
        meaning="negative predictive value: share of rows predicted as the first of two classes that are it",
        source="confusion",
        function=formulas.of_first_class("precision"),
        interval=scores.npv,
        multilabel=False,
        asked=True,
        classes=(2, 2),
    ),
    **{
        f"top_{k}_accuracy": Metric(
            title=f"top-{k} accuracy",
            meaning=f"share of rows whose class is among the {k} most probable ones",
            source="rows",
            function=top_k_hits(k),
            interval=scores.top_k_accuracy(k),
            multilabel=False,
            asked=True,
            probabilities=True,
            classes=(k + 1, math.inf),
        )
        for k in (2, 3, 5, 10)
    },
    "linear_kappa": Metric(
        title="linear kappa",
        meaning="kappa of classes in order: an error counts by how many places it is off",
        unit="correlation",
        source="order",
        low=-1.0,
        function=None,
        interval=scores.weighted_kappa(1),
        multilabel=False,
        asked=True,
    ),
    "quadratic_kappa": Metric(
        title="quadratic kappa",
        meaning="kappa of classes in order: an error counts by the square of how many places it is off",
        unit="correlation",
        source="order",
        low=-1.0,
        function=None,
        interval=scores.weighted_kappa(2),
        multilabel=False,
        asked=True,
    ),
    "hamming": Metric(
        title="Hamming loss",
        meaning="share of all pairs of a row and a label that are wrong; lower is better",
        direction="lower",
        source="labels",
        function=None,
        interval=scores.hamming,
        single=False,
        asked=True,
    ),
    "samples_f1": Metric(
        title="F1 of rows",
        meaning="mean over the rows of the F1 of their labels; a row without labels that gets none counts 1",
        source="labels",
        function=None,
        interval=scores.samples_f1,
        single=False,
        asked=True,
    ),
}


def from_confusion(
    name: str, confusion: ArrayLike | ClassCounts, average: str = "auto", *, no_label: bool = False
) -> Floats:
    """Compute a metric of the confusion matrix, vectorised over leading axes.

    Args:
        name: The key in `METRICS` of a metric whose source is "confusion", such as "f1".
        confusion: (..., K, K) counts, rows true, columns predicted; or their `class_counts`.
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted"; used by precision,
            recall and F1.
        no_label: Whether the last class stands for answers that are no label: nothing is truly of it, and
            averages over the classes leave it out.

    Returns:
        (...) float64; 0 where the metric is 0 / 0 (one class only in MCC and kappa).

    Raises:
        ValueError: The name or the average is unknown, or the matrix is not square.

    Example:
        >>> from_confusion("f1", [[8, 2], [1, 9]], "macro").round(4).item()
        0.8496

    Reference:
        MCC of K classes: Gorodkin 2004, Comput. Biol. Chem. 28:367-374. Kappa: Cohen 1960.
    """
    one_of("name", name, [key for key, metric in METRICS.items() if metric.source == "confusion"])
    counts = class_counts(confusion)
    metric = METRICS[name]
    assert metric.function is not None
    classes = counts.true.shape[-1] - no_label
    if not metric.suits(classes):
        raise ValueError(f"`name` {name!r} is of two classes; `confusion` has {classes}.")
    average = resolve_average(average, counts.true.shape[-1] - no_label)
    values = metric.function(labels_only(counts) if no_label and metric.averaged else counts, average)
    return np.clip(values, metric.low, metric.high)  # sums of weights round: an MCC of -1.0000000000000002
