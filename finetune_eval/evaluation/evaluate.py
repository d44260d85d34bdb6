"""Score a model once, and say how sure one can be of every number.

`evaluate` calls `model.predict` once and hands the probabilities to `evaluate_predictions`, which needs
neither a model nor TensorFlow.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.data.ledger import counted
from finetune_eval.evaluation import _outputs
from finetune_eval.evaluation._inputs import (
    by_names,
    default_labels,
    holds_names,
    label_names,
    labels_of_file,
    read_probabilities,
    row_weights,
    true_labels,
)
from finetune_eval.evaluation._result import ClassScore, Evaluation
from finetune_eval.evaluation._scorer import Options, Scorer
from finetune_eval.evaluation._trust import LeakScores, pair_of_rows
from finetune_eval.evaluation.baselines import (
    FROZEN,
    MAJORITY,
    TFIDF,
    Baseline,
    compare_with_baseline,
    feature_probabilities,
    majority_probabilities,
    tfidf_probabilities,
)
from finetune_eval.evaluation.lockbox import look
from finetune_eval.evaluation.metrics import resolve_average
from finetune_eval.evaluation.thresholds import Threshold

__all__ = ["ClassScore", "Evaluation", "evaluate", "evaluate_predictions", "load_predictions"]

TASKS = ("classification", "multilabel")
_TRUTH = ("label", "y_true", "target")  # what a file may call its column of labels


def evaluate(model: Any, x: Any, y: Any = None, **options: Any) -> Evaluation:
    """Score a model on rows it has not seen: one forward pass, nothing trained, nothing changed.

    Everything is checked before the pass. The loss is the mean log-loss: `model.evaluate`'s, where the model
    was compiled with a plain cross-entropy (without sample weights and without regularisation terms).

    Args:
        model: A model of this library, or any Keras classifier: softmax or sigmoid outputs, or logits where
            its loss says `from_logits=True`. Anything with a `predict` that returns probabilities and with
            `labels` will do.
        x: The rows: texts, or what else the model's `predict` takes.
        y: (n,) class indices or class names, or (n, K) one-hot.
        **options: `batch_size` (rows in a batch of `predict`) and any keyword of `evaluate_predictions`
            (`labels`, `threshold` and `task` are the model's own where it has them; `texts` is `x` where
            that is texts).

    Returns:
        The evaluation.

    Raises:
        ValueError: `y` is missing or does not fit, or the model's outputs cannot be read as probabilities.
        TypeError: A keyword is unknown, or `x` is a dataset that cannot be paired with `y`.

    Example:
        >>> class Coin:
        ...     labels = ("tails", "heads")
        ...     def predict(self, x):
        ...         return np.full((len(x), 2), 0.5)
        >>> evaluate(Coin(), ["a", "b", "c", "d"], [0, 0, 1, 1]).accuracy
        0.5
    """
    batch_size = options.pop("batch_size", None)
    known = [name for name in inspect.signature(evaluate_predictions).parameters][2:]
    for name in options:
        if name not in known:
            raise TypeError(f"evaluate has no keyword {name!r}.{_checks.nearest(name, known)}")
    if y is None:
        raise ValueError("`y` is missing: evaluate needs the true label of each row of `x`.")
    if hasattr(x, "element_spec"):
        raise TypeError(
            "`x` is a tf.data.Dataset, which may come in another order each time; "
            "pass the rows and their labels as arrays."
        )
    if batch_size is not None:
        batch_size = _checks.positive_int("batch_size", batch_size)
    task = options.setdefault("task", getattr(model, "task", None) or "classification")
    options.setdefault("threshold", getattr(model, "threshold", None))
    labels = options.get("labels") or getattr(model, "labels", None)
    columns = _outputs.output_columns(model)
    if labels is None and columns is not None:
        labels = default_labels(2 if columns == 1 and task == "classification" else columns)
    rows = _rows(x)
    _checks.not_empty("x", rows)
    _checks.same_length("x", rows, "y", y)
    if labels is not None:
        options["labels"] = labels = label_names(labels)
        true_labels("y", y, labels, task)
    texts = _texts(x)
    if texts is not None:
        options.setdefault("texts", texts)
    elif isinstance(rows, np.ndarray) and rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0])
        raise ValueError(f"`x` has a NaN or an infinity in row {row}; drop the row or fill it.")
    _check_options(len(rows), labels, options)
    output = _predict(model, x if hasattr(model, "labels") else _keras_input(x), batch_size)
    if isinstance(output, np.ndarray) and len(output) != len(rows):
        raise ValueError(
            f"`model.predict` gave {counted(len(output), 'row')} for {counted(len(rows), 'row')} of `x`."
        )
    probabilities = _outputs.probabilities_of(model, output, task=task)
    contents = rows if texts is None and not isinstance(x, dict) else None
    note = _outputs.loss_note(model)
    return _evaluate(y, probabilities, options, contents=contents, note=note)


def _predict(model: Any, x: Any, batch_size: int | None) -> Any:
    """Call `model.predict` once, silently, with the keywords it knows."""
    parameters = inspect.signature(model.predict).parameters
    wanted = {"verbose": 0, "batch_size": batch_size}
    keywords = {name: value for name, value in wanted.items() if name in parameters and value is not None}
    return model.predict(x, **keywords)


def _rows(x: Any) -> Any:
    """Return something whose length is the number of rows."""
    if isinstance(x, dict):
        if not x:
            raise ValueError("`x` is an empty dictionary; pass one array for each input of the model.")
        return next(iter(x.values()))
    if hasattr(x, "__len__"):
        return np.asarray(x) if type(x).__module__.startswith("tensorflow") else x
    raise TypeError(f"`x` must be rows with a length (list, array, Series); got {type(x).__name__}.")


def _texts(x: Any) -> Any:
    """Return `x` where it is one text a row, else None."""
    if isinstance(x, dict) or getattr(x, "ndim", 1) != 1:
        return None
    first = x.iloc[0] if hasattr(x, "iloc") else x[0]
    return x if isinstance(first, (str, bytes)) else None


def _keras_input(x: Any) -> Any:
    """Return rows in a form that Keras takes: a list of texts is refused by it, an object array is not."""
    if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype.kind == "U"):
        array = np.asarray(x)
        return array.astype(object) if array.dtype.kind == "U" else array
    return x


def evaluate_predictions(
    y_true: Any,
    probabilities: Any,
    *,
    labels: Sequence[str] | None = None,
    ids: Any = None,
    texts: Any = None,
    groups: Any = None,
    metadata: Any = None,
    sample_weight: Any = None,
    average: str = "auto",
    confidence: float = 0.95,
    threshold: float | Threshold | None = None,
    task: str = "classification",
    train: Any = None,
    features: Any = None,
    baselines: bool = True,
    lockbox: bool | str | Path | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Score predicted probabilities against the truth, from any model of any framework.

    Args:
        y_true: (n,) class indices in [0, K) or class names, or (n, K) one-hot. Multilabel: (n, K) zeros and
            ones.
        probabilities: (n, K) in [0, 1], rows summing to 1; or (n,) or (n, 1) probabilities of the second of
            two classes. A DataFrame's column names are the labels. Multilabel: rows need not sum to 1.
        labels: The K class names, in the order of the columns; the default is "0", "1", .... Needed where
            `y_true` holds names. A DataFrame with the same names in another order is put into this one.
        ids: (n,) names of the rows; the default is 0 to n - 1.
        texts: (n,) the rows themselves: kept beside the predictions, and looked at for duplicates.
        groups: (n,) which rows belong together (several of one customer): groups are resampled, not rows.
        metadata: DataFrame (or dictionary of columns) of n rows: what else is known of them, to look for
            weak slices in.
        sample_weight: (n,) weights, not negative; every metric becomes the weighted one (the loss divided by
            the sum of the weights).
        average: Of precision, recall and F1: "auto" (two classes: the second one; more: macro), "binary",
            "macro", "micro" or "weighted".
        confidence: Nominal coverage of the intervals, in (0, 1).
        threshold: Predict the second of two classes from this probability on, in (0, 1), or what
            `choose_threshold` found on validation rows. None: the most probable class; of equal ones the
            first. Multilabel: every label from this probability on; None is 0.5.
        task: "classification" or "multilabel".
        train: The training rows as a pair (x, y), such as `dataset.train`, or the folder of a run, which
            keeps them. Test rows that may be among them are looked for, and the scores are given without them
            too; TF-IDF + logistic regression is fitted on them as a baseline. `texts` must be given for
            either.
        features: A function from rows to (rows, d) numbers, such as `pretrained_features(model)`: what the
            backbone gave before it was fine-tuned; or a pair of arrays, (m, d) of the training rows and
            (n, d) of these. A logistic regression on them is one more baseline.
        baselines: Compare with simple models, of which the majority class is always one.
        lockbox: Count this look at the rows: True (in the folder FINETUNE_EVAL_HOME, or
            ~/.cache/finetune_eval), or a folder. None: nothing is written.
        n_resamples: Bootstrap resamples, at least 100.
        seed: Their seed.

    Returns:
        The evaluation.

    Raises:
        ValueError: Shapes, labels or probabilities do not fit; the sentence names the first such row.
        FileNotFoundError: `train` is a folder that keeps no training rows.

    Example:
        >>> result = evaluate_predictions([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.3], labels=["ham", "spam"])
        >>> result.accuracy, round(result.loss, 4), result["recall"].value
        (0.75, 0.4004, 0.5)
    """
    options = dict(locals())
    del options["y_true"], options["probabilities"]
    return _evaluate(y_true, probabilities, options)


