"""The keywords of an evaluation: as they came, and as they are once they were checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _pairs, _rows
from finetune_eval._text import counted, listed
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.evaluation.label_thresholds import LabelThresholds, read_thresholds
from finetune_eval.evaluation.metrics import METRICS, resolve_average
from finetune_eval.evaluation.thresholds import Threshold
from finetune_eval.runs import Run

TASKS = ("classification", "multilabel")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keywords of `evaluate_predictions` as they came."""

    labels: Any = None
    ids: Any = None
    texts: Any = None
    groups: Any = None
    metadata: Any = None
    sample_weight: Any = None
    average: str = "auto"
    confidence: float = 0.95
    threshold: float | Threshold | LabelThresholds | Sequence[float] | None = None
    abstention: float | Abstention | None = None
    task: str = "classification"
    train: Any = None
    features: Any = None
    baselines: bool = True
    lockbox: bool | str | Path | None = None
    n_resamples: int = 2000
    seed: int = 0
    predicted: Any = None
    metrics: Any = ()
    beside: NDArray[np.object_] | None = None  # what each row has beside its text, as a line


@dataclass(frozen=True)
class Options:
    """Checked options of `evaluate_predictions`."""

    average: str
    chosen: Threshold | LabelThresholds | None
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
    threshold: float | tuple[float, ...] | None
    weights: NDArray[np.float64] | None
    metrics: tuple[str, ...] = ()
    abstention: Abstention | float | None = None
    beside: NDArray[np.object_] | None = None

    def of(self, rows: NDArray[np.int64]) -> Options:
        """Return the options for some of the rows."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        if groups is not None and groups.max() == 0:
            groups = None
        weights = None if self.weights is None else self.weights[rows]
        return dataclasses.replace(
            self, ids=None, texts=None, metadata=None, chosen=None, groups=groups, weights=weights
        )


def checked_options(n: int, labels: tuple[str, ...] | None, asked: Asked, *, contents: Any = None) -> Options:
    """Check what does not depend on the probabilities, so that nothing slow runs in vain."""
    average = asked.average
    if labels is not None:
        if asked.task == "multilabel":
            _checks.one_of("average", average, ("auto", "macro", "micro", "weighted"))
            average = "macro" if average == "auto" else average
            _no_joining(labels)
        else:
            average = resolve_average(average, len(labels))
    threshold = _threshold(asked, labels)
    groups = None if asked.groups is None else _rows.groups("groups", asked.groups, n)
    if groups is not None and groups.max() == 0:
        raise ValueError("`groups` puts every row in one group; at least two groups are needed.")
    weights = None if asked.sample_weight is None else _rows.weights("sample_weight", asked.sample_weight, n)
    texts, pairs = None, asked.texts is not None and _pairs.are_pairs(asked.texts)
    if asked.texts is not None:
        texts = _pairs.texts("texts", asked.texts).tolist()
        if len(texts) != n:
            raise ValueError(f"`texts` must have one value for each of the {n} rows; got {len(texts)}.")
    train, features = _training_rows(asked, labels, n, pairs=pairs)
    if callable(features) and texts is None and contents is None:
        raise ValueError("`features` as a function needs the rows: pass `texts`, or a pair of arrays.")
    ids = None if asked.ids is None else _ids(asked.ids, n)
    _checks.flag("baselines", asked.baselines)
    if not isinstance(asked.lockbox, (bool, type(None))):
        _checks.path("lockbox", asked.lockbox)
    if asked.lockbox not in (None, False) and texts is None and ids is None and contents is None:
        raise ValueError(
            "`lockbox` needs `texts` or `ids`: rows known by their labels alone cannot be told from others."
        )
    return Options(
        metrics=_further_metrics(asked, labels),
        abstention=_abstention(asked, threshold),
        average=average,
        chosen=asked.threshold if isinstance(asked.threshold, (Threshold, LabelThresholds)) else None,
        train=train,
        features=features,
        confidence=_checks.number("confidence", asked.confidence, above=0, below=1),
        groups=groups,
        ids=ids,
        metadata=_metadata(asked.metadata, n),
        n_resamples=_checks.positive_int(
            "n_resamples", asked.n_resamples, minimum=100, maximum=_checks.MOST_RESAMPLES
        ),
        seed=_checks.positive_int("seed", asked.seed, minimum=0),
        task=asked.task,
        texts=texts,
        beside=asked.beside,
        threshold=threshold,
        weights=weights,
    )


def _threshold(asked: Asked, labels: tuple[str, ...] | None) -> float | tuple[float, ...] | None:
    """Return from which probability on a class is predicted; a tuple where each label has its own."""
    given: Any = asked.threshold
    if given is None:
        return None
    if isinstance(given, Threshold):
        given = given.value
    if isinstance(given, LabelThresholds) or _rows.dimensions(given) > 0:
        if asked.task != "multilabel":
            raise ValueError("`threshold` must be one number where a row has one class; got one for each.")
        if isinstance(given, LabelThresholds):
            if labels is not None and given.labels not in (labels, _labels.default_names(len(labels))):
                raise ValueError(
                    f"`threshold` was chosen for the labels {listed(given.labels)}; these are "
                    f"{listed(labels)}."
                )
            given = given.values
        return read_thresholds("threshold", given, len(given) if labels is None else len(labels))
    value = _checks.number("threshold", given, above=0, below=1)
    if asked.task == "classification" and labels is not None and len(labels) != 2:
        raise ValueError(
            f"`threshold` needs exactly two classes (or task='multilabel'); got {len(labels)} classes."
        )
    return value


def _abstention(asked: Asked, threshold: Any) -> Abstention | float | None:
    """Return from which confidence on rows are answered, checked; None where all are."""
    given = asked.abstention
    if given is None:
        return None
    if asked.task == "multilabel":
        raise ValueError("`abstention` is of rows with one label each; leave it out where task='multilabel'.")
    if asked.predicted is not None:
        raise ValueError("`abstention` needs probabilities; leave it out, since there are answers only.")
    if not isinstance(given, Abstention):
        return _checks.number("abstention", given, at_least=0, below=1)
    if given.threshold != threshold:
        raise ValueError(
            f"`abstention` was chosen for answers with {_threshold_words(given.threshold)}, and these have "
            f"{_threshold_words(threshold)}. Choose it again: `choose_abstention(y, p, threshold=...)`."
        )
    return given


def _threshold_words(threshold: float | None) -> str:
    return "no threshold" if threshold is None else f"a threshold of {threshold:.4g}"


def _further_metrics(asked: Asked, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the metrics that were asked for, each checked to be of such rows."""
    if not isinstance(asked.metrics, (list, tuple)):
        what = "text" if isinstance(asked.metrics, str) else type(asked.metrics).__name__
        raise TypeError(f"`metrics` must be a list of names; got the {what} {asked.metrics!r}.")
    names, multilabel = tuple(asked.metrics), asked.task == "multilabel"
    for name in names:
        _checks.one_of("metrics", name, tuple(METRICS))
        metric = METRICS[name]
        if not (metric.multilabel if multilabel else metric.single):
            which = "one label each" if multilabel else "several labels each (task='multilabel')"
            raise ValueError(f"`metrics` {name!r} is of rows with {which}.")
        if metric.probabilities and asked.predicted is not None:
            raise ValueError(f"`metrics` {name!r} needs probabilities, and `predicted` gives answers only.")
        if labels is not None:
            metric.check_classes("metrics", name, len(labels))
    return names


