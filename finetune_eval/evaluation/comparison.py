"""Comparison of models on the same rows: which one is better, and whether the difference is more than chance.

Everything is paired by row: two models that were scored on the same rows share those rows' luck.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from finetune_eval import _checks, _rows
from finetune_eval._checks import number, one_of, positive_int
from finetune_eval._text import p_value, visible
from finetune_eval.evaluation._paired_differences import Difference, difference_of
from finetune_eval.evaluation._paired_resampling import paired_bootstrap
from finetune_eval.evaluation._paired_rows import ScoredRows, Settings, check_same_rows, known_groups
from finetune_eval.evaluation.disagreement import disagreement_note
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion, resolve_average
from finetune_eval.evaluation.outcomes import (
    BETTER,
    IDENTICAL,
    WORSE,
    Comparison,
    Pair,
    outcome_of,
    smallest_that_matters,
    verdict_of_many,
    verdict_of_two,
)
from finetune_eval.evaluation.power import (
    detectable_sentence,
    mcnemar_power,
    mcnemar_sample_size,
    minimum_detectable_difference,
    planned_difference,
)
from finetune_eval.evaluation.significance import (
    PairedTest,
    benjamini_hochberg,
    cochran_q,
    holm,
    holm_levels,
    mcnemar,
    randomisation_test,
)
from finetune_eval.evaluation.totals import TotalsComparison, compare_totals

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

__all__ = [
    "Comparison",
    "Pair",
    "PairedTest",
    "TotalsComparison",
    "benjamini_hochberg",
    "cochran_q",
    "compare",
    "compare_totals",
    "detectable_sentence",
    "holm",
    "mcnemar",
    "mcnemar_power",
    "mcnemar_sample_size",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "planned_difference",
    "randomisation_test",
]


def compare(
    *evaluations: Evaluation,
    metric: str = "accuracy",
    alpha: float = 0.05,
    names: Sequence[str] | None = None,
    average: str | None = None,
    matters: float | None = None,
    groups: ArrayLike | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two or more evaluations of the same rows: which is better, and is it more than chance?

    Each pair of models has a test and an interval that agree: p is at most alpha exactly where the interval
    excludes 0. Then one of the two is better. Where it does not, the interval says whether there is no
    difference that matters, or whether these rows cannot tell yet. Accuracy: McNemar's mid-p and Tango's
    interval. Other metrics of the confusion matrix: approximate randomisation and a paired bootstrap.
    Log-loss and Brier: Student's t. AUCs: DeLong. Rows with weights or in groups: whole units change signs,
    or are swapped. Several models: every pair, with p-values and intervals adjusted by Holm.

    Two cross-evaluations on the same folds compare recipes: by the corrected resampled t of their folds.

    Args:
        *evaluations: At least two evaluations (or cross-evaluations) of the same rows: in the same order, or
            in any order where both were given the same `ids`, each once. Answers without probabilities can be
            compared by accuracy, F1, MCC and the other metrics of the confusion matrix.
        metric: The metric that decides, declared beforehand.
        alpha: Level of all tests together, in (0, 1).
        names: What to call the models; None: A, B, C...
        average: Of precision, recall, F1 and AUC; None: as the first evaluation prints it.
        matters: The smallest difference that would matter to you, in the metric's own unit. None: 0.02; of a
            log-loss or Brier score 5 % of the smallest.
        groups: (n,) group of each row, where rows come in groups. None: those that the evaluations were made
            with.
        n_resamples: Resamples of a bootstrap, at least 100.
        seed: Seed of bootstrap and randomisation.

    Returns:
        The verdict with each pair's difference, interval, p-value and outcome: "better", "worse", "no
        difference that matters", "cannot tell yet" or "identical answers".

    Raises:
        ValueError: Fewer than two evaluations, different rows, a row without a group, or an unknown metric.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0, 1] * 100
        >>> a = evaluate_predictions(y, [0.1, 0.9] * 90 + [0.9, 0.1] * 10)
        >>> b = evaluate_predictions(y, [0.2, 0.8] * 85 + [0.8, 0.2] * 15)
        >>> compare(a, b).outcome
        'better'
    """
    _checks.evaluations("evaluations", evaluations)
    if len(evaluations) < 2:
        raise ValueError(f"`evaluations` must be at least two to compare; got {len(evaluations)}.")
    one_of("metric", metric, tuple(METRICS))
    alpha = number("alpha", alpha, above=0, below=1)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100, maximum=_checks.MOST_RESAMPLES)
    if matters is not None:
        matters = number("matters", matters, at_least=0)
    rows = check_same_rows(evaluations, model_names(names, len(evaluations)))
    crossed = rows[0].folds is not None
    if crossed:
        average = _average_of_folds(rows, metric, average, groups)
    if average is None:  # as the evaluations print it: `average` is not of the rankings there
        average = "auto" if METRICS[metric].source == "ranking" else rows[0].average
    settings = Settings(
        metric,
        resolve_average(average, len(rows[0].labels)),
        n_resamples,
        seed,
        None if crossed else _independent_groups(groups, rows),
    )
    _check_supported(rows, settings)
    values = tuple(_value(row, settings) for row in rows)
    if matters is None:
        matters = smallest_that_matters(metric, values)
    pairs = _pairs(rows, values, settings, alpha, matters)
    n, called = len(rows[0].correct), tuple(row.name for row in rows)
    overall = None
    plain = settings.groups is None and rows[0].weights is None and not crossed
    if len(rows) > 2 and metric == "accuracy" and plain:
        overall = cochran_q(np.column_stack([row.correct for row in rows]))
    return Comparison(
        called,
        metric,
        values,
        n,
        alpha,
        matters,
        pairs,
        overall,
        verdict_of_two(metric, pairs[0], n, matters)
        if len(rows) == 2
        else verdict_of_many(metric, called, values, pairs, n),
        tuple(_notes(rows, pairs, overall, settings, alpha)),
    )


