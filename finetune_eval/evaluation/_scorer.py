"""Checked rows on their way to an `Evaluation`: every number is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import quoted
from finetune_eval.data.ledger import rows_hash, text_hash
from finetune_eval.evaluation import abstention, label_thresholds
from finetune_eval.evaluation._answers import Answers, read_answers
from finetune_eval.evaluation._inputs import names_of, read_probabilities
from finetune_eval.evaluation._options import TASKS, Asked, Options, checked_options
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation._trust import (
    about_classes,
    about_small,
    about_ties,
    nearly_only_answer,
    repeats,
    too_small,
    undecided,
)
from finetune_eval.evaluation.calibration import Calibration, calibrate
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, row_loss
from finetune_eval.evaluation.records import Answered, ClassScore, Estimate, NoLabel, Slice, SliceSearch
from finetune_eval.evaluation.risk_coverage import answered
from finetune_eval.evaluation.sample import Sample, Sampling, decided
from finetune_eval.evaluation.scores import of_class
from finetune_eval.evaluation.slices import search_slices
from finetune_eval.evaluation.thresholds import decided_rows_hash

if TYPE_CHECKING:
    import pandas as pd


class Scorer:
    """Checked rows on their way to an `Evaluation`.

    Attributes:
        y: (n,) true class indices, or (n, K) zeros and ones.
        p: (n, K) probabilities; None where the model gave `answers` only.
        labels: The K class names.
        options: The checked keywords.
        answers: The answers of a model that gave no probabilities; of multilabel rows (n, K) zeros and ones.
    """

    def __init__(
        self,
        y: NDArray[np.int64],
        p: NDArray[Any] | None,
        labels: tuple[str, ...],
        options: Options,
        answers: Answers | NDArray[np.int64] | None = None,
    ) -> None:
        self.y, self.p, self.labels, self.options, self.answers = y, p, labels, options, answers
        self.multilabel = options.task == "multilabel"
        self.predicted = self._decide()
        self.losses = None if p is None else row_loss(y, p)
        same = y == self.predicted
        self.correct = same.all(axis=1) if self.multilabel else same
        self.sampling = Sampling(options.confidence, options.n_resamples, options.seed)
        self.sample = Sample(
            y,
            p,
            self.predicted,
            average=options.average,
            classes=len(labels),
            weights=options.weights,
            groups=options.groups,
        )

    @property
    def _weights(self) -> NDArray[np.float64] | None:
        """(n,) weights of the rows, the largest of them 1; None where all count alike."""
        weights = self.options.weights
        return None if weights is None else weights / weights.max()

    def _decide(self) -> NDArray[np.int64]:
        if self.p is None:
            assert self.answers is not None
            return self.answers.places if isinstance(self.answers, Answers) else self.answers
        threshold = self.options.threshold
        if self.multilabel:
            return label_thresholds.given(self.p, threshold)
        assert not isinstance(threshold, tuple)
        return decided(self.p, threshold)

    def _table(self) -> NDArray[Any]:
        """Return the confusion matrix, or that of each label: counts, or sums of the weights as given.

        Where answers are no label it is (K, K + 1), and these are its last column.
        """
        weights = self.options.weights
        if not self.multilabel:
            classes = len(self.labels)
            answers = classes + self.sample.unlabelled
            return confusion_matrix(self.y, self.predicted, answers, sample_weight=weights)[:classes]
        pairs = zip(self.y.T, self.predicted.T, strict=True)
        return np.stack([confusion_matrix(y, said, 2, sample_weight=weights) for y, said in pairs])

    def estimates(self, *, main: bool = False) -> dict[str, Estimate]:
        """Return every metric that the rows have with its interval; `main`: only those."""
        out = {}
        for name, metric in METRICS.items():
            wanted = (name in self.options.metrics or not metric.asked) and metric.suits(len(self.labels))
            if wanted and (metric.main or not main) and (metric.multilabel or not self.multilabel):
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
        weights = np.ones(len(self.y)) if self.options.weights is None else self.options.weights
        if self.multilabel:
            return np.asarray(weights @ self.predicted)
        return np.bincount(self.predicted, weights, len(self.labels))[: len(self.labels)]

    def _no_label(self, counts: NDArray[Any]) -> NoLabel | None:
        """Return the answers that are no label; `counts` is their column of the confusion matrix."""
        if not self.sample.unlabelled:
            return None
        assert isinstance(self.answers, Answers)
        classes = len(self.labels)
        return NoLabel(
            counts=tuple(float(value) for value in counts),
            examples=self.answers.examples(classes),
            n=int((self.predicted == classes).sum()),
        )

    def of(self, rows: NDArray[np.int64]) -> Scorer:
        """Return the scorer of some of the rows."""
        p = None if self.p is None else self.p[rows]
        answers = self.answers
        if answers is not None:
            answers = answers.of(rows) if isinstance(answers, Answers) else answers[rows]
        return Scorer(self.y[rows], p, self.labels, self.options.of(rows), answers)

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
            n=len(self.y),
            threshold=self.options.threshold,
            threshold_origin=None if chosen is None else chosen.origin,
            estimates=self.estimates(main=not full),
            confusion_matrix=table if self.multilabel else table[:, : len(self.labels)],
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
            no_label=None if self.multilabel else self._no_label(table[:, -1]),
            answered=self._answered() if full else None,
        )

    def _answered(self) -> Answered | None:
        """Return which rows are answered, and how well; None where no answer is withheld."""
        chosen = self.options.abstention
        if chosen is None:
            return None
        assert self.p is not None
        return answered(
            float(chosen),
            chosen.origin if isinstance(chosen, abstention.Abstention) else None,
            self.correct,
            abstention.answer_confidence(self.p, self.predicted),
            weights=self.sample.weights,
            groups=self.sample.groups,
            level=self.options.confidence,
        )

    def calibration(self) -> Calibration | None:
        """Hold the probabilities against what happened; None of multilabel rows and of answers only."""
        if self.multilabel or self.p is None:
            return None
        return calibrate(
            self.y,
            self.p,
            confidence=self.options.confidence,
            sample_weight=self._weights,
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
            sample_weight=self._weights,
            seed=self.options.seed,
        )

    def _sliced(self) -> bool:
        return self.options.texts is not None or self.options.metadata is not None

    def _unlike(self) -> list[str]:
        """Say what takes grouped rows for independent ones."""
        parts = [] if self.multilabel or self.p is None else ["calibration"]
        if self._sliced():
            parts.append("weak parts of the rows")
        if self.options.groups is not None and parts:
            return [
                f"Computed as if the rows of a group were independent: {', '.join(parts)}. What is reported "
                "there may be chance."
            ]
        return []

    def _hashes(self) -> list[str] | None:
        if self.options.texts is None:
            return None
        return [text_hash(text) for text in self.options.texts]

    def _ids(self) -> Any:
        return np.arange(len(self.y)) if self.options.ids is None else np.asarray(self.options.ids)

    def _rows_hash(self) -> str:
        rows = self._ids() if self.options.texts is None else self.options.texts
        return rows_hash(rows, self.y)

    def _warnings(self) -> list[str]:
        out = []
        if isinstance(self.answers, Answers):
            out += self.answers.notes(self.labels)
        ordered = [name for name in self.options.metrics if METRICS[name].source == "order"]
        if ordered and self.sample.unlabelled:
            titles = " and ".join(METRICS[name].title for name in ordered)
            out.append(f"{titles} cannot be computed: an answer that is no label has no place in the order.")
        if self.multilabel:
            out += about_classes(self.y.sum(axis=0), self.labels)
        else:
            counts, answers = (
                np.bincount(side, minlength=len(self.labels))[: len(self.labels)]
                for side in (self.y, self.predicted)
            )
            out += about_classes(counts, self.labels)
            out += nearly_only_answer(counts, answers, self.labels)
        if self.p is not None:
            out += self._about_probabilities(self.p)
        if self.options.texts is not None:
            out += repeats(self.options.texts, self.y, self.options.beside)
        return out + self._unlike()

    def _about_probabilities(self, p: NDArray[Any]) -> list[str]:
        out = []
        if not self.multilabel and self.options.threshold is None:
            out += about_ties(int(undecided(p).sum()), len(p))
        chosen = self.options.chosen
        hashed = label_thresholds.decided_rows_hash if self.multilabel else decided_rows_hash
        if chosen is not None and chosen.rows_hash == hashed(self.y, p):
            out.append(
                "The threshold was chosen on these very rows: the scores are optimistic. Choose it on "
                "validation rows."
            )
        withheld = self.options.abstention
        if isinstance(withheld, abstention.Abstention) and withheld.rows_hash == abstention.decided_rows_hash(
            self.y, p
        ):
            out.append(
                "The confidence below which answers are withheld was chosen on these very rows: the error of "
                "what is answered is optimistic. Choose it on validation rows."
            )
        return out + about_small(int(too_small(self.y, p).sum()), len(p))

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
                columns[name] = names.take(np.minimum(values, len(names) - 1))
        if self.sample.unlabelled:
            assert isinstance(self.answers, Answers)
            words = columns["prediction"].to_numpy(dtype=object)
            for row in np.flatnonzero(self.predicted == len(self.labels)).tolist():
                words[row] = self.answers.words[row]
            columns["prediction"] = pd.array(words, dtype="str")
        if self.p is not None:
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
    if (probabilities is None) == (asked.predicted is None):
        got = "neither" if probabilities is None else "both"
        raise ValueError(
            "Exactly one of `probabilities` (of each class) and `predicted` (answers only) is needed; got "
            f"{got}."
        )
    _rows.same_order(
        y_true=y_true,
        probabilities=probabilities,
        predicted=asked.predicted,
        ids=asked.ids,
        texts=asked.texts,
        groups=asked.groups,
        metadata=asked.metadata,
        sample_weight=asked.sample_weight,
    )
    given = None if asked.labels is None else _labels.class_names(asked.labels)
    if probabilities is None:
        return _scorer_of_answers(y_true, given, asked, contents), ()
    p, named, rounded = read_probabilities(probabilities, asked.task, given)
    names = names_of(given, named, y_true, p.shape[1])
    read = _labels.read_many if asked.task == "multilabel" else _labels.read
    y = read("y_true", y_true, names)
    _checks.not_empty("y_true", y)
    _checks.same_length("y_true", y, "probabilities", p)
    return Scorer(y, p, names, checked_options(len(p), names, asked, contents=contents)), rounded


def _scorer_of_answers(y_true: Any, given: tuple[str, ...] | None, asked: Asked, contents: Any) -> Scorer:
    """Read and check rows and the answers of a model without probabilities."""
    if asked.threshold is not None:
        raise ValueError("`threshold` needs probabilities; leave it out, since there are answers only.")
    if asked.task == "multilabel":
        names = given or _column_names(asked.predicted)
        y = _labels.read_many("y_true", y_true, names)
        answers: Answers | NDArray[np.int64] = _labels.read_many("predicted", asked.predicted, names)
    else:
        if given is None:
            given = getattr(y_true, "labels", None) if isinstance(y_true, _labels.ClassIndices) else None
        if given is None:
            y, names = _labels.find("y_true", y_true)
        else:
            y, names = _labels.read("y_true", y_true, given), given
        answers = read_answers("predicted", asked.predicted, names, y_true, found=given is None)
    _checks.not_empty("y_true", y)
    _checks.same_length("y_true", y, "predicted", answers)
    options = checked_options(len(y), names, asked, contents=contents)
    return Scorer(y, None, names, options, answers)


def _column_names(predicted: Any) -> tuple[str, ...]:
    """Return the labels of multilabel answers: the names of their columns, or "0", "1", ..."""
    if hasattr(predicted, "columns"):
        return _labels.class_names([str(name) for name in predicted.columns])
    return _labels.default_names(np.shape(predicted)[1] if _rows.dimensions(predicted) == 2 else 1)


def score_only(y_true: Any, probabilities: Any, asked: Asked | None = None) -> Evaluation:
    """Score predictions and nothing else, for the inside of the library: the main metrics only, cheap."""
    return scorer_of(y_true, probabilities, asked or Asked())[0].evaluation(full=False)
