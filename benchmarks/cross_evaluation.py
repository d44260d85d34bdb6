"""Do both intervals of a cross-evaluation cover, and how much narrower are they than a holdout's? Simulated.

python benchmarks/cross_evaluation.py             # about ten minutes of one core
python benchmarks/cross_evaluation.py --sets 100  # a quick look
python benchmarks/cross_evaluation.py --compare --sets 500  # error rates of comparing two: about five minutes

Each simulated data set is fitted for real: logistic regressions on 20 Gaussian features of two classes, with
five folds, three times, and once on four fifths of the rows with the last fifth held out. What the models are
worth on new rows is known exactly: the score of a row is Gaussian in each class. Targets: the mean of the
five models of the first five folds, and the mean of all models that the recipe trains on four fifths of such
rows.
docs/statistics.md keeps the table.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit
from scipy.stats import ttest_rel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from finetune_eval.evaluation._paired_differences import of_folds
from finetune_eval.evaluation.folds import FoldScores, fold_score, recipe_interval
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.sample import Sample, Sampling
from finetune_eval.evaluation.significance import mcnemar

METRICS_SHOWN = ("accuracy", "f1", "loss")
FEATURES, POSITIVE, DISTANCE = 20, 0.4, 2.0  # the best possible accuracy is about 0.85
FOLDS, REPEATS = 5, 3
SAMPLING = Sampling(confidence=0.95, n_resamples=400)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def rows_of(random: np.random.Generator, n: int) -> tuple[Any, Any]:
    y = (random.random(n) < POSITIVE).astype(np.int64)
    x = random.normal(size=(n, FEATURES))
    x[:, 0] += np.where(y == 1, DISTANCE / 2, -DISTANCE / 2)
    return x, y


def fitted(x: Any, y: Any) -> LogisticRegression:
    return LogisticRegression(solver="newton-cholesky").fit(x, y)


def table_and_loss(model: LogisticRegression) -> tuple[Any, float]:
    """Return what a model does on all rows there could be: its 2 x 2 table of shares, and its log-loss."""
    weights, bias = model.coef_[0], float(model.intercept_[0])
    spread, shift = float(np.linalg.norm(weights)), float(weights[0]) * DISTANCE / 2
    table, loss = np.zeros((2, 2)), 0.0
    for label, (centre, share) in enumerate([(bias - shift, 1 - POSITIVE), (bias + shift, POSITIVE)]):
        predicted = float(ndtr(centre / spread))
        table[label] = share * (1 - predicted), share * predicted
        sign = 1 if label else -1
        loss += share * float(WEIGHTS @ np.logaddexp(0, -sign * (centre + spread * NODES)))
    return table, loss


def values_of(table: Any, loss: float) -> dict[str, float]:
    hits, wrong = table[1, 1], table[0, 1] + table[1, 0]
    return {"accuracy": 1 - wrong, "f1": 2 * hits / (2 * hits + wrong), "loss": loss}


def estimates(y: Any, p: Any) -> dict[str, Any]:
    sample = Sample(y, p, p.argmax(axis=1), average="binary")
    return {name: METRICS[name].interval(sample, SAMPLING) for name in METRICS_SHOWN}


def one_set(random: np.random.Generator, n: int) -> tuple[dict[Any, Any], list[dict[str, float]]]:
    """Return each interval's limits and the value of the models it is of; and the worth of all models."""
    x, y = rows_of(random, n)
    p = np.empty((REPEATS, n, 2))
    scores: dict[str, list[float]] = defaultdict(list)
    worth = []
    for repeat in range(REPEATS):
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=int(random.integers(2**31)))
        for train, test in splitter.split(x, y):
            model = fitted(x[train], y[train])
            p[repeat, test] = model.predict_proba(x[test])
            worth.append(table_and_loss(model))
            for name in METRICS_SHOWN:
                rows = p[repeat, test]
                scores[name].append(fold_score(name, y[test], rows, rows.argmax(axis=1), "binary"))
    mean_table = np.mean([table for table, _ in worth[:FOLDS]], axis=0)
    these = values_of(mean_table, float(np.mean([loss for _, loss in worth[:FOLDS]])))
    out: dict[Any, Any] = {}
    first, later = estimates(y, p[0]), [estimates(y, part) for part in p[1:]]
    for name in METRICS_SHOWN:
        every = [first[name].value, *(part[name].value for part in later)]
        out["these", name] = first[name].low, first[name].high, these[name]
        once = recipe_interval(name, every[0], scores[name][:FOLDS], 1 / (FOLDS - 1), models=first[name])
        out["recipe, 1 x 5", name] = once.low, once.high, None
        mean = float(np.mean(every))
        more = recipe_interval(name, mean, scores[name], 1 / (FOLDS - 1), models=first[name])
        out[f"recipe, {REPEATS} x 5", name] = more.low, more.high, None
        folds = np.array(scores[name][:FOLDS])
        error = folds.std(ddof=1) / np.sqrt(FOLDS)
        for kind, quantile in (("naive z", 1.96), ("naive t", stdtrit(FOLDS - 1, 0.975))):
            limits = folds.mean() - quantile * error, folds.mean() + quantile * error
            out[f"{kind}, these", name] = *limits, these[name]
            out[f"{kind}, recipe", name] = *limits, None
    cut = n - n // FOLDS
    held = fitted(x[:cut], y[:cut])
    found, alone = estimates(y[cut:], held.predict_proba(x[cut:])), values_of(*table_and_loss(held))
    for name in METRICS_SHOWN:
        out["holdout", name] = found[name].low, found[name].high, alone[name]
    return out, [values_of(*each) for each in worth]


