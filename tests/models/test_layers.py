"""The head's layers, its loss, and the form in which losses and metrics get labels."""

import keras
import numpy as np
import pytest
import sklearn.metrics

from finetune_eval.models.layers import CrossEntropy, Pooling, TemperedSoftmax, as_read, metric_of_labels


def log_loss(y, p):
    """Return scikit-learn's log-loss; a float32 softmax sums to one only nearly, of which it warns."""
    p = p.astype(float)
    return sklearn.metrics.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=range(p.shape[1]))


# --- the loss ---


@pytest.fixture(scope="module")
def mid_range():
    """Rows of probabilities far from 0 and 1, where every implementation must agree."""
    random = np.random.default_rng(1)
    p = random.dirichlet([5, 5, 5], size=40).astype("float32")
    return p / p.sum(axis=1, keepdims=True), random.integers(0, 3, size=40)


@pytest.mark.parametrize("shape", ["(n,)", "(n, 1)", "one-hot"])
def test_cross_entropy_equals_scikit_learn_and_keras(mid_range, shape):
    p, y = mid_range
    given = {"(n,)": y, "(n, 1)": y[:, None], "one-hot": np.eye(3)[y]}[shape]
    loss = float(CrossEntropy()(given, p))
    assert loss == pytest.approx(log_loss(y, p), rel=1e-6)
    assert loss == pytest.approx(float(keras.losses.SparseCategoricalCrossentropy()(y, p)), rel=1e-6)


def test_cross_entropy_with_label_smoothing_equals_keras(mid_range):
    p, y = mid_range
    expected = float(keras.losses.CategoricalCrossentropy(label_smoothing=0.2)(np.eye(3)[y], p))
    assert float(CrossEntropy(0.2)(y, p)) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_soft_labels_is_not_that_of_the_most_probable_one():
    # -(0.3 ln 0.2 + 0.7 ln 0.8) = 0.3 * 1.6094379 + 0.7 * 0.2231436
    loss = float(CrossEntropy()(np.array([[0.3, 0.7]]), np.array([[0.2, 0.8]], "float32")))
    assert loss == pytest.approx(0.3 * 1.6094379 + 0.7 * 0.2231436, rel=1e-6)


def test_cross_entropy_of_saturated_probabilities_is_not_clipped():
    # -ln(1e-30) = 30 ln 10 = 69.0776, where Keras clips at 1e-7 and says 16.12.
    # An underflow to 0 costs -ln(2^-126) = 126 ln 2.
    loss = CrossEntropy(reduction=None)
    p = np.array([[1.0, 1e-30], [1.0, 0.0], [1.0, 0.0]], "float32")
    assert np.asarray(loss(np.array([1, 1, 0]), p)) == pytest.approx(
        [69.0775528, 126 * 0.69314718, 0], rel=1e-6
    )


def test_a_confidently_wrong_row_keeps_its_gradient(tiny):
    # d(-log softmax(z)[1])/dz = p - y, here (1 - e^-60, -(1 - e^-60)).
    logits, y = np.array([[60.0, 0.0]], "float32"), np.array([1])
    slope = tiny.gradient(lambda z: CrossEntropy()(y, keras.ops.softmax(z)), logits)
    assert slope[0] == pytest.approx([1, -1], abs=1e-6)


def test_cross_entropy_of_nan_is_nan():
    assert np.isnan(float(CrossEntropy()(np.array([0]), np.array([[np.nan, np.nan]], "float32"))))


def test_cross_entropy_is_recreated_from_its_config():
    again = CrossEntropy.from_config(CrossEntropy(0.3, reduction="sum").get_config())
    assert (again.label_smoothing, again.reduction, again.name) == (0.3, "sum", "cross_entropy")


# --- pooling and softmax ---

SEQUENCE = np.array(
    [[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]], [[5.0, 6.0], [7.0, 8.0], [9.0, -1.0]]], "float32"
)
MASK = np.array([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("mean", [[2, -3], [7, 13 / 3]]),  # (1 + 3) / 2, (-4 - 2) / 2; (5 + 7 + 9) / 3, (6 + 8 - 1) / 3
        ("max", [[3, -2], [9, 8]]),
        ("cls", [[1, -4], [5, 6]]),
        ("last", [[3, -2], [9, -1]]),
    ],
)
def test_pooling_leaves_out_padding(mode, expected):
    assert np.asarray(Pooling(mode)(SEQUENCE, MASK)) == pytest.approx(np.array(expected))


def test_last_is_the_last_token_by_position_even_after_a_masked_one():
    assert np.asarray(Pooling("last")(SEQUENCE, np.array([[1, 0, 1], [1, 1, 0]]))).tolist() == [
        [100, 100],
        [7, 8],
    ]


