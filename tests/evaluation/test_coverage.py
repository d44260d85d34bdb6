"""Simulated: nominal 95 % intervals cover 93-97 % from 200 rows up, tests alarm at most 5 % of the time.

Each bound has the noise of its own number of simulations added. benchmarks/interval_coverage.py has more
designs, more simulations, and where the intervals are not at 95 %.
"""

import math

import numpy as np
import pandas as pd
import pytest

from finetune_eval.evaluation.cells import cells_of
from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.losses import (
    brier_costs,
    expected_loss,
    log_costs,
    row_brier,
    row_loss,
    ruled_out,
)
from finetune_eval.evaluation.means import loss_interval
from finetune_eval.evaluation.metrics import METRICS, from_confusion
from finetune_eval.evaluation.proportions import wilson, wilson_f1_interval
from finetune_eval.evaluation.rankings import ranking_interval
from finetune_eval.evaluation.shares import score_limits
from finetune_eval.evaluation.tables import table_interval

TWO = np.array([[0.40, 0.10], [0.08, 0.42]])
UNEVEN = np.array([[0.76, 0.04], [0.05, 0.15]])
THREE = np.array([[0.36, 0.04, 0.02], [0.05, 0.30, 0.03], [0.02, 0.03, 0.15]])


def noise(runs, rate=0.05):
    """Two and a half standard deviations of a simulated rate."""
    return 2.5 * math.sqrt(rate * (1 - rate) / runs)


def assert_covers(limits, truth, what):
    low, high = np.array(limits).T
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.93 - noise(len(low)) <= covered <= 0.97 + noise(len(low)), (what, covered)


def tables(population, n, runs):
    drawn = np.random.default_rng(8).multinomial(n, population.ravel(), size=runs)
    return drawn.reshape(runs, *population.shape)


@pytest.mark.parametrize(("population", "n"), [(TWO, 200), (UNEVEN, 500), (UNEVEN, 2000)])
def test_shares_and_f1_of_one_class(population, n):
    made = {}

    def limits(function, hits, rows):
        if (function, hits, rows) not in made:
            found = function(int(hits), int(rows))
            made[function, hits, rows] = found.low, found.high
        return made[function, hits, rows]

    drawn = tables(population, n, 3000)
    hits, predicted, true = drawn[:, 1, 1], drawn[:, :, 1].sum(axis=1), drawn[:, 1].sum(axis=1)
    right = drawn.trace(axis1=1, axis2=2)
    for name, function, successes, rows in (
        ("accuracy", wilson, right, np.full(3000, n)),
        ("precision", wilson, hits, predicted),
        ("recall", wilson, hits, true),
        ("f1", wilson_f1_interval, hits, predicted + true - hits),
    ):
        truth = float(from_confusion(name, population, "binary"))
        found = [limits(function, *counts) for counts in zip(successes, rows, strict=True)]
        assert_covers(found, truth, name)


GOOD = np.array([[0.545, 0.003, 0.002], [0.003, 0.26, 0.002], [0.002, 0.003, 0.18]])


@pytest.mark.parametrize(("population", "n"), [(UNEVEN, 500), (THREE, 400), (GOOD, 300)])
def test_functions_of_the_confusion_matrix(population, n):
    metrics = [("f1", "macro"), ("f1", "weighted"), ("mcc", "macro"), ("kappa", "macro")]
    drawn = tables(population, n, 400)
    for name, average in metrics:
        made = [
            table_interval(
                lambda counts, name=name, average=average: from_confusion(name, counts, average),
                cells_of(table),
                confidence=0.95,
                n_resamples=400,
                seed=seed,
                bounds=(METRICS[name].low, 1.0),
            )
            for seed, table in enumerate(drawn)
        ]
        truth = float(from_confusion(name, population, average))
        assert_covers([(found.low, found.high) for found in made], truth, (name, average))


@pytest.mark.parametrize(("population", "n"), [(UNEVEN, 200), (THREE, 200), (GOOD, 200)])
def test_means_over_classes(population, n):
    # Of good models with uneven classes squaring and adding Wilson's limits covers .89-.92.
    drawn = tables(population, n, 3000)
    hits = drawn.diagonal(axis1=1, axis2=2).astype(float)
    for axis, truth in ((2, "balanced_accuracy"), (1, "precision")):
        made = [
            score_limits(k, trials, 1.959964) for k, trials in zip(hits, 1.0 * drawn.sum(axis), strict=True)
        ]
        assert_covers(made, float(from_confusion(truth, population, "macro")), truth)


