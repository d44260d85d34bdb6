"""Batches that come from elsewhere, tf.data, a PyDataset or a generator: tokenised and checked on the way."""

from __future__ import annotations

import contextlib
import itertools
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import listed
from finetune_eval.models.batching import widths, without_autotune
from finetune_eval.models.inputs import only_column, read
from finetune_eval.models.optional import NEEDS, tf
from finetune_eval.models.steps import variables_kept
from finetune_eval.models.tokenising import text_spec

# What reading a pipeline ends in where it fails; the latter: Keras predicts an empty one.
_BROKEN: Any = UnboundLocalError if tf is None else (tf.errors.OpError, UnboundLocalError)


def is_pipeline(x: Any) -> bool:
    """Whether `x` gives batches, not rows."""
    kinds = keras.utils.PyDataset, types.GeneratorType
    return isinstance(x, kinds if tf is None else (*kinds, tf.data.Dataset))


class Feed:
    """A pipeline of raw batches on its way to Keras: each batch is read as rows are (`inputs.read`).

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
        refused: The error of the check of a batch, or None.
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
        if tf is None:
            raise ImportError(NEEDS.format(f"`{name}` is a pipeline and", "pass arrays"))
        if model.columns is not None:
            raise TypeError(
                f"`{name}` is a pipeline, and a model that reads columns takes rows at once: a dictionary of "
                "columns, a DataFrame, or a list of dictionaries."
            )
        self.model, self.name, self.labelled = model, name, labelled
        self.refused: Exception | None = None
        self.batches = self.rows = self.full = 0
        checked: Callable[..., Any] | None = None
        if isinstance(data, tf.data.Dataset):
            checked = self._reader(data.element_spec)
        else:
            data = self._as_dataset(data, shuffle)
        self._check_length(data, *steps)

        @tf.autograph.experimental.do_not_convert
        def ready(*batch: Any) -> Any:
            x, *labels_and_weights = batch if checked is None else checked(*batch)
            if isinstance(x, dict):
                x = self._counted(x)
            elif model.takes_text:
                x = self._counted(model.tokens(x))
            return x, *labels_and_weights

        self.dataset = without_autotune(data.map(ready, num_parallel_calls=2).prefetch(2))

    def _check_length(self, data: Any, keyword: str, steps: int | None) -> None:
        batches = int(data.cardinality())
        if batches == 0:
            raise ValueError(f"`{self.name}` is an empty pipeline: it has no batch.")
        if batches == tf.data.INFINITE_CARDINALITY and steps is None:
            raise ValueError(f"`{self.name}` is a pipeline that never ends; pass `{keyword}`.")

    def _read(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, ...]:
        """Return a batch as arrays: the rows and, where labels are asked for, labels and weights if any."""
        self.batches += 1
        try:
            if not self.labelled:
                return (self._int32(read(self.model, x, name=self.name)[0]),)
            if y is None:
                raise ValueError(f"`{self.name}` is a pipeline without labels; give `(x, y)` each time.")
            self._check_names(y)
            rows, labels, weights = read(self.model, x, y, sample_weight, name=self.name, batch=True)
        except (ValueError, TypeError) as error:
            self.refused = type(error)(f"{error} (Rows are counted within the batch.)")
            raise self.refused from None
        if labels is not None and labels.ndim == 1:
            labels = np.asarray(labels, dtype=np.int32)
        return self._int32(rows), labels, *([] if weights is None else [weights])

    @staticmethod
    def _int32(rows: Any) -> Any:
        return {key: a.astype(np.int32) for key, a in rows.items()} if isinstance(rows, dict) else rows

    def _check_names(self, y: Any) -> None:
        """Refuse numbers that may be names or places: it takes all labels, not one batch, to tell which."""
        labels = self.model.labels
        if self.model.multilabel:
            return
        if isinstance(y, _labels.ClassIndices) or _rows.are_texts(y) or _labels.numbers_are_places(labels):
            return
        if np.shape(y)[1:] != (len(labels),):
            raise ValueError(
                f"`{self.name}` is a pipeline with numbers as labels, which may be names or places of the "
                f"classes {listed(labels)}; batch by batch it cannot be told. Give the names as "
                "text: `tf.strings.as_string(y)`, or `y.astype(str)` of an array."
            )

    def _specs(self, tokens: bool, one_hot: bool, parts: int) -> tuple[Any, ...]:
        """Return what TensorFlow needs to know of the arrays of `_read`."""
        model = self.model
        rows: Any = tf.TensorSpec(model.input_shape, tf.float32) if not model.takes_text else None
        if tokens:
            rows = {
                key: tf.TensorSpec([None] * len(each.shape), tf.int32) for key, each in model.input.items()
            }
        elif model.takes_text:
            rows = text_spec(model.preprocessor)
        classes = len(model.labels)
        labels = tf.TensorSpec([None, classes], tf.float32) if one_hot else tf.TensorSpec([None], tf.int32)
        return (rows, labels, tf.TensorSpec([None], tf.float32))[:parts]

    def _reader(self, element: Any) -> Callable[..., Any]:
        """Return `_read` as an operation of TensorFlow, for elements of this kind."""
        spec = element if isinstance(element, tuple) else (element,)
        tokens = self._check_rows(spec[0])
        if self.labelled and len(spec) == 1:
            raise ValueError(f"`{self.name}` is a pipeline without labels; each element must be `(x, y)`.")
        spec = spec[: 3 if self.labelled else 1]
        for part, what in zip(spec[1:], ("labels", "weights"), strict=False):
            if not isinstance(part, tf.TensorSpec):
                raise TypeError(
                    f"`{self.name}` must give one tensor of {what} a batch; got {type(part).__name__}."
                )
        one_hot = len(spec) > 1 and (
            self.model.multilabel or (spec[1].shape.rank == 2 and spec[1].shape[1] == len(self.model.labels))
        )
        made = self._specs(tokens, one_hot, len(spec))

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            rows, *rest = self._read(*tf.nest.pack_sequence_as(spec, arrays))
            if rest and rest[0].ndim == 2 and not one_hot:  # its shape was not known
                rest[0] = rest[0].argmax(axis=1).astype(np.int32)
            found: list[np.ndarray] = tf.nest.flatten((rows, *rest))
            return found

        def checked(*batch: Any) -> Any:
            flat = tf.nest.flatten(made)
            kinds = [part.dtype for part in flat]
            tensors = tf.numpy_function(run, tf.nest.flatten(batch[: len(spec)]), kinds, stateful=False)
            for tensor, part in zip(tensors, flat, strict=True):
                tensor.set_shape(part.shape)
            return tf.nest.pack_sequence_as(made, tensors)

        return checked

    def _check_rows(self, spec: Any) -> bool:
        """Raise for rows that no batch could make good; return whether they are tokens."""
        model = self.model
        if isinstance(spec, dict) and model.takes_pairs and not set(spec) >= set(model.input):
            raise TypeError(
                f"`{self.name}` is a pipeline of dictionaries, and the two texts of a pair are told by their "
                "place; give (rows, 2) strings: `tf.stack([first, second], axis=1)`."
            )
        if isinstance(spec, dict):
            if model.takes_text and set(spec) >= set(model.input):
                return True
            spec = spec[only_column(self.name, spec)]
        if not isinstance(spec, tf.TensorSpec):
            raise TypeError(
                f"`{self.name}` must give one tensor of rows a batch, or a dict of columns; "
                f"got {type(spec).__name__}."
            )
        rank = spec.shape.rank
        wanted = text_spec(model.preprocessor).shape.rank if model.takes_text else len(model.input_shape)
        if rank == wanted - 1:
            raise ValueError(f"`{self.name}` is a pipeline of single rows; batch it first: `x.batch(32)`.")
        if (spec.dtype == tf.string) is not model.takes_text:
            raise TypeError(
                f"`{self.name}` is a pipeline of {spec.dtype.name}; this model takes "
                f"{'strings' if model.takes_text else f'{model.input_shape[1:]} numbers a row'}."
            )
        one_column = model.takes_text and wanted == 1 and spec.shape[1:] in ([1], [None])
        if rank not in (None, wanted) and not one_column:
            each = "two texts" if model.takes_pairs else "one text"
            raise ValueError(f"`{self.name}` must give batches of {each} a row; got shape {spec.shape}.")
        return False

    def _counted(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """Count a batch of tokens, its rows, and those that fill the sequence length or several windows."""
        mask = tf.cast(tokens["padding_mask"], tf.int32)
        limit = getattr(self.model.preprocessor, "sequence_length", None)

        def count(rows: np.ndarray, longest: np.ndarray) -> np.ndarray:
            self.rows, self.full = self.rows + int(rows), self.full + int(longest)
            return rows

        if self.model.windows:
            full = tf.reduce_sum(tf.reduce_max(mask, axis=2), axis=1) > 1
        else:
            full = tf.reduce_sum(mask, axis=1) == (limit or -1)
        tf.numpy_function(count, [tf.shape(mask)[0], tf.reduce_sum(tf.cast(full, tf.int32))], tf.int32)
        return tokens

    def _as_dataset(self, data: Any, shuffle: bool) -> Any:
        """Return a PyDataset or a generator of batches as a tf.data pipeline of what `_read` gives for them.

        They are read before TensorFlow has them, which would make the text "nan" of a missing one and drop
        the mask of a masked array.
        """
        if isinstance(data, keras.utils.PyDataset):
            count = data.num_batches
            first = self._read(*self._parts(data[0])) if count != 0 else None

            def one_pass() -> Iterator[Any]:
                data.on_epoch_begin()
                order: Any = itertools.count() if count is None else range(count)
                if shuffle and count is not None:
                    order = np.random.permutation(count)
                for place, index in enumerate(order):
                    batch = self._read(*self._parts(data[int(index)]))
                    if place + 1 == count:  # not after the last batch: Keras may never ask for the end
                        data.on_epoch_end()
                    yield self._like(first, batch)
        else:
            count, first = tf.data.UNKNOWN_CARDINALITY, next(data, None)
            first = None if first is None else self._read(*self._parts(first))
            rest: Iterator[Any] = itertools.chain(
                [first], (self._read(*self._parts(batch)) for batch in data)
            )

            def one_pass() -> Iterator[Any]:
                batch = next(rest, None)
                if batch is None:  # Keras would go on, with a loss of 0
                    raise self._refuse(
                        f"`{self.name}` is a generator that has ended; pass a PyDataset to read it again."
                    )
                return (self._like(first, each) for each in itertools.chain([batch], rest))

        if first is None:
            raise ValueError(f"`{self.name}` is an empty pipeline: it has no batch.")
        one_hot = len(first) > 1 and first[1].ndim == 2
        signature = self._specs(isinstance(first[0], dict), one_hot, len(first))
        pipeline = tf.data.Dataset.from_generator(one_pass, output_signature=signature)
        length = tf.data.INFINITE_CARDINALITY if count is None else count
        return pipeline.apply(tf.data.experimental.assert_cardinality(length)) if length != -2 else pipeline

    def _parts(self, batch: Any) -> tuple[Any, ...]:
        """Return a batch as `x`, `(x, y)` or `(x, y, sample_weight)`."""
        parts = batch if isinstance(batch, tuple) else (batch,)
        if not 1 <= len(parts) <= 3:
            raise self._refuse(
                f"`{self.name}` must give `x`, `(x, y)` or `(x, y, sample_weight)`; got a tuple of "
                f"{len(parts)}."
            )
        return parts

    def _like(self, first: tuple[Any, ...] | None, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a batch, or raise where it is of another form than the first."""
        form, other = _form(first or batch), _form(batch)
        if form != other:
            raise self._refuse(
                f"`{self.name}` must give all batches in one form; the first is {form}, another {other}."
            )
        return batch

    def _refuse(self, sentence: str) -> Exception:
        """Return an error, kept for `plainly` to raise instead of what TensorFlow makes of it."""
        self.refused = ValueError(sentence)
        return self.refused

    def warn(self) -> None:
        """Warn if texts filled the sequence length: whether they were longer is not known here."""
        if self.full:
            length = self.model.preprocessor.sequence_length
            what = f"have at least {length} tokens, the most that is read of a text."
            if self.model.windows:
                what = f"are longer than {length} tokens; they are read in windows that overlap by half."
            warnings.warn(
                f"`{self.name}`: {self.full:,} of the {self.rows:,} texts that were read {what}",
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
    except _BROKEN as error:
        refused = next((feed.refused for feed in known if feed.refused is not None), None)
        if refused is not None:
            raise refused from None
        if not isinstance(error, UnboundLocalError) or not known:
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


def trimmed_tokens(preprocessor: Any) -> Any:
    """Return a graph that tokenises a batch of texts, its rows moved to the left and cut to the longest."""

    def tokens(texts: Any) -> dict[str, Any]:
        features = preprocessor(texts)
        mask = tf.cast(features["padding_mask"], tf.int32)
        shape = tf.shape(mask)
        if mask.shape.rank == 3:  # each window as a row
            features = {name: tf.reshape(value, [-1, shape[-1]]) for name, value in features.items()}
            mask = tf.reshape(mask, [-1, shape[-1]])
        width = tf.shape(mask)[1]
        first = tf.argmax(mask, axis=1, output_type=tf.int32)[:, tf.newaxis]
        moved = (tf.range(width) + first) % width
        longest = tf.reduce_max(tf.where(tf.gather(mask, moved, batch_dims=1) > 0, tf.range(width) + 1, 1))
        if keras.backend.backend() == "jax":
            few = tf.constant(widths(mask.shape[-1]))
            longest = few[tf.searchsorted(few, longest[tf.newaxis])[0]]
        moved = moved[:, :longest]
        return {
            name: tf.reshape(
                tf.cast(tf.gather(value, moved, batch_dims=1), tf.int32),  # as `encode` gives
                tf.concat([shape[:-1], [longest]], axis=0),
            )
            for name, value in features.items()
        }

    return tf.function(tokens, input_signature=[text_spec(preprocessor)], autograph=False)


def _form(batch: tuple[Any, ...]) -> str:
    """Return what a batch is made of, such as "(rows, one-hot labels)"."""
    rows = "tokens" if isinstance(batch[0], dict) else "rows"
    labels = ["one-hot labels" if part.ndim == 2 else "labels" for part in batch[1:2]]
    return f"({', '.join([rows, *labels, *(['weights'] if len(batch) == 3 else [])])})"
