"""The sections of a report in plain text, as wide as the terminal, with tables that fit it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from finetune_eval._text import fill, pad, quoted, share, shorten, visible, width, wrap
from finetune_eval.evaluation._result import with_no_label
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.sections import count, directed_title, metric_names, sections
from finetune_eval.evaluation.slices import possible_label_errors

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

_LABEL_WIDTH = 14
_MOST_COLUMNS = 8
_ALL_SCORES = 74  # columns that the three scores of a class need; a narrower terminal gets two


def text(result: Evaluation) -> str:
    """Return the sections of a report as text, with the tables that fit a terminal."""
    blocks = []
    for section in sections(result):
        if section.key in _NOT_PRINTED:
            continue
        said = [fill(sentence, indent="! ") for sentence in section.warnings]
        said += [fill(sentence) for sentence in section.sentences]
        if said and section.key in _WITH_TITLE:
            said.insert(0, section.title)
        tables = _TABLES[section.key](result) if section.key in _TABLES else []
        blocks += ["\n".join(said), *tables]
    return "\n\n".join(block for block in blocks if block)


def _metrics(result: Evaluation) -> str:
    names = metric_names(result)
    methods = list(dict.fromkeys(result.estimates[name].method for name in names))
    room = max(12, min(34, width() - 37))
    lines = [f"{'metric':<{room}} {'value':>7}  {'interval':<18} method"]
    for name in names:
        estimate = result.estimates[name]
        title = directed_title(result, name)
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
    cells = [[count(value) for value in row] for row in with_no_label(result)]
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
            indent=f"{count(rows):>9} ",
        )
    return "\n".join(lines)


def _classes(result: Evaluation) -> str:
    ranked = sorted(result.per_class, key=lambda score: score.recall.value)
    shown = ranked[:20]
    rows = [count(score.support) for score in shown]
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


def _weak(result: Evaluation) -> list[str]:
    weak = [str(one) for one in result.slices if one.weak][:10]
    head = f"{'':<{max(12, width() - 42)}} {'rows':>7}  {'accuracy':<20}  rest"
    parts = ["Weak parts (of such findings at most 5 % are chance, on average)", head, *weak] if weak else []
    return ["\n".join(parts), _label_errors(result)]


def _label_errors(result: Evaluation) -> str:
    """Name the rows whose labels are most worth a second look."""
    if result.task != "classification" or not result.has_probabilities or not result.keeps_rows:
        return ""
    found = possible_label_errors(result, n=3)
    if not len(found):
        return ""
    rows = [
        f"row {identity} (labelled {quoted(label, 20)}; the model says {quoted(suggested, 20)} with "
        f"probability {p:.2f})"
        for identity, label, suggested, p in zip(
            found["id"], found["label"], found["suggested"], found["p_suggested"], strict=True
        )
    ]
    return fill(f"Possible label errors, unless the model is wrong: {', '.join(rows)}.")


_NOT_PRINTED = {"care"}  # the section on trust stands directly below and says it at length
_WITH_TITLE = {"baselines", "limits"}  # whose sentences do not tell what they are about
_TABLES: dict[str, Callable[[Evaluation], list[str]]] = {
    "metrics": lambda result: [_metrics(result)],
    "classes": lambda result: [
        _confusion(result) if result.task == "classification" else "",
        _classes(result) if len(result.labels) > 2 or result.task == "multilabel" else "",
    ],
    "weak": _weak,
}
