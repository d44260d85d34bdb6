"""Which of two (or more) models, and is the difference more than chance?

Everything is paired by row: two models that were scored on the same rows share those rows' luck.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import number, one_of, positive_int
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation._paired_resampling import (
    PairedCounts,
    PairedUnits,
    metric_of_counts,
    paired_bootstrap,
    triple_codes,
)
from finetune_eval.evaluation._paired_rows import ScoredRows, Settings, check_same_rows, known_groups
from finetune_eval.evaluation.intervals import (
    Estimate,
    group_indices,
    mean_interval,
    mean_of_units,
    newcombe_paired_difference,
    ranking_variance,
    times,
)
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion, resolve_average
from finetune_eval.evaluation.outcomes import (
    Comparison,
    Pair,
    TotalsComparison,
    amount_text,
    disagreement_text,
    in_points,
    power_text,
    range_text,
    signed_text,
)
from finetune_eval.evaluation.power import (
    detectable_from,
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
    mcnemar,
    p_text,
    randomisation_test,
)
from finetune_eval.evaluation.totals import compare_totals

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation

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

Floats = NDArray[np.float64]

# The smallest difference that is taken to matter unless the user says otherwise: two points of a share, and
# 5 % of a loss.
MATTERS = 0.02

MATTERS_OF_LOSS = 0.05

_ROW_METRICS = ("accuracy", "loss", "brier")


def _compare_pair(a: ScoredRows, b: ScoredRows, settings: Settings) -> tuple[Estimate, PairedTest, float]:
    """Return the difference, the test and the smallest detectable difference of two models."""
    metric, confidence = settings.metric, settings.confidence
    plain = a.weights is None and settings.groups is None
    if metric == "accuracy" and plain:
        only_a = int((a.correct > b.correct).sum())
        only_b = int((b.correct > a.correct).sum())
        both, n = int((a.correct & b.correct).sum()), len(a.correct)
        difference = newcombe_paired_difference(
            both, only_a, only_b, n - both - only_a - only_b, confidence=confidence
        )
        detectable = minimum_detectable_difference((only_a + only_b) / n, n, alpha=settings.alpha)
        return difference, mcnemar(only_a, only_b), detectable
    if metric in _ROW_METRICS:
        difference, test = _difference_of_means(a.of_rows(metric) - b.of_rows(metric), a, settings)
    elif METRICS[metric].source == "ranking":
        difference, test = _difference_of_rankings(a, b, settings)
    else:
        score, bound = metric_of_counts(metric, settings.average, len(a.labels))
        coded, classes = (a.codes("label"), a.codes("prediction"), b.codes("prediction")), len(a.labels)
        triples: PairedCounts | PairedUnits = (
            PairedCounts.of_rows(*coded, classes)
            if plain
            else PairedUnits(triple_codes(*coded, classes), classes, a.weights, settings.groups)
        )
        difference = triples.bootstrap(score, bound, confidence, settings.n_resamples, settings.seed)
        test = triples.randomise(score, 9999, settings.seed)
    return difference, test, detectable_from(difference, settings.alpha)


def _difference_of_means(rows: Floats, a: ScoredRows, settings: Settings) -> tuple[Estimate, PairedTest]:
    high, confidence = METRICS[settings.metric].high, settings.confidence
    if a.weights is None and settings.groups is None:
        difference = mean_interval(rows, confidence=confidence, bounds=(-high, high))
    else:
        # A few heavy rows (or large groups) make the acceleration of BCa noise: .90 where this covers .945.
        difference = mean_of_units(
            rows,
            method="percentile",
            confidence=confidence,
            bounds=(-high, high),
            groups=settings.groups,
            sample_weight=a.weights,
            n_resamples=settings.n_resamples,
            seed=settings.seed,
        )
    weighted = rows if a.weights is None else rows * a.weights / a.weights.mean()
    return difference, randomisation_test(weighted, groups=settings.groups, seed=settings.seed)


def _difference_of_rankings(a: ScoredRows, b: ScoredRows, settings: Settings) -> tuple[Estimate, PairedTest]:
    from scipy.special import stdtr, stdtrit

    y = a.codes("label")
    found = [rows.ranking(settings) for rows in (a, b)]
    if found[0] is None or found[1] is None:
        raise ValueError(f"`metric` {settings.metric!r} needs rows of at least two classes; there is one.")
    value, moves = found[0].value - found[1].value, found[0].influence - found[1].influence
    smallest = found[0].smallest
    variance, df, delongs = ranking_variance(
        settings.metric, y == 1, moves, settings.average, a.weights, settings.groups
    )
    name = f"{'DeLong' if delongs else 'linearised'}, paired, t"
    if variance <= 1e-15 or (settings.average == "binary" and smallest < 2):
        unlike = 1 - (settings.alpha / 2) ** (1 / smallest)
        what = times(smallest, "row" if settings.groups is None else "group")
        method = f"Clopper-Pearson on {what}: no variance to see"
        return Estimate(
            value, max(-1.0, value - unlike), min(1.0, value + unlike), method, settings.confidence
        ), PairedTest(name, 0.0, 1.0)
    se = math.sqrt(variance)
    half = float(stdtrit(df, 1 - settings.alpha / 2)) * se
    return (
        Estimate(value, max(-1.0, value - half), min(1.0, value + half), name, settings.confidence),
        PairedTest(name, value / se, max(2 * float(stdtr(df, -abs(value / se))), 1e-300)),
    )


def _outcome(
    metric: str, difference: Estimate, p_value: float, detectable: float, alpha: float, matters: float
) -> str:
    apart = difference.low > 0 or difference.high < 0
    if p_value <= alpha and apart:
        higher = difference.value > 0
        return "better" if higher == (METRICS[metric].direction == "higher") else "worse"
    return "underpowered" if detectable > matters else "no difference detected"


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

    Accuracy: McNemar's mid-p and Newcombe's paired interval; more than two models: Cochran's Q first, then
    every pair with Holm's adjustment. Other metrics of the confusion matrix: paired bootstrap and approximate
    randomisation, of whole groups where rows come in groups. Loss and Brier: t interval (groups, weights: a
    bootstrap) and sign flips. AUCs: DeLong. A model is called better only where the test and the interval
    both say so.

    Args:
        *evaluations: At least two, of the same rows in the same order.
        metric: The metric that decides, declared beforehand.
        alpha: Level of the tests, in (0, 1).
        names: What to call the models; None: A, B, C...
        average: Of precision, recall, F1 and AUC; None: as the first evaluation prints it.
        matters: The smallest difference that would matter to you, in the metric's own unit. Where nothing
            is detected, a test set that could have missed such a difference is called underpowered. None:
            0.02, of a loss or Brier score 5 % of the smallest.
        groups: (n,) group of each row, where rows come in groups. None: those that the evaluations were made
            with.
        n_resamples: Resamples of a bootstrap, at least 100.
        seed: Seed of bootstrap and randomisation.

    Returns:
        The verdict with each pair's difference, interval, p-value and smallest detectable difference.

    Raises:
        ValueError: Fewer than two evaluations, different rows, or an unknown metric.

    Example:
        >>> from finetune_eval import evaluate_predictions
        >>> y = [0, 1] * 100
        >>> a = evaluate_predictions(y, [0.1, 0.9] * 90 + [0.9, 0.1] * 10)
        >>> b = evaluate_predictions(y, [0.2, 0.8] * 85 + [0.8, 0.2] * 15)
        >>> compare(a, b).outcome
        'better'
    """
    if len(evaluations) < 2:
        raise ValueError(f"`evaluations` must be at least two to compare; got {len(evaluations)}.")
    one_of("metric", metric, tuple(METRICS))
    alpha = number("alpha", alpha, above=0, below=1)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)
    called = _names(names, len(evaluations))
    rows = check_same_rows(evaluations, called)
    n = len(rows[0].correct)
    if groups is None:
        groups = known_groups(rows)
    if average is None:  # as the evaluations print it: `average` is not of the rankings there
        average = "auto" if METRICS[metric].source == "ranking" else rows[0].average
    resolved = resolve_average(average, len(rows[0].labels))
    settings = Settings(
        metric, alpha, resolved, n_resamples, seed, None if groups is None else group_indices(groups, n)
    )
    _check_supported(rows[0], settings)
    found = [(a, b, *_compare_pair(a, b, settings)) for a, b in itertools.combinations(rows, 2)]
    values = tuple(_value(row, settings) for row in rows)
    if matters is None:
        matters = MATTERS_OF_LOSS * min(values) if METRICS[metric].source == "rows" else MATTERS
    matters = number("matters", matters, at_least=0)
    adjusted = holm([test.p_value for *_, test, _ in found])
    value_of = dict(zip(called, values, strict=True))
    pairs = tuple(
        Pair(
            (a.name, b.name),
            (value_of[a.name], value_of[b.name]),
            difference,
            test,
            float(p),
            _outcome(metric, difference, float(p), detectable, alpha, matters),
            detectable,
        )
        for (a, b, difference, test, detectable), p in zip(found, adjusted, strict=True)
    )
    plain = settings.groups is None and rows[0].weights is None
    overall = None
    if len(rows) > 2 and metric == "accuracy" and plain:
        overall = cochran_q(np.column_stack([row.correct for row in rows]))
    verdict = (
        _verdict_of_two(metric, pairs[0], n)
        if len(rows) == 2
        else _verdict_of_many(metric, called, values, pairs, n)
    )
    notes = []
    if len(rows) == 2:
        notes += _disagreement(rows, settings)
    if len(rows) > 2 and overall is not None and overall.p_value > alpha and _decided(pairs):
        notes.append("Cochran's Q over all models is not significant: take single pairs with caution.")
    notes.append("The interval covers the sampling of these rows only, not training seeds or drift.")
    return Comparison(called, metric, values, n, alpha, matters, pairs, overall, verdict, tuple(notes))


