"""Prediction sets against arithmetic, and their coverage against the beta distribution."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, kstest

import finetune_eval as fe
from finetune_eval.evaluation.prediction_sets import fit_sets


def rows(n, seed, classes=3):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.7), size=n)
    y = np.array([random.choice(classes, p=row) for row in p])
    return y, p


def test_the_sets_are_those_of_the_quantile_by_hand():
    # 9 rows, alpha 0.2: k = ceil(10 * 0.8) = 8, and 0.2 is the 8th largest probability of the true class.
    true = np.array([0.95, 0.9, 0.79, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1])
    result = fe.evaluate_predictions([1] * 9, true, labels=["a", "b"])
    sets = result.prediction_sets(0.2)
    (part,) = sets.parts
    assert (part.n, part.probability, part.coverage.value) == (9, 0.2, 0.8)
    new = np.array([0.1, 0.2, 0.5, 0.79, 0.81])
    assert sets.apply(new).tolist() == [
        [True, False], [True, True], [True, True], [True, True], [False, True],
    ]  # fmt: skip
    assert sets.sizes == pytest.approx((0, 3 / 9, 6 / 9)) and sets.mean_size == pytest.approx(15 / 9)


def test_of_an_alpha_next_to_1_the_surest_row_is_taken():
    # 9 rows: k = ceil(10 * 1e-13) = 1, the largest probability of a true class.
    sets = fe.evaluate_predictions([1] * 9, np.arange(1, 10) / 10, labels=["a", "b"]).prediction_sets(
        1 - 1e-13
    )
    assert (sets.parts[0].probability, sets.parts[0].coverage.value) == (0.9, 0.1)


def test_two_hundred_rows_expect_what_the_beta_distribution_says():
    # Of 200 rows at 90 %: Beta(181, 20), 0.856 to 0.938.
    y, p = rows(200, 1)
    sets = fe.evaluate_predictions(y, p).prediction_sets(0.1)
    found = sets.parts[0].coverage
    assert (found.low, found.high) == pytest.approx(beta(181, 20).ppf([0.025, 0.975]))
    assert (round(found.low, 3), round(found.high, 3)) == (0.856, 0.938)
    assert "With 200 calibration rows expect a coverage of 0.900" in " ".join(str(sets).split())


def test_the_coverage_of_many_calibrations_has_the_stated_distribution():
    # Of uniform probabilities of the true class the coverage is 1 less the smallest one of a member.
    random, n, alpha = np.random.default_rng(0), 40, 0.1
    covered = []
    for _ in range(400):
        true = random.random(n)
        p = np.column_stack([true, 1 - true])
        covered.append(
            1 - fit_sets(np.zeros(n, int), p, ("a", "b"), alpha=alpha, by_class=False).parts[0].probability
        )
    assert kstest(covered, beta(37, 4).cdf).pvalue > 0.001  # k = ceil(41 * 0.9) = 37


def test_each_class_has_its_coverage_where_it_is_asked_for():
    y, p = rows(600, 3)
    new_y, new_p = rows(4000, 4)
    sets = fe.evaluate_predictions(y, p, labels=["a", "b", "c"]).prediction_sets(0.1, by_class=True)
    inside = sets.apply(new_p)[np.arange(4000), new_y]
    for k, part in enumerate(sets.parts):
        own = np.sort(p[y == k, k])[::-1]
        assert part.probability == own[int(np.ceil((len(own) + 1) * 0.9)) - 1]
        hits = round(part.coverage.value * (part.n + 1))
        low, high = beta(hits, part.n + 1 - hits).ppf([0.0005, 0.9995])
        assert low - 0.02 < inside[new_y == k].mean() < high + 0.02  # 0.02: two errors of 1,300 new rows
    found = sets.coverage_on(new_y, new_p)
    assert found.value == pytest.approx(inside.mean())
    assert sets.coverage_on(np.array(["a", "b", "c"])[new_y], new_p) == found


def test_too_few_rows_put_a_class_into_every_set_and_say_so():
    y, p = [0] * 20 + [1] * 8, np.linspace(0.1, 0.9, 28)
    sets = fe.evaluate_predictions(y, p, labels=["no", "yes"]).prediction_sets(0.1, by_class=True)
    assert sets.parts[1].always and sets.apply([0.0]).tolist()[0][1]
    words = " ".join(str(sets).split())
    assert "'yes': 8 calibration rows; at least 9 are needed, so that it is in every set." in words


def test_what_is_not_exchangeable_or_no_probability_is_refused():
    y, p = rows(60, 5)
    for more, what in (
        ({"sample_weight": np.arange(60) + 1}, "weights"),
        ({"groups": np.arange(60) // 2}, "groups"),
    ):
        sentence = f"`evaluation` must have rows that are drawn like new ones, one by one; these have {what}."
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            fe.evaluate_predictions(y, p, **more).prediction_sets()
    result = fe.evaluate_predictions(y, p)
    for alpha in (0, 1, np.nan):
        with pytest.raises(ValueError, match="^`alpha` must be a finite number above 0 and below 1"):
            result.prediction_sets(alpha)
    with pytest.raises(ValueError, match="must have a column for each of the classes"):
        result.prediction_sets().apply(np.full((4, 2), 0.5))
    named = pd.DataFrame(p[:, ::-1], columns=["2", "1", "0"])  # in another order
    np.testing.assert_array_equal(result.prediction_sets().apply(named), result.prediction_sets().apply(p))
    with pytest.raises(ValueError, match="must have probabilities"):
        fe.evaluate_predictions(y, predicted=y).prediction_sets()


def test_rows_in_another_order_are_refused():
    y, p = np.arange(40) % 2, np.tile([[0.9, 0.1], [0.2, 0.8]], (20, 1))
    sets = fe.evaluate_predictions(y, p, baselines=False).prediction_sets(alpha=0.2)
    frame = pd.DataFrame(p, index=[f"r{i}" for i in range(40)])
    with pytest.raises(ValueError, match="^`y_true` and `probabilities` name their rows differently: row 0 "):
        sets.coverage_on(pd.Series(y, index=frame.index)[::-1], frame)
