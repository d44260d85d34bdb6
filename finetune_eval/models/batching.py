"""Rows are tokenised once, then fed in batches of similar length, which are shuffled anew in every epoch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval._cores import cores
from finetune_eval.models import windows
from finetune_eval.models.halves import on_gpu
from finetune_eval.models.optional import tf

# Rows are sorted by length only inside windows of this many batches, so that a batch is still a random draw.
_WINDOW = 50
# Rows tokenised at a time: bounds the memory of the padded intermediate (rows x sequence_length x 4 bytes a
# feature).
_CHUNK = 2048
# Tokens predicted in a batch, for each core it is computed by: what a layer makes of them stays near the
# core, and its products are still large (docs/performance.md). A GPU has more to fill.
_TOKENS = 640
_TOKENS_GPU = 16 * _TOKENS
# Rows of numbers predicted in a batch, which may be as large as pictures.
_ROWS = 32
# Batches predicted at a time: what one cannot spread over the cores, the other fills.
_STREAMS = 2


@dataclass(frozen=True)
class Encoded:
    """Rows ready for the model: padded nowhere, every feature stored end to end.

    Attributes:
        features: Name -> (total tokens, ...) values of all rows, end to end; or, for rows of one shape,
            (rows, ...) values. Rows that are the model's one input themselves are named "x".
        offsets: (rows + 1,) where each row begins in `features`; None for rows of one shape.
        cut: Number of rows of which only a part is in `features`: they were longer than the model reads.
        limit: The sequence length, the widest that a batch may be padded to; 0 where it is not known.
        windows: (windows + 1,) where each window of each row begins in `features`; None where rows are not
            read in windows.
        beside: Name -> (rows, ...) values that every row has beside its tokens.
    """

    features: dict[str, np.ndarray]
    offsets: np.ndarray | None
    cut: int = 0
    limit: int = 0
    windows: np.ndarray | None = None
    beside: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.offsets is not None:
            return len(self.offsets) - 1
        return len(next(iter(self.features.values())))

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) tokens in each row; 1 where rows have one shape."""
        if self.offsets is None:
            return np.ones(len(self), dtype=np.int64)
        return np.diff(self.offsets)

    @property
    def at_limit(self) -> int:
        """How many rows fill the model's sequence length: those that were cut, and those that just fit."""
        return 0 if self.offsets is None else int((self.lengths == self.limit).sum())

    def take(self, rows: np.ndarray, *, few_widths: bool = False) -> dict[str, np.ndarray]:
        """Return the given rows as one batch, zero-padded to the longest, or to the next of `widths`.

        Where rows are read in windows the batch is (rows, windows, tokens).
        """
        batch = {name: values[rows] for name, values in self.beside.items()}
        if self.offsets is None:
            return batch | {name: values[rows] for name, values in self.features.items()}
        starts, lengths = self.offsets[rows], self.lengths[rows]
        inside = self._inside(rows, few_widths)
        source = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        for name, values in self.features.items():
            padded = np.zeros(inside.shape + values.shape[1:], dtype=values.dtype)
            padded[inside] = values[source]
            batch[name] = padded
        return batch

    def _inside(self, rows: np.ndarray, few_widths: bool) -> np.ndarray:
        """Return which places of a batch hold a token: (rows, tokens), or (rows, windows, tokens)."""
        lengths = self.lengths[rows]
        if self.windows is not None:
            counts = self._first_windows[rows + 1] - self._first_windows[rows]
            most = int(counts.max())
            places = np.arange(1 << (most - 1).bit_length() if few_widths else most)
            own = places < counts[:, np.newaxis]
            first = self._first_windows[rows]
            lengths = np.zeros(own.shape, dtype=np.int64)
            lengths[own] = np.diff(self.windows)[(first[:, np.newaxis] + places)[own]]
        width = self.widened(int(lengths.max())) if few_widths else lengths.max()
        return np.asarray(np.arange(width) < lengths[..., np.newaxis])

    @property
    def window_counts(self) -> np.ndarray:
        """(rows,) windows of each row; 1 where rows are not read in windows."""
        return np.ones(len(self), dtype=np.int64) if self.windows is None else np.diff(self._first_windows)

    @functools.cached_property
    def _first_windows(self) -> np.ndarray:
        """(rows + 1,) which window each row begins with; made once, and not for every batch."""
        assert self.windows is not None and self.offsets is not None
        return np.searchsorted(self.windows, self.offsets)

    @property
    def long(self) -> int:
        """Number of rows that were longer than the sequence length."""
        return self.cut if self.windows is None else int((self.window_counts > 1).sum())

    def widened(self, width: int) -> int:
        """Return the next of `widths`."""
        return next(wider for wider in widths(max(self.limit, width)) if wider >= width)


