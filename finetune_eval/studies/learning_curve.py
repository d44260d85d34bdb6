"""learning_curve: how the score of a recipe grows with the rows, and what more labels would give."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows, _text
from finetune_eval._text import counted
from finetune_eval.data.assignment import checked_rows
from finetune_eval.data.folds import fold_of_rows, parts_of_rows, units_of_rows
from finetune_eval.data.ledger import rows_hash
from finetune_eval.evaluation.curves import covariance_of_means
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.studies.curve import CurvePoint, LearningCurve
from finetune_eval.studies.learners import Learner, learner_of, read_labels
from finetune_eval.studies.storage import Store, opened, packed, unpacked

__all__ = ["LearningCurve", "learning_curve"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROW_METRICS = ("accuracy", "loss", "brier")  # means over rows, whose covariance between sizes rows can tell
_SEVERAL = "A learning curve is of rows with one class each; `cross_evaluate` takes `task='multilabel'`."
_FOLDS = 5  # a repeat is judged by a fifth of the rows, the next repeat by the next fifth


def learning_curve(
    learner: Any,
    x: Any,
    y: Any,
    *,
    labels: Sequence[str] | None = None,
    sizes: Sequence[int | float] = (1 / 8, 1 / 4, 1 / 2, 1.0),
    repeats: int = 5,
    test: Any = None,
    metric: str = "accuracy",
    goal: float | None = None,
    groups: Any = None,
    near_duplicates: bool = True,
    recipe: Any = None,
    confidence: float = 0.8,
    run_dir: str | Path | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> LearningCurve:
    """Train on growing parts of the rows, and say what more labels would give.

    In each repeat a fifth of the rows judges, and the sizes are parts of the others: nested (the rows of a
    size
    are among those of the next), and with the class shares of the whole. A power law through the points says
    what more rows would give; beyond four times the rows it says nothing.

    Args:
        learner: What is trained; as for `cross_evaluate`.
        x: (n,) texts, (n, d) numbers, or what `rows_of_columns` makes of a text and columns beside it.
        y: (n,) class names; or class indices where `labels` gives the names.
        labels: The class names in index order, the positive class second; None takes them from `y`, sorted.
        sizes: How many rows to train on, at least two sizes: whole numbers, or shares of the rows that do not
            judge.
        repeats: How often, at least 2; with five every row judges once.
        test: Rows that judge every repeat, as a pair (x, y); all of `x` is then there to train on. None: a
            fifth of the rows in turn.
        metric: "accuracy", "loss" or "brier".
        goal: A score to reach; None for the next step of 0.05 of an accuracy.
        groups: (n,) values; rows with the same value stay together. Not with `test`.
        near_duplicates: Whether texts that are nearly the same stay together too, as in `split`.
        recipe: As for `cross_evaluate`.
        confidence: Nominal coverage of the intervals, in (0, 1).
        run_dir: A folder that keeps what each training gave, as for `cross_evaluate`.
        seed: Of the parts and of the trainings.
        verbose: Print a line as each training ends.

    Returns:
        The curve: its points, the power law, one sentence, and `more(n)`.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which.
        FileExistsError: `run_dir` is in use, or holds something else.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> random = np.random.default_rng(0)
        >>> x = random.normal(size=(400, 10))
        >>> y = (x @ random.normal(size=10) + 2 * random.normal(size=400) > 0).astype(int)
        >>> curve = learning_curve(lambda x, y: LogisticRegression().fit(x, y), x, y, verbose=False)
        >>> [point.n_train for point in curve.points]
        [40, 80, 160, 320]
        >>> curve.more(2000)
        Forecast(n=2000, estimate=None)

    Reference:
        Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8; Viering and Loog 2023, IEEE TPAMI
        45:7799-7819
        (curves can misbehave).
    """
    _rows.same_order(x=x, y=y, groups=groups)
    rows = checked_rows(x)
    _checks.same_length("x", rows, "y", _rows.column("y", y))
    places, names = read_labels(y, labels, _SEVERAL)
    _checks.one_of("metric", metric, ROW_METRICS)
    repeats = _checks.positive_int("repeats", repeats, minimum=2)
    seed = _checks.positive_int("seed", seed, minimum=0)
    near_duplicates = _checks.flag("near_duplicates", near_duplicates)
    confidence = _checks.number("confidence", confidence, above=0, below=1)
    if goal is not None:
        goal = _checks.number("goal", goal, above=METRICS[metric].low, below=METRICS[metric].high)
    if test is not None and groups is not None:
        raise ValueError("`groups` are for rows that judge in turn; with `test` leave them out.")
    n = len(rows)
    numbers = None if groups is None else _rows.groups("groups", groups, n)
    rows, places = _with_test(rows, places, names, test)
    trained = learner_of(learner, recipe, rows, places, names)
    units, _ = units_of_rows(rows[:n], groups=numbers, near_duplicates=near_duplicates)
    design = _Design(trained, rows, places, n, len(names), units, sizes, repeats, seed, verbose)
    parts = [design.parts(repeat) for repeat in range(repeats)]
    settings = {
        "rows": rows_hash(rows, places), "labels": list(names), "learner": trained.identity,
        "groups": None if numbers is None else rows_hash(numbers), "near_duplicates": near_duplicates,
        "seed": seed, "sizes": list(map(float, sizes)), "test_rows": len(rows) - n,
    }  # fmt: skip
    with opened(run_dir, settings, kind="learning curve") as store:
        p = [design.answers(store, repeat, *parts[repeat]) for repeat in range(repeats)]
    return design.curve(parts, p, metric, goal, confidence, numbers)


def _with_test(x: NDArray[Any], y: Ints, names: tuple[str, ...], test: Any) -> tuple[NDArray[Any], Ints]:
    """Return the rows with those of `test` after them."""
    if test is None:
        return x, y
    parts = tuple(test) if isinstance(test, (tuple, list)) or hasattr(test, "metadata") else ()
    if len(parts) != 2:
        raise TypeError("`test` must be a pair (x, y), such as `dataset.test`.")
    more = checked_rows(parts[0])
    _checks.same_length("test x", more, "test y", _rows.column("test y", parts[1]))
    if more.shape[1:] != x.shape[1:]:
        raise ValueError(f"`test` has rows of shape {more.shape[1:]}; those of `x` are {x.shape[1:]}.")
    return np.concatenate([x, more]), np.concatenate([y, _labels.read("test y", parts[1], names)])


class _Design:
    """Which rows train, which judge, and what came of it."""

    def __init__(
        self,
        learner: Learner,
        x: NDArray[Any],
        y: Ints,
        n: int,
        classes: int,
        units: Ints,
        sizes: Any,
        repeats: int,
        seed: int,
        verbose: bool,
    ) -> None:
        self.learner, self.x, self.y, self.n, self.classes = learner, x, y, n, classes
        self.units = units
        self.repeats, self.seed, self.verbose = repeats, seed, verbose
        self.fixed_test = len(x) > n
        self.pool = n if self.fixed_test else n - -(-n // _FOLDS)
        self.sizes = _sizes(sizes, self.pool)

    def parts(self, repeat: int) -> tuple[Ints, list[Ints]]:
        """Return the rows that judge a repeat, and those that train it, for each size."""
        x, y, n = self.x[: self.n], self.y[: self.n], self.n
        pool, judges = np.arange(n), np.arange(n, len(self.x))
        if not self.fixed_test:
            division, fold = divmod(repeat, _FOLDS)
            fold_of_row = fold_of_rows(
                x, y, _FOLDS, units=self.units, classes=self.classes, seed=self.seed + division
            )
            judges, pool = np.flatnonzero(fold_of_row == fold), np.flatnonzero(fold_of_row != fold)
        steps = np.diff([0, *(min(size, len(pool)) for size in self.sizes), len(pool)])
        part = parts_of_rows(
            x[pool],
            y[pool],
            steps.tolist(),
            units=self.units[pool],
            classes=self.classes,
            seed=self.seed + 7919 * (repeat + 1),  # not the seed of the folds
        )
        nested = [pool[part <= size] for size in range(len(self.sizes))]
        for rows in nested:
            if len(np.unique(y[rows])) < 2:
                raise ValueError(
                    f"`sizes`: {counted(len(rows), 'row')} of one class only would train a model. Begin with "
                    "more."
                )
        return judges, nested

    def answers(self, store: Store, repeat: int, judges: Ints, nested: list[Ints]) -> Floats:
        """Return (sizes, judges, K) probabilities; train what is not in the store yet."""
        out = []
        for place, rows in enumerate(nested):
            name, began = f"repeat-{repeat + 1}-size-{place + 1}.json", time.perf_counter()
            if store.has(name):
                record = store.read(name)
            else:
                trained = self.learner.train(rows, self.seed + repeat * len(nested) + place)
                record = {"probabilities": packed(self.learner.answer(trained, judges))}
                store.write(name, record)
            out.append(unpacked(record["probabilities"]))
            if self.verbose:
                right = float((out[-1].argmax(axis=1) == self.y[judges]).mean())
                _text.show(
                    f"repeat {repeat + 1}: {len(rows):,} rows trained, {len(judges):,} judged, {right:.3f} "
                    f"right, {time.perf_counter() - began:.1f} s"
                )
        return np.stack(out)

    def curve(
        self,
        parts: Sequence[tuple[Ints, list[Ints]]],
        p: Sequence[Floats],
        metric: str,
        goal: float | None,
        confidence: float,
        groups: Ints | None,
    ) -> LearningCurve:
        """Score every row for every size, and put the points together."""
        total, times = np.zeros((len(self.x), len(self.sizes))), np.zeros(len(self.x))
        means, trained = [], []
        for (judges, nested), answers in zip(parts, p, strict=True):
            scores = np.column_stack([_scores(metric, self.y[judges], each) for each in answers])
            total[judges] += scores
            times[judges] += 1
            means.append(scores.mean(axis=0))
            trained.append([len(rows) for rows in nested])
        judged = np.flatnonzero(times)
        rows = total[judged] / times[judged, None]
        sizes = tuple(int(round(size)) for size in np.mean(trained, axis=0))
        inside = None if groups is None else np.unique(groups[judged], return_inverse=True)[1]
        covariance = covariance_of_means(rows, np.array(means), sizes, self.n, inside)
        values = np.mean(means, axis=0)
        points = tuple(
            CurvePoint.of(metric, size, float(value), float(variance), confidence, tuple(each))
            for size, value, variance, each in zip(
                sizes, values, np.diag(covariance), np.array(means).T.tolist(), strict=True
            )
        )
        return LearningCurve(
            metric=metric,
            points=points,
            n=self.n,
            n_judged=len(judged),
            repeats=self.repeats,
            confidence=confidence,
            goal=goal,
            covariance=covariance,
            settings=self.learner.settings,
        )


def _scores(metric: str, y: Ints, p: Floats) -> Floats:
    """Return (n,) the number a row that a metric is the mean of."""
    if metric == "accuracy":
        return np.asarray(p.argmax(axis=1) == y, dtype=np.float64)
    function = METRICS[metric].function
    assert function is not None
    return np.asarray(function(y, p), dtype=np.float64)


def _sizes(sizes: Any, pool: int) -> tuple[int, ...]:
    """Turn shares of the rows into whole numbers, ascending."""
    if not isinstance(sizes, (list, tuple, np.ndarray)) or np.size(np.asarray(sizes, dtype=object)) < 2:
        raise ValueError(f"`sizes` must be at least two sizes, such as (1/8, 1/4, 1/2, 1.0); got {sizes!r}.")
    out = []
    for size in sizes:
        if isinstance(size, (float, np.floating)):
            out.append(round(_checks.number("sizes", size, above=0, at_most=1) * pool))
        else:
            out.append(_checks.positive_int("sizes", size, maximum=pool))
    if out[0] < 2 or any(later <= sooner for sooner, later in zip(out, out[1:], strict=False)):
        given = _text.listed([f"{size:,}" for size in out], quote=False)
        raise ValueError(f"`sizes` must ascend from at least 2 rows; got {given} of {pool:,} rows.")
    return tuple(out)
