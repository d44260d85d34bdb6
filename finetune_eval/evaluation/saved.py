"""Files of predictions from any framework: what each column means, and the scores of the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import counted, listed
from finetune_eval.data.readers import as_numbers, read
from finetune_eval.evaluation._answers import read_answers
from finetune_eval.evaluation._inputs import read_probabilities
from finetune_eval.evaluation._result import Evaluation, saved_rows
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.label_thresholds import LabelThresholds
from finetune_eval.evaluation.thresholds import Threshold

if TYPE_CHECKING:
    import pandas as pd

# What a file may call its columns, the likeliest name first.
_TRUTH = ("label", "y_true", "target")
_SECOND = ("probability", "score", "p")
_ANSWER = ("prediction", "predicted", "predicted_label", "pred_label", "y_pred", "pred")
_WHOLE = 1e-4  # how far from 1 a sum may be that is one beyond doubt
_TEXT_COLUMNS = {*_TRUTH, *_ANSWER, "text", "group", "id"}


def load_predictions(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
    labels: Sequence[str] | None = None,
    ids: Any = None,
    texts: Any = None,
    groups: Any = None,
    metadata: Any = None,
    sample_weight: Any = None,
    average: str = "auto",
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    threshold: float | Threshold | LabelThresholds | Sequence[float] | None = None,
    abstention: float | Abstention | None = None,
    task: str | None = None,
    train: Any = None,
    features: Any = None,
    baselines: bool = True,
    lockbox: bool | str | Path | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Score a file of predictions, from any framework.

    The file has a row for each row that was predicted. Its columns:

    - `label` (or `y_true`, `target`): the true class, by its name, or by its place where no class has a
    number for
      a name. Multilabel: a column `y_<class>` of zeros and ones for each class, or `label` with the names of
      all that
      are true between " + ".
    - `p_<class>` for each class: its probability. For two classes one column `probability` (or `score`, `p`)
    will do:
      that of the second; `labels` is then needed where the truth is class names.
    - `predicted` (or `prediction`, `y_pred`, ...): the answers of a model that gives no probabilities, where
      the file has none. They are read as `evaluate_predictions(predicted=...)` reads them. Columns such as
      `p_value` or `score`, which do not fit the labels, are then not used, and a warning names them.
    - `id`, `text`, `group` and `weight` are used where they are there; ids, labels and groups are read as
    text.

    `predictions.parquet` of a run is such a file.

    Args:
        path: The file; its name ends in .csv, .tsv, .jsonl, .ndjson, .json or .parquet.
        encoding: Of a text file, as in `load_dataset`.
        delimiter: Of a CSV file; None is a tab for .tsv and a comma otherwise.
        quoted: Whether quotes in a CSV file enclose fields.
        labels: The classes, in another order than the file's columns, or some of them where the file has
        further
            columns whose names begin with "p_". Other names than the file's are for columns `p_0`, `p_1`, ...
            only.
        ids: Instead of the column `id`.
        texts: Instead of the column `text`.
        groups: Instead of the column `group`.
        metadata: As for `evaluate_predictions`.
        sample_weight: Instead of the column `weight`.
        average: As for `evaluate_predictions`.
        metrics: As for `evaluate_predictions`.
        confidence: As for `evaluate_predictions`.
        threshold: As for `evaluate_predictions`.
        abstention: As for `evaluate_predictions`.
        task: "classification" or "multilabel"; None: "multilabel" where the file has columns `y_<class>`.
        train: As for `evaluate_predictions`.
        features: As for `evaluate_predictions`.
        baselines: As for `evaluate_predictions`.
        lockbox: As for `evaluate_predictions`.
        n_resamples: As for `evaluate_predictions`.
        seed: As for `evaluate_predictions`.

    Returns:
        The evaluation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The ending is unknown, the file cannot be read, a column is missing, or columns contradict
        each
            other.
    """
    path = _checks.path("path", path)
    with saved_rows(path) as place:
        table = read(place, _TEXT_COLUMNS, encoding=encoding, delimiter=delimiter, quoted=quoted)
    numbers = [c for c in table.frame if str(c).startswith(("p_", "y_")) or c in (*_SECOND, "weight")]
    frame = as_numbers(table.frame, [name for name in numbers if name not in _TEXT_COLUMNS])
    given = None if labels is None else _labels.class_names(labels)
    truth = _first(frame, _TRUTH)
    _no_other_truth(path, frame, truth)
    if task is None:
        task = "multilabel" if truth is None and _class_columns(frame, "y_") else "classification"
    answer = _first(frame, _ANSWER)
    unused = (
        None if answer is None or task != "classification" else _answers_only(frame, given, truth, answer)
    )
    if unused is None:
        names, probabilities, note = _probabilities(path, frame, given, task, truth)
    else:
        names, probabilities, note = None, None, unused
    y = _truth(path, frame, truth, given or names, names, task)
    if (known := given or names) is not None:  # an error here names the file, and its column
        read_labels = _labels.read_many if task == "multilabel" else _labels.read
        try:
            read_labels(truth or "y_<class>", y, known)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r}: {error}") from None

    def column(name: str, instead: Any) -> Any:
        return frame[name].to_numpy() if instead is None and name in frame else instead

    result = evaluate_predictions(
        y,
        probabilities,
        predicted=None if unused is None else _with_missing(frame[answer]),
        labels=given or names,
        ids=column("id", ids),
        texts=column("text", texts),
        groups=column("group", groups),
        metadata=metadata,
        sample_weight=column("weight", sample_weight),
        average=average,
        metrics=metrics,
        confidence=confidence,
        threshold=threshold,
        abstention=abstention,
        task=task,
        train=train,
        features=features,
        baselines=baselines,
        lockbox=lockbox,
        n_resamples=n_resamples,
        seed=seed,
    )
    other = "" if probabilities is None else _other_answers(frame, result)
    notes = [*table.warnings, note, other]
    return dataclasses.replace(result, warnings=(*result.warnings, *(text for text in notes if text)))


