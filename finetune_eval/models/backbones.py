"""BERT as its checkpoint declares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops


def _gelu(x: Any) -> Any:
    """GELU by the error function; on TensorFlow with its derivative written out, in half the passes."""
    if keras.backend.backend() != "tensorflow":
        return keras.activations.gelu(x)
    import tensorflow as tf

    @tf.custom_gradient
    def gelu(x: Any) -> Any:
        # The normal distribution's share below x. TensorFlow's own GELU takes erfc, which is twice as slow.
        below = 0.5 + 0.5 * tf.math.erf(x * float(np.sqrt(0.5)))

        def gradient(upstream: Any) -> Any:
            density = tf.exp(-0.5 * tf.square(x)) * float(1 / np.sqrt(2 * np.pi))
            return upstream * (below + x * density)

        return x * below, gradient

    return gelu(x)


def _gelu_tanh(x: Any) -> Any:
    return keras.activations.gelu(x, approximate=True)


# The names Hugging Face gives to activations.
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
}


def declared_activation(name: str) -> Callable[[Any], Any]:
    """Return the function for the activation that a `config.json` names.

    Raises:
        ValueError: The name is not one we can honour exactly.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"The checkpoint declares the activation {name!r}, which is not one of "
            f"{', '.join(map(repr, _ACTIVATIONS))}; loading it with another would change every number "
            "it computes."
        )
    return _ACTIVATIONS[name]


class _EncoderLayer(keras_hub.layers.TransformerEncoder):
    """KerasHub's encoder layer, its weights and its numbers, in fewer and larger matrix products.

    Query, key and value are one product over all tokens of the batch, not three contractions of a
    three-dimensional kernel.
    """

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
    ) -> Any:
        if attention_mask is not None or return_attention_scores or self.normalize_first:
            return super().call(inputs, padding_mask, attention_mask, training, return_attention_scores)
        attended = self._self_attention_dropout(
            self._attend(inputs, padding_mask, training), training=training
        )
        x = self._self_attention_layer_norm(inputs + attended)
        y = self._feedforward_output_dense(self._feedforward_intermediate_dense(x))
        return self._feedforward_layer_norm(x + self._feedforward_dropout(y, training=training))

    def _attend(self, x: Any, padding_mask: Any, training: Any) -> Any:
        attention = self._self_attention_layer
        parts = (attention.query_dense, attention.key_dense, attention.value_dense)
        width, heads = x.shape[-1], self.num_heads
        rows, tokens = ops.shape(x)[0], ops.shape(x)[1]
        kernel = ops.concatenate([ops.reshape(part.kernel, (width, width)) for part in parts], axis=1)
        bias = ops.concatenate([ops.reshape(part.bias, (width,)) for part in parts], axis=0)
        joined = ops.matmul(ops.reshape(x, (-1, width)), kernel) + bias
        joined = ops.reshape(joined, (rows, tokens, 3, heads, width // heads))
        query, key, value = ops.unstack(ops.transpose(joined, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.matmul(query / float(np.sqrt(width // heads)), ops.transpose(key, (0, 1, 3, 2)))
        if padding_mask is not None:
            # As Keras masks a softmax in float32.
            scores += (1.0 - ops.cast(padding_mask, scores.dtype))[:, None, None, :] * -1e9
        weights = attention._dropout_layer(ops.softmax(scores, axis=-1), training=training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        output = attention.output_dense
        mixed = ops.matmul(ops.reshape(mixed, (-1, width)), ops.reshape(output.kernel, (width, width)))
        return ops.reshape(mixed + output.bias, ops.shape(x))


@keras.saving.register_keras_serializable(package="finetune_eval")
class BertBackbone(keras_hub.models.BertBackbone):
    """`keras_hub.models.BertBackbone` with the activation and epsilon the checkpoint declares.

    KerasHub computes every BERT with tanh-GELU and an epsilon of 1e-12, whatever `config.json` says: the
    embeddings of all-MiniLM-L6-v2, which declares `gelu` (erf), are then off by up to 3e-4.

    Args:
        hidden_act: The activation's name in `config.json`.
        layer_norm_eps: The epsilon of every layer normalisation.
        **kwargs: The arguments of `keras_hub.models.BertBackbone`.
    """

    def __init__(self, *, hidden_act: str = "gelu", layer_norm_eps: float = 1e-12, **kwargs: Any):
        activation = declared_activation(hidden_act)
        super().__init__(**kwargs)
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.embeddings_layer_norm.epsilon = layer_norm_eps
        for layer in self.transformer_layers:
            layer.__class__ = _EncoderLayer  # KerasHub's BERT has no argument for the class of its layers
            layer._feedforward_intermediate_dense.activation = activation
            layer._self_attention_layer_norm.epsilon = layer_norm_eps
            layer._feedforward_layer_norm.epsilon = layer_norm_eps

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the backbone, weights apart."""
        return {
            **super().get_config(),
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
        }
