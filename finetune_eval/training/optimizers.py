"""The optimizer for fine-tuning: AdamW, decay where it belongs, a warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from finetune_eval.models.adamw import AdamW

# Share of the steps in which the rate rises from 0: Devlin et al. 2019 (BERT) warm up over about a tenth.
_WARM_UP = 0.1
# What weight decay leaves alone: biases and the scales and shifts of normalisations (Loshchilov & Hutter 2019
# as BERT applies it), the embedding tables, of which a batch uses a few rows, and the calibration
# temperature.
_NO_DECAY = ("bias", "gamma", "beta", "embedding", "temperature")


def fine_tuning_optimizer(
    learning_rate: float,
    weight_decay: float,
    steps: int,
    used_rows: Mapping[str, np.ndarray] | None = None,
) -> AdamW:
    """Return AdamW whose rate rises over the first tenth of the steps and falls to 0 along a cosine.

    Args:
        learning_rate: The highest rate.
        weight_decay: Decoupled decay, not applied to biases, normalisations and embeddings; 0 for none.
        steps: All the steps there will be.
        used_rows: Of `AdamW`.
    """
    rate: Any = learning_rate
    if steps > 1:  # a schedule begins at 0: a single step would do nothing
        warm_up = max(1, round(steps * _WARM_UP))
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(1, steps - warm_up),
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        )
    return AdamW(rate, weight_decay=weight_decay, no_decay=_NO_DECAY, used_rows=used_rows)
