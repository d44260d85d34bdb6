"""The record of a cross-evaluation: what it knows, how it is printed, and how it is kept on disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _files
from finetune_eval._text import Shown, counted, fill, pad, share
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation._trust import simpler_models
from finetune_eval.evaluation.folds import FoldScores
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.records import Estimate, Interval
from finetune_eval.evaluation.slices import possible_label_errors
from finetune_eval.studies.storage import packed, unpacked
from finetune_eval.training.recipe import described

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = 1  # of cross_evaluation.json
_RECORD = "cross_evaluation.json"
# Folds of all repeats below which the t of the recipe's interval is so large that repeats pay.
_FEW_FOLDS = 10


@dataclass(frozen=True)
class Fold:
    """One training of a cross-evaluation.

    Attributes:
        repeat: In which repeat, from 1.
        number: Which fold judged the model, from 1.
        n_train: Rows that it was trained on.
        n_test: Rows that judged it.
        seed: Of the training.
        seconds: How long training and judging took.
        scores: Metric name to its value on the rows of the fold; NaN where they do not have it.
    """

    repeat: int
    number: int
    n_train: int
    n_test: int
    seed: int
    seconds: float
    scores: dict[str, float]


@dataclass(frozen=True)
class CrossEstimate:
    """A metric over all folds, with an interval for each of two questions.

    Attributes:
        value: Of all rows, each judged out of fold; the mean over the repeats.
        models: How good are these models? The interval of their mean over new rows.
        recipe: How good is the recipe on so many rows? The interval of the mean over models that it would
            train on other rows.
    """

    value: float
    models: Estimate
    recipe: Interval

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{share(self.value)} (these models {_limits(self.models)}, this recipe {self.recipe})"


def _limits(interval: Estimate | Interval) -> str:
    return f"[{share(interval.low)}, {share(interval.high)}]"


@dataclass(frozen=True, eq=False, repr=False)
class CrossEvaluation(Shown):
    """What a recipe is worth, from all labelled rows: each was judged by a model that never saw it.

    Attributes:
        evaluation: The evaluation of all rows with the probabilities of the first repeat: slices,
            calibration, worst rows, baselines fitted in the same folds. Its intervals are of the models that
            were trained.
        folds: Each training, repeat after repeat.
        estimates: Metric name to value and both intervals; also `result["f1"]`. An AUC is the mean of the
            folds'; one that a fold does not have (no row of a class) is left out.
        fold_scores: What `compare` needs of the folds.
        probabilities: (repeats, n, K) out-of-fold probabilities.
        models: The models of all folds, where they were kept.
        settings: The settings of `fine_tune` that trained the models (a rate of None is the default of the
            model), and as "recipe" the name of the recipe; empty where the models were fitted otherwise.
    """

    evaluation: Evaluation
    folds: tuple[Fold, ...]
    estimates: dict[str, CrossEstimate]
    fold_scores: FoldScores
    probabilities: NDArray[np.float64]
    models: tuple[Any, ...] = field(default=())
    settings: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> CrossEstimate:
        """Return the estimate of a metric by name."""
        if metric not in self.estimates:
            listed = ", ".join(repr(name) for name in self.estimates)
            raise KeyError(
                f"no metric {metric!r}; there are {listed}.{_checks.nearest(metric, self.estimates)}"
            )
        return self.estimates[metric]

    @property
    def n(self) -> int:
        """How many rows."""
        return self.evaluation.n

    @property
    def fold_of_row(self) -> NDArray[np.int64]:
        """(repeats, n) the fold of each row, from 0."""
        return self.fold_scores.fold_of_row

    @cached_property
    def label_errors(self) -> pd.DataFrame:
        """Rows of all the data whose label may be wrong, the most suspicious first; look at them.

        The columns are those of `possible_label_errors`. Probabilities are means over the repeats.
        """
        frame = self.evaluation.predictions.copy()
        for k, label in enumerate(self.evaluation.labels):
            frame[f"p_{label}"] = self.probabilities.mean(axis=0)[:, k]
        averaged = dataclasses.replace(self.evaluation, predictions=frame)
        return possible_label_errors(averaged, n=averaged.n)

    def ensemble(self) -> Any:
        """Return one Keras model whose probabilities are the mean of those of the first repeat's models.

        It takes raw rows, saves, and loads by `load_model`. It holds the weights of all folds: with five,
        five times the memory of one model, and five times the time of a `predict`.

        Raises:
            ValueError: The models were not kept, or are no models of `build_model`.
        """
        if not self.models:
            raise ValueError(
                "`ensemble` needs the models of the folds: call cross_evaluate(keep_models=True)."
            )
        kept = self.models[: _folds(self)]
        if not hasattr(kept[0], "backbone"):
            raise ValueError(
                "`ensemble` averages models that `build_model` made; the folds have "
                f"{type(kept[0]).__name__}. Average the `predict` of `.models`."
            )
        from finetune_eval.models.ensemble import average_of

        return average_of(kept)

    def __repr__(self) -> str:
        return (
            f"<CrossEvaluation of {counted(self.evaluation.n, 'row')}, {counted(len(self.folds), 'fold')}: "
            f"accuracy {self.estimates['accuracy']}>"
        )

    def __str__(self) -> str:
        first = [fill(sentence, indent="! ") for sentence in simpler_models(self.evaluation)]
        return "\n\n".join([*first, _heading(self), _table(self), _meaning(self), str(self.evaluation)])

    def save(self, folder: str | Path) -> Path:
        """Write everything but the models into `folder`: the files of the evaluation, and those of the folds.

        Args:
            folder: The folder; made if it is not there.

        Returns:
            The folder.
        """
        folder = self.evaluation.save(folder)
        record = {
            "rows_hash": self.evaluation.rows_hash,
            "folds": _files.to_json(self.folds),
            "estimates": _files.to_json(self.estimates),
            "fold_scores": _files.to_json(self.fold_scores),
            "probabilities": packed(self.probabilities),
            "settings": _files.to_json(self.settings),
        }
        _files.write_json(folder / _RECORD, record, format=_FORMAT)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CrossEvaluation:
        """Read what `save` wrote; the same to the last bit, without models.

        Args:
            folder: The folder that was given to `save`.

        Returns:
            The cross-evaluation.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, or the files are of different evaluations.
        """
        evaluation = Evaluation.load(folder)
        path = Path(folder) / _RECORD
        if not path.is_file():
            raise FileNotFoundError(
                f"`folder` {str(folder)!r} has no {_RECORD}; pass one that CrossEvaluation.save wrote."
            )
        data = _files.read_json(path, newest_format=_FORMAT, checked_from=_FORMAT)
        if data["rows_hash"] != evaluation.rows_hash:
            raise ValueError(
                f"{str(path)!r} is not of the rows of the evaluation beside it. Restore both from one copy."
            )
        return cls(
            evaluation,
            _files.from_json(tuple[Fold, ...], data["folds"]),
            _files.from_json(dict[str, CrossEstimate], data["estimates"]),
            _files.from_json(FoldScores, data["fold_scores"]),
            unpacked(data["probabilities"]),
            settings=data.get("settings", {}),  # earlier versions kept none
        )


def _repeats(result: CrossEvaluation) -> int:
    return len(result.fold_of_row)


def _folds(result: CrossEvaluation) -> int:
    return len(result.folds) // _repeats(result)


def _trained_on(result: CrossEvaluation) -> str:
    """Return "480", or "478 to 481" where the folds are not of one size."""
    sizes = sorted({each.n_train for each in result.folds})
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def _heading(result: CrossEvaluation) -> str:
    repeats = "" if _repeats(result) == 1 else f", {_repeats(result)} times"
    how = f" {described(result.settings)}" if result.settings else ""
    return fill(
        f"{counted(result.evaluation.n, 'row')}, {_folds(result)} folds{repeats}: each row was judged by a "
        f"model that was trained on {_trained_on(result)} others.{how}"
    )


def _table(result: CrossEvaluation) -> str:
    """Return the table of metrics with both intervals."""
    confidence = f"{result.evaluation.confidence * 100:g} %"
    head = (f"{confidence} intervals of", "", "these models", "this recipe")
    lines = [f"{head[0]:<22} {head[1]:>7}  {head[2]:<18} {head[3]}".rstrip()]
    averaged = result.evaluation.average
    for name, estimate in result.estimates.items():
        title = METRICS[name].title
        if METRICS[name].averaged and averaged != "binary":
            title += f" ({averaged})"
        lines.append(
            f"{pad(title, 22)} {share(estimate.value):>7}  {_limits(estimate.models):<18} "
            f"{_limits(estimate.recipe)}".rstrip()
        )
    return "\n".join(lines)


def _meaning(result: CrossEvaluation) -> str:
    """Say of what each interval is, and how the folds' accuracies differ."""
    many, n = len(result.folds), result.evaluation.n
    accuracies = [share(each.scores["accuracy"]) for each in result.folds[:_FEW_FOLDS]]
    more = ", ..." if many > len(accuracies) else ""
    sentences = [
        f"These models: the mean of the {many} models that were trained, over new rows like these (Bayle et "
        "al. 2020).",
        f"This recipe: the mean of models that it would train on {_trained_on(result)} other rows like "
        f"these (Nadeau and Bengio 2003). A model that is trained on all {n:,} rows is expected to be "
        "slightly better.",
        f"Accuracy of each fold: {', '.join(accuracies)}{more}.",
    ]
    if many < _FEW_FOLDS:
        sentences.append(
            f"With only {many} folds the interval of the recipe is wider than it need be: repeats=3 narrows "
            "it."
        )
    absent = [METRICS[name].title for name in result.evaluation.estimates if name not in result.estimates]
    if absent:
        sentences.append(f"Left out, because the rows of a fold do not have it: {', '.join(absent)}.")
    sentences.append(
        "What follows is of all rows, with the answers of the models"
        + (" of the first repeat." if _repeats(result) > 1 else ".")
    )
    return "\n".join(fill(sentence) for sentence in sentences)
