"""BERT with the activation, the epsilon and the dropout that its checkpoint declares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops

from finetune_eval.models.halves import on_gpu, once

# What encoder layers multiply in where they are trained. A graph keeps what it was made with.
PRODUCTS = ContextVar("products", default="float32")

# What a function below returns beside its result: from the loss's gradient by the result, that by its inputs.
_Back = Callable[[Any], Any]


def _gelu_and_back(x: Any) -> tuple[Any, _Back]:
    # The normal distribution's share below x. TensorFlow's own GELU takes erfc, which is twice as slow. In
    # this order oneDNN computes it with the product that x comes from, where no derivative asks for x.
    below = (ops.erf(x * float(np.sqrt(0.5))) + 1.0) * 0.5

    def back(upstream: Any) -> Any:
        density = ops.exp(-0.5 * ops.square(x)) * float(1 / np.sqrt(2 * np.pi))
        return upstream * (below + x * density)

    return x * below, back


def _gelu(x: Any) -> Any:
    """GELU by the error function."""
    return _gelu_and_back(x)[0]


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
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ValueError(
            f"config.json declares the activation {name!r}, which is not one of "
            f"{', '.join(map(repr, _ACTIVATIONS))}; loading it with another would change every number "
            "it computes."
        )
    return _ACTIVATIONS[name]


def _activated(activation: Callable[[Any], Any], x: Any) -> tuple[Any, _Back]:
    if activation is _gelu:
        return _gelu_and_back(x)

    def back(upstream: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            found = activation(x)
        return tape.gradient(found, x, upstream)

    return activation(x), back


def _normalised(x: Any, scale: Any, shift: Any, epsilon: float) -> tuple[Any, _Back]:
    """Layer normalisation over the last axis of (tokens, width)."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    inverse = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + epsilon)
    unit = centred * inverse

    def back(upstream: Any) -> tuple[Any, Any, Any]:
        along, scaled = upstream * unit, upstream * scale
        mean = ops.mean(scaled, axis=-1, keepdims=True)
        mean_along = ops.matmul(along, scale[:, None]) / float(unit.shape[-1])
        down = (scaled - mean - unit * mean_along) * inverse
        return down, ops.sum(along, axis=0), ops.sum(upstream, axis=0)

    return unit * scale + shift, back


def _product(x: Any, kernel: Any, bias: Any) -> tuple[Any, _Back]:
    """`x @ kernel + bias`, (tokens, width), float32, multiplied in the type of the kernel."""
    x = ops.cast(x, kernel.dtype)

    def back(upstream: Any) -> tuple[Any, Any, Any]:
        narrow = ops.cast(upstream, kernel.dtype)
        down = ops.matmul(narrow, ops.transpose(kernel))
        # `sum` adds bfloat16 in float32. That of TensorFlow's `bias_add` adds in bfloat16, and its sums are
        # wrong by most of their size (2.21).
        of_bias = ops.cast(ops.sum(upstream, axis=0), "float32")
        return down, ops.matmul(ops.transpose(x), narrow), of_bias

    product = ops.cast(ops.matmul(x, kernel), "float32")
    if keras.backend.backend() != "tensorflow":
        return product + bias, back
    import tensorflow as tf

    return tf.nn.bias_add(product, bias), back  # as oneDNN knows it, to compute both at once


