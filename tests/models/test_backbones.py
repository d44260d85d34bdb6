"""The encoder layer computes what KerasHub's does: same weights, same numbers, same gradients."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from finetune_eval.models import backbones


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    lengths = np.array([[9], [3], [1], [6]])
    return {
        "token_ids": random.integers(1, 30, (4, 9)).astype("int32"),
        "segment_ids": np.zeros((4, 9), "int32"),
        "padding_mask": (np.arange(9) < lengths).astype("int32"),
    }


def outputs_and_gradients(model, batch, gradient):
    mask = keras.ops.convert_to_tensor(batch["padding_mask"].astype("float32")[..., None])
    variables = model.trainable_variables
    fixed = [v.value for v in model.non_trainable_variables]

    def outputs(values):
        return model.stateless_call(values, fixed, batch, training=True)[0]["sequence_output"] * mask

    values = [v.value for v in variables]
    found = gradient(lambda values: keras.ops.sum(outputs(values) ** 3), values)
    gradients = {v.path: g for v, g in zip(variables, found, strict=True) if "pooled" not in v.path}
    return keras.ops.convert_to_numpy(outputs(values)), gradients


def encoder_layer(width, intermediate_dim):
    layer = keras_hub.layers.TransformerEncoder(intermediate_dim, num_heads=2, dropout=0.0)
    layer.build((None, None, width))
    layer.__class__ = backbones._EncoderLayer
    return layer


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layer_equals_keras_hubs_layer(batch, tiny, activation):
    sizes = {"vocabulary_size": 30, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
    ours = backbones.BertBackbone(**sizes, max_sequence_length=9, dropout=0.0, hidden_act=activation)
    stock = backbones.BertBackbone(**sizes, max_sequence_length=9, dropout=0.0, hidden_act=activation)
    for layer in stock.transformer_layers:
        layer.__class__ = keras_hub.layers.TransformerEncoder
    random = np.random.default_rng(1)
    weights = [w + 0.3 * random.normal(size=w.shape).astype("float32") for w in ours.get_weights()]
    ours.set_weights(weights)
    stock.set_weights(weights)
    out, gradients = outputs_and_gradients(ours, batch, tiny.gradient)
    expected, expected_gradients = outputs_and_gradients(stock, batch, tiny.gradient)
    np.testing.assert_allclose(out, expected, atol=3e-6)
    for one, other in zip(gradients.values(), expected_gradients.values(), strict=True):
        # Of the key's bias the exact gradient is 0, and rounding is all there is: hence the absolute part.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow alone drops padding")
def test_in_training_padding_is_dropped_and_tokens_are_what_they_were(batch):
    random = np.random.default_rng(2)
    layer = encoder_layer(8, 12)
    x, mask = random.normal(size=(4, 9, 8)).astype("float32"), batch["padding_mask"]
    trained = np.asarray(layer(x, padding_mask=mask, training=True))
    predicted = np.asarray(layer(x, padding_mask=mask, training=False))
    real = mask.astype(bool)
    np.testing.assert_allclose(trained[real], predicted[real], atol=1e-6)
    assert not trained[~real].any() and predicted[~real].any()
    nothing = np.asarray(layer(x[:0], padding_mask=mask[:0], training=True))  # half of one row
    assert nothing.shape == (0, 9, 8)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bfloat16 products are TensorFlow's")
def test_in_bfloat16_outputs_and_gradients_are_those_of_float32_to_its_rounding():
    """With many tokens: a sum in bfloat16 stops growing at 256 times what is added."""
    random = np.random.default_rng(3)
    layer = encoder_layer(16, 24)
    layer.set_weights([
        float("gamma" in weight.path) + 0.3 * random.normal(size=weight.shape) for weight in layer.weights
    ])  # fmt: skip
    x = tf.constant(random.normal(size=(96, 40, 16)).astype("float32"))
    aim = random.normal(size=x.shape).astype("float32") + 1.0
    mask = (np.arange(40) < random.integers(1, 41, (96, 1))).astype("float32")

    @tf.function
    def run(products):
        token = backbones.PRODUCTS.set(products)
        with tf.GradientTape() as tape:
            out = layer(x, padding_mask=mask, training=True)
            out *= mask[:, :, np.newaxis]
            loss = tf.reduce_mean((out - aim) ** 2)
        backbones.PRODUCTS.reset(token)
        return out, tape.gradient(loss, [v.value for v in layer.trainable_variables])

    found, expected = run("bfloat16"), run("float32")
    assert 1e-4 < off(found[0], expected[0]) < 0.01
    for variable, one, other in zip(layer.trainable_variables, found[1], expected[1], strict=True):
        if "key/bias" not in variable.path:  # its exact gradient is 0
            assert off(one, other) < 0.05, variable.path


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends derive by themselves")
def test_the_derivative_with_dropout_is_the_slope():
    """Of a layer that drops the same every time, as it does with the same seeds."""
    random = np.random.default_rng(4)
    layer = encoder_layer(8, 12)
    mask = (np.arange(9) < np.array([[9], [3], [1], [6]])).astype("int32")
    weights = [
        float(index in (8, 10)) + 0.3 * random.normal(size=weight.shape)  # the scales around 1
        for index, weight in enumerate(layer._weights("float32"))
    ]
    point = [tf.constant(part, "float32") for part in (random.normal(size=(4, 9, 8)), *weights)]
    graph = backbones._layer_graph(2, 1e-6, backbones._gelu, (0.3, 0.4, 0.5), True)
    seeds = [(1, 2), (3, 4), (5, 6)]

    def loss(x, *weights):
        return tf.reduce_sum(graph(x, tf.constant(mask), list(weights), seeds) ** 3)

    with tf.GradientTape() as tape:
        tape.watch(point)
        value = loss(*point)
    for index, gradient in enumerate(tape.gradient(value, point)):
        way = tf.constant(random.normal(size=gradient.shape), "float32")
        way *= 0.01 / tf.norm(way)
        ahead, behind = (
            loss(*[part + sign * way if place == index else part for place, part in enumerate(point)])
            for sign in (1, -1)
        )
        slope = float(tf.reduce_sum(gradient * way))
        assert float(ahead - behind) / 2 == pytest.approx(slope, rel=0.02, abs=2e-3), index


def off(found, expected):
    """Return |found - expected| / |expected|."""
    found, expected = np.asarray(found), np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras' own dropout elsewhere")
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    x = tf.ones((301, 333))
    dropped, back = backbones._dropping(rate, (1, 2))(x)
    found = np.asarray(dropped)
    error = np.sqrt(rate * (1 - rate) / found.size)
    assert np.mean(found == 0) == pytest.approx(rate, abs=4 * error)
    np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=1e-4)
    # Neighbours, of which two share a draw, and rows are independent.
    for one, other in ((found[:, :-1], found[:, 1:]), (found[:-1], found[1:])):
        both = np.mean((one == 0) & (other == 0))
        assert both == pytest.approx(rate**2, abs=4 * np.sqrt(rate**2 * (1 - rate**2) / one.size))
    assert np.array_equal(found, np.asarray(back(x)))  # the derivative drops the same
    assert np.array_equal(found, np.asarray(backbones._dropping(rate, (1, 2))(x)[0]))
    assert not np.array_equal(found, np.asarray(backbones._dropping(rate, (1, 3))(x)[0]))


def test_gelu_and_its_derivative_equal_the_definition(tiny):
    x = np.linspace(-8, 8, 401, dtype="float32")
    gelu = backbones.declared_activation("gelu")
    slope = tiny.gradient(lambda x: keras.ops.sum(gelu(x)), x)
    wide = x.astype("float64")
    below = 0.5 * (1 + erf(wide / np.sqrt(2)))
    values = keras.ops.convert_to_numpy(gelu(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(values, wide * below, atol=2e-6)
    density = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, below + wide * density, atol=2e-6)
