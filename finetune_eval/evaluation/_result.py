"""The record of an evaluation: what it knows, and how it is kept on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _files
from finetune_eval._text import Shown, counted
from finetune_eval.evaluation._arrays import classified_rows
from finetune_eval.evaluation.calibration import Calibration
from finetune_eval.evaluation.prediction_sets import PredictionSets, fit_sets
from finetune_eval.evaluation.records import (
    Answered,
    Baseline,
    ClassScore,
    Estimate,
    LeakScores,
    Looks,
    NoLabel,
    Slice,
    SliceSearch,
)
from finetune_eval.evaluation.risk_coverage import RiskCoverage, risk_coverage

if TYPE_CHECKING:
    import pandas as pd

_RECORD, _ROWS, _WORST = "evaluation.json", "predictions.parquet", "worst_rows.parquet"
_FORMAT = 2  # of evaluation.json; the first with checksums
NEED_PROBABILITIES = ("loss", "brier", "roc_auc", "pr_auc")
NO_PROBABILITIES = (
    "The model gave answers and no probabilities, so the log-loss, the Brier score, the AUCs, calibration, "
    "thresholds and possible label errors, which are made of probabilities, are absent."
)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """What a model is worth on a set of rows; every number with its interval.

    Attributes:
        labels: The K class names.
        task: "classification" or "multilabel".
        average: "binary" (the second class), "macro", "micro" or "weighted": that of precision, recall, F1.
        confidence: Nominal coverage of the intervals.
        n: How many rows.
        threshold: Probability of the second class from which it was predicted, or None for the most
            probable class. Multilabel: that of every label, or a tuple with that of each.
        threshold_origin: What the threshold was chosen for and on how many rows, where that is known.
        estimates: Metric name to value and interval; also `evaluation["f1"]`.
        confusion_matrix: (K, K) rows true, columns predicted: counts, or sums of weights. Multilabel:
            (K, 2, 2), one two-class matrix for each label. Answers that are no label are in `no_label`.
        per_class: A `ClassScore` for each class.
        majority: The class that most rows have, and how many have it.
        predictions: A row for each row scored: id, label, prediction, p_<class>..., loss, and text_hash and
            text where texts were given. Answers without probabilities: neither p_<class> nor loss, and
            `prediction` is the answer itself where that is no label ("" where there is none).
        rows_hash: Hash of the rows and their labels; two evaluations of the same rows share it.
        calibration: How far the probabilities can be taken at their word; None for multilabel rows and for
            answers without probabilities.
        baselines: Simple models on the same rows, each compared with this one.
        leaks: Possible leaks from the training rows, and the scores without them, where those were given.
        looks: How often these rows were looked at, where that is counted.
        slices: Parts of the rows, weakest first, where texts or metadata were given.
        slice_search: How many parts were looked at, and what could have been found; None without texts and
            metadata.
        identified: Whether the rows are known by texts, ids or contents, and not by their labels alone.
        warnings: What to know before believing the numbers, in sentences.
        no_label: Answers that are no label, which count as wrong; None where there are none.
        answered: The rows that are answered where unsure answers are withheld, and their error; None where
            none is withheld. All other scores count every row.
    """

    labels: tuple[str, ...]
    task: str
    average: str
    confidence: float
    n: int
    threshold: float | tuple[float, ...] | None
    threshold_origin: str | None
    estimates: dict[str, Estimate]
    confusion_matrix: NDArray[Any]
    per_class: tuple[ClassScore, ...]
    majority: tuple[str, float]
    rows_hash: str
    warnings: tuple[str, ...]
    calibration: Calibration | None
    baselines: tuple[Baseline, ...]
    leaks: LeakScores | None
    looks: Looks | None
    slices: tuple[Slice, ...]
    identified: bool
    predictions: pd.DataFrame = field(repr=False)
    slice_search: SliceSearch | None = None
    no_label: NoLabel | None = None
    answered: Answered | None = None

    @property
    def keeps_rows(self) -> bool:
        """Whether `predictions` has every row; a `LargeEvaluation` keeps counts and the worst rows."""
        return True

    @property
    def has_probabilities(self) -> bool:
        """Whether the model gave probabilities, and not answers only."""
        return "loss" in self.predictions

    @property
    def total(self) -> float:
        """How many answers the confusion matrix counts, by weight, those that are no label included."""
        return float(with_no_label(self).sum())

    @property
    def loss(self) -> float:
        """Mean log-loss of the rows, in nats; a KeyError where the model gave answers only."""
        return self["loss"].value

    @property
    def accuracy(self) -> float:
        """Share of rows that are right (multilabel: right in every label)."""
        return self.estimates["accuracy"].value

    @property
    def precision(self) -> float:
        """Precision, averaged as `average` says."""
        return self.estimates["precision"].value

    @property
    def recall(self) -> float:
        """Recall, averaged as `average` says."""
        return self.estimates["recall"].value

    @property
    def f1(self) -> float:
        """F1, averaged as `average` says."""
        return self.estimates["f1"].value

    @property
    def right(self) -> int:
        """How many rows are right."""
        return int((self.predictions["label"] == self.predictions["prediction"]).sum())

    @property
    def worst_rows(self) -> pd.DataFrame:
        """The twenty rows with the highest loss, worst first; of answers only the first twenty wrong ones."""
        return rows_of_highest_loss(self.predictions, 20)

    @cached_property
    def risk_coverage(self) -> RiskCoverage:
        """How the error grows with the share of the rows that is answered, and the area under that (AUGRC).

        A row's confidence is the probability of the class that is answered. Rows count by their weights, and
        whole groups are independent.

        Raises:
            ValueError: There are no probabilities, or rows have several labels each.
        """
        rows = classified_rows(self.predictions, self.labels, self.task)
        confidence = rows.p[np.arange(self.n), rows.predicted]
        right = rows.y == rows.predicted
        return risk_coverage(
            right, confidence, weights=rows.weights, groups=rows.groups, level=self.confidence
        )

    def prediction_sets(self, alpha: float = 0.1, *, by_class: bool = False) -> PredictionSets:
        """Calibrate sets of classes on these rows that hold the true class of most new rows.

        Print the result: it says which coverage to expect, given so many calibration rows.

        Args:
            alpha: The share of new rows whose set may lack the true class, in (0, 1).
            by_class: Whether that is to hold for the rows of each class, too.

        Returns:
            The sets; `.apply(probabilities)` gives those of new rows.

        Raises:
            ValueError: There are no probabilities, rows have several labels each, or they have weights or
                come in groups: then they are not exchangeable with new rows.
        """
        alpha = _checks.number("alpha", alpha, above=0, below=1)
        by_class = _checks.flag("by_class", by_class)
        rows = classified_rows(self.predictions, self.labels, self.task)
        if rows.weights is not None or rows.groups is not None:
            what = "weights" if rows.weights is not None else "groups"
            raise ValueError(
                f"`evaluation` must have rows that are drawn like new ones, one by one; these have {what}."
            )
        return fit_sets(rows.y, rows.p, self.labels, alpha=alpha, by_class=by_class)

    def __getitem__(self, metric: str) -> Estimate:
        """Return the estimate of a metric by name."""
        if not isinstance(metric, str) or metric not in self.estimates:
            if not self.has_probabilities and metric in NEED_PROBABILITIES:
                raise KeyError(f"no metric {metric!r}. {NO_PROBABILITIES}")
            listed = ", ".join(repr(name) for name in self.estimates)
            raise KeyError(
                f"no metric {metric!r}; there are {listed}.{_checks.nearest(metric, self.estimates)}"
            )
        return self.estimates[metric]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Evaluation):
            return NotImplemented
        return self.record() == other.record() and self.predictions.equals(other.predictions)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        from finetune_eval.evaluation import _summary  # what is said of a record is above it

        return _summary.text(self)

    def __repr__(self) -> str:
        names = ("accuracy", "f1", "loss")
        scores = ", ".join(f"{name} {self.estimates[name]}" for name in names if name in self.estimates)
        kind = "labels" if self.task == "multilabel" else "classes"
        return f"<Evaluation of {counted(self.n, 'row')}, {len(self.labels):,} {kind}: {scores}>"

    def record(self) -> dict[str, Any]:
        """Everything but the rows, as JSON data."""
        return {
            name: _files.to_json(getattr(self, name))
            for name in self.__dataclass_fields__
            if name != "predictions"
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates as a table: metric, value, low, high, method; one row for each.

        Metrics of the whole come first, then precision, recall and F1 of each class.
        """
        import pandas as pd

        rows = [("all", name, estimate) for name, estimate in self.estimates.items()]
        for score in self.per_class:
            rows += [(score.label, name, getattr(score, name)) for name in ("precision", "recall", "f1")]
        return pd.DataFrame(
            [
                {
                    "class": label,
                    "metric": name,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "method": estimate.method,
                }
                for label, name, estimate in rows
            ]
        )

    def save(self, folder: str | Path) -> Path:
        """Write evaluation.json and predictions.parquet into `folder`: both or, where that fails, neither.

        Args:
            folder: The folder; made if it is not there.

        Returns:
            The folder.
        """
        return self._save(_checks.path("folder", folder), _ROWS, self.predictions)

    def _save(self, folder: Path, name: str, table: pd.DataFrame) -> Path:
        """Write the record and a table of rows that it knows by its checksum."""
        checksums: dict[str, str] = {}

        def rows(path: Path) -> None:
            _files.write_table(path, table)
            checksums["predictions_sha256"] = _files.sha256(path)

        def record(path: Path) -> None:
            text = _files.json_text({**self.record(), **checksums}, format=_FORMAT)
            path.write_text(text, encoding="utf-8")

        _files.write_together(folder, {name: rows, _RECORD: record})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what `save` wrote; the same to the last bit.

        Args:
            folder: The folder that was given to `save`.

        Returns:
            The evaluation.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, the two are of different evaluations, or a newer version wrote
            them.
        """
        import pandas as pd

        folder = _checks.path("folder", folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"`folder` {str(folder)!r} is no folder; pass one that Evaluation.save wrote."
            )
        with _files.together(folder) as path:
            large = path(_WORST).is_file() and not path(_ROWS).is_file()
            rows = _WORST if large else _ROWS
            for name in (_RECORD, rows):
                if not path(name).is_file():
                    raise FileNotFoundError(
                        f"`folder` {str(folder)!r} has no {name}; pass a folder that Evaluation.save wrote."
                    )
            data = _record_of(folder, path, rows)
            try:
                table = pd.read_parquet(path(rows))
            except (OSError, ValueError) as error:  # pyarrow's errors are both; only without a checksum
                raise ValueError(f"{str(folder / rows)!r} is damaged ({error}).") from None
        try:
            if large:
                kept = {"predictions": RowsNotKept(table.columns), "worst": table}
                found: Evaluation = _files.from_json(LargeEvaluation, data, **kept)
            else:
                found = _files.from_json(cls, data, predictions=table)
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{str(folder / _RECORD)!r} is no evaluation of this library ({error})."
            ) from None


class RowsNotKept:
    """What stands in the place of the rows of a `LargeEvaluation`: it knows their columns, and nothing else.

    Attributes:
        columns: The names of the columns that the rows had.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self.columns = tuple(columns)

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __getitem__(self, key: object) -> NoReturn:
        self._refuse()

    def __len__(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "This needs every row, and an evaluation made by `evaluate_files` or `Statistics` keeps counts "
            "and the worst rows only; use `load_predictions` or `evaluate_predictions` on as many of the "
            "rows as memory holds."
        )


