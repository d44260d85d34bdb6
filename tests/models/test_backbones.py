"""The encoder layer computes what KerasHub's does: same weights, same numbers, same gradients."""

import keras
import keras_hub
import numpy as np
import pytest
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
    mask = batch["padding_mask"].astype("float32")[..., None]
    variables = model.trainable_variables
    fixed = [v.value for v in model.non_trainable_variables]

    def outputs(values):
        return model.stateless_call(values, fixed, batch, training=True)[0]["sequence_output"] * mask

    values = [v.value for v in variables]
    found = gradient(lambda values: keras.ops.sum(outputs(values) ** 3), values)
    gradients = {v.path: g for v, g in zip(variables, found, strict=True) if "pooled" not in v.path}
    return np.asarray(outputs(values)), gradients


def test_layer_equals_keras_hubs_layer(batch, tiny):
    sizes = {"vocabulary_size": 30, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
    ours = backbones.BertBackbone(**sizes, max_sequence_length=9, dropout=0.0, hidden_act="relu")
    stock = backbones.BertBackbone(**sizes, max_sequence_length=9, dropout=0.0, hidden_act="relu")
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
    layer = keras_hub.layers.TransformerEncoder(intermediate_dim=12, num_heads=2, dropout=0.0)
    layer.build((None, None, 8))
    layer.__class__ = backbones._EncoderLayer
    x, mask = random.normal(size=(4, 9, 8)).astype("float32"), batch["padding_mask"]
    trained = np.asarray(layer(x, padding_mask=mask, training=True))
    predicted = np.asarray(layer(x, padding_mask=mask, training=False))
    real = mask.astype(bool)
    np.testing.assert_allclose(trained[real], predicted[real], atol=1e-6)
    assert not trained[~real].any() and predicted[~real].any()
    nothing = np.asarray(layer(x[:0], padding_mask=mask[:0], training=True))  # half of one row
    assert nothing.shape == (0, 9, 8)


def test_gelu_and_its_derivative_equal_the_definition(tiny):
    x = np.linspace(-8, 8, 401, dtype="float32")
    gelu = backbones.declared_activation("gelu")
    slope = tiny.gradient(lambda x: keras.ops.sum(gelu(x)), x)
    wide = x.astype("float64")
    below = 0.5 * (1 + erf(wide / np.sqrt(2)))
    np.testing.assert_allclose(np.asarray(gelu(x)), wide * below, atol=2e-6)
    density = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, below + wide * density, atol=2e-6)
