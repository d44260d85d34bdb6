"""The optimizer for fine-tuning: AdamW with a warm-up, and weight decay of matrices only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from finetune_eval import _text
from finetune_eval.models.adamw import AdamW
from finetune_eval.models.batching import Batches
from finetune_eval.training.recipe import AS_RECIPE, Recipe
from finetune_eval.training.schedules import rate_over_steps

# What weight decay leaves alone: biases and the scales and shifts of normalisations (Loshchilov & Hutter 2019
# as BERT applies it), the embedding tables, of which a batch uses a few rows, and the calibration
# temperature.
_NO_DECAY = ("bias", "gamma", "beta", "embedding", "temperature")


# What our AdamW does, and another optimizer would ignore, with the value that asks for nothing.
_OURS = {
    "learning_rate": None, "schedule": "", "warmup": "", "weight_decay": "", "layer_decay": 1,
    "average_last": 0, "ema": None,
}  # fmt: skip


def check_given(optimizer: Any, settings: Recipe, given: Mapping[str, Any]) -> None:
    """Raise where an optimizer of the caller's cannot be used as it is, or would ignore a setting.

    Args:
        optimizer: What was passed.
        settings: All settings of the training.
        given: What was passed of them; `AS_RECIPE` for what was not.

    Raises:
        TypeError, ValueError: The sentence says why.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        made = " Is it a class? Make one of it: add ()." if isinstance(optimizer, type) else ""
        raise TypeError(
            "`optimizer` must be a Keras optimizer, such as `keras.optimizers.SGD(0.01)`; got "
            f"{_text.quoted(repr(optimizer))} ({type(optimizer).__name__}).{made}"
        )
    plain = Recipe()
    for name, nothing in _OURS.items():
        passed = given[name] is not AS_RECIPE and given[name] != nothing
        if passed or getattr(settings, name) != getattr(plain, name):
            raise ValueError(f"`{name}` would be ignored, for `optimizer` is used as it is; leave one out.")
    if settings.strategy == "gradual":
        raise ValueError(
            "`strategy` 'gradual' has the optimizer of `fine_tune` hold layers back; leave `optimizer` out, "
            "or use another strategy."
        )
    if optimizer.built:
        raise ValueError("`optimizer` has been used before, and holds what it gathered; pass a new one.")
    if getattr(optimizer, "use_ema", False):
        raise ValueError(
            "`optimizer` has `use_ema=True`, whose means no validation row would judge; make it without, or "
            "leave it out and pass `ema`."
        )


def has_constant_rate(optimizer: Any) -> bool:
    """Whether a callback may set the rate: it follows no schedule."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return not isinstance(getattr(optimizer, "_learning_rate", None), schedule)


def in_words(optimizer: Any) -> str:
    """Return the class of an optimizer with its settings, such as "SGD(learning_rate=0.01, momentum=0.0)"."""
    return _described(type(optimizer).__name__, optimizer.get_config())


def _described(name: str, config: Mapping[str, Any]) -> str:
    each = []
    for key, value in config.items():
        if key == "name" or value is None:
            continue
        inner = isinstance(value, Mapping) and {"class_name", "config"} <= value.keys()
        said = _described(value["class_name"], value["config"]) if inner else repr(value)
        each.append(f"{key}={said}")
    return f"{name}({', '.join(each)})"


def fine_tuning_optimizer(
    learning_rate: float,
    weight_decay: float,
    steps: int,
    *,
    schedule: str = "cosine",
    warmup: float = 0.1,
    **settings: Any,
) -> AdamW:
    """Return AdamW whose rate rises over the first tenth of the steps and falls to 0 along a cosine.

    Args:
        learning_rate: The highest rate.
        weight_decay: Decoupled decay, not applied to biases, normalisations and embeddings; 0 for none.
        steps: All the steps there will be.
        schedule: How the rate goes after the warm-up: "cosine", "linear" or "constant".
        warmup: The share of the steps in which the rate rises; Devlin et al. 2019 (BERT) take about a tenth.
        **settings: Of `AdamW`: `used_rows`, `rate_scales`, `first_steps`, `average_from`, `ema`.
    """
    rate = rate_over_steps(learning_rate, steps, schedule=schedule, warmup=warmup)
    return AdamW(rate, weight_decay=weight_decay, no_decay=_NO_DECAY, **settings)


def used_rows(model: Any, train: Batches) -> dict[str, np.ndarray]:
    """Return, for `AdamW`, the tokens in the training rows; nothing where that would spare little."""
    table = getattr(getattr(model.backbone, "token_embedding", None), "embeddings", None)
    tokens = train.rows.features.get("token_ids")
    if tokens is None or not isinstance(table, keras.Variable) or not table.trainable or table.regularizer:
        return {}
    used = np.union1d(tokens, [0])  # batches are padded with 0
    return {table.path: used} if len(used) < table.shape[0] / 2 else {}
