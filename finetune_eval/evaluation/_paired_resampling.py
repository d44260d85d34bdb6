"""Resampling of two models' predictions on the same rows: paired bootstrap and approximate randomisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune_eval._checks import not_empty, number, one_of, positive_int, same_length
from finetune_eval.evaluation._limits import times
from finetune_eval.evaluation.confusion import split_counts, sum_counts
from finetune_eval.evaluation.metrics import METRICS, ClassCounts, from_confusion, resolve_average
from finetune_eval.evaluation.power import normal_quantile
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import resample_sums
from finetune_eval.evaluation.significance import PairedTest, randomisation_p
from finetune_eval.evaluation.tables import dirichlet
from finetune_eval.evaluation.units import (
    FEW_ROWS,
    effective_units,
    expanded_confidence,
    independent_units,
)

Floats = NDArray[np.float64]

_MOST_UNSEEN = 2000


def triple_codes(
    y: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return one number for each distinct (label, a, b)."""
    return (y * classes + a) * classes + b


@dataclass(frozen=True)
class Bootstrapped:
    """The difference of two models, and how it varies among resamples of the rows.

    Attributes:
        value: The difference on the rows themselves.
        error: Its standard deviation among the resamples.
        units: How many independent units (groups, or weighted rows) were drawn; infinite: plain rows.
        bound: How large a difference can be.
        method: What was drawn, in words.
        reason: Why the draws are not to be relied on; empty where they are.
        posterior: Confidence to limits that do not rest on the draws; used where there is such a reason.
    """

    value: float
    error: float
    units: float
    bound: float
    method: str
    reason: str
    posterior: Callable[[float], tuple[float, float]]

    def interval(self, confidence: float) -> Estimate:
        """Return the normal limits at this confidence, widened where the draws are not to be relied on.

        Reference:
            Efron and Tibshirani 1993, section 12.4 (normal limits); Hesterberg 2015, American Statistician
            69:371-386 (few units).
        """
        half = normal_quantile(0.5 + expanded_confidence(confidence, self.units) / 2) * self.error
        low, high, method = self.value - half, self.value + half, f"{self.method}, normal limits"
        if self.reason:
            others = self.posterior(confidence)
            low, high = min(low, others[0]), max(high, others[1])
            method = f"wider of {self.method} and Dirichlet posterior ({self.reason})"
        low, high = max(-self.bound, min(low, self.value)), min(self.bound, max(high, self.value))
        return Estimate(self.value, low, high, method, confidence)


