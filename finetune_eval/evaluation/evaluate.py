"""Score a model once, and say how sure one can be of every number.

`evaluate` calls `model.predict` once and hands the probabilities to `evaluate_predictions`, which needs
neither a model nor TensorFlow.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _pairs, _rows
from finetune_eval._columns import Columns, are_columns, as_lines, text_of
from finetune_eval._text import counted, listed
from finetune_eval.data.leakage import find_leaks
from finetune_eval.data.ledger import rows_hash
from finetune_eval.data.pipelines import collected, gives_batches, refuse_beside
from finetune_eval.data.splits import Rows
from finetune_eval.evaluation import _outputs
from finetune_eval.evaluation._options import TASKS, Asked, checked_options
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation._scorer import Scorer, scorer_of
from finetune_eval.evaluation._trust import about_unseen
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.evaluation.baselines import (
    compare_with_baseline,
    feature_probabilities,
    majority_probabilities,
    tfidf_probabilities,
)
from finetune_eval.evaluation.label_thresholds import LabelThresholds
from finetune_eval.evaluation.lockbox import look, not_counted
from finetune_eval.evaluation.records import FROZEN, MAJORITY, TFIDF, Baseline, ClassScore, LeakScores
from finetune_eval.evaluation.thresholds import Threshold

__all__ = ["ClassScore", "Evaluation", "evaluate", "evaluate_predictions"]


def evaluate(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
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
    """Score a model on rows it has not seen: one forward pass, nothing trained, nothing changed.

    Everything is checked before the pass. The loss is the mean log-loss: `model.evaluate`'s, where the model
    was compiled with a plain cross-entropy (without sample weights and without regularisation terms).

    Args:
        model: A model of this library, or any Keras classifier: softmax or sigmoid outputs, or logits where
            its loss says `from_logits=True`. Anything with a `predict` that returns probabilities and with
            `labels` will do.
        x: The rows: texts, pairs of texts, or what else the model's `predict` takes; or a `tf.data` or
            `PyDataset` pipeline of batches `(x, y)` or `(x, y, weights)`, which is read once.
        y: (n,) class indices or class names, or (n, K) one-hot; None for a pipeline.
        batch_size: Rows in a batch of `predict`.
        labels: The class names; None: the model's own.
        ids: As for `evaluate_predictions`.
        texts: As for `evaluate_predictions`; None: `x`, where that is texts.
        groups: As for `evaluate_predictions`.
        metadata: As for `evaluate_predictions`.
        sample_weight: As for `evaluate_predictions`.
        average: As for `evaluate_predictions`.
        metrics: As for `evaluate_predictions`.
        confidence: As for `evaluate_predictions`.
        threshold: As for `evaluate_predictions`; None: the model's own.
        abstention: As for `evaluate_predictions`; None: the model's own, with its threshold.
        task: "classification" or "multilabel"; None: the model's own.
        train: As for `evaluate_predictions`.
        features: As for `evaluate_predictions`.
        baselines: As for `evaluate_predictions`.
        lockbox: As for `evaluate_predictions`.
        n_resamples: As for `evaluate_predictions`.
        seed: As for `evaluate_predictions`.

    Returns:
        The evaluation.

    Raises:
        ValueError: `y` is missing or does not fit, or the model's outputs cannot be read as probabilities.
        TypeError: `x` is no collection of rows.

    Example:
        >>> class Coin:
        ...     labels = ("tails", "heads")
        ...     def predict(self, x):
        ...         return np.full((len(x), 2), 0.5)
        >>> evaluate(Coin(), ["a", "b", "c", "d"], [0, 0, 1, 1]).accuracy
        0.5
    """
    if batch_size is not None:
        batch_size = _checks.positive_int("batch_size", batch_size)
    if gives_batches(x):
        refuse_beside("x", x, y=y, sample_weight=sample_weight)
        x, y, sample_weight = collected("x", x)
    if not callable(getattr(model, "predict", None)):
        raise TypeError(
            f"`model` must have a `predict` that gives probabilities; got {type(model).__name__}."
        )
    if y is None:
        raise ValueError("`y` is missing: evaluate needs the true label of each row of `x`.")
    task = task or getattr(model, "task", None) or "classification"
    _checks.one_of("task", task, TASKS)
    names = _labels_of_model(model, labels, task)
    x, texts, train, known = _as_read(getattr(model, "columns", None), x, y, texts, train)
    rows = _rows_of(x)
    _checks.not_empty("x", rows)
    _checks.same_length("x", rows, "y", _rows.column("y", y))
    _rows.same_order(x=x, y=y)
    if names is not None:
        (_labels.read_many if task == "multilabel" else _labels.read)("y", y, names)
    if texts is None and (_rows.are_texts(x) or _pairs.are_pairs(x)):
        texts = x
    elif isinstance(rows, np.ndarray) and rows.dtype.kind == "f":
        _rows.numbers("x", rows)
    abstention, not_withheld = _abstention_of(model, threshold, abstention)
    asked = Asked(
        labels=names,
        ids=ids,
        texts=texts,
        groups=groups,
        metadata=metadata,
        sample_weight=sample_weight,
        average=average,
        metrics=metrics,
        confidence=confidence,
        threshold=getattr(model, "threshold", None) if threshold is None else threshold,
        abstention=abstention,
        task=task,
        train=train,
        features=features,
        baselines=baselines,
        lockbox=lockbox,
        n_resamples=n_resamples,
        seed=seed,
        beside=as_lines(rows[list(rows.dtype.names[1:])]) if are_columns(rows) else None,
    )
    contents = rows if texts is None and not isinstance(x, dict) else None
    checked_options(len(rows), names, asked, contents=contents)
    output, cut = _predict(model, x if hasattr(model, "labels") else _keras_input(x), batch_size)
    if isinstance(output, np.ndarray) and len(output) != len(rows):
        raise ValueError(
            f"`model.predict` gave {counted(len(output), 'row')} for {counted(len(rows), 'row')} of `x`."
        )
    probabilities = _outputs.probabilities_of(model, output, task=task)
    note = _outputs.loss_note(model)
    notes = (*cut, *known, *(() if note is None else (note,)), *not_withheld)
    return _evaluate(y, probabilities, asked, contents=contents, notes=notes)


def _as_read(columns: Any, x: Any, y: Any, texts: Any, train: Any) -> tuple[Any, ...]:
    """Return the rows, of pairs and of columns as arrays; texts, training rows; and what to know of columns.

    Of rows of columns the texts and the training rows are their texts alone.
    """
    if are_columns(x) and not isinstance(columns, Columns):
        columns = Columns.of_rows(x)
    if not isinstance(columns, Columns):
        if _pairs.are_pairs(x):
            _rows.same_order(x=x, y=y)
            x = _pairs.pairs("x", x)
        return x, texts, train, ()
    _rows.same_order(x=x, y=y)
    x = columns.read("x", x)
    texts = text_of(x) if texts is None else texts
    if train is None:
        return x, texts, train, ()
    if not isinstance(train, (str, Path)):
        parts = tuple(train) if isinstance(train, (tuple, list, Rows)) else ()
        if len(parts) == 2 and not _rows.are_texts(parts[0]):
            train = text_of(columns.read("train x", parts[0])), parts[1]
    others = listed(columns.names[1:])
    note = (
        f"The baselines and the search for leaks read the texts alone; the model reads {others} too. A row "
        "whose text is among the training rows counts as a leak whatever its columns are."
    )
    return x, texts, train, (note,)


def _abstention_of(model: Any, threshold: Any, abstention: Any) -> tuple[Any, tuple[str, ...]]:
    """Return from which confidence on rows are answered, and a note where the model's own does not count."""
    own = getattr(model, "abstention", None)
    if own is None or abstention is not None:
        return abstention, ()
    if threshold is None:
        return own, ()
    note = (
        "The model withholds unsure answers of its own threshold; with the one given here it withholds none."
    )
    return None, (note,)


