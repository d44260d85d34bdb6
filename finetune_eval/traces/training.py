"""TrainingTrace: what happened in every epoch, one sentence about each, and a chart that fits a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_eval import _checks, _files
from finetune_eval._text import Shown, fill, width

_WIDE = 79  # columns of the whole table; a narrower terminal gets a narrower one
_INDENT = 7  # where the split's name and the observation begin
_METRICS = ("loss", "accuracy", "precision", "recall", "f1")
# A relative change of a loss smaller than this is called no change. Prechelt (1998) measures the rise of the
# validation loss over its lowest in per cent (the generalisation loss); 1 % is his smallest threshold.
_FLAT = 0.01
_CHART_HEIGHT = 10
_CHART_COLUMNS = 66  # what an 80-column line has left beside the y labels
_CHART_STEP = 12  # at most this many columns from one epoch to the next, so that few epochs stay a curve


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: The epoch's number; the first is 1.
        metrics: Values by their Keras name: loss, accuracy, precision, recall, f1, and the same with `val_`.
            Any may be absent. As in every Keras log, training values are averages over the epoch while the
            weights moved; validation values are of the weights at its end.
        learning_rate: The rate at the end of the epoch, or None where it is not known.
        seconds: Wall time of the epoch.
        observation: One sentence computed from the numbers; see `observe`.
        rows: Number of training rows behind the metrics, or None.
        val_rows: Number of validation rows behind the `val_` metrics, or None.
    """

    epoch: int
    metrics: Mapping[str, float]
    learning_rate: float | None = None
    seconds: float = math.nan
    observation: str = ""
    rows: int | None = None
    val_rows: int | None = None

    def record(self) -> dict[str, Any]:
        """Return the epoch as JSON data; a value that is not finite becomes a text."""
        return {
            "epoch": int(self.epoch),
            "metrics": {name: _to_json(value) for name, value in self.metrics.items()},
            "learning_rate": _to_json(self.learning_rate),
            "seconds": _to_json(self.seconds),
            "observation": self.observation,
            "rows": None if self.rows is None else int(self.rows),
            "val_rows": None if self.val_rows is None else int(self.val_rows),
        }

    @classmethod
    def of_record(cls, read: Mapping[str, Any]) -> EpochRecord:
        """Rebuild what `record` returned."""
        rate = read["learning_rate"]
        return cls(
            epoch=int(read["epoch"]),
            metrics={name: float(value) for name, value in read["metrics"].items()},
            learning_rate=None if rate is None else float(rate),
            seconds=float(read["seconds"]),
            observation=str(read["observation"]),
            rows=read["rows"],
            val_rows=read["val_rows"],
        )