def _evaluate(
    y_true: Any,
    probabilities: Any,
    options: dict[str, Any],
    *,
    contents: Any = None,
    note: str | None = None,
    scores_only: bool = False,
) -> Evaluation:
    """Check everything, score, and add what needs more than the probabilities.

    Args:
        y_true: As in `evaluate_predictions`.
        probabilities: As in `evaluate_predictions`.
        options: Its keywords.
        contents: (n, ...) the rows as numbers, where they are no texts; they are hashed and looked for in the
            training rows.
        note: One more warning.
        scores_only: The main metrics only; no calibration, slices, baselines or anything else.
    """
    p, named = read_probabilities(probabilities, options.get("task", "classification"))
    labels = options.get("labels")
    if labels is None:
        if named is None and holds_names(y_true):
            raise ValueError(
                "`labels` is needed when `y_true` holds class names: which column of `probabilities` is "
                "which class? Pass labels=[...] in the order of the columns."
            )
        labels = named or default_labels(p.shape[1])
    names = label_names(labels)
    if len(names) != p.shape[1]:
        raise ValueError(
            f"`probabilities` must have one column for each of the {len(names)} labels "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); got shape {p.shape}."
        )
    _checks.not_empty("y_true", y_true if y_true is not None else [0])
    if named is not None and set(named) == set(names):
        p = p if named == names else p[:, [named.index(name) for name in names]]
        if options.get("task", "classification") == "classification":
            y_true = by_names(y_true, names)
    y = true_labels("y_true", y_true, names, options.get("task", "classification"))
    _checks.same_length("y_true", y, "probabilities", p)
    checked = _check_options(len(p), names, options)
    content = checked.texts if contents is None else contents
    if callable(checked.features) and content is None:
        raise ValueError("`features` as a function needs the rows: pass `texts`, or a pair of arrays.")
    scorer = Scorer(y, p, names, checked)
    result = scorer.evaluation(full=not scores_only)
    if scores_only:
        return result
    result = dataclasses.replace(result, calibration=scorer.calibration(), slices=scorer.slices())
    changes: dict[str, Any] = {}
    if contents is not None:
        from finetune_eval.data.ledger import rows_hash

        changes["rows_hash"] = rows_hash(np.asarray(contents), y)
        changes["identified"] = True
    if note is not None:
        changes["warnings"] = (*result.warnings, note)
    result = dataclasses.replace(result, **changes)
    changes = {}
    if checked.train is not None:
        changes["leaks"] = _leaks(scorer, content)
    if options.get("baselines", True) and checked.task == "classification":
        changes["baselines"] = tuple(_baselines(result, scorer, content))
    lockbox = options.get("lockbox")
    if lockbox is not None and lockbox is not False:
        changes["looks"] = look(result, None if lockbox is True else lockbox)
    return dataclasses.replace(result, **changes)


