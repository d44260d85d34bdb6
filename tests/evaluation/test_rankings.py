"""Intervals of areas under curves, against all pairs of rows and other libraries."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.rankings import (
    auc_influence,
    average_precision_influence,
    delong,
    delong_variance,
    newcombe_auc,
    ranking_influence,
    ranking_interval,
)
from finetune_eval.evaluation.units import clustered_variance


def pairwise_delong(y, s):
    """DeLong et al. 1988 as it stands in the paper: every positive against every negative, O(mn)."""
    positive, negative = s[y == 1], s[y == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    by_positive, by_negative = wins.mean(axis=1), wins.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(positive) + by_negative.var(ddof=1) / len(negative)
    return wins.mean(), variance


def welch_df(y, s):
    wins = (s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0])
    with warnings.catch_warnings():
        # Where all rows of one class are ranked alike, SciPy warns of a variance that is 0 up to rounding.
        warnings.filterwarnings("ignore", "Precision loss occurred in moment calculation", RuntimeWarning)
        return scipy.stats.ttest_ind(wins.mean(axis=1), wins.mean(axis=0), equal_var=False).df


@given(st.integers(0, 10_000), st.integers(5, 60), st.sampled_from([0, 1, 2]))
@settings(max_examples=60)
def test_delong_equals_all_pairs(seed, n, digits):
    random = np.random.default_rng(seed)
    y = np.r_[0, 0, 1, 1, random.integers(0, 2, n)]
    s = (random.normal(size=len(y)) + 0.5 * y).round(digits)  # rounding makes ties
    value, variance = pairwise_delong(y, s)
    found = delong(y, s)
    assert found.value == pytest.approx(value) == pytest.approx(sklearn.metrics.roc_auc_score(y, s))
    _, influence = auc_influence(y == 1, s)
    found_variance, df = delong_variance(y == 1, influence)
    assert found_variance == pytest.approx(variance)
    if variance > 1e-12:  # two samples of placements: Welch's test has the same degrees of freedom
        assert df == pytest.approx(welch_df(y, s))
    if 0.1 <= value <= 0.9 and variance > 1e-12 and "logit" not in found.method:
        assert (found.high - found.low) / 2 == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high > found.low


def test_delong_near_one_is_on_the_logit_scale():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    s = random.normal(size=200) + 3 * y
    value, variance = pairwise_delong(y, s)
    assert value > 0.95
    found = delong(y, s)
    logit, half = math.log(value / (1 - value)), 1.959964 * math.sqrt(variance) / (value * (1 - value))
    expected = (1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-5)
    assert found.method == "DeLong, logit scale"


@pytest.mark.parametrize("scores", [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1]])
def test_delong_without_variance_falls_back_and_says_so(scores):
    found = delong([0, 0, 0, 1, 1, 1], scores)
    assert found.high - found.low > 0.3
    assert found.method == "DeLong, Clopper-Pearson on 3 rows: no variance to see"
    if found.value == 1:  # three of three: (0.05 / 2) ** (1 / 3)
        assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 3), 1.0))


def test_delong_of_one_class_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"^`y_true` must have rows of both classes for a ROC-AUC; all 2 are 1\.$"
    ):
        delong([1, 1], [0.1, 0.2])
    with pytest.raises(
        ValueError, match=r"^`y_true` must be 0 or 1 \(1 is positive\); row 1 is np.int64\(2\)\.$"
    ):
        delong([1, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"^`scores` has NaN in row 0; a score is needed\.$"):
        delong([1, 0], [math.nan, 0.2])


def test_influences_are_derivatives_by_the_weight_of_a_row():
    random = np.random.default_rng(1)
    positive, w = random.random(80) < 0.4, random.random(80) + 0.1
    s = (random.normal(size=80) + positive).round(1)
    for function, score in (
        (auc_influence, sklearn.metrics.roc_auc_score),
        (average_precision_influence, sklearn.metrics.average_precision_score),
    ):
        value, influence = function(positive, s, w)
        assert value == pytest.approx(score(positive, s, sample_weight=w))
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        for row in (0, 7, 33):
            more, less = w.copy(), w.copy()
            more[row] += 1e-5
            less[row] -= 1e-5
            slope = (score(positive, s, sample_weight=more) - score(positive, s, sample_weight=less)) / 2e-5
            assert influence[row] == pytest.approx(w[row] * slope, rel=1e-4, abs=1e-8)


def test_linearised_pr_auc_agrees_with_the_row_bootstrap():
    random = np.random.default_rng(2)
    positive = random.random(400) < 0.3
    s = random.normal(size=400) + 1.2 * positive
    value, influence = average_precision_influence(positive, s)
    deviation = math.sqrt(clustered_variance(influence, None)[0])
    draws = []
    for _ in range(400):
        row = random.integers(0, 400, 400)
        draws.append(sklearn.metrics.average_precision_score(positive[row], s[row]))
    assert deviation == pytest.approx(
        np.std(draws), rel=0.15
    )  # 400 draws: 3.5 % of noise; the rest is curvature


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_rankings_of_several_classes_equal_scikit_learn(name):
    random = np.random.default_rng(3)
    y, p = random.integers(0, 3, 100), random.dirichlet(np.ones(3), 100)
    one_hot = np.eye(3)[y]
    score = {"roc_auc": sklearn.metrics.roc_auc_score, "pr_auc": sklearn.metrics.average_precision_score}[
        name
    ]
    for average in ("macro", "weighted", "micro"):
        value, influence, _, classes = ranking_influence(name, y, p, average)
        assert classes == 3
        assert value == pytest.approx(score(one_hot, p, average=average))
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        multilabel = ranking_influence(name, one_hot, p, average).value
        assert multilabel == pytest.approx(value)
    assert ranking_influence(name, np.zeros(5, int), p[:5], "macro") is None


def test_newcombes_auc_limits_solve_his_equation():
    # Newcombe 2006, method 5: |value - a| = z sqrt(V(a)) with Hanley and McNeil's exponential variance
    for value, m, n in ((0.96, 20, 980), (0.7, 12, 15)):
        for limit in newcombe_auc(value, m, n, 0.95):
            q1, q2, each = limit / (2 - limit), 2 * limit**2 / (1 + limit), (m + n) / 2
            variance = limit * (1 - limit) + (each - 1) * (q1 - limit**2 + q2 - limit**2)
            assert abs(value - limit) == pytest.approx(1.959964 * math.sqrt(variance / (m * n)), abs=1e-6)


def test_an_area_where_few_rows_are_ranked_wrongly_is_widened_and_says_so():
    random = np.random.default_rng(11)
    y = (np.arange(500) < 20).astype(int)
    p = random.normal(size=500) + 3 * y
    found = ranking_interval("roc_auc", y, np.column_stack([-p, p]), "binary", confidence=0.95)
    value, variance = pairwise_delong(y, p)
    t = scipy.stats.t.ppf(0.975, welch_df(y, p))
    middle, half = math.log(value / (1 - value)), t * math.sqrt(variance) / (value * (1 - value))
    own, other = 1 / (1 + math.exp(half - middle)), newcombe_auc(value, 20, 480, 0.95)[0]
    assert other < own
    assert found.low == pytest.approx(other)
    assert found.method == (
        "DeLong, logit scale, t; widened by Newcombe's method 5 (few of 20 rows ranked wrongly)"
    )