@dataclass(frozen=True)
class TrainingTrace(Shown):
    """Every epoch of a training run; printing it gives a table and a chart that fit the terminal.

    Attributes:
        epochs: One record an epoch, in order.
        best_epoch: The number of the epoch that `monitor` calls best, or None.
        monitor: The metric that chose `best_epoch`, such as "val_loss", or None.

    Example:
        >>> trace = TrainingTrace.from_history({"loss": [0.65, 0.48], "accuracy": [0.60, 0.75]})
        >>> trace.epochs[1].observation
        'loss fell 0.65 → 0.48, accuracy up 15 points'
    """

    epochs: tuple[EpochRecord, ...] = field(default=())
    best_epoch: int | None = None
    monitor: str | None = None

    @classmethod
    def from_history(
        cls,
        history: Mapping[str, Sequence[float]],
        *,
        seconds: Sequence[float] | None = None,
        rows: int | None = None,
        val_rows: int | None = None,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> TrainingTrace:
        """Make a trace of what `model.fit` returns as `History.history`.

        Args:
            history: Metric name -> one value an epoch. `learning_rate`, which Keras's schedulers add, is
                taken as the rate.
            seconds: Wall time of each epoch; unknown by default.
            rows: Number of training rows, for judging noise.
            val_rows: Number of validation rows, for judging noise.
            monitor: The metric that chooses the best epoch. By default `val_loss` if it is there, else none:
                the lowest training loss says nothing about new rows.
            mode: "min" or "max"; needed only for a monitor whose direction is not known by its name.

        Returns:
            The trace, with an observation for each epoch.

        Raises:
            ValueError: The lists differ in length, or `monitor` is not in `history`.
        """
        if not isinstance(history, Mapping):
            raise TypeError(
                "`history` must be a dictionary from metric to values, as `model.fit(...).history`; got "
                f"{type(history).__name__}."
            )
        history = {name: _checked_values(name, values) for name, values in history.items()}
        rows = rows if rows is None else _checks.positive_int("rows", rows)
        val_rows = val_rows if val_rows is None else _checks.positive_int("val_rows", val_rows)
        if seconds is not None:
            seconds = _checked_values("seconds", seconds)
        lengths = {name: len(values) for name, values in history.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "`history` must have as many values for each metric as for every other; got "
                + ", ".join(f"{count} for {name!r}" for name, count in lengths.items())
                + "."
            )
        count = next(iter(lengths.values()), 0)
        if seconds is not None and len(seconds) != count:
            raise ValueError(f"`seconds` must have one value an epoch ({count}); got {len(seconds)}.")
        rates = history.get("learning_rate")
        logs = [
            {name: float(values[i]) for name, values in history.items() if name != "learning_rate"}
            for i in range(count)
        ]
        records = tuple(
            EpochRecord(
                epoch=i + 1,
                metrics=logs[i],
                learning_rate=None if rates is None else float(rates[i]),
                seconds=math.nan if seconds is None else float(seconds[i]),
                observation=observe(logs[: i + 1], rows=rows, val_rows=val_rows),
                rows=rows,
                val_rows=val_rows,
            )
            for i in range(count)
        )
        return cls._of(records, monitor, mode)

    @classmethod
    def load(cls, path: str | Path, *, monitor: str | None = None, mode: str | None = None) -> TrainingTrace:
        """Read a `trace.jsonl`.

        Args:
            path: A file with one epoch a line. A last line that was cut off by a crash is left out.
            monitor: As for `from_history`.
            mode: As for `from_history`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A line is damaged or not an epoch, or `monitor` is not among the metrics.
        """
        target, records = _checks.path("path", path), []
        if not target.is_file():
            raise FileNotFoundError(f"`path` must be a file of epochs; {str(target)!r} is none.")
        for number, line in enumerate(_files.read_lines(target), start=1):
            try:
                records.append(EpochRecord.of_record(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{str(path)!r} is no training trace: record {number} is not an epoch ({error!r})."
                ) from None
        return cls._of(tuple(records), monitor, mode)

    @classmethod
    def _of(cls, records: tuple[EpochRecord, ...], monitor: str | None, mode: str | None) -> TrainingTrace:
        if monitor is None and any("val_loss" in record.metrics for record in records):
            monitor = "val_loss"
        best = None if monitor is None else best_epoch(records, monitor, mode=mode)
        return cls(records, best, monitor)

    def to_jsonl(self) -> str:
        """Return the trace as JSON lines, one an epoch, each with a checksum and a line break."""
        return "".join(_files.json_line(record.record()) for record in self.epochs)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row an epoch: epoch, the metrics, rate, seconds and observation."""
        import pandas as pd

        names = list(dict.fromkeys(name for record in self.epochs for name in record.metrics))
        return pd.DataFrame(
            [
                {
                    "epoch": record.epoch,
                    **{name: record.metrics.get(name, math.nan) for name in names},
                    "learning_rate": math.nan if record.learning_rate is None else record.learning_rate,
                    "seconds": record.seconds,
                    "observation": record.observation,
                }
                for record in self.epochs
            ],
            columns=["epoch", *names, "learning_rate", "seconds", "observation"],
        )

    def __str__(self) -> str:
        if not self.epochs:
            return "no epoch was trained"
        parts = [header(), *(row(record, best=record.epoch == self.best_epoch) for record in self.epochs)]
        if self.best_epoch is not None:
            parts.append(_best_line(self))
        drawn = chart(self)
        return "\n".join(parts) + (f"\n\n{drawn}" if drawn else "")


def _checked_values(name: Any, values: Any) -> list[float]:
    """Return a metric's values as floats, one an epoch."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"`history` must have one number an epoch for {name!r}; got {values!r}.") from None


def best_epoch(records: Iterable[EpochRecord], monitor: str, *, mode: str | None = None) -> int | None:
    """Return the number of the best epoch: the first of several that are equally good.

    Args:
        records: The epochs.
        monitor: A metric's name, such as "val_loss" or "val_f1".
        mode: "min" or "max". By default "min" for a name that ends in "loss", "max" for accuracy, precision,
            recall and f1.

    Returns:
        The epoch's number, or None if `monitor` is NaN in every epoch or there is no epoch.

    Raises:
        ValueError: No epoch has `monitor`, or its direction is not known and `mode` is not given.
    """
    records = tuple(records)
    if not isinstance(monitor, str):
        raise TypeError(
            f"`monitor` must be the name of a metric; got {monitor!r} ({type(monitor).__name__})."
        )
    if mode is None:
        mode = "min" if monitor.endswith("loss") else "max" if _plain(monitor) in _METRICS else None
        if mode is None:
            raise ValueError(
                f"`mode` must be 'min' or 'max' for the metric {monitor!r}, whose direction is not known."
            )
    _checks.one_of("mode", mode, ("min", "max"))
    known = list(dict.fromkeys(name for record in records for name in record.metrics))
    if records and monitor not in known:
        raise ValueError(
            f"`monitor` must be a metric of the trace ({', '.join(known)}); got {monitor!r}."
            f"{_checks.nearest(monitor, known)}"
        )
    sign = 1 if mode == "min" else -1
    values = [(sign * record.metrics.get(monitor, math.nan), record.epoch) for record in records]
    return min((pair for pair in values if not math.isnan(pair[0])), default=(0, None))[1]


# One sentence an epoch -----------------------------------------------------------------------------------


def observe(
    history: Sequence[Mapping[str, float]], *, rows: int | None = None, val_rows: int | None = None
) -> str:
    """Say in one sentence what the last epoch's numbers show against the epochs before.

    The rules, in the order of what matters:

    * A loss that is NaN or infinite is said first, and nothing else.
    * *Overfitting since epoch k*: the validation loss rose, and is more than 1 % above its lowest (in epoch
      k - 1), while the training loss fell, and is below what it was then.
    * *Within noise*: an accuracy moved by no more than one standard error, sqrt(p (1 - p) / n) on its n rows.
      p is taken as (hits + 2) / (n + 4), so that it is not 0 for a perfect epoch. It is said only where the
      number of rows is known. Two epochs are judged on the same rows, so this is a rule of thumb and no test.
    * A loss that moved by less than 1 % *held*.
    * *As for a model that always answers the same*: recall is 1 and precision equals accuracy (always the
      positive class), recall is 0 though some rows are right (never the positive class), or recall is 1/K
      and precision accuracy/K (averages over K classes, of which only one is ever answered).

    Args:
        history: One mapping of Keras names to values for each epoch so far, the last one last.
        rows: Number of training rows behind `accuracy`, if known.
        val_rows: Number of validation rows behind `val_accuracy`, if known.

    Returns:
        One sentence, without a full stop.

    Raises:
        ValueError: `history` is empty.

    Example:
        >>> observe([{"loss": 0.65, "val_loss": 0.60}, {"loss": 0.48, "val_loss": 0.66}])
        'validation loss rose 0.60 → 0.66 while training loss fell 0.65 → 0.48: overfitting since epoch 2'

    Reference:
        L. Prechelt, "Early stopping - but when?", 1998 (the generalisation loss). L. Breiman et al.,
        "Classification and Regression Trees", 1984, section 3.4.3 (the one-standard-error rule).
        A. Agresti and B. Coull, The American Statistician 52, 1998 (two hits and two misses added).
    """
    _checks.not_empty("history", history)
    now = history[-1]
    broken = _not_finite(history)
    if broken:
        return broken
    moved = _first_epoch(now) if len(history) == 1 else _movement(history, rows, val_rows)
    return "; ".join(part for part in (moved, _one_class(now)) if part)


def _not_finite(history: Sequence[Mapping[str, float]]) -> str:
    loss, val_loss = history[-1].get("loss", 0.0), history[-1].get("val_loss", 0.0)
    if not math.isfinite(loss):
        first = len(history)
        while first > 1 and not math.isfinite(history[first - 2].get("loss", 0.0)):
            first -= 1
        since = f" since epoch {first}" if first < len(history) else ""
        word = "NaN" if math.isnan(loss) else "infinite"
        return (
            f"loss is {word}{since}: training has diverged; lower the learning rate, "
            "or look for NaN and huge values in the inputs"
        )
    if not math.isfinite(val_loss):
        word = "NaN" if math.isnan(val_loss) else "infinite"
        training = f" while training loss is {_figure(loss)}" if "loss" in history[-1] else ""
        return (
            f"validation loss is {word}{training}: the last steps of this epoch diverged, "
            "or the validation rows hold NaN or huge values"
        )
    return ""


def _first_epoch(now: Mapping[str, float]) -> str:
    said = [
        f"{words} {_figure(now[name])}"
        for name, words in (
            ("loss", "loss"),
            ("accuracy", "accuracy"),
            ("val_loss", "validation loss"),
            ("val_accuracy", "validation accuracy"),
        )
        if name in now
    ]
    return f"first epoch: {', '.join(said)}" if said else "first epoch, with no loss or accuracy recorded"


def _movement(history: Sequence[Mapping[str, float]], rows: int | None, val_rows: int | None) -> str:
    before, now = history[-2], history[-1]
    accuracy, noise = _accuracy_clause(before, now, rows, val_rows)
    overfitting = _overfitting(history)
    if overfitting:
        if noise:
            accuracy += f", within noise ({noise})"
        return f"{overfitting}; {accuracy}" if accuracy else overfitting

    losses = [
        _loss_clause(history, name, words)
        for name, words in (("loss", "loss"), ("val_loss", "validation loss"))
        if _both(before, now, name)
    ]
    flat = not any(_direction(before, now, name) for name in ("loss", "val_loss"))
    if noise and flat:
        return f"changes are within noise: {accuracy} ({noise})"
    if noise:
        accuracy += f", within noise ({noise})"
    said = [*losses, *([accuracy] if accuracy else [])]
    return ", ".join(said) if said else "the epoch before has no loss or accuracy to compare with"


def _overfitting(history: Sequence[Mapping[str, float]]) -> str:
    before, now = history[-2], history[-1]
    if _direction(before, now, "loss", flat=0.0) >= 0 or _direction(before, now, "val_loss", flat=0.0) <= 0:
        return ""
    lowest = _lowest(history, "val_loss")
    at_lowest = history[lowest]
    if now["val_loss"] <= at_lowest["val_loss"] * (1 + _FLAT) or not now["loss"] < at_lowest.get("loss", 0.0):
        return ""
    return (
        f"validation loss rose {_pair(before['val_loss'], now['val_loss'])} while training loss fell "
        f"{_pair(before['loss'], now['loss'])}: overfitting since epoch {lowest + 2}"
    )


def _loss_clause(history: Sequence[Mapping[str, float]], name: str, words: str) -> str:
    before, now = history[-2], history[-1]
    direction = _direction(before, now, name)
    if direction == 0:
        said = f"{words} held at {_figure(now[name])}"
    else:
        said = f"{words} {'rose' if direction > 0 else 'fell'} {_pair(before[name], now[name])}"
    first = history[0].get(name, math.nan)
    if name == "loss":
        if len(history) > 2 and direction > 0 and now[name] > first:
            said += f" (above the first epoch's {_figure(first)})"
        return said
    lowest = _lowest(history, name)
    if lowest < len(history) - 2 and now[name] > history[lowest][name]:
        said += f" (lowest: {_figure(history[lowest][name])} in epoch {lowest + 1})"
    return said


def _accuracy_clause(
    before: Mapping[str, float], now: Mapping[str, float], rows: int | None, val_rows: int | None
) -> tuple[str, str]:
    """Return how the accuracy moved (validation if both epochs have it) and, if that is noise, why."""
    if _both(before, now, "val_accuracy"):
        name, words, n = "val_accuracy", "validation accuracy", val_rows
    elif _both(before, now, "accuracy"):
        name, words, n = "accuracy", "accuracy", rows
    else:
        return "", ""
    change = now[name] - before[name]
    if abs(change) < 5e-5:
        return f"{words} unchanged at {_figure(now[name])}", ""
    said = f"{words} {'up' if change > 0 else 'down'} {_points(abs(change))}"
    if n:
        hits = (before[name] + now[name]) / 2 * n
        share = (hits + 2) / (n + 4)
        error = math.sqrt(share * (1 - share) / n)
        if abs(change) <= error:
            return said, f"standard error on {n:,} {'row' if n == 1 else 'rows'}: {_points(error)}"
    return said, ""


def _one_class(now: Mapping[str, float]) -> str:
    """Say that the figures are those of a model that answers one class only, if they are."""
    for prefix, words in (("val_", "validation "), ("", "")):
        values = [now.get(prefix + name, math.nan) for name in ("accuracy", "precision", "recall")]
        accuracy, precision, recall = values
        if any(not math.isfinite(value) for value in values):
            continue
        if accuracy >= 1 - 1e-6:
            return ""
        if recall >= 1 - 1e-6 and abs(precision - accuracy) < 1e-6:
            return (
                f"{words}recall is 1 and precision equals accuracy, "
                "as for a model that always answers the positive class"
            )
        if recall < 1e-6 < accuracy:
            return (
                f"{words}recall is 0 while accuracy is {_figure(accuracy)}, "
                "as for a model that never answers the positive class"
            )
        classes = round(1 / recall) if recall > 1e-6 else 0
        if classes >= 2 and abs(recall * classes - 1) < 1e-6 and abs(precision * classes - accuracy) < 1e-6:
            return f"{words}precision and recall are those of a model that always answers the same class"
        return ""
    return ""


def _to_json(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value if value is None else float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _both(before: Mapping[str, float], now: Mapping[str, float], name: str) -> bool:
    return math.isfinite(before.get(name, math.nan)) and math.isfinite(now.get(name, math.nan))


def _direction(before: Mapping[str, float], now: Mapping[str, float], name: str, flat: float = _FLAT) -> int:
    """Return 1 if the loss rose, -1 if it fell, 0 if it held or is missing."""
    if not _both(before, now, name):
        return 0
    change = now[name] - before[name]
    if abs(change) <= flat * abs(before[name]):
        return 0
    return 1 if change > 0 else -1


def _lowest(history: Sequence[Mapping[str, float]], name: str) -> int:
    finite = [i for i, logs in enumerate(history) if math.isfinite(logs.get(name, math.nan))]
    return min(finite, key=lambda i: (history[i][name], i))


def _pair(before: float, now: float) -> str:
    """Both values with as many decimals as their difference needs to be seen in size, at least two."""
    change = abs(now - before)
    if max(abs(before), abs(now)) >= 1000 or 0 < change < 1e-7:
        return f"{before:.4g} → {now:.4g}"
    decimals = 2 if change == 0 else min(8, max(2, 1 - math.floor(math.log10(change))))
    a, b = f"{before:.{decimals}f}", f"{now:.{decimals}f}"
    while decimals > 2 and a.endswith("0") and b.endswith("0"):
        decimals -= 1
        a, b = a[:-1], b[:-1]
    return f"{a} → {b}"


def _figure(value: float) -> str:
    if abs(value) >= 1000 or 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return text[:-1] if text.endswith("0") else text


def _points(share: float) -> str:
    points = 100 * share
    text = f"{points:.1f}" if points >= 0.05 else f"{points:.2g}"
    text = text.removesuffix(".0")
    return f"{text} point" + ("" if text == "1" else "s")


# The table -----------------------------------------------------------------------------------------------


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
        lines.append(f"{'':<{_INDENT}}{'valid':<5}{_cells(record, 'val_')}")
    margin = " " * _INDENT
    lines += textwrap.wrap(
        record.observation,
        min(width(), _WIDE),
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _cells(record: EpochRecord, prefix: str) -> str:
    columns = 10 if width() >= _WIDE else 7
    return "".join(f"{_cell(record.metrics.get(prefix + name), columns):>{columns}}" for name in _METRICS)


def _cell(value: float | None, columns: int = 10) -> str:
    if value is None:
        return "-"
    if columns < 10 and abs(value) >= 10:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.2e}"


def _best_line(trace: TrainingTrace) -> str:
    value = next(
        (r.metrics.get(trace.monitor or "") for r in trace.epochs if r.epoch == trace.best_epoch), None
    )
    shown = "" if value is None else f": {trace.monitor} {_cell(value)}"
    return f"* best epoch: {trace.best_epoch}{shown}"


def _plain(name: str) -> str:
    return name.removeprefix("val_")


# The chart -----------------------------------------------------------------------------------------------


def chart(trace: TrainingTrace) -> str:
    """Draw the loss of every epoch in ASCII; an empty string if no epoch has a finite loss.

    `o` is the training loss, `x` the validation loss, `#` both; dots join the epochs. More epochs than
    columns share columns: all of their marks are drawn.
    """
    epochs = [record.epoch for record in trace.epochs]
    curves = {
        mark: [record.metrics.get(name, math.nan) for record in trace.epochs]
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
    if trace.best_epoch in epochs:
        lines.append(f"{'':>{wide}}   {' ' * column[epochs.index(trace.best_epoch)]}^ best")
    lines.append(_legend(trace, curves))
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


def _legend(trace: TrainingTrace, curves: Mapping[str, Sequence[float]]) -> str:
    drawn = {mark for mark, values in curves.items() if any(math.isfinite(value) for value in values)}
    said = [f"{mark} {words}" for mark, words in (("o", "training"), ("x", "validation")) if mark in drawn]
    if len(drawn) == 2:
        said.append("# both")
    missing = [
        str(record.epoch)
        for record in trace.epochs
        if any(not math.isfinite(record.metrics.get(name, 0.0)) for name in ("loss", "val_loss"))
    ]
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return "   ".join(said) + "\n" + fill(f"not finite, not drawn: epoch {listed}")
    return "   ".join(said)