class PairedCounts:
    """Two models' predictions on the same rows, as counts of the distinct (label, a, b)."""

    def __init__(self, cells: NDArray[np.int64], counts: NDArray[np.int64], classes: int) -> None:
        self.cells, self.counts, self.classes, self.n = cells, counts, classes, int(counts.sum())
        self.label, rest = np.divmod(cells, classes**2)
        self.a, self.b = np.divmod(rest, classes)

    @classmethod
    def of_rows(
        cls, y: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], classes: int
    ) -> PairedCounts:
        cells, counts = np.unique(triple_codes(y, a, b, classes), return_counts=True)
        return cls(cells, counts, classes)

    def with_unseen(self, seed: int) -> PairedCounts:
        """Add triples that could have occurred but did not, with count 0; at most 2,000, at random."""
        every = self.classes**3
        if every > _MOST_UNSEEN:
            unseen = np.unique(np.random.default_rng(seed).integers(0, every, _MOST_UNSEEN))
        else:
            unseen = np.arange(every)
        cells = np.union1d(self.cells, unseen)
        counts = np.zeros(len(cells), dtype=np.int64)
        counts[np.searchsorted(cells, self.cells)] = self.counts
        return PairedCounts(cells, counts, self.classes)

    def chunks(self, n_resamples: int) -> list[int]:
        """Split the resamples so that no array of them takes more than 32 MB."""
        step = max(1, 4_000_000 // max(len(self.cells), 3 * self.classes))
        return [min(step, n_resamples - start) for start in range(0, n_resamples, step)]

    def sums(self, counts: NDArray[Any], column: NDArray[np.int64]) -> Floats:
        """Add counts (..., triples) up to the (..., 3 K) class counts of one of the models."""
        summed = sum_counts(np.atleast_2d(counts), self.label, column, self.classes)
        return summed.reshape(*counts.shape[:-1], -1)

    def difference(self, counts: NDArray[Any], score: Callable[[ClassCounts], Floats]) -> Floats:
        """Return score(a) - score(b) for counts (..., triples)."""
        counts = np.asarray(counts, dtype=np.float64)
        return score(split_counts(self.sums(counts, self.a))) - score(split_counts(self.sums(counts, self.b)))

    def swapped(
        self, kept: NDArray[Any], swapped: NDArray[Any], score: Callable[[ClassCounts], Floats]
    ) -> Floats:
        """Return the difference where some of the counts (..., triples) have a and b swapped."""
        of_a = self.sums(kept, self.a) + self.sums(swapped, self.b)
        of_b = self.sums(kept, self.b) + self.sums(swapped, self.a)
        return score(split_counts(of_a)) - score(split_counts(of_b))

    def bootstrap(
        self, score: Callable[[ClassCounts], Floats], bound: float, n_resamples: int, seed: int
    ) -> Bootstrapped:
        """Draw rows with replacement, as counts of the triples: exact, at a cost that rows do not raise."""
        random = np.random.default_rng(seed)
        resampled = np.concatenate(
            [
                self.difference(random.multinomial(self.n, self.counts / self.n, size=size), score)
                for size in self.chunks(n_resamples)
            ]
        )
        support = np.bincount(self.label, weights=self.counts)
        present = np.flatnonzero(support)
        hits = [np.bincount(self.label, self.counts * (self.label == one)) for one in (self.a, self.b)]
        return Bootstrapped(
            float(self.difference(self.counts, score)),
            float(resampled.std()),
            math.inf,
            bound,
            "paired bootstrap",
            _unreliable(
                bool(np.ptp(resampled) <= 1e-12),
                float(support[present].min()),
                float(min(column[present].min() for column in hits)),
                "row",
            ),
            lambda confidence: self.posterior(self.counts, score, confidence, seed),
        )

    def posterior(
        self,
        counts: NDArray[Any],
        score: Callable[[ClassCounts], Floats],
        confidence: float,
        seed: int,
    ) -> tuple[float, float]:
        """Return the limits of a Dirichlet posterior of counts (triples,), unseen triples among them."""
        every = self.with_unseen(seed)
        seen = np.zeros(len(every.cells))
        seen[np.searchsorted(every.cells, self.cells)] = counts
        draws = max(100, every.chunks(1000)[0])
        return dirichlet(lambda drawn: every.difference(drawn, score), seen, confidence, draws, seed)

    def randomise(self, score: Callable[[ClassCounts], Floats], n_resamples: int, seed: int) -> PairedTest:
        """Swap the two models' predictions on random rows: each row keeps its pair, not whose is whose."""
        observed = float(self.difference(self.counts, score))
        random = np.random.default_rng(seed)

        def drawn() -> Iterator[Floats]:
            for size in self.chunks(n_resamples):
                swapped = random.binomial(self.counts, 0.5, size=(size, len(self.counts)))
                yield self.swapped(self.counts - swapped, swapped, score)

        p = randomisation_p(drawn(), observed, 1.0, "midp")
        return PairedTest("approximate randomisation, mid-p", observed, p)


def _unreliable(same: bool, rows: float, hits: float, unit: str) -> str:
    """Return why a paired bootstrap is not to be relied on; nothing where it is.

    Args:
        same: Whether all resamples give the same difference.
        rows: Independent units with rows of the class that has fewest.
        hits: The same of rows that a model has right: resamples can never hold what no row shows.
        unit: What a unit is, "row" or "group".
    """
    if same:
        return "resamples do not vary"
    if rows < FEW_ROWS - 1e-9:
        return f"unreliable: a class {'has' if unit == 'row' else 'is in'} {times(rows, unit)}"
    if hits < FEW_ROWS - 1e-9:
        return f"unreliable: a model has {times(hits, unit)} of a class right"
    return ""


_MOST_BLOCKS = 2_000  # units swapped together beyond this many: still 2**2000 ways to swap


class PairedUnits:
    """The same for rows with weights, or in groups: whole units (rows, or groups) are drawn and swapped."""

    def __init__(
        self,
        triples: NDArray[np.int64],
        classes: int,
        weights: Floats | None,
        groups: NDArray[np.int64] | None,
    ) -> None:
        from scipy.sparse import csr_matrix

        n = len(triples)
        self._weights, self._groups = np.ones(n) if weights is None else weights, groups
        cells, place, counts = np.unique(triples, return_inverse=True, return_counts=True)
        self._cells, self._label = PairedCounts(cells, counts, classes), triples // classes**2
        self._right = [self._label == (triples // classes) % classes, self._label == triples % classes]
        units = np.arange(n) if groups is None else groups
        self._sums = csr_matrix((self._weights, (units, place)), shape=(int(units.max()) + 1, len(cells)))
        self._sums.sum_duplicates()

    def _units(self, rows: NDArray[np.bool_]) -> float:
        return independent_units(rows, self._weights, self._groups)

    def bootstrap(
        self, score: Callable[[ClassCounts], Floats], bound: float, n_resamples: int, seed: int
    ) -> Bootstrapped:
        """Draw units with replacement, whole, and add up what they hold."""
        cells, total = self._cells, np.asarray(self._sums.sum(axis=0)).ravel()
        sizes = cells.chunks(n_resamples)
        seeds = np.random.default_rng(seed).integers(2**32, size=len(sizes)).tolist()
        resampled = np.concatenate(
            [
                cells.difference(resample_sums(self._sums, size, one), score)
                for size, one in zip(sizes, seeds, strict=True)
            ]
        )
        units = effective_units(self._weights, self._groups)
        unit = "row" if self._groups is None else "group"
        present = [self._label == k for k in np.unique(self._label[self._weights > 0])]
        hits = [self._units(rows & right) for rows in present for right in self._right]
        worth = total * units / total.sum()
        return Bootstrapped(
            float(cells.difference(total, score)),
            float(resampled.std()),
            units,
            bound,
            f"paired bootstrap of {unit}s",
            _unreliable(bool(np.ptp(resampled) <= 1e-12), min(map(self._units, present)), min(hits), unit),
            lambda confidence: cells.posterior(worth, score, confidence, seed),
        )

    def randomise(self, score: Callable[[ClassCounts], Floats], n_resamples: int, seed: int) -> PairedTest:
        """Swap the two models' predictions on random units, whole."""
        from scipy.sparse import csr_matrix

        random, sums, cells = np.random.default_rng(seed), self._sums, self._cells
        units = sums.shape[0]
        if units > _MOST_BLOCKS:
            block = random.permutation(units) % _MOST_BLOCKS
            sums = csr_matrix((np.ones(units), (block, np.arange(units))), (_MOST_BLOCKS, units)) @ sums
            units = _MOST_BLOCKS
        total = np.asarray(sums.sum(axis=0)).ravel()
        observed, transposed = float(cells.difference(total, score)), sums.T.tocsr()

        def drawn() -> Iterator[Floats]:
            for size in cells.chunks(n_resamples):
                swapped = np.asarray(transposed @ random.integers(0, 2, (units, size)).astype(np.float64)).T
                yield cells.swapped(total - swapped, swapped, score)

        name = f"approximate randomisation of {'weighted rows' if self._groups is None else 'groups'}, mid-p"
        # Sums of weights round: what is swapped back to itself must count as equally far.
        return PairedTest(name, observed, randomisation_p(drawn(), observed, 1000.0, "midp"))


def paired_bootstrap(
    y_true: ArrayLike,
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    *,
    metric: str = "f1",
    average: str = "auto",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate how much a metric differs between two models on the same rows, with a bootstrap interval.

    The rows are drawn once for both models, as counts of the distinct (label, a, b) triples: exact, and the
    cost does not grow with the rows.

    Args:
        y_true: (n,) class indices from 0.
        predicted_a: (n,) class indices that model a predicts.
        predicted_b: (n,) class indices that model b predicts.
        metric: A metric of the confusion matrix: "accuracy", "f1", "mcc", ...
        average: "auto", "binary" (the second class), "macro", "micro" or "weighted".
        confidence: Nominal coverage in (0, 1).
        n_resamples: How many resamples, at least 100.
        seed: Seed of the draws.

    Returns:
        a minus b, with its interval: normal limits from the standard deviation among the resamples. Where
        no resample differs, or a class has fewer than five rows, a Dirichlet posterior widens it.

    Raises:
        ValueError: Lengths differ, a class is negative, or a name or number is out of range.

    Example:
        >>> y = [0, 1] * 50
        >>> a = [0, 1] * 45 + [1, 0] * 5
        >>> b = [0, 1] * 40 + [1, 0] * 10
        >>> print(paired_bootstrap(y, a, b, metric="accuracy"))
        0.100 [0.040, 0.160]

    Reference:
        Efron and Tibshirani 1993, section 12.4; Berg-Kirkpatrick et al. 2012, EMNLP.
    """
    arrays = [np.asarray(array) for array in (y_true, predicted_a, predicted_b)]
    for name, array in zip(("y_true", "predicted_a", "predicted_b"), arrays, strict=True):
        if array.ndim != 1 or array.dtype.kind not in "biu" or (len(array) and array.min() < 0):
            raise ValueError(
                f"`{name}` must be (rows,) whole class indices from 0; got {array.dtype} {array.shape}."
            )
        same_length("y_true", arrays[0], name, array)
    not_empty("y_true", arrays[0])
    number("confidence", confidence, above=0, below=1)
    n_resamples = positive_int("n_resamples", n_resamples, minimum=100)
    y, a, b = (array.astype(np.int64) for array in arrays)
    classes = max(2, int(max(y.max(), a.max(), b.max())) + 1)
    score, bound = metric_of_counts(metric, average, classes)
    return (
        PairedCounts.of_rows(y, a, b, classes).bootstrap(score, bound, n_resamples, seed).interval(confidence)
    )


def metric_of_counts(
    metric: str, average: str, classes: int, *, no_label: bool = False
) -> tuple[Callable[[ClassCounts], Floats], float]:
    """Return a metric as a function of class counts, and how large a difference in it can be.

    Args:
        metric: A metric of the confusion matrix.
        average: Over the classes.
        classes: How many classes K there are.
        no_label: Whether the counts have one class more, the last, of answers that are no label.
    """
    one_of("metric", metric, [name for name, entry in METRICS.items() if entry.source == "confusion"])
    resolved = resolve_average(average, classes)
    entry = METRICS[metric]
    return (
        lambda counts: from_confusion(metric, counts, resolved, no_label=no_label),
        entry.high - entry.low,
    )