def _ids(values: Any, n: int) -> NDArray[Any]:
    """Return (n,) whole numbers or texts: what names the rows."""
    ids = _rows.one_a_row("ids", values, n)
    absent = _rows.missing(ids)
    names = ["" if gone else str(value) for gone, value in zip(absent, ids.tolist(), strict=True)]
    if "" in names:
        raise ValueError(f"`ids` has no id in row {names.index('')}; give every row one.")
    return ids if ids.dtype.kind in "iu" else _rows.texts("ids", names)


def _no_joining(labels: tuple[str, ...]) -> None:
    """Refuse names that cannot be told apart once the names of a row's labels are joined by " + "."""
    for name in labels:
        if " + " in f" {name} ":
            raise ValueError(
                "`labels` must be names without ' + ' where task='multilabel', since it joins the labels of "
                f"a row; got {name!r}. Call it something else."
            )


def _metadata(values: Any, n: int) -> Any:
    if values is None:
        return None
    if not isinstance(values, dict) and not hasattr(values, "columns"):
        raise TypeError(
            f"`metadata` must be a DataFrame or a dictionary of columns; got {type(values).__name__}."
        )
    for name in values if isinstance(values, dict) else values.columns:
        column = values[name]
        if isinstance(column, (str, bytes, set, frozenset, dict)) or not hasattr(column, "__len__"):
            raise TypeError(f"`metadata` must be columns of values; {name!r} is a {type(column).__name__}.")
        if len(column) != n:
            raise ValueError(
                f"`metadata` must have one value for each of the {n} rows; column {name!r} has {len(column)}."
            )
    return values


