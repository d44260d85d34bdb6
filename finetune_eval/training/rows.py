"""The rows of a training: checked, put into batches, and stored with the run so that it can be resumed."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval import _checks, _labels, _rows, _text
from finetune_eval._columns import are_columns, as_lines
from finetune_eval._labels import ClassIndices
from finetune_eval.data.ledger import rows_hash
from finetune_eval.data.pipelines import collected, refuse_beside
from finetune_eval.data.splits import Rows, split
from finetune_eval.models.batching import Batches
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.inputs import class_weights, read
from finetune_eval.models.pipelines import is_pipeline
from finetune_eval.training.recipe import Recipe

# Rows that take more are not stored with the run: who resumes it passes them again.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Data:
    """Checked rows: as batches, and as they came."""

    train: Batches
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    soft: np.ndarray | None  # (n, K) the labels to train on, where they are probabilities
    class_weight: Any  # by name, or "balanced"
    validation: Batches | None = None
    val_x: np.ndarray | None = None
    val_y: np.ndarray | None = None
    val_weights: np.ndarray | None = None

    def record(self) -> dict[str, Any]:
        """Return counts and hashes for the manifest."""
        held_out = None
        if self.val_x is not None:
            held_out = {"rows": len(self.val_x), "hash": rows_hash(self.val_x, self.val_y)}
        return {
            "train": {
                "rows": len(self.x),
                "hash": rows_hash(self.x, self.y if self.soft is None else self.soft),
            },
            "validation": held_out,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `of_arrays` makes the same batches of: numbers alone, texts as the bytes of UTF-8."""
        known = {
            "x": self.x, "y": self.y, "weights": self.weights, "soft": self.soft,
            "val_x": self.val_x, "val_y": self.val_y, "val_weights": self.val_weights,
        }  # fmt: skip
        arrays: dict[str, np.ndarray] = {}
        for name, values in known.items():
            if values is not None:
                values = as_lines(values) if are_columns(values) else values
                arrays |= _as_bytes(name, values) if values.dtype == object else {name: np.asarray(values)}
        return arrays


def given_rows(
    model: Classifier, x: Any, y: Any, sample_weight: Any, validation_data: Any, share: Any, seed: int
) -> tuple[Any, Any, Any, Any]:
    """Return x, y, validation data and weights as rows: pipelines are read, and a share is held out.

    Raises:
        ValueError, TypeError: A pipeline cannot be read whole; or the share cannot be held out.
    """
    if share is not None:
        if validation_data is not None:
            raise ValueError("`validation_split` and `validation_data` are both given; pass one of them.")
        share = _checks.number("validation_split", share, above=0, below=1)
        if model.multilabel:
            raise ValueError(
                "`validation_split` needs one class a row; hold rows of several labels out by "
                "`validation_data=(x, y)`."
            )
    if isinstance(validation_data, (tuple, list)) and validation_data and model.columns is None:
        _rows.same_columns(**{"x": x, "validation x": validation_data[0]})
    if is_pipeline(x):
        refuse_beside("x", x, y=y, sample_weight=sample_weight)
        x, y, sample_weight = collected("x", x)
    if is_pipeline(validation_data):
        *pair, weights = collected("validation_data", validation_data)
        validation_data = (*pair, weights) if weights is not None else tuple(pair)
    if share is None:
        return x, y, validation_data, sample_weight
    x, y, weights = _rows_of(model, x, y, sample_weight)
    n = len(x)
    if not 0 < math.floor(share * n + 0.5) < n:  # as `split` rounds, which would name its own arguments
        none, other = ("training", "smaller") if share > 0.5 else ("validation", "larger")
        raise ValueError(
            f"`validation_split` {share:g} of {_text.counted(n, 'row')} leaves none for {none}; pass a "
            f"{other} share."
        )
    parts = split(x, y, labels=model.labels, validation=share, test=0, seed=seed)
    if weights is None:
        return *parts.train, tuple(parts.validation), None
    validation_data = (*parts.validation, weights[parts.validation.ids])
    return *parts.train, validation_data, weights[parts.train.ids]