def test_a_rare_class_that_is_hardly_ever_hit():
    # 350 rows, 3 % of a class, a twentieth of them hit: no hit in most sets. The bootstrap alone covers .4.
    population = np.array([[0.965, 0.005], [0.0285, 0.0015]])
    for name in ("mcc", "kappa", "f1"):
        made = [
            table_interval(
                lambda counts, name=name: from_confusion(name, counts, "macro"),
                cells_of(table),
                confidence=0.95,
                n_resamples=300,
                seed=seed,
                bounds=(METRICS[name].low, 1.0),
            )
            for seed, table in enumerate(tables(population, 350, 300))
        ]
        truth = float(from_confusion(name, population, "macro"))
        covered = np.mean([found.low <= truth <= found.high for found in made])
        assert covered >= 0.95 - noise(300), (name, covered)
        assert np.mean(["Dirichlet posterior" in found.method for found in made]) > 0.9


@pytest.mark.parametrize(("n", "share", "gap"), [(200, 0.5, 1.0), (250, 0.2, 1.5), (1000, 0.1, 1.0)])
@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_rankings(name, n, share, gap):
    random = np.random.default_rng(9)

    def draw(size):
        y = (random.random(size) < share).astype(np.int64)
        scores = random.normal(size=size) + gap * y
        return y, np.column_stack([-scores, scores])

    truth = ranking_interval(name, *draw(300_000), "binary", confidence=0.95).value
    made = [ranking_interval(name, *draw(n), "binary", confidence=0.95) for _ in range(600)]
    assert_covers([(found.low, found.high) for found in made], truth, name)


COSTS = {"loss": (row_loss, log_costs, 87.3), "brier": (row_brier, brier_costs, 1.0)}


def losses(name, y, p):
    """Estimate the loss of two classes."""
    function, costs, high = COSTS[name]
    p = np.column_stack([1 - p, p])
    return loss_interval(
        function(y, p),
        confidence=0.95,
        high=high,
        expected=expected_loss(p, costs),
        ruled=ruled_out(y, p) if name == "loss" else None,
    )


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("name", ["loss", "brier"])
@pytest.mark.parametrize("exaggeration", [1.0, 2.5])
def test_losses(name, n, exaggeration):
    random = np.random.default_rng(10)

    def draw(size):
        logit = random.normal(0, 2, size)
        y = (random.random(size) < 1 / (1 + np.exp(-logit))).astype(np.int64)
        return y, 1 / (1 + np.exp(-exaggeration * logit))

    truth = losses(name, *draw(500_000)).value
    made = [losses(name, *draw(n)) for _ in range(1000)]
    assert_covers([(found.low, found.high) for found in made], truth, name)


@pytest.mark.parametrize("n", [120, 350])
@pytest.mark.parametrize("name", ["loss", "brier"])
def test_losses_that_a_handful_of_rows_carries(name, n):
    # 99 % right and calibrated, a tenth of the rows positive: Student's t without skewness covered .67-.92.
    random, gap = np.random.default_rng(11), 2 * 2.3263479

    def draw(size):
        y = (random.random(size) < 0.1).astype(np.int64)
        x = gap * y + random.normal(size=size)
        return y, 1 / (1 + np.exp(-gap * (x - gap / 2) + math.log(9)))

    truth = losses(name, *draw(2_000_000)).value
    made = [losses(name, *draw(n)) for _ in range(600)]
    covered = np.mean([found.low <= truth <= found.high for found in made])
    assert covered >= 0.95 - noise(600), covered
    assert np.mean(["unreliable" in found.method for found in made]) > 0.95


@pytest.mark.parametrize("n", [350, pytest.param(1500, marks=pytest.mark.slow)])
def test_log_loss_of_probabilities_that_were_rounded_to_hundredths(n):
    # A row of a class that was written as 0.00 costs 87.3; most sets have none. It covered .64-.86.
    random = np.random.default_rng(12)

    def draw(size):
        p = random.beta(0.2, 1.8, size)
        return (random.random(size) < p).astype(np.int64), p.round(2)

    truth = losses("loss", *draw(4_000_000)).value
    made = [losses("loss", *draw(n)) for _ in range(600)]
    assert_covers([(found.low, found.high) for found in made], truth, n)
    assert all("give a class 0" in found.method for found in made)