def score_only(y_true: Any, probabilities: Any, **options: Any) -> Evaluation:
    """Score predictions and nothing else, for the inside of the library: cheap."""
    return _evaluate(y_true, probabilities, options, scores_only=True)


def _leaks(scorer: Scorer, rows: Any) -> LeakScores | None:
    """Look for the test rows among the training rows; score without those that are there."""
    if rows is None:
        return None
    from finetune_eval.data.leakage import find_leaks

    assert scorer.options.train is not None
    found = find_leaks(scorer.options.train[0], rows)
    clean = np.asarray(found.clean_rows)
    return LeakScores(
        n_train=found.n_train,
        n_test=found.n_test,
        counts=found.counts,
        rows=tuple(np.asarray(found.test_rows).tolist()),
        examples=tuple(found.examples),
        without=scorer.of(clean).estimates() if len(found) and len(clean) else {},
    )


def _baselines(result: Evaluation, scorer: Scorer, content: Any) -> Iterator[Baseline]:
    options, classes = scorer.options, len(result.labels)

    def compared(name: str, probabilities: Any) -> Baseline:
        return compare_with_baseline(
            result,
            name,
            probabilities,
            groups=options.groups,
            n_resamples=options.n_resamples,
            seed=options.seed,
        )

    if options.train is None:
        yield compared(MAJORITY, majority_probabilities(scorer.y, result.n, classes))
        return
    x_train, y_train = options.train
    yield compared(MAJORITY, majority_probabilities(y_train, result.n, classes))
    if options.texts is not None:
        yield compared(TFIDF, tfidf_probabilities(x_train, y_train, options.texts, classes=classes))
    if options.features is not None:
        given = options.features
        train_features, features = (given(x_train), given(content)) if callable(given) else given
        yield compared(FROZEN, feature_probabilities(train_features, y_train, features, classes=classes))


