"""An evaluation made of counts: the same formulas as for rows, fed with what the rows add up to."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune_eval._text import quoted
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation import _trust
from finetune_eval.evaluation._counts import MISSING, MOST_VALUES, TOTALS, Counts
from finetune_eval.evaluation._exact import UNIT, central_moments, number
from finetune_eval.evaluation._histograms import area_of
from finetune_eval.evaluation._inputs import about_sums
from finetune_eval.evaluation._options import Options
from finetune_eval.evaluation._parts import pooled
from finetune_eval.evaluation._result import LargeEvaluation, RowsNotKept
from finetune_eval.evaluation.calibration import BINS, Calibration, bins_of, brier_parts, of_forecasts
from finetune_eval.evaluation.means import Spread, Zeros, estimate_loss, held_against, spread
from finetune_eval.evaluation.metrics import METRICS, SMALLEST_PROBABILITY
from finetune_eval.evaluation.records import ClassScore, Estimate, Slice, SliceSearch
from finetune_eval.evaluation.sample import CountedSample, Sampling
from finetune_eval.evaluation.scores import of_class, of_counts
from finetune_eval.evaluation.slices import slices_of_counts


def evaluation_of(counts: Counts, labels: tuple[str, ...], options: Options) -> LargeEvaluation:
    """Return the evaluation of counted rows; at least one was counted."""
    import pandas as pd

    sample = CountedSample(counts.table, options.average)
    sampling = Sampling(options.confidence, options.n_resamples, options.seed)
    support, answers = counts.table.sum(axis=1), counts.table.sum(axis=0)
    slices, search = _slices(counts, options.confidence)
    columns = ["file", "row", "id", "label", "prediction", *(f"p_{label}" for label in labels), "loss"]
    worst = pd.DataFrame(
        [
            (source, row if source else None, name, labels[y], labels[answer], *p, loss)
            for loss, source, row, name, y, answer, p in counts.worst
        ],
        columns=columns,
    )
    worst["row"] = worst["row"].astype("Int64")  # not known where the rows are of no file
    worst = worst.drop(columns=[name for name in ("file", "row", "id") if _unknown(worst[name])])
    return LargeEvaluation(
        labels=labels,
        task="classification",
        average=options.average,
        confidence=options.confidence,
        n=counts.n,
        threshold=options.threshold,
        threshold_origin=None if options.chosen is None else options.chosen.origin,
        estimates=_estimates(counts, sample, sampling, options.metrics),
        confusion_matrix=counts.table.copy(),
        per_class=tuple(
            ClassScore(
                label,
                support=float(support[k]),
                predicted=float(answers[k]),
                **{name: of_class(name, k, sample, sampling) for name in ("precision", "recall", "f1")},
            )
            for k, label in enumerate(labels)
        ),
        majority=(labels[int(support.argmax())], float(support.max())),
        rows_hash=rows_hash(support),
        warnings=_warnings(counts, labels, chosen=options.chosen is not None),
        calibration=_calibration(counts, labels, options),
        baselines=(),
        leaks=None,
        looks=None,
        slices=slices,
        identified=False,
        predictions=RowsNotKept(worst.columns),
        slice_search=search,
        worst=worst,
    )


def _unknown(column: Any) -> bool:
    return bool(column.isna().all() or (column == "").all())


def _estimates(
    counts: Counts, sample: CountedSample, sampling: Sampling, asked: tuple[str, ...]
) -> dict[str, Estimate]:
    """Return every metric with its interval, in the order in which reports show them."""
    out = {}
    for name, metric in METRICS.items():
        if (metric.asked and name not in asked) or not (metric.single and metric.suits(counts.classes)):
            continue
        if name in counts.totals:
            estimate: Estimate | None = _loss(name, counts, sampling.confidence)
        elif metric.source == "ranking":
            estimate = area_of(name, counts.classwise, confidence=sampling.confidence)
        elif metric.source == "rows":  # top-k accuracy
            hits = int(counts.ranks[: int(name.split("_")[1])].sum())
            estimate = of_counts(hits, counts.n, sampling)
        else:
            estimate = metric.interval(sample, sampling)
        if estimate is not None:
            out[name] = estimate
    return out


def _loss(name: str, counts: Counts, confidence: float) -> Estimate:
    """Estimate a mean loss from the exact totals of the powers of the rows' losses."""
    n, total = counts.n, dict(zip(TOTALS, counts.totals[name], strict=True))
    low, high, expected_low, expected_high = counts.ranges[name]
    cost = -float(np.log(SMALLEST_PROBABILITY))
    zeros, happened = (_zeros(counts, cost), counts.happened) if name == "loss" else (None, 0)
    if happened:
        low = 0.0  # what `totals` has in their place
    if zeros is not None and not zeros.may_happen(confidence):
        zeros = None
    middle = number(total["r1"]) / n
    powers = central_moments((total["r1"], total["r2"], total["r3"], total["r4"]), n, low, high)
    seen = spread(middle, *(powers / np.array([n, n, n]) ** np.array([2.0, 3.0, 4.0])), units=n)
    mean = number(total["e1"]) / n
    expects = Spread(n, 0.0, 1.0, 0.0, 0.0)
    if mean > 0:
        second, third, fourth = _expected(total, n, expected_low, expected_high)
        expects = spread(mean, second / n**2, third / n**3, fourth / n**4, units=n)
        seen, expects = held_against(seen, expects, middle / mean)
    return estimate_loss(
        middle + happened * cost / n,
        middle,
        seen,
        expects,
        zeros,
        confidence=confidence,
        high=METRICS[name].high if name == "loss" or counts.classes > 2 else 1.0,
    )


