"""The classifier: a Keras model that reads raw rows, texts or numbers, and gives probabilities."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks, _labels, _rows
from finetune_eval._columns import text_of
from finetune_eval._text import listed
from finetune_eval.evaluation._inputs import read_probabilities
from finetune_eval.evaluation.abstention import Abstention, answer_confidence, choose_abstention
from finetune_eval.evaluation.calibration import fit_temperature
from finetune_eval.evaluation.goals import parse_error_goal
from finetune_eval.evaluation.label_thresholds import (
    LabelThresholds,
    check_goal,
    choose_label_thresholds,
    given,
)
from finetune_eval.evaluation.sample import decided
from finetune_eval.evaluation.thresholds import Threshold, choose_threshold
from finetune_eval.models.archives import not_finite, seal_preset
from finetune_eval.models.batching import Batches, Encoded, by_row, forward, trimmed
from finetune_eval.models.inputs import class_weights, read, read_rows, row_count, split_off, validation_parts
from finetune_eval.models.mirrored import scope
from finetune_eval.models.network import Network
from finetune_eval.models.optional import tf
from finetune_eval.models.pipelines import (
    Feed,
    is_pipeline,
    plainly,
    refuse_beside_pipeline,
    trimmed_tokens,
)
from finetune_eval.models.steps import structure
from finetune_eval.models.tokenising import read_of_long, text_encoder, text_spec
from finetune_eval.models.tokenizers import HuggingFaceTokenizer

_EVALUATION_BATCH = 32


@keras.saving.register_keras_serializable(package="finetune_eval")
class Classifier(Network):
    """A backbone with a head that reads raw rows, strings or numbers, and gives probabilities.

    It is a functional Keras model. `fit`, `evaluate` and `predict` take lists, arrays, Series, dicts of
    tokens, `tf.data` pipelines, PyDatasets and generators. Rows are tokenised once, batched by length and, in
    `fit`, shuffled anew in every epoch. Make one with `build_model`; its arguments are those of `Network`.
    """

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return (rows, classes) probabilities of a batch: of texts, of tokens or of numbers."""
        raw = not isinstance(inputs, Mapping) or (self.columns is not None and self.columns.text in inputs)
        if self.columns is not None and raw:
            encoded = self.encode(inputs)
            inputs = encoded.take(np.arange(len(encoded)))
        elif self.takes_text and raw:
            text = tf is not None and isinstance(inputs, tf.Tensor) and inputs.dtype == tf.string
            inputs = self.tokens(inputs) if text else self.encode(inputs).take(np.arange(len(inputs)))
        return super().__call__(inputs, *args, **kwargs)

    def encode(self, x: Any, *, name: str = "x") -> Encoded:
        """Check raw rows and turn them into the backbone's inputs, once.

        Args:
            x: (rows,) strings, (rows, 2) strings where the model reads pairs, or (rows, columns) numbers, as
                the backbone takes them; a dict of the backbone's own inputs, such as token ids; or a dict of
                one column. Where the model reads columns: a dict or DataFrame of them, or a list of dicts.
            name: What the caller calls `x`, for errors.

        Raises:
            ValueError, TypeError: A row is missing, not a string, or not finite; the sentence names the
            first.
        """
        return self._encoded(read_rows(self, name, x))

    def _encoded(self, rows: Any) -> Encoded:
        """Turn checked rows into the backbone's inputs."""
        if isinstance(rows, dict):
            return trimmed(rows)
        if not self.takes_text:
            return Encoded({"x": rows}, None)
        if self.columns is None:
            return self.encode_texts(rows)
        beside = {"columns": self.columns.inputs("x", rows)}
        return dataclasses.replace(self.encode_texts(text_of(rows)), beside=beside)

    def encode_texts(self, texts: np.ndarray) -> Encoded:
        """Tokenise checked texts, (rows,) or (rows, 2)."""
        made_of = (self.preprocessor, *structure(self.preprocessor))
        encoded: Encoded = self._graph("encode", lambda: text_encoder(self.preprocessor), *made_of)(texts)
        return encoded

    def tokens(self, texts: Any) -> dict[str, Any]:
        """Return the backbone's inputs for a tensor of strings, (rows,) or, of pairs, (rows, 2)."""
        made_of = (self.preprocessor, *structure(self.preprocessor))
        found: dict[str, Any] = self._graph("tokens", lambda: trimmed_tokens(self.preprocessor), *made_of)(
            texts
        )
        return found

    def label_indices(self, y: Any, *, name: str = "y") -> Any:
        """Return labels, in any form, as (rows,) places of classes that know the model's class names.

        Where a row may have several labels: as (rows, labels) int64 zeros and ones.
        """
        if self.multilabel:
            return _labels.read_many(name, y, self.labels)
        return _labels.ClassIndices(_labels.read(name, y, self.labels), self.labels)

    def batches(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        *,
        batch_size: int | None,
        seed: int | None = None,
        sort: bool = True,
        name: str = "x",
    ) -> Batches:
        """Check rows, labels and weights, and return them in batches; see `Batches` for `seed` and `sort`.

        One-hot labels stay one-hot. Warns if texts are longer than the model reads.
        """
        if batch_size is not None:
            _checks.positive_int("batch_size", batch_size)
        x, labels, weights = read(self, x, y, sample_weight, class_weight, name=name)
        n, rows = row_count(x), self._encoded(x)
        if labels is not None and labels.ndim == 1:
            labels = np.asarray(labels, dtype=np.int32)
        if rows.long:
            warnings.warn(read_of_long(self, rows, name, n), _checks.TextsCut, stacklevel=3)
        return Batches(rows, labels, batch_size, sample_weight=weights, seed=seed, sort=sort)

    def _fed(
        self,
        name: str,
        data: Any,
        batch_size: int,
        steps: tuple[str, int | None],
        y: Any = None,
        weight: Any = None,
    ) -> tuple[Any, Feed | None]:
        """Return labelled rows as Keras is fed them; with a pipeline of them, its `Feed` too."""
        if is_pipeline(data):
            feed = Feed(self, data, labelled=True, name=name, steps=steps)
            return feed.dataset, feed
        return self.batches(data, y, weight, batch_size=batch_size, name=name).dataset(), None

    def _weights_of_pipeline(self, class_weight: Any) -> dict[int, float] | None:
        """Return class weights by place, as Keras takes them beside a pipeline."""
        if class_weight is None:
            return None
        if isinstance(class_weight, str):
            raise ValueError(
                "`class_weight` 'balanced' needs labels that can be counted: pass arrays, or a dict."
            )
        return dict(enumerate(class_weights(class_weight, self.labels, np.zeros(0, int)).tolist()))

    def _check_compiled(self) -> None:
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if optimizer is not None and optimizer.built:
            known = {id(variable) for variable in optimizer._trainable_variables}
            if known != {id(variable) for variable in self.trainable_variables}:
                raise ValueError(
                    "Which weights are trained was changed since the model was compiled (by `trainable`, "
                    "`enable_lora` or `quantize`); call `model.compile()` again, then `fit`."
                )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> Any:
        """Train on raw rows, as `keras.Model.fit` does; arrays are shuffled anew in every epoch."""
        self._check_compiled()
        size = _EVALUATION_BATCH if batch_size is None else batch_size
        feed, original = None, x
        if is_pipeline(x):
            refuse_beside_pipeline(y, sample_weight, validation_split)
            steps = ("steps_per_epoch", steps_per_epoch)
            feed = Feed(self, x, labelled=True, steps=steps, shuffle=shuffle)
            x, class_weight = feed.dataset, self._weights_of_pipeline(class_weight)
        else:
            if y is None:
                raise ValueError(
                    "`y` is None; `fit` needs a label for each row: class indices or class names."
                )
            if validation_split:
                if validation_data is not None:
                    raise ValueError(
                        "`validation_split` and `validation_data` are both given; pass one of them."
                    )
                arrays = read(self, x, y, sample_weight)
                (x, y, sample_weight), validation_data = split_off(validation_split, *arrays)
            # NumPy's global generator is what `keras.utils.set_random_seed` seeds.
            seed = int(np.random.randint(2**31)) if shuffle else None
            batches = self.batches(x, y, sample_weight, class_weight, batch_size=size, seed=seed, sort=False)
            x, class_weight = batches.dataset(), None
        validation_feed = None
        if validation_data is not None:
            data, *rest = (
                (validation_data,) if is_pipeline(validation_data) else validation_parts(validation_data)
            )
            if self.columns is None:  # which are told by their names
                _rows.same_columns(**{"x": original, "validation x": data})
            steps = ("validation_steps", validation_steps)
            held_out = size if validation_batch_size is None else validation_batch_size
            validation_data, validation_feed = self._fed("validation x", data, held_out, steps, *rest)
        optimizer: Any = self.optimizer
        with scope(self), plainly(self, feed, validation_feed):
            if optimizer is not None and not optimizer.built:
                # Variables made inside the first step would have TensorFlow trace that step a second time.
                optimizer.build(self.trainable_variables)
            return keras.Model.fit(
                self, x, epochs=epochs, verbose=verbose, callbacks=callbacks, validation_data=validation_data,
                shuffle=False,  # the batches are shuffled already, or the pipeline's own business
                class_weight=class_weight, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps, validation_freq=validation_freq,
            )  # fmt: skip

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return `[loss, accuracy]` on raw rows, as `keras.Model.evaluate` does."""
        feed = None
        if not kwargs.get("_use_cached_eval_dataset"):  # within `fit` its validation rows are ready
            if is_pipeline(x):
                refuse_beside_pipeline(y, sample_weight)
            elif y is None:
                raise ValueError(
                    "`y` is None; `evaluate` needs a label for each row: class indices or class names."
                )
            size = _EVALUATION_BATCH if batch_size is None else batch_size
            x, feed = self._fed("x", x, size, ("steps", steps), y, sample_weight)
        with scope(self), plainly(self, feed):
            return keras.Model.evaluate(
                self, x, verbose=verbose, steps=steps, callbacks=callbacks, return_dict=return_dict, **kwargs
            )

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> np.ndarray:
        """Return (rows, classes) probabilities, float32, in the order of the rows.

        Raises:
            ValueError: A probability is NaN: weights are NaN or infinite. Or rows are bad, as for `encode`.
        """
        if is_pipeline(x):
            feed = Feed(self, x, labelled=False, steps=("steps", steps))
            with plainly(self, feed):
                found = keras.Model.predict(
                    self, feed.dataset, verbose=verbose, steps=steps, callbacks=callbacks
                )
            return self._finite(np.asarray(found))
        batches = self.batches(x, batch_size=batch_size)
        if keras.backend.backend() == "tensorflow" and steps is None and callbacks is None:
            # Keras' own predict traces a graph for every new batch shape; this one is of unknown shape. Two
            # batches are predicted at a time: no halves.
            run = self._graph(
                "forward", lambda: forward(self._whole, batches.spec), self._plan, *structure(self)
            )
            return self._finite(by_row(run, batches))
        in_turn = keras.Model.predict(
            self, batches.dataset(), verbose=verbose, steps=steps, callbacks=callbacks
        )
        return self._finite(batches.as_they_came(np.asarray(in_turn)))

    def _finite(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities, or say why they are none."""
        bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        if bad.size:
            broken = not_finite(self)
            why = f"the weight {broken!r} is not finite" if broken else "the numbers inside overflow"
            raise ValueError(
                f"The model gives probabilities that are not finite, first for row {bad[0]}: {why}. Load "
                "weights from before it diverged, or train it anew at a lower rate."
            )
        return probabilities

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Train one step on raw rows, as `keras.Model.train_on_batch` does."""
        self._check_compiled()
        batch = self._one_batch(x, y, sample_weight, class_weight)
        with scope(self):
            return keras.Model.train_on_batch(self, *batch, return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Return `[loss, accuracy]` on one batch of raw rows, as `keras.Model.test_on_batch` does."""
        batch = self._one_batch(x, y, sample_weight)
        with scope(self):
            return keras.Model.test_on_batch(self, *batch, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Return (rows, classes) probabilities of one batch of raw rows."""
        rows = self._one_batch(x)[0]
        found = np.asarray(keras.Model.predict_on_batch(self, rows))
        return self._finite(found[: row_count(rows)])  # in a strategy every device predicts all of them

    def _one_batch(self, x: Any, *labels_and_weights: Any) -> tuple[Any, ...]:
        if labels_and_weights and labels_and_weights[0] is None:
            raise ValueError("`y` is None; a label is needed for each row: class indices or class names.")
        rows = read(self, x, *labels_and_weights)
        return self.batches(*rows, batch_size=row_count(rows[0]), sort=False).first()

    # --- deciding --------------------------------------------------------------

    def decide(self, probabilities: Any) -> Any:
        """Turn (rows, classes) probabilities into (rows,) class indices, by threshold and abstention.

        A row whose answer is less sure than the model's `abstention` gets -1: none of the classes. Of a list
        of labels -1 would be the last one, so ask for it first.

        Where a row may have several labels: into (rows, labels) int64 zeros and ones; a label is given from
        the threshold on, or from its own.

        Args:
            probabilities: As `predict` gives them; the columns of a DataFrame, named by class, may have any
                order.

        Raises:
            ValueError: They are no probabilities, or not of the model's classes.
        """
        p, named, _ = read_probabilities(probabilities, self.task, self.labels)
        known = {self.labels, _labels.default_names(len(self.labels))}
        if np.shape(probabilities) != (len(p), len(self.labels)) or not {named or self.labels} <= known:
            raise ValueError(
                "`probabilities` must have a column for each of the classes "
                f"{listed(self.labels)}; got shape {np.shape(probabilities)}"
                + (f", columns named {listed(named)}." if named else ".")
            )
        if self.multilabel:
            return given(p, self.cuts)
        assert not isinstance(self.cuts, tuple)
        answers = decided(p, self.cuts)
        if self.abstention is not None:
            answers[answer_confidence(p, answers) < float(self.abstention)] = -1
        return _labels.ClassIndices(answers, self.labels)

    def save_to_preset(self, preset_dir: Any, *args: Any, **kwargs: Any) -> None:
        """Write a KerasHub preset, and the checksums of its files, by which `load_model` finds damage."""
        super().save_to_preset(preset_dir, *args, **kwargs)
        seal_preset(Path(preset_dir))

    def calibrate(self, x: Any, y: Any) -> float:
        """Fit the temperature on validation rows, and ship it with the model.

        A threshold and an abstention are forgotten: they were chosen for other probabilities.

        Args:
            x: Rows that neither trained the model nor will judge it.
            y: Their labels.

        Returns:
            The temperature: above 1 where the model was too sure of itself.

        Reference:
            Guo et al. 2017, "On Calibration of Modern Neural Networks".
        """
        x, y, _ = read(self, x, y)
        before = self.temperature, self.threshold, self.abstention
        self.temperature, self.threshold, self.abstention = 1.0, None, None
        try:
            y, p = self.label_indices(y), self.predict(x, verbose=0)
            if self.multilabel:  # the sigmoid of a logit is a softmax of two
                y, p = y.ravel(), np.stack([1 - p.ravel(), p.ravel()], axis=1)
            self.temperature = fit_temperature(y, p)
        except BaseException:
            self.temperature, self.threshold, self.abstention = before
            raise
        return self.temperature

    def choose_threshold(self, x: Any, y: Any, *, goal: str = "f1") -> Threshold | LabelThresholds:
        """Choose on validation rows from which probability on the second class is the answer, and ship it.

        Where a row may have several labels, each gets a threshold of its own. An abstention is forgotten.

        Args:
            x: Rows that neither trained the model nor will judge it.
            y: Their labels.
            goal: As for `finetune_eval.evaluation.thresholds.choose_threshold`: "f1", "recall>=0.9", ...; of
                several labels a row as for `label_thresholds.choose_label_thresholds`.
        """
        if len(self.labels) != 2 and not self.multilabel:
            raise ValueError(
                f"A threshold is chosen for one of two classes; the model has {len(self.labels)}."
            )
        if self.multilabel:
            check_goal(goal)
        x, y, _ = read(self, x, y)
        y, p = self.label_indices(y), self.predict(x, verbose=0)
        chosen: Threshold | LabelThresholds = (
            choose_label_thresholds(y, p, goal=goal, labels=self.labels)
            if self.multilabel
            else choose_threshold(y, p, goal=goal)
        )
        self.threshold = chosen
        return chosen

    def choose_abstention(self, x: Any, y: Any, *, goal: str = "error<=0.05@95%") -> Abstention:
        """Choose on validation rows below which confidence answers are withheld, and ship it.

        The answers are those of the model's threshold, where it has one: choose that first.

        Args:
            x: Rows that neither trained the model nor will judge it.
            y: Their labels.
            goal: As for `finetune_eval.evaluation.abstention.choose_abstention`: "error<=0.05@95%", ...
        """
        if self.multilabel:
            raise ValueError("An abstention is of one class a row; this model may give several labels.")
        parse_error_goal(goal)
        x, y, _ = read(self, x, y)
        y, p = self.label_indices(y), self.predict(x, verbose=0)
        assert not isinstance(self.cuts, tuple)  # one class a row has one
        self.abstention = choose_abstention(y, p, goal=goal, threshold=self.cuts)
        return self.abstention

    # --- serving ------------------------------------------------------------------

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export for serving, as `keras.Model.export` does; a SavedModel takes texts where `predict` does.

        Who loads it with `tf.saved_model.load` must have imported `tensorflow_text`. A tokenizer that is not
        of TensorFlow cannot be exported: then, on JAX and in other formats the input is token ids.
        """
        if self.columns is not None:
            raise ValueError(
                "A model that reads columns cannot be exported: it is this library that makes its inputs of "
                "numbers and categories. Save it by `model.save`, and load it by `load_model`."
            )
        texts = self.takes_text and format == "tf_saved_model" and input_signature is None
        if texts and isinstance(getattr(self.preprocessor, "tokenizer", None), HuggingFaceTokenizer):
            texts = False
            warnings.warn(
                "The tokenizer of this model runs in Python and is not exported: the input is token ids.",
                stacklevel=2,
            )
        if not texts or keras.backend.backend() != "tensorflow":
            super().export(filepath, format, verbose, input_signature, **kwargs)
            return
        archive = keras.export.ExportArchive()
        archive.track(self)
        signature = [tf.TensorSpec(text_spec(self.preprocessor).shape, tf.string, name="texts")]
        archive.add_endpoint("serve", lambda rows: self._whole(self.tokens(rows), training=False), signature)
        archive.write_out(str(filepath), verbose=verbose is not False)
