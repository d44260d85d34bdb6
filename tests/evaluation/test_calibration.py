"""Calibration, against torchmetrics' and scikit-learn's figures, closed forms and planted truths."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from finetune_eval.evaluation.calibration import (
    apply_temperature,
    brier_decomposition,
    calibrate,
    debiased_calibration_error,
    expected_calibration_error,
    fit_temperature,
    null_calibration_error,
)

TRAP = [0.22, 0.64, 0.92, 0.42, 0.51, 0.15, 0.70, 0.37, 0.83], [0, 1, 0, 0, 0, 1, 1, 0, 1]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibrated(n, classes=2, seed=0, sharpness=2.0):
    """Rows whose labels are drawn from their probabilities: perfect calibration by construction."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(n, classes))
    p = softmax(logits)
    y = (random.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    return np.minimum(y, classes - 1), p, logits


@pytest.mark.parametrize(("norm", "expected"), [("l1", 0.29), ("l2", 0.2918), ("max", 0.3167)])
def test_torchmetrics_docstring(norm, expected):
    # torchmetrics 1.9.0, docstring of binary_calibration_error
    p, y = [0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1]
    assert expected_calibration_error(y, p, bins=2, norm=norm) == pytest.approx(expected, abs=6e-5)


def test_the_two_conventions_are_not_mixed():
    # Pavlovic 2023, first version of the blog post, has .23778 from P(positive) against "is right": wrong.
    # P(positive) against y: bins [0, 1/3): .22 .15 with 0 1; [1/3, 2/3): .64 .42 .51 .37 with 1 0 0 0;
    # [2/3, 1]: .92 .70 .83 with 0 1 1. Gaps times rows: |1 - .37| + |1 - 1.94| + |2 - 2.45| = 2.02; / 9.
    p, y = TRAP
    assert expected_calibration_error(y, p, bins=3) == pytest.approx(2.02 / 9)
    assert expected_calibration_error(y, p, bins=3) == pytest.approx(0.22444, abs=6e-6)
    # Top: .78 .64 .92 .58 .51 .85 .70 .63 .83, right 1 1 0 1 0 0 1 1 1; [1/3, 2/3): .64 .58 .51 .63 with
    # 1 1 0 1, [2/3, 1]: .78 .92 .85 .70 .83 with 1 0 0 1 1: |3 - 2.36| + |3 - 4.08| = 1.72; / 9.
    assert expected_calibration_error(y, p, bins=3, event="top") == pytest.approx(1.72 / 9)
    assert expected_calibration_error(y, p, bins=3, event="top") == pytest.approx(0.19111, abs=6e-6)
    for event in ("positive", "top"):
        assert abs(expected_calibration_error(y, p, bins=3, event=event) - 0.23778) > 0.01


def test_one_column_two_columns_and_names_are_the_same():
    p, y = TRAP
    two = np.column_stack([1 - np.array(p), p])
    assert expected_calibration_error(y, two, bins=3) == pytest.approx(
        expected_calibration_error(y, p, bins=3)
    )


def test_equal_mass_bins_hold_equally_many_rows_and_never_split_ties():
    y, p, _ = calibrated(1000)
    assert {one.n for one in calibrate(y, p, bins=10).bins} == {100}
    tied = calibrate([0, 1] * 50, [0.3] * 60 + [0.6] * 40, bins=10)
    assert [(one.n, one.low, one.high) for one in tied.bins] == [(60, 0.3, 0.3), (40, 0.6, 0.6)]


@pytest.mark.parametrize("classes", [2, 4])
def test_a_row_of_weight_three_counts_like_three_rows(classes):
    y, p, _ = calibrated(300, classes=classes)
    weights = np.random.default_rng(2).integers(0, 4, 300)
    more = np.repeat(y, weights), np.repeat(p, weights, axis=0)
    for norm in ("l1", "l2", "max"):
        assert expected_calibration_error(y, p, norm=norm, sample_weight=weights) == pytest.approx(
            expected_calibration_error(*more, norm=norm)
        )
    ours = brier_decomposition(y, p, binning="width", sample_weight=weights)
    theirs = brier_decomposition(*more, binning="width")
    for name in ("brier", "reliability", "resolution", "uncertainty", "within"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-12), name
    assert sum(one.share for one in calibrate(y, p, sample_weight=weights).bins) == pytest.approx(1)


def test_weighted_calibration_has_the_null_level_of_weighted_rows():
    # Rows of unequal weight are worth fewer: the null level must grow, and truly calibrated rows must stay
    # under its 95th percentile in 95 % of the cases.
    alarms = []
    for seed in range(200):
        y, p, _ = calibrated(300, seed=seed)
        weights = np.random.default_rng(seed).lognormal(0, 1, 300)
        found = calibrate(y, p, sample_weight=weights, n_resamples=200, seed=seed)
        alarms.append(found.ece > found.null_high)
    assert found.null > calibrate(y, p, n_resamples=200, bins=len(found.bins)).null
    # The noise of a share of .05 of 200 is .0154; the percentile of 200 simulations has some of its own.
    assert np.mean(alarms) <= 0.05 + 2.5 * 0.0154


def test_equal_weights_are_no_weights():
    y, p, _ = calibrated(400, classes=3)
    plain, weighted = calibrate(y, p), calibrate(y, p, sample_weight=np.full(400, 0.3))
    assert (plain.ece, plain.debiased, plain.null, plain.null_high) == pytest.approx(
        (weighted.ece, weighted.debiased, weighted.null, weighted.null_high)
    )
    for one, other in zip(plain.bins, weighted.bins, strict=True):
        assert (one.n, one.observed.low) == (other.n, pytest.approx(other.observed.low))


def test_null_level_is_the_closed_form():
    # Twenty bins of 500 rows with p = .8: gaps are normal with s = sqrt(.8 * .2 / 500) = .017889 and mean
    # |gap| = s sqrt(2 / pi) = .014273. Rows are told apart by a trace so that the bins are 20.
    p = 0.8 + np.linspace(-1e-6, 1e-6, 10_000)
    null = null_calibration_error(np.ones(10_000), p, bins=20, n_resamples=400)
    assert null.mean() == pytest.approx(0.014273, rel=0.03)
    assert null.std() / math.sqrt(400) < 0.0003


def test_normal_and_row_by_row_simulation_agree(monkeypatch):
    y, p, _ = calibrated(2000)
    by_row = null_calibration_error(y, p, n_resamples=500)
    monkeypatch.setattr("finetune_eval.evaluation._reliability._MANY_DRAWS", 0)
    normal = null_calibration_error(y, p, n_resamples=500)
    assert normal.mean() == pytest.approx(by_row.mean(), rel=0.03)
    assert np.quantile(normal, 0.95) == pytest.approx(np.quantile(by_row, 0.95), rel=0.06)


@pytest.mark.parametrize(("n", "level"), [(200, 0.058), (1000, 0.026), (10_000, 0.009)])
def test_null_level_of_a_good_classifier(n, level):
    # "A perfectly calibrated model with 15 bins shows about .058 at n = 200, .026 at 1,000, .009 at 10,000";
    # one spread of the logits gives all three.
    y, p, _ = calibrated(n, sharpness=1.8)
    null = null_calibration_error(y, p, bins=15, event="top", binning="width", n_resamples=300)
    assert null.mean() == pytest.approx(level, abs=0.0015)


def test_debiased_error_is_near_zero_where_the_plain_one_is_not():
    plain, debiased, null = [], [], []
    for seed in range(60):
        y, p, _ = calibrated(200, seed=seed)
        plain.append(expected_calibration_error(y, p, binning="mass", norm="l2"))
        debiased.append(debiased_calibration_error(y, p, norm="l2"))
        null.append(null_calibration_error(y, p, norm="l2", n_resamples=50).mean())
        assert debiased_calibration_error(y, p) < expected_calibration_error(y, p, binning="mass")
    assert np.mean(plain) == pytest.approx(np.mean(null), rel=0.08)  # perfect rows show the null level
    # Unbiased squares that are cut off at 0: what is left is half of their spread, not their mean.
    assert np.mean(debiased) < np.mean(plain) / 3


def test_debiased_error_finds_a_planted_one():
    # Every probability is .1 too high: the error is .1.
    random = np.random.default_rng(0)
    p = random.uniform(0.2, 0.9, 40_000)
    y = random.random(40_000) < p - 0.1
    for norm in ("l1", "l2"):
        assert debiased_calibration_error(y, p, norm=norm) == pytest.approx(0.1, abs=0.006)


def test_debiased_l2_is_kumars_formula():
    # Two bins of four rows: p .25, one of four true: gap 0, noise (1/4)(3/4)/3 = 1/16;
    # p .5, all true: gap 1/2, noise 0. Sum: (0 - 1/16) / 2 + (1/4) / 2 = 3/32.
    y, p = [1, 0, 0, 0, 1, 1, 1, 1], [0.25] * 4 + [0.5] * 4
    assert debiased_calibration_error(y, p, bins=2, norm="l2") == pytest.approx(math.sqrt(3 / 32))


def test_brier_is_scikit_learns_and_its_parts_add_up():
    y, p = [0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3]
    assert brier_decomposition(y, p).brier == pytest.approx(brier_score_loss(y, p))
    y, p, _ = calibrated(500, classes=4)
    parts = brier_decomposition(y, p)
    assert parts.brier == pytest.approx(brier_score_loss(y, p))
    assert parts.brier == pytest.approx(
        parts.reliability - parts.resolution + parts.uncertainty + parts.within
    )
    # uncertainty = sum over classes of base (1 - base)
    base = np.bincount(y) / 500
    assert parts.uncertainty == pytest.approx((base * (1 - base)).sum())


def test_murphys_parts_by_hand():
    # Ten rows at .2 of which 4 come true, ten at .8 of which 8 do; 12 of 20 in all.
    # reliability = (.2^2 + 0) / 2 = .02; resolution = (.2^2 + .2^2) / 2 = .04; uncertainty = .6 * .4 = .24.
    y = [1] * 4 + [0] * 6 + [1] * 8 + [0] * 2
    parts = brier_decomposition(y, [0.2] * 10 + [0.8] * 10, bins=2)
    assert (parts.reliability, parts.resolution, parts.uncertainty) == pytest.approx((0.02, 0.04, 0.24))
    assert parts.within == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_planted_temperature_is_found(classes, truth):
    y, _, logits = calibrated(20_000, classes=classes)
    assert fit_temperature(y, softmax(logits * truth)) == pytest.approx(truth, rel=0.05)


def test_temperature_minimises_scikit_learns_log_loss():
    y, _, logits = calibrated(300, classes=3)
    p = softmax(logits * 2)
    best = minimize_scalar(
        lambda t: log_loss(y, softmax(np.log(p) / t)),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-8},
    )
    assert fit_temperature(y, p) == pytest.approx(best.x, abs=1e-5)
    np.testing.assert_allclose(apply_temperature(p, 2.0), softmax(logits), atol=1e-12)


