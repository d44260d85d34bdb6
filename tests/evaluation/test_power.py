"""How large a difference a test detects: against simulated tests, and what is possible at all."""

import math

import numpy as np
import pytest

from finetune_eval import evaluate_predictions
from finetune_eval.evaluation.power import (
    detectable_sentence,
    mcnemar_power,
    mcnemar_sample_size,
    minimum_detectable_difference,
    planned_difference,
)
from finetune_eval.evaluation.significance import mcnemar


def test_power_is_what_a_simulation_of_the_test_finds():
    random = np.random.default_rng(2)
    for only_a, only_b, n in ((0.12, 0.05, 300), (0.25, 0.15, 200)):
        cells = random.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=3000)
        share = np.mean([mcnemar(int(a), int(b), method="chi2").p_value <= 0.05 for a, b, _ in cells])
        # 3,000 runs: standard deviation .009; Connor's approximation is good to about a point here.
        assert mcnemar_power(only_a, only_b, n) == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("a", "b"), [(0.1, 0.05), (0.45, 0.05), (0.02, 0.0)])
def test_sample_size_power_and_detectable_difference_agree(a, b, sides):
    n = mcnemar_sample_size(a, b, power=0.8, sides=sides)
    assert mcnemar_power(a, b, n, sides=sides) >= 0.8 - 1e-12
    if n > 2:
        assert mcnemar_power(a, b, n - 1, sides=sides) < 0.8
    found = minimum_detectable_difference(a + b, n, power=0.8, sides=sides)
    assert found <= abs(a - b) + 1e-9
    assert found == pytest.approx(abs(a - b), rel=0.05)


def test_the_detectable_difference_of_few_rows_is_everything():
    assert minimum_detectable_difference(0.5, 1) == 1.0


def test_a_difference_needs_at_least_as_much_disagreement():
    # Models that agreed on all 200 rows: a difference d takes disagreement d, and Connor's formula at 80 %
    # power is 200 d**2 = (1.95996 sqrt(d) + .84162 sqrt(d - d**2))**2.
    found = minimum_detectable_difference(0.0, 200)
    right = (1.95996 * math.sqrt(found) + 0.84162 * math.sqrt(found - found**2)) ** 2
    assert 200 * found**2 == pytest.approx(right, rel=1e-4)
    assert 0.03 < found < 0.05


def with_wrong(wrong, n, **keywords):
    p = np.where(np.arange(n) < wrong, 0.9, 0.1)
    return evaluate_predictions(np.zeros(n, int), p, labels=["a", "b"], baselines=False, **keywords)


@pytest.mark.parametrize(("wrong", "n"), [(0, 200), (2, 200), (30, 200), (100, 200), (170, 200), (200, 200)])
def test_the_planned_difference_is_possible(wrong, n):
    disagreement, difference = planned_difference(1 - wrong / n, n)
    # Half of the errors (or of the right answers, if fewer) in common: both models then differ on as many
    # rows as there are of these; two models cannot differ by more than they disagree.
    assert disagreement == pytest.approx(max(min(wrong, n - wrong) / n, 1 / n, difference))
    # n rows are what Connor's sample size asks for, to a row
    sides = (disagreement + difference) / 2, (disagreement - difference) / 2
    assert abs(mcnemar_sample_size(*sides) - n) <= 1


@pytest.mark.parametrize(
    ("wrong", "n", "sentence"),
    [
        (
            30,
            200,
            "Another model that is about 7.6 points better or worse in accuracy is told apart by a test on "
            "these 200 rows with 80 % probability (if the two disagree on 15 % of the rows). Smaller "
            "differences are found less often.",
        ),
        # 3.9 points above 98 % would be more than all rows
        (
            4,
            200,
            "about 3.9 points worse in accuracy is told apart by a test on these 200 rows with 80 % "
            "probability (if the two disagree on 3.9 % of the rows). Smaller",
        ),
        (0, 500, "about 1.6 points worse in accuracy"),
        (198, 200, "about 3.9 points better in accuracy"),
        (
            0,
            1,
            "A test on this one row detects no difference to another model, however large, with 80 % "
            "probability.",
        ),
        (
            2,
            4,
            "A test on these 4 rows detects no difference to another model, however large, with 80 % "
            "probability.",
        ),
    ],
)
def test_the_sentence_plans_what_can_be(wrong, n, sentence):
    assert sentence in detectable_sentence(with_wrong(wrong, n))
    assert sentence in " ".join(str(with_wrong(wrong, n)).split())


def test_no_difference_is_planned_where_rows_are_no_independent_equals():
    assert detectable_sentence(with_wrong(5, 20))
    for keywords in ({"sample_weight": [1, 2] * 10}, {"groups": np.arange(20) // 2}):
        assert detectable_sentence(with_wrong(5, 20, **keywords)) == ""


def test_bad_arguments_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"^`p_only_a` and `p_only_b` must differ; both are 0\.1, and no number of rows"
    ):
        mcnemar_sample_size(0.1, 0.1)
    with pytest.raises(
        ValueError, match=r"^`p_only_a` and `p_only_b` must add up to at most 1; got 0\.7 and 0\.6\.$"
    ):
        mcnemar_power(0.7, 0.6, 10)
    with pytest.raises(ValueError, match=r"^`sides` must be 1 or 2; got 3\.$"):
        mcnemar_power(0.1, 0.2, 10, sides=3)
