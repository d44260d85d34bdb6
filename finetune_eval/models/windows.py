"""Texts longer than the model, read as overlapping windows whose features are averaged."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from finetune_eval.models.optional import tf

# Windows that are read of a text; what is beyond them is not read. Bounds the memory of one row to that of
# this many rows of the full sequence length.
MOST = 16


def stride(room: int) -> int:
    """Return how many tokens after a window the next one begins: half of a window, rounded up."""
    return max(1, room - room // 2)


def covered(room: int, count: int = MOST) -> int:
    """Return how many tokens of a text are in its first `count` windows."""
    return room + (count - 1) * stride(room)


def split(ids: Any, room: int) -> tuple[Any, Any]:
    """Split tokens into windows.

    A window begins every `stride(room)` tokens; the first one that reaches the text's end is the last.

    Args:
        ids: Ragged (rows, tokens) ids, without special tokens.
        room: Tokens in a window.

    Returns:
        Ragged (rows * windows, tokens) ids, each row with as many windows as the row that has the most; and
        (rows, windows) booleans: whether a window is one of its row's.
    """
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    beyond = tf.maximum(lengths - room, 0)
    counts = tf.minimum(1 + (beyond + stride(room) - 1) // stride(room), MOST)
    windows = tf.maximum(tf.reduce_max(counts), 1)
    starts = tf.range(windows) * stride(room)
    whole = tf.pad(ids[:, : covered(room)].to_tensor(), [[0, 0], [0, room + windows * stride(room)]])
    parts = tf.gather(whole, starts[:, tf.newaxis] + tf.range(room), axis=1)
    own = tf.range(windows) < counts[:, tf.newaxis]
    inside = tf.where(own, tf.clip_by_value(lengths[:, tf.newaxis] - starts, 0, room), 0)
    flat = tf.reshape(parts, [-1, room])
    return tf.RaggedTensor.from_tensor(flat, lengths=tf.reshape(inside, [-1])), own


@keras.saving.register_keras_serializable(package="finetune_eval")
class EachWindow(keras.layers.Layer):
    """(rows, windows, tokens) -> (rows * windows, tokens): each window becomes a row of the backbone."""

    def call(self, tokens: Any) -> Any:
        """Return the windows of all rows, end to end."""
        return ops.reshape(tokens, (-1, ops.shape(tokens)[-1]))

    def compute_output_shape(self, shape: Any) -> Any:
        """Return (rows * windows, tokens)."""
        return (None, shape[-1])


@keras.saving.register_keras_serializable(package="finetune_eval")
class MeanOfWindows(keras.layers.Layer):
    """(rows * windows, width) features -> (rows, width): the mean over a row's windows, by their tokens.

    Each window counts by how many tokens it has, so that a short last one moves the mean little. The features
    of a row of one window stay as they are, to the bit.
    """

    def call(self, features: Any, mask: Any) -> Any:
        """Average over the windows of each row; `mask` is (rows, windows, tokens)."""
        shape = ops.shape(mask)
        features = ops.reshape(features, (shape[0], shape[1], features.shape[-1]))
        tokens = ops.sum(ops.cast(mask, "float32"), axis=-1)
        shares = tokens / ops.maximum(ops.sum(tokens, axis=-1, keepdims=True), 1.0)
        shares = ops.expand_dims(ops.cast(shares, features.dtype), -1)
        # Windows of padding alone may have features that are not finite.
        return ops.sum(ops.where(shares > 0, features, 0) * shares, axis=1)

    def compute_output_shape(self, features_shape: Any, mask_shape: Any = None) -> Any:
        """Return (rows, width)."""
        return (mask_shape[0] if mask_shape else None, features_shape[-1])