def _names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(chr(65 + i) if i < 26 else f"model {i + 1}" for i in range(count))
    called = tuple(str(name) for name in names)
    if len(called) != count or len(set(called)) != count:
        raise ValueError(f"`names` must be {count} different names, one for each evaluation; got {called}.")
    return called


def _check_supported(rows: ScoredRows, settings: Settings) -> None:
    if settings.metric not in ("accuracy", "loss") and rows.multilabel:
        raise ValueError(
            f"`metric` of multilabel evaluations must be 'accuracy' (all labels right) or 'loss'; "
            f"got {settings.metric!r}."
        )


def _value(rows: ScoredRows, settings: Settings) -> float:
    metric = settings.metric
    if metric in _ROW_METRICS:
        return float(np.average(rows.of_rows(metric), weights=rows.weights))
    if METRICS[metric].source == "ranking":
        found = rows.ranking(settings)
        return math.nan if found is None else found.value
    y = rows.codes("label")
    table = confusion_matrix(y, rows.codes("prediction"), len(rows.labels), sample_weight=rows.weights)
    return float(from_confusion(metric, table, settings.average))


def _decided(pairs: Sequence[Pair]) -> bool:
    return any(pair.outcome in ("better", "worse") for pair in pairs)


def _figures(metric: str, pair: Pair, n: int) -> str:
    digits = 3 if in_points(metric) else 4
    return (
        f"{METRICS[metric].title} {pair.values[0]:.{digits}f} against {pair.values[1]:.{digits}f}, "
        f"{signed_text(metric, pair.difference.value)} {range_text(metric, pair.difference)} "
        f"on {counted(n, 'row')}, "
        f"{p_text(pair.p_value)}"
    )


