"""Frozen layers at the bottom of a model: what they give is constant, so it is computed once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks
from finetune_eval.models.batching import Batches, Encoded, by_row, forward, in_streams
from finetune_eval.models.head import input_of, through_head

# Bytes of what the frozen layers give, above which it is not kept but computed anew in every batch.
_MOST = 2 << 30


@dataclass(frozen=True)
class Cut:
    """A model in two: `above` eats what `below`, which is not trained, gives.

    Attributes:
        below: Rows -> (rows, width), or (rows, tokens, width) where only the bottom layers are frozen.
        above: {"frozen": what `below` gives}, with the "padding_mask" if a vector a token, and the "columns"
            where there are any -> probabilities.
    """

    below: Any
    above: Any

    @property
    def a_vector_a_token(self) -> bool:
        """Whether `below` ends inside the backbone."""
        return "padding_mask" in self.above.input

    def join(self, inputs: Any, frozen: Any) -> dict[str, Any]:
        """Return what `above` eats."""
        return {"frozen": frozen, **{name: inputs[name] for name in self.above.input if name != "frozen"}}

    def __call__(self, inputs: Any, training: Any) -> Any:
        """Return probabilities, of rows or of what `below` gave for them; nothing is dropped below."""
        if not (isinstance(inputs, dict) and "frozen" in inputs):
            own: Any = inputs
            if isinstance(self.below.input, dict):
                own = {name: inputs[name] for name in self.below.input}
            inputs = self.join(inputs, self.below(own, training=False))
        return self.above(inputs, training=training)


def numbered_layers(backbone: Any) -> list[Any] | None:
    """Return a backbone's layers from the bottom up; None where it has none, or lists of them, as ALBERT."""
    layers = getattr(backbone, "transformer_layers", None)
    if layers is None or any(isinstance(layer, list) for layer in layers):
        return None
    return list(layers)


def layers_asked(name: str, count: Any, backbone: Any, *, instead: str) -> list[Any]:
    """Return a backbone's numbered layers; raise if there are fewer than asked for, or none at all."""
    layers = numbered_layers(backbone)
    if layers is None:
        raise ValueError(
            f"`{name}` must be {instead} for {type(backbone).__name__}, which has no numbered layers."
        )
    if _checks.positive_int(name, count) > len(layers):
        raise ValueError(
            f"`{name}` must be at most {len(layers)}, the number of layers of the backbone; got {count}."
        )
    return layers


def set_trainable(layer: Any, trainable: bool) -> None:
    """Freeze or unfreeze a layer and each layer inside.

    Not by one assignment: TensorFlow drops an attribute that is set to the value it has, and with it what the
    assignment would do to the layers inside.
    """
    for inner in layer._flatten_layers():
        inner.trainable = trainable


def freeze(backbone: Any, layers: Sequence[Any]) -> None:
    """Freeze layers of a backbone.

    Where one is frozen the backbone's own `trainable` is False, "not all of it is trained": Keras looks at
    it for nothing else, and `backbone.trainable = True` then does what it says (see `set_trainable`).
    """
    for layer in layers:
        set_trainable(layer, False)
    if layers:
        backbone._trainable = False


@contextlib.contextmanager
def trainable_as_before(model: Any) -> Iterator[None]:
    """After the context, have the layers and weights trained, or frozen, that were so before it."""
    layers = [(layer, layer._trainable) for layer in model._flatten_layers()]
    variables = [(variable, variable.trainable) for variable in model.variables]
    try:
        yield
    finally:
        for layer, trainable in layers:
            layer._trainable = trainable  # not the property, which would go on to the layers inside
        for variable, trainable in variables:
            variable.trainable = trainable


def trains(layer: Any) -> bool:
    """Whether anything in a layer is trained; its own `trainable` tells nothing of the layers inside."""
    return any(variable.trainable for variable in layer.variables)


def cut(model: Any) -> Cut | None:
    """Cut a `Classifier` above its frozen layers; None where none are, or the graph cannot be cut there."""
    backbone = model.backbone
    beside = input_of(model.columns)
    if not trains(backbone):
        features = model.get_layer("head_dropout").input
        frozen = keras.Input(features.shape[1:], name="frozen")
        above = keras.Model({"frozen": frozen, **beside}, through_head(model, frozen, beside))
        return Cut(keras.Model(model.inputs_of_features, features), above)
    layers = numbered_layers(backbone)
    if not layers or model.pooling is None or model.windows:
        return None
    depth = next(i for i, layer in enumerate([*layers, None]) if layer is None or trains(layer))
    if depth in (0, len(layers)):
        return None
    last = layers[depth - 1]
    bottom = backbone.layers[: backbone.layers.index(last) + 1]
    if any(trains(layer) for layer in bottom):
        return None
    output = backbone.output["sequence_output"] if isinstance(backbone.output, dict) else backbone.output
    try:
        top = keras.Model([last.output, backbone.input["padding_mask"]], output)
    except ValueError:  # a layer above reads more than what the layer below gives
        return None
    frozen = keras.Input(last.output.shape[1:], name="frozen")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    pooled = model.get_layer("pooling")(top([frozen, mask]), mask)
    above = keras.Model(
        {"frozen": frozen, "padding_mask": mask, **beside}, through_head(model, pooled, beside)
    )
    return Cut(keras.Model(backbone.input, last.output), above)


def size(rows: Encoded, where: Cut) -> int:
    """Bytes that `where.below` gives for `rows`."""
    vectors = int(rows.lengths.sum()) if where.a_vector_a_token else len(rows)
    return vectors * int(where.below.output.shape[-1]) * 4


def compute(batches: Batches, where: Cut) -> int:
    """Replace the batches' rows by what the frozen layers give for them; return how many rows that were.

    Rows whose result would take more than 2 GiB are left as they are: `Cut` computes them in every batch.
    """
    rows = batches.rows
    if size(rows, where) > _MOST:
        return 0
    in_turn = Batches(dataclasses.replace(rows, beside={}), None, None)
    run = forward(where.below, in_turn.spec)
    if not where.a_vector_a_token:
        batches.rows = Encoded({"frozen": by_row(run, in_turn)}, None, beside=rows.beside)
        return len(rows)
    offsets = rows.offsets
    assert offsets is not None
    values = np.empty((int(offsets[-1]), int(where.below.output.shape[-1])), dtype=np.float32)
    for chosen, found in zip(in_turn.order, in_streams(run, in_turn), strict=True):
        for row, vectors in zip(chosen, found, strict=True):
            start, stop = offsets[row], offsets[row + 1]
            values[start:stop] = vectors[: stop - start]
    kept = {"frozen": values, "padding_mask": rows.features["padding_mask"]}
    batches.rows = dataclasses.replace(rows, features=kept)
    return len(rows)
