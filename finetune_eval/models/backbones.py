"""BERT as its checkpoint declares it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops

from finetune_eval.models.halves import once

# What encoder layers multiply in where they are trained. A graph keeps what it was made with.
PRODUCTS = ContextVar("products", default="float32")


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


def _normalised(x: Any, scale: Any, shift: Any, epsilon: float) -> Any:
    """Layer normalisation over the last axis of (tokens, width); on TensorFlow in fewer passes, as GELU."""

    def units(x: Any) -> tuple[Any, Any]:
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + epsilon)
        return centred * inverse, inverse

    if keras.backend.backend() != "tensorflow":
        return units(x)[0] * scale + shift
    import tensorflow as tf

    @tf.custom_gradient
    def normalised(x: Any, scale: Any, shift: Any) -> Any:
        unit, inverse = units(x)

        def gradient(upstream: Any) -> Any:
            along, scaled = upstream * unit, upstream * scale
            mean = tf.reduce_mean(scaled, axis=-1, keepdims=True)
            mean_along = tf.linalg.matvec(along, scale)[:, tf.newaxis] / float(x.shape[-1])
            down = (scaled - mean - unit * mean_along) * inverse
            return down, tf.reduce_sum(along, axis=0), tf.reduce_sum(upstream, axis=0)

        return unit * scale + shift, gradient

    return normalised(x, scale, shift)


def _packing(mask: Any, multiple: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return what drops padding from (rows * tokens, width), and what puts zeros back in its place.

    As much padding stays as makes the tokens a multiple, if there is that much.
    """
    import tensorflow as tf

    mask = tf.reshape(tf.cast(mask, "bool"), (-1,))
    kept, size = tf.where(mask), tf.size(mask, out_type="int64")
    if multiple > 1:
        kept = tf.concat([kept, tf.where(~mask)[: -tf.shape(kept)[0] % multiple]], axis=0)
    # With the indices of `scatter_nd` and not of `gather` either's gradient is the other, and dense.
    return (
        lambda whole: tf.gather_nd(whole, kept),
        lambda part: tf.scatter_nd(kept, part, (size, part.shape[-1])),
    )