def _verdict_of_two(metric: str, pair: Pair, n: int) -> str:
    a, b = pair.names
    figures, missed = _figures(metric, pair, n), _missed(metric, pair.detectable)
    if pair.outcome in ("better", "worse"):
        return f"{a} is {pair.outcome} than {b}: {figures}. {power_text(metric, pair.detectable, n)}"
    if pair.outcome == "underpowered":
        return f"Underpowered, no difference detected between {a} and {b}: {figures}; {missed}."
    return f"No difference detected between {a} and {b}: {figures}; {missed}."


def _missed(metric: str, least: float) -> str:
    if in_points(metric) and least >= 1:
        return "any difference could be missed"
    return f"differences under {amount_text(metric, least)} could be missed"


def _verdict_of_many(
    metric: str, names: Sequence[str], values: Sequence[float], pairs: Sequence[Pair], n: int
) -> str:
    sign = 1 if METRICS[metric].direction == "higher" else -1
    best = names[int(np.argmax(sign * np.asarray(values)))]
    beaten: list[str] = []
    open_: list[str] = []
    for pair in pairs:
        if best in pair.names:
            other = pair.names[1] if pair.names[0] == best else pair.names[0]
            (beaten if pair.outcome in ("better", "worse") else open_).append(other)
    title, word = METRICS[metric].title, "highest" if sign > 0 else "lowest"
    sentence = f"{best} has the {word} {title} of {len(names)} models on {counted(n, 'row')}"
    if beaten:
        sentence += f" and is better than {', '.join(beaten)}"
    if open_:
        least = max(pair.detectable for pair in pairs if best in pair.names)
        sentence += f"; no difference detected from {', '.join(open_)}, {_missed(metric, least)}"
    return sentence + " (Holm-adjusted)."


def _disagreement(rows: Sequence[ScoredRows], settings: Settings) -> list[str]:
    """Say what it means that one model has the better accuracy and the other the better loss."""
    a, b = rows
    accuracy = [float(np.average(row.correct, weights=row.weights)) for row in rows]
    loss = [float(np.average(row.loss, weights=row.weights)) for row in rows]
    if (accuracy[0] - accuracy[1]) * (loss[0] - loss[1]) <= 0:
        return []
    more, less = (a.name, b.name) if accuracy[0] > accuracy[1] else (b.name, a.name)
    on_loss = Settings(
        "loss", settings.alpha, settings.average, settings.n_resamples, settings.seed, settings.groups
    )
    difference, test, detectable = _compare_pair(a, b, on_loss)
    apart = _outcome("loss", difference, test.p_value, detectable, settings.alpha, 0.0) in ("better", "worse")
    return [
        disagreement_text(more, less, max(accuracy), min(accuracy), max(loss), min(loss), settings.metric)
        + f" The loss differs by {difference.value:+.4f} {range_text('loss', difference)}, "
        f"{p_text(test.p_value)}: " + ("more than chance." if apart else "it may be chance.")
    ]
