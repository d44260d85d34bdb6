"""Abstention against the binomial distribution; the risk-coverage curve against its formula."""

import dataclasses
import re

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

import finetune_eval as fe
from finetune_eval.evaluation.abstention import Abstention, choose_abstention
from finetune_eval.evaluation.goals import Goal, parse_error_goal, parse_goal
from finetune_eval.evaluation.intervals import wilson
from finetune_eval.evaluation.risk_coverage import risk_coverage
from finetune_eval.evaluation.thresholds import choose_threshold


def rows(n, seed, noise=0.0):
    """Two-class rows whose answer is right as often as its confidence says, less the noise."""
    random = np.random.default_rng(seed)
    confidence = (0.5 + 0.5 * random.random(n) ** 0.25).astype(np.float32)
    right = random.random(n) < confidence * (1 - noise)
    second = random.random(n) < 0.5
    return np.where(right, second, ~second).astype(int), np.where(second, confidence, 1 - confidence)


def by_hand(right, confidence, bound, alpha, starts):
    """The lowest confidence that fixed sequences of exact tests pass, from the surest row on; None: none."""
    order = np.argsort(-confidence)
    errors, passed = np.cumsum(~right[order]), []
    for level, start in starts:
        for k in range(start, len(order) + 1):
            if binom.cdf(errors[k - 1], k, bound) > level:
                break
            passed.append(k)
    return confidence[order][max(passed) - 1] if passed else None


def test_a_guaranteed_error_is_a_fixed_sequence_of_exact_tests():
    # 1,000 rows: 3.5 % of the 5 % from log(.035) / log(.95) = 65.4 rows on, the rest from 250, 500 and 1,000.
    starts, found = ((0.035, 66), (0.005, 250), (0.005, 500), (0.005, 1000)), 0
    for seed in range(8):
        y, p = rows(1000, seed)
        confidence = np.maximum(p, 1 - p)
        right = y == (p >= 0.5)
        expected = by_hand(right, confidence, 0.05, 0.05, starts)
        if expected is None:
            with pytest.raises(ValueError, match="is proven for no confidence"):
                choose_abstention(y, p)
            continue
        chosen, found = choose_abstention(y, p), found + 1
        kept = confidence >= chosen.value
        assert confidence[kept].min() == expected
        assert chosen.coverage == pytest.approx(kept.mean()) and chosen.answered == kept.sum()
        assert chosen.error == pytest.approx(1 - right[kept].mean())
        np.testing.assert_array_equal(kept.astype(int), confidence.astype(np.float64) >= chosen.value)
    assert found >= 3


