"""The statistics of folds, against arithmetic and other libraries."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from finetune_eval.evaluation.folds import (
    FoldScores,
    corrected_error,
    fold_score,
    ranking_over_folds,
    recipe_interval,
)
from finetune_eval.evaluation.records import Estimate

NARROW = Estimate(0.8, 0.799, 0.801, "any")


def test_nadeau_and_bengio_by_hand():
    """Five scores, 5 folds: (1/5 + 1/4) s^2, and t of 4 degrees of freedom."""
    scores = [0.78, 0.82, 0.80, 0.84, 0.76]  # mean 0.80; squares 4, 4, 0, 16, 16 e-4; s^2 = 40e-4 / 4 = 1e-3
    assert corrected_error(scores, 1 / 4) == pytest.approx(math.sqrt(0.45 * 1e-3))
    found = recipe_interval("accuracy", 0.80, scores, 1 / 4, models=NARROW)
    half = 2.776445 * math.sqrt(0.45 * 1e-3)  # t(0.975, 4), from a table
    assert (found.low, found.high) == pytest.approx((0.8 - half, 0.8 + half), abs=1e-7)
    assert found.method == "corrected resampled t over 5 folds"


def test_the_naive_interval_is_too_narrow_by_what_the_correction_adds():
    scores = [0.7, 0.75, 0.8, 0.9]
    naive = stats.sem(scores)
    assert corrected_error(scores, 1 / 3) / naive == pytest.approx(math.sqrt((1 / 4 + 1 / 3) / (1 / 4)))


def test_equal_folds_do_not_make_the_recipe_surer_than_its_models():
    models = Estimate(0.95, 0.90, 0.98, "Wilson")
    found = recipe_interval("accuracy", 0.95, [0.95] * 5, 1 / 4, models=models)
    assert (found.low, found.high) == (0.90, 0.98)
    assert "not narrower than that of these models" in found.method


def test_limits_stay_where_the_metric_can_be():
    found = recipe_interval("accuracy", 0.9, [1.0, 0.8, 1.0, 0.8], 1 / 3, models=NARROW)
    assert found.high == 1.0


def test_scores_of_a_fold():
    y, p = np.array([0, 1, 1, 0]), np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    predicted = p.argmax(axis=1)
    assert fold_score("accuracy", y, p, predicted, "binary") == 0.5
    assert fold_score("f1", y, p, predicted, "binary") == 0.5  # one hit, two predicted, two true
    loss = -np.mean(np.log([0.9, 0.6, 0.3, 0.2]))
    assert fold_score("loss", y, p, predicted, "binary") == pytest.approx(loss)
    assert fold_score("roc_auc", y, p, predicted, "binary") == roc_auc_score(y, p[:, 1])
    assert math.isnan(fold_score("roc_auc", np.zeros(4, int), p, predicted, "binary"))


def test_an_auc_is_the_mean_of_the_folds_and_its_variance_that_of_the_mean():
    """Two folds of one ranking each, one of them shifted: ranked together the areas would be lower."""
    random = np.random.default_rng(0)
    y = np.tile([0, 1], 60)
    fold = np.repeat([0, 1], 60)
    score = 1 / (1 + np.exp(-(y + random.normal(size=120) + 3 * fold)))
    p = np.column_stack([1 - score, score])
    found = ranking_over_folds("roc_auc", y, p, fold, "binary", confidence=0.95)
    areas = [roc_auc_score(y[fold == k], score[fold == k]) for k in (0, 1)]
    assert found.value == pytest.approx(np.mean(areas))
    assert found.value > roc_auc_score(y, score) + 0.05
    variances = []
    for k in (0, 1):  # DeLong et al. 1988: placements of positives and negatives
        positive, negative = score[(fold == k) & (y == 1)], score[(fold == k) & (y == 0)]
        wins = positive[:, None] > negative
        variances.append(
            wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
        )
    error = math.sqrt(sum(variances) / 4)
    logit = math.log(found.value / (1 - found.value))
    half = (math.log(found.high / (1 - found.high)) - logit) * found.value * (1 - found.value)
    assert half / error == pytest.approx(1.98, abs=0.03)  # Student's t with about 115 degrees of freedom


def test_the_share_of_test_rows():
    scores = FoldScores(np.array([[0, 1, 2, 0, 1, 2, 0]]), {}, {}, "macro")
    assert scores.test_share == 0.5  # 7/3 test rows to 14/3 training rows
