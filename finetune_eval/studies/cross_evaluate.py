"""cross_evaluate: every labelled row is judged by a model that never saw it, with two named intervals."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _pairs, _rows, _text
from finetune_eval.data.assignment import checked_rows
from finetune_eval.data.folds import fold_of_rows, units_of_rows
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation._options import TASKS
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation.baselines import (
    compare_with_baseline,
    feature_probabilities,
    majority_probabilities,
    tfidf_probabilities,
)
from finetune_eval.evaluation.evaluate import evaluate
from finetune_eval.evaluation.records import FROZEN, MAJORITY, TFIDF, Baseline
from finetune_eval.evaluation.thresholds import Threshold
from finetune_eval.studies.crossed import CrossEvaluation
from finetune_eval.studies.learners import Learner, learner_of, read_labels
from finetune_eval.studies.scoring import OutOfFold
from finetune_eval.studies.storage import Store, opened, packed, unpacked

__all__ = ["CrossEvaluation", "cross_evaluate"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def cross_evaluate(
    learner: Any,
    x: Any,
    y: Any,
    *,
    labels: Sequence[str] | None = None,
    task: str = "classification",
    sample_weight: Any = None,
    folds: int = 5,
    repeats: int = 1,
    groups: Any = None,
    near_duplicates: bool = True,
    recipe: Any = None,
    ids: Any = None,
    metadata: Any = None,
    features: Any = None,
    average: str = "auto",
    confidence: float = 0.95,
    threshold: float | Threshold | None = None,
    baselines: bool = True,
    keep_models: bool = False,
    run_dir: str | Path | None = None,
    workers: int = 1,
    n_resamples: int = 2000,
    seed: int = 0,
    verbose: bool = True,
) -> CrossEvaluation:
    """Judge every row by a model that never saw it: k trainings, and no row is given away for testing.

    The rows are dealt out to folds with the class shares of the whole. A fold is judged by a model that was
    trained on the others. Rows of the same text, of nearly the same text, or of the same group are in one
    fold.

    Args:
        learner: What is trained. The name or folder of a backbone: `build_model(learner, labels,
            seed=seed)`, then `fine_tune`. Or a function of one argument, the seed, that returns a fresh model
            as `build_model` makes it, to be fine-tuned here; where its whole backbone is frozen, the function
            is called once, and the features of all rows are computed once. Or a function
            `fit(x, y, seed=seed)` that returns a trained model: anything with a `predict` or a
            `predict_proba` that gives probabilities.
        x: (n,) texts, (n, d) numbers, or what `rows_of_columns` makes of a text and columns beside it.
        y: (n,) class names; or class indices where `labels` gives the names. Multilabel: (n, K) zeros and
            ones.
        labels: The class names in index order, the positive class second; None takes them from `y`, sorted
            (multilabel: from its columns).
        task: "classification" or "multilabel". Multilabel rows with the same labels are dealt out evenly.
        sample_weight: (n,) weights, not negative: of the rows in the trainings, as `fine_tune` takes them,
            and in every metric. A function fit(x, y, seed=seed, sample_weight=weights) is given those of its
            rows.
        folds: How many parts, at least 2. A model learns from all rows but one part.
        repeats: How often to deal the rows out anew. More repeats narrow the interval of the recipe.
        groups: (n,) values; rows with the same value stay together.
        near_duplicates: Whether texts that are nearly the same stay together too, as in `split`.
        recipe: The settings of `fine_tune`: the name of a recipe ("plain", "careful"), a `fe.Recipe`, or a
            dictionary of its keywords but the data, the seed and the callbacks, with "recipe" among them if
            need be; None for "plain".
        ids: As for `evaluate_predictions`.
        metadata: As for `evaluate_predictions`.
        features: (n, d) numbers of each row; a logistic regression on them is one more baseline.
        average: As for `evaluate_predictions`.
        confidence: Nominal coverage of the intervals, in (0, 1).
        threshold: As for `evaluate_predictions`; thresholds that the models carry are not used.
        baselines: Compare with simple models, fitted in the same folds; without weights, as in
            `evaluate_predictions`, and not of multilabel rows.
        keep_models: Keep the models of all folds in memory (and in `run_dir`): folds times repeats as many
            weights as one model. `ensemble` needs those of the first repeat.
        run_dir: A folder that keeps what each fold gave, whole or not at all. The same call with the same
            folder goes on with the fold in which it was cut short.
        workers: Processes that train folds at the same time, by joblib: its backends reach Ray, Dask and
            Spark. Each takes the memory of a training of its own. Not with `keep_models`.
        n_resamples: Bootstrap resamples, at least 100.
        seed: Of the folds and of the trainings, each of which has its own: seed, seed + 1, ....
        verbose: Print a line as each fold ends.

    Returns:
        The cross-evaluation: an `Evaluation` of all rows, and for each metric the two intervals.

    Raises:
        ValueError, TypeError: An argument or a row is wrong, the learner's models do not fit, or `run_dir`
            holds folds of other rows or settings; the sentence says which.
        FileExistsError: `run_dir` is in use, or holds something else.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> def fit(x, y, seed):
        ...     return LogisticRegression(random_state=seed).fit(x, y)
        >>> random = np.random.default_rng(0)
        >>> x = random.normal(size=(100, 3))
        >>> result = cross_evaluate(fit, x, (x[:, 0] > 0).astype(int), verbose=False)
        >>> result.evaluation.n, len(result.folds), result.folds[0].n_train
        (100, 5, 80)

    Reference:
        Bayle et al. 2020, NeurIPS ("Cross-validation confidence intervals for test error"); Nadeau and Bengio
        2003, Machine Learning 52:239-281.
    """
    _checks.one_of("task", task, TASKS)
    aligned = {"groups": groups, "ids": ids, "metadata": metadata, "features": features}
    _rows.same_order(x=x, y=y, sample_weight=sample_weight, **aligned)
    rows = checked_rows(x)
    _checks.same_length("x", rows, "y", _rows.column("y", y))
    places, names = read_labels(y, labels, "Pass `task='multilabel'`.", task=task)
    weights = None if sample_weight is None else _rows.weights("sample_weight", sample_weight, len(rows))
    folds = _checks.positive_int("folds", folds, minimum=2)
    repeats = _checks.positive_int("repeats", repeats)
    seed = _checks.positive_int("seed", seed, minimum=0)
    numbers = None if groups is None else _rows.groups("groups", groups, len(rows))
    near_duplicates = _checks.flag("near_duplicates", near_duplicates)
    keep_models = _checks.flag("keep_models", keep_models)
    workers = _checks.positive_int("workers", workers)
    if keep_models and workers > 1:
        raise ValueError("`keep_models` needs workers=1: models do not travel between processes.")
    baselines = _checks.flag("baselines", baselines)
    if features is not None:
        features = _rows.numbers("features", features)
        _checks.same_length("x", rows, "features", features)
        if features.ndim != 2:
            raise ValueError(f"`features` must have shape (rows, columns); got {features.shape}.")
    options = {
        "labels": names, "ids": ids, "groups": groups, "metadata": metadata, "average": average,
        "confidence": confidence, "threshold": threshold, "baselines": False, "n_resamples": n_resamples,
        "seed": seed, "task": task, "sample_weight": weights,
    }  # fmt: skip
    uniform = np.full((len(rows), len(names)), 1 / len(names))
    evaluate(_Answers(names, uniform), rows, places, **{**options, "n_resamples": 100})  # checks the options
    trained = learner_of(learner, recipe, rows, places, names, weights)
    if keep_models and not trained.saves and run_dir is not None:
        raise ValueError("`keep_models` with `run_dir` needs Keras models; `learner` fits models of its own.")
    units, sentences = units_of_rows(rows, groups=numbers, near_duplicates=near_duplicates)
    sentences += _of_the_text_alone(rows) if baselines and task == "classification" else []
    alike = places if places.ndim == 1 else np.unique(places, axis=0, return_inverse=True)[1].ravel()
    dealt = partial(fold_of_rows, rows, alike, folds, units=units, classes=max(len(names), alike.max() + 1))
    fold_of_row = np.stack([dealt(seed=seed + repeat) for repeat in range(repeats)])
    _check_weights(weights, fold_of_row)
    settings = {
        "rows": rows_hash(rows, places), "labels": list(names), "learner": trained.identity, "folds": folds,
        "groups": None if numbers is None else rows_hash(numbers), "near_duplicates": near_duplicates,
        "seed": seed, "sample_weight": None if weights is None else rows_hash(weights),
    }  # fmt: skip
    study = _Study(trained, places, fold_of_row, keep_models, seed, workers, verbose, names)
    with opened(run_dir, settings, kind="cross-evaluation") as store:
        p, seconds, models = study.judge(store)
    evaluation = evaluate(_Answers(names, p[0]), rows, places, **options)
    of_whom = (
        f"Each row was judged out of fold, by one of {folds} models: the scores are of their mean, not of a "
        "model trained on all rows."
    )
    notes = (of_whom, *evaluation.warnings, *sentences, *_unseen(places, fold_of_row[0], names, weights))
    evaluation = dataclasses.replace(evaluation, warnings=notes)
    if baselines and task == "classification":
        found = _baselines(evaluation, rows, places, fold_of_row[0], features, numbers, n_resamples, seed)
        evaluation = dataclasses.replace(evaluation, baselines=tuple(found))
    answers = OutOfFold(places, p, fold_of_row, evaluation.threshold, evaluation.average, weights, numbers)
    return answers.result(evaluation, seconds, models, seed, trained.settings)


def _right(y: Ints, p: Floats) -> NDArray[np.bool_]:
    """Return (n,) whether the most probable class is right, or every label from 0.5 on."""
    return np.asarray(p.argmax(axis=1) == y if y.ndim == 1 else ((p >= 0.5) == y).all(axis=1))


class _Answers:
    """Out-of-fold probabilities in the clothes of a model, so that `evaluate` hashes the rows they are of."""

    def __init__(self, labels: tuple[str, ...], probabilities: Floats) -> None:
        self.labels, self._probabilities = labels, probabilities

    def predict(self, x: Any) -> Floats:
        return self._probabilities


def _check_weights(weights: Floats | None, fold_of_row: Ints) -> None:
    """Raise where a fold has rows of weight 0 alone: it could judge nothing."""
    if weights is None:
        return
    for fold_of in fold_of_row:
        held = np.bincount(fold_of, weights=weights > 0)
        if (held == 0).any():
            raise ValueError(
                f"`sample_weight` is 0 for every row of fold {int(held.argmin()) + 1}, which could judge no "
                "model. Ask for fewer folds, or leave rows of weight 0 out."
            )


def _of_the_text_alone(rows: NDArray[Any]) -> list[str]:
    """Return what to know of baselines where rows have columns beside their text."""
    others = _text.listed((rows.dtype.names or ())[1:])
    return [f"TF-IDF reads the texts alone; the models that are judged read {others} too."] if others else []


def _unseen(y: Ints, fold_of_row: Ints, names: tuple[str, ...], weights: Floats | None) -> list[str]:
    """Name the classes that a model had to judge without having seen a row of them."""
    there = np.ones(len(y), dtype=bool) if weights is None else weights > 0
    of_class = [there & ((y == k) if y.ndim == 1 else y[:, k] > 0) for k in range(len(names))]
    alone = [
        name for name, rows in zip(names, of_class, strict=True) if len(np.unique(fold_of_row[rows])) == 1
    ]
    if not alone:
        return []
    return [
        f"All rows of {_text.listed(alone)} are in one fold: the model that judged them had never seen such "
        "a row."
    ]


@dataclass(frozen=True)
class _Study:
    """The trainings of a cross-evaluation."""

    learner: Learner
    y: Ints
    fold_of_row: Ints
    keep_models: bool
    seed: int
    workers: int
    verbose: bool
    labels: tuple[str, ...]

    def judge(self, store: Store) -> tuple[Floats, list[float], tuple[Any, ...]]:
        """Train what is not in the store yet.

        Returns:
            (repeats, n, K) out-of-fold probabilities, seconds of each fold, and the models that are kept.
        """
        repeats, n = self.fold_of_row.shape
        folds = int(self.fold_of_row.max()) + 1
        known = [self._known(store, place) for place in range(repeats * folds)]
        trained = self._all_trained([place for place, (record, _) in enumerate(known) if record is None])
        p, seconds, models = np.empty((repeats, n, len(self.labels))), [], []
        for place, (record, model) in enumerate(known):
            name, test = self._fold(place)
            if record is None:
                record, model = next(trained)
                if self.keep_models:
                    store.save_model(
                        f"{name}.keras", model
                    )  # first: a fold is done where its record is there
                store.write(f"{name}.json", record)
            answers = unpacked(record["probabilities"])
            p[place // folds, test] = answers
            seconds.append(float(record["seconds"]))
            models += [model] if self.keep_models else []
            if self.verbose:
                right = float(_right(self.y[test], answers).mean())
                _text.show(
                    f"{name.replace('-', ' ')}: {n - len(test):,} rows trained, {len(test):,} judged, "
                    f"{right:.3f} right, {seconds[-1]:.1f} s"
                )
        return p, seconds, tuple(models)

    def _fold(self, place: int) -> tuple[str, Ints]:
        """Return the name of a fold in the store, and the rows that judge it."""
        repeat, fold = divmod(place, int(self.fold_of_row.max()) + 1)
        return f"repeat-{repeat + 1}-fold-{fold + 1}", np.flatnonzero(self.fold_of_row[repeat] == fold)

    def _known(self, store: Store, place: int) -> tuple[Any, Any]:
        """Return what the store has of a fold; None where it must be trained."""
        name, test = self._fold(place)
        if not store.has(f"{name}.json") or (self.keep_models and not store.has(f"{name}.keras")):
            return None, None
        record = store.read(f"{name}.json")
        if record.get("test") != rows_hash(test):
            raise ValueError(
                f"{str(store.path(f'{name}.json'))!r} is of another fold; it was copied or renamed. Remove "
                "it to have the fold trained again."
            )
        if not self.keep_models:
            return record, None
        from finetune_eval.models.build import load_model

        return record, load_model(store.path(f"{name}.keras"))

    def _all_trained(self, places: Sequence[int]) -> Iterator[tuple[Any, Any]]:
        """Yield the record and the model of each fold that must be trained, in order."""
        if self.workers == 1:
            yield from map(self._trained, places)
        else:
            from joblib import Parallel, delayed

            yield from Parallel(n_jobs=self.workers, return_as="generator")(
                delayed(self._trained)(place) for place in places
            )

    def _trained(self, place: int) -> tuple[Any, Any]:
        began, (_, test) = time.perf_counter(), self._fold(place)
        train = np.setdiff1d(np.arange(len(self.y)), test)
        trained = self.learner.train(train, self.seed + place)
        answers = self.learner.answer(trained, test)
        model = self.learner.model(trained) if self.keep_models else None
        record = {
            "test": rows_hash(test),
            "seconds": round(time.perf_counter() - began, 3),
            "probabilities": packed(answers),
        }
        return record, model


def _baselines(
    evaluation: Evaluation,
    x: NDArray[Any],
    y: Ints,
    fold_of_row: Ints,
    features: Any,
    groups: Ints | None,
    n_resamples: int,
    seed: int,
) -> Iterator[Baseline]:
    """Fit simple models in the same folds, and compare each with the evaluation."""
    classes = len(evaluation.labels)
    fits: dict[str, Any] = {
        MAJORITY: lambda train, test: majority_probabilities(y[train], len(test), classes)
    }
    texts = _pairs.one_text(x)
    if texts.ndim == 1:
        fits[TFIDF] = lambda train, test: tfidf_probabilities(
            texts[train].tolist(), y[train], texts[test].tolist(), classes=classes
        )
    if features is not None:
        fits[FROZEN] = lambda train, test: feature_probabilities(
            features[train], y[train], features[test], classes=classes
        )
    for name, fit in fits.items():
        p = np.empty((len(y), classes))
        for fold in range(int(fold_of_row.max()) + 1):
            test = np.flatnonzero(fold_of_row == fold)
            p[test] = fit(np.flatnonzero(fold_of_row != fold), test)
        yield compare_with_baseline(evaluation, name, p, groups=groups, n_resamples=n_resamples, seed=seed)