def _training_rows(
    asked: Asked, labels: tuple[str, ...] | None, n: int, *, pairs: bool
) -> tuple[tuple[Any, NDArray[np.int64]] | None, Any]:
    """Return the training rows with the places of their classes, and the features; pairs are joined."""
    train, features, task = asked.train, asked.features, asked.task
    if train is None:
        if features is not None:
            raise ValueError("`features` needs `train`, the labels of the training rows: pass train=(x, y).")
        return None, None
    x, y = _pair_of_rows(train)
    if pairs or _pairs.are_pairs(x):
        x = _pairs.joined(_pairs.pairs("train", x))
    read = _labels.read_many if task == "multilabel" else _labels.read
    indices = np.empty(0, dtype=np.int64) if labels is None else read("train", y, labels)
    if features is not None and not callable(features):
        if not isinstance(features, (tuple, list)) or len(features) != 2:
            raise ValueError(
                "`features` must be a function of rows, or a pair of arrays: of the training rows, and of "
                "these rows."
            )
        for name, part, rows in (("training", features[0], len(x)), ("test", features[1], n)):
            if len(part) != rows:
                raise ValueError(
                    f"`features` must have one row for each {name} row; got {len(part)} for {rows}."
                )
        features = (features[0], features[1])
    return (x, indices), features


def _rows_of_run(folder: Path) -> tuple[Any, Any]:
    """Return the training texts and the names of their classes, as a run keeps them in `train.parquet`."""
    path = folder / "train.parquet"
    if not path.is_file():
        missing = "has no train.parquet" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(
            f"`train` {str(folder)!r} {missing}; pass the folder of a run that kept its training rows, or "
            "the rows themselves as a pair (x, y)."
        )
    return Run(folder).training_rows()


def _pair_of_rows(train: Any) -> tuple[Any, Any]:
    """Return the x and y of `train`: the folder of a run, a pair, or anything that unpacks into one."""
    if isinstance(train, (str, Path)):
        train = _rows_of_run(_checks.path("train", train))
    try:
        x, y = train
    except (TypeError, ValueError):
        raise ValueError(
            "`train` must be the training rows as a pair (x, y), such as `dataset.train`, or the folder of a "
            "run; got "
            f"{type(train).__name__}."
        ) from None
    for part in (x, y):
        _rows.column("train", part)
    if len(x) != len(y):
        raise ValueError(
            f"`train` must have as many labels as rows; got {counted(len(x), 'row')} and "
            f"{counted(len(y), 'label')}."
        )
    if len(x) == 0:
        raise ValueError("`train` has no rows; at least one is needed.")
    return x, y
