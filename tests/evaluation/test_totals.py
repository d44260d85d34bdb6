"""What totals alone can say about two models."""

import pytest
import scipy.stats

from finetune_eval.evaluation.proportions import paired_difference
from finetune_eval.evaluation.totals import compare_totals


def test_totals_alone():
    found = compare_totals(180, 170, 200, loss_a=0.25, loss_b=0.20)
    assert found.both_wrong == (0, 20)
    # Exact McNemar of 30 against 20, and of 10 against 0 (2 / 2**10)
    assert found.p_values[0] == pytest.approx(scipy.stats.binomtest(20, 50).pvalue)
    assert found.p_values[0] == pytest.approx(0.203, abs=5e-4)
    assert found.p_values[20] == pytest.approx(2 / 2**10)
    assert found.significant_from == 15
    assert found.p_values[14] > 0.05 >= found.p_values[15]
    for difference, cells in zip(found.differences, ((150, 30, 20, 0), (170, 10, 0, 20)), strict=True):
        expected = paired_difference(*cells, method="tango")
        assert (difference.low, difference.high) == (expected.low, expected.high)
    assert found.verdict == (
        "These totals cannot tell whether the difference is more than chance: accuracy 0.900 against 0.850 "
        "on 200 rows; p may be anything from 0.002 to 0.203, and is at most 0.05 only if at least 15 rows "
        "are wrong in both."
    )
    assert max(map(len, str(found).splitlines())) <= 80


def test_totals_do_not_tell_why_loss_and_accuracy_disagree():
    notes = " ".join(compare_totals(180, 170, 200, loss_a=0.25, loss_b=0.20).notes)
    assert "A has more rows right (0.900 against 0.850), B has the lower loss (0.200 against 0.250)" in notes
    assert "totals cannot say; `compare` can." in notes
    assert "is better calibrated" not in notes and "would lower the loss" not in notes
    assert "disagree" not in " ".join(compare_totals(180, 170, 200, loss_a=0.20, loss_b=0.25).notes)


@pytest.mark.parametrize("method", ["exact", "midp"])
def test_the_intervals_agree_with_the_test(method):
    for right in ((180, 170, 200), (96, 92, 100), (20, 14, 20), (995, 990, 1000)):
        found = compare_totals(*right, method=method)
        for p, difference in zip((found.p_values[0], found.p_values[-1]), found.differences, strict=True):
            assert (p <= 0.05) == (difference.low > 0)


def test_totals_that_decide():
    assert compare_totals(100, 100, 200).verdict.startswith("A and B cannot be told apart: ")
    assert compare_totals(20, 180, 200).verdict.startswith("B is better than A: ")


def test_bad_arguments_are_one_sentence():
    with pytest.raises(ValueError, match=r"^`right_a` must be at most `n`; got 7 of 5\.$"):
        compare_totals(7, 3, 5)
    with pytest.raises(ValueError, match=r"^`loss_b` must be a finite number at least 0; got nan\.$"):
        compare_totals(5, 3, 5, loss_a=0.1, loss_b=float("nan"))
