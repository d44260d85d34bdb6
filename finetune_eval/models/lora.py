"""LoRA: each kernel stays as it is, and the product of two narrow matrices is trained and added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval.models.frozen import set_trainable

# The layers of an attention that Hu et al. 2021 adapt, as KerasHub and Keras name them.
_ADAPTED = ("query_dense", "value_dense", "query", "value")


def adapted(model: Any) -> list[Any]:
    """Return the layers that have an adapter."""
    return [layer for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)]


def check(model: Any, rank: int | None) -> None:
    """Raise where no adapters of this rank can be trained in a model; None is any rank."""
    other = next((layer.lora_rank for layer in adapted(model) if layer.lora_rank != rank), None)
    if other is not None and rank is not None:
        raise ValueError(
            f"`lora_rank` must be {other}, the rank of the adapters that the model has; got {rank}. "
            "`model.merge_lora()` turns these into weights first."
        )
    if not _targets(model):
        raise ValueError(
            "`strategy` 'lora' needs a backbone with attention layers, whose queries and values it adapts; "
            f"{type(model.backbone).__name__} has none. Use 'full' or 'head'."
        )


def build(model: Any, rank: int, seed: int) -> None:
    """Give a new model adapters, and freeze the rest of its backbone.

    Raises:
        ValueError: Its backbone has no queries and values.
    """
    if not _targets(model):
        raise ValueError(
            "`lora_rank` needs a backbone with attention layers, whose queries and values it adapts; "
            f"{type(model.backbone).__name__} has none. Leave it out."
        )
    enable(model, rank, seed)
    set_trainable(model.backbone, False)
    train_adapters_alone(model)


def described(model: Any) -> dict[str, Any] | None:
    """Return what `restore` needs of a model's adapters beside its weights; None where it has none."""
    layers = adapted(model)
    return {"rank": layers[0].lora_rank, "alone": _alone(model)} if layers else None


def restore(model: Any, known: Mapping[str, Any], weights: list[np.ndarray]) -> None:
    """Give a model whose adapters were merged when it was saved what it had before.

    Args:
        model: The model as `load_model` returns it.
        known: What `described` said.
        weights: All of its weights as they were, the adapters among them.
    """
    if known["alone"]:
        build(model, known["rank"], 0)
    else:
        enable(model, known["rank"], 0)
    model.set_weights(weights)


def _alone(model: Any) -> bool:
    """Whether nothing of the backbone is trained but its adapters and what stands beside them."""
    beside = {id(weight) for layer in adapted(model) for weight in layer.weights}
    return not any(weight.trainable for weight in model.backbone.weights if id(weight) not in beside)


def _targets(model: Any) -> list[Any]:
    named = (layer for layer in model.backbone._flatten_layers() if layer.name in _ADAPTED)
    return [layer for layer in named if hasattr(layer, "enable_lora")]


def enable(model: Any, rank: int, seed: int) -> None:
    """Give the queries and values of a model's attention adapters that change nothing yet.

    A model that has adapters keeps them as they are.

    Reference:
        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    if adapted(model):
        return
    for place, layer in enumerate(_targets(model)):
        own = int(np.random.default_rng([seed, place]).integers(2**31))  # Keras' default draws from the clock
        layer.enable_lora(rank, a_initializer=keras.initializers.HeUniform(seed=own))


def train_adapters_alone(model: Any) -> None:
    """Of the layers that have an adapter, train nothing else."""
    for layer in adapted(model):
        layer.trainable = True
        for variable in layer.weights:
            variable.trainable = "lora_" in variable.name


def merge(model: Any) -> None:
    """Add what the adapters do to the weights they stand beside, and remove them.

    Where nothing else of the backbone was trained, all of it is frozen afterwards.

    Raises:
        ValueError: A layer with an adapter is quantized.
    """
    layers = adapted(model)
    quantized = next((layer.name for layer in layers if layer.quantization_mode), None)
    if quantized is not None:
        raise ValueError(f"The layer {quantized!r} is quantized: its adapter cannot be merged into it.")
    frozen = _alone(model)
    for layer in layers:
        weight, a, b = _parts(layer)
        weight.assign(ops.convert_to_tensor(_merged(layer, *map(ops.convert_to_numpy, (weight, a, b)))))
        for variable in (a, b):
            delattr(layer, variable.name)
        layer.lora_enabled, layer.lora_rank = False, None
        if frozen:
            layer.trainable = False
        weight.trainable = layer.trainable


def as_saved(model: Any, weights: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return weights as a saved model has them, which holds no adapters: merged, by their place there.

    Args:
        model: The model in memory.
        weights: By place in `model.weights`; all of the weights of a layer, or none of them.
    """
    layers = adapted(model)
    if not layers:
        return dict(weights)
    places = {id(weight): place for place, weight in enumerate(model.weights)}
    found, extra = dict(weights), []
    for layer in layers:
        weight, a, b = (places[id(part)] for part in _parts(layer))
        if weight in found:
            found[weight] = _merged(layer, found[weight], found.pop(a), found.pop(b))
        extra += [a, b]
    return {place - sum(other < place for other in extra): value for place, value in found.items()}


def of_adapter(layer: Any) -> tuple[Any, Any]:
    """Return the two weights of a layer's adapter."""
    return _parts(layer)[1:]


def _parts(layer: Any) -> tuple[Any, Any, Any]:
    """Return a layer's own weight and the two of its adapter."""
    kind = "kernel" if hasattr(layer, "lora_kernel_a") else "embeddings"
    return tuple(getattr(layer, name) for name in (f"_{kind}", f"lora_{kind}_a", f"lora_{kind}_b"))


def _merged(layer: Any, weight: Any, a: Any, b: Any) -> np.ndarray:
    return np.asarray(weight + (layer.lora_alpha / layer.lora_rank) * np.matmul(a, b), dtype=weight.dtype)