def _attended(
    joined: Any, hidden: Any, drop: Any, heads: int, pack: _Back, unpack: _Back
) -> tuple[Any, _Back]:
    """Mix values by the softmax of queries and keys: (tokens, 3 * width) -> (tokens, width)."""
    whole = unpack(joined)
    rows, tokens = ops.shape(whole)[:2]
    size = whole.shape[-1] // (3 * heads)
    whole = ops.transpose(ops.reshape(whole, (rows, tokens, 3, heads, size)), (2, 0, 3, 1, 4))
    query, key, value = ops.unstack(whole, axis=0)
    scores = ops.cast(ops.matmul(query, _turned(key)), "float32")
    shares = ops.softmax(scores if hidden is None else scores + hidden, axis=-1)
    dropped, back_dropped = drop(shares)
    dropped = ops.cast(dropped, value.dtype)
    mixed = ops.transpose(ops.matmul(dropped, value), (0, 2, 1, 3))

    def back(upstream: Any) -> Any:
        upstream = ops.reshape(unpack(upstream), (rows, tokens, heads, size))
        upstream = ops.transpose(upstream, (0, 2, 1, 3))
        down = back_dropped(ops.cast(ops.matmul(upstream, _turned(value)), "float32"))
        down = shares * (down - ops.sum(down * shares, axis=-1, keepdims=True))
        down = ops.cast(down, value.dtype)
        parts = [
            ops.matmul(down, key), ops.matmul(_turned(down), query), ops.matmul(_turned(dropped), upstream)
        ]  # fmt: skip
        parts = ops.transpose(ops.stack(parts, axis=0), (1, 3, 0, 2, 4))
        return pack(ops.reshape(parts, (rows, tokens, 3 * heads * size)))

    return pack(ops.reshape(mixed, (rows, tokens, heads * size))), back


def _turned(matrices: Any) -> Any:
    return ops.transpose(matrices, (0, 1, 3, 2))