def read_rows(
    model: Classifier, x: Any, y: Any, validation_data: Any, sample_weight: Any, recipe: Recipe
) -> Data:
    """Check rows and labels, and tokenise the rows."""
    soft = None if model.multilabel else _labels.read_soft("y", y, model.labels)
    if soft is not None:
        if recipe.class_weight is not None:
            raise ValueError(
                "`class_weight` needs one class a row, and `y` holds a probability for each class; pass "
                "`sample_weight` instead."
            )
        _rows.same_order(x=x, y=y)
        y = ClassIndices(soft.argmax(axis=1), model.labels)  # where a row must have one: the most probable
    x, y, weights = _rows_of(model, x, y, sample_weight, recipe.class_weight)
    weighting = recipe.class_weight
    if weighting is not None and not isinstance(weighting, str):
        weighting = dict(zip(model.labels, class_weights(weighting, model.labels, y).tolist(), strict=True))
    if model.columns is not None and model.columns.learnt is None:
        model.columns = model.columns.learn(x, weights)
    if validation_data is None:
        _check_seen(model, y if soft is None else soft, weights)
        return _batched(model, recipe, x, y, weights, soft, weighting)
    parts = tuple(validation_data) if isinstance(validation_data, (tuple, list, Rows)) else ()
    if len(parts) not in (2, 3):
        raise TypeError(
            "`validation_data` must be a pair `(x, y)`, such as `dataset.validation`, or `(x, y, weights)`."
        )
    val_x, val_y, val_weight = _rows_of(model, *parts, name="validation x")
    if val_weight is not None:
        if recipe.chooses:
            raise ValueError(
                "`calibrate`, `threshold_for` and `abstain_for` do not take weights; pass "
                "`validation_data=(x, y)`, or leave them out."
            )
        # Their mean is 1, for Keras divides a weighted loss by the number of rows.
        val_weight = val_weight / val_weight.mean(dtype=np.float64)
    recipe.check_rows(val_y, model.labels)
    _check_seen(model, y if soft is None else soft, weights, val_y, val_weight)
    return _batched(model, recipe, x, y, weights, soft, weighting, val_x, val_y, val_weight)


def _check_seen(
    model: Classifier, y: np.ndarray, weights: Any, val_y: np.ndarray | None = None, val_weights: Any = None
) -> None:
    """Warn of classes that no training row has; raise where a validation row has one of them."""
    unseen = _labels.unseen(y, len(model.labels), weights)
    if not len(unseen):
        return
    counted = "" if weights is None else " of a weight above 0"
    if val_y is not None and not model.multilabel:
        wrong = np.isin(val_y, unseen) & (True if val_weights is None else val_weights > 0)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"`validation_data` has the class {model.labels[val_y[row]]!r} in row {row}, which no "
                f"training row{counted} has, so the model could never answer it. Give it training rows, or "
                "leave its rows out."
            )
    kind = "labels" if model.multilabel else "classes"
    warnings.warn(
        f"The model has {kind} that no training row{counted} has, so it will hardly ever answer them: "
        f"{_text.listed([model.labels[k] for k in unseen])}. Add such rows, or build the model without these "
        f"{kind}.",
        stacklevel=5,
    )


def _batched(
    model: Classifier, recipe: Recipe, x: Any, y: Any, weights: Any, soft: Any, weighting: Any, *held_out: Any
) -> Data:
    """Put checked rows into batches."""
    size = recipe.batch_size * recipe.gradient_accumulation
    train = model.batches(x, y, weights, batch_size=size, seed=recipe.seed)
    if soft is not None:
        train.y = soft
    if not held_out:
        return Data(train, x, y, weights, soft, weighting)
    validation = model.batches(*held_out, batch_size=2 * recipe.batch_size, name="validation x")
    return Data(train, x, y, weights, soft, weighting, validation, *held_out)


def _rows_of(
    model: Classifier, x: Any, y: Any, *weights: Any, name: str = "x"
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return rows, the places of their classes, and their weights."""
    if y is None:
        raise ValueError(
            f"`{name.replace('x', 'y')}` is None; labels are needed: one class index or class name for each "
            "row."
        )
    rows, labels, by_row = read(model, x, y, *weights, name=name)
    if isinstance(rows, dict):
        raise TypeError(
            f"`{name}` must be texts, not tokens; train on a dictionary of tokens with `model.fit`."
        )
    return rows, model.label_indices(labels), by_row


# --- stored with the run ----------------------------------------------------------------------------------


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a SHA-256 of arrays: of their names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype} {values.shape} ".encode())
        found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def can_be_stored(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether rows are few enough to be written beside the model."""
    return sum(values.nbytes for values in arrays.values()) <= _MOST_BYTES


def of_arrays(model: Classifier, recipe: Recipe, arrays: Mapping[str, np.ndarray]) -> Data:
    """Return the rows of which `Data.arrays` made the arrays, in the same batches."""

    def part(name: str) -> Any:
        if f"{name}_bytes" in arrays:
            texts = _of_bytes(arrays[f"{name}_bytes"], arrays[f"{name}_ends"])
            if model.columns is not None:
                return model.columns.of_lines(texts)
            return texts.reshape(-1, 2) if model.takes_pairs else texts
        values = arrays.get(name)
        places = values is not None and name.endswith("y") and values.ndim == 1
        return ClassIndices(values, model.labels) if places else values

    validation = [part(name) for name in ("val_x", "val_y", "val_weights")]
    if validation[0] is None:
        validation = []
    train = part("x"), part("y"), part("weights"), part("soft"), recipe.class_weight
    return _batched(model, recipe, *train, *validation)


def _as_bytes(name: str, texts: np.ndarray) -> dict[str, np.ndarray]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts.ravel()]  # of pairs: row by row
    ends = np.cumsum([len(text) for text in encoded])
    return {f"{name}_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}_ends": ends}


def _of_bytes(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    whole, texts = values.tobytes(), np.empty(len(ends), dtype=object)
    for row, (start, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        texts[row] = whole[start:stop].decode("utf-8", "surrogatepass")
    return texts
