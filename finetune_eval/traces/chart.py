"""The table of epochs and the chart of their losses, as wide as the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from finetune_eval._text import fill, width
from finetune_eval.traces.epochs import METRICS, EpochRecord

_WIDE = 79  # columns of the whole table; a narrower terminal gets a narrower one
_INDENT = 7  # where the split's name and the observation begin
_CHART_HEIGHT = 10
_CHART_COLUMNS = 66  # what an 80-column line has left beside the y labels
_CHART_STEP = 12  # at most this many columns from one epoch to the next, so that few epochs stay a curve


def header() -> str:
    """Return the heading line of the per-epoch table: 79 columns wide, or 47 on a narrow terminal."""
    start = f"{'epoch':<{_INDENT}}{'split':<5}"
    if width() < _WIDE:
        return start + f"{'loss':>7}{'acc':>7}{'prec':>7}{'recall':>7}{'F1':>7}"
    return start + (
        f"{'loss':>10}{'accuracy':>10}{'precision':>10}{'recall':>10}{'F1':>10}{'rate':>9}{'seconds':>8}"
    )


def row(record: EpochRecord, *, best: bool = False) -> str:
    """Return the lines of one epoch: training, validation if there is any, and the observation.

    Args:
        record: The epoch.
        best: Mark the epoch with a star.
    """
    rate = "-" if record.learning_rate is None else f"{record.learning_rate:.2g}"
    seconds = "-" if math.isnan(record.seconds) else f"{record.seconds:.1f}"
    number = f"{record.epoch}{'*' if best else ''}"
    last = f"{rate:>9}{seconds:>8}" if width() >= _WIDE else ""
    lines = [f"{number:<{_INDENT}}{'train':<5}{_cells(record, '')}{last}"]
    if any(name.startswith("val_") for name in record.metrics):
        beside = f"{_interval(record):>17}" if width() >= _WIDE else ""  # under rate and seconds
        lines.append(f"{'':<{_INDENT}}{'valid':<5}{_cells(record, 'val_')}{beside}".rstrip())
    margin = " " * _INDENT
    lines += textwrap.wrap(
        record.observation,
        min(width(), _WIDE),
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _interval(record: EpochRecord) -> str:
    """Return the interval of the validation F1 as the table shows it, such as "[0.811, 0.907]"."""
    limits = record.val_f1_interval
    return "" if limits is None else f"[{limits[0]:.3f}, {limits[1]:.3f}]"


def _cells(record: EpochRecord, prefix: str) -> str:
    columns = 10 if width() >= _WIDE else 7
    return "".join(f"{shown(record.metrics.get(prefix + name), columns):>{columns}}" for name in METRICS)


def shown(value: float | None, columns: int = 10) -> str:
    """Return a metric as a cell of the table shows it."""
    if value is None:
        return "-"
    if columns < 10 and abs(value) >= 10:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.2e}"


def note(records: Sequence[EpochRecord]) -> str:
    """Return the line that says what the brackets of the table are; nothing where there are none."""
    if width() < _WIDE or all(record.val_f1_interval is None for record in records):
        return ""
    return "[low, high]: 95 % interval of the F1 on the validation rows"


def draw_losses(records: Sequence[EpochRecord], best_epoch: int | None = None) -> str:
    """Draw the loss of every epoch in ASCII; an empty string if no epoch has a finite loss.

    `o` is the training loss, `x` the validation loss, `#` both; dots join the epochs. More epochs than
    columns share columns: all of their marks are drawn.
    """
    epochs = [record.epoch for record in records]
    curves = {
        mark: [record.metrics.get(name, math.nan) for record in records]
        for name, mark in (("loss", "o"), ("val_loss", "x"))
    }
    finite = [value for values in curves.values() for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    if high - low < 1e-9 * max(1.0, abs(high)):  # a flat line still needs a scale to stand on
        low, high = low - 0.05 * max(abs(low), 0.1), high + 0.05 * max(abs(high), 0.1)

    span = min(min(_CHART_COLUMNS, width() - 14) - 1, _CHART_STEP * (len(epochs) - 1))
    column = [round(i * span / max(1, len(epochs) - 1)) for i in range(len(epochs))]
    grid = [[" "] * (span + 1) for _ in range(_CHART_HEIGHT)]

    def level(value: float) -> int:
        return round((high - value) / (high - low) * (_CHART_HEIGHT - 1))

    for values in curves.values():
        for i in range(1, len(values)):
            if math.isfinite(values[i - 1]) and math.isfinite(values[i]):
                for c in range(column[i - 1] + 1, column[i]):
                    share = (c - column[i - 1]) / (column[i] - column[i - 1])
                    grid[level(values[i - 1] + share * (values[i] - values[i - 1]))][c] = "."
    for mark, values in curves.items():
        for i, value in enumerate(values):
            if math.isfinite(value):
                cell = grid[level(value)]
                cell[column[i]] = "#" if cell[column[i]] not in (" ", ".", mark) else mark

    labels = [
        _axis_label(high - (high - low) * i / (_CHART_HEIGHT - 1), high - low) for i in range(_CHART_HEIGHT)
    ]
    wide = max(len(label) for label in labels)
    lines = ["loss"]
    for i, cells in enumerate(grid):
        label = labels[i] if i % 3 == 0 else ""
        lines.append(f"{label:>{wide}} {'+' if label else '|'} {''.join(cells)}".rstrip())
    lines.append(f"{'':>{wide}} +-{'-' * (span + 1)}")
    lines.append(f"{'epoch':>{wide}}   {_epoch_axis(epochs, column, span)}".rstrip())
    if best_epoch in epochs:
        lines.append(f"{'':>{wide}}   {' ' * column[epochs.index(best_epoch)]}^ best")
    lines.append(_legend(records, curves))
    return "\n".join(lines)


def _axis_label(value: float, extent: float) -> str:
    if abs(value) >= 10_000 or extent >= 10_000:
        return f"{value:.2e}"
    decimals = max(0, min(6, 2 - math.floor(math.log10(extent))))
    return f"{value:.{decimals}f}"


def _epoch_axis(epochs: Sequence[int], column: Sequence[int], span: int) -> str:
    """Epoch numbers under their columns: the first, the last, and round ones between, a space apart."""
    room = len(str(epochs[-1])) + 1
    each = span / max(1, len(epochs) - 1)
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if s * each >= room), len(epochs))
    axis = [" "] * (span + 1 + room)
    last = len(epochs) - 1
    for i in (0, last, *range(1, last)):
        text = str(epochs[i])
        start = column[i]
        around = axis[max(0, start - 1) : start + len(text) + 1]
        if (i in (0, last) or epochs[i] % step == 0) and all(cell == " " for cell in around):
            axis[start : start + len(text)] = text
    return "".join(axis)


def _legend(records: Sequence[EpochRecord], curves: Mapping[str, Sequence[float]]) -> str:
    drawn = {mark for mark, values in curves.items() if any(math.isfinite(value) for value in values)}
    said = [f"{mark} {words}" for mark, words in (("o", "training"), ("x", "validation")) if mark in drawn]
    if len(drawn) == 2:
        said.append("# both")
    missing = [
        str(record.epoch)
        for record in records
        if any(not math.isfinite(record.metrics.get(name, 0.0)) for name in ("loss", "val_loss"))
    ]
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return "   ".join(said) + "\n" + fill(f"not finite, not drawn: epoch {listed}")
    return "   ".join(said)
