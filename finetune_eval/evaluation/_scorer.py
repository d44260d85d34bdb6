"""Checked rows on their way to an `Evaluation`: every number is computed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._outputs import SIGMOID_RESOLUTION
from finetune_eval.evaluation._resampling import Resampler
from finetune_eval.evaluation._result import ClassScore, Evaluation
from finetune_eval.evaluation.intervals import Estimate, wilson
from finetune_eval.evaluation.metrics import (
    METRICS,
    SMALLEST_PROBABILITY,
    confusion_matrix,
    from_confusion,
    per_class_scores,
    row_brier,
    row_loss,
)

if TYPE_CHECKING:
    import pandas as pd

# Rows of a class below which its interval is not to be trusted.
SMALL_CLASS = 5
_CONFUSION_METRICS = ("precision", "recall", "f1", "balanced_accuracy", "mcc", "kappa")


@dataclass(frozen=True)
class Options:
    """Checked options of `evaluate_predictions`."""

    average: str
    confidence: float
    groups: NDArray[np.int64] | None
    ids: Any
    n_resamples: int
    seed: int
    task: str
    texts: list[str] | None
    threshold: float | None
    weights: NDArray[np.float64] | None


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
        self.resampler = Resampler(
            self.tables,
            n_resamples=options.n_resamples,
            seed=options.seed,
            confidence=options.confidence,
            row_cells=self._row_cells(),
            weights=options.weights,
            units=options.groups,
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
        return self.resampler.mean(self.correct.astype(np.float64), high=1.0)

    def _estimates(self) -> dict[str, Estimate]:
        out = {
            "loss": self.resampler.mean(self.losses, high=METRICS["loss"].high),
            "accuracy": self._accuracy(),
        }
        names = _CONFUSION_METRICS[:3] if self.multilabel else _CONFUSION_METRICS
        for name in names:
            metric = METRICS[name]
            value = float(self._metric(name, self.tables))
            out[name] = self.resampler.interval(
                value,
                lambda tables, name=name: self._metric(name, tables),  # type: ignore[misc]
                low=metric.low,
                high=metric.high,
            )
        brier = METRICS["brier"].high if self.p.shape[1] > 2 and not self.multilabel else 1.0
        out["brier"] = self.resampler.mean(row_brier(self.y, self.p), high=brier)
        return out

    def _per_class(self) -> tuple[ClassScore, ...]:
        plain = self.options.weights is None and self.options.groups is None
        scores = per_class_scores(self.tables)
        if self.multilabel:
            scores = {name: values[..., 1] for name, values in scores.items()}
            predicted = self.tables[:, :, 1].sum(axis=1)
            hits = self.tables[:, 1, 1]
        else:
            predicted = self.tables.sum(axis=0)
            hits = self.tables.diagonal()
        out = []
        for k, label in enumerate(self.labels):
            estimates = {}
            for name, rows in (("precision", predicted[k]), ("recall", scores["support"][k]), ("f1", 1)):
                value = float(scores[name][k])
                if rows == 0:
                    said = "predicted" if name == "precision" else "true"
                    estimates[name] = Estimate(value, 0.0, 1.0, f"none {said}", self.options.confidence)
                elif plain and name != "f1":
                    estimates[name] = wilson(int(hits[k]), int(rows), confidence=self.options.confidence)
                else:
                    estimates[name] = self.resampler.interval(
                        value,
                        lambda tables, name=name, k=k: self._class_metric(name, tables, k),  # type: ignore[misc]
                        low=0.0,
                        high=1.0,
                    )
            support, rows = scores["support"][k].item(), predicted[k].item()
            out.append(ClassScore(label, support, float(rows), **estimates))
        return tuple(out)

    def _class_metric(self, name: str, tables: NDArray[Any], k: int) -> NDArray[np.float64]:
        """Compute precision, recall or F1 of class k of resampled tables."""
        if self.multilabel:
            hits, predicted, true = (
                tables[..., k, 1, 1],
                tables[..., k, :, 1].sum(axis=-1),
                tables[..., k, 1, :].sum(axis=-1),
            )
        else:
            hits, predicted, true = (
                tables[..., k, k],
                tables[..., :, k].sum(axis=-1),
                tables[..., k, :].sum(-1),
            )
        top, bottom = {
            "precision": (hits, predicted),
            "recall": (hits, true),
            "f1": (2 * hits, predicted + true),
        }[name]
        return ratio(top, bottom)

    def evaluation(self) -> Evaluation:
        """Put the evaluation together."""
        hashes = self._hashes()
        support = self.tables[:, 1].sum(axis=-1) if self.multilabel else self.tables.sum(axis=1)
        most = int(support.argmax())
        return Evaluation(
            labels=self.labels,
            task=self.options.task,
            average=self.options.average,
            confidence=self.options.confidence,
            n=len(self.p),
            threshold=self.options.threshold,
            estimates=self._estimates(),
            confusion_matrix=self.tables,
            per_class=self._per_class(),
            majority=(self.labels[most], float(support[most])),
            rows_hash=self._rows_hash(),
            warnings=tuple(self._warnings(hashes)),
            predictions=self._predictions(hashes),
        )

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

    def _warnings(self, hashes: list[str] | None) -> list[str]:
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
            if self.options.threshold is None:
                equal = (self.p == self.p.max(axis=1, keepdims=True)).sum(axis=1)
                ties = int((equal > 1).sum())
                if ties:
                    out.append(
                        f"{ties} of {len(self.p)} rows have two equally probable classes; "
                        "the first was taken."
                    )
        capped = int(self._too_small().sum())
        if capped:
            out.append(
                f"{capped} of {len(self.p)} rows give their true class a probability too small for float32; "
                "their loss is counted as large as float32 can tell, and may be larger."
            )
        if hashes is not None:
            out += _duplicates(hashes, self.y)
        return out

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
        if hashes is not None:
            columns["text_hash"] = pd.Series(hashes, dtype="str")
            columns["text"] = pd.Series(self.options.texts, dtype="str")
        return pd.DataFrame(columns)


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _duplicates(hashes: list[str], y: NDArray[np.int64]) -> list[str]:
    """Say how many rows are there more than once, and how many of them contradict each other."""
    labels_of: dict[str, set[bytes]] = {}
    for key, label in zip(hashes, y, strict=True):
        labels_of.setdefault(key, set()).add(label.tobytes())
    extra = len(hashes) - len(labels_of)
    if not extra:
        return []
    out = [f"{extra} of {len(hashes)} rows repeat the text of another row: they count twice."]
    conflicts = sum(len(labels) > 1 for labels in labels_of.values())
    if conflicts:
        out.append(
            f"{conflicts} of the repeated texts stand there with different labels: no model gets both right."
        )
    return out