def _labels_of_model(model: Any, labels: Any, task: str) -> tuple[str, ...] | None:
    """Return the class names that the caller or the model gives; of a model without any, "0", "1", ..."""
    if labels is None:
        labels = getattr(model, "labels", None)
    if labels is not None:
        return _labels.class_names(labels)
    columns = _outputs.output_columns(model)
    if columns is None:
        return None
    return _labels.default_names(2 if columns == 1 and task == "classification" else columns)


def _predict(model: Any, x: Any, batch_size: int | None) -> tuple[Any, tuple[str, ...]]:
    """Call `model.predict` once, with the keywords it knows; return its warnings of cut texts, too."""
    parameters = inspect.signature(model.predict).parameters
    wanted = {"verbose": 0, "batch_size": batch_size}
    keywords = {name: value for name, value in wanted.items() if name in parameters and value is not None}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", _checks.TextsCut)
        output = model.predict(x, **keywords)
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return output, tuple(str(w.message) for w in caught if issubclass(w.category, _checks.TextsCut))


def _rows_of(x: Any) -> Any:
    """Return something whose length is the number of rows."""
    if isinstance(x, dict):
        if not x:
            raise ValueError("`x` is an empty dictionary; pass one array for each input of the model.")
        lengths = {key: len(values) for key, values in x.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`x` must have as many rows for each input of the model; got {lengths}.")
        return next(iter(x.values()))
    return _rows.column("x", x)


def _keras_input(x: Any) -> Any:
    """Return rows in a form that Keras takes: a list of texts is refused by it, an object array is not."""
    if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype.kind == "U"):
        array = np.asarray(x)
        return array.astype(object) if array.dtype.kind == "U" else array
    return x


