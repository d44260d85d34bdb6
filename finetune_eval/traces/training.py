"""TrainingTrace: what happened in every epoch of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_eval import _checks, _files
from finetune_eval._text import Shown
from finetune_eval.traces.chart import draw_losses, header, note, row, shown
from finetune_eval.traces.epochs import METRICS, EpochRecord
from finetune_eval.traces.observations import observe


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
        """Return a pandas DataFrame, a row an epoch: epoch, the metrics, rate, seconds and observation.

        Where there are intervals of `val_f1`, their limits are the columns `val_f1_low` and `val_f1_high`.
        """
        import pandas as pd

        names = list(dict.fromkeys(name for record in self.epochs for name in record.metrics))
        known = any(record.val_f1_interval is not None for record in self.epochs)
        limits = ["val_f1_low", "val_f1_high"] if known else []
        return pd.DataFrame(
            [
                {
                    "epoch": record.epoch,
                    **{name: record.metrics.get(name, math.nan) for name in names},
                    **dict(zip(limits, record.val_f1_interval or (math.nan, math.nan), strict=False)),
                    "learning_rate": math.nan if record.learning_rate is None else record.learning_rate,
                    "seconds": record.seconds,
                    "observation": record.observation,
                }
                for record in self.epochs
            ],
            columns=["epoch", *names, *limits, "learning_rate", "seconds", "observation"],
        )

    def __str__(self) -> str:
        if not self.epochs:
            return "no epoch was trained"
        parts = [header(), *(row(record, best=record.epoch == self.best_epoch) for record in self.epochs)]
        if self.best_epoch is not None:
            parts.append(_best_line(self))
        if said := note(self.epochs):
            parts.append(said)
        drawn = chart(self)
        return "\n".join(parts) + (f"\n\n{drawn}" if drawn else "")


def trace_of_run(path: str | Path, settings: Mapping[str, Any]) -> TrainingTrace:
    """Read the trace of a run, whose settings say which epoch was kept: of the last one it names no best."""
    trace = TrainingTrace.load(path, monitor=settings.get("monitor"))
    return TrainingTrace(trace.epochs) if settings.get("keep") == "last" else trace


def chart(trace: TrainingTrace) -> str:
    """Draw the losses of a training in ASCII; see `traces.chart.draw_losses`."""
    return draw_losses(trace.epochs, trace.best_epoch)


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
        mode = "min" if monitor.endswith("loss") else "max" if _plain(monitor) in METRICS else None
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


def _best_line(trace: TrainingTrace) -> str:
    value = next(
        (r.metrics.get(trace.monitor or "") for r in trace.epochs if r.epoch == trace.best_epoch), None
    )
    by = "" if value is None else f": {trace.monitor} {shown(value)}"
    return f"* best epoch: {trace.best_epoch}{by}"


def _plain(name: str) -> str:
    return name.removeprefix("val_")


__all__ = ["EpochRecord", "TrainingTrace", "best_epoch", "chart", "header", "observe", "row"]
