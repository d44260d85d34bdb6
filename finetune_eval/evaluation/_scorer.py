"""Checked rows on their way to an `Evaluation`: every number is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import counted, quoted
from finetune_eval.data.ledger import rows_hash, text_hash
from finetune_eval.evaluation._inputs import names_of, read_probabilities
from finetune_eval.evaluation._options import TASKS, Asked, Options, checked_options
from finetune_eval.evaluation._outputs import SIGMOID_RESOLUTION
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation._trust import nearly_only_answer, repeats
from finetune_eval.evaluation.calibration import Calibration, calibrate
from finetune_eval.evaluation.metrics import METRICS, SMALLEST_PROBABILITY, confusion_matrix, row_loss
from finetune_eval.evaluation.records import ClassScore, Estimate, Slice, SliceSearch
from finetune_eval.evaluation.sample import Sample, Sampling
from finetune_eval.evaluation.scores import of_class
from finetune_eval.evaluation.slices import search_slices
from finetune_eval.evaluation.thresholds import decided_rows_hash

if TYPE_CHECKING:
    import pandas as pd

# Rows of a class below which its interval is not to be trusted.
SMALL_CLASS = 5


class Scorer:
    """Checked rows on their way to an `Evaluation`."""

    def __init__(
        self, y: NDArray[np.int64], p: NDArray[Any], labels: tuple[str, ...], options: Options
    ) -> None:
        self.y, self.p, self.labels, self.options = y, p, labels, options
        self.multilabel = options.task == "multilabel"
        self.predicted = self._decide()
        self.losses = row_loss(y, p)
        same = y == self.predicted
        self.correct = same.all(axis=1) if self.multilabel else same
        self.sampling = Sampling(options.confidence, options.n_resamples, options.seed)
        self.sample = Sample(
            y,
            p,
            self.predicted,
            average=options.average,
            weights=options.weights,
            groups=options.groups,
        )

    def _decide(self) -> NDArray[np.int64]:
        threshold = self.options.threshold
        if self.multilabel:
            return (self.p >= (0.5 if threshold is None else threshold)).astype(np.int64)
        if threshold is not None:
            return (self.p[:, 1] >= threshold).astype(np.int64)
        return np.asarray(self.p.argmax(axis=1))

    def _table(self) -> NDArray[Any]:
        """Return the confusion matrix, or that of each label: counts, or sums of the weights as given."""
        weights = self.options.weights
        if not self.multilabel:
            return confusion_matrix(self.y, self.predicted, len(self.labels), sample_weight=weights)
        pairs = zip(self.y.T, self.predicted.T, strict=True)
        return np.stack([confusion_matrix(y, said, 2, sample_weight=weights) for y, said in pairs])

    def estimates(self, *, main: bool = False) -> dict[str, Estimate]:
        """Return every metric that the rows have with its interval; `main`: only those."""
        out = {}
        for name, metric in METRICS.items():
            if (metric.main or not main) and (metric.multilabel or not self.multilabel):
                estimate = metric.interval(self.sample, self.sampling)
                if estimate is not None:
                    out[name] = estimate
        return out

    def _classes(self, support: NDArray[Any]) -> tuple[ClassScore, ...]:
        """Return the scores of every class; `support` holds its rows as the weights count them."""
        predicted = self._predicted_rows()
        return tuple(
            ClassScore(
                label,
                support=float(support[k]),
                predicted=float(predicted[k]),
                **{
                    name: of_class(name, k, self.sample, self.sampling)
                    for name in ("precision", "recall", "f1")
                },
            )
            for k, label in enumerate(self.labels)
        )

    def _predicted_rows(self) -> NDArray[Any]:
        weights = np.ones(len(self.p)) if self.options.weights is None else self.options.weights
        if self.multilabel:
            return np.asarray(weights @ self.predicted)
        return np.bincount(self.predicted, weights, len(self.labels))

    def of(self, rows: NDArray[np.int64]) -> Scorer:
        """Return the scorer of some of the rows."""
        return Scorer(self.y[rows], self.p[rows], self.labels, self.options.of(rows))

    def evaluation(self, *, full: bool = True) -> Evaluation:
        """Put the evaluation together; where it is not `full`, the main metrics only, and no classes."""
        hashes = self._hashes()
        table = self._table()
        support = table[:, 1].sum(axis=-1) if self.multilabel else table.sum(axis=1)
        most = int(support.argmax())
        chosen = self.options.chosen
        return Evaluation(
            labels=self.labels,
            task=self.options.task,
            average=self.options.average,
            confidence=self.options.confidence,
            n=len(self.p),
            threshold=self.options.threshold,
            threshold_origin=None if chosen is None else chosen.origin,
            estimates=self.estimates(main=not full),
            confusion_matrix=table,
            per_class=self._classes(support) if full else (),
            majority=(self.labels[most], float(support[most])),
            rows_hash=self._rows_hash(),
            warnings=tuple(self._warnings()),
            calibration=None,
            baselines=(),
            leaks=None,
            looks=None,
            slices=(),
            identified=hashes is not None or self.options.ids is not None,
            predictions=self._predictions(hashes),
        )

    def calibration(self) -> Calibration | None:
        """Hold the probabilities against what happened; None for multilabel rows."""
        if self.multilabel:
            return None
        return calibrate(
            self.y,
            self.p,
            confidence=self.options.confidence,
            sample_weight=self.sample.weights,
            seed=self.options.seed,
            positive=quoted(self.labels[-1]),
        )

    def slices(self) -> tuple[tuple[Slice, ...], SliceSearch | None]:
        """Look for weak parts of the rows, where texts or metadata were given."""
        if not self._sliced():
            return (), None
        return search_slices(
            self.correct,
            texts=self.options.texts,
            metadata=self.options.metadata,
            confidence=self.options.confidence,
            sample_weight=self.sample.weights,
            seed=self.options.seed,
        )

    def _sliced(self) -> bool:
        return self.options.texts is not None or self.options.metadata is not None

    def _unlike(self) -> list[str]:
        """Say what takes grouped rows for independent ones."""
        parts = [] if self.multilabel else ["calibration"]
        if self._sliced():
            parts.append("weak parts of the rows")
        if self.options.groups is not None and parts:
            return [
                f"Computed as if the rows of a group were independent: {', '.join(parts)}. Chance may look "
                "like more there."
            ]
        return []

    def _hashes(self) -> list[str] | None:
        if self.options.texts is None:
            return None
        return [text_hash(text) for text in self.options.texts]

    def _ids(self) -> Any:
        return np.arange(len(self.p)) if self.options.ids is None else np.asarray(self.options.ids)

    def _rows_hash(self) -> str:
        rows = self._ids() if self.options.texts is None else self.options.texts
        return rows_hash(rows, self.y)

    def _warnings(self) -> list[str]:
        out = []
        if not self.multilabel:
            counts = np.bincount(self.y, minlength=len(self.labels))
            absent = [self.labels[k] for k in np.flatnonzero(counts == 0)]
            if absent:
                out.append(f"No row is {_listed(absent)}: nothing is known about how such rows fare.")
            small = [
                f"{self.labels[k]} ({counts[k]})"
                for k in np.flatnonzero((counts > 0) & (counts < SMALL_CLASS))
            ]
            if small:
                out.append(
                    f"Fewer than {SMALL_CLASS} rows of {_listed(small)}: the intervals of their scores, and "
                    "of macro averages, are unreliable."
                )
            out += nearly_only_answer(self.y, self.predicted, self.labels)
            if self.options.threshold is None:
                equal = (self.p == self.p.max(axis=1, keepdims=True)).sum(axis=1)
                ties = int((equal > 1).sum())
                if ties:
                    out.append(
                        f"{ties:,} of {counted(len(self.p), 'row')} {'has' if ties == 1 else 'have'} two "
                        "equally probable classes; "
                        "the first was taken."
                    )
        chosen = self.options.chosen
        if chosen is not None and chosen.rows_hash == decided_rows_hash(self.y, self.p):
            out.append(
                "The threshold was chosen on these very rows: the scores are optimistic. Choose it on "
                "validation rows."
            )
        capped = int(self._too_small().sum())
        if capped:
            gives, their = ("gives", "its") if capped == 1 else ("give", "their")
            out.append(
                f"{capped:,} of {counted(len(self.p), 'row')} {gives} {their} true class a probability "
                "too small "
                f"for float32; {their} loss is counted as large as float32 can tell, and may be larger."
            )
        if self.options.texts is not None:
            out += repeats(self.options.texts, self.y)
        return out + self._unlike()

    def _too_small(self) -> NDArray[np.bool_]:
        """Mark the rows whose loss is known from below only."""
        if self.multilabel:
            right = np.where(self.y > 0, self.p, 1.0 - self.p).min(axis=1)
        else:
            right = self.p[np.arange(len(self.y)), self.y]
        return np.asarray((right < SMALLEST_PROBABILITY) | (right == SIGMOID_RESOLUTION))

    def _predictions(self, hashes: list[str] | None) -> pd.DataFrame:
        import pandas as pd

        ids = self._ids()
        columns: dict[str, Any] = {
            "id": ids if ids.dtype.kind in "iu" else pd.Series(ids.astype(str), dtype="str")
        }
        names = None if self.multilabel else pd.array(list(self.labels), dtype="str")
        for name, values in (("label", self.y), ("prediction", self.predicted)):
            if names is None:
                words = [" + ".join(self.labels[k] for k in np.flatnonzero(row)) for row in values]
                columns[name] = pd.array(words, dtype="str")
            else:
                columns[name] = names.take(values)
        for k, label in enumerate(self.labels):
            columns[f"p_{label}"] = self.p[:, k]
        columns["loss"] = self.losses
        if self.options.weights is not None:
            columns["weight"] = self.options.weights
        if self.options.groups is not None:
            columns["group"] = self.options.groups
        if hashes is not None:
            columns["text_hash"] = pd.Series(hashes, dtype="str")
            columns["text"] = pd.Series(self.options.texts, dtype="str")
        return pd.DataFrame(columns)


def scorer_of(
    y_true: Any, probabilities: Any, asked: Asked, *, contents: Any = None
) -> tuple[Scorer, tuple[str, ...]]:
    """Read and check rows, probabilities and keywords; return what scores them, and notes on rounding."""
    _checks.one_of("task", asked.task, TASKS)
    _rows.same_order(
        y_true=y_true,
        probabilities=probabilities,
        ids=asked.ids,
        texts=asked.texts,
        groups=asked.groups,
        metadata=asked.metadata,
        sample_weight=asked.sample_weight,
    )
    given = None if asked.labels is None else _labels.class_names(asked.labels)
    p, named, rounded = read_probabilities(probabilities, asked.task, given)
    names = names_of(given, named, y_true, p.shape[1])
    read = _labels.read_many if asked.task == "multilabel" else _labels.read
    y = read("y_true", y_true, names)
    _checks.not_empty("y_true", y)
    _checks.same_length("y_true", y, "probabilities", p)
    return Scorer(y, p, names, checked_options(len(p), names, asked, contents=contents)), rounded


def score_only(y_true: Any, probabilities: Any, asked: Asked | None = None) -> Evaluation:
    """Score predictions and nothing else, for the inside of the library: the main metrics only, cheap."""
    return scorer_of(y_true, probabilities, asked or Asked())[0].evaluation(full=False)


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
