"""Published worked examples: inputs, expected figures, tolerance and source are copied here as published."""

import math

import numpy as np
import pytest

from finetune_eval.data.leakage import lsh_probability
from finetune_eval.evaluation import comparison, metrics, proportions, rankings, resampling, tables
from finetune_eval.evaluation.calibration import expected_calibration_error
from finetune_eval.evaluation.proportions import clopper_pearson, wilson
from finetune_eval.evaluation.seeds import expected_best_of

# Cavo et al. 2012 as in R contingencytables, test-ch8.R: rows a right/wrong, columns b right/wrong.
CAVO = {"both": 59, "only_a": 6, "only_b": 16, "neither": 80}


@pytest.mark.parametrize(
    ("k", "n", "low", "high", "tolerance"),
    [
        # Newcombe 1998, Stat. Med. 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662, 5.1e-05),
        # SciPy 1.17.1 test_morestats.py: R 3.6.2 prop.test(correct=FALSE)
        (3, 10, 0.1077913, 0.6032219, 1e-06),
        (0, 10, 0.0, 0.2775328, 1e-06),
        # statsmodels 0.14.6 results_proportion.py: R binom::binom.confint
        (18, 20, 0.6989663547715128, 0.972133518786232, 1e-06),
    ],
)
def test_wilson(k, n, low, high, tolerance):
    found = wilson(k, n)
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # SciPy 1.17.1 test_morestats.py: R 3.6.2 binom.test
        (20, 100, 0.1266555521019559, 0.2918426890886281),
        (0, 10, 0.0, 0.3084971),
        # statsmodels 0.14.6 results_proportion.py: R binom::binom.confint
        (18, 20, 0.6830172859809176, 0.9876514728297052),
    ],
)
def test_clopper_pearson(k, n, low, high):
    found = clopper_pearson(k, n)
    assert found.low == pytest.approx(low, abs=1e-06)
    assert found.high == pytest.approx(high, abs=1e-06)


def test_agresti_coull():
    # statsmodels 0.14.6 results_proportion.py: R binom::binom.confint
    found = proportions.agresti_coull(18, 20)
    assert (found.low, found.high) == pytest.approx((0.6867561125596077, 0.984343760998137), abs=1e-06)


def test_newcombe_difference():
    # Newcombe 1998, Stat. Med. 17:873-890, table II (a), method 10
    found = proportions.newcombe_difference(56, 70, 48, 80)
    assert found.value == pytest.approx(56 / 70 - 48 / 80)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5.1e-05)


def test_newcombe_paired_difference():
    # R contingencytables test-ch8.R (Cavo 2012); Fagerland et al. 2014, Stat. Med. 33:2850
    found = proportions.newcombe_paired_difference(**CAVO)
    assert found.value == pytest.approx(-0.0621, abs=5.1e-05)
    assert (found.low, found.high) == pytest.approx((-0.1186, -0.0046), abs=5.1e-05)


@pytest.mark.parametrize(
    ("method", "low", "high"),
    # R contingencytables test-ch8.R (Cavo 2012); Fagerland et al. 2014, Stat. Med. 33:2850
    [("newcombe", -0.1186, -0.0046), ("bonett_price", -0.1195, -0.0032), ("tango", -0.124, -0.0054)],
)
def test_paired_difference_cavo(method, low, high):
    found = proportions.paired_difference(**CAVO, method=method)
    assert found.value == pytest.approx(-0.0621, abs=5.1e-05)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-05)


def test_wald_is_the_delta_method_of_the_same_table():
    # The same source gives Wald's limits. They are no public function, since they cover too little; here they
    # check the delta method: the four cells as a table, and the difference of its margins (65 - 75) / 161.
    table = np.array([[59.0, 6.0], [16.0, 80.0]])
    limits = tables.delta_interval(
        lambda counts: (counts.true[:, 0] - counts.predicted[:, 0]) / counts.true.sum(axis=1), table, 0.95
    )
    assert limits == pytest.approx((-0.1184, -0.0058), abs=5.1e-05)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    # statsmodels test_nonparametric.py::test_mcnemar_exact (VassarStats)
    [(121, 59, 4e-06), (30, 60, 0.00206), (10, 10, 1.0)],
)
def test_mcnemar_exact(b, c, p):
    found = comparison.mcnemar(b, c, method="exact")
    assert found.p_value == pytest.approx(p, abs=5.1e-07)


