"""EpochRecord: what is known of one epoch, as data and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = ("loss", "accuracy", "precision", "recall", "f1")  # those that every epoch is asked for


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
        val_f1_interval: The limits of the 95 % interval of `val_f1`, or None where it is not known.
    """

    epoch: int
    metrics: Mapping[str, float]
    learning_rate: float | None = None
    seconds: float = math.nan
    observation: str = ""
    rows: int | None = None
    val_rows: int | None = None
    val_f1_interval: tuple[float, float] | None = None

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
            "val_f1_interval": None if self.val_f1_interval is None else list(self.val_f1_interval),
        }

    @classmethod
    def of_record(cls, read: Mapping[str, Any]) -> EpochRecord:
        """Rebuild what `record` returned."""
        rate, interval = read["learning_rate"], read.get("val_f1_interval")
        return cls(
            epoch=int(read["epoch"]),
            metrics={name: float(value) for name, value in read["metrics"].items()},
            learning_rate=None if rate is None else float(rate),
            seconds=float(read["seconds"]),
            observation=str(read["observation"]),
            rows=read["rows"],
            val_rows=read["val_rows"],
            val_f1_interval=None if interval is None else (float(interval[0]), float(interval[1])),
        )


def _to_json(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value if value is None else float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