@dataclass(frozen=True, eq=False, repr=False)
class LargeEvaluation(Evaluation):
    """An evaluation made of counts: `predictions` are not kept, and whatever needs them says so.

    `rows_hash` is of the number of rows of each class: rows that share it need not be the same.

    Attributes:
        worst: The twenty rows with the highest loss, worst first, with their file and their row in it.
    """

    worst: pd.DataFrame = field(repr=False, kw_only=True)

    @property
    def keeps_rows(self) -> bool:
        """Whether `predictions` has every row: it has none."""
        return False

    @property
    def right(self) -> int:
        """How many rows are right."""
        return int(self.confusion_matrix.trace())

    @property
    def worst_rows(self) -> pd.DataFrame:
        """The twenty rows with the highest loss, worst first, with their file and their row in it."""
        return self.worst

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LargeEvaluation):
            return NotImplemented
        return self.record() == other.record() and self.worst.equals(other.worst)

    __hash__ = None

    def record(self) -> dict[str, Any]:
        """Everything but the rows, as JSON data."""
        record = super().record()
        del record["worst"]
        return record

    def save(self, folder: str | Path) -> Path:
        """Write evaluation.json and worst_rows.parquet into `folder`: both or, where that fails, neither.

        Args:
            folder: The folder; made if it is not there.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder holds an evaluation with all of its rows.
        """
        folder = _checks.path("folder", folder)
        if (folder / _ROWS).exists():
            raise FileExistsError(
                f"`folder` {str(folder)!r} holds {_ROWS} of another evaluation; pass another folder."
            )
        return self._save(folder, _WORST, self.worst)