def _first(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame), None)


def _no_other_truth(path: Any, frame: pd.DataFrame, truth: str | None) -> None:
    """Raise where another column than that of the truth may be it, and says something else."""
    for name in _TRUTH:
        if name in frame and name != truth and (differ := _words(frame[truth]) != _words(frame[name])).any():
            row = int(differ.argmax())
            raise ValueError(
                f"{str(path)!r} has {truth!r} and {name!r}, and each may be the truth: row {row} is "
                f"{frame[truth].iloc[row]!r} in one and {frame[name].iloc[row]!r} in the other. Rename or "
                "leave out what is not the truth."
            )


def _words(column: pd.Series[Any]) -> NDArray[np.str_]:
    return np.asarray(column.astype(str), dtype=np.str_)


def _class_columns(frame: pd.DataFrame, prefix: str) -> list[str]:
    """Return the columns `p_<class>` (or `y_<class>` of the same classes)."""
    found = [str(name) for name in frame.columns if str(name).startswith("p_")]
    columns = [f"{prefix}{name.removeprefix('p_')}" for name in found]
    return columns if set(columns) <= set(frame.columns) else []


def _probabilities(
    path: Path, frame: pd.DataFrame, given: tuple[str, ...] | None, task: str, truth: str | None
) -> tuple[tuple[str, ...] | None, Any, str]:
    """Return the names of the classes, if the columns tell them, the probabilities, and what to warn of."""
    classes = _class_columns(frame, "p_")
    if given is not None and {f"p_{name}" for name in given} <= set(classes):
        classes = [name for name in classes if name.removeprefix("p_") in given]
    one = _first(frame, _SECOND)
    two = given is not None and len(given) == 2 and {f"p_{name}" for name in given} != set(classes)
    if one is not None and task == "classification" and (not classes or len(classes) == 1 or two):
        values, note = _of_second(path, frame, one, given)
        return None, values, note
    if not classes:
        raise ValueError(
            f"{str(path)!r} needs a column p_<class> for each class, or a column 'probability' of the second "
            f"of two, or a column 'predicted' of answers; it has {listed(frame.columns)}."
        )
    names = tuple(name.removeprefix("p_") for name in classes)
    if len(names) < 2:
        raise ValueError(
            f"{str(path)!r} has one column whose name begins with 'p_', {classes[0]!r}; a column p_<class> "
            "for each "
            "class is needed, or a column 'probability' of the second of two."
        )
    default = names == _labels.default_names(len(names))
    if given is not None and set(given) != set(names) and not (default and len(given) == len(names)):
        raise ValueError(
            f"`labels` must name the classes of {str(path)!r}, {', '.join(names)}; got {', '.join(given)}."
        )
    try:
        read_probabilities(frame[classes], task)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r}: {error} The columns {listed(classes)} were taken for the probabilities of "
            "classes; pass `labels` to say which they are."
        ) from None
    if given is None and task == "classification" and (extra := _no_classes(frame, classes, truth)):
        raise ValueError(
            f"{str(path)!r}: {listed(extra)} may be no probability of a class: no row is labelled so, and "
            "the other columns sum to 1 without it. Pass `labels`, or rename the column."
        )
    return names, frame[classes], ""


