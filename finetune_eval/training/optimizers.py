"""AdamW for fine-tuning: a fused pass over the weights, decay where it belongs, a warm-up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

# Share of the steps in which the rate rises from 0: Devlin et al. 2019 (BERT) warm up over about a tenth.
_WARM_UP = 0.1
# What weight decay leaves alone: biases and the scales and shifts of normalisations (Loshchilov & Hutter 2019
# as BERT applies it), the embedding tables, of which a batch uses a few rows, and the calibration
# temperature.
_NO_DECAY = ("bias", "gamma", "beta", "embedding", "temperature")


@keras.saving.register_keras_serializable(package="finetune_eval")
class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with fewer passes over memory (on TensorFlow).

    Each weight is updated by one fused operation. Inside `only_rows`, an embedding table is updated in the
    rows that training can reach, a small part of a vocabulary: in all others gradient and moments are zero,
    and so is the step. The numbers are Keras' own for dense gradients. For embeddings Keras squares the
    gradients of a token that is in a batch twice one by one, not their sum, and steps too far; here they
    are summed first, as Adam is defined.

    Args:
        *args: Of `keras.optimizers.AdamW`.
        no_decay: Parts of the names of variables that weight decay leaves alone. Unlike
            `exclude_from_weight_decay`, it is saved with the optimizer.
        **kwargs: Of `keras.optimizers.AdamW`.

    Reference:
        Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    # Index of a variable -> (rows,) that may have a gradient, ascending.
    _rows: ClassVar[dict[int, np.ndarray]] = {}

    def __init__(self, *args: Any, no_decay: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.no_decay = tuple(no_decay)
        if self.no_decay:
            self.exclude_from_weight_decay(var_names=list(self.no_decay))

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the optimizer, its state apart."""
        return {**super().get_config(), "no_decay": list(self.no_decay)}

    @contextlib.contextmanager
    def only_rows(self, variable: Any, rows: np.ndarray) -> Iterator[None]:
        """Promise that, in graphs made inside the context, only these rows of an embedding get a gradient.

        Args:
            variable: (vocabulary, width) embedding table that has had no gradient in other rows.
            rows: Their numbers.
        """
        if not self.built:
            raise ValueError(
                "`only_rows` needs an optimizer that is built: it tells variables by their index."
            )
        object.__setattr__(self, "_rows", {self._get_variable_index(variable): np.unique(rows)})
        try:
            yield
        finally:
            object.__setattr__(self, "_rows", {})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable by its gradient."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        power_1, power_2 = tf.pow(beta_1, step), tf.pow(beta_2, step)
        rate, epsilon = tf.cast(learning_rate, dtype), tf.cast(self.epsilon, dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index].value, self._velocities[index].value
        rows = self._rows.get(index)
        if rows is None or not isinstance(gradient, tf.IndexedSlices):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=m.handle, v=v.handle, beta1_power=power_1, beta2_power=power_2,
                lr=rate, beta1=beta_1, beta2=beta_2, epsilon=epsilon, grad=tf.convert_to_tensor(gradient),
            )  # fmt: skip
            return
        place = np.zeros(variable.shape[0], dtype=np.int32)
        place[rows] = np.arange(len(rows))
        summed = tf.math.unsorted_segment_sum(
            gradient.values, tf.gather(tf.constant(place), gradient.indices), len(rows)
        )
        old_m, old_v = m.sparse_read(rows), v.sparse_read(rows)
        new_m = old_m + (summed - old_m) * (1 - beta_1)
        new_v = old_v + (tf.square(summed) - old_v) * (1 - beta_2)
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        m.scatter_update(tf.IndexedSlices(new_m, rows))
        v.scatter_update(tf.IndexedSlices(new_v, rows))
        variable.scatter_sub(tf.IndexedSlices(alpha * new_m / (tf.sqrt(new_v) + epsilon), rows))


def fine_tuning_optimizer(learning_rate: float, weight_decay: float, steps: int) -> AdamW:
    """Return AdamW whose rate rises over the first tenth of the steps and falls to 0 along a cosine.

    Args:
        learning_rate: The highest rate.
        weight_decay: Decoupled decay, not applied to biases, normalisations and embeddings; 0 for none.
        steps: All the steps there will be.
    """
    warm_up = max(1, round(steps * _WARM_UP))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up),
        warmup_target=learning_rate,
        warmup_steps=warm_up,
    )
    return AdamW(schedule, weight_decay=weight_decay or None, no_decay=_NO_DECAY)