def test_temperature_of_rows_all_right_or_all_wrong_is_bounded():
    assert fit_temperature([0, 1], [0.1, 0.9]) == 0.05
    assert fit_temperature([1, 0], [0.1, 0.9]) == 1000.0
    assert fit_temperature([1, 0], [0.5, 0.5]) == 1.0  # every T gives the same
    p = apply_temperature([[1.0, 0.0], [0.0, 1.0]], 2.0)
    assert np.isfinite(p).all()


def test_verdicts():
    y, p, logits = calibrated(5000, classes=3, seed=1)
    assert calibrate(y, p).verdict.startswith(
        "No miscalibration detected: calibration error (mean gap to what came true) 0.0"
    )
    over = calibrate(y, softmax(3 * logits))
    assert over.verdict.startswith(
        f"Over-confident: the predicted class has a probability of {over.predicted:.3f} on average and is "
        f"right in {over.observed:.3f} of the rows; high probabilities are too high, compared with the low"
    )
    assert calibrate(y, softmax(logits / 3)).verdict.startswith("Under-confident: the predicted class has")
    assert max(map(len, str(calibrate(y, p)).splitlines()[1:])) <= 80


def test_verdicts_of_two_classes_name_the_direction():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 2000)
    y = (random.random(2000) < 1 / (1 + np.exp(-odds))).astype(int)

    def said(odds):
        return calibrate(y, 1 / (1 + np.exp(-odds)), positive="'spam'").verdict

    assert said(odds).startswith(
        "No miscalibration detected: calibration error (mean gap to what came true) 0.0"
    )
    assert said(2 * odds).startswith("Over-confident: the probabilities are too near 0 and 1 (p ")
    assert said(odds / 2).startswith("Under-confident: the probabilities are not near enough to 0 and 1 (p ")
    assert re.match(
        r"Miscalibrated: the probabilities of 'spam' are too high on average, 0\.\d+ where 0\.\d+ came true "
        r"\(p . 0\.00\d\)\. Calibration error \(mean gap to what came true\) 0\.\d+; perfect "
        r"probabilities would show 0\.\d+ on average, and up to 0\.\d+ in 19 of 20 cases\.$",
        said(odds + 0.7),
    )
    both = said(2 * odds - 1.5)
    assert both.startswith(
        "Over-confident: the probabilities are too near 0 and 1; those of 'spam' are too low"
    )