def _no_classes(frame: pd.DataFrame, classes: list[str], truth: str | None) -> list[str]:
    """Return columns `p_<...>` that no label names, where the others sum to 1 in each row without them."""
    seen = set() if truth is None else set(frame[truth].dropna().astype(str).map(_labels.plain_number))
    extra = [name for name in classes if _labels.plain_number(name.removeprefix("p_")) not in seen]
    others = [name for name in classes if name not in extra]
    if not extra or len(others) < 2:
        return []
    p, rest = (_rows.numbers("probabilities", frame[part]).astype(np.float64) for part in (others, extra))
    whole = np.abs(p.sum(axis=1) - 1) < _WHOLE
    return extra if whole.all() and (np.abs(rest) > _WHOLE).any() else []


def _answers_only(
    frame: pd.DataFrame, given: tuple[str, ...] | None, truth: str | None, answer: str
) -> str | None:
    """Return None where a file has probabilities beside its answers; else what to say of unused columns.

    Columns are probabilities where they fit the labels: `p_<class>` of the labels, or one column of the
    second of two, in [0, 1]. A column named `probability` is always one.
    """
    if truth is None or "probability" in frame:
        return None
    names = given
    if names is None:
        values = frame[truth].dropna().astype(str)
        names = tuple(dict.fromkeys(values.map(_labels.plain_number).tolist()))
    columns = _class_columns(frame, "p_")
    classes = {name.removeprefix("p_") for name in columns}
    if classes & {*names, *(frame[truth].dropna().astype(str))}:
        return None
    if len(columns) > 1 and classes == set(_labels.default_names(len(columns))):
        return None
    one = next((name for name in ("score", "p") if name in frame), None)
    if one is not None and len(names) == 2 and _may_be_of_second(frame, one, given, names, answer):
        return None
    unused = [*columns, *([one] if one is not None else [])]
    if not unused:
        return ""
    them = "it is" if len(unused) == 1 else "they are"
    return (
        f"The answers in the column {answer!r} were scored. The file's {listed(unused)} "
        f"{'was' if len(unused) == 1 else 'were'} not used: {them} not taken for probabilities of the labels "
        f"{listed(names)}. Pass `labels`, or name probabilities p_<class>, if {them} some."
    )


def _may_be_of_second(
    frame: pd.DataFrame, column: str, given: tuple[str, ...] | None, names: Sequence[str], answer: str
) -> bool:
    """Return whether a column may hold probabilities of the second of two labels, or of the answers."""
    try:
        values = _rows.numbers(column, frame[column]).astype(np.float64)
    except (TypeError, ValueError):
        return False
    labels = given or _labels.default_names(2)
    places = read_answers(answer, _with_missing(frame[answer]), labels).places
    if set(names) != set(labels) or (places > 1).any() or not ((values >= 0) & (values <= 1)).all():
        return False
    # With `labels` given, an order of the values that contradicts the answers is an error.
    return given is not None or bool(np.array_equal(places == 1, values >= 0.5))


