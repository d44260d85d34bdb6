"""The optimizer for fine-tuning: AdamW with a warm-up, and weight decay of matrices only."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from finetune_eval.models.adamw import AdamW
from finetune_eval.models.batching import Batches
from finetune_eval.training.schedules import rate_over_steps

# What weight decay leaves alone: biases and the scales and shifts of normalisations (Loshchilov & Hutter 2019
# as BERT applies it), the embedding tables, of which a batch uses a few rows, and the calibration
# temperature.
_NO_DECAY = ("bias", "gamma", "beta", "embedding", "temperature")


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
