"""`evaluate` on Keras models this library never made: the loss and accuracy of `model.evaluate`."""

import keras
import numpy as np
import pytest

from finetune_eval.evaluation.evaluate import evaluate

X = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
SPARSE, FULL, BINARY = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.BinaryCrossentropy,
)


def model(outputs, ending, loss, metrics=("accuracy",)):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(outputs, ending)]
    built = keras.Sequential(layers)
    built.compile(optimizer="sgd", loss=loss, metrics=list(metrics))
    return built


@pytest.mark.parametrize(
    ("outputs", "ending", "loss", "one_hot"),
    [
        (3, "softmax", "sparse_categorical_crossentropy", False),
        (3, None, SPARSE(from_logits=True), False),
        (3, "softmax", FULL(), True),
        (3, None, FULL(from_logits=True), True),
        (3, "softmax", keras.losses.sparse_categorical_crossentropy, False),
        (1, "sigmoid", "binary_crossentropy", False),
        (1, None, BINARY(from_logits=True), False),
    ],
)
def test_loss_and_accuracy_are_model_evaluates(outputs, ending, loss, one_hot):
    # "accuracy" on one logit compares it with 0.5, which is wrong; zero is where its sigmoid is one half
    metrics = ["accuracy"] if outputs > 1 or ending else [keras.metrics.BinaryAccuracy(threshold=0.0)]
    built = model(outputs, ending, loss, metrics)
    classes = max(outputs, 2)
    y = np.random.default_rng(1).integers(0, classes, len(X))
    before = [weight.copy() for weight in built.get_weights()]
    given = np.eye(classes)[y] if one_hot else y
    expected_loss, expected_accuracy = built.evaluate(X, given, verbose=0)
    result = evaluate(built, X, given, batch_size=50)
    assert result.loss == pytest.approx(expected_loss, rel=1e-6)
    assert result.accuracy == pytest.approx(expected_accuracy, abs=1e-6)
    for old, new in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("outputs", "loss", "message"),
    [
        (3, "sparse_categorical_crossentropy", "does not say that they are logits"),
        (1, "binary_crossentropy", "may be logits or probabilities"),
        (1, "sparse_categorical_crossentropy", "softmax over one column is always 1"),
    ],
)
def test_logits_that_the_loss_takes_for_probabilities_are_refused(outputs, loss, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model(outputs, None, loss), X, np.arange(len(X)) % max(outputs, 2))


def test_label_smoothing_is_said():
    result = evaluate(model(3, "softmax", FULL(label_smoothing=0.1)), X, np.arange(len(X)) % 3)
    assert "label smoothing 0.1" in result.warnings[-1]


def pipelines(y):
    """The same 120 rows as a tf.data pipeline that shuffles at each pass, and as a PyDataset."""
    import tensorflow as tf

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return X[40 * i : 40 * i + 40], y[40 * i : 40 * i + 40]

    data = tf.data.Dataset.from_tensor_slices((X, y))
    return data.shuffle(120, reshuffle_each_iteration=True).batch(50), Batches()


def test_a_pipeline_is_read_once_with_its_labels():
    built, y = model(3, "softmax", "sparse_categorical_crossentropy"), np.arange(len(X)) % 3
    expected = evaluate(built, X, y)
    for pipeline in pipelines(y):
        result = evaluate(built, pipeline)
        assert result.n == 120 and result.accuracy == expected.accuracy
        assert result.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_pipeline_that_cannot_be_scored_is_refused():
    built, y = model(3, "softmax", "sparse_categorical_crossentropy"), np.arange(len(X)) % 3
    data = pipelines(y)[0]
    for x, labels, sentence in [
        (data, y, "which gives the labels and weights; pass neither beside it"),
        (data.repeat(), None, "that never ends; take a number of batches"),
        (data.take(0), None, "without a batch; at least one row is needed"),
        (data.map(lambda x, y: x), None, r"without labels; each batch must be \(x, y\)"),
        (data.unbatch(), None, "of single rows; batch it first"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            evaluate(built, x, labels)
