"""What `model.predict` returns, turned into probabilities.

A Keras model says nothing about its output; its loss does. This module reads the loss (never importing
Keras) and refuses to guess where it does not say enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# A float32 sigmoid of 1.0 stands for anything above 1 - 2**-25: its complement is known no better.
SIGMOID_RESOLUTION = 2.0**-25
_SOFTMAX_TOLERANCE = 1e-3


def softmax(logits: Any) -> NDArray[np.float64]:
    """Return the softmax of (n, K) logits over the last axis, in float64."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: Any) -> NDArray[np.float64]:
    """Return the logistic function of logits, in float64, without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def two_columns(positive: Floats) -> Floats:
    """Return (n, 2) probabilities from (n,) probabilities of the second class."""
    rest = 1.0 - positive
    if positive.dtype.itemsize <= 4:
        rest = np.where(positive >= 1.0, rest.dtype.type(SIGMOID_RESOLUTION), rest)
    return np.column_stack([rest, positive])


def output_columns(model: Any) -> int | None:
    """Return how many columns `model.predict` gives, where the model says so."""
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, (tuple, list)) and shape and isinstance(shape[-1], int):
        return int(shape[-1])
    return None


def _loss_name(loss: Any) -> str:
    """Return the loss as lower-case letters: "sparsecategoricalcrossentropy"."""
    while hasattr(loss, "func"):
        loss = loss.func
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None) or type(loss).__name__
    return str(name).replace("_", "").lower()


def _loss_setting(loss: Any, key: str, default: Any) -> Any:
    """Return a setting of a loss (string, function, partial or object), or `default`."""
    if isinstance(loss, str):
        return default
    for holder in (getattr(loss, "keywords", None), getattr(loss, "_fn_kwargs", None)):
        if isinstance(holder, dict) and key in holder:
            return holder[key]
    if hasattr(loss, key):
        return getattr(loss, key)
    try:
        return loss.get_config().get(key, default)
    except Exception:  # a custom loss may have no config, or one that cannot be read
        return default


def _only_loss(model: Any) -> Any:
    """Return the model's one loss, out of the list or dict it may stand in."""
    loss = getattr(model, "loss", None)
    while isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
        loss = next(iter(loss.values())) if isinstance(loss, dict) else loss[0]
    return loss


def _ends_in(model: Any) -> str:
    """Return the name of the model's last activation, or an empty string."""
    layers = getattr(model, "layers", None)
    if not layers:
        return ""
    activation = getattr(layers[-1], "activation", None)
    return str(getattr(activation, "__name__", type(layers[-1]).__name__)).lower()


def are_distributions(values: Floats, tolerance: float = _SOFTMAX_TOLERANCE) -> bool:
    """Say whether every row is non-negative and sums to 1."""
    if values.ndim != 2 or values.shape[1] < 2 or values.min() < 0 or values.max() > 1 + tolerance:
        return False
    return bool(np.abs(values.sum(axis=1, dtype=np.float64) - 1.0).max() <= tolerance)


def loss_note(model: Any) -> str | None:
    """Say in one sentence why `model.evaluate` reports another loss, or None where it does not."""
    loss = _only_loss(model)
    if loss is None or hasattr(model, "labels"):
        return None
    smoothing = _loss_setting(loss, "label_smoothing", 0.0) or 0.0
    if "crossentropy" not in _loss_name(loss) or "focal" in _loss_name(loss):
        return (
            f"The model is compiled with the loss {_loss_name(loss)!r}; the loss here is the plain log-loss."
        )
    if smoothing:
        return (
            f"The model is compiled with label smoothing {smoothing:g}; the loss here is the plain log-loss, "
            "so model.evaluate reports another number."
        )
    return None


def probabilities_of(model: Any, output: Any, *, task: str) -> Floats:
    """Turn what `model.predict` returned into probabilities.

    Args:
        model: The model; its `loss` and last activation are read, nothing is called.
        output: (n,), (n, 1) or (n, K) array.
        task: "classification" or "multilabel".

    Returns:
        (n, 2) or (n, K) probabilities: float32 as they came, or float64 where logits were turned into them.

    Raises:
        ValueError: The model does not say whether these are logits or probabilities, or says one and
            returns the other.
    """
    if isinstance(output, (list, tuple, dict)):
        raise ValueError(
            f"`model` has {len(output)} outputs; evaluate needs one: wrap the one to score in its own model."
        )
    values = np.asarray(output)
    if values.dtype.kind != "f":
        values = values.astype(np.float32)  # bfloat16 and integers: NumPy's own floats from here on
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise ValueError(f"`model.predict` must give shape (rows, classes); got {values.shape}.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(
            f"`model.predict` gave {values[row].tolist()} for row {row}: not finite. Look for NaN in "
            "the rows or in the weights."
        )
    if hasattr(model, "labels"):  # built by this library: always probabilities
        return two_columns(values[:, 0]) if values.shape[1] == 1 else values
    loss = _only_loss(model)
    name = "" if loss is None else _loss_name(loss)
    from_logits = bool(_loss_setting(loss, "from_logits", False)) if "crossentropy" in name else None
    if task == "multilabel":
        return _independent(model, values, name, from_logits)
    if values.shape[1] == 1:
        if "categorical" in name:
            raise ValueError(
                f"`model` has one output column and the loss {name!r}, whose softmax over one column is "
                "always 1; use a binary cross-entropy loss, or one output for each class."
            )
        return two_columns(_independent(model, values, name, from_logits)[:, 0])
    if are_distributions(values):
        return values  # softmax already; with from_logits=True Keras sees the softmax and does the same
    if from_logits and "categorical" in name:
        return softmax(values)
    low, high = float(values.min()), float(values.max())
    raise ValueError(
        f"`model.predict` gave values from {low:.3g} to {high:.3g} whose rows do not sum to 1, and the "
        f"model's loss ({name or 'not compiled'}) does not say that they are logits; end the model in a "
        "softmax, compile it with from_logits=True, or pass probabilities to evaluate_predictions."
    )


def _independent(model: Any, values: Floats, name: str, from_logits: bool | None) -> Floats:
    """Return sigmoid probabilities, each column by itself."""
    inside = bool(values.min() >= 0 and values.max() <= 1)
    ending = _ends_in(model)
    if ending == "sigmoid" and inside:
        return values
    if "binary" in name and from_logits:
        return sigmoid(values)
    if "binary" in name and inside:
        return values
    said = f"the loss {name!r}" if name else "no loss (not compiled)"
    raise ValueError(
        f"`model.predict` gave values from {float(values.min()):.3g} to {float(values.max()):.3g} and the "
        f"model has {said}, so they may be logits or probabilities; end the model in a sigmoid, "
        "compile it with a binary cross-entropy loss (from_logits=True for logits), or pass probabilities to "
        "evaluate_predictions."
    )
