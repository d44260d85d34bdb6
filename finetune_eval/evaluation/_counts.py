"""What rows and probabilities add up to: counts that parts of the rows, in any order, add up to alike."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation import _trust
from finetune_eval.evaluation._exact import exact_totals
from finetune_eval.evaluation._histograms import MOST_ROWS, Histogram, bins_for
from finetune_eval.evaluation.confusion import confusion_matrix
from finetune_eval.evaluation.losses import (
    SMALLEST_PROBABILITY,
    brier_costs,
    expected_loss,
    log_costs,
    ranks,
    row_brier,
    row_loss,
)
from finetune_eval.evaluation.sample import decided

Floats = NDArray[np.float64]

WORST = 20  # rows of the highest loss that are kept
MOST_VALUES = 10_000  # different values of a column, beyond which it is not looked at
_RANKS = 10  # the largest k of a top-k accuracy
_FORMAT = 1  # of `to_bytes`
# Powers of the losses of the rows, moments of the losses that their probabilities expect, and products of
# these: what `means.estimate_loss` is made of.
TOTALS = ("r1", "r2", "r3", "r4", "e1", "e2", "e3", "e4", "v", "ev", "eev", "t", "et", "f")
LOSSES = {"loss": (row_loss, log_costs), "brier": (row_brier, brier_costs)}
MISSING = "(missing)"


def _badness(row: list[Any]) -> tuple[Any, ...]:
    """Order rows by their loss, and equal losses by all else that is known of them."""
    loss, source, place, name, *rest = row
    return -loss, source, place, name or "", *rest


class Counts:
    """What the rows of a part add up to, of K classes with probabilities; `add` is exact and in any order.

    Attributes:
        classes: How many classes K.
        n: How many rows.
        table: (K, K) confusion matrix.
        totals: Loss to the exact totals of `TOTALS`, without rows whose true class was given 0.
        ranges: Loss to the smallest and largest loss of a row, and that its probabilities expect.
        classwise: A histogram of the second of two classes, or of each class.
        top: A histogram of the most probable class, where there are more than two classes; else None.
        zeros: (K + 1,) rows by how many classes they give a probability of 0.
        happened: Rows whose true class was given 0.
        smallest: The smallest probability that is not 0.
        ties: Rows with two equally probable classes.
        capped: Rows whose loss is known from below only.
        ranks: (11,) rows by how many classes stand before the true one; the last one counts ten or more.
        mended: Rows whose probabilities did not sum to 1, and the extremes of the sums.
        worst: The rows of the highest loss: loss, file, row, id, class, answer, probabilities.
        parts: Column to value to rows that have it and right rows; None where there are too many values.
    """

    def __init__(self, classes: int, columns: tuple[str, ...] = ()) -> None:
        self.classes = classes
        self.n = 0
        self.table: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        self.totals: dict[str, list[int]] = {name: [0] * len(TOTALS) for name in LOSSES}
        self.ranges: dict[str, list[float]] = {name: [np.inf, -np.inf, np.inf, -np.inf] for name in LOSSES}
        bins = bins_for(classes)
        self.classwise = [Histogram(bins) for _ in range(1 if classes == 2 else classes)]
        self.top = None if classes == 2 else Histogram(bins)
        self.zeros: NDArray[np.int64] = np.zeros(classes + 1, dtype=np.int64)
        self.happened = 0
        self.smallest = 1.0
        self.ties = 0
        self.capped = 0
        self.ranks: NDArray[np.int64] = np.zeros(_RANKS + 1, dtype=np.int64)
        self.mended: list[float] = [0, np.inf, -np.inf]
        self.worst: list[list[Any]] = []
        self.parts: dict[str, dict[str, list[int]] | None] = {column: {} for column in columns}

    # --------------------------------------------------------------------------------------
    # Rows
    # --------------------------------------------------------------------------------------

    def count(
        self,
        y: NDArray[np.int64],
        p: NDArray[Any],
        mended: Floats,
        *,
        threshold: float | None,
        columns: dict[str, tuple[NDArray[np.int64], list[str]]],
        source: str,
        start: int,
        ids: Any = None,
    ) -> None:
        """Count at most 65,536 checked rows.

        Args:
            y: (n,) class indices.
            p: (n, K) probabilities.
            mended: Sums of the rows that did not sum to 1 and were divided by their sum.
            threshold: As in `decided`.
            columns: Column to the place of each row's value, and the values.
            source: What the rows are of: the name of a file.
            start: The row of the file that the first of these is.
            ids: Function from rows to their ids, or None.
        """
        self._make_room(len(y))
        self.n += len(y)
        answers = decided(p, threshold)
        self.table += confusion_matrix(y, answers, self.classes)
        zero = p < SMALLEST_PROBABILITY
        happened = zero[np.arange(len(y)), y]
        losses = row_loss(y, p)
        self._count_losses(y, p, losses, happened)
        self._count_forecasts(y, p)
        self.zeros += np.bincount(zero.sum(axis=1), minlength=self.classes + 1)
        self.happened += int(happened.sum())
        self.smallest = min(self.smallest, float(p.min(where=~zero, initial=1.0)))
        if threshold is None:
            self.ties += int(_trust.undecided(p).sum())
        self.capped += int(_trust.too_small(y, p).sum())
        if self.classes > 2:
            self.ranks += np.bincount(np.minimum(ranks(y, p), _RANKS), minlength=_RANKS + 1)
        if len(mended):
            self._mend(len(mended), float(mended.min()), float(mended.max()))
        for column, (codes, values) in columns.items():
            rows = np.bincount(codes, minlength=len(values)).tolist()
            right = np.bincount(codes[y == answers], minlength=len(values)).tolist()
            self._count_values(
                column, dict(zip(values, map(list, zip(rows, right, strict=True)), strict=True))
            )
        self._keep_worst(y, p, answers, losses, source, start, ids)

    def _count_losses(
        self, y: NDArray[np.int64], p: NDArray[Any], losses: Floats, happened: NDArray[np.bool_]
    ) -> None:
        for name, (function, costs) in LOSSES.items():
            r = losses if name == "loss" else function(y, p)
            if name == "loss" and happened.any():
                r = np.where(happened, 0.0, r)
            e, v, t, f = expected_loss(p, costs)
            square = e * e
            terms = (r, r * r, r**3, (r * r) ** 2, e, square, square * e, square**2, v, e * v, square * v)
            found = exact_totals(np.stack([*terms, t, e * t, f]))
            self.totals[name] = [a + b for a, b in zip(self.totals[name], found, strict=True)]
            self._widen(name, [float(r.min()), float(r.max()), float(e.min()), float(e.max())])

    def _count_forecasts(self, y: NDArray[np.int64], p: NDArray[Any]) -> None:
        columns = [1] if self.classes == 2 else range(self.classes)
        for histogram, k in zip(self.classwise, columns, strict=True):
            histogram.count(p[:, k].astype(np.float64), y == k)
        if self.top is not None:
            most = p.argmax(axis=1)
            self.top.count(p[np.arange(len(y)), most].astype(np.float64), most == y)

    def _keep_worst(
        self,
        y: NDArray[np.int64],
        p: NDArray[Any],
        answers: NDArray[np.int64],
        losses: Floats,
        source: str,
        start: int,
        ids: Any,
    ) -> None:
        """Keep the rows of the highest loss; of equal ones the first of a file, or any of no file."""
        bound = self.worst[-1][0] if len(self.worst) == WORST else -np.inf
        rows = np.flatnonzero(losses >= bound)
        if len(rows) > WORST:
            least = np.partition(losses[rows], -WORST)[-WORST]
            tied = rows[losses[rows] == least][:WORST]
            rows = np.concatenate([rows[losses[rows] > least], tied])
        if not len(rows):
            return
        names = [None] * len(rows) if ids is None else ids(rows)
        found = [
            [
                float(losses[row]),
                source,
                start + row if source else 0,
                name,
                int(y[row]),
                int(answers[row]),
                p[row].tolist(),
            ]
            for row, name in zip(rows.tolist(), names, strict=True)
        ]
        self._merge_worst(found)

    # --------------------------------------------------------------------------------------
    # Parts
    # --------------------------------------------------------------------------------------

    def add(self, other: Counts) -> None:
        """Add the rows of another part, of the same classes and columns."""
        self._make_room(other.n)
        self.n += other.n
        self.table += other.table
        for name in LOSSES:
            pairs = zip(self.totals[name], other.totals[name], strict=True)
            self.totals[name] = [a + b for a, b in pairs]
            self._widen(name, other.ranges[name])
        for mine, theirs in zip(self._histograms(), other._histograms(), strict=True):
            mine.add(theirs)
        self.zeros += other.zeros
        self.happened += other.happened
        self.smallest = min(self.smallest, other.smallest)
        self.ties += other.ties
        self.capped += other.capped
        self.ranks += other.ranks
        self._mend(int(other.mended[0]), other.mended[1], other.mended[2])
        for column, values in other.parts.items():
            if values is None:
                self.parts[column] = None
            else:
                self._count_values(column, values)
        self._merge_worst(other.worst)

    def _make_room(self, rows: int) -> None:
        if self.n + rows > MOST_ROWS:
            raise ValueError(f"At most {MOST_ROWS:,} rows can be counted; evaluate parts of them.")

    def _histograms(self) -> list[Histogram]:
        return self.classwise if self.top is None else [*self.classwise, self.top]

    def _widen(self, name: str, found: list[float]) -> None:
        pairs = zip(self.ranges[name], found, (min, max, min, max), strict=True)
        self.ranges[name] = [choose(a, b) for a, b, choose in pairs]

    def _mend(self, many: int, low: float, high: float) -> None:
        self.mended = [self.mended[0] + many, min(self.mended[1], low), max(self.mended[2], high)]

    def _count_values(self, column: str, values: dict[str, list[int]]) -> None:
        mine = self.parts[column]
        if mine is None:
            return
        for value, (rows, right) in values.items():
            if rows:
                before = mine.get(value, (0, 0))
                mine[value] = [before[0] + rows, before[1] + right]
        if len(mine) > MOST_VALUES:
            self.parts[column] = None

    def _merge_worst(self, rows: list[list[Any]]) -> None:
        self.worst = sorted([*self.worst, *rows], key=_badness)[:WORST]

    # --------------------------------------------------------------------------------------
    # Bytes
    # --------------------------------------------------------------------------------------

    def to_bytes(self, about: dict[str, Any]) -> bytes:
        """Return everything, with a checksum; `about` is JSON data to keep beside it."""
        record = {
            "format": _FORMAT,
            "about": about,
            "n": self.n,
            "classes": self.classes,
            "totals": {name: [hex(total) for total in totals] for name, totals in self.totals.items()},
            "ranges": {name: [float(x).hex() for x in found] for name, found in self.ranges.items()},
            "counts": [self.happened, self.ties, self.capped, self.mended[0]],
            "floats": [float(x).hex() for x in (self.smallest, *self.mended[1:])],
            "worst": self.worst,
            "parts": self.parts,
        }
        arrays: dict[str, NDArray[Any]] = {"table": self.table, "zeros": self.zeros, "ranks": self.ranks}
        for i, one in enumerate(self._histograms()):
            full = np.flatnonzero(one.rows.sum(axis=0))
            arrays |= {f"h{i}_full": full, f"h{i}_rows": one.rows[:, full], f"h{i}_mass": one.mass[full]}
            arrays |= {f"h{i}_low": one.low[full], f"h{i}_high": one.high[full]}
        return packed(record, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Counts, dict[str, Any]]:
        """Return what `to_bytes` wrote, and what was kept beside it.

        Raises:
            ValueError: It is damaged, or of another version.
        """
        record, arrays = unpacked(data, _FORMAT)
        made = cls(record["classes"])
        made.n, made.worst, made.parts = record["n"], record["worst"], record["parts"]
        made.totals = {name: [int(t, 16) for t in totals] for name, totals in record["totals"].items()}
        made.ranges = {name: [float.fromhex(x) for x in found] for name, found in record["ranges"].items()}
        made.happened, made.ties, made.capped, mended = record["counts"]
        made.smallest, *extremes = map(float.fromhex, record["floats"])
        made.mended = [mended, *extremes]
        made.table, made.zeros, made.ranks = (arrays[name] for name in ("table", "zeros", "ranks"))
        for i, one in enumerate(made._histograms()):
            full = arrays[f"h{i}_full"]
            one.rows[:, full], one.mass[full] = arrays[f"h{i}_rows"], arrays[f"h{i}_mass"]
            one.low[full], one.high[full] = arrays[f"h{i}_low"], arrays[f"h{i}_high"]
        return made, record["about"]


def packed(record: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return JSON data and arrays as bytes with a checksum; `record` has a `format` number."""
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(record, sort_keys=True).encode(), dtype=np.uint8)
    np.savez(file, **{**arrays, "record": text})  # type: ignore[arg-type]  # NumPy types no names of arrays
    data = zlib.compress(file.getvalue(), 1)
    return hashlib.sha256(data).digest() + data


def unpacked(data: bytes, wanted: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the JSON data and the arrays that `packed` was given.

    Args:
        data: What `packed` returned.
        wanted: The `format` that the data must have.

    Raises:
        ValueError: It is damaged, or of another format.
    """
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError("these statistics are damaged: they do not fit their checksum")
    with np.load(io.BytesIO(zlib.decompress(data[32:])), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(arrays.pop("record").tobytes())
    if record["format"] != wanted:
        raise ValueError("these statistics were written by another version of finetune-eval")
    return record, arrays