def evaluate_predictions(
    y_true: Any,
    probabilities: Any = None,
    *,
    predicted: Any = None,
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
    task: str = "classification",
    train: Any = None,
    features: Any = None,
    baselines: bool = True,
    lockbox: bool | str | Path | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Score predicted probabilities, or answers without any, against the truth: from any model.

    Exactly one of `probabilities` and `predicted` is given. Answers without probabilities, such as the words
    of a language model, have no log-loss, Brier score, AUC, calibration, threshold or possible label errors.
    An answer must match a label exactly once the white space around it is removed. Every other answer (a
    sentence, another case, a missing value) counts as wrong and is kept in `no_label`.

    Args:
        y_true: (n,) class indices in [0, K) or class names, or (n, K) one-hot. Multilabel: (n, K) zeros and
            ones.
        probabilities: (n, K) in [0, 1], rows summing to 1; or (n,) or (n, 1) probabilities of the second of
            two classes. A DataFrame's column names are the labels. Multilabel: rows need not sum to 1.
        predicted: (n,) the answers of a model that gives no probabilities: class names or class indices.
            Multilabel: (n, K) zeros and ones.
        labels: The K class names, in the order of the columns; the default is "0", "1", .... Needed where
            `y_true` holds names. A DataFrame with the same names in another order is put into this one.
            With `predicted` the default is the classes that occur in `y_true`.
        ids: (n,) names of the rows; the default is 0 to n - 1.
        texts: (n,) the rows themselves, or (n, 2) where a row is a pair: kept beside the predictions, and
            looked at for duplicates. A pair is kept, and read by TF-IDF, as one text, "first ||| second".
        groups: (n,) which rows belong together (several of one customer): groups are resampled, not rows.
        metadata: DataFrame (or dictionary of columns) of n rows: what else is known of them, to look for
            weak slices in.
        sample_weight: (n,) weights, not negative; every metric becomes the weighted one (the loss divided by
            the sum of the weights).
        average: Of precision, recall and F1: "auto" (two classes: the second one; more: macro), "binary",
            "macro", "micro" or "weighted".
        metrics: Further metrics: "f0.5", "f2"; of two classes "specificity" and "npv" (recall and precision
            of the first class); "top_2_accuracy" (or 3, 5, 10); of classes that `labels` gives in their order
            "linear_kappa" and "quadratic_kappa"; of multilabel rows "hamming" and "samples_f1".
        confidence: Nominal coverage of the intervals, in (0, 1).
        threshold: Predict the second of two classes from this probability on, in (0, 1), or what
            `choose_threshold` found on validation rows. None: the most probable class; of equal ones the
            first. Multilabel: every label from this probability on, or a list with that of each label, or
            what `choose_label_thresholds` found; None is 0.5.
        abstention: Withhold answers below this confidence (the probability of the class that is answered), in
            [0, 1), or what `choose_abstention` found on validation rows. `answered` is then of the rows that
            are answered; all other scores count every row.
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
        >>> words = ["ham", "spam", "This looks like spam.", "ham"]
        >>> result = evaluate_predictions([0, 1, 1, 0], predicted=words, labels=["ham", "spam"])
        >>> result.accuracy, result.no_label.examples
        (0.75, (('This looks like spam.', 1),))
    """
    asked = Asked(
        predicted=predicted,
        labels=labels,
        ids=ids,
        texts=texts,
        groups=groups,
        metadata=metadata,
        sample_weight=sample_weight,
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
    return _evaluate(y_true, probabilities, asked)


def _evaluate(
    y_true: Any,
    probabilities: Any,
    asked: Asked,
    *,
    contents: Any = None,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Check everything, score, and add what needs more than the probabilities.

    Args:
        y_true: As in `evaluate_predictions`.
        probabilities: As in `evaluate_predictions`.
        asked: Its keywords.
        contents: (n, ...) the rows as numbers, where they are no texts; they are hashed and looked for in the
            training rows.
        notes: More warnings.
    """
    scorer, rounded = scorer_of(y_true, probabilities, asked, contents=contents)
    checked, y = scorer.options, scorer.y
    result = scorer.evaluation()
    warnings = [*result.warnings, *_repeated_ids(checked.ids, y), *rounded, *notes]
    if checked.train is not None:
        warnings += about_unseen(checked.train[1], y, result.labels, checked.weights)
    slices, search = scorer.slices()
    result = dataclasses.replace(
        result,
        calibration=scorer.calibration(),
        slices=slices,
        slice_search=search,
        warnings=tuple(warnings),
    )
    if contents is not None:
        result = dataclasses.replace(result, rows_hash=rows_hash(np.asarray(contents), y), identified=True)
    content = checked.texts if contents is None else contents
    changes: dict[str, Any] = {}
    if checked.train is not None:
        changes["leaks"] = _leaks(scorer, content)
    if asked.baselines and checked.task == "classification":
        changes["baselines"] = tuple(_baselines(result, scorer, content))
    if asked.lockbox is not None and asked.lockbox is not False:
        try:
            changes["looks"] = look(result, None if asked.lockbox is True else asked.lockbox)
        except OSError as error:  # a score that was paid for is not lost for it
            changes["warnings"] = (*result.warnings, not_counted(error))
    return dataclasses.replace(result, **changes)


def _repeated_ids(ids: Any, y: NDArray[np.int64]) -> list[str]:
    """Say how many rows repeat another's id, as those do that pad a distributed sampler's last batch."""
    if ids is None:
        return []
    labels_of: dict[Any, set[bytes]] = {}
    for name, label in zip(ids.tolist(), y, strict=True):
        labels_of.setdefault(name, set()).add(label.tobytes())
    extra = len(y) - len(labels_of)
    if not extra:
        return []
    verb = "repeats the id" if extra == 1 else "repeat the ids"
    split = sum(len(labels) > 1 for labels in labels_of.values())
    have = "has" if split == 1 else "have"
    contradict = f"; {counted(split, 'id')} {have} more than one label" if split else ""
    return [f"{extra:,} of {counted(len(y), 'row')} {verb} of other rows and count twice{contradict}."]


def _leaks(scorer: Scorer, rows: Any) -> LeakScores | None:
    """Look for the test rows among the training rows; score without those that are there."""
    if rows is None:
        return None
    assert scorer.options.train is not None
    found = find_leaks(scorer.options.train[0], rows)
    clean, weights = np.asarray(found.clean_rows, dtype=np.int64), scorer.options.weights
    left = len(clean) > 0 and (weights is None or bool(weights[clean].any()))
    return LeakScores(
        n_train=found.n_train,
        n_test=found.n_test,
        counts=found.counts,
        rows=tuple(np.asarray(found.test_rows).tolist()),
        examples=tuple(found.examples),
        without=scorer.of(clean).estimates() if len(found) and left else {},
        limits=found.limits,
        templates=found.templates,
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