def _of_second(
    path: Path, frame: pd.DataFrame, column: str, given: tuple[str, ...] | None
) -> tuple[NDArray[np.float64], str]:
    """Return the probability of the second class; a confidence in the predicted class is turned into it."""
    values = _rows.numbers(column, frame[column]).astype(np.float64)
    answer = _first(frame, _ANSWER)
    if answer is None or given is None or len(given) != 2:
        return values, ""
    try:
        second = _labels.read(answer, frame[answer].to_numpy(), given) == 1
    except ValueError:  # answers that are no class: nothing can be checked
        return values, ""
    if second.all() or not second.any():
        of_second, of_answer = (values >= 0.5).all() == second.all(), bool((values >= 0.5).all())
    else:
        of_second, of_answer = values[second].min() >= values[~second].max(), bool((values >= 0.5).all())
    if of_second and not (of_answer and (~second).any()):
        return values, ""
    if of_answer and not of_second:
        note = (
            f"The column {column!r} is read as the probability of the class in {answer!r}: it is 0.5 or "
            "more in every "
            f"row, also where that is {given[0]!r}."
        )
        return np.where(second, values, 1 - values), note
    row = int(((values >= 0.5) != second).argmax())
    raise ValueError(
        f"{str(path)!r}: {column!r} may be the probability of {given[1]!r} or of the class in {answer!r} "
        f"(row {row} has "
        f"{values[row]:.4g} and {given[int(second[row])]!r}); give a column p_<class> for each class "
        "instead, or leave it out to score the answers."
    )


def _truth(
    path: Path,
    frame: pd.DataFrame,
    truth: str | None,
    given: tuple[str, ...] | None,
    names: tuple[str, ...] | None,
    task: str,
) -> Any:
    """Return the true labels of the file, for `evaluate_predictions`."""
    if task == "multilabel":
        if given is None or names is None:
            raise ValueError("task='multilabel' needs a column p_<class> for each class.")
        if truth is not None:
            return _joined_labels(path, frame[truth].tolist(), given)
        of = given if set(given) == set(names) else names
        return frame[[f"y_{name}" for name in of]].to_numpy()
    ones = [f"y_{name}" for name in given or ()]
    if truth is None and ones and set(ones) <= set(frame.columns):
        return frame[ones].set_axis(given, axis="columns")  # one-hot
    if truth is None:
        raise ValueError(
            f"{str(path)!r} needs a column 'label' (or 'y_true', 'target') with the truth; it has "
            f"{listed(frame.columns)}."
        )
    return _with_missing(frame[truth])


def _with_missing(column: pd.Series[Any]) -> NDArray[Any]:
    """Return a column of a file as an array, None where a value is missing."""
    values = np.array(column, dtype=object)
    values[column.isna().to_numpy()] = None
    return values


def _joined_labels(path: Path, words: Sequence[Any], given: tuple[str, ...]) -> NDArray[np.int64]:
    """Return (n, K) zeros and ones of texts such as "angry + late", as `Evaluation.predictions` has them."""
    index = {name: k for k, name in enumerate(given)}
    out = np.zeros((len(words), len(given)), dtype=np.int64)
    for row, word in enumerate(words):
        for name in str(word).split(" + ") if isinstance(word, str) and word else ():
            if name not in index:
                raise ValueError(
                    f"{str(path)!r}: `label` has an unknown label {name!r} in row {row}; the labels are "
                    f"{listed(given)}.{_checks.nearest(name, given)}"
                )
            out[row, index[name]] = 1
    return out


def _other_answers(frame: pd.DataFrame, result: Evaluation) -> str:
    """Say where the file's own predictions are not the most probable class."""
    answer = _first(frame, _ANSWER)
    if answer is None or frame[answer].isna().any():
        return ""
    try:
        own = _labels.read(answer, frame[answer].to_numpy(), result.labels)
    except ValueError:
        own = None
    words = (
        frame[answer].astype(str).to_numpy() if own is None else np.array(result.labels, dtype=object)[own]
    )
    differ = int((words != result.predictions["prediction"].to_numpy()).sum())
    if not differ:
        return ""
    return (
        f"In {differ:,} of {counted(result.n, 'row')} the file's column {answer!r} names another class than "
        "the probabilities do here: was there a threshold? The scores are of the probabilities."
    )


__all__ = ["load_predictions"]