def _average_of_folds(rows: Sequence[ScoredRows], metric: str, average: Any, groups: Any) -> str:
    """Return how the folds' scores are averaged, or raise where that cannot be as asked."""
    for row in rows:
        assert row.folds is not None
        if metric not in row.folds.scores:
            raise ValueError(
                f"`metric` {metric!r} was not scored in every fold of {row.name}; there are "
                f"{', '.join(map(repr, row.folds.scores))}."
            )
        if METRICS[metric].averaged and average not in (None, row.folds.average):
            raise ValueError(
                f"`average` must be that of the cross-evaluations, {row.folds.average!r}; got {average!r}."
            )
    if groups is not None:
        raise ValueError("`groups` of a cross-evaluation were kept in its folds; leave it out here.")
    return str(rows[0].average)


def _independent_groups(groups: ArrayLike | None, rows: Sequence[ScoredRows]) -> np.ndarray | None:
    """Return the number of the group of each row; None where every row is its own."""
    given = known_groups(rows) if groups is None else groups
    if given is None:
        return None
    numbers = _rows.groups("groups", given, len(rows[0].frame))
    if rows[0].counts is not None:
        numbers = np.unique(numbers[rows[0].counts], return_inverse=True)[1]
    if numbers.max() == 0:
        raise ValueError("`groups` puts every row in one group; at least two groups are needed.")
    return None if numbers.max() == len(numbers) - 1 else numbers


def _pairs(
    rows: Sequence[ScoredRows], values: Sequence[float], settings: Settings, alpha: float, matters: float
) -> tuple[Pair, ...]:
    """Compare every two models; p-values and intervals are adjusted together."""
    places = list(itertools.combinations(range(len(rows)), 2))
    found = [difference_of(rows[i], rows[j], settings) for i, j in places]
    p_values = [difference.test.p_value for difference in found]
    pairs = []
    for (i, j), difference, p, level in zip(
        places, found, holm(p_values), holm_levels(p_values, alpha), strict=True
    ):
        pair = pair_of(
            settings.metric,
            (rows[i].name, rows[j].name),
            (values[i], values[j]),
            difference,
            levels=(float(level), alpha / len(places)),
            matters=matters,
        )
        identical = pair.difference.value == 0 and _identical(rows[i], rows[j], settings)
        pairs.append(replace(pair, p_value=float(p), outcome=IDENTICAL if identical else pair.outcome))
    return tuple(pairs)


