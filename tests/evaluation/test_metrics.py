"""Metrics against scikit-learn, and what must hold for every input."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune_eval.evaluation.metrics import (
    METRICS,
    confusion_matrix,
    from_confusion,
    per_class_scores,
    precision_recall_f1,
    resolve_average,
    row_brier,
    row_loss,
)

CONFUSION_METRICS = [
    name for name, metric in METRICS.items() if metric.source == "confusion" and metric.classes[1] > 2
]


@st.composite
def labelled_rows(draw, most=30):
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(1, most))
    row = arrays(np.int64, n, elements=st.integers(0, classes - 1))
    return classes, draw(row), draw(row)


def averages(classes):
    return ("binary", "macro", "micro", "weighted") if classes == 2 else ("macro", "micro", "weighted")


@given(labelled_rows())
def test_precision_recall_f1_equal_scikit_learn(rows):
    classes, y, p = rows
    table = confusion_matrix(y, p, classes)
    for average in averages(classes):
        expected = sklearn.metrics.precision_recall_fscore_support(y, p, average=average, zero_division=0)[:3]
        assert precision_recall_f1(table, average) == pytest.approx(expected, abs=1e-12)
    ours = per_class_scores(table)
    theirs = sklearn.metrics.precision_recall_fscore_support(y, p, labels=range(classes), zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert ours[name] == pytest.approx(expected, abs=1e-12)


@given(labelled_rows())
def test_accuracy_balanced_mcc_and_kappa_equal_scikit_learn(rows):
    classes, y, p = rows
    table = confusion_matrix(y, p, classes)
    assert from_confusion("accuracy", table) == pytest.approx(sklearn.metrics.accuracy_score(y, p))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of absent classes; the value is what counts
        assert from_confusion("balanced_accuracy", table) == pytest.approx(
            sklearn.metrics.balanced_accuracy_score(y, p)
        )
        assert from_confusion("mcc", table) == pytest.approx(sklearn.metrics.matthews_corrcoef(y, p))
        kappa = sklearn.metrics.cohen_kappa_score(y, p)
    # 0 / 0 (one class in both) is NaN there and 0, no better than chance, here.
    assert from_confusion("kappa", table) == pytest.approx(0.0 if np.isnan(kappa) else kappa)


def test_row_weights_equal_scikit_learn():
    random = np.random.default_rng(0)
    y, p, w = random.integers(0, 3, 60), random.integers(0, 3, 60), random.random(60)
    table = confusion_matrix(y, p, 3, sample_weight=w)
    for average in averages(3):
        expected = sklearn.metrics.precision_recall_fscore_support(y, p, average=average, sample_weight=w)[:3]
        assert precision_recall_f1(table, average) == pytest.approx(expected)
    assert from_confusion("mcc", table) == pytest.approx(
        sklearn.metrics.matthews_corrcoef(y, p, sample_weight=w)
    )


@given(labelled_rows(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_permuting_rows_and_renaming_labels_change_nothing(rows, random):
    classes, y, p = rows
    order = list(range(len(y)))
    random.shuffle(order)
    names = list(range(classes))
    random.shuffle(names)
    table = confusion_matrix(y, p, classes)
    assert np.array_equal(confusion_matrix(y[order], p[order], classes), table)
    renamed = confusion_matrix(np.array(names)[y], np.array(names)[p], classes)
    for name in CONFUSION_METRICS:
        for average in ("macro", "micro", "weighted"):
            assert from_confusion(name, renamed, average) == pytest.approx(
                from_confusion(name, table, average), abs=1e-12
            )


@given(labelled_rows(), st.integers(2, 4))
@settings(max_examples=50)
def test_duplicating_rows_changes_no_value(rows, times):
    classes, y, p = rows
    table = confusion_matrix(y, p, classes)
    repeated = confusion_matrix(np.tile(y, times), np.tile(p, times), classes)
    for name in CONFUSION_METRICS:
        for average in averages(classes):
            assert from_confusion(name, repeated, average) == pytest.approx(
                from_confusion(name, table, average)
            )


@given(labelled_rows())
@settings(max_examples=50)
def test_a_stack_of_tables_gives_the_value_of_each(rows):
    classes, y, p = rows
    tables = np.stack([confusion_matrix(y, p, classes), confusion_matrix(p, y, classes), 3 * np.eye(classes)])
    for name in CONFUSION_METRICS:
        together = from_confusion(name, tables, "macro")
        assert together.shape == (3,)
        assert together == pytest.approx([float(from_confusion(name, table, "macro")) for table in tables])


@given(labelled_rows())
@settings(max_examples=50)
def test_swapping_truth_and_prediction_swaps_precision_and_recall(rows):
    classes, y, p = rows
    table = confusion_matrix(y, p, classes)
    precision, recall, f1 = precision_recall_f1(table, "macro")
    assert precision_recall_f1(table.T, "macro") == pytest.approx((recall, precision, f1))


def test_row_loss_and_brier_equal_scikit_learn():
    random = np.random.default_rng(1)
    for classes in (2, 4):
        y, p = random.integers(0, classes, 50), random.dirichlet(np.ones(classes), 50)
        labels = range(classes)
        assert row_loss(y, p).mean() == pytest.approx(sklearn.metrics.log_loss(y, p, labels=labels))
        expected = sklearn.metrics.brier_score_loss(y, p if classes > 2 else p[:, 1], labels=labels)
        assert row_brier(y, p).mean() == pytest.approx(expected)


def test_multilabel_rows_are_means_over_labels():
    # By hand: -(ln .9 + ln .8) / 2 and (.1**2 + .2**2) / 2
    y, p = np.array([[1, 0]]), np.array([[0.9, 0.2]])
    assert row_loss(y, p) == pytest.approx([0.164252], abs=1e-6)
    assert row_brier(y, p) == pytest.approx([0.025])


def test_a_probability_of_zero_is_a_finite_loss():
    # The smallest normal float32 is 2**-126; -ln of it is 126 ln 2
    found = row_loss([1], np.array([[1.0, 0.0]], dtype=np.float32))
    assert found == pytest.approx([126 * np.log(2)])
    assert METRICS["loss"].high == pytest.approx(126 * np.log(2))


def test_a_sure_and_right_row_has_no_negative_zero_loss():
    assert str(row_loss([0], [[1.0, 0.0]])[0]) == "0.0"


def test_bad_names_and_shapes_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"^`average` must be one of .* got 'marco'\. Did you mean 'macro'\?$"
    ):
        precision_recall_f1([[1, 0], [0, 1]], "marco")
    with pytest.raises(
        ValueError, match=r"^`average` 'binary' needs exactly two classes, .* got 3 classes\."
    ):
        resolve_average("binary", 3)
    with pytest.raises(ValueError, match=r"^`confusion` must be square .* got shape \(2, 3\)\.$"):
        precision_recall_f1(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^`name` must be one of 'accuracy', .* got 'f3'\."):
        from_confusion("f3", [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"^`name` 'npv' is of two classes; `confusion` has 3\.$"):
        from_confusion("npv", np.eye(3))


@settings(max_examples=200)
@given(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4), st.booleans())
def test_sums_of_weights_do_not_round_out_of_bounds(weights, right):
    table = np.diag(weights) if right else np.roll(np.diag(weights), 1, axis=0)
    assert from_confusion("accuracy", table) == (1.0 if right else 0.0)
    for name in ("mcc", "kappa", "balanced_accuracy"):
        assert METRICS[name].low <= from_confusion(name, table) <= METRICS[name].high
    two = np.array([[0.0, weights[0]], [weights[1], 0.0]])
    assert -1.0 <= from_confusion("mcc", two) <= -1.0 + 1e-9


def test_a_withheld_answer_is_in_no_cell():
    """Row 0 would have been counted as (true 0, predicted 1): 1 * 2 - 1."""
    with pytest.raises(ValueError, match="^`y_pred` must be class indices from 0 to 1; row 0 is -1.$"):
        confusion_matrix([1, 0], [-1, 0], 2)
    with pytest.raises(ValueError, match="^`y_true` must be class indices from 0 to 1; row 1 is 2.$"):
        confusion_matrix([1, 2], [0, 0], 2)
