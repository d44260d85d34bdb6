"""Baselines on the same rows, and what leaked from the training rows."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune_eval.evaluation.baselines import (
    compare_with_baseline,
    feature_probabilities,
    majority_probabilities,
    tfidf_probabilities,
)
from finetune_eval.evaluation.comparison import mcnemar
from finetune_eval.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions

GOOD, BAD = ["warm", "funny", "honest", "superb"], ["dull", "flat", "tired", "awful"]
PLAIN = ["film", "plot", "actor", "scene", "music"]


def reviews(n, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n)
    texts = [
        " ".join(
            [
                *random.choice(PLAIN, 6),
                random.choice(GOOD if random.random() < (0.85 if k else 0.15) else BAD),
            ]
        )
        for k in y
    ]
    return [f"{text} {seed}{i}" for i, text in enumerate(texts)], y


def test_majority_is_scikit_learns_prior():
    y = np.array([0, 2, 2, 2, 1, 2])
    expected = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), y).predict_proba(np.zeros((4, 1)))
    np.testing.assert_allclose(majority_probabilities(y, 4, 3), expected)


def test_tfidf_is_the_pipeline_it_says_it_is():
    (train, y), (test, _) = reviews(200, 0), reviews(50, 1)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = make_pipeline(vectorizer, LogisticRegression(C=2.0, max_iter=1000)).fit(train, y)
    np.testing.assert_allclose(tfidf_probabilities(train, y, test, classes=2), model.predict_proba(test))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("यह {} दिन था", "यह {} दान था"),  # the words differ in a combining mark only
        ("এটা {} ভালো", "এটা {} ভুল"),
        ("หนัง{}ดีมาก", "หนัง{}แย่มาก"),
        ("这部{}电影好", "这部{}电影坏"),
        ("この{}映画は好き", "この{}映画は嫌い"),
        ("film {} \U0001f600", "film {} \U0001f621"),
        ("la {} é bona", "la {} e\u0300 bona"),
        ("{} no\u200bt good", "{} very good"),
    ],
)
def test_tfidf_tells_texts_apart_by_words_of_every_script(good, bad):
    texts = [(bad if i % 2 else good).format(f"{i}") for i in range(100)]
    p = tfidf_probabilities(texts[:60], [0, 1] * 30, texts[60:], classes=2)
    assert p.argmax(axis=1).tolist() == [0, 1] * 20


def test_features_are_standardised_on_the_training_rows():
    random = np.random.default_rng(0)
    x, y = random.normal(3, 10, (100, 4)), random.integers(0, 2, 100)
    x[:, 3] = 7.0
    model = make_pipeline(StandardScaler(), LogisticRegression(C=2.0, max_iter=1000)).fit(x, y)
    np.testing.assert_allclose(
        feature_probabilities(x, y, x[:9], classes=2), model.predict_proba(x[:9]), rtol=1e-6
    )
    with pytest.raises(ValueError, match="must have the same columns; got 4 and 3"):
        feature_probabilities(x, y, x[:, :3], classes=2)


def test_features_may_be_a_function_of_rows():
    (train, y_train), (test, y) = reviews(200, 0), reviews(50, 1)

    def lengths(texts):
        return np.array([[len(text), text.count("a")] for text in texts], dtype=float)

    p = np.tile([0.4, 0.6], (50, 1))
    made = [
        evaluate_predictions(y, p, texts=test, train=(train, y_train), features=features)
        for features in (lengths, (lengths(train), lengths(test)))
    ]
    assert made[0].baselines[-1].name == "logistic regression on frozen features"
    assert made[0].baselines == made[1].baselines
    with pytest.raises(ValueError, match="^`features` as a function needs the rows: pass `texts`"):
        evaluate_predictions(y, p, train=(train, y_train), features=lengths)


def test_classes_without_training_rows_get_probability_zero():
    p = tfidf_probabilities(["a b", "c d", "a b", "c d"], [0, 2, 0, 2], ["a", "d"], classes=3)
    assert p[:, 1].tolist() == [0, 0] and p.sum(axis=1) == pytest.approx([1, 1])
    assert p.argmax(axis=1).tolist() == [0, 2]
    assert tfidf_probabilities(["a", "b"], [1, 1], ["c"], classes=2).tolist() == [[0, 1]]
    assert tfidf_probabilities(["", "!"], [0, 1], ["c"], classes=2).tolist() == [[0.5, 0.5]]


def test_the_comparison_is_mcnemars():
    y = np.array([0] * 60 + [1] * 40)
    p = np.where(np.arange(100) < 90, y * 0.8 + 0.1, 0.9 - y * 0.8)
    result = evaluate_predictions(y, p)
    majority = result.baselines[0]
    assert [one.name for one in result.baselines] == ["the majority class"]
    assert majority.estimates["accuracy"].value == 0.6
    # right: the model rows 0-89, the majority rows 0-59: 30 only the model, 0 only the majority
    assert majority.p_value == pytest.approx(mcnemar(30, 0).p_value)
    assert (majority.outcome, majority.difference.value) == ("better", pytest.approx(0.3))
    assert "This model is better than the majority class" in str(result)
    assert evaluate_predictions(y, p, baselines=False).baselines == ()


def test_training_rows_give_tfidf_and_leaks(tmp_path):
    train, test = reviews(400, 0), reviews(200, 1)
    test[0][:20] = train[0][:20]
    test[1][:20] = train[1][:20]
    test[0][20] = train[0][30].upper()
    features = [
        np.array([[sum(word in text for word in GOOD)] for text in part], float)
        for part in (train[0], test[0])
    ]
    # a model that has learned the training rows by heart and guesses otherwise
    p = np.where(np.arange(200) < 20, 0.98 * test[1] + 0.01, np.random.default_rng(0).uniform(0.3, 0.7, 200))
    result = evaluate_predictions(
        test[1], p, labels=["no", "yes"], texts=test[0], train=train, features=features
    )
    assert [one.name for one in result.baselines] == [
        "the majority class",
        "TF-IDF + logistic regression",
        "logistic regression on frozen features",
    ]
    tfidf = result.baselines[1]
    assert 0.75 < tfidf.estimates["accuracy"].value < 0.95
    assert tfidf.outcome == "worse"  # the evaluated model is worse than TF-IDF
    assert result.leaks.counts["exact"] == 20 and result.leaks.counts["normalised"] == 1
    assert set(range(21)) <= set(result.leaks.rows)
    clean = [i for i in range(200) if i not in result.leaks.rows]
    without = evaluate_predictions(test[1][clean], p[clean], labels=["no", "yes"])
    assert result.leaks.without == without.estimates
    assert result.leaks.without["accuracy"].value < result.accuracy
    assert f"! Possible leak: {len(result.leaks.rows)} of 200 test rows" in str(result)
    assert Evaluation.load(result.save(tmp_path)) == result
    assert max(map(len, str(result).splitlines())) <= 80


def test_clean_rows_say_so():
    result = evaluate_predictions(
        [0, 1], [0.1, 0.9], texts=["a b c", "d e f"], train=(["x y z", "u v w"], [0, 1])
    )
    assert result.leaks.without == {} and result.leaks.rows == ()
    said = " ".join(str(result).split())
    assert (
        "No possible leak found: 2 test rows match none of 2 training rows (texts match from a "
        "similarity of 0.8 on; a paraphrase "
        "would not be "
        "noticed)." in said
    )


def test_the_limit_stands_beside_the_scores_without_leaks_and_templates_are_named():
    (train, y_train), (test, y) = reviews(60, 0), reviews(40, 1)
    form = "Dear customer, your order {} has been shipped and will arrive on {} between 9 and 17. Thank you."
    train = [*train, *(form.format(100_000 + 7919 * i, 1 + i % 28) for i in range(200))]
    test = [*test[:20], train[3], *(form.format(900_000 - 6007 * i, 1 + i % 28) for i in range(19))]
    result = evaluate_predictions(
        y, np.full(40, 0.6), texts=test, train=(train, np.r_[y_train, [0, 1] * 100]), baselines=False
    )
    assert 20 in result.leaks.rows and not set(range(21, 40)) & set(result.leaks.rows)
    verdict = result.leaks.verdict
    assert (
        "similarity of 0.8 on; a paraphrase would not be noticed). Without these rows the accuracy is 0."
        in verdict
    )
    assert (
        "19 test rows share a template with ten or more training rows, such as 'Dear customer, your"
        in verdict
    )
    assert verdict in " ".join(str(result).split())


def test_the_limit_of_numbers_is_another():
    result = evaluate_predictions(
        [0, 1], [0.1, 0.9], labels=["a", "b"], texts=["x y", "z"], train=(["q"], [0])
    )
    assert "similarity of 0.8 on" in result.leaks.verdict

    class Model:
        labels = ("a", "b")

        def predict(self, x):
            return np.full((len(x), 2), 0.5)

    found = evaluate(Model(), np.eye(4), [0, 1, 0, 1], train=(np.eye(4)[:, ::-1] * 2, [0, 1, 0, 1]))
    assert found.leaks.verdict == (
        "No possible leak found: 4 test rows match none of 4 training rows (only equal values were looked "
        "for)."
    )


def test_leaks_of_numbers():
    class Model:
        labels = ("a", "b")

        def predict(self, x):
            return np.full((len(x), 2), 0.5)

    x = np.random.default_rng(0).random((30, 4))
    result = evaluate(Model(), x[:10], [0, 1] * 5, train=(x[5:], [0] * 25))
    assert result.leaks.rows == (5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"train": 5},
            "`train` must be the training rows as a pair (x, y), such as `dataset.train`, or the folder of a "
            "run; got int.",
        ),
        ({"train": (["a"], [0, 1])}, "`train` must have as many labels as rows; got 1 row and 2 labels."),
        (
            {"train": (["a"], [7])},
            "`train` must be class indices from 0 to 1 or class names ('0', '1'); row 0 is 7.",
        ),
        (
            {"features": ([[1]], [[1]])},
            "`features` needs `train`, the labels of the training rows: pass train=(x, y).",
        ),
        (
            {"train": (["a"], [0]), "features": ([[1]], [[1]])},
            "`features` must have one row for each test row; got 1 for 2.",
        ),
    ],
)
def test_bad_training_rows(keywords, message):
    with pytest.raises(ValueError) as error:
        evaluate_predictions([0, 1], [0.2, 0.8], texts=["a", "b"], **keywords)
    assert str(error.value) == message


def test_compare_with_any_probabilities():
    y = np.array([0, 1] * 50)
    result = evaluate_predictions(y, np.where(y == 1, 0.9, 0.1))
    found = compare_with_baseline(result, "a coin", np.full((100, 2), 0.5), metric="f1")
    assert (found.name, found.metric, found.outcome) == ("a coin", "f1", "better")
