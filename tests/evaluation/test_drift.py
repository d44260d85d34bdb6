"""check_drift: what differs is found, what is alike is not too often, and what cannot be known is said."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import finetune_eval as fe
from finetune_eval.evaluation import drift
from finetune_eval.evaluation.drift import check_drift, expected_accuracy

SUBJECTS = np.array(["film", "plot", "actor", "scene", "music", "ending", "script", "camera"])
MOODS = np.array(["good", "bad", "fine", "dull", "warm", "cold", "long", "short", "odd", "loud"])


def texts(random, n, subjects=SUBJECTS):
    return [
        f"the {a} of number {k} was {b} and {c}"
        for a, b, c, k in zip(
            random.choice(subjects, n), random.choice(MOODS, n), random.choice(MOODS, n),
            random.integers(10**6, size=n), strict=True,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("power", [-600, 600])  # about 1e-180 and 1e180, whose squares are no floats
def test_the_size_of_numbers_changes_nothing(power):
    random = np.random.default_rng(4)
    old, new = random.normal(size=(40, 2)), random.normal(size=(40, 2)) + [2, 0]
    plain = check_drift(old, new, permutations=99)
    assert plain.drifted
    # The kernel alone: permutations are drawn by the rows themselves.
    rows = np.concatenate([old, new])
    np.testing.assert_array_equal(drift._numbers_kernel(rows * 2.0**power), drift._numbers_kernel(rows))
    assert check_drift(old * 2.0**power, new * 2.0**power, permutations=99).drifted


def test_a_drift_is_found_and_its_words_are_named():
    random = np.random.default_rng(0)
    old, new = texts(random, 80), texts(random, 60, np.array(["phone", "cable"]))
    found = check_drift(old, [*new, old[3].upper()], permutations=99)
    assert found.drifted and found.p_value == 1 / 100 and found.auc.low > 0.8
    assert {"phone", "cable"} & set(found.new_terms)
    assert (found.n_old, found.n_new, found.used, found.shared) == (80, 61, (80, 61), 1)
    words = " ".join(str(found).split())
    assert "The 61 new rows and 80 old rows differ." in words and "1 new row is among the old rows" in words
    assert found.expected is None and found.outlook == ""


@pytest.mark.parametrize("kind", ["numbers", "repeated"])
def test_rows_that_are_alike_are_told_apart_in_one_of_twenty_draws(kind):
    found = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        if kind == "numbers":
            rows = random.normal(size=(70, 3))
        else:  # each of twenty texts about three times, on both sides
            few = texts(random, 20)
            rows = [few[k] for k in random.integers(20, size=70)]
        old, new = rows[:40], rows[40:]
        found.append(check_drift(old, new, permutations=99).p_value)
    # P(Bin(40, .05) > 7) = .0007; the mean of 40 uniform values has a standard error of .046.
    assert np.mean(np.array(found) <= 0.05) <= 7 / 40 and 0.35 < np.mean(found) < 0.65


def test_repeated_texts_do_not_leak_between_the_folds():
    # Each new text stands there twice, each old one once: a classifier that had seen one copy would know the
    # other to be new. The words say nothing.
    random = np.random.default_rng(5)
    old, new = texts(random, 60), 2 * texts(random, 40)
    assert check_drift(old, new, permutations=99).auc.value < 0.65


@pytest.mark.parametrize("kind", ["texts", "numbers"])
def test_copies_with_small_changes_are_no_sign_of_likeness(kind):
    random = np.random.default_rng(8)
    if kind == "numbers":
        old = random.normal(size=(60, 5))
        new = old + 0.01 * random.normal(size=old.shape)
    else:
        old = [" ".join(map(str, random.integers(5000, size=4))) for _ in range(60)]
        new = [f"{text} {place} {place}b" for place, text in enumerate(old)]  # under a similarity of 0.8
    found = check_drift(old, new, permutations=99)
    assert found.auc.value < 0.2 and not found.drifted
    assert found.verdict.startswith(
        "The comparison of 60 new rows and 60 old rows decides nothing: the class"
    )
    assert "each new row is most like an old one" in found.verdict and "alike" not in found.verdict


def test_the_folds_are_not_those_of_a_split():
    # The test rows of `split` have the smallest hashes: folds by hash would hold old rows or new ones.
    random = np.random.default_rng(6)
    rows = fe.split(texts(random, 300), ["a", "b"] * 150, test=150, validation=0, seed=0)
    old, new = [np.asarray(part.x, dtype=object) for part in (rows.test, rows.train)]
    fold = drift._folds_of(np.concatenate([old, new]), random)
    shares = [np.mean(np.flatnonzero(fold == k) < len(old)) for k in range(5)]
    assert np.bincount(fold).tolist() == [60] * 5 and min(shares) > 0.3 and max(shares) < 0.7


def test_the_scores_are_those_of_a_ridge_regression_on_the_other_folds():
    random = np.random.default_rng(1)
    x = random.normal(size=(50, 4))
    side, fold = np.arange(50) % 2, np.arange(50) // 10
    scores = drift._cross_fitted(x @ x.T, side[:, None].astype(float), fold)[:, 0]
    for k in range(5):  # in the primal: (X'X + 1)^-1 X' (y - mean)
        train, test = x[fold != k], x[fold == k]
        centred = side[fold != k] - side[fold != k].mean()
        weights = np.linalg.solve(train.T @ train + np.eye(4), train.T @ centred)
        np.testing.assert_allclose(scores[fold == k], test @ weights, atol=1e-12)
    areas = [roc_auc_score(side[fold == k], scores[fold == k]) for k in range(5)]
    assert drift._areas(scores[:, None], side[:, None], fold)[0] == pytest.approx(np.mean(areas))


def test_rows_that_are_always_told_apart_have_an_interval_all_the_same():
    random = np.random.default_rng(9)
    found = check_drift(random.normal(size=(40, 2)), random.normal(size=(40, 2)) + 50, permutations=99)
    assert found.auc.value == found.auc.high == 1 and 0.9 < found.auc.low < 1


def test_numbers_that_spread_more_are_found():
    random = np.random.default_rng(2)
    assert check_drift(
        random.normal(size=(150, 3)), 2 * random.normal(size=(150, 3)), permutations=99
    ).drifted


def test_many_rows_are_drawn_from_and_the_same_seed_draws_the_same():
    random = np.random.default_rng(3)
    rows = texts(random, 200)
    first = check_drift(rows[:100], rows[100:], permutations=99, most_rows=40, seed=1)
    assert first.used == (40, 40) and "Compared were 40 old and 40 new rows" in " ".join(str(first).split())
    assert first == check_drift(rows[:100], rows[100:], permutations=99, most_rows=40, seed=1)


# --- the accuracy to expect ---


def judged(random, n, shift=0.0, gap=0.5):
    """Answers of a model that is too sure: the logit of being right is `gap` times that of its confidence."""
    logit = np.abs(random.normal(1.5 + shift, 1.0, size=n))
    right = random.random(n) < expit(gap * logit)
    p = expit(logit)
    return right.astype(int), np.column_stack([1 - p, p])


def test_the_curve_is_a_logistic_regression():
    random = np.random.default_rng(4)
    y, p = judged(random, 800)
    curve, covariance = drift._fitted_curve(np.log(p[:, 1] / p[:, 0]), y.astype(float))
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(p[:, 1:] / p[:, :1]), y)
    # It is drawn towards 0 and 1 a little.
    assert curve == pytest.approx([model.intercept_[0], model.coef_[0, 0]], abs=0.03)
    shares = model.predict_proba(np.log(p[:, 1:] / p[:, :1]))[:, 1]
    design = np.column_stack([np.ones(800), np.log(p[:, 1] / p[:, 0])])
    information = design.T @ (design * (shares * (1 - shares))[:, None])
    np.testing.assert_allclose(covariance, np.linalg.inv(information), rtol=0.05)


def test_the_accuracy_to_expect_follows_the_confidence_where_its_meaning_stays():
    covered, expected = 0, []
    truth = judged(np.random.default_rng(99), 200_000, shift=-1.0)[0].mean()
    for seed in range(40):
        random = np.random.default_rng(seed)
        y, p = judged(random, 400)
        old = fe.evaluate_predictions(y, p, baselines=False, n_resamples=100)
        found = expected_accuracy(old, judged(random, 300, shift=-1.0)[1], 300)
        covered += found.low <= truth <= found.high
        expected.append(found.value)
    assert old.accuracy > truth + 0.05 and np.mean(expected) == pytest.approx(truth, abs=0.02)
    assert covered >= 34  # P(Bin(40, .95) < 34) = .003


def test_an_evaluation_and_probabilities_give_the_accuracy_and_its_conditions():
    random = np.random.default_rng(7)
    y, p = judged(random, 120)
    old = fe.evaluate_predictions(y, p, labels=["no", "yes"], texts=texts(random, 120))
    alike = check_drift(old, texts(random, 60), probabilities=judged(random, 60)[1], permutations=99)
    assert alike.accuracy == old["accuracy"] and alike.expected.low < old.accuracy < alike.expected.high
    assert "It cannot see labels that have come to mean something else" in alike.outlook
    other = texts(random, 60, np.array(["phone"]))
    differs = check_drift(old, other, probabilities=judged(random, 60)[1], permutations=99)
    assert differs.drifted and "Do not rely on it: label a hundred of the new rows" in differs.outlook


def test_an_old_model_without_errors_is_expected_to_make_some():
    y, p = np.ones(50, int), np.column_stack([np.full(50, 0.1), np.full(50, 0.9)])
    found = expected_accuracy(fe.evaluate_predictions(y, p), p, 50)
    assert 0.9 < found.value < 1 and found.low < found.value < found.high < 1


# --- what is refused ---


def test_what_cannot_be_compared_is_one_sentence():
    random = np.random.default_rng(8)
    rows = texts(random, 40)
    y, p = judged(random, 40)
    old = fe.evaluate_predictions(y, p, texts=rows)
    grouped = fe.evaluate_predictions(y, p, texts=rows, groups=np.arange(40) // 2)
    unknown = fe.evaluate_predictions(y, p)
    for arguments, more, sentence in (
        ((rows, rows[:29]), {}, "`new_rows` must have at least 30 rows to be compared; got 29."),
        ((rows, rows), {"probabilities": p}, "`probabilities` needs an evaluation as `old`: how often "
         "answers were right."),
        ((old, rows), {"probabilities": p[:20]}, "`probabilities` must have a row for each of the 40 new "
         "rows and a column for each of the 2 classes; got shape (20, 2)."),
        ((unknown, rows), {}, "`old` has no texts: evaluate with texts=..., or pass the old rows "
         "themselves."),
        ((grouped, rows), {}, "`old` must be an evaluation of rows that count alike, one by one; these have "
         "a group. Pass the texts themselves, one of each group."),
        ((rows, rows), {"permutations": 10}, "`permutations` must be at least 99; got 10."),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            check_drift(*arguments, **more)
    with pytest.raises(ValueError, match="repeat themselves too much to be compared: their 80 rows are 1 d"):
        check_drift(["the same text every time"] * 40, ["the same text every time"] * 40)
    with pytest.raises(TypeError, match=r"must be of one kind; got texts and rows of 3 numbers\.$"):
        check_drift(rows, np.zeros((40, 3)))


def test_columns_in_another_order_are_no_drift():
    rows = pd.DataFrame(np.random.default_rng(0).normal([0, 100], size=(60, 2)), columns=["a", "b"])
    sentence = (
        "^`old` and `new_rows` have their columns in another order: column 0 is 'a' in one and 'b' in the "
    )
    with pytest.raises(ValueError, match=sentence):
        check_drift(rows, rows[["b", "a"]], permutations=99)
    with pytest.raises(ValueError, match="^`train` and `test` have their columns in another order: "):
        fe.find_leaks(rows, rows[["b", "a"]])
