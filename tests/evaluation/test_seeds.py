"""Runs that differ in their seed only."""

import numpy as np
import pytest
import scipy.stats

from finetune_eval import evaluate_predictions
from finetune_eval.evaluation.seeds import evaluate_seeds


def run(right, n=100, confidence=0.9):
    y = np.arange(n) % 2
    predicted = np.where(np.arange(n) < right, y, 1 - y)
    p = np.where(predicted == 1, confidence, 1 - confidence)
    return evaluate_predictions(y, p)


def test_mean_spread_and_every_value():
    found = evaluate_seeds([run(80), run(90), run(85), run(81)])
    values = [0.80, 0.90, 0.85, 0.81]
    assert found.values == pytest.approx(values)
    assert found.spread == pytest.approx(np.std(values, ddof=1))
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean.low, found.mean.high) == pytest.approx((expected.low, expected.high))
    assert found.mean.method == "Student's t over seeds"


def test_expected_best_of_k_by_arithmetic():
    # Best of 2 draws, with replacement, from .8 and .9: .8 with chance 1/4, else .9
    found = evaluate_seeds([run(80), run(90)])
    assert found.best_of == pytest.approx((0.85, 0.25 * 0.8 + 0.75 * 0.9))
    losses = evaluate_seeds([run(80), run(90)], metric="loss")
    low, high = sorted(losses.values)
    assert losses.best_of[1] == pytest.approx(0.75 * low + 0.25 * high)  # the best loss is the lowest


def test_the_scope_is_stated_on_eighty_columns():
    text = str(evaluate_seeds([run(80), run(90), run(85)]))
    assert "covers the seed of the training only" in text.replace("\n", " ")
    assert "0.8000, 0.9000, 0.8500" in text
    assert max(map(len, text.splitlines())) <= 80


def test_equal_scores_are_not_a_spread_of_nothing():
    found = evaluate_seeds([run(80), run(80, confidence=0.8)])
    assert (found.mean.low, found.mean.high) == pytest.approx((0.79, 0.81))
    assert found.mean.method == "one row either way: the runs score the same"


def test_copies_other_rows_and_single_runs_are_refused():
    with pytest.raises(
        ValueError, match=r"^`evaluations` are all the same to the last digit; give each run its own"
    ):
        evaluate_seeds([run(80), run(80)])
    with pytest.raises(
        ValueError, match=r"^run 1 and run 2 were not scored on the same rows in the same order: they"
    ):
        evaluate_seeds([run(80), run(80, n=102)])
    with pytest.raises(ValueError, match=r"^`evaluations` must be at least two runs; got 1\.$"):
        evaluate_seeds([run(80)])
    with pytest.raises(ValueError, match=r"^`metric` must be one of .* got 'f2'\."):
        evaluate_seeds([run(80), run(81)], metric="f2")
