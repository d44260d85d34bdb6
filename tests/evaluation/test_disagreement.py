"""Why the model with more rows right has the higher loss: calibration, or how well probabilities separate."""

import numpy as np
import pytest

from finetune_eval import compare, evaluate_predictions
from finetune_eval.evaluation._paired_rows import ScoredRows
from finetune_eval.evaluation.disagreement import loss_parts


def scored(right, sure, **options):
    """Two classes in turn; row i is right as `right` says, and said with probability `sure`."""
    y = np.arange(len(right)) % 2
    return evaluate_predictions(
        y,
        np.where(right == (y == 1), sure, 1 - np.asarray(sure)),
        ids=np.arange(len(y)) + 5,
        baselines=False,
        **options,
    )


def note(a, b, **options):
    return compare(a, b, **options).notes[0]


i = np.arange(1000) // 2
RIGHT = i % 5 < 4  # 80 %


def test_two_calibrated_models_differ_by_how_well_they_separate():
    # A says .8 and is right in 80 % of rows. B says .999 in 58 % of rows and is always right there, and .5001
    # in the rest, where it is right in half: 79 % in all. Both keep what they say; the best T of A is 1.
    sure = i % 50 < 29
    a, b = scored(RIGHT, 0.8), scored(sure | (i % 2 == 0), np.where(sure, 0.999, 0.5001))
    assert a.accuracy > b.accuracy and a.loss > b.loss
    found = note(a, b)
    assert (
        "the temperature that fits A best on these rows is 1.00, which chance does not tell from 1" in found
    )
    assert "the probabilities of B separate right from wrong answers better" in found
    assert "would lower the loss" not in found and "is better calibrated" not in found


def test_an_over_confident_model_would_gain_from_a_temperature():
    # A is right in 80 % of rows and says .99: at .8 its loss is -.8 ln .8 - .2 ln .2 = .500. That is below
    # the .514 of B, which is right in 79 % of rows and says .8, and would do best with .79.
    a, b = scored(RIGHT, 0.99), scored(i % 100 < 79, 0.8)
    entropy = -0.79 * np.log(0.79) - 0.21 * np.log(0.21)
    parts = loss_parts(ScoredRows(a, "A"))
    assert parts.fitted == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2))
    # softmax(log p / T) of .99 is .8 where log(99) / T = log(4)
    assert parts.temperature == pytest.approx(np.log(99) / np.log(4), rel=1e-4)
    assert loss_parts(ScoredRows(b, "B")).fitted == pytest.approx(entropy)
    found = note(a, b)
    assert "A is over-confident: the temperature that fits A best on these rows is 3.31." in found
    assert (
        "has a loss of 0.500 (A) and 0.514 (B), so the lower loss of B is a matter of calibration." in found
    )
    assert "would lower the loss of A and change no decision" in found
    assert "is more than chance" in found and "The metric declared to decide is accuracy." in found


def test_part_of_a_difference_may_be_calibration():
    # As above, but B separates its rows too: sure and always right in half of them.
    sure = i % 2 == 0
    a, b = scored(RIGHT, 0.99), scored(sure | (i % 50 < 29), np.where(sure, 0.999, 0.6))
    found = note(a, b)
    whole, left = (
        a.loss - b.loss,
        loss_parts(ScoredRows(a, "A")).fitted - loss_parts(ScoredRows(b, "B")).fitted,
    )
    assert 0 < left < whole
    assert f"so {whole - left:.3f} of the difference of {whole:.3f} is a matter of calibration" in found
    assert "would lower the loss of A, not below that of B" in found


def test_a_difference_that_may_be_chance_says_so_and_agreement_says_nothing():
    right = np.arange(60) % 10 < 8
    a, b = scored(right, 0.93), scored(np.arange(60) % 20 < 15, 0.75)
    assert "may be chance" in note(a, b)
    assert "disagree" not in note(a, scored(np.arange(60) % 20 < 15, 0.93))


def test_nothing_is_said_of_calibration_where_it_is_not_measured():
    w = np.linspace(1, 2, 1000)
    a, b = scored(RIGHT, 0.99, sample_weight=w), scored(i % 100 < 79, 0.8, sample_weight=w)
    found = note(a, b)
    assert "has the lower loss" in found
    assert "calibration" not in found and "temperature" not in found