def test_a_percentile_is_called_one():
    # What perfect probabilities show is above the 95th percentile in one set of 20: never "at most".
    y, p, logits = calibrated(300, seed=3)
    found = calibrate(y, softmax(2.5 * logits))
    null = null_calibration_error(y, softmax(2.5 * logits), n_resamples=2000, seed=1)
    # A share of .05 of 1,000 and one of 2,000 sets have standard errors of .0069 and .0049, together .0085.
    assert np.mean(null > found.null_high) == pytest.approx(0.05, abs=3 * 0.0085)
    for made in (found, calibrate(y, p)):
        assert made.verdict.endswith(f"and up to {made.null_high:.3f} in 19 of 20 cases.")


def test_under_confident_probabilities_are_found_on_200_rows():
    # T = 1.5 (too timid). Spiegelhalter's z, which is made for it, finds .59-.68 of such sets (independent
    # simulation), the calibration error alone .08-.11; the joint test must be far from that: .46 of 2,000.
    found = error = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        p = random.uniform(1e-6, 1, 200)
        odds = np.log(p / (1 - p))
        made = calibrate(random.random(200) < p, 1 / (1 + np.exp(-odds / 1.5)), n_resamples=200, seed=seed)
        found += made.deviation.spread < 0 and made.deviation.p_value <= 0.05
        error += made.ece > made.null_high
    assert found >= 33 and found > 2 * error  # .46 less 2.6 standard errors of a share of 100