def _dropping(rate: float, seed: Any) -> Callable[[Any], tuple[Any, _Back]]:
    """Dropout on TensorFlow. To draw is most of its work: 32 random bits serve two numbers.

    The rate is good to 2**-17, and what is kept grows by what that rate asks for.
    """
    import tensorflow as tf

    if not rate:
        return lambda x: (x, lambda upstream: upstream)
    least = round(rate * 2**16)

    def drop(x: Any) -> tuple[Any, _Back]:
        bits = tf.random.stateless_uniform((tf.size(x) // 2 + 1,), seed, None, None, "uint32")
        bits = tf.reshape(tf.reshape(tf.bitcast(bits, "uint16"), (-1,))[: tf.size(x)], tf.shape(x))
        kept = bits >= tf.constant(least, "uint16")

        def apply(x: Any) -> Any:
            return x * (tf.cast(kept, x.dtype) * (1 / (1 - least / 2**16)))

        return apply(x), apply

    return drop


def _with_no_back(drop: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, _Back]]:
    """For a backend that derives by itself."""
    return lambda x: (drop(x), lambda upstream: upstream)


def _packing(mask: Any, multiple: int) -> tuple[_Back, _Back]:
    """Return what drops padding from (rows, tokens, width), and what puts zeros back in its place.

    What comes between is (tokens of all rows, width). As much padding stays as makes its tokens a multiple,
    if there is that much. Either is the other's derivative.
    """
    import tensorflow as tf

    rows, tokens = tf.unstack(tf.shape(mask))
    mask = tf.reshape(tf.cast(mask, "bool"), (-1,))
    kept = tf.where(mask)
    if multiple > 1:
        kept = tf.concat([kept, tf.where(~mask)[: -tf.shape(kept)[0] % multiple]], axis=0)
    size = tf.cast(rows * tokens, kept.dtype)

    def unpack(part: Any) -> Any:
        return tf.reshape(tf.scatter_nd(kept, part, (size, part.shape[-1])), (rows, tokens, part.shape[-1]))

    return lambda whole: tf.gather_nd(tf.reshape(whole, (-1, whole.shape[-1])), kept), unpack


def _all_tokens(x: Any) -> tuple[_Back, _Back]:
    """Return what `_packing` does, for batches like (rows, tokens, width) that keep their padding."""
    rows, tokens = ops.shape(x)[:2]
    return (
        lambda whole: ops.reshape(whole, (-1, whole.shape[-1])),
        lambda part: ops.reshape(part, (rows, tokens, part.shape[-1])),
    )


def _layer(
    x: Any,
    mask: Any,
    weights: Sequence[Any],
    drops: Sequence[Callable[[Any], tuple[Any, _Back]]],
    *,
    heads: int,
    epsilon: float,
    activation: Callable[[Any], Any],
    packed: bool = False,
) -> tuple[Any, _Back]:
    """One post-norm encoder layer, and what takes a gradient back through it to x and the weights.

    In as few and as large matrix products as there can be: query, key and value are one product over all
    tokens of the batch, and only the attention tells rows apart. Where it is `packed`, nothing but the
    attention sees padding, or hardly. Matrices are multiplied in the type of the kernels; all else is
    float32.
    """
    joined_kernel, joined_bias, mix_kernel, mix_bias, up_kernel, up_bias, down_kernel, down_bias = weights[:8]
    scale_1, shift_1, scale_2, shift_2 = weights[8:]
    drop_shares, drop_attended, drop_output = drops
    # As Keras masks a softmax in float32.
    hidden = None if mask is None else (1.0 - ops.cast(mask, "float32"))[:, None, None, :] * -1e9
    # oneDNN makes, and keeps, programs of bfloat16 products for each number of tokens: let there be few.
    few = joined_kernel.dtype == "bfloat16"
    pack, unpack = _packing(mask, 16 if few else 1) if packed else _all_tokens(x)

    def float32(x: Any) -> Any:
        return ops.cast(x, "float32")

    x = pack(x)
    joined, back_joined = _product(x, joined_kernel, joined_bias)
    joined = ops.cast(joined, joined_kernel.dtype)
    mixed, back_mixed = _attended(joined, hidden, drop_shares, heads, pack, unpack)
    attended, back_attended = _product(mixed, mix_kernel, mix_bias)
    attended, back_drop_attended = drop_attended(attended)
    x, back_norm_1 = _normalised(x + attended, scale_1, shift_1, epsilon)
    up, back_up = _product(x, up_kernel, up_bias)
    active, back_active = _activated(activation, up)
    output, back_output = _product(active, down_kernel, down_bias)
    output, back_drop_output = drop_output(output)
    x, back_norm_2 = _normalised(x + output, scale_2, shift_2, epsilon)

    def back(upstream: Any) -> tuple[Any, ...]:
        down, *norm_2 = back_norm_2(pack(upstream))
        inner, *of_down = back_output(back_drop_output(down))
        inner, *of_up = back_up(back_active(float32(inner)))
        down, *norm_1 = back_norm_1(down + float32(inner))
        inner, *of_mix = back_attended(back_drop_attended(down))
        inner, *of_joined = back_joined(back_mixed(inner))
        return unpack(down + float32(inner)), *of_joined, *of_mix, *of_up, *of_down, *norm_1, *norm_2

    return unpack(x), back


@functools.cache
def _layer_graph(
    heads: int,
    epsilon: float,
    activation: Callable[[Any], Any],
    rates: tuple[float, ...],
    packed: bool,
) -> Any:
    """`_layer` as a TensorFlow function: traced once for all layers of a kind.

    With its own derivative memory is gone over fewer times, and kept for no more than is needed: TensorFlow's
    would keep half as much again, in part for its shape alone.
    """
    import tensorflow as tf

    def run(x: Any, mask: Any, weights: Any, seeds: Any) -> Any:
        @tf.custom_gradient
        def layer(x: Any, *weights: Any) -> tuple[Any, _Back]:
            drops = [_dropping(rate, seed) for rate, seed in zip(rates, seeds, strict=True)]
            return _layer(
                x, mask, weights, drops, heads=heads, epsilon=epsilon, activation=activation, packed=packed
            )

        return layer(x, *weights)

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
        quantized = any(layer.quantization_mode for layer in self._flatten_layers(include_self=False))
        special = attention_mask is not None or return_attention_scores or self.normalize_first or quantized
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
            apply = [_with_no_back(functools.partial(drop, training=training)) for drop in drops]
            output, _ = _layer(inputs, padding_mask, weights, apply, **settings)
            return output
        rates = tuple(drop.rate if training else 0.0 for drop in drops)
        import tensorflow as tf

        # Rows to be predicted come sorted by length, with next to no padding. On a GPU, to know how many
        # tokens are real means waiting for it.
        packed = bool(training) and padding_mask is not None and not on_gpu()
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
        products_of = (joined, mix, (up.kernel, up.bias), (down.kernel, down.bias))
        norms = (self._self_attention_layer_norm, self._feedforward_layer_norm)
        return [
            *(part for kernel, bias in products_of for part in (ops.cast(kernel, products), bias)),
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


class _AsDeclared:
    """Gives a KerasHub backbone the activation, epsilon and dropout rates that its checkpoint declares.

    KerasHub fixes the activation and the epsilon of each family, whatever `config.json` says: the embeddings
    of all-MiniLM-L6-v2, which declares `gelu` (erf), are then off by up to 3e-4.

    Args:
        hidden_act: The activation's name in `config.json`.
        layer_norm_eps: The epsilon of every layer normalisation.
        dropout: The dropout rate of embeddings and layers.
        attention_dropout: The dropout rate of attention probabilities; None for `dropout`.
        **kwargs: The other arguments of the KerasHub backbone.
    """

    def __init__(
        self,
        *,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        **kwargs: Any,
    ):
        activation = declared_activation(hidden_act)
        of_attention = dropout if attention_dropout is None else attention_dropout
        # A layer that is made with a rate of 0 cannot be given another one later.
        super().__init__(dropout=max(dropout, of_attention), **kwargs)  # type: ignore[call-arg]
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        backbone: Any = self
        backbone.embeddings_layer_norm.epsilon = layer_norm_eps
        backbone.embeddings_dropout.rate = dropout
        for layer in encoder_layers(self):
            layer._feedforward_intermediate_dense.activation = activation
            layer._self_attention_layer_norm.epsilon = layer_norm_eps
            layer._feedforward_layer_norm.epsilon = layer_norm_eps
            layer._self_attention_dropout.rate = layer._feedforward_dropout.rate = dropout
            layer._self_attention_layer._dropout = of_attention
            layer._self_attention_layer._dropout_layer.rate = of_attention

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the backbone, weights apart."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        names = ("hidden_act", "layer_norm_eps", "dropout", "attention_dropout")
        return {**config, **{name: getattr(self, name) for name in names}}


def encoder_layers(backbone: Any) -> list[Any]:
    """Return a backbone's encoder layers, each once, also where they come in groups (ALBERT)."""
    layers: list[Any] = keras.tree.flatten(backbone.transformer_layers)
    return layers


@keras.saving.register_keras_serializable(package="finetune_eval")
class BertBackbone(_AsDeclared, keras_hub.models.BertBackbone):
    """`keras_hub.models.BertBackbone` as its checkpoint declares it, computed by `_EncoderLayer`."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.token_embedding.__class__ = _TokenEmbedding
        for layer in self.transformer_layers:
            layer.__class__ = _EncoderLayer  # KerasHub's BERT has no argument for the class of its layers


@keras.saving.register_keras_serializable(package="finetune_eval")
class DistilBertBackbone(_AsDeclared, keras_hub.models.DistilBertBackbone):
    """`keras_hub.models.DistilBertBackbone` as its checkpoint declares it."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class ElectraBackbone(_AsDeclared, keras_hub.models.ElectraBackbone):
    """`keras_hub.models.ElectraBackbone` as its checkpoint declares it."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class RobertaBackbone(_AsDeclared, keras_hub.models.RobertaBackbone):
    """`keras_hub.models.RobertaBackbone` as its checkpoint declares it."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class XLMRobertaBackbone(_AsDeclared, keras_hub.models.XLMRobertaBackbone):
    """`keras_hub.models.XLMRobertaBackbone` as its checkpoint declares it."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class AlbertBackbone(_AsDeclared, keras_hub.models.AlbertBackbone):
    """`keras_hub.models.AlbertBackbone` as its checkpoint declares it."""
