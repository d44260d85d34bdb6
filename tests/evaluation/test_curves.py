"""Power laws through points, against curves that are known and against arithmetic."""

import numpy as np
import pytest

from finetune_eval.evaluation.curves import Curves, PowerLaw, covariance_of_means

SIZES = (100, 200, 400, 800)


def curve_of(law, error=1e-3):
    return Curves(SIZES, tuple(law(n) for n in SIZES), np.eye(4) * error**2)


def test_a_power_law_by_hand():
    law = PowerLaw(0.1, 2.0, 0.5)
    assert law(100) == pytest.approx(0.1 + 2 / 10)
    assert law(400) == pytest.approx(0.1 + 2 / 20)


@pytest.mark.parametrize("law", [PowerLaw(0.1, 2.0, 0.5), PowerLaw(0.2, 1.0, 0.7), PowerLaw(0.02, 0.9, 0.25)])
def test_points_of_a_power_law_foretell_it(law):
    curves = curve_of(law)
    for n in (1600, 3200):
        middle, low, high = curves.quantiles(curves.errors_at(n), 0.95)
        assert low <= law(n) <= high
        assert middle == pytest.approx(law(n), abs=0.01)
    assert curves.fits
    assert curves.best(800) == pytest.approx(law(800), abs=0.005)


def test_rows_for_an_error_turn_the_curve_round():
    curves = curve_of(PowerLaw(0.1, 2.0, 0.5), error=1e-4)
    middle, low, high = curves.quantiles(curves.rows_for(0.15), 0.8)
    assert middle == pytest.approx(1600, rel=0.1)  # 0.1 + 2 / sqrt(1600)
    assert low <= middle <= high
    assert np.isinf(curves.quantiles(curves.rows_for(0.01), 0.8)[1])  # below every floor


def test_points_that_are_known_badly_leave_more_open():
    sure, unsure = curve_of(PowerLaw(0.1, 2.0, 0.5), 1e-3), curve_of(PowerLaw(0.1, 2.0, 0.5), 2e-2)
    widths = []
    for curves in (sure, unsure):
        _, low, high = curves.quantiles(curves.errors_at(3200), 0.8)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_points_off_a_power_law_are_said_to_be():
    assert not Curves(SIZES, (0.2, 0.4, 0.2, 0.1), np.eye(4) * 1e-4).fits


def test_the_covariance_of_means_by_hand():
    """Four rows, two sizes; both repeats score alike, so that nothing is left for the training rows."""
    scores = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    means = np.array([[0.5, 1.0], [0.5, 0.5]])
    found = covariance_of_means(scores, means, (10, 20), 25, None)
    # Sums of squares about the means 1/2 and 3/4: 1 and 3/4; of products: 1/2. Divided by 4 * 3.
    expected = np.array([[1 / 12, 1 / 24], [1 / 24, 1 / 16]]) + np.eye(2) * (0.5 / 4) ** 2
    excess = 0.125 - 2 * 1 / 16  # of the second size: what the repeats vary, less what their rows explain
    assert excess == 0
    assert found == pytest.approx(expected)


def test_training_rows_that_matter_widen_the_covariance():
    scores = np.tile([[1.0, 1.0], [0.0, 0.0]], (50, 1))
    alike, unlike = np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[0.2, 0.4], [0.8, 0.6]])
    small, large = (covariance_of_means(scores, means, (10, 20), 40, None) for means in (alike, unlike))
    assert np.diag(large)[0] > np.diag(large)[1] > np.diag(small)[1]
    assert large[0, 1] == small[0, 1]  # training rows vary by themselves


def test_rows_of_a_group_count_together():
    scores = np.repeat([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 5, axis=0)
    means = np.array([[0.5, 0.5], [0.5, 0.5]])
    alone = covariance_of_means(scores, means, (10, 20), 40, None)
    grouped = covariance_of_means(scores, means, (10, 20), 40, np.repeat(np.arange(4), 5))
    # Four independent groups of five: 5 times the variance, and 4/3 for 20/19.
    floor = (0.5 / 20) ** 2
    assert (grouped[0, 0] - floor) / (alone[0, 0] - floor) == pytest.approx(5 * (4 / 3) / (20 / 19))