def two_recipes(random: np.random.Generator, n: int, lag: float) -> dict[Any, float]:
    """Return p-values of comparing two recipes, which see different columns; the second's tell `lag` less."""
    y = (random.random(n) < POSITIVE).astype(np.int64)
    x, side = random.normal(size=(n, FEATURES)), np.where(y == 1, 0.5, -0.5)
    x[:, 0] += side * DISTANCE
    x[:, 1] += side * (DISTANCE - lag)
    columns = ([0, *range(2, 11)], [1, *range(11, 20)])
    p = np.empty((2, REPEATS, n, 2))
    scores: dict[Any, list[float]] = defaultdict(list)
    fold_of_row = np.empty((REPEATS, n), dtype=np.int64)
    for repeat in range(REPEATS):
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=int(random.integers(2**31)))
        for fold, (train, test) in enumerate(splitter.split(x, y)):
            fold_of_row[repeat, test] = fold
            for k, seen in enumerate(columns):
                model = fitted(x[np.ix_(train, seen)], y[train])
                rows = p[k, repeat, test] = model.predict_proba(x[np.ix_(test, seen)])
                for name in METRICS_SHOWN:
                    scores[k, name].append(fold_score(name, y[test], rows, rows.argmax(axis=1), "binary"))
    out: dict[Any, float] = {}
    for name in METRICS_SHOWN:
        for repeats in (1, REPEATS):
            sides = []
            for k in range(2):
                few = scores[k, name][: FOLDS * repeats]
                sides.append(
                    FoldScores(
                        fold_of_row[:repeats], {name: float(np.mean(few))}, {name: tuple(few)}, "binary"
                    )
                )
            key = f"compare, {repeats} x {FOLDS} folds"
            out[key, name] = of_folds(*sides, name, n).test.p_value
        out["paired t of five folds", name] = ttest_rel(*(scores[k, name][:FOLDS] for k in range(2))).pvalue
    right = p[:, 0].argmax(axis=2) == y
    out["McNemar of all rows", "accuracy"] = mcnemar(
        int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()), method="midp"
    ).p_value
    return out


def comparisons(sets: int, sizes: list[int]) -> None:
    print("| rows | the second | metric | test | found at 5 % |\n|---|---|---|---|---|")
    for n in sizes:
        for name, lag in (("as good", 0.0), ("worse", 0.7)):
            random = np.random.default_rng(n)
            found: dict[Any, list[float]] = defaultdict(list)
            for _ in range(sets):
                for key, p in two_recipes(random, n, lag).items():
                    found[key].append(p)
            for test, metric in found:
                share = np.mean(np.array(found[test, metric]) <= 0.05)
                print(f"| {n:,} | {name} | {METRICS[metric].title} | {test} | {share:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=2000, help="simulated data sets of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 2000])
    parser.add_argument("--compare", action="store_true", help="error rates of comparing two recipes")
    arguments = parser.parse_args()
    if arguments.compare:
        comparisons(arguments.sets, arguments.sizes)
        return
    print(
        "| rows | metric | interval | coverage | mean width | of the holdout's |\n|---|---|---|---|---|---|"
    )
    for n in arguments.sizes:
        random, began = np.random.default_rng(n), time.perf_counter()
        limits: dict[Any, list[Any]] = defaultdict(list)
        models: list[dict[str, float]] = []
        for _ in range(arguments.sets):
            found, worth = one_set(random, n)
            models += worth
            for key, each in found.items():
                limits[key].append(each)
        for name in METRICS_SHOWN:
            recipe = float(np.mean([each[name] for each in models]))
            holdout = np.mean([high - low for low, high, _ in limits["holdout", name]])
            for key in [key for key in limits if key[1] == name]:
                inside = [
                    low <= (recipe if target is None else target) <= high for low, high, target in limits[key]
                ]
                width = np.mean([high - low for low, high, _ in limits[key]])
                print(
                    f"| {n:,} | {METRICS[name].title} | {key[0]} | {np.mean(inside):.3f} | {width:.3f} | "
                    f"{width / holdout:.2f} |",
                    flush=True,
                )
        print(f"({arguments.sets:,} sets of {n:,} rows: {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