def _check_options(n: int, labels: tuple[str, ...] | None, options: dict[str, Any]) -> Options:
    """Check what does not depend on the probabilities, so that nothing slow runs in vain."""
    task = options.get("task", "classification")
    _checks.one_of("task", task, TASKS)
    average = options.get("average", "auto")
    if labels is not None:
        if task == "multilabel":
            _checks.one_of("average", average, ("auto", "macro", "micro", "weighted"))
            average = "macro" if average == "auto" else average
        else:
            average = resolve_average(average, len(labels))
    threshold = options.get("threshold")
    chosen = threshold if isinstance(threshold, Threshold) else None
    if threshold is not None:
        threshold = threshold.value if chosen else threshold
        threshold = _checks.number("threshold", threshold, above=0, below=1)
        if task == "classification" and labels is not None and len(labels) != 2:
            raise ValueError(
                f"`threshold` needs exactly two classes (or task='multilabel'); got {len(labels)} classes."
            )
    per_row: dict[str, Any] = {}
    for name in ("ids", "texts", "groups", "sample_weight"):
        values = options.get(name)
        if values is not None:
            if isinstance(values, (str, bytes)):
                raise TypeError(
                    f"`{name}` must be one value for each row; got a single {type(values).__name__}."
                )
            if len(values) != n:
                raise ValueError(f"`{name}` must have one value for each of the {n} rows; got {len(values)}.")
        per_row[name] = values
    train, features = _training_rows(options.get("train"), options.get("features"), labels, n)
    groups = per_row["groups"]
    if groups is not None:
        import pandas as pd

        array = np.asarray(groups)
        groups = pd.factorize(array, sort=True)[0].astype(np.int64)
        missing = np.flatnonzero((groups < 0) | (array.astype(object) == ""))
        if missing.size:
            raise ValueError(f"`groups` has no group in row {missing[0]}; give every row one.")
        if groups.max() == 0:
            raise ValueError("`groups` puts every row in one group; at least two groups are needed.")
    texts = per_row["texts"]
    if texts is not None:
        texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"`texts` must be texts; row {row} is {text!r} ({type(text).__name__}).")
            try:
                text.encode()
            except UnicodeEncodeError as error:  # as JSON with half of an emoji gives it
                raise ValueError(
                    f"`texts` must be whole characters; row {row} holds {text[error.start]!r}, half of one."
                ) from None
    return Options(
        average=average,
        chosen=chosen,
        train=train,
        features=features,
        confidence=_checks.number("confidence", options.get("confidence", 0.95), above=0, below=1),
        groups=groups,
        ids=per_row["ids"],
        metadata=_metadata(options.get("metadata"), n),
        n_resamples=_checks.positive_int("n_resamples", options.get("n_resamples", 2000), minimum=100),
        seed=_checks.positive_int("seed", options.get("seed", 0), minimum=0),
        task=task,
        texts=texts,
        threshold=threshold,
        weights=None if per_row["sample_weight"] is None else row_weights(per_row["sample_weight"]),
    )


