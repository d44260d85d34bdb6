"""BERT as its checkpoint declares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub


def _gelu_tanh(x: Any) -> Any:
    return keras.activations.gelu(x, approximate=True)


# The names Hugging Face gives to activations.
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": keras.activations.gelu,  # by the error function
    "gelu_python": keras.activations.gelu,
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