def with_no_label(evaluation: Evaluation) -> NDArray[Any]:
    """Return the confusion matrix, and where answers are no label their column as the last one."""
    matrix = evaluation.confusion_matrix
    if evaluation.no_label is None:
        return matrix
    return np.column_stack([matrix, np.asarray(evaluation.no_label.counts, dtype=matrix.dtype)])


def rows_of_highest_loss(predictions: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the `n` rows of `Evaluation.predictions` of the highest loss; without losses the wrong rows."""
    if "loss" not in predictions:
        wrong = (predictions["label"] != predictions["prediction"]).to_numpy()
        return predictions[wrong].head(n).reset_index(drop=True)
    losses = predictions["loss"].to_numpy()
    n = min(n, len(losses))
    candidates = np.sort(np.argpartition(-losses, n - 1)[:n])
    order = candidates[np.argsort(-losses[candidates], kind="stable")]
    return predictions.iloc[order].reset_index(drop=True)


@contextlib.contextmanager
def saved_rows(path: Path) -> Iterator[Path]:
    """Give the place of a file of predictions; one that `save` wrote must be the one it wrote.

    Raises:
        ValueError: An evaluation.json lies beside it and names another file, or is damaged.
    """
    if path.name != _ROWS or not path.parent.is_dir():
        yield path
        return
    with _files.together(path.parent) as place:
        if place(_RECORD).is_file() and place(_ROWS).is_file():
            _record_of(path.parent, place)
        yield place(_ROWS)


def _record_of(folder: Path, place: Callable[[str], Path], rows: str = _ROWS) -> dict[str, Any]:
    """Return what evaluation.json holds, and check that the rows beside it are those it was written with."""
    data = _files.read_json(place(_RECORD), newest_format=_FORMAT, checked_from=2)
    expected = data.pop("predictions_sha256", None)
    if expected is not None and expected != _files.sha256(place(rows)):
        raise ValueError(
            f"{str(folder / rows)!r} is not the file that {_RECORD} was written with: it is damaged, or of "
            "another evaluation. Restore both from one copy, evaluate again, or give rows of your own "
            "another file name."
        )
    return data
