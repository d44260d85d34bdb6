"""Learning rates over the steps of a training: warm-up, then constant, linear or along a cosine."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="finetune_eval")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises from 0 in equal parts, then stays, or falls to 0 in equal parts.

    Args:
        rate: The highest rate.
        steps: All the steps there will be.
        warm_up: Number of steps in which the rate rises; 0 begins with the highest.
        falls: Whether it falls to 0 over the steps after the warm-up.
    """

    def __init__(self, rate: float, steps: int, warm_up: int, *, falls: bool):
        self.rate, self.steps, self.warm_up, self.falls = rate, steps, warm_up, falls

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        share = ops.minimum(step / max(1, self.warm_up), 1.0) if self.warm_up else ops.ones_like(step)
        if self.falls:
            left = (self.steps - step) / max(1, self.steps - self.warm_up)
            share = ops.minimum(share, ops.maximum(left, 0.0))
        return self.rate * share

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the schedule."""
        return {"rate": self.rate, "steps": self.steps, "warm_up": self.warm_up, "falls": self.falls}


def rate_over_steps(rate: float, steps: int, *, schedule: str = "cosine", warmup: float = 0.1) -> Any:
    """Return the learning rate of each step: a Keras schedule, or the rate itself where it never changes.

    Args:
        rate: The highest rate.
        steps: All the steps there will be.
        schedule: After the warm-up: "cosine" and "linear" fall to 0 after the last step, "constant" stays.
        warmup: The share of the steps in which the rate rises from 0, at least one step; 0 for none.
    """
    if steps == 1:  # a warm-up begins at 0: a single step would do nothing
        return rate
    warm_up = max(1, round(steps * warmup)) if warmup else 0
    if schedule == "constant" and not warm_up:
        return rate
    if schedule != "cosine":
        return WarmUp(rate, steps, warm_up, falls=schedule == "linear")
    if not warm_up:
        return keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up),
        warmup_target=rate,
        warmup_steps=warm_up,
    )


def in_words(schedule: str, warmup: float) -> str:
    """Return how the rate goes, such as "warm-up 10 %, then cosine decay to 0"."""
    after = "constant rate" if schedule == "constant" else f"{schedule} decay to 0"
    return f"warm-up {100 * warmup:g} %, then {after}" if warmup else after


def highest(rate: float | None, *, verb: str) -> str:
    """Return what to change where the rate is to be another: the argument, with what it is."""
    return "the rate of `optimizer`" if rate is None else f"`learning_rate` (it {verb} {rate:g})"
