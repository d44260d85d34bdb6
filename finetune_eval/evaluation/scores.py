"""Estimates of each metric, with an interval; `metrics.METRICS` names the function of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation import confusion as formulas
from finetune_eval.evaluation._limits import quantile, times
from finetune_eval.evaluation.cells import dirichlet_tables
from finetune_eval.evaluation.confusion import ClassCounts, split_counts
from finetune_eval.evaluation.losses import (
    SMALLEST_PROBABILITY,
    brier_costs,
    expected_loss,
    log_costs,
    row_brier,
    row_f1,
    row_loss,
    ruled_out,
    top_k_hits,
)
from finetune_eval.evaluation.means import loss_interval
from finetune_eval.evaluation.proportions import modified_wilson_limits
from finetune_eval.evaluation.rankings import ranking_interval
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import Sample, Sampling
from finetune_eval.evaluation.shares import score_limits
from finetune_eval.evaluation.tables import Support, few_outcomes, resampled_interval, support_of
from finetune_eval.evaluation.units import FEW_ROWS, degrees_of_freedom, effective_units

Floats = NDArray[np.float64]
Formula = Callable[[ClassCounts, str], Floats]
# With more classes than this, influences of rows on a metric are not computed: they take a table for each
# class.
_MOST_CLASSES = 100


def log_loss(sample: Sample, sampling: Sampling) -> Estimate | None:
    """Estimate the mean log-loss; None of answers without probabilities."""
    if sample.p is None:
        return None
    return loss_interval(
        row_loss(sample.y, sample.p),
        confidence=sampling.confidence,
        high=-float(np.log(SMALLEST_PROBABILITY)),
        expected=expected_loss(sample.p, log_costs, multilabel=sample.multilabel),
        ruled=ruled_out(sample.y, sample.p),
        weights=sample.weights,
        groups=sample.groups,
        doubt=_few_wrong_groups(sample),
    )


def brier_score(sample: Sample, sampling: Sampling) -> Estimate | None:
    """Estimate the mean Brier score, which is a sum over the classes (at most 2) where there are over two."""
    if sample.p is None:
        return None
    return loss_interval(
        row_brier(sample.y, sample.p),
        confidence=sampling.confidence,
        high=1.0 if sample.multilabel or sample.classes == 2 else 2.0,
        expected=expected_loss(sample.p, brier_costs, multilabel=sample.multilabel),
        weights=sample.weights,
        groups=sample.groups,
        doubt=_few_wrong_groups(sample),
    )


def _few_wrong_groups(sample: Sample) -> str:
    """Return that few groups hold the wrong rows, where they do: the worst groups may then be missing."""
    return "" if sample.groups is None else few_outcomes(*sample.outcomes(), sample.unit)


def roc_auc(sample: Sample, sampling: Sampling) -> Estimate | None:
    """Estimate the ROC-AUC of the second of two classes, or the mean ROC-AUC of more classes."""
    return _ranking("roc_auc", sample, sampling)


def pr_auc(sample: Sample, sampling: Sampling) -> Estimate | None:
    """Estimate the PR-AUC of the second of two classes, or the mean PR-AUC of more classes."""
    return _ranking("pr_auc", sample, sampling)


def _ranking(name: str, sample: Sample, sampling: Sampling) -> Estimate | None:
    if sample.p is None:
        return None
    binary = not sample.multilabel and sample.classes == 2
    return ranking_interval(
        name,
        sample.y,
        np.asarray(sample.p, dtype=np.float64),
        "binary" if binary else "macro",
        confidence=sampling.confidence,
        weights=sample.weights,
        groups=sample.groups,
    )


def accuracy(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the share of right rows (multilabel: of rows that are right in every label)."""
    if sample.equal:
        return of_counts(*sample.hits_and_rows, sampling)
    return _share(sample, sample.right, np.arange(len(sample.right)), sampling)


