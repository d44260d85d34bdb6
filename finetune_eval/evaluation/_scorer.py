"""Checked rows on their way to an `Evaluation`: every number is computed here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval._text import counted, quoted
from finetune_eval.evaluation._outputs import SIGMOID_RESOLUTION
from finetune_eval.evaluation._resampling import Resampler
from finetune_eval.evaluation._result import ClassScore, Evaluation
from finetune_eval.evaluation._trust import nearly_only_answer, repeats
from finetune_eval.evaluation.calibration import Calibration, calibrate
from finetune_eval.evaluation.metrics import (
    METRICS,
    SMALLEST_PROBABILITY,
    class_counts,
    confusion_matrix,
    from_confusion,
    row_brier,
    row_loss,
)
from finetune_eval.evaluation.proportions import wilson, wilson_f1_interval
from finetune_eval.evaluation.rankings import ranking_interval
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.slices import Slice, SliceSearch, search_slices
from finetune_eval.evaluation.thresholds import Threshold, decided_rows_hash

if TYPE_CHECKING:
    import pandas as pd

# Rows of a class below which its interval is not to be trusted.
SMALL_CLASS = 5
_AVERAGED = ("precision", "recall", "f1")
_WHOLE = ("balanced_accuracy", "mcc", "kappa")


@dataclass(frozen=True)
class Options:
    """Checked options of `evaluate_predictions`."""

    average: str
    chosen: Threshold | None
    confidence: float
    groups: NDArray[np.int64] | None
    ids: Any
    metadata: Any
    n_resamples: int
    seed: int
    task: str
    texts: list[str] | None
    train: tuple[Any, NDArray[np.int64]] | None
    features: Any  # a pair of arrays, a function of rows, or None
    threshold: float | None
    weights: NDArray[np.float64] | None

    def of(self, rows: NDArray[np.int64]) -> Options:
        """Return the options for some of the rows."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        if groups is not None and groups.max() == 0:
            groups = None
        weights = None if self.weights is None else self.weights[rows]
        return dataclasses.replace(
            self, ids=None, texts=None, metadata=None, chosen=None, groups=groups, weights=weights
        )


def ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    """Divide, with 0 / 0 = 0 as scikit-learn has it."""
    return np.asarray(np.divide(top, bottom, out=np.zeros(np.shape(top)), where=np.asarray(bottom) > 0))


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
        self.tables = self._tables()
        counts = class_counts(self.tables)
        self._class_counts = [part[..., 1] for part in counts] if self.multilabel else list(counts)
        self.resampler = Resampler(
            self.tables,
            n_resamples=options.n_resamples,
            seed=options.seed,
            confidence=options.confidence,
            row_cells=self._row_cells(),
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

    def _tables(self) -> NDArray[Any]:
        weights = self.options.weights
        if not self.multilabel:
            return confusion_matrix(self.y, self.predicted, len(self.labels), sample_weight=weights)
        return np.stack(
            [
                confusion_matrix(self.y[:, k], self.predicted[:, k], 2, sample_weight=weights)
                for k in range(len(self.labels))
            ]
        )

    def _row_cells(self) -> NDArray[np.int64] | None:
        """Return the cells each row counts in, where rows or groups must be drawn and not the table."""
        classes = len(self.labels)
        if self.multilabel:
            return np.arange(classes) * 4 + self.y * 2 + self.predicted
        if self.options.weights is None and self.options.groups is None:
            return None
        return (self.y * classes + self.predicted)[:, None]

    def _metric(self, name: str, tables: NDArray[Any]) -> NDArray[np.float64]:
        """Compute a metric of tables (..., K, K), or of (..., K, 2, 2) for multilabel rows."""
        average = self.options.average
        if not self.multilabel:
            return from_confusion(name, tables, average)
        if average == "micro":
            return from_confusion(name, tables.sum(axis=-3), "binary")
        values = from_confusion(name, tables, "binary")
        if average == "macro":
            return np.asarray(values.mean(axis=-1))
        support = tables[..., 1, :].sum(axis=-1)
        total = support.sum(axis=-1)
        return ratio((values * support).sum(axis=-1), total)

    def _accuracy(self) -> Estimate:
        if self.options.weights is None and self.options.groups is None:
            return wilson(int(self.correct.sum()), len(self.correct), confidence=self.options.confidence)
        return self.resampler.accuracy(self.correct)

    def estimates(self) -> dict[str, Estimate]:
        """Return every metric with its interval."""
        out = self.main_estimates()
        for name in () if self.multilabel else _WHOLE:
            out[name] = self._of_tables(name, macro=name if name == "balanced_accuracy" else None)
        for name in ("roc_auc", "pr_auc"):
            estimate = self._ranking(name)
            if estimate is not None:
                out[name] = estimate
        brier = METRICS["brier"].high if self.p.shape[1] > 2 and not self.multilabel else 1.0
        out["brier"] = self.resampler.mean(row_brier(self.y, self.p), high=brier)
        return out

    def main_estimates(self) -> dict[str, Estimate]:
        """Return loss, accuracy, precision, recall and F1 with their intervals."""
        out = {
            "loss": self.resampler.mean(self.losses, high=METRICS["loss"].high),
            "accuracy": self._accuracy(),
        }
        average = self.options.average
        if average == "binary":  # of the second class, as among the classes
            second = self._class(1)
            return out | {name: getattr(second, name) for name in _AVERAGED}
        # Of one label a row, every row is predicted once and true once: these are the accuracy.
        same = {"micro": _AVERAGED, "weighted": ("recall",)} if not self.multilabel else {}
        for name in _AVERAGED:
            if name in same.get(average, ()):
                out[name] = out["accuracy"]
            else:
                out[name] = self._of_tables(name, macro=name if average == "macro" else None)
        return out

    def _of_tables(self, name: str, *, macro: str | None) -> Estimate:
        """Estimate a metric of the confusion matrix; `macro` names it where it is a mean over the classes."""
        return self.resampler.interval(
            lambda tables: self._metric(name, tables),
            low=METRICS[name].low,
            high=METRICS[name].high,
            macro=macro,
        )

    def _ranking(self, name: str) -> Estimate | None:
        """Estimate ROC-AUC or PR-AUC: of the second of two classes, else the mean over the classes."""
        return ranking_interval(
            name,
            self.y,
            self.p.astype(np.float64),
            "binary" if self._binary() else "macro",
            confidence=self.options.confidence,
            weights=self.options.weights,
            groups=self.options.groups,
        )

    def _binary(self) -> bool:
        return not self.multilabel and len(self.labels) == 2

    def _class(self, k: int) -> ClassScore:
        hits, predicted, true = (part[k] for part in self._class_counts)
        rows = {"precision": predicted, "recall": true, "f1": predicted + true - hits}
        scores = {name: self._class_score(name, k, hits, rows[name]) for name in rows}
        return ClassScore(self.labels[k], support=float(true), predicted=float(predicted), **scores)

    def _class_score(self, name: str, k: int, hits: float, rows: float) -> Estimate:
        """Estimate precision, recall or F1 of class k: `hits` of the `rows` it is a share of."""
        confidence = self.options.confidence
        if rows == 0:
            said = {"precision": "predicted", "recall": "true", "f1": "true or predicted"}[name]
            return Estimate(0.0, 0.0, 1.0, f"undefined: no row is {said}", confidence)
        if self.options.weights is not None or self.options.groups is not None:
            return self.resampler.interval(lambda tables: from_confusion(name, tables, "binary"), of_class=k)
        interval = wilson_f1_interval if name == "f1" else wilson
        return interval(int(hits), int(rows), confidence=confidence)

    def of(self, rows: NDArray[np.int64]) -> Scorer:
        """Return the scorer of some of the rows."""
        return Scorer(self.y[rows], self.p[rows], self.labels, self.options.of(rows))

    def evaluation(self, *, full: bool = True) -> Evaluation:
        """Put the evaluation together; where it is not `full`, the main metrics only, and no classes."""
        hashes = self._hashes()
        support = self.tables[:, 1].sum(axis=-1) if self.multilabel else self.tables.sum(axis=1)
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
            estimates=self.estimates() if full else self.main_estimates(),
            confusion_matrix=self.tables,
            per_class=tuple(map(self._class, range(len(self.labels)))) if full else (),
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
            sample_weight=self.options.weights,
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
            sample_weight=self.options.weights,
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
        from finetune_eval.data.ledger import text_hash

        return [text_hash(text) for text in self.options.texts]

    def _ids(self) -> Any:
        return np.arange(len(self.p)) if self.options.ids is None else np.asarray(self.options.ids)

    def _rows_hash(self) -> str:
        from finetune_eval.data.ledger import rows_hash

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
        for name, values in (("label", self.y), ("prediction", self.predicted)):
            if self.multilabel:
                words = [" + ".join(self.labels[k] for k in np.flatnonzero(row)) for row in values]
                columns[name] = pd.Series(words, dtype="str")
            else:
                columns[name] = pd.Series(np.array(self.labels, dtype=object)[values], dtype="str")
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


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