def test_mcnemar_chi2():
    # statsmodels test_nonparametric.py::test_mcnemar_chisquare (R mcnemar.test)
    plain = comparison.mcnemar(121, 59, method="chi2")
    assert (plain.statistic, plain.p_value) == pytest.approx((21.35556, 3.815136e-06), rel=1e-05)
    corrected = comparison.mcnemar(121, 59, method="chi2_corrected")
    assert (corrected.statistic, corrected.p_value) == pytest.approx((20.67222, 5.450095e-06), rel=1e-05)


@pytest.mark.parametrize(
    ("method", "p"),
    # R contingencytables test-ch8.R (Cavo 2012)
    [("exact", 0.052479), ("midp", 0.03469), ("chi2", 0.033006), ("chi2_corrected", 0.055009)],
)
def test_mcnemar_cavo(method, p):
    found = comparison.mcnemar(CAVO["only_a"], CAVO["only_b"], method=method)
    assert found.p_value == pytest.approx(p, abs=5.1e-07)


def test_cochran_q():
    # statsmodels test_contingency_tables.py::test_cochranq (R CVST)
    correct = [
        [1, 0, 1, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [1, 1, 1, 1],
        [0, 1, 0, 0],
    ]
    found = comparison.cochran_q(correct)
    assert found.statistic == pytest.approx(4.2, abs=1e-06)
    assert found.df == 3


def test_delong_hanley_mcneil():
    # Ratings: Hanley and McNeil 1982, Radiology 143:29-36; DeLong line: Stata [R] roctab, hanley data
    y = np.repeat([0] * 5 + [1] * 5, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    ratings = np.repeat([1, 2, 3, 4, 5] * 2, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    found = rankings.delong(y, ratings)
    assert found.value == pytest.approx(0.8932, abs=5.1e-05)
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(0.0307, abs=5.1e-05)
    assert (found.low, found.high) == pytest.approx((0.83295, 0.95339), abs=5.1e-05)


def test_auc_and_average_precision():
    # scikit-learn 1.9.1 docstrings of roc_auc_score and average_precision_score (print 0.75, 0.83)
    y, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert rankings.delong(y, scores).value == pytest.approx(0.75, abs=1e-09)
    average_precision, _ = rankings.average_precision_influence(y == 1, scores)
    assert average_precision == pytest.approx(0.8333333333, abs=1e-09)


def test_f1_averages():
    # scikit-learn 1.9.1 f1_score docstring
    table = metrics.confusion_matrix([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], 3)
    for average, f1 in (
        ("macro", 0.26666666666666666),
        ("micro", 0.3333333333333333),
        ("weighted", 0.26666666666666666),
    ):
        assert metrics.precision_recall_f1(table, average)[2] == pytest.approx(f1, abs=1e-09)
    assert metrics.per_class_scores(table)["f1"] == pytest.approx([0.8, 0, 0], abs=1e-09)


def test_classification_report():
    # scikit-learn 1.9.1 classification_report docstring, which prints two digits
    table = metrics.confusion_matrix([0, 1, 2, 2, 2], [0, 0, 2, 2, 1], 3)
    assert metrics.from_confusion("accuracy", table) == pytest.approx(0.6, abs=0.0051)
    assert metrics.precision_recall_f1(table, "macro") == pytest.approx((0.5, 0.56, 0.49), abs=0.0051)
    assert metrics.precision_recall_f1(table, "weighted") == pytest.approx((0.7, 0.6, 0.61), abs=0.0051)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "mcc"),
    # scikit-learn 1.9.1 docstring (prints -0.33) and test_matthews_corrcoef_multiclass; labels -1, 1 are 0, 1
    [
        ([1, 1, 1, 0], [1, 0, 1, 1], -0.3333333333333333),
        ([0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0], -0.6123724356957946),
    ],
)
def test_mcc(y_true, y_pred, mcc):
    table = metrics.confusion_matrix(y_true, y_pred, 3 if 2 in y_true else 2)
    assert metrics.from_confusion("mcc", table) == pytest.approx(mcc, abs=1e-09)


def test_brier():
    # scikit-learn 1.9.1 brier_score_loss docstring
    p = np.array([0.1, 0.9, 0.8, 0.3])
    found = metrics.row_brier([0, 1, 1, 0], np.column_stack([1 - p, p])).mean()
    assert found == pytest.approx(0.0375, abs=1e-09)


def test_log_loss():
    # scikit-learn 1.9.1 log_loss docstring: spam, ham, ham, spam
    proba = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]
    assert metrics.row_loss([1, 0, 0, 1], proba).mean() == pytest.approx(0.21616, abs=5.1e-06)