def widths(limit: int) -> list[int]:
    """Return 16, 24, 32, 48, 64, 96, ... up to `limit`, and `limit`: what batches are rounded up to on JAX.

    JAX compiles a program for every shape. Up to 512 tokens these are 11 shapes, of which rows of like length
    meet a few, and at most a third of a batch is padding; multiples of 16 would be 32 shapes.
    """
    rungs = (rung for power in itertools.count(4) for rung in (2**power, 3 * 2 ** (power - 1)))
    return [*itertools.takewhile(lambda rung: rung < limit, rungs), limit]


def encoder(
    preprocess: Callable[[np.ndarray], dict[str, Any]],
    lengths: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    room: int | None = None,
) -> Callable[[np.ndarray], Encoded]:
    """Return a function of (rows,) strings, or (rows, 2), that tokenises them, once, and drops the padding.

    Args:
        preprocess: Turns texts, or pairs, into a dict of (rows, length) tensors with a "padding_mask".
        lengths: Counts the tokens of rows without a limit, to tell which were cut; without it every text
            that reaches the limit is taken for cut.
        room: Tokens of a text in each window, where `preprocess` gives (rows, windows, length); None where it
            does not.
    """
    at_a_time = _CHUNK if room is None else _CHUNK // windows.MOST

    def cut(texts: np.ndarray, limit: int) -> int:
        if lengths is None or not len(texts):
            return len(texts)
        empty = np.full_like(texts[:1], "")
        mask = ops.convert_to_numpy(preprocess(empty)["padding_mask"])
        special = int(mask.sum()) - int(lengths(empty)[0])
        return int((lengths(texts) + special > limit).sum())

    def encode(texts: np.ndarray) -> Encoded:
        parts = []
        for start in range(0, len(texts), at_a_time):
            chunk = texts[start : start + at_a_time]
            part = trimmed({name: ops.convert_to_numpy(value) for name, value in preprocess(chunk).items()})
            full, read = part.lengths == part.limit, part.limit
            if room is not None:
                full, read = part.window_counts == windows.MOST, read + windows.covered(room) - room
            parts.append(dataclasses.replace(part, cut=cut(chunk[full], read)))
        return _end_to_end(parts)

    return encode


def trimmed(batch: dict[str, np.ndarray]) -> Encoded:
    """Return (rows, length) tokens, one of them the "padding_mask", without the padding around each row.

    A row begins at its first token that is not padding and ends at its last: families of models differ in
    the side they pad on. A row of nothing but padding keeps one token. Of (rows, windows, length) tokens each
    window is trimmed, and windows of nothing but padding after the first are left out.
    """
    mask = batch["padding_mask"].astype(bool)
    if mask.ndim == 3:
        own = np.asarray(mask.any(axis=2))
        own[:, 0] = True
        found = trimmed({name: values[own] for name, values in batch.items()})
        assert found.offsets is not None
        first = np.concatenate([[0], np.cumsum(own.sum(axis=1))])
        return dataclasses.replace(found, offsets=found.offsets[first], windows=found.offsets)
    width = mask.shape[1]
    first = np.argmax(mask, axis=1)[:, np.newaxis]
    last = width - 1 - np.argmax(mask[:, ::-1], axis=1)[:, np.newaxis]
    last = np.where(mask.any(axis=1, keepdims=True), last, first)
    lengths = (last - first + 1)[:, 0]
    position = np.arange(width)
    kept = (first <= position) & (position <= last)
    return Encoded(
        {name: values[kept].astype(np.int32) for name, values in batch.items()},
        np.concatenate([[0], np.cumsum(lengths)]),
        limit=width,
    )


def _rounds_up() -> bool:
    """Whether what a backend is fed is rounded up to `widths`."""
    return bool(keras.backend.backend() == "jax")


def _end_to_end(parts: list[Encoded]) -> Encoded:
    def offsets(lengths: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.concatenate(lengths))])

    of_windows = [np.diff(part.windows) for part in parts if part.windows is not None]
    return Encoded(
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
        offsets([part.lengths for part in parts]),
        cut=sum(part.cut for part in parts),
        limit=max(part.limit for part in parts),
        windows=offsets(of_windows) if of_windows else None,
    )