def test_few_rows_have_one_sequence():
    # log(.05) / log(.95) = 58.4: 59 right answers show it, 58 do not.
    p = np.linspace(0.6, 0.99, 59)
    chosen = choose_abstention(np.ones(59, int), p)
    assert (chosen.value, chosen.coverage, chosen.error) == (0.0, 1.0, 0.0)  # every row is answered
    sentence = (
        "`goal` 'error<=0.05@95%' needs at least 59 rows to choose on, all of them answered rightly; there "
        "are 58."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        choose_abstention(np.ones(58, int), p[1:])


def test_a_point_estimate_answers_as_many_rows_as_keep_the_bound_and_says_what_it_is():
    y, p = rows(300, 1)
    confidence, right = np.maximum(p, 1 - p), y == (p >= 0.5)
    chosen = choose_abstention(y, p, goal="error<=0.05")
    allowed = [c for c in np.unique(confidence) if (confidence >= c).sum() >= 59 and
               (~right)[confidence >= c].mean() <= 0.05]  # fmt: skip
    assert confidence[confidence >= chosen.value].min() == min(allowed)
    assert "This is a point estimate" in chosen.promise and '"error<=0.05@95%"' in chosen.promise


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_guarantee_is_missed_in_one_of_twenty_choices_at_most(noise):
    # The true error from a confidence c on is that of 200,000 other rows.
    y, p = rows(200_000, 99, noise=noise)
    confidence, right = np.maximum(p, 1 - p), y == (p >= 0.5)
    missed = tried = 0
    for seed in range(150):
        try:
            value = choose_abstention(*rows(400, seed, noise=noise)).value
        except ValueError:
            continue
        tried += 1
        missed += (~right)[confidence >= value].mean() > 0.05
    assert tried >= 10
    assert missed <= binom.ppf(0.999, 150, 0.05)


def test_answers_by_a_threshold_are_judged_as_such():
    y, p = rows(400, 5)
    cut = choose_threshold(y, p, goal="recall>=0.95")
    chosen = choose_abstention(y, p, goal="error<=0.2", threshold=cut)
    given = (p >= cut.value).astype(int)
    confidence = np.where(given == 1, p, 1 - p)
    kept = confidence >= chosen.value
    assert chosen.threshold == cut.value
    assert chosen.error == pytest.approx((given != y)[kept].mean())
    with pytest.raises(ValueError, match=r"^`threshold` needs exactly two classes; got 3 classes\.$"):
        choose_abstention([0, 1, 2], np.full((3, 3), 1 / 3), threshold=0.4)


def test_weights_count_in_a_point_estimate_and_are_refused_in_a_guarantee():
    y, p = rows(200, 7)
    weights = np.where(np.arange(200) < 100, 1.0, 0.0)
    once = choose_abstention(y[:100], p[:100], goal="error<=0.1")
    half = choose_abstention(y, p, goal="error<=0.1", sample_weight=weights)
    confidence = np.maximum(p, 1 - p)[:100]
    np.testing.assert_array_equal(confidence >= once.value, confidence >= half.value)
    assert (half.error, half.coverage) == pytest.approx((once.error, once.coverage))
    with pytest.raises(ValueError, match="needs rows that count alike"):
        choose_abstention(y, p, sample_weight=weights)


@pytest.mark.parametrize(
    ("y", "p", "goal", "sentence"),
    [
        (
            np.r_[np.ones(90, int), np.zeros(10, int)], np.full(100, 0.9), "error<=0.05",
            "The goal 'error<=0.05' is reached by no confidence from which 59 rows or more are answered, the "
            "fewest that could show it; the lowest error there is 0.1.",
        ),
        (
            np.r_[np.ones(97, int), np.zeros(3, int)], np.full(100, 0.9), "error<=0.05@95%",
            "The goal 'error<=0.05@95%' is proven for no confidence: of those from which 59 rows or more are "
            "answered, the lowest error is 0.030, on 100 rows. About ",
        ),
        (
            np.r_[np.ones(94, int), np.zeros(6, int)], np.full(100, 0.9), "error<=0.05@95%",
            "The goal 'error<=0.05@95%' is proven for no confidence: of those from which 59 rows or more are "
            "answered, the lowest error is 0.060. Allow more, or use a better model.",
        ),
        (np.zeros(60, int), np.full(60, 0.9), "error<=0.05@95%",
         "The goal 'error<=0.05@95%' is reached by no confidence: no answer is right."),
    ],
)  # fmt: skip
def test_what_is_out_of_reach_is_one_sentence(y, p, goal, sentence):
    with pytest.raises(ValueError) as said:
        choose_abstention(y, p, goal=goal)
    assert str(said.value).startswith(sentence)


def test_the_rows_that_it_would_take_show_it():
    y, p = np.r_[np.ones(97, int), np.zeros(3, int)], np.full(100, 0.9)
    with pytest.raises(ValueError, match=r"About ([\d,]+) rows like these 100 would show it") as said:
        choose_abstention(y, p)
    rows_needed = int(re.search(r"About ([\d,]+)", str(said.value))[1].replace(",", ""))
    assert binom.cdf(round(0.03 * rows_needed), rows_needed, 0.05) <= 0.06
    assert binom.cdf(round(0.03 * rows_needed / 2), rows_needed // 2, 0.05) > 0.05


def test_goals_are_read():
    assert parse_error_goal("error <= 5 % @ 90 %") == Goal("error", 0.05, 0.9)
    for goal, sentence in {
        "recall>=0.9": "`goal` must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got "
        "'recall>=0.9'. `threshold_for` takes other goals.",
        "error>=0.05": "`goal` must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got "
        "'error>=0.05'.",
        5: "`goal` must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got 5.",
        "error<=0": "`goal` must allow an error above 0 and below 1; got 'error<=0'.",
        "error<=0.1@40%": "`goal` must ask for a confidence of at least 50 % and under 100 %; got "
        "'error<=0.1@40%'.",
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            parse_error_goal(goal)
    with pytest.raises(ValueError, match="the rows that are answered: `abstain_for` and choose"):
        parse_goal("error<=0.05@95%")
    with pytest.raises(ValueError, match="^`goal` must be one of 'f1'"):
        parse_goal("recall<=0.9")


# --- the curve ---


@pytest.mark.parametrize("tied", [False, True])
def test_the_augrc_is_that_of_its_formula(tied):
    # Traub et al. 2024: AUGRC = (1 - AUROC_f) acc (1 - acc) + (1 - acc)^2 / 2.
    y, p = rows(500, 3)
    confidence, right = np.maximum(p, 1 - p), y == (p >= 0.5)
    confidence = np.round(confidence, 1) if tied else confidence
    accuracy, auroc = right.mean(), roc_auc_score(right, confidence)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    found = risk_coverage(right, confidence).augrc
    assert found.value == pytest.approx(expected) and found.low < expected < found.high
    again = risk_coverage(np.tile(right, 2), np.tile(confidence, 2), groups=np.tile(np.arange(500), 2)).augrc
    assert (again.value, again.low, again.high) == pytest.approx(
        (found.value, found.low, found.high), rel=2e-3
    )
    weighted = risk_coverage(right, confidence, weights=np.where(np.arange(500) < 300, 2.0, 0.0)).augrc
    part = risk_coverage(right[:300], confidence[:300]).augrc
    assert weighted.value == pytest.approx(part.value)
    assert (weighted.low, weighted.high) == pytest.approx((part.low, part.high))


def test_each_point_of_the_curve_is_a_share_with_wilsons_interval():
    y, p = rows(400, 2)
    confidence, right = np.maximum(p, 1 - p), y == (p >= 0.5)
    curve = risk_coverage(right, confidence)
    assert [point.coverage for point in curve.points] == pytest.approx(np.arange(1, 21) / 20)
    half = curve.points[9]
    surest = np.argsort(-confidence)[:200]
    expected = wilson(int((~right)[surest].sum()), 200)
    assert half.confidence == confidence[surest].min()
    assert (half.error.value, half.error.low, half.error.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert curve.to_frame().shape == (20, 5)
    assert str(curve).splitlines()[10].startswith("   0.500 ")


@pytest.mark.parametrize("right", [np.ones(50, bool), np.zeros(50, bool), np.arange(50) > 0])
def test_no_interval_of_an_area_has_zero_width_or_leaves_its_range(right):
    area = risk_coverage(right, np.linspace(0.5, 0.9, 50)).augrc
    assert 0 <= area.low <= area.value <= area.high <= 0.5 and area.low < area.high
    if right.all():  # Clopper-Pearson: at most u = 1 - .025^(1/50) are wrong; these first: u - u^2 / 2
        u = 1 - 0.025 ** (1 / 50)
        assert area.high == pytest.approx(u - u**2 / 2)


# --- in an evaluation ---


def test_an_evaluation_tells_what_is_answered_and_is_kept(tmp_path):
    y, p = rows(1000, 11)
    chosen = choose_abstention(y, p)
    new_y, new_p = rows(500, 12)
    result = fe.evaluate_predictions(new_y, new_p, labels=["no", "yes"], abstention=chosen)
    confidence, right = np.maximum(new_p, 1 - new_p), new_y == (new_p >= 0.5)
    kept = confidence >= chosen.value
    found = result.answered
    expected = wilson(int((~right)[kept].sum()), int(kept.sum()))
    assert found.n == kept.sum() and found.coverage.value == pytest.approx(kept.mean())
    assert (found.error.value, found.error.high) == pytest.approx((expected.value, expected.high))
    assert result.accuracy == pytest.approx(right.mean())  # of every row
    words = " ".join(str(result).split())
    assert f"Here {found.n} of 500 rows are answered: coverage {found.coverage}" in words
    assert "With 95 % confidence the true error of what is answered is at most 0.05" in words
    result.save(tmp_path)
    again = fe.Evaluation.load(tmp_path)
    assert again == result and again.answered == found
    assert again.risk_coverage.augrc.value == pytest.approx(risk_coverage(right, confidence).augrc.value)
    same = fe.evaluate_predictions(y, p, abstention=chosen)
    assert any("chosen on these very rows" in sentence for sentence in same.warnings)


def test_weights_and_groups_widen_what_is_answered():
    y, p = rows(600, 21)
    plain = fe.evaluate_predictions(y, p, abstention=0.9).answered
    grouped = fe.evaluate_predictions(
        np.repeat(y, 3), np.repeat(p, 3), groups=np.repeat(np.arange(600), 3), abstention=0.9
    ).answered
    assert grouped.error.value == pytest.approx(plain.error.value)
    assert (grouped.error.low, grouped.error.high) == pytest.approx(
        (plain.error.low, plain.error.high), rel=0.05
    )


def test_an_evaluation_refuses_what_has_no_confidence():
    y, p = [0, 1, 1, 0], [0.2, 0.9, 0.4, 0.3]
    with pytest.raises(ValueError, match=r"^`abstention` needs probabilities; leave it out"):
        fe.evaluate_predictions(y, predicted=y, abstention=0.8)
    with pytest.raises(ValueError, match=r"^`abstention` is of rows with one label each"):
        fe.evaluate_predictions([[0, 1]], [[0.1, 0.9]], task="multilabel", abstention=0.8)
    with pytest.raises(ValueError, match=r"^`abstention` must be a finite number at least 0 and below 1"):
        fe.evaluate_predictions(y, p, abstention=1.0)
    chosen = Abstention(0.8, "error<=0.1@95%", 100, 80, 0.8, 0.02, "0", threshold=0.3)
    with pytest.raises(ValueError, match="chosen for answers with a threshold of 0.3, and these have no thr"):
        fe.evaluate_predictions(y, p, abstention=chosen)
    assert fe.evaluate_predictions(y, p, threshold=0.3, abstention=chosen).answered.confidence == 0.8
    nothing = fe.evaluate_predictions(y, p, abstention=0.95)
    assert nothing.answered.error is None and "Here none of the 4 rows is answered." in " ".join(
        str(nothing).split()
    )
    with pytest.raises(ValueError, match=r"^`evaluation` must have probabilities; this model gave answers o"):
        _ = fe.evaluate_predictions(y, predicted=y).risk_coverage


def test_a_model_that_withholds_answers_is_evaluated_as_such():
    class Model:
        labels, threshold, abstention = ("no", "yes"), None, 0.8

        def predict(self, x):
            return np.column_stack([1 - x[:, 0], x[:, 0]])

    y, p = rows(100, 31)
    result = fe.evaluate(Model(), p[:, None], y)
    assert result.answered.n == (np.maximum(p, 1 - p) >= 0.8).sum()
    other = fe.evaluate(Model(), p[:, None], y, threshold=0.3)
    assert other.answered is None
    assert any("The model withholds unsure answers" in sentence for sentence in other.warnings)


def test_the_record_says_where_it_came_from():
    y, p = rows(1000, 11)
    chosen = choose_abstention(y, p)
    assert dataclasses.replace(chosen, value=0.75).origin == (
        "chosen for error<=0.05@95% on 1,000 rows. With 95 % confidence the true error of what is answered "
        "is at most 0.05, for rows from the same source"
    )
    assert float(chosen) == chosen.value
