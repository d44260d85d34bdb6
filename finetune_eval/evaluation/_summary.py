"""An evaluation in plain text, as wide as the terminal, for someone who is no statistician."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from finetune_eval._text import counted, fill, pad, quoted, share, shorten, visible, width, wrap
from finetune_eval.evaluation import thresholds
from finetune_eval.evaluation._result import NO_PROBABILITIES, with_no_label
from finetune_eval.evaluation._trust import better_baselines, opening
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.power import detectable_sentence
from finetune_eval.evaluation.slices import about_slices, possible_label_errors

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

_LABEL_WIDTH = 14
_MOST_COLUMNS = 8
_ALL_SCORES = 74  # columns that the three scores of a class need; a narrower terminal gets two


def text(result: Evaluation) -> str:
    """Return the evaluation as text: verdict, how sure, metrics, confusion matrix, classes, warnings."""
    blocks = [
        headline(result),
        _trust(result),
        _scope(result),
        _metrics(result),
        _confusion(result) if result.task == "classification" else "",
        _classes(result) if len(result.labels) > 2 or result.task == "multilabel" else "",
        _baselines(result),
        _detectable(result),
        "" if result.has_probabilities else fill(NO_PROBABILITIES),
        _calibration(result),
        fill(thresholds.sentence(result)),
        _slices(result),
        _label_errors(result),
        _limits(result),
    ]
    return "\n\n".join(block for block in blocks if block)


def headline(result: Evaluation) -> str:
    """Return the verdict, such as "158 of 200 right: accuracy 0.790 [0.728, 0.841]"."""
    estimate = result.estimates["accuracy"]
    weighted = "weighted " if "weight" in result.predictions else ""
    right = "right" if result.task == "classification" else "right in every label"
    return fill(opening(result, f"{result.right:,} of {result.n:,} {right}: {weighted}accuracy {estimate}"))


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _trust(result: Evaluation) -> str:
    """Say what speaks against the numbers, before they are read."""
    sentences = [*(baseline.verdict for baseline in better_baselines(result)), *result.warnings]
    if result.looks is not None and result.looks.count > 1:
        sentences.append(result.looks.verdict)
    if result.leaks is not None and result.leaks.rows:
        sentences.insert(0, result.leaks.verdict)
    lines = [fill(sentence, indent="! ") for sentence in sentences]
    if result.leaks is not None and not result.leaks.rows:
        lines.append(fill(result.leaks.verdict))
    lines.append(f"Test rows {result.rows_hash}")
    return "\n".join(lines)


def _scope(result: Evaluation) -> str:
    """Say how many rows there are, what the commonest class gives, and why the interval is so wide."""
    from scipy.special import ndtri

    lines = []
    if result.task == "classification":
        label, most = result.majority
        total = result.total
        counts = [f"{_count(score.support)} {quoted(score.label)}" for score in result.per_class]
        if len(counts) <= 6:
            lines.append(f"Rows: {', '.join(counts)}.")
        lines.append(
            f"Always answering {quoted(label)} would be right on {_count(most)} of {_count(total)} "
            f"({most / total:.3f})."
        )
    accuracy = result.estimates["accuracy"]
    half = (accuracy.high - accuracy.low) / 2
    z = float(ndtri(0.5 + result.confidence / 2))
    target = next((step for step in (0.05, 0.02, 0.01, 0.005, 0.002, 0.001) if step < half * 0.75), None)
    rows = counted(result.n, "row")
    sentence = f"With {rows} the accuracy is known to about +-{half * 100:.2g} points"
    equal = {"weight", "group"}.isdisjoint(result.predictions.columns)
    if target is not None and 0 < accuracy.value < 1 and equal:
        # Half the width of a normal interval is z sqrt(p (1 - p) / n).
        needed = _round(z**2 * accuracy.value * (1 - accuracy.value) / target**2)
        if needed > result.n:
            sentence += f"; +-{target * 100:g} would take about {needed:,} rows"
    lines.append(sentence + ".")
    return "\n".join(fill(line) for line in lines)


def _baselines(result: Evaluation) -> str:
    if not result.baselines:
        return ""
    return "\n".join(["Against simple models on the same rows", *map(str, result.baselines)])


def _detectable(result: Evaluation) -> str:
    """Say which difference to another model these rows could show."""
    return fill(detectable_sentence(result))


def _limits(result: Evaluation) -> str:
    return fill(
        f"Intervals: {result.confidence * 100:g} %; they cover the choice of these rows only, not the "
        "randomness of training and not drift."
    )


def _round(value: float) -> int:
    """Round to two digits: these are orders of magnitude."""
    return int(float(f"{value:.1e}"))


def _metrics(result: Evaluation) -> str:
    average = {"binary": f"of {quoted(result.labels[1])}"}.get(result.average, result.average)
    # Evaluations of earlier versions keep their metrics in another order.
    names = [name for name in METRICS if name in result.estimates]
    names += [name for name in result.estimates if name not in METRICS]
    methods = list(dict.fromkeys(result.estimates[name].method for name in names))
    room = max(12, min(34, width() - 37))
    lines = [f"{'metric':<{room}} {'value':>7}  {'interval':<18} method"]
    for name in names:
        estimate = result.estimates[name]
        title = METRICS[name].title if name in METRICS else name
        if name in METRICS and METRICS[name].averaged:
            title = f"{title} ({average})"
        interval = f"[{share(estimate.low)}, {share(estimate.high)}]"
        mark = methods.index(estimate.method) + 1
        lines.append(f"{pad(_cut(title, room), room)} {share(estimate.value):>7}  {interval:<18} ({mark})")
    lines += [fill(method, indent=f"({mark}) ") for mark, method in enumerate(methods, start=1)]
    return "\n".join(lines)


def _cut(word: str, most: int) -> str:
    return shorten(visible(word), most)


def _confusion(result: Evaluation) -> str:
    labels = [_cut(label, _LABEL_WIDTH) for label in result.labels]
    if len(labels) > _MOST_COLUMNS:
        return _pairs(result)
    answers = [*labels, *(["(no label)"] if result.no_label else [])]
    cells = [[_count(value) for value in row] for row in with_no_label(result)]
    room = (width() - _LABEL_WIDTH - 2) // len(answers) - 2
    heads = [_cut(label, max(room, 4)) for label in answers]
    widths = [max(cell_len(head), *(len(row[k]) for row in cells)) for k, head in enumerate(heads)]
    if _LABEL_WIDTH + sum(w + 2 for w in widths) > width():
        return _pairs(result)
    side = max(len("true"), *map(cell_len, labels))
    lines = fill("Confusion matrix (rows: what is true; columns: what was predicted)").split("\n")
    for label, row in zip(["", *labels], [heads, *cells], strict=True):
        lines.append(
            pad(label, side)
            + "".join(f"  {pad(cell, w, right=True)}" for cell, w in zip(row, widths, strict=True))
        )
    return "\n".join(lines)


def _pairs(result: Evaluation) -> str:
    """Return the largest errors, where the matrix is too wide to print."""
    matrix = with_no_label(result)
    answers = [*(quoted(label, 20) for label in result.labels), "no label"]
    true, predicted = np.nonzero(matrix)
    pairs = [(float(matrix[i, j]), int(i), int(j)) for i, j in zip(true, predicted, strict=True) if i != j]
    lines = [fill(f"Most frequent errors ({len(matrix)} classes; the whole matrix is in .confusion_matrix)")]
    for rows, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:10]:
        lines += wrap(
            f"{'row is' if rows == 1 else 'rows are'} {answers[i]}, predicted {answers[j]}",
            indent=f"{_count(rows):>9} ",
        )
    return "\n".join(lines)


def _classes(result: Evaluation) -> str:
    ranked = sorted(result.per_class, key=lambda score: score.recall.value)
    shown = ranked[:20]
    rows = [_count(score.support) for score in shown]
    count_width = max(4, *map(len, rows))
    names = ("precision", "recall", "f1") if width() >= _ALL_SCORES else ("recall", "f1")
    room = max(8, width() - count_width - 3 - (19 * len(names) - 2))
    label_width = min(max(5, *(cell_len(visible(score.label)) for score in shown)), room)
    heads = " ".join(f"{METRICS[name].title:<18}" for name in names).rstrip()
    lines = [f"{'class':<{label_width}} {'rows':>{count_width}}  {heads}"]
    for score, support in zip(shown, rows, strict=True):
        scores = [getattr(score, name) for name in names]
        numbers = " ".join(f"{f'{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]':<18}" for one in scores)
        label = pad(_cut(score.label, label_width), label_width)
        lines.append(f"{label} {support:>{count_width}}  {numbers}".rstrip())
    if len(ranked) > len(shown):
        lines.append(f"... and {len(ranked) - len(shown)} classes with a higher recall")
    return "\n".join(lines)


def _calibration(result: Evaluation) -> str:
    if result.calibration is None:
        return ""
    parts = result.calibration.brier
    return "\n".join(
        [
            fill(f"Calibration. {result.calibration.verdict}"),
            fill(
                f"Brier {parts.brier:.3f} = reliability {parts.reliability:.3f} - resolution "
                f"{parts.resolution:.3f} + uncertainty {parts.uncertainty:.3f} + within bins "
                f"{parts.within:.3f}"
            ),
        ]
    )


def _slices(result: Evaluation) -> str:
    lines = [fill(sentence) for sentence in about_slices(result)]
    weak = [str(one) for one in result.slices if one.weak][:10]
    if weak:
        head = f"{'':<{max(12, width() - 42)}} {'rows':>7}  {'accuracy':<20}  rest"
        lines = ["Weaker than the rest (false discovery rate 5 %)", head, *weak, *lines]
    return "\n".join(lines)


def _label_errors(result: Evaluation) -> str:
    """Name the rows whose labels are most worth a second look."""
    if result.task != "classification" or not result.has_probabilities:
        return ""
    found = possible_label_errors(result, n=3)
    if not len(found):
        return ""
    rows = [
        f"row {identity} ({quoted(label, 20)}, but {p:.2f} {quoted(suggested, 20)})"
        for identity, label, suggested, p in zip(
            found["id"], found["label"], found["suggested"], found["p_suggested"], strict=True
        )
    ]
    return fill(f"Possible label errors, to be looked at: {'; '.join(rows)}.")