def _layer(
    x: Any,
    mask: Any,
    weights: Sequence[Any],
    drops: Sequence[Callable[[Any], Any]],
    *,
    heads: int,
    epsilon: float,
    activation: Callable[[Any], Any],
    packed: bool = False,
) -> Any:
    """One post-norm encoder layer, in as few and as large matrix products as there can be.

    Query, key and value are one product over all tokens of the batch; only the attention tells rows apart.
    Where it is `packed`, nothing but the attention sees padding, or hardly. Matrices are multiplied in
    the type of the kernels; all else is float32.
    """
    joined_kernel, joined_bias, mix_kernel, mix_bias, up_kernel, up_bias, down_kernel, down_bias = weights[:8]
    scale_1, shift_1, scale_2, shift_2 = weights[8:]
    drop_scores, drop_attended, drop_output = drops

    def product(x: Any, kernel: Any, bias: Any) -> Any:
        # Not `bias_add`: in bfloat16 the sum of its gradient is wrong by most of it (TensorFlow 2.21).
        return ops.matmul(ops.cast(x, kernel.dtype), kernel) + bias

    def float32(x: Any) -> Any:
        return ops.cast(x, "float32")

    rows, tokens, width = ops.shape(x)[0], ops.shape(x)[1], x.shape[-1]
    pack = unpack = lambda part: part  # noqa: E731
    if packed:
        # oneDNN makes, and keeps, programs of bfloat16 products for each number of tokens.
        pack, unpack = _packing(mask, multiple=16 if joined_kernel.dtype == "bfloat16" else 1)
    x = pack(ops.reshape(x, (-1, width)))
    joined = unpack(product(x, joined_kernel, joined_bias))
    joined = ops.reshape(joined, (rows, tokens, 3, heads, width // heads))
    query, key, value = ops.unstack(ops.transpose(joined, (2, 0, 3, 1, 4)), axis=0)
    scores = float32(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
    if mask is not None:
        # As Keras masks a softmax in float32.
        scores += (1.0 - ops.cast(mask, scores.dtype))[:, None, None, :] * -1e9
    shares = drop_scores(ops.softmax(scores, axis=-1))
    mixed = ops.matmul(ops.cast(shares, value.dtype), value)
    mixed = pack(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, width)))
    attended = float32(product(mixed, mix_kernel, mix_bias))
    x = _normalised(x + drop_attended(attended), scale_1, shift_1, epsilon)
    hidden = activation(float32(product(x, up_kernel, up_bias)))
    output = float32(product(hidden, down_kernel, down_bias))
    x = _normalised(x + drop_output(output), scale_2, shift_2, epsilon)
    return ops.reshape(unpack(x), (rows, tokens, width))


def _dropped(x: Any, rate: float, seed: Any) -> Any:
    """Dropout on TensorFlow. To draw is most of its work: 32 random bits serve two numbers.

    The rate is good to 2**-17, and what is kept grows by what that rate asks for.
    """
    import tensorflow as tf

    size, least = tf.size(x), round(rate * 2**16)
    bits = tf.random.stateless_uniform((size // 2 + 1,), seed, None, None, "uint32")
    bits = tf.reshape(tf.reshape(tf.bitcast(bits, "uint16"), (-1,))[:size], tf.shape(x))
    kept = tf.cast(bits >= tf.constant(least, "uint16"), x.dtype)
    return x * (kept * (1 / (1 - least / 2**16)))


@functools.cache
def _layer_graph(
    heads: int,
    epsilon: float,
    activation: Callable[[Any], Any],
    rates: tuple[float, ...],
    packed: bool,
) -> Any:
    """`_layer` as a TensorFlow function: traced, and differentiated, once for all layers of a kind."""
    import tensorflow as tf

    def run(x: Any, mask: Any, weights: Any, seeds: Any) -> Any:
        drops = [
            functools.partial(_dropped, rate=rate, seed=seed) if rate else (lambda x: x)
            for rate, seed in zip(rates, seeds, strict=True)
        ]
        return _layer(
            x, mask, weights, drops, heads=heads, epsilon=epsilon, activation=activation, packed=packed
        )

    # Kept as one function it is optimised once, not once a layer.
    return tf.function(run, autograph=False, experimental_attributes={"_noinline": True})


class _EncoderLayer(keras_hub.layers.TransformerEncoder):
    """KerasHub's encoder layer, its weights and its numbers, computed by `_layer`."""

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
    ) -> Any:
        special = attention_mask is not None or return_attention_scores or self.normalize_first
        if special or self.compute_dtype != "float32":
            return super().call(inputs, padding_mask, attention_mask, training, return_attention_scores)
        attention, norm = self._self_attention_layer, self._self_attention_layer_norm
        drops = (attention._dropout_layer, self._self_attention_dropout, self._feedforward_dropout)
        settings = {
            "heads": self.num_heads,
            "epsilon": norm.epsilon,
            "activation": self._feedforward_intermediate_dense.activation,
        }
        weights = once(self, lambda: self._weights(PRODUCTS.get() if training else "float32"))
        if keras.backend.backend() != "tensorflow":
            apply = [functools.partial(drop, training=training) for drop in drops]
            return _layer(inputs, padding_mask, weights, apply, **settings)
        rates = tuple(drop.rate if training else 0.0 for drop in drops)
        import tensorflow as tf

        # Rows to be predicted come sorted by length, with next to no padding. On a GPU, to know how many
        # tokens are real means waiting for it.
        on_cpu = not tf.config.list_physical_devices("GPU")
        packed = bool(training) and padding_mask is not None and on_cpu
        seeds = [
            drop.seed_generator.next() if rate else None for drop, rate in zip(drops, rates, strict=True)
        ]
        weights = [tf.convert_to_tensor(weight) for weight in weights]  # a variable would have its own graph
        return _layer_graph(rates=rates, packed=packed, **settings)(inputs, padding_mask, weights, seeds)

    def _weights(self, products: str) -> list[Any]:
        """Return what `_layer` takes, what is multiplied cast to `products`."""
        attention, width = self._self_attention_layer, self._self_attention_layer_norm.gamma.shape[0]

        def matrix(dense: Any) -> tuple[Any, Any]:
            return ops.reshape(dense.kernel, (width, width)), ops.reshape(dense.bias, (width,))

        query, key, value, mix = map(
            matrix,
            (attention.query_dense, attention.key_dense, attention.value_dense, attention.output_dense),
        )
        query = tuple(part / float(np.sqrt(width // self.num_heads)) for part in query)
        joined = (ops.concatenate(parts, axis=-1) for parts in zip(query, key, value, strict=True))
        up, down = self._feedforward_intermediate_dense, self._feedforward_output_dense
        multiplied = [*joined, *mix, up.kernel, up.bias, down.kernel, down.bias]
        norms = (self._self_attention_layer_norm, self._feedforward_layer_norm)
        return [
            *(ops.cast(part, products) for part in multiplied),
            *(part for norm in norms for part in (norm.gamma, norm.beta)),
        ]


class _TokenEmbedding(keras_hub.layers.ReversibleEmbedding):
    """KerasHub's token embedding; on TensorFlow the rows of a batch are read, not the whole table."""

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        table = self.embeddings
        plain = isinstance(table, keras.Variable) and not (reverse or self.quantization_mode)  # LoRA: a sum
        if keras.backend.backend() != "tensorflow" or not plain or self.compute_dtype != "float32":
            return super().call(inputs, reverse)
        import tensorflow as tf

        return tf.gather(table.value, tf.cast(inputs, "int32"))


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
        self.token_embedding.__class__ = _TokenEmbedding
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
