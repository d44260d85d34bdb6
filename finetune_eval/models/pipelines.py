"""Batches that come from elsewhere, tf.data, a PyDataset or a generator: tokenised and checked on the way."""

from __future__ import annotations

import contextlib
import itertools
import math
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from finetune_eval import _checks
from finetune_eval.models.batching import widths, without_autotune
from finetune_eval.models.steps import variables_kept


def is_pipeline(x: Any) -> bool:
    """Whether `x` gives batches, not rows."""
    return isinstance(x, (tf.data.Dataset, keras.utils.PyDataset, types.GeneratorType))


class Feed:
    """A pipeline of raw batches on its way to Keras.

    Args:
        model: The `Classifier` that will read it.
        data: What `is_pipeline` is true of; each element `(x, y)`, `(x, y, sample_weight)` or, where no
            labels are asked for, `x`.
        labelled: Whether labels are needed.
        name: What the caller calls `data`, for errors.
        steps: The keyword that limits the number of batches, and its value; None is no limit.
        shuffle: Whether a PyDataset's batches come in a new order in every epoch, as Keras' `fit` has it.

    Attributes:
        dataset: The tf.data pipeline for Keras.
        refused: What a check said of a batch, or None.
        batches: Number of batches read.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        labelled: bool,
        name: str = "x",
        steps: tuple[str, int | None] = ("steps", None),
        shuffle: bool = False,
    ):
        self.model, self.name = model, name
        self.refused: Exception | None = None
        self.batches = self.rows = self.full = 0
        raw = data if isinstance(data, tf.data.Dataset) else _as_dataset(name, data, shuffle, self._refuse)
        self._check_length(raw, *steps)
        spec = raw.element_spec
        parts = len(spec) if isinstance(spec, tuple) else 1
        if labelled and parts == 1:
            raise ValueError(f"`{name}` is a pipeline without labels; each element must be `(x, y)`.")
        read = self._reader(spec[0] if isinstance(spec, tuple) else spec)

        def ready(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
            x = read(x)
            if not labelled:
                return (x,)
            return keras.utils.pack_x_y_sample_weight(x, self._labels(y), sample_weight)

        mapped: Any = ready if isinstance(spec, tuple) else lambda x: ready(x)  # the element may be a dict
        plain = tf.autograph.experimental.do_not_convert(mapped)
        self.dataset = without_autotune(raw.map(plain, num_parallel_calls=2).prefetch(2))

    def _refuse(self, error: Exception) -> Exception:
        """Keep an error, to be raised by `plainly` instead of what TensorFlow makes of it."""
        self.refused = error
        return error

    def _check_length(self, data: Any, keyword: str, steps: int | None) -> None:
        batches = int(data.cardinality())
        if batches == 0:
            raise ValueError(f"`{self.name}` is an empty pipeline: it has no batch.")
        if batches == tf.data.INFINITE_CARDINALITY and steps is None:
            raise ValueError(f"`{self.name}` is a pipeline that never ends; pass `{keyword}`.")

    def _reader(self, spec: Any) -> Callable[[Any], Any]:
        """Return what turns the `x` of an element into the backbone's inputs."""
        model, key = self.model, None
        if isinstance(spec, dict):
            if model.takes_text and set(spec) >= set(model.input):
                return lambda x: self._counted({name: x[name] for name in model.input})
            key = only_column(self.name, spec)
            spec = spec[key]
        if not isinstance(spec, tf.TensorSpec):
            raise TypeError(
                f"`{self.name}` must give one tensor of rows a batch, or a dict of columns; "
                f"got {type(spec).__name__}."
            )
        rank, wanted = spec.shape.rank, 1 if model.takes_text else len(model.input_shape)
        if rank == wanted - 1:
            raise ValueError(f"`{self.name}` is a pipeline of single rows; batch it first: `x.batch(32)`.")
        if (spec.dtype == tf.string) is not model.takes_text:
            raise TypeError(
                f"`{self.name}` is a pipeline of {spec.dtype.name}; this model takes "
                f"{'strings' if model.takes_text else f'{model.input_shape[1:]} numbers a row'}."
            )
        if rank not in (None, wanted) and not (model.takes_text and spec.shape[1:] in ([1], [None])):
            raise ValueError(f"`{self.name}` must give batches of one text a row; got shape {spec.shape}.")

        def read(x: Any) -> Any:
            x = x if key is None else x[key]
            if not model.takes_text:
                return self._checked(x, model.numbers, tf.float32, model.input_shape)
            return self._counted(model.tokens(x if rank == 1 else tf.reshape(x, [-1])))

        return read

    def _counted(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """Count a batch of tokens, its rows, and those that fill the sequence length."""
        mask = tf.cast(tokens["padding_mask"], tf.int32)
        limit = getattr(self.model.preprocessor, "sequence_length", None)

        def count(rows: np.ndarray, longest: np.ndarray) -> np.ndarray:
            self.batches, self.rows = self.batches + 1, self.rows + int(rows)
            self.full += int(longest)
            return rows

        full = tf.reduce_sum(tf.cast(tf.reduce_sum(mask, axis=1) == (limit or -1), tf.int32))
        tf.numpy_function(count, [tf.shape(mask)[0], full], tf.int32)
        return tokens

    def _labels(self, y: Any) -> Any:
        """Check labels; what is one-hot stays so, as a loss or metric of the user's own may want it."""
        if not isinstance(y, tf.Tensor):
            raise TypeError(f"`{self.name}` must give one tensor of labels a batch; got {type(y).__name__}.")
        indices = self._checked(y, self.model.label_indices, tf.int32, [None])
        classes = len(self.model.labels)
        one_hot = y.shape.rank == 2 and y.shape[1] == classes
        return tf.one_hot(indices, classes) if one_hot else indices

    def _checked(self, values: Any, check: Any, dtype: Any, shape: Any) -> Any:
        """Pass a batch through a check that may refuse it; `plainly` raises what it says."""

        def run(array: np.ndarray) -> np.ndarray:
            try:
                self.batches += 1
                return np.asarray(check(array), dtype=dtype.as_numpy_dtype)
            except (ValueError, TypeError) as error:
                self.refused = error
                raise

        checked = tf.numpy_function(run, [values], dtype, stateful=False)
        checked.set_shape(shape)
        return checked

    def warn(self) -> None:
        """Warn if texts filled the sequence length: whether they were longer is not known here."""
        if self.full:
            warnings.warn(
                f"`{self.name}`: {self.full:,} of the {self.rows:,} texts that were read have at least "
                f"{self.model.preprocessor.sequence_length} tokens, the most that is read of a text.",
                _checks.TextsCut,
                stacklevel=4,
            )


@contextlib.contextmanager
def plainly(model: Any, *feeds: Feed | None) -> Iterator[None]:
    """Run Keras inside; raise what a check of a feed said instead of TensorFlow's account of it."""
    known = [feed for feed in feeds if feed is not None]
    try:
        with variables_kept(model):
            yield
    except (tf.errors.OpError, UnboundLocalError) as error:  # the latter: Keras predicts an empty pipeline
        refused = next((feed.refused for feed in known if feed.refused is not None), None)
        if refused is not None:
            raise type(refused)(f"{refused} (Rows are counted within the batch.)") from None
        if isinstance(error, tf.errors.OpError) or not known:
            raise
    for feed in known:
        if not feed.batches:
            raise ValueError(f"`{feed.name}` is an empty pipeline: it has no batch.")
        feed.warn()


def refuse_beside_pipeline(y: Any, sample_weight: Any, validation_split: float = 0.0) -> None:
    """Raise if something comes beside a pipeline that belongs inside it."""
    for name, given in (("y", y is not None), ("sample_weight", sample_weight is not None)):
        if given:
            raise ValueError(
                f"`{name}` must be in the pipeline `x`: each element `(x, y)` or `(x, y, sample_weight)`."
            )
    if validation_split:
        raise ValueError(
            "`validation_split` needs rows that can be counted: pass arrays, or `validation_data` beside a "
            "pipeline."
        )


def row_count(x: Any) -> int:
    """Return the number of rows: of a dict, of its first column."""
    return len(next(iter(x.values()), ())) if isinstance(x, Mapping) else len(x)


def split_off(share: float, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return the rows that train and the rows that validate, as Keras splits them.

    The first floor(n * (1 - share)) rows train, in the order they come.
    """
    rows = row_count(x)
    first = math.floor(rows * (1.0 - _checks.number("validation_split", share, above=0, below=1)))
    if first == 0:
        raise ValueError(f"`validation_split` {share} leaves none of {rows} rows to train on.")
    given = {"x": x, "y": y, **({} if sample_weight is None else {"sample_weight": sample_weight})}
    for name, values in given.items():
        _checks.same_length("x", range(rows), name, range(row_count(values)))
    train = tuple(_rows_of(values, slice(None, first)) for values in (x, y, sample_weight))
    return train, tuple(_rows_of(values, slice(first, None)) for values in given.values())


def _rows_of(values: Any, rows: slice) -> Any:
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {name: _rows_of(column, rows) for name, column in values.items()}
    return values.iloc[rows] if hasattr(values, "iloc") else values[rows]


def validation_parts(data: Any) -> tuple[Any, ...]:
    """Return `(x, y)` or `(x, y, sample_weight)`."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "`validation_data` must be `(x, y)`, `(x, y, sample_weight)` or a pipeline; "
            f"got {type(data).__name__}."
        )
    return tuple(data)


def only_column(name: str, columns: Any) -> Any:
    """Return the key of the one column there is."""
    if len(columns) != 1:
        raise ValueError(
            f"`{name}` has the columns {', '.join(map(repr, columns))}; this model reads one: pass that one."
        )
    return next(iter(columns))


def token_rows(name: str, columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a backbone's own inputs as (rows, tokens) arrays of whole numbers, all of one shape."""
    arrays = {key: np.asarray(values) for key, values in columns.items()}
    shape = arrays["padding_mask"].shape
    for key, array in arrays.items():
        if array.ndim != 2 or array.shape != shape or array.dtype.kind not in "biu":
            raise ValueError(
                f"`{name}` must hold (rows, tokens) whole numbers, all of the shape of 'padding_mask', "
                f"{shape}; {key!r} has shape {array.shape} and dtype {array.dtype}."
            )
    return arrays


def trimmed_tokens(preprocessor: Any) -> Any:
    """Return a graph that tokenises a batch of texts, its rows moved to the left and cut to the longest."""

    def tokens(texts: Any) -> dict[str, Any]:
        features = preprocessor(texts)
        mask = tf.cast(features["padding_mask"], tf.int32)
        width = tf.shape(mask)[1]
        first = tf.argmax(mask, axis=1, output_type=tf.int32)[:, tf.newaxis]
        moved = (tf.range(width) + first) % width
        longest = tf.reduce_max(tf.where(tf.gather(mask, moved, batch_dims=1) > 0, tf.range(width) + 1, 1))
        if keras.backend.backend() == "jax":
            few = tf.constant(widths(mask.shape[1]))
            longest = few[tf.searchsorted(few, longest[tf.newaxis])[0]]
        return {
            name: tf.cast(tf.gather(value, moved[:, :longest], batch_dims=1), tf.int32)  # as `encode` gives
            for name, value in features.items()
        }

    return tf.function(tokens, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _as_dataset(name: str, data: Any, shuffle: bool, refuse: Callable[[Exception], Exception]) -> Any:
    """Return a PyDataset or a generator of batches as a tf.data pipeline of them."""
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        first = _batch(name, data[0]) if count != 0 else None

        def one_pass() -> Iterator[Any]:
            data.on_epoch_begin()
            order: Any = itertools.count() if count is None else range(count)
            if shuffle and count is not None:
                order = np.random.permutation(count)
            for place, index in enumerate(order):
                batch = _batch(name, data[int(index)])
                if place + 1 == count:  # not after the last batch: Keras may never ask for the end
                    data.on_epoch_end()
                yield batch
    else:
        count, first = tf.data.UNKNOWN_CARDINALITY, next(data, None)
        first = None if first is None else _batch(name, first)
        rest = itertools.chain([first], (_batch(name, batch) for batch in data))

        def one_pass() -> Iterator[Any]:
            batch = next(rest, None)
            if batch is None:  # Keras would go on, with a loss of 0
                sentence = f"`{name}` is a generator that has ended; pass a PyDataset to read it again."
                raise refuse(ValueError(sentence))
            return itertools.chain([batch], rest)

    if first is None:
        raise ValueError(f"`{name}` is an empty pipeline: it has no batch.")
    signature = keras.tree.map_structure(_spec_of, first)
    pipeline = tf.data.Dataset.from_generator(one_pass, output_signature=signature)
    length = tf.data.INFINITE_CARDINALITY if count is None else count
    return pipeline.apply(tf.data.experimental.assert_cardinality(length)) if length != -2 else pipeline


def _batch(name: str, batch: Any) -> Any:
    """Return a batch as a tuple of arrays: a list of texts is one array, and a missing part is left out."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` must give `x`, `(x, y)` or `(x, y, sample_weight)`; got a tuple of {len(parts)}."
        )
    parts = tuple(part for part in parts if part is not None)
    return tuple(
        {key: np.asarray(values) for key, values in part.items()}
        if isinstance(part, dict)
        else np.asarray(part)
        for part in parts
    )


def _spec_of(array: np.ndarray) -> tf.TensorSpec:
    dtype = tf.string if array.dtype.kind in "OUS" else array.dtype
    return tf.TensorSpec([None] * array.ndim, dtype)