def test_mean_of_a_row_of_padding_is_zero_not_nan():
    assert np.asarray(Pooling("mean")(SEQUENCE[:1], np.zeros((1, 3)))).tolist() == [[0, 0]]


def test_tempered_softmax_by_hand():
    layer = TemperedSoftmax()
    # Differences of 2 and 4 nats: 1 / (1 + e^-2 + e^-4)
    layer.build((None, 3))
    first = 1 / (1 + np.exp(-2) + np.exp(-4))
    assert np.asarray(layer(np.array([[4.0, 2.0, 0.0]])))[0, 0] == pytest.approx(first, rel=1e-6)
    layer.temperature.assign(2)
    first = 1 / (1 + np.exp(-1) + np.exp(-2))
    assert np.asarray(layer(np.array([[4.0, 2.0, 0.0]])))[0, 0] == pytest.approx(first, rel=1e-6)


# --- the form of labels ---

FORMS = {
    "indices": lambda y: y,
    "(n, 1)": lambda y: y[:, None],
    "one-hot": lambda y: np.eye(3, dtype="float32")[y],
}


@pytest.fixture(scope="module")
def rows():
    """Return (20, 3) probabilities and the classes of their rows."""
    random = np.random.default_rng(3)
    return random.dirichlet([1, 1, 1], size=20).astype("float32"), random.integers(0, 3, size=20)


def test_labels_are_read_as_asked(rows):
    y = rows[1]
    for form in FORMS.values():
        given = keras.ops.convert_to_tensor(form(y))
        assert np.asarray(as_read(given, True, 3)).tolist() == np.eye(3)[y].tolist()
        assert np.asarray(as_read(given, False, 3)).ravel().tolist() == y.tolist()
        assert as_read(given, None, 3) is given


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "metric, expected",
    [
        ("accuracy", sklearn.metrics.accuracy_score),
        ("acc", sklearn.metrics.accuracy_score),
        ("categorical_accuracy", sklearn.metrics.accuracy_score),
        (keras.metrics.SparseCategoricalAccuracy, sklearn.metrics.accuracy_score),
        (
            lambda: keras.metrics.F1Score(average="macro"),
            lambda y, answers: sklearn.metrics.f1_score(y, answers, average="macro"),
        ),
    ],
    ids=["accuracy", "acc", "categorical_accuracy", "Sparse", "F1Score"],
)
def test_metrics_of_answers_equal_those_of_scikit_learn(rows, form, metric, expected):
    p, y = rows
    made = metric_of_labels(metric if isinstance(metric, str) else metric(), 3)
    made.update_state(keras.ops.convert_to_tensor(form(y)), keras.ops.convert_to_tensor(p))
    assert float(made.result()) == pytest.approx(expected(y, p.argmax(axis=1)), abs=1e-6)
    assert not isinstance(metric, str) or made.name == metric


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_metrics_of_probabilities_equal_those_by_hand(rows, form):
    p, y = rows
    one_hot = np.eye(3)[y]
    by_hand = {
        "auc": sklearn.metrics.roc_auc_score(one_hot.ravel(), p.ravel()),  # of all classes in one
        "mean_squared_error": ((p - one_hot) ** 2).mean(),
        "binary_crossentropy": -(one_hot * np.log(p) + (1 - one_hot) * np.log(1 - p)).mean(),
        "sparse_categorical_crossentropy": log_loss(y, p),
    }
    for name, value in by_hand.items():
        metric = metric_of_labels(keras.metrics.AUC(10_000) if name == "auc" else name, 3)
        metric.update_state(keras.ops.convert_to_tensor(form(y)), keras.ops.convert_to_tensor(p))
        assert float(metric.result()) == pytest.approx(value, abs=1e-4 if name == "auc" else 1e-6)


def test_a_function_of_the_users_own_gets_labels_as_they_are(rows):
    p, y = rows
    seen = []

    def own(y_true, y_pred):
        seen.append(tuple(y_true.shape))
        return keras.ops.mean(y_pred, axis=-1)

    metric = metric_of_labels(own, 3)
    for form in FORMS.values():
        metric.update_state(keras.ops.convert_to_tensor(form(y)), keras.ops.convert_to_tensor(p))
    assert seen == [(20,), (20, 1), (20, 3)] and metric.name == "own"


@pytest.mark.parametrize("saved", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_would_change_answers_is_not_loaded(saved):
    layer = TemperedSoftmax()
    layer.build((None, 2))
    with pytest.raises(ValueError, match="^`temperature` must be a finite number above 0; got"):
        layer.load_own_variables({"0": np.array(saved, "float32")})
    layer.load_own_variables({"0": np.array(2.5, "float32")})
    assert float(layer.temperature) == 2.5