@pytest.mark.parametrize(
    "draw",
    [
        lambda random: 1 / (1 + np.exp(-random.normal(-4.2, 1.3, 200))),  # 3 % positive
        lambda random: np.round(random.random(150), 1),  # tied, 0 and 1 among them
        lambda random: random.choice([0.0, 0.3, 1.0], 60),
        lambda random: random.beta(0.4, 0.4, 40),
    ],
)
def test_the_level_of_the_joint_test_is_that_of_one(draw):
    alarms = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        p = draw(random)
        made = calibrate(random.random(len(p)) < p, p, n_resamples=99, seed=seed)
        alarms += made.deviation.p_value <= 0.05
    assert alarms <= 19  # 10 of 200 expected; the noise of the count is 3.1


def test_probabilities_of_zero_and_one_that_are_wrong_are_over_confident():
    found = calibrate([0] * 38 + [1] * 42, [0.0] * 40 + [1.0] * 40).deviation
    # Perfect forecasts of 0 and 1 are never wrong: each of 1,000 simulated sets has an error of 0. The two
    # wrong rows were both given 0, so that the forecasts are too low on average as well.
    assert (found.p_value, found.shift, found.spread) == (1 / 1001, -1, 1)
    assert calibrate([0, 1], [0.0, 1.0]).deviation.p_value == 1.0


def test_temperature_of_zeros_and_ones():
    # log 0 counts as log 2^-126 = -87.34, so that a row wrong costs 87.34 / T and a right one nothing but
    # log(1 + e^(-87.34 / T)): best where 1 / (1 + e^(87.34 / T)) is the share of wrong rows, 2 of 80.
    p = [[1.0, 0.0]] * 40 + [[0.0, 1.0]] * 40
    expected = 126 * math.log(2) / math.log(78 / 2)
    assert fit_temperature([0] * 38 + [1] * 42, p) == pytest.approx(expected, rel=1e-6)
    assert expected > 20


def test_calibrated_models_are_seldom_called_miscalibrated():
    called = sum(
        calibrate(*calibrated(150, seed=seed)[:2], n_resamples=200).deviation.p_value <= 0.05
        for seed in range(100)
    )
    assert called <= 12  # 5 % of 100, and three standard errors of the count: 5 + 3 * 2.2


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"norm": "sum"}, "`norm` must be one of 'l1', 'l2', 'max'; got 'sum'."),
        (
            {"binning": "widht"},
            "`binning` must be one of 'width', 'mass'; got 'widht'. Did you mean 'width'?",
        ),
        ({"bins": 0}, "`bins` must be at least 1; got 0."),
        ({"event": "positive"}, "`event` 'positive' needs two classes; got 3. Use 'top'."),
    ],
)
def test_bad_arguments(keywords, message):
    with pytest.raises(ValueError) as error:
        expected_calibration_error([0, 1], [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], **keywords)
    assert str(error.value) == message


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 20))
def test_errors_are_ordered_and_in_range(rows, bins):
    y, p = map(list, zip(*rows, strict=True))
    for binning in ("width", "mass"):
        l1, l2, most = (
            expected_calibration_error(y, p, bins=bins, norm=norm, binning=binning)
            for norm in ("l1", "l2", "max")
        )
        # Jensen: the mean of the gaps is at most the root of the mean of their squares, at most the largest.
        assert -1e-12 <= l1 <= l2 + 1e-9 and l2 <= most + 1e-9 and most <= 1
        assert debiased_calibration_error(y, p, bins=bins, binning=binning) <= l2 + 1e-9
    assert 0 <= calibrate(y, p, n_resamples=20).null <= 1
    assert 0.05 <= fit_temperature(y, p) <= 1000
