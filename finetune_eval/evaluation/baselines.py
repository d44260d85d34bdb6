"""Simple models on the same rows, which show whether fine-tuning helped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.data.words import units, words
from finetune_eval.evaluation._options import Asked
from finetune_eval.evaluation._scorer import score_only
from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.records import Baseline

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

__all__ = [
    "Baseline",
    "compare_with_baseline",
    "feature_probabilities",
    "majority_probabilities",
    "tfidf_probabilities",
]


def majority_probabilities(y_train: Any, n: int, classes: int) -> NDArray[np.float64]:
    """Predict every row with the class frequencies of the training rows.

    Args:
        y_train: (m,) class indices of the training rows.
        n: How many rows to predict.
        classes: The number of classes K.

    Returns:
        (n, K), every row the same; the most probable class is the most frequent one.

    Example:
        >>> majority_probabilities([0, 0, 0, 1], 2, 2).tolist()
        [[0.75, 0.25], [0.75, 0.25]]
    """
    counts = np.bincount(np.asarray(y_train, dtype=np.int64), minlength=classes)
    return np.tile(counts / counts.sum(), (n, 1))


def tfidf_probabilities(
    train_texts: Sequence[str], y_train: Any, texts: Sequence[str], *, classes: int
) -> NDArray[np.float64]:
    """Fit TF-IDF of words and word pairs with a logistic regression on the training rows, and predict.

    Where a script puts no space between words, characters, pairs and triples of characters take their place.

    Args:
        train_texts: (m,) training texts.
        y_train: (m,) their class indices.
        texts: (n,) texts to predict.
        classes: The number of classes K.

    Returns:
        (n, K) probabilities; 0 for a class that no training row has.

    Reference:
        Wang and Manning 2012, ACL: word pairs with a linear model are hard to beat on short reviews.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=terms, sublinear_tf=True)
    try:
        train = vectorizer.fit_transform(list(train_texts))
    except ValueError:  # no training text has a word
        return majority_probabilities(y_train, len(texts), classes)
    return _logistic(train, y_train, vectorizer.transform(list(texts)), classes)


def terms(text: str) -> list[str]:
    """Return the words of a text and its word pairs; where a script puts no space, its characters too."""
    found = words(text)
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(found)]
    known = set(found)
    characters = [] if text.isascii() else [unit for unit in units(text) if unit not in known]
    return found + pairs + characters


def feature_probabilities(
    train_features: Any, y_train: Any, features: Any, *, classes: int
) -> NDArray[np.float64]:
    """Fit a logistic regression on given features of the training rows, and predict.

    Args:
        train_features: (m, d) features, such as the embeddings of the backbone before it was fine-tuned.
        y_train: (m,) class indices.
        features: (n, d) the same of the rows to predict.
        classes: The number of classes K.

    Returns:
        (n, K) probabilities; 0 for a class that no training row has.

    Raises:
        ValueError: The two have different columns, or a value is not finite.
    """
    train = _matrix("train_features", train_features)
    test = _matrix("features", features)
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"`train_features` and `features` must have the same columns; got {train.shape[1]} and "
            f"{test.shape[1]}."
        )
    _checks.same_length("train_features", train, "y_train", y_train)
    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1.0
    return _logistic((train - centre) / spread, y_train, (test - centre) / spread, classes)


def _matrix(name: str, values: Any) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape (rows, columns); got {array.shape}.")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"`{name}` has a NaN or an infinity in row {row}; drop the row or fill it.")
    return array


def _logistic(train: Any, y_train: Any, test: Any, classes: int) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    y = np.asarray(y_train, dtype=np.int64)
    seen = np.unique(y)
    out = np.zeros((test.shape[0], classes))
    if len(seen) == 1:
        out[:, seen[0]] = 1.0
        return out
    # Twice the default C: the probabilities of short texts are less timid, the accuracy is the same.
    model = LogisticRegression(C=2.0, max_iter=1000)
    out[:, seen] = model.fit(train, y).predict_proba(test)
    return out


def compare_with_baseline(
    evaluation: Evaluation,
    name: str,
    probabilities: Any,
    *,
    metric: str = "accuracy",
    groups: Any = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Baseline:
    """Score a baseline on the rows of an evaluation, and compare the two row by row.

    Args:
        evaluation: What was evaluated.
        name: What to call the baseline.
        probabilities: (n, K) of the baseline, for the same rows in the same order.
        metric: The metric to compare.
        groups: (n,) group of each row, or None.
        n_resamples: Resamples of the intervals.
        seed: Their seed.

    Returns:
        The baseline with the paired comparison.

    Raises:
        ValueError: The probabilities do not fit the rows.
    """
    frame = evaluation.predictions
    asked = Asked(
        labels=evaluation.labels,
        ids=frame["id"],
        groups=groups,
        sample_weight=frame["weight"] if "weight" in frame else None,
        average=evaluation.average,
        confidence=evaluation.confidence,
        n_resamples=n_resamples,
        seed=seed,
    )
    simple = score_only(frame["label"], probabilities, asked)
    found = compare(
        evaluation,
        simple,
        metric=metric,
        alpha=1 - evaluation.confidence,
        names=("this model", name),
        groups=groups,
        n_resamples=n_resamples,
        seed=seed,
    )
    if METRICS[metric].source == "confusion" and simple.predictions["prediction"].equals(frame["prediction"]):
        verdict = f"This model gives every row the same answer as {name}."
    else:
        verdict = found.verdict[0].upper() + found.verdict[1:]
    return Baseline(name, simple.estimates, metric, found.difference, found.p_value, found.outcome, verdict)
