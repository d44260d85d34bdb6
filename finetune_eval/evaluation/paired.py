"""Two models on more rows than memory holds: statistics of parts of them, which add up to a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval._text import listed
from finetune_eval.evaluation._additive import Additive
from finetune_eval.evaluation._counts import packed, unpacked
from finetune_eval.evaluation._exact import central_moments, exact_totals, number
from finetune_eval.evaluation._options import Asked, checked_options
from finetune_eval.evaluation._paired_differences import (
    Difference,
    of_mean,
    of_shares,
    of_triples,
    surer_of,
)
from finetune_eval.evaluation._paired_resampling import PairedCounts, triple_codes
from finetune_eval.evaluation._paired_rows import Settings, entropy
from finetune_eval.evaluation._reading import (
    AT_ONCE,
    REFUSED,
    TRUTH,
    Reader,
    as_arrow,
    classes_of,
    located,
    readings_of,
)
from finetune_eval.evaluation.comparison import allows_for_rows, model_names, pair_of
from finetune_eval.evaluation.disagreement import disagreement_sentences
from finetune_eval.evaluation.losses import row_brier, row_loss
from finetune_eval.evaluation.means import Powers, interval_of_powers
from finetune_eval.evaluation.metrics import METRICS, from_confusion, resolve_average
from finetune_eval.evaluation.outcomes import (
    IDENTICAL,
    Comparison,
    smallest_that_matters,
    verdict_of_two,
)
from finetune_eval.evaluation.sample import decided
from finetune_eval.evaluation.thresholds import Threshold

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PairedStatistics"]

_FORMAT = "paired 1"  # of `to_bytes`
# The numbers of each row whose differences are added up. Entropy tells which model is surer of its answers,
# and that decides how the interval of a loss is made.
_ROWS: dict[str, Callable[[Any, Any], NDArray[np.float64]]] = {
    "loss": row_loss,
    "brier": row_brier,
    "entropy": lambda y, p: entropy(p),
}
_LOSSES = ("loss", "brier")
_NOT_KEPT = (
    "The rows were counted and not kept: differences of AUCs, and whether one temperature explains the worse "
    "loss, need every row (`compare`)."
)


class PairedStatistics(Additive):
    """What two models' probabilities of the same rows add up to, however many rows there are.

    Statistics of parts of the rows are added with `+`: counts of the distinct (label, answer of the first,
    answer of the second), and exact totals of the powers of the differences of losses. They are the same to
    the bit for any split and any order of the rows.

    Each row must have the probabilities of both models: a table has the columns `p_<class>_<name>` of each
    model, such as `p_spam_A` and `p_spam_B`. Join the models' predictions by their ids where the rows are,
    for nothing here pairs rows of different tables. Rows have one label each and equal weight.

    Args:
        labels: The K class names, in the order of their places.
        names: What the two models are called.
        thresholds: The threshold of each model, as for `evaluate_predictions`; None for most probable class.

    Example:
        >>> empty = PairedStatistics(["ham", "spam"])
        >>> label = ["ham", "spam"] * 100
        >>> a = np.array([0.1, 0.9] * 90 + [0.9, 0.1] * 10)
        >>> b = np.array([0.2, 0.8] * 85 + [0.8, 0.2] * 15)
        >>> columns = {"p_ham_A": 1 - a, "p_spam_A": a, "p_ham_B": 1 - b, "p_spam_B": b}
        >>> made = empty.of({"label": label, **columns})
        >>> (made + made).n, made.finish().outcome
        (400, 'better')
    """

    _counts: _Pairs
    _alike = "labels, names and thresholds"

    def __init__(
        self,
        labels: Sequence[str],
        names: Sequence[str] = ("A", "B"),
        *,
        thresholds: Sequence[float | Threshold | None] = (None, None),
    ) -> None:
        self.labels = classes_of(labels)
        first, second = model_names(names, 2)
        self.names = (first, second)
        if not isinstance(thresholds, (list, tuple)) or len(thresholds) != 2:
            raise TypeError(f"`thresholds` must be two, one for each model; got {thresholds!r}.")
        checked = (checked_options(1, self.labels, Asked(threshold=one)).threshold for one in thresholds)
        self.thresholds = [cast("float | None", one) for one in checked]  # one class a row has one
        self._columns = [{f"p_{label}_{name}": f"p_{label}" for label in self.labels} for name in self.names]
        if len({*self._columns[0], *self._columns[1]}) < 2 * len(self.labels):
            raise ValueError(
                f"`names` {listed(self.names)} make the same column p_<class>_<name> of two classes of the "
                f"labels {listed(self.labels)}; choose other names."
            )
        self._counts = _Pairs(len(self.labels))
        self._read = {}

    def empty(self) -> PairedStatistics:
        """Return statistics of no rows, of the same classes, models and thresholds."""
        return PairedStatistics(self.labels, self.names, thresholds=self.thresholds)

    def of(self, table: Any, *, source: str = "", start: int = 0) -> PairedStatistics:
        """Return the statistics of a part of the rows.

        Args:
            table: A pyarrow Table or RecordBatch, a DataFrame, or a dictionary of columns: `label` (or
                `y_true`, `target`) and `p_<class>_<name>` for each class and each of the two models.
            source: What the rows are of, such as the name of a file: for errors.
            start: The row of the source that the first row of the table is.

        Returns:
            Statistics of these rows alone.

        Raises:
            ValueError: A column is missing, or a label or a probability cannot be one; the sentence names the
                source, the model and the first such row.
        """
        made = self.empty()
        made.count(table, source=source, start=start)
        return made

    def count(self, table: Any, *, source: str = "", start: int = 0) -> None:
        """Add the rows of a table, or none of them where one is wrong; arguments and errors as in `of`."""
        table = as_arrow(table)
        sources = [f"{source} (model {name})" if source else f"model {name}" for name in self.names]
        views = [self._view(table, k, source) for k in (0, 1)]
        readers = [Reader(views[k].column_names, self.labels, (), sources[k]) for k in (0, 1)]
        pairs, read = _Pairs(len(self.labels)), dict[str, int]()
        for first in range(0, table.num_rows, AT_ONCE):
            found = []
            for reader, view, name in zip(readers, views, sources, strict=True):
                part = view.slice(first, AT_ONCE)
                try:
                    y, p, _, seen = reader.rows(part)
                except (TypeError, ValueError) as error:
                    raise located(error, reader, part, name, start + first) from None
                found.append(p)
            read = readings_of(read, seen, self.labels, source)
            pairs.count(y, found, self.thresholds)
        self._add(pairs, read, source)

    def _view(self, table: pa.Table, model: int, source: str) -> pa.Table:
        """Return the columns of one model, named as those of a model alone."""
        named = {**{name: name for name in (*TRUTH, *REFUSED)}, **self._columns[model]}
        kept = [place for place, name in enumerate(table.column_names) if name in named]
        view = table.select(kept).rename_columns([named[table.column_names[place]] for place in kept])
        missing = [name for name, short in self._columns[model].items() if short not in view.column_names]
        if missing:
            raise ValueError(
                f"{repr(source) if source else 'The table'} has no column {missing[0]!r}: it needs the "
                f"probabilities p_<class>_{self.names[model]} of each class beside those of the other model. "
                f"It has {listed(table.column_names)}."
            )
        return view

    def _counts_of(self, data: bytes) -> tuple[_Pairs, dict[str, Any]]:
        return _Pairs.from_bytes(data, len(self.labels))

    def settings(self) -> dict[str, Any]:
        """Return labels, names and thresholds, as JSON data."""
        return {
            "labels": list(self.labels),
            "names": list(self.names),
            "thresholds": self.thresholds,
        }

    def finish(
        self,
        metric: str = "accuracy",
        *,
        alpha: float = 0.05,
        average: str = "auto",
        matters: float | None = None,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> Comparison:
        """Compare the two models on all rows that were counted, as `compare` does on rows.

        Args:
            metric: "loss", "brier" or a metric of the confusion matrix, such as "accuracy" or "f1".
            alpha: As for `compare`.
            average: Of precision, recall and F1, as for `evaluate_predictions`.
            matters: As for `compare`.
            n_resamples: As for `compare`.
            seed: As for `compare`.

        Returns:
            The comparison. Counts, accuracy, tests and intervals are those of `compare` on the same rows;
            losses and what is made of them are the same but for rounding.

        Raises:
            ValueError: No row was counted, an argument is out of range, or the metric needs every row.
        """
        self._check_metric(metric)
        alpha = _checks.number("alpha", alpha, above=0, below=1)
        n_resamples = _checks.positive_int(
            "n_resamples", n_resamples, minimum=100, maximum=_checks.MOST_RESAMPLES
        )
        if not self.n:
            raise ValueError("There are no rows; at least one is needed.")
        settings = Settings(metric, resolve_average(average, len(self.labels)), n_resamples, seed, None)
        values = self._values(settings)
        if matters is None:
            matters = smallest_that_matters(metric, values)
        else:
            matters = _checks.number("matters", matters, at_least=0)
        difference = self._difference(settings)
        pair = pair_of(metric, self.names, values, difference, levels=(alpha, alpha), matters=matters)
        if not (self._counts.unlike if metric in _LOSSES else self._counts.answered_unlike()):
            pair = replace(pair, outcome=IDENTICAL)
        notes = [
            disagreement_sentences(
                self.names,
                self._values(replace(settings, metric="accuracy")),
                self._values(replace(settings, metric="loss")),
                self._difference(replace(settings, metric="loss")),
                metric,
                alpha,
            ),
            _NOT_KEPT,
            allows_for_rows(),
        ]
        return Comparison(
            self.names,
            metric,
            values,
            self.n,
            alpha,
            matters,
            (pair,),
            None,
            verdict_of_two(metric, pair, self.n, matters),
            tuple(filter(None, notes)),
        )

    def _check_metric(self, metric: Any) -> None:
        _checks.one_of("metric", metric, tuple(METRICS))
        can = [name for name, entry in METRICS.items() if entry.source == "confusion" or name in _LOSSES]
        if metric not in can:
            raise ValueError(
                f"`metric` {metric!r} cannot be compared from counts, because it needs every row; choose one "
                f"of {listed(can)}, or use `compare` on rows that memory holds."
            )
        METRICS[metric].check_classes("metric", metric, len(self.labels))

    def _values(self, settings: Settings) -> tuple[float, float]:
        """Return the metric of each model."""
        pairs = self._counts
        if settings.metric in _LOSSES:
            a, b, *_ = pairs.totals[settings.metric]
            return number(a) / pairs.n, number(b) / pairs.n
        of_a, of_b = pairs.tables()
        if settings.metric == "accuracy":
            return int(of_a.trace()) / pairs.n, int(of_b.trace()) / pairs.n
        return (
            float(from_confusion(settings.metric, of_a, settings.average)),
            float(from_confusion(settings.metric, of_b, settings.average)),
        )

    def _difference(self, settings: Settings) -> Difference:
        pairs, n = self._counts, self.n
        if settings.metric == "accuracy":
            both, only_a, only_b = pairs.right()
            return of_shares(both, only_a, only_b, n - both - only_a - only_b)
        if settings.metric not in _LOSSES:
            return of_triples(pairs.triples(), settings, len(self.labels), n)
        bound = METRICS[settings.metric].high
        powers, unsure = pairs.powers(settings.metric), pairs.powers("entropy")
        return of_mean(
            n,
            powers.mean,
            math.sqrt(powers.square * n),
            bound,
            surer_of(self.names, n, unsure.mean, math.sqrt(unsure.square * n)),
            lambda confidence: interval_of_powers(powers, confidence=confidence, bounds=(-bound, bound)),
        )


class _Pairs:
    """What the rows of a part add up to; `add` is exact, and in any order.

    Attributes:
        classes: How many classes K.
        n: How many rows.
        cells: The (label, a, b) that occur, as `triple_codes` numbers them, in rising order.
        counts: How many rows each has.
        totals: Loss to exact totals: of the first model, of the second, and of the first four powers of the
            differences of the rows.
        ranges: Loss to the smallest and the largest difference of a row.
        unlike: Rows with different probabilities.
    """

    def __init__(self, classes: int) -> None:
        self.classes, self.n, self.unlike = classes, 0, 0
        self.cells: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.totals = {name: [0] * 6 for name in _ROWS}
        self.ranges = {name: [math.inf, -math.inf] for name in _ROWS}

    def count(self, y: NDArray[np.int64], p: list[NDArray[Any]], thresholds: Sequence[float | None]) -> None:
        """Count at most 65,536 checked rows of (n,) classes and two (n, K) probabilities."""
        a, b = (decided(one, threshold) for one, threshold in zip(p, thresholds, strict=True))
        cells, counts = np.unique(triple_codes(y, a, b, self.classes), return_counts=True)
        self._add_cells(cells, counts)
        self.n += len(y)
        self.unlike += int((p[0] != p[1]).any(axis=1).sum())
        for name, function in _ROWS.items():
            first, second = (function(y, one) for one in p)
            d = first - second
            square = d * d
            found = exact_totals(np.stack([first, second, d, square, square * d, square * square]))
            self._add_totals(name, found, [float(d.min()), float(d.max())])

    def add(self, other: _Pairs) -> None:
        """Add the rows of another part, of the same classes."""
        self.n += other.n
        self.unlike += other.unlike
        self._add_cells(other.cells, other.counts)
        for name in _ROWS:
            self._add_totals(name, other.totals[name], other.ranges[name])

    def _add_cells(self, cells: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.cells, place = np.unique(np.concatenate([self.cells, cells]), return_inverse=True)
        together = np.concatenate([self.counts, counts])
        self.counts = np.zeros(len(self.cells), dtype=np.int64)
        np.add.at(self.counts, place, together)

    def _add_totals(self, name: str, totals: list[int], span: list[float]) -> None:
        self.totals[name] = [mine + theirs for mine, theirs in zip(self.totals[name], totals, strict=True)]
        low, high = self.ranges[name]
        self.ranges[name] = [min(low, span[0]), max(high, span[1])]

    def triples(self) -> PairedCounts:
        """Return the counts as paired resampling takes them."""
        return PairedCounts(self.cells, self.counts, self.classes)

    def tables(self) -> list[NDArray[np.int64]]:
        """Return the (K, K) confusion matrix of each model."""
        triples, tables = self.triples(), []
        for answers in (triples.a, triples.b):
            table = np.zeros((self.classes, self.classes), dtype=np.int64)
            np.add.at(table, (triples.label, answers), self.counts)
            tables.append(table)
        return tables

    def right(self) -> tuple[int, int, int]:
        """Return the rows that both models, only the first, and only the second have right."""
        triples = self.triples()
        a, b = triples.a == triples.label, triples.b == triples.label
        both, only_a, only_b = (int(self.counts[rows].sum()) for rows in (a & b, a & ~b, b & ~a))
        return both, only_a, only_b

    def answered_unlike(self) -> int:
        """Return how many rows get different answers."""
        triples = self.triples()
        return int(self.counts[triples.a != triples.b].sum())

    def powers(self, name: str) -> Powers:
        """Return what the interval of the mean difference of a loss is made of."""
        _, _, *totals = self.totals[name]
        low, high = self.ranges[name]
        first, second, third, fourth = totals
        square, cube, _ = central_moments((first, second, third, fourth), self.n, low, high)
        return Powers(
            self.n,
            number(first) / self.n,
            float(square) / self.n**2,
            float(cube) / self.n**3,
            max(abs(low), abs(high)),
        )

    def to_bytes(self, about: dict[str, Any]) -> bytes:
        """Return everything, with a checksum; `about` is JSON data to keep beside it."""
        record = {
            "format": _FORMAT,
            "about": about,
            "n": self.n,
            "unlike": self.unlike,
            "totals": {name: [hex(total) for total in totals] for name, totals in self.totals.items()},
            "ranges": {name: [x.hex() for x in span] for name, span in self.ranges.items()},
        }
        return packed(record, {"cells": self.cells, "counts": self.counts})

    @classmethod
    def from_bytes(cls, data: bytes, classes: int) -> tuple[_Pairs, dict[str, Any]]:
        """Return what `to_bytes` wrote, and what was kept beside it.

        Raises:
            ValueError: It is damaged, or of another kind or version.
        """
        record, arrays = unpacked(data, _FORMAT)
        made = cls(classes)
        made.n, made.unlike = record["n"], record["unlike"]
        made.cells, made.counts = arrays["cells"], arrays["counts"]
        made.totals = {name: [int(t, 16) for t in totals] for name, totals in record["totals"].items()}
        made.ranges = {name: [float.fromhex(x) for x in span] for name, span in record["ranges"].items()}
        return made, record["about"]