class Scored:
    """What `compare` reads of an evaluation, without the time that scoring one takes."""

    task, average, identified, rows_hash = "classification", "macro", False, ""
    estimates: dict = {}  # an evaluation is known by having them

    def __init__(self, y, predicted, p, labels):
        self.labels = labels
        names = np.array(labels, dtype=object)
        columns = {"id": np.arange(len(y)), "label": names[y], "prediction": names[predicted]}
        columns |= {f"p_{label}": p[:, k] for k, label in enumerate(labels)}
        self.predictions = pd.DataFrame({**columns, "loss": -np.log(p[np.arange(len(y)), y])})


def equally_good(random, n):
    """Two models of three classes, as good as each other; half of the luck of a row is the row's own."""
    y = random.choice(3, n, p=[0.5, 0.3, 0.2])
    shared, luck = random.random(n) < 0.5, random.random(n)
    for _ in range(2):
        u = np.where(shared, luck, random.random(n))
        predicted = np.where(u < 0.8, y, (y + 1 + (random.random(n) < 0.5)) % 3)
        p = np.full((n, 3), 0.1)
        p[np.arange(n), predicted] = 0.8
        yield Scored(y, predicted, p, ("c0", "c1", "c2"))


def equally_good_rankings(random, n):
    """The same of two classes, a tenth positive, with scores of their own."""
    y = (random.random(n) < 0.1).astype(np.int64)
    shared = random.normal(size=n)
    for _ in range(2):
        p = 1 / (1 + np.exp(-1.5 * y - (shared + random.normal(size=n)) / 2**0.5))
        yield Scored(y, (p > 0.5).astype(np.int64), np.column_stack([1 - p, p]), ("c0", "c1"))


@pytest.mark.parametrize(
    ("metric", "runs"),
    [("accuracy", 400), ("f1", 80), ("loss", 200), ("roc_auc", 100), ("pr_auc", 100)],
)
def test_the_type_i_error_is_at_most_five_percent_and_intervals_cover(metric, runs):
    random, made = np.random.default_rng(6), []
    models = equally_good_rankings if METRICS[metric].source == "ranking" else equally_good
    for _ in range(runs):
        made.append(compare(*models(random, 300), metric=metric, n_resamples=400))
    alarms = np.mean([found.outcome in ("better", "worse") for found in made])
    assert alarms <= 0.05 + noise(runs)
    assert_covers([(found.difference.low, found.difference.high) for found in made], 0.0, metric)


@pytest.mark.parametrize("kind", ["groups", "weights"])
@pytest.mark.parametrize(("metric", "runs"), [("f1", 60), ("accuracy", 150)])
def test_the_type_i_error_of_grouped_and_weighted_rows(kind, metric, runs):
    random, made = np.random.default_rng(9), []
    for _ in range(runs):
        group = np.repeat(np.arange(60), random.integers(1, 12, 60)) if kind == "groups" else np.arange(200)
        n = len(group)
        y, luck = random.choice(3, n, p=[0.5, 0.3, 0.2]), random.random(n)
        shared, weights = random.random(n) < 0.5, random.lognormal(0, 0.7, n)
        evaluations = []
        for _ in range(2):  # both are right in 80 % of rows, more often in some groups than in others
            chance = random.beta(4, 1, group.max() + 1)[group] if kind == "groups" else 0.8
            u = np.where(shared, luck, random.random(n))
            predicted = np.where(u < chance, y, (y + 1 + (random.random(n) < 0.5)) % 3)
            p = np.full((n, 3), 0.1)
            p[np.arange(n), predicted] = 0.8
            evaluations.append(Scored(y, predicted, p, ("c0", "c1", "c2")))
            evaluations[-1].predictions[kind.removesuffix("s")] = group if kind == "groups" else weights
        made.append(compare(*evaluations, metric=metric, n_resamples=400))
    alarms = np.mean([found.outcome in ("better", "worse") for found in made])
    assert alarms <= 0.05 + noise(runs)
    assert_covers([(found.difference.low, found.difference.high) for found in made], 0.0, (metric, kind))