class Batches(keras.utils.PyDataset):
    """Batches of encoded rows, rows of like length together.

    Each pass over the batches is an epoch: shuffled anew, and the same for the same `seed`.

    Args:
        rows: The encoded rows.
        y: (rows,) class indices, or None.
        batch_size: Rows in a batch; None, for rows that are only predicted: as many as make about 640 tokens
            a core, longest rows first, and 32 rows of numbers.
        sample_weight: (rows,) weights, or None.
        seed: Shuffles every epoch with it; None does not shuffle.
        sort: Without a seed: rows sorted by length, the longest first, for evaluation; False keeps them as
            they came.
    """

    def __init__(
        self,
        rows: Encoded,
        y: np.ndarray | None,
        batch_size: int | None,
        *,
        sample_weight: np.ndarray | None = None,
        seed: int | None = None,
        sort: bool = True,
    ):
        super().__init__()
        self.rows, self.y, self.batch_size = rows, y, batch_size
        self.sample_weight, self.seed, self.sort = sample_weight, seed, sort
        # In tokens, also once `rows` is what frozen layers made of them: the batches stay the same.
        self.lengths = rows.lengths
        self.epoch = 0
        self.order = self._plan()
        self._begun = False
        self._passed_over = 0  # batches at the beginning of this epoch whose rows nobody looks at

    def begin_at(self, epoch: int, step: int) -> None:
        """Have the next pass be that of an epoch, counted from 0, of which `step` batches are passed over.

        The batches keep their numbers; of those that are passed over only one row each is made.
        """
        self.epoch, self._passed_over = epoch, step
        self.order = self._plan()

    def _plan(self) -> list[np.ndarray]:
        lengths, size = self.lengths, self.batch_size
        if size is None and self.rows.offsets is not None:
            return list(self._of_like_tokens())
        size = size or _ROWS
        if self.seed is None:
            # Longest first: of two batches predicted at a time the last runs alone, and should be short.
            order = np.argsort(-lengths, kind="stable") if self.sort else np.arange(len(lengths))
            return [order[i : i + size] for i in range(0, len(order), size)]
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(lengths))
        batches = []
        for start in range(0, len(order), size * _WINDOW):
            window = order[start : start + size * _WINDOW]
            window = window[np.argsort(lengths[window], kind="stable")]
            # In a batch every other row first: halves of it (halves.py) then hold as many tokens each.
            batches += [
                np.concatenate([window[i : i + size : 2], window[i + 1 : i + size : 2]])
                for i in range(0, len(window), size)
            ]
        return [batches[i] for i in random.permutation(len(batches))]

    def _of_like_tokens(self) -> Iterator[np.ndarray]:
        tokens = _TOKENS_GPU if on_gpu() else _TOKENS * max(1, cores() // _STREAMS)
        order = np.argsort(-self.lengths, kind="stable")
        start = 0
        while start < len(order):
            # By the next of `widths`: rows of one width then come in one number, for which JAX compiles once.
            size = max(1, tokens // self.rows.widened(int(self.lengths[order[start]])))
            yield order[start : start + size]
            start += size

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._batch(self.order[index])

    def rows_of_batch(self, index: int) -> np.ndarray:
        """Return which rows are in a batch as it is fed: one of them, where the batch is passed over."""
        rows = self.order[index]
        return rows[:1] if index < self._passed_over else rows

    def first(self) -> tuple[Any, ...]:
        """Return the first batch, as the backend is fed it."""
        return self._batch(self.order[0], few_widths=True)

    def _batch(self, rows: np.ndarray, *, few_widths: bool = False) -> tuple[Any, ...]:
        x = self.rows.take(rows, few_widths=few_widths and _rounds_up())
        features: Any = x.get("x", x)
        if self.y is None:
            return (features,)
        if self.sample_weight is None:
            return features, self.y[rows]
        return features, self.y[rows], self.sample_weight[rows]

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        self.epoch += 1
        self._passed_over = 0
        if self.seed is not None:
            self.order = self._plan()

    def as_they_came(self, values: np.ndarray) -> np.ndarray:
        """Return what this epoch's batches gave, (rows, ...) end to end, in the order of the rows."""
        out = np.empty_like(values)
        out[np.concatenate(self.order)] = values
        return out

    @property
    def spec(self) -> Any:
        """What TensorFlow needs to know of a batch's features, what varies left open; None elsewhere."""
        return self._specs()[0] if keras.backend.backend() == "tensorflow" else None

    def _specs(self) -> tuple[Any, ...]:
        features, *rest = self[0]
        # Rows, windows and tokens vary from batch to batch.
        varying = 1 if self.rows.offsets is None else 2 if self.rows.windows is None else 3
        if isinstance(features, dict):
            beside = self.rows.beside
            of_rows = {key: _spec(value, 1 if key in beside else varying) for key, value in features.items()}
        else:
            of_rows = _spec(features, varying)
        return of_rows, *(_spec(array, 1) for array in rest)

    @property
    def padding(self) -> float:
        """The share of the tokens of this epoch's batches that are padding, in [0, 1)."""
        if self.rows.windows is None:
            computed = sum(len(rows) * int(self.lengths[rows].max()) for rows in self.order)
        else:
            computed = sum(self.rows._inside(rows, False).size for rows in self.order)
        return 1.0 - int(self.lengths.sum()) / computed

    def dataset(self) -> Any:
        """Return what Keras should be fed: a tf.data pipeline on TensorFlow, batches elsewhere."""
        if keras.backend.backend() != "tensorflow":
            return _FewWidths(self)

        specs = self._specs()
        flat = tf.nest.flatten(specs)

        def arrays(index: int) -> list[np.ndarray]:
            # The next order is drawn where an epoch begins: Keras leaves one after its last batch without
            # asking for the end.
            if index == 0:
                if self._begun:
                    self.on_epoch_end()
                self._begun = True
            found: list[np.ndarray] = tf.nest.flatten(self._batch(self.rows_of_batch(index)))
            return found

        @tf.autograph.experimental.do_not_convert
        def batch(index: Any) -> Any:
            # Half of the time that `Dataset.from_generator` takes, which besides has the C library give freed
            # memory back to the system at every step (docs/performance.md).
            tensors = tf.numpy_function(arrays, [index], [spec.dtype for spec in flat])
            for tensor, spec in zip(tensors, flat, strict=True):
                tensor.set_shape(spec.shape)
            return tf.nest.pack_sequence_as(specs, tensors)

        return without_autotune(tf.data.Dataset.range(len(self)).map(batch).prefetch(2))


class _FewWidths(keras.utils.PyDataset):
    """What a backend without tf.data is fed: `batches`, on JAX of few widths, a new order every pass.

    Keras cannot be left to draw the orders: it calls `on_epoch_end` once before the first epoch, and
    `on_epoch_begin` in the middle of a pass where there are `steps_per_epoch`. So the next order is drawn
    where a pass begins after one that came to its end: TensorFlow is fed the same orders.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches
        self._ended = False

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if index == 0 and self._ended:
            self.batches.on_epoch_end()
        self._ended = index == len(self) - 1
        return self.batches._batch(self.batches.rows_of_batch(index), few_widths=True)


def without_autotune(data: Any) -> Any:
    """Return the pipeline, in order, without autotune, whose thread can hold up the end of an epoch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return data.with_options(options)


def forward(model: Any, spec: Any) -> Callable[[Any], np.ndarray]:
    """Return a function of one batch that runs the model without training: on TensorFlow one graph for all.

    Args:
        model: Called with a batch's features.
        spec: The batches' `spec`.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda rows: np.asarray(model.predict_on_batch(rows))
    graph = tf.function(lambda rows: model(rows, training=False), input_signature=[spec], autograph=False)
    return lambda rows: np.asarray(graph(rows))


def in_streams(run: Callable[[Any], np.ndarray], batches: Batches) -> Iterator[np.ndarray]:
    """Yield what `run` gives for the features of each batch, in order; on TensorFlow two at a time."""
    if keras.backend.backend() != "tensorflow":  # Keras' `predict_on_batch` is for one thread
        for rows in batches.order:
            yield run(batches._batch(rows, few_widths=True)[0])
        return
    with ThreadPoolExecutor(_STREAMS) as pool:
        yield from pool.map(lambda index: run(batches[index][0]), range(len(batches)))


def by_row(run: Callable[[Any], np.ndarray], batches: Batches) -> np.ndarray:
    """Return what `run` gives for every row, (rows, ...), in the order of the rows."""
    return batches.as_they_came(np.concatenate(list(in_streams(run, batches))))


def _spec(array: np.ndarray, varying: int) -> tf.TensorSpec:
    # One graph of unknown sizes serves all batches without a retrace.
    return tf.TensorSpec([None] * varying + list(array.shape[varying:]), array.dtype)