def pair_of(
    metric: str,
    names: tuple[str, str],
    values: tuple[float, float],
    difference: Difference,
    *,
    levels: tuple[float, float],
    matters: float,
) -> Pair:
    """Return two models, compared, as if they were the only pair and not known to answer alike.

    Args:
        metric: The metric that decides.
        names: What the models are called.
        values: The metric of each.
        difference: The first minus the second.
        levels: The level of the interval, and that at which a difference is to be detected.
        matters: The smallest difference that matters.
    """
    interval = difference.interval(levels[0])
    return Pair(
        names,
        values,
        interval,
        difference.test,
        difference.test.p_value,
        outcome_of(metric, interval, matters),
        difference.detectable(levels[1]),
        difference.disagreement,
    )


def _identical(a: ScoredRows, b: ScoredRows, settings: Settings) -> bool:
    """Return whether two models give every row the same answer: the same class, or the same probabilities."""
    if METRICS[settings.metric].source == "confusion":
        return a.predicts_as(b)
    return np.array_equal(a.probabilities, b.probabilities)


def _notes(
    rows: Sequence[ScoredRows],
    pairs: Sequence[Pair],
    overall: PairedTest | None,
    settings: Settings,
    alpha: float,
) -> list[str]:
    crossed = rows[0].folds is not None
    notes = disagreement_note(rows[0], rows[1], settings, alpha) if len(rows) == 2 and not crossed else []
    decided = any(pair.outcome in (BETTER, WORSE) for pair in pairs)
    if overall is not None and overall.p_value > alpha and decided:
        notes.append(
            f"Cochran's Q finds no difference among all models together ({p_value(overall.p_value)}): treat "
            "the single pairs with caution."
        )
    if not all(rows[0].surely_pairs_with(other) for other in rows[1:]):
        notes.append(
            "The rows are paired by their order, since nothing but their labels says which row is which. "
            "Give every evaluation `ids` or `texts` (a file: a column `id` or `text`) to be sure."
        )
    allow = "The interval and p allow" if len(pairs) == 1 else "The intervals and p-values allow"
    if crossed:
        notes.append(
            f"{allow} for other rows to train on and to judge by, and for training seeds, not for drift of "
            "later rows."
        )
    else:
        notes.append(allows_for_rows(allow))
    return notes


def allows_for_rows(allow: str = "The interval and p allow") -> str:
    """Return what intervals and p-values of models on the same rows allow for."""
    return f"{allow} for the choice of these rows only, not for training seeds or drift of later rows."


def model_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return what models are called: `names`, checked, or A, B, C..."""
    if names is None:
        return tuple(chr(65 + i) if i < 26 else f"model {i + 1}" for i in range(count))
    listed = list(names) if isinstance(names, str) else _rows.one_a_row("names", names).tolist()
    called = tuple(visible(str(name)) for name in listed)
    if len(called) != count or len(set(called)) != count:
        raise ValueError(f"`names` must be {count} different names, one for each evaluation; got {called}.")
    return called


def _check_supported(rows: Sequence[ScoredRows], settings: Settings) -> None:
    metric = METRICS[settings.metric]
    if metric.source in ("order", "labels"):
        raise ValueError(f"`metric` {settings.metric!r} has no paired test here; compare by another one.")
    metric.check_classes("metric", settings.metric, len(rows[0].labels))
    answers_only = next((row.name for row in rows if not row.has_probabilities), None)
    if answers_only is not None and metric.probabilities:
        raise ValueError(
            f"`metric` {settings.metric!r} needs probabilities, and {answers_only} gave answers only. "
            "Compare by 'accuracy', 'f1', 'mcc' or another metric of the answers."
        )
    if settings.metric not in ("accuracy", "loss") and rows[0].multilabel:
        raise ValueError(
            f"`metric` of multilabel evaluations must be 'accuracy' (all labels right) or 'loss'; "
            f"got {settings.metric!r}."
        )


def _value(rows: ScoredRows, settings: Settings) -> float:
    metric = METRICS[settings.metric]
    if rows.folds is not None:
        return rows.folds.values[settings.metric]
    if settings.metric == "accuracy" or metric.source == "rows":
        return float(np.average(rows.of_rows(settings.metric), weights=rows.weights))
    if metric.source == "ranking":
        found = rows.ranking(settings)
        return math.nan if found is None else min(max(found.value, metric.low), metric.high)
    y = rows.codes("label")
    classes = len(rows.labels) + rows.unlabelled
    table = confusion_matrix(y, rows.codes("prediction"), classes, sample_weight=rows.weights)
    return float(from_confusion(settings.metric, table, settings.average, no_label=rows.unlabelled))