def _expected(total: dict[str, int], n: int, low: float, high: float) -> tuple[float, float, float]:
    """Return the sums of powers that `means._spreads` makes of the losses that are expected.

    Distances of the expected losses from their mean are s; variances and third and fourth moments of a row's
    loss are v, t and f. Cumulants of independent rows add up.
    """
    shift2, shift3, shift4 = central_moments(
        (total["e1"], total["e2"], total["e3"], total["e4"]), n, low, high
    )
    # Sums of s v, s^2 v and s t, from exact totals: their differences are exact, too.
    e, v, ev, eev, t, et = (total[name] for name in ("e1", "v", "ev", "eev", "t", "et"))
    sv = _ratio(n * (ev << UNIT) - e * v, n)
    st = _ratio(n * (et << UNIT) - e * t, n)
    ssv = _ratio(((n * n * eev) << (2 * UNIT)) - ((2 * n * e * ev) << UNIT) + e * e * v, n * n, 3)
    second = shift2 + number(v)
    third = shift3 + 3 * sv + number(t)
    fourth = shift4 + 6 * max(ssv, 0.0) + 4 * st + number(total["f"])
    return second, third, max(fourth, 0.0)


def _ratio(numerator: int, denominator: int, units: int = 2) -> float:
    """Return a quotient whose numerator is in units of 2**(-1074 `units`)."""
    return numerator / (denominator << (units * UNIT))


def _zeros(counts: Counts, cost: float) -> Zeros | None:
    """Add up the rows that give some class a probability of 0, as `means` does."""
    n, many = counts.n, np.arange(counts.classes + 1)
    out = int(counts.zeros[1:].sum())
    if not out:
        return None
    hidden = np.minimum(many * (counts.smallest / 2), 1.0)
    return Zeros(
        rows=out,
        share=out / n,
        happened=counts.happened / out,
        units=float(out),
        rate=float(hidden[1:] @ counts.zeros[1:]) / out,
        move=cost / n,
        cost=cost,
    )


def _calibration(counts: Counts, labels: tuple[str, ...], options: Options) -> Calibration:
    bins = bins_of(BINS, counts.n)
    columns = [
        (one.forecast, one.happened, one.weights)
        for one in (histogram.forecasts() for histogram in counts.classwise)
    ]
    brier = number(counts.totals["brier"][0]) / counts.n
    event = counts.classwise[0] if counts.top is None else counts.top
    return of_forecasts(
        event.forecasts(),
        "positive" if counts.top is None else "top",
        brier_parts(columns, brier, bins=bins),
        bins=bins,
        confidence=options.confidence,
        weighted=False,
        seed=options.seed,
        positive=quoted(labels[-1]),
    )


def _slices(counts: Counts, confidence: float) -> tuple[tuple[Slice, ...], SliceSearch | None]:
    if not counts.parts:
        return (), None
    kept, left_out = {}, []
    for column, values in counts.parts.items():
        if values is None:
            left_out.append((column, f"more than {MOST_VALUES:,} values"))
            continue
        known = {value: (rows, right) for value, (rows, right) in values.items() if value != MISSING}
        found = pooled(known, counts.n)
        if isinstance(found, str):
            left_out.append((column, found))
            continue
        rows, right = values.get(MISSING, (0, 0))
        kept[column] = {**found, **({MISSING: (rows, right)} if rows else {})}
    right = int(counts.table.trace())
    return slices_of_counts(kept, left_out, counts.n, right, confidence=confidence)


def _warnings(counts: Counts, labels: tuple[str, ...], *, chosen: bool) -> tuple[str, ...]:
    support, answers = counts.table.sum(axis=1), counts.table.sum(axis=0)
    sums = np.array(counts.mended[1:])
    return (
        *_trust.about_classes(support, labels),
        *_trust.nearly_only_answer(support, answers, labels),
        *_trust.about_ties(counts.ties, counts.n),
        *_trust.about_small(counts.capped, counts.n),
        *(about_sums(int(counts.mended[0]), sums, counts.n) if counts.mended[0] else ()),
        *(("Whether the threshold was chosen on these very rows was not checked.",) if chosen else ()),
        "The rows were counted and not kept: nothing looked for repeated rows, leaks or possible label "
        "errors, no baseline was scored, and `compare` needs the rows.",
    )
