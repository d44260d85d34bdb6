"""Metrics that are computed where somebody asks for them, against scikit-learn."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sk

import finetune_eval as fe
from finetune_eval.evaluation.calibration import fit_temperature
from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.prevalence import at_prevalence
from finetune_eval.evaluation.ranking_curves import precision_recall_curve, roc_curve


def rows(classes, n=240, seed=0):
    random = np.random.default_rng(seed)
    y, z = random.integers(0, classes, n), random.normal(size=(n, classes))
    z[np.arange(n), y] += 1.3
    return y, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["plain", "weights", "groups"])
@pytest.mark.parametrize(("classes", "average"), [(2, "binary"), (4, "macro"), (4, "micro"), (4, "weighted")])
def test_values_are_those_of_scikit_learn(kind, classes, average):
    y, p = rows(classes)
    said, weight = p.argmax(axis=1), None
    more = {"groups": np.arange(len(y)) // 4} if kind == "groups" else {}
    if kind == "weights":
        weight = np.random.default_rng(1).random(len(y)) + 0.2
        more = {"sample_weight": weight}
    expected = {
        **{
            f"f{beta:g}": sk.fbeta_score(y, said, beta=beta, average=average, sample_weight=weight)
            for beta in (0.5, 2)
        },
        **{
            f"{kind}_kappa": sk.cohen_kappa_score(y, said, weights=kind, sample_weight=weight)
            for kind in ("linear", "quadratic")
        },
    }
    if classes == 2:
        expected["specificity"] = sk.recall_score(y, said, pos_label=0, sample_weight=weight)
        expected["npv"] = sk.precision_score(y, said, pos_label=0, sample_weight=weight)
    else:
        for k in (2, 3):
            name = f"top_{k}_accuracy"
            expected[name] = sk.top_k_accuracy_score(y, p, k=k, sample_weight=weight)
    result = fe.evaluate_predictions(y, p, average=average, metrics=list(expected), **more)
    assert {name: result[name].value for name in expected} == pytest.approx(expected)
    for name in expected:
        assert result[name].low < result[name].value < result[name].high
        assert METRICS[name].title in str(result)
    # what is asked for stands after the others
    assert list(result.estimates)[-len(expected) :] == [name for name in METRICS if name in expected]


@pytest.mark.parametrize("large", [False, True])
def test_a_metric_of_two_classes_is_left_out_where_there_are_more(large, monkeypatch):
    monkeypatch.setitem(METRICS, "mcc", dataclasses.replace(METRICS["mcc"], classes=(2, 2)))
    for classes in (2, 3):
        y, p = rows(classes)
        if large:
            columns = {f"p_{k}": p[:, k] for k in range(classes)}
            found = Statistics([str(k) for k in range(classes)]).of({"label": y, **columns}).finish()
        else:
            found = fe.evaluate_predictions(y, p)
        assert ("mcc" in found.estimates) == (classes == 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_values_are_those_of_scikit_learn(weighted):
    random = np.random.default_rng(3)
    y = random.integers(0, 2, (200, 4))
    said = np.where(random.random(y.shape) < 0.8, y, 1 - y)
    weight = random.random(200) + 0.2 if weighted else None
    result = fe.evaluate_predictions(
        y, predicted=said, task="multilabel", metrics=["hamming", "samples_f1", "f2"], sample_weight=weight
    )
    assert result["hamming"].value == pytest.approx(sk.hamming_loss(y, said, sample_weight=weight))
    theirs = sk.f1_score(y, said, average="samples", zero_division=1, sample_weight=weight)
    assert result["samples_f1"].value == pytest.approx(theirs)
    theirs = sk.fbeta_score(y, said, beta=2, average="macro", sample_weight=weight)
    assert result["f2"].value == pytest.approx(theirs)
    for one in result.estimates.values():
        assert one.low < one.value < one.high


def test_a_row_without_labels_that_gets_none_is_right():
    y = np.array([[0, 0], [1, 0], [0, 0], [1, 1]])
    said = np.array([[0, 0], [1, 1], [0, 1], [1, 1]])
    result = fe.evaluate_predictions(y, predicted=said, task="multilabel", metrics=["samples_f1", "hamming"])
    assert result["samples_f1"].value == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert result["hamming"].value == 2 / 8


def test_top_k_takes_the_first_of_equally_probable_classes():
    p = np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.2, 0.4, 0.4]])
    result = fe.evaluate_predictions([1, 2, 0], p, metrics=["top_2_accuracy"])
    assert result["top_2_accuracy"].value == 1 / 3


def test_weighted_kappa_of_a_table_by_hand():
    # Cohen 1968 gives weighted kappa as 1 - sum(w o) / sum(w e); here by hand, with w = |i - j|:
    # o: 20 5 0 / 3 20 4 / 1 2 20 of 75; disagreement 5 + 3 + 4 + 2 + 2 * 1 = 16
    table = np.array([[20, 5, 0], [3, 20, 4], [1, 2, 20]])
    y, said = (np.repeat(side.ravel(), table.ravel()) for side in np.indices((3, 3)))
    chance = sum(abs(i - j) * table[i].sum() * table[:, j].sum() / 75 for i in range(3) for j in range(3))
    result = fe.evaluate_predictions(y, predicted=said, metrics=["linear_kappa"])
    assert result["linear_kappa"].value == pytest.approx(1 - 16 / chance)


def test_answers_that_are_no_label():
    y = ["no", "no", "yes", "yes", "yes"] * 8
    said = ["no", "?", "yes", "no", "?"] * 8
    result = fe.evaluate_predictions(
        y, predicted=said, labels=["no", "yes"], metrics=["specificity", "npv", "f2", "linear_kappa"]
    )
    assert (result["specificity"].value, result["npv"].value) == (0.5, 0.5)
    # of "yes": 8 hits, 8 predicted, 24 true
    assert result["f2"].value == pytest.approx(5 * 8 / (8 + 4 * 24))
    assert "linear_kappa" not in result.estimates
    assert any(text.startswith("linear kappa cannot be computed: an answer") for text in result.warnings)


def test_nothing_is_added_unasked():
    y, p = rows(2)
    assert not {name for name, metric in METRICS.items() if metric.asked} & set(
        fe.evaluate_predictions(y, p).estimates
    )


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (2, {"metrics": ["f3"]}, r"^`metrics` must be one of .* got 'f3'\.$"),
        (3, {"metrics": ["npv"]}, r"^`metrics` 'npv' needs exactly 2 classes; there are 3\.$"),
        (3, {"metrics": ["top_3_accuracy"]}, r"^`metrics` 'top_3_accuracy' needs at least 4 classes"),
        (3, {"metrics": ["hamming"]}, r"^`metrics` 'hamming' is of rows with several labels each"),
    ],
)
def test_metrics_that_the_rows_do_not_have(classes, options, message):
    with pytest.raises(ValueError, match=message):
        fe.evaluate_predictions(*rows(classes), **options)


def test_metrics_of_answers_and_of_several_labels_that_do_not_fit():
    with pytest.raises(
        ValueError, match="'top_2_accuracy' needs probabilities, and `predicted` gives answers"
    ):
        fe.evaluate_predictions([0, 1, 2], predicted=[0, 1, 2], metrics=["top_2_accuracy"])
    with pytest.raises(ValueError, match="'linear_kappa' is of rows with one label each"):
        fe.evaluate_predictions([[0, 1]], [[0.2, 0.9]], task="multilabel", metrics=["linear_kappa"])
    with pytest.raises(TypeError, match="`metrics` must be a list of names; got the text 'f2'"):
        fe.evaluate_predictions([0, 1], [0.2, 0.9], metrics="f2")


def test_models_are_compared_by_the_class_among_the_most_probable():
    y, p = rows(4)
    other = rows(4, seed=5)[1]
    a, b = (fe.evaluate_predictions(y, each, metrics=["top_2_accuracy"]) for each in (p, other))
    found = fe.compare(a, b, metric="top_2_accuracy")
    assert found.outcome == "better" and found.pairs[0].test.method.startswith("McNemar")
    assert found.difference.value == pytest.approx(a["top_2_accuracy"].value - b["top_2_accuracy"].value)
    with pytest.raises(ValueError, match="'quadratic_kappa' has no paired test here"):
        fe.compare(a, b, metric="quadratic_kappa")
    with pytest.raises(ValueError, match="`metric` 'npv' needs exactly 2 classes; there are 4"):
        fe.compare(a, b, metric="npv")


# --- another prevalence, and curves --------------------------------------------------------------------


def balanced(**options):
    """A test of 100 + 100 rows: recall 0.8, specificity 0.9."""
    y = np.repeat([0, 1], 100)
    said = np.concatenate([np.arange(100) < 10, np.arange(100) >= 20]).astype(int)
    return fe.evaluate_predictions(y, predicted=said, labels=["healthy", "ill"], **options)


def test_precision_at_another_prevalence():
    found = at_prevalence(balanced(), 0.02)
    # of 10,000 people 200 are ill: 160 found, 40 missed, 980 false alarms, 8,820 rightly healthy
    assert found["precision"].value == pytest.approx(160 / (160 + 980))
    assert found["npv"].value == pytest.approx(8820 / (8820 + 40))
    assert found["accuracy"].value == pytest.approx((160 + 8820) / 10_000)
    assert found["precision"].low < 0.10 and 0.2 < found["precision"].high < 0.3
    even = at_prevalence(balanced(), 0.5)
    assert even["precision"].value == pytest.approx(balanced()["precision"].value)
    assert (even["accuracy"].low, even["accuracy"].high) == pytest.approx(
        (balanced()["accuracy"].low, balanced()["accuracy"].high), abs=0.01
    )


def test_prevalence_of_weighted_and_grouped_rows():
    plain = at_prevalence(balanced(), 0.1)
    weights = np.repeat([1.0, 3.0], 100)  # weights that differ between the classes only change nothing
    weighted = at_prevalence(balanced(sample_weight=weights), 0.1)
    assert weighted["precision"].value == pytest.approx(plain["precision"].value)
    grouped = at_prevalence(balanced(groups=np.arange(200) // 10), 0.1)
    assert grouped["precision"].value == pytest.approx(plain["precision"].value)
    assert grouped["precision"].high - grouped["precision"].low > 1.5 * (
        plain["precision"].high - plain["precision"].low
    )


def test_perfect_answers_have_no_certain_precision_at_another_prevalence():
    y = np.repeat([0, 1], 50)
    found = at_prevalence(fe.evaluate_predictions(y, predicted=y), 0.01)
    assert found["precision"].value == 1 and found["precision"].low < 0.5


@pytest.mark.parametrize(
    ("y", "said", "prevalence", "message"),
    [
        ([0, 1, 2], [0, 1, 2], 0.1, "must be of two classes; got 3"),
        ([0, 1, 1], [0, 1, None], 0.1, "must have a label in every answer; 1 of 3 are no label"),
        ([0, 1], [0, 1], 1.0, "`prevalence` must be"),
    ],
)
def test_prevalences_that_do_not_fit(y, said, prevalence, message):
    with pytest.raises(ValueError, match=message):
        at_prevalence(fe.evaluate_predictions(y, predicted=said), prevalence)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_curves_are_those_of_scikit_learn(classes, weighted):
    y, p = rows(classes)
    p = p.round(2) / p.round(2).sum(axis=1, keepdims=True)  # some are equal
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    result = fe.evaluate_predictions(y, p, sample_weight=weight)
    label = None if classes == 2 else "2"
    positive, score = y == classes - 1, p[:, classes - 1]
    ours = roc_curve(result, label)
    theirs = sk.roc_curve(positive, score, sample_weight=weight, drop_intermediate=False)
    for name, values in zip(("false_positive_rate", "true_positive_rate", "threshold"), theirs, strict=True):
        np.testing.assert_allclose(ours[name], values, err_msg=name)
    ours = precision_recall_curve(result, label)
    precision, recall, thresholds = sk.precision_recall_curve(positive, score, sample_weight=weight)
    np.testing.assert_allclose(ours["threshold"][::-1], thresholds)
    np.testing.assert_allclose(ours["precision"][::-1], precision[:-1])
    np.testing.assert_allclose(ours["recall"][::-1], recall[:-1])


def test_the_curve_of_one_of_several_labels():
    y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    p = np.array([[0.9, 0.2], [0.3, 0.8], [0.4, 0.6], [0.1, 0.7]])
    result = fe.evaluate_predictions(y, p, labels=["late", "angry"], task="multilabel")
    theirs = sk.roc_curve(y[:, 1], p[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(result, "angry")["true_positive_rate"], theirs[1])


def test_curves_that_cannot_be_drawn():
    y, p = rows(3)
    with pytest.raises(ValueError, match="`label` is needed: which of the 3 classes is the curve of"):
        roc_curve(fe.evaluate_predictions(y, p))
    with pytest.raises(ValueError, match="this model gave answers only"):
        precision_recall_curve(fe.evaluate_predictions(y, predicted=y))
    with pytest.raises(ValueError, match="`label` must be one of '0', '1', '2'; got '3'"):
        roc_curve(fe.evaluate_predictions(y, p), "3")


def test_a_temperature_of_weighted_rows_is_that_of_repeated_ones():
    y, p = rows(3, n=60)
    times = np.random.default_rng(2).integers(1, 4, len(y))
    repeated = fit_temperature(np.repeat(y, times), np.repeat(p, times, axis=0))
    assert fit_temperature(y, p, sample_weight=times) == pytest.approx(repeated)
    with pytest.raises(ValueError, match="`y_true` and `sample_weight` must have the same number of rows"):
        fit_temperature(y, p, sample_weight=times[1:])