def test_benjamini_hochberg():
    # SciPy test_morestats.py::TestFDRControl (TileStats)
    found = comparison.benjamini_hochberg([0.005, 0.009, 0.019, 0.022, 0.051, 0.101, 0.361, 0.387])
    assert found == pytest.approx([0.036, 0.036, 0.044, 0.044, 0.082, 0.135, 0.387, 0.387], abs=0.001)


@pytest.mark.parametrize(("method", "low", "high"), [("percentile", 28.86, 84.21), ("bca", 32.31, 91.43)])
def test_bootstrap_mean(method, low, high):
    # SciPy test_resampling.py::test_bootstrap_against_R (R boot, R = 1e6; rtol .005)
    x = [10.0, 12.0, 12.5, 12.5, 13.9, 15.0, 21.0, 22.0, 23.0, 34.0, 50.0, 81.0, 89.0, 121.0, 134.0, 213.0]
    found = resampling.bootstrap(x, method=method, n_resamples=100_000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.5)


def test_mcnemar_sample_size():
    # powerandsamplesize.com, McNemar Z-test, 1-sided (Connor 1987)
    assert comparison.mcnemar_sample_size(0.45, 0.05, alpha=0.05, power=0.9, sides=1) == 23


@pytest.mark.parametrize(("k", "sd"), [(2, 0.56419), (5, 1.16296), (10, 1.53875), (20, 1.86748)])
def test_best_of_k(k, sd):
    # Normal order statistics (Harter 1961, Biometrika 48:151-165)
    assert expected_best_of(k) == pytest.approx(sd, abs=6e-06)


def test_two_of_three_normals_by_arithmetic():
    # Closed forms: E max of 2 is 1 / sqrt(pi), of 3 is 3 / (2 sqrt(pi))
    assert expected_best_of(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert expected_best_of(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-9)


@pytest.mark.parametrize(("norm", "error"), [("l1", 0.29), ("l2", 0.2918), ("max", 0.3167)])
def test_calibration_error(norm, error):
    # torchmetrics 1.9.0 binary_calibration_error docstring: P(positive) in two bins of equal width
    p = np.array([0.25, 0.25, 0.55, 0.75, 0.75])
    found = expected_calibration_error([0, 0, 1, 1, 1], p, bins=2, norm=norm, binning="width")
    assert found == pytest.approx(error, abs=6e-05)


def test_calibration_error_does_not_mix_conventions():
    # Pavlovic 2023, first version, scored P(positive) against "prediction correct": .23778, which is wrong.
    # By hand, P(positive) against y in three bins: 2/9 |.185 - .5| + 3/9 |.4333 - 0| + 4/9 |.7725 - .75|
    p = np.array([0.22, 0.64, 0.92, 0.42, 0.51, 0.15, 0.7, 0.37, 0.83])
    found = expected_calibration_error([0, 1, 0, 0, 0, 1, 1, 0, 1], p, bins=3, norm="l1", binning="width")
    assert found == pytest.approx(0.22444, abs=6e-06)
    assert abs(found - 0.23778) > 0.01


@pytest.mark.parametrize(
    ("s", "p"),
    # Leskovec, Rajaraman and Ullman, MMDS, example 3.11 and figure 3.8: 20 bands of 5 rows
    [(0.2, 0.006), (0.3, 0.047), (0.4, 0.186), (0.5, 0.47), (0.6, 0.802), (0.7, 0.975), (0.8, 0.9996)],
)
def test_lsh_probability(s, p):
    assert lsh_probability(s, 20, 5) == pytest.approx(p, abs=0.00051)