def _metadata(values: Any, n: int) -> Any:
    if values is None:
        return None
    columns = values if isinstance(values, dict) or hasattr(values, "columns") else None
    if columns is None:
        raise TypeError(
            f"`metadata` must be a DataFrame or a dictionary of columns; got {type(values).__name__}."
        )
    for name in columns:
        if len(columns[name]) != n:
            raise ValueError(
                f"`metadata` must have one value for each of the {n} rows; column {name!r} has "
                f"{len(columns[name])}."
            )
    return values


def _training_rows(
    train: Any, features: Any, labels: tuple[str, ...] | None, n: int
) -> tuple[tuple[Any, NDArray[np.int64]] | None, Any]:
    if train is None:
        if features is not None:
            raise ValueError("`features` needs `train`, the labels of the training rows: pass train=(x, y).")
        return None, None
    x, y = pair_of_rows(train)
    indices = np.empty(0, dtype=np.int64) if labels is None else _checks.label_indices("train", y, labels)
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


def load_predictions(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
    **options: Any,
) -> Evaluation:
    """Score a file of predictions, from any framework.

    A row for each row that was predicted, in CSV, Parquet or JSON Lines. Columns: `label` (or `y_true`,
    `target`), the truth as a class name, or as the class's place where no class has that name; a probability
    for each class, `p_<class>`, or, for two classes, one column `probability` (or `score`, `p`) of the second
    (`labels` is then needed where the truth is class names). Multilabel: a column `y_<class>` of zeros and
    ones for each class, or (task="multilabel") `label` with the names of all that are true between " + ".
    `id`, `text`, `group` and `weight` are used where they are there. `predictions.parquet` of a run is such a
    file.

    Args:
        path: The file; its name ends in .csv, .tsv, .jsonl, .ndjson, .json or .parquet.
        encoding: Of a text file, as in `load_dataset`.
        delimiter: Of a CSV file; None is a tab for .tsv and a comma otherwise.
        quoted: Whether quotes in a CSV file enclose fields.
        **options: Keywords of `evaluate_predictions`; they go before what the file holds. `labels` puts the
            classes into another order; other names than the file's are for columns `p_0`, `p_1`, ... only.

    Returns:
        The evaluation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The ending is unknown, the file cannot be read, or a column is missing.
    """
    from finetune_eval.data.sources import read_table

    path = Path(path)
    texts = {*_TRUTH, "prediction", "text", "group"}
    frame = read_table(path, texts, encoding=encoding, delimiter=delimiter, quoted=quoted)
    truth = _first_column(frame, _TRUTH)
    ones = [f"y_{str(name).removeprefix('p_')}" for name in frame.columns if str(name).startswith("p_")]
    if truth is None and ones and set(ones) <= set(frame.columns):
        options["task"] = "multilabel"
    elif truth is None:
        raise ValueError(
            f"{str(path)!r} needs a column 'label' (or 'y_true', 'target') with the truth; it has "
            f"{', '.join(map(repr, map(str, frame.columns)))}."
        )
    classes = [str(name) for name in frame.columns if str(name).startswith("p_")]
    one = _first_column(frame, ("probability", "score", "p"))
    if classes:
        probabilities: Any = frame[classes]
        names: Any = tuple(name.removeprefix("p_") for name in classes)
    elif one is not None:
        probabilities = frame[one].to_numpy()
        names = None  # class names then need `labels`: which of them the column is of must not be guessed
    else:
        raise ValueError(
            f"{str(path)!r} needs a column p_<class> for each class, or a column 'probability' of the second "
            f"of two; it has {', '.join(map(repr, map(str, frame.columns)))}."
        )
    y: Any = None
    if truth is not None:
        y = frame[truth].astype(object).where(frame[truth].notna(), None).to_numpy()
    given = label_names(options.get("labels") or names or ())
    if names and set(given) != set(names) and names != default_labels(len(names)):
        raise ValueError(
            f"`labels` must name the classes of {str(path)!r}, {', '.join(names)}; got {', '.join(given)}."
        )
    if options.get("task", "classification") == "classification":
        y = labels_of_file(y, given)
    elif truth is None:
        y = frame[[f"y_{name}" for name in (given if set(given) == set(names) else names)]].to_numpy()
    else:
        y = _joined_labels(y, given, names)
    found = {"labels": names, "texts": "text", "ids": "id", "groups": "group", "sample_weight": "weight"}
    for keyword, column in found.items():
        if keyword == "labels":
            options.setdefault(keyword, column)
        elif column in frame:
            options.setdefault(keyword, frame[column].to_numpy())
    result = evaluate_predictions(y, probabilities, **options)
    if "prediction" in frame:
        differ = int((frame["prediction"].astype(str).to_numpy() != result.predictions["prediction"]).sum())
        if differ:
            warning = (
                f"In {differ:,} of {counted(result.n, 'row')} the file's column 'prediction' names "
                "another class than "
                "the probabilities do here: was there a threshold? The scores are of the probabilities."
            )
            result = dataclasses.replace(result, warnings=(*result.warnings, warning))
    return result


def _joined_labels(words: Any, given: tuple[str, ...], names: Any) -> NDArray[np.int64]:
    """Return (n, K) zeros and ones of texts such as "angry + late", as `Evaluation.predictions` has them."""
    if not names:
        raise ValueError("task='multilabel' needs a column p_<class> for each class.")
    index = {name: k for k, name in enumerate(given)}
    out = np.zeros((len(words), len(given)), dtype=np.int64)
    for row, word in enumerate(words):
        for name in str(word or "").split(" + ") if word else ():
            if name not in index:
                raise ValueError(
                    f"`label` has an unknown label {name!r} in row {row}; the labels are "
                    f"{', '.join(map(repr, given))}.{_checks.nearest(name, given)}"
                )
            out[row, index[name]] = 1
    return out


def _first_column(frame: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame), None)
