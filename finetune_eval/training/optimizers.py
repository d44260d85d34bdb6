"""AdamW for fine-tuning: a fused pass over the weights, decay where it belongs, a warm-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# Share of the steps in which the rate rises from 0: Devlin et al. 2019 (BERT) warm up over about a tenth.
_WARM_UP = 0.1
# What weight decay leaves alone: biases and the scales and shifts of normalisations (Loshchilov & Hutter 2019
# as BERT applies it), the embedding tables, of which a batch uses a few rows, and the calibration
# temperature.
_NO_DECAY = ("bias", "gamma", "beta", "embedding", "temperature")


@keras.saving.register_keras_serializable(package="finetune_eval")
class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with fewer passes over memory (on TensorFlow).

    Each weight is updated by one fused operation. The numbers are Keras' own for dense gradients. For
    embeddings Keras squares the gradients of a token that is in a batch twice one by one, not their sum, and
    steps too far; here they are summed first, as Adam is defined.

    Args:
        *args: Of `keras.optimizers.AdamW`.
        no_decay: Parts of the names of variables that weight decay leaves alone. Unlike
            `exclude_from_weight_decay`, it is saved with the optimizer.
        **kwargs: Of `keras.optimizers.AdamW`.

    Reference:
        Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    def __init__(self, *args: Any, no_decay: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        # At 0 Keras would go through all weights to subtract nothing.
        self.weight_decay: Any = getattr(self, "weight_decay", None) or None
        self.no_decay = tuple(no_decay)
        if self.no_decay:
            self.exclude_from_weight_decay(var_names=list(self.no_decay))

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the optimizer, its state apart."""
        decay = self.weight_decay or 0.0
        return {**super().get_config(), "weight_decay": decay, "no_decay": list(self.no_decay)}

    def _apply_weight_decay(self, variables: Any) -> None:
        if not _on_one_device():
            super()._apply_weight_decay(variables)
        elif self.weight_decay is not None:
            share = self.learning_rate * self.weight_decay
            for variable in variables:
                if self._use_weight_decay(variable):
                    variable.value.assign_sub(variable.value * share)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        if not _on_one_device() or self.amsgrad:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        powers = self._powers()  # once, not once a variable: a third of the nodes of the step's graph
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self._update(gradient, variable.value, learning_rate, powers)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable by its gradient."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
        else:
            self._update(gradient, variable, learning_rate, self._powers())

    def _powers(self) -> tuple[Any, Any]:
        step = ops.cast(self.iterations + 1, "float32")
        return ops.power(self.beta_1, step), ops.power(self.beta_2, step)

    def _update(self, gradient: Any, variable: Any, rate: Any, powers: tuple[Any, Any]) -> None:
        import tensorflow as tf

        index, dtype = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(powers[0], dtype),
            beta2_power=tf.cast(powers[1], dtype),
            lr=tf.cast(rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.convert_to_tensor(gradient),
        )


def _on_one_device() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def fine_tuning_optimizer(learning_rate: float, weight_decay: float, steps: int) -> AdamW:
    """Return AdamW whose rate rises over the first tenth of the steps and falls to 0 along a cosine.

    Args:
        learning_rate: The highest rate.
        weight_decay: Decoupled decay, not applied to biases, normalisations and embeddings; 0 for none.
        steps: All the steps there will be.
    """
    if steps == 1:  # a schedule begins at 0: a single step would do nothing
        return AdamW(learning_rate, weight_decay=weight_decay, no_decay=_NO_DECAY)
    warm_up = max(1, round(steps * _WARM_UP))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up),
        warmup_target=learning_rate,
        warmup_steps=warm_up,
    )
    return AdamW(schedule, weight_decay=weight_decay, no_decay=_NO_DECAY)
