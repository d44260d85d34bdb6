"""trace_prediction: follow one text through the model, and check the answer against `predict`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _checks, _columns, _pairs, _rows
from finetune_eval.evaluation.abstention import WITHHELD
from finetune_eval.models.batching import Encoded
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.frozen import numbered_layers
from finetune_eval.models.windows import covered
from finetune_eval.traces.prediction import LayerStep, PredictionTrace

_POOLING_WORDS = {
    "mean": "mean of the tokens",
    "max": "largest value over the tokens",
    "cls": "first token",
    "last": "last token",
}


def trace_prediction(
    model: Classifier,
    text: str | Sequence[str] | Mapping[str, Any],
    *,
    moved: Mapping[str, float] | None = None,
) -> PredictionTrace:
    """Follow one text, or one pair of texts: tokens, embedding, every layer, pooling, softmax, answer.

    Args:
        model: A classifier of texts, from `build_model` or `load_model`.
        text: One text; where the model reads pairs, the two of a pair, and where it reads columns, a
            dictionary of the text and a value for each column.
        moved: Layer name -> how far fine-tuning moved its weights; None for what `fine_tune` left on the
            model.

    Returns:
        The trace; `print` draws it. `check` is its largest difference from `model.predict`.

    Raises:
        TypeError: The model does not take texts, or `text` is not one.
    """
    if not isinstance(model, Classifier) or not model.takes_text:
        raise TypeError("`model` must be a classifier of texts, from `build_model` or `load_model`.")
    rows, text, texts = _row_of(model, text)
    encoded = model.encode(rows, name="text")
    batch = encoded.take(np.array([0]))
    if moved is None:
        moved = getattr(model, "moved", None) or {}

    # The rows of the backbone: several, where the text is read in windows.
    windows = {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in encoded.features}
    sequence_layers, values = _sequence_outputs(model.backbone, windows)
    mask = windows["padding_mask"].astype(bool)
    steps: list[LayerStep] = []
    previous: Any = None
    for layer, value in zip(sequence_layers, values, strict=True):
        vectors = value[mask]
        cosine = None if previous is None else _mean_cosine(previous, vectors)
        shape = value.shape[1:]
        steps.append(LayerStep(layer.name, shape, _mean_norm(vectors), cosine, moved.get(layer.name)))
        previous = vectors

    head = keras.Model(
        model.input,
        [
            model.get_layer("head_dropout").input,
            model.get_layer("probabilities").input,
            model.get_layer("probabilities").output,
        ],
    )
    pooled, logits, probabilities = (ops.convert_to_numpy(value)[0] for value in head(batch, training=False))
    decided = model.decide(probabilities[np.newaxis])[0]
    given = np.flatnonzero(decided) if model.multilabel else [int(decided)]
    names = [WITHHELD if place < 0 else model.labels[place] for place in given]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _checks.TextsCut)  # the trace itself tells what was cut
        predicted = model.predict(rows, verbose=0)[0]
    tokenizer = model.preprocessor.tokenizer
    ids, count = encoded.features["token_ids"], len(mask)
    pooling = _POOLING_WORDS[str(model.pooling)] + (f", mean of {count} windows" if count > 1 else "")
    return PredictionTrace(
        text=text,
        tokens=tuple(tokenizer.id_to_token(int(i)) for i in ids),
        token_ids=tuple(int(i) for i in ids),
        embedding=steps[0],
        layers=tuple(steps[1:]),
        pooling=pooling,
        pooled_shape=pooled.shape,
        logits=tuple(float(v) for v in logits),
        probabilities=tuple(float(v) for v in probabilities),
        labels=model.labels,
        answer=", ".join(names) or "no label",
        head="sigmoid" if model.multilabel else "softmax",
        check=float(np.abs(probabilities - predicted).max()),
        tokens_cut=_tokens_cut(model, texts, encoded),
        threshold=model.cuts,
        columns=() if model.columns is None else _beside(rows),
    )


def _beside(row: np.ndarray) -> tuple[str, ...]:
    """Return the columns beside the text of one row, each with its value."""
    shown = []
    for name in (row.dtype.names or ())[1:]:
        value = row[name][0]
        known = f"{value:g}" if isinstance(value, float) else repr(value)
        shown.append(f"{name} {'missing' if _rows.is_missing(value) else known}")
    return tuple(shown)


def _row_of(model: Classifier, text: Any) -> tuple[Any, str, list[str]]:
    """Return what `predict` reads for one row, the row as one text, and the one text or two of it."""
    if model.takes_pairs:
        pair = _pairs.pairs("text", [text])
        return pair.tolist(), str(_pairs.joined(pair)[0]), pair[0].tolist()
    if model.columns is not None:
        rows: Any = np.array([text], dtype=text.dtype) if isinstance(text, np.void) else [text]
        row = model.columns.read("text", rows)
        texts = _columns.text_of(row).tolist()
        return row, texts[0], texts
    if not isinstance(text, str):
        raise TypeError(f"`text` must be one string; got {type(text).__name__}.")
    return [text], text, [text]


def _sequence_outputs(backbone: Any, batch: dict[str, np.ndarray]) -> tuple[list[Any], list[np.ndarray]]:
    """Return the embedding and the layers that give a vector a token, in order, and what they give."""
    layers = numbered_layers(backbone)
    if layers:
        first = backbone.layers.index(layers[0])
        embedding = next(layer for layer in reversed(backbone.layers[:first]) if len(layer.output.shape) == 3)
        chosen = [embedding, *layers]
    else:
        chosen = [
            layer
            for layer in backbone.layers
            if not isinstance(layer.output, (list, dict)) and len(layer.output.shape) == 3
        ]
    outputs = keras.Model(backbone.input, [layer.output for layer in chosen])(batch, training=False)
    return chosen, [ops.convert_to_numpy(value) for value in outputs]


def _mean_norm(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=-1).mean())


def _mean_cosine(before: np.ndarray, after: np.ndarray) -> float | None:
    if before.shape != after.shape:
        return None
    lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return float(((before * after).sum(axis=-1) / np.maximum(lengths, 1e-12)).mean())


def _tokens_cut(model: Classifier, texts: Sequence[str], encoded: Encoded) -> int:
    """Count the tokens of a row, of one text or two, that the model does not read."""
    if not encoded.cut:
        return 0
    tokenizer, read = model.preprocessor.tokenizer, len(encoded.features["token_ids"])
    if model.windows:  # which overlap
        room = model.preprocessor.room
        read = encoded.limit - room + covered(room)
    shortest: Any = np.array([["a"] * len(texts)], dtype=object)
    shortest = shortest if model.takes_pairs else shortest[0]
    special = len(model.encode_texts(shortest).features["token_ids"]) - len(texts) * len(tokenizer("a"))
    return max(0, sum(len(tokenizer(text)) for text in texts) + special - read)


__all__ = ["trace_prediction"]