def precision(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the precision, averaged as the sample says."""
    return _averaged("precision", sample, sampling)


def recall(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the recall, averaged as the sample says."""
    return _averaged("recall", sample, sampling)


def f1(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate F1, averaged as the sample says."""
    return _averaged("f1", sample, sampling)


def _averaged(name: str, sample: Sample, sampling: Sampling) -> Estimate:
    average = sample.average
    if average == "binary":
        return of_class(name, 1, sample, sampling)
    # The mean of recalls, weighted by the rows of the classes, is the share of hits among all rows.
    if average == "micro" or (average == "weighted" and name == "recall"):
        if sample.multilabel:
            return _of_pairs(name, sample, sampling)
        # A row that is answered by no label is predicted as nothing.
        unlike = sample.unlabelled and name != "recall"
        return _of_pairs(name, sample.pairs, sampling) if unlike else accuracy(sample, sampling)
    if average == "macro" and name != "f1":
        return mean_over_classes(name, sample, sampling)
    formula = formulas.averaged_labels(name) if sample.multilabel else formulas.averaged_score(name)
    return of_table(formula, sample, sampling, mean=average == "macro", labels=True)


def f_beta(name: str) -> Callable[[Sample, Sampling], Estimate]:
    """Return the function that estimates F-beta ("f2", "f0.5"), averaged as the sample says."""

    def estimate(sample: Sample, sampling: Sampling) -> Estimate:
        if sample.average == "micro" and not (sample.multilabel or sample.unlabelled):
            return accuracy(sample, sampling)
        formula = formulas.averaged_labels(name) if sample.multilabel else formulas.averaged_score(name)
        return of_table(formula, sample, sampling, mean=sample.average == "macro", labels=True)

    return estimate


def specificity(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the recall of the first of two classes."""
    return of_class("recall", 0, sample, sampling)


def npv(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the precision of the first of two classes."""
    return of_class("precision", 0, sample, sampling)


def top_k_accuracy(k: int) -> Callable[[Sample, Sampling], Estimate | None]:
    """Return the function that estimates the share of rows whose class is among the `k` most probable."""

    def estimate(sample: Sample, sampling: Sampling) -> Estimate | None:
        if sample.p is None:
            return None
        hits = top_k_hits(k)(sample.y, sample.p) > 0
        if sample.equal:
            return of_counts(int(hits.sum()), len(hits), sampling)
        return _share(sample, hits, np.arange(len(hits)), sampling)

    return estimate


def hamming(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the share of (row, label) pairs that are wrong."""
    wrong = (sample.y != sample.predicted).ravel()
    return _share(sample, wrong, np.repeat(np.arange(len(sample.y)), sample.classes), sampling)


def samples_f1(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the mean over the rows of the F1 of their labels."""
    missed = loss_interval(
        1 - row_f1(sample.y, sample.predicted),
        confidence=sampling.confidence,
        high=1.0,
        weights=sample.weights,
        groups=sample.groups,
        doubt=_few_wrong_groups(sample),
    )
    return replace(missed, value=1 - missed.value, low=1 - missed.high, high=1 - missed.low)


def weighted_kappa(power: int) -> Callable[[Sample, Sampling], Estimate | None]:
    """Return the function that estimates the kappa of ordered classes.

    Args:
        power: 1 for distances that grow linearly with the places of the classes, 2 for their squares.
    """

    def estimate(sample: Sample, sampling: Sampling) -> Estimate | None:
        if sample.unlabelled:  # an answer that is no label has no place among the classes
            return None
        place = np.arange(sample.classes)
        distances = np.abs(place[:, None] - place).astype(np.float64) ** power

        def kappa(tables: Floats) -> Floats:
            return np.clip(formulas.weighted_kappa(tables, distances), -1.0, 1.0)

        return resampled_interval(
            float(kappa(sample.table)),
            kappa(sample.drawn_tables(sampling)),
            lambda: kappa(dirichlet_tables(sample.table * sample.worth(sampling), 1000, sampling.seed)),
            support_of(sample.counts) if sample.equal else _support(None, sample),
            confidence=sampling.confidence,
            what="confusion matrix" if sample.equal else f"{sample.unit}s",
            bounds=(-1.0, 1.0),
        )

    return estimate


def balanced_accuracy(sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate the mean recall of the classes that have rows."""
    return mean_over_classes("balanced_accuracy", sample, sampling)


def table_metric(formula: Formula, *, low: float = 0.0) -> Callable[[Sample, Sampling], Estimate]:
    """Return the function that estimates a metric of the whole confusion matrix; see `of_table`."""

    def estimate(sample: Sample, sampling: Sampling) -> Estimate:
        return of_table(formula, sample, sampling, low=low)

    return estimate


def of_class(name: str, k: int, sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate precision, recall or F1 of one class.

    Args:
        name: "precision" (the share of hits among the rows predicted as the class), "recall" (among the rows
            of the class) or "f1" (which grows with the share of hits among the rows that are either).
        k: The class.
        sample: The rows.
        sampling: How intervals are made.

    Returns:
        The estimate; 0 with the limits 0 and 1 where there are no such rows.
    """
    hits, predicted, true = (float(part[k]) for part in sample.counts)
    trials = {"precision": predicted, "recall": true, "f1": predicted + true - hits}[name]
    if trials <= 0:
        such = {
            "precision": "predicted as the class",
            "recall": "of the class",
            "f1": "of the class or predicted as it",
        }
        return Estimate(0.0, 0.0, 1.0, f"undefined: no row is {such[name]}", sampling.confidence)
    if sample.equal:
        return of_counts(hits, trials, sampling, jaccard=name == "f1")
    of_it, as_it = (
        side[:, k] > 0 if sample.multilabel else side == k for side in (sample.y, sample.predicted)
    )
    rows = np.flatnonzero({"precision": as_it, "recall": of_it, "f1": of_it | as_it}[name])
    return _share(sample, (of_it & as_it)[rows], rows, sampling, jaccard=name == "f1")


def _of_pairs(name: str, sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate micro precision, recall or F1 of multilabel rows: shares of the (row, label) pairs."""
    of_it, as_it = sample.y > 0, sample.predicted > 0
    rows, labels = np.nonzero({"precision": as_it, "recall": of_it, "f1": of_it | as_it}[name])
    if not (sample.rows[rows] > 0).any():
        return Estimate(0.0, 0.0, 1.0, "undefined: no label is true or predicted", sampling.confidence)
    return _share(sample, (of_it & as_it)[rows, labels], rows, sampling, jaccard=name == "f1")


def _share(
    sample: Sample,
    right: NDArray[np.bool_],
    rows: NDArray[np.int64],
    sampling: Sampling,
    *,
    jaccard: bool = False,
) -> Estimate:
    """Estimate the share of hits among rows, or (row, label) pairs; with `jaccard` the F1 of this share."""
    shares = sample.shares(right, rows, np.zeros_like(rows), sampling.confidence)
    value, trials = float(shares.values[0]), float(shares.trials[0])
    made = of_counts(value * trials, trials, sampling, jaccard=jaccard)
    method = made.method + ("," if jaccard else "") + f" on {times(trials, 'effective row')}"
    return replace(made, method=method)


def of_counts(hits: float, trials: float, sampling: Sampling, *, jaccard: bool = False) -> Estimate:
    """Estimate the share of hits, which may be effective numbers, or with `jaccard` the F1 of this share."""
    limits, method = modified_wilson_limits(hits, trials, quantile(sampling.confidence), sampling.confidence)
    value, low, high = hits / trials, *limits
    if jaccard:
        value, low, high = (2 * share / (1 + share) for share in (value, low, high))
        method += ", through the Jaccard share"
    return Estimate(value, min(low, value), max(high, value), method, sampling.confidence)


def mean_over_classes(name: str, sample: Sample, sampling: Sampling) -> Estimate:
    """Estimate macro precision, macro recall or balanced accuracy: the mean of the classes' shares.

    Args:
        name: "precision", "recall" or "balanced_accuracy" (recall of the classes that have rows).
        sample: The rows.
        sampling: How intervals are made.

    Returns:
        The mean with score limits. The value of a class whose share is 0 / 0 (in macro recall a class that
        was predicted and has no rows, in macro precision one that has rows and was never predicted) is 0,
        as in scikit-learn; its limits are 0 and 1.
    """
    hits, predicted, true = sample.counts
    trials, side = (predicted, sample.predicted) if name == "precision" else (true, sample.y)
    counted = true > 0 if name == "balanced_accuracy" else predicted + true > 0
    counted = np.ones_like(counted) if sample.multilabel else counted
    some, total = np.flatnonzero(trials > 0), int(counted.sum())
    values, worth = hits[some] / trials[some], trials[some]
    method = "score limits of the mean over classes"
    if sample.equal and not sample.multilabel:
        units = trials
    elif sample.multilabel:
        rows, classes = np.nonzero(side)
        units = sample.units_of(rows, classes)
    else:
        rows = np.flatnonzero(side < sample.classes)  # not those whose answer is no label
        classes = side[rows]
        units = sample.units_of(rows, classes)
    if len(some) and (sample.multilabel or not sample.equal):
        right = (sample.y == sample.predicted)[rows, classes] if sample.multilabel else sample.right[rows]
        values, worth = sample.shares(right, rows, np.searchsorted(some, classes), sampling.confidence)
        method += f", on {times(float(worth.sum()), 'effective row')}"
    value, low, high = float(values.sum()) / total, 0.0, 0.0
    if len(some):
        low, high = score_limits(values * worth, worth, quantile(sampling.confidence))
    low, high = low * len(some) / total, (high * len(some) + total - len(some)) / total
    method += _few_in_a_class(units[counted], sample, name) + _absent(counted)
    return Estimate(value, min(low, value), max(high, value), method, sampling.confidence)


def _few_in_a_class(units: Floats, sample: Sample, name: str) -> str:
    fewest = float(units.min())
    if fewest >= FEW_ROWS - 1e-9:
        return ""
    few = times(fewest, sample.unit)
    if name == "precision":
        return f" (unreliable: a class is predicted for {few})"
    return f" (unreliable: a class {'has' if sample.groups is None else 'is in'} {few})"


def _absent(counted: NDArray[np.bool_]) -> str:
    """Return the number of classes in a mean as words for `.method`, where not all classes occur."""
    return "" if counted.all() else f", over {int(counted.sum()):,} of {len(counted):,} classes"


def of_table(
    formula: Formula,
    sample: Sample,
    sampling: Sampling,
    *,
    low: float = 0.0,
    mean: bool = False,
    labels: bool = False,
) -> Estimate:
    """Estimate a metric of the class counts by bootstrap, with a Dirichlet posterior where that fails.

    Args:
        formula: Function of (..., K) class counts and an average that returns (...) values.
        sample: The rows.
        sampling: How intervals are made.
        low: The smallest value the metric can have; the largest is 1.
        mean: Whether it is an unweighted mean over the classes.
        labels: Whether it is made of the scores of the labels, and not of the whole table: answers that are
            no label are then predictions of nothing, and not of one class more.

    Returns:
        The estimate.
    """

    def function(counts: ClassCounts) -> Floats:
        # Sums of weights are rounded, which can make an MCC of -1.0000000000000002.
        return np.clip(formula(sample.of_labels(counts) if labels else counts, sample.average), low, 1.0)

    by_table = sample.equal and not sample.multilabel
    found = resampled_interval(
        float(function(sample.drawn_counts)),
        function(sample.draws(sampling)),
        lambda: function(sample.posterior(sampling)),
        support_of(sample.of_labels(sample.drawn_counts)) if by_table else _support(function, sample),
        confidence=sampling.confidence,
        what="confusion matrix" if by_table else f"{sample.unit}s",
        bounds=(low, 1.0),
    )
    if not mean or sample.multilabel:
        return found
    counted = sample.counts.predicted + sample.counts.true > 0
    return replace(found, method=found.method + _absent(counted))


def _support(function: Callable[[ClassCounts], Floats] | None, sample: Sample) -> Support:
    """Count the independent rows, or groups, that a metric rests on; `function`: of the class counts."""
    if sample.multilabel:
        rows, classes = np.nonzero(sample.y)
        hit = sample.predicted[rows, classes] > 0
        counted = np.ones(sample.classes, dtype=bool)
    else:
        rows, classes, hit = np.arange(len(sample.y)), sample.y, sample.right
        counted = sample.counts.predicted + sample.counts.true > 0
    units = effective_units(sample.rows, sample.groups)
    return Support(
        sample.units_of(rows, classes)[counted],
        sample.units_of(rows[hit], classes[hit])[sample.counts.true > 0],
        *sample.outcomes(),
        max(min(np.inf if function is None else _freedom(function, sample), units - 1), 1.0),
        sample.unit,
    )


def _freedom(function: Callable[[ClassCounts], Floats], sample: Sample) -> float:
    """Compute the degrees of freedom of a metric's variance from the kurtosis of the units' influences."""
    counts = sample.drawn_counts
    if len(counts.true) > _MOST_CLASSES:
        return np.inf
    at, step = np.concatenate(counts) / float(sample.rows.sum()), 1e-6
    steps = step * np.eye(len(at))
    slope = function(split_counts(at + steps)) - function(split_counts(at - steps))
    return degrees_of_freedom(sample.influence(*np.split(slope / (2 * step), 3)))
