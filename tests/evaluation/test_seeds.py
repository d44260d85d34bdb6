"""Runs that differ in their seed only."""

import re
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from finetune_eval import evaluate_predictions
from finetune_eval.evaluation.seeds import _best_of, compare_seeds, evaluate_seeds, expected_best_of


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


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_expected_best_of_k_is_the_mean_over_all_choices_of_k_runs(metric):
    found = evaluate_seeds([run(k) for k in (80, 91, 84, 90, 87)], metric=metric)
    best = max if metric == "accuracy" else min
    for k, expected in enumerate(found.best_of, 1):
        assert expected == pytest.approx(np.mean([best(some) for some in combinations(found.values, k)]))
    assert found.best_of[-1] == best(found.values)  # the best of all of them is the best one seen


def test_expected_best_of_k_is_right_on_average():
    # Five runs of normal scores: the best of k lies expected_best_of(k) standard deviations above the mean.
    random = np.random.default_rng(0)
    found = np.mean([_best_of(random.normal(size=5), higher=True) for _ in range(4000)], axis=0)
    # 4,000 sets: standard deviation of the mean at most .45 / sqrt(4000) = .007
    assert found == pytest.approx([expected_best_of(k) for k in range(1, 6)], abs=0.025)


def test_the_scope_is_stated_on_eighty_columns():
    text = str(evaluate_seeds([run(80), run(90), run(85)]))
    assert "covers the seed of the training only" in text.replace("\n", " ")
    assert "0.8000, 0.9000, 0.8500" in text
    assert max(map(len, text.splitlines())) <= 80


def test_equal_scores_are_not_a_spread_of_nothing():
    found = evaluate_seeds([run(80), run(80, confidence=0.8)])
    # Two runs: t of one degree of freedom is tan(.95 pi / 2); rounding to one of 100 rows spreads by
    # .01 / sqrt(12)
    half = np.tan(0.95 * np.pi / 2) * 0.01 / np.sqrt(12) / np.sqrt(2)
    assert (found.mean.low, found.mean.high) == pytest.approx((0.8 - half, 0.8 + half))
    assert "their spread is taken as rounding to one row" in found.mean.method


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


# --- two recipes -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, where a recipe has no spread
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((80, 90, 85), (70, 72, 71)),
        ((80, 90), (81, 84, 86, 82, 95)),
        ((60, 70, 65, 64), (80, 80, 81)),
        ((80, 85, 83), (60, 60)),
    ],
)
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_two_recipes_are_compared_as_scipy_does(a, b, metric, confidence):
    # runs of equal accuracy have their own confidence, so that they are no copies
    runs = [[run(k, confidence=0.9 - i / 50) for i, k in enumerate(ks)] for ks in (a, b)]
    if metric == "loss":
        runs[1] = [run(k, confidence=0.88 - i / 70) for i, k in enumerate(b)]
    found = compare_seeds(*runs, metric=metric, confidence=confidence)
    values = [[one[metric].value for one in each] for each in runs]
    expected = scipy.stats.ttest_ind(*values, equal_var=False)
    limits = expected.confidence_interval(confidence)
    assert (found.a.values, found.b.values) == tuple(map(tuple, values))
    assert found.difference.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert (found.difference.low, found.difference.high) == pytest.approx((limits.low, limits.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    apart = limits.low > 0 or limits.high < 0
    assert found.verdict.startswith(("There is no difference", "These seeds cannot tell")) != apart
    if apart:
        first = (values[0][0] < values[1][0]) == (metric == "loss")
        assert found.verdict.startswith(f"The {'first' if first else 'second'} recipe is better")


def test_few_seeds_every_value_and_the_scope_are_said():
    few = compare_seeds([run(80), run(90)], [run(70), run(71), run(75)])
    text = str(few)
    plain = " ".join(text.split())
    assert "Only 2 seeds of a recipe" in plain
    assert "every run: 0.8000, 0.9000." in plain and "every run: 0.7000, 0.7100, 0.7500." in plain
    assert "every run has the same 100 test rows" in plain
    assert re.search(r"First less second in accuracy: \+0\.1300 \[-\d", plain)
    assert max(map(len, text.splitlines())) <= 80
    five = [run(k) for k in (80, 81, 82, 83, 84)]
    assert "Only" not in str(compare_seeds(five, [run(k) for k in (70, 71, 72, 73, 74)]))


def test_recipes_without_spread_are_not_certain():
    a = [run(80), run(80, confidence=0.8)]
    b = [run(70), run(70, confidence=0.8)]
    found = compare_seeds(a, b)
    # Welch's t of two means that each spread by rounding to a row, .01 / sqrt(12), of two runs: two degrees
    # of freedom, whose .975 quantile is 4.3027
    half = 4.3027 * 0.01 / np.sqrt(12)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-6)
    assert found.p_value < 0.05
    assert found.verdict == "The first recipe is better over seeds: the means differ by 0.1000."
    close = compare_seeds(a, [run(79), run(79, confidence=0.8)])
    assert close.p_value > 0.05 and close.difference.low < 0


def test_the_interval_over_seeds_decides_against_what_matters():
    a, b = [run(k, n=1000) for k in (800, 802, 804, 806)], [run(k, n=1000) for k in (801, 803, 803, 807)]
    found = compare_seeds(a, b)
    assert found.outcome == "no difference that matters"
    assert found.verdict.startswith(
        "There is no difference over seeds that matters: the means differ by 0.0005,"
    )
    assert found.verdict.endswith("the interval holds no difference above 2.0 points.")
    strict = compare_seeds(a, b, matters=0.001)
    assert strict.outcome == "cannot tell yet"
    assert strict.verdict == (
        "These seeds cannot tell yet which recipe is better: the means differ by 0.0005. There may be "
        "no difference or one above 0.1 points, which would matter."
    )
    with pytest.raises(ValueError, match=r"^`matters` must be a finite number at least 0; got -1\.$"):
        compare_seeds(a, b, matters=-1)


def test_recipes_that_cannot_be_compared_are_refused():
    a, b = [run(80), run(81)], [run(70), run(71)]
    with pytest.raises(ValueError, match=r"^`b` must be at least two runs of one recipe; got 1\.$"):
        compare_seeds(a, b[:1])
    with pytest.raises(ValueError, match=r"^run 2 of a and run 1 of b are the same to the last digit; a run"):
        compare_seeds(a, [run(81), run(70)])
    with pytest.raises(ValueError, match=r"^run 1 of a and run 1 of b were not scored on the same rows"):
        compare_seeds(a, [run(70, n=102), run(71, n=102)])
