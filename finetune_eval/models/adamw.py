"""AdamW with a fused pass over the weights. It is here and not in `training/`: a saved model may hold one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


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
        used_rows: Path of an embedding table -> the rows of it that the batches can hold. A row whose
            gradient is always 0 never moves: no moments are kept of the others, and no time is spent on them.
            A batch that holds another row raises `tf.errors.InvalidArgumentError`. Means nothing on other
            backends, in a distribution strategy, and with `amsgrad`, `use_ema` or gradient accumulation. It
            is not saved: a saved optimizer has the moments of all rows, and goes on with any.
        rate_scales: Path of a variable -> what the learning rate, and with it the decay, is multiplied by for
            it; 1 for the others.
        first_steps: Path of a variable -> the number of steps after which it begins to move; 0 for the
            others. Until then it keeps its bits, and its moments are gathered.
        average_from: The number of steps after which the mean of the weights that each step leaves is kept,
            for `averaged`; None keeps none.
        ema: Keep the exponential mean instead of the plain one: the factor by which what a step left counts
            less with each later step, in (0, 1); None for the plain mean.
        **kwargs: Of `keras.optimizers.AdamW`.

    Reference:
        Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    def __init__(
        self,
        *args: Any,
        no_decay: Sequence[str] = (),
        used_rows: Mapping[str, Sequence[int] | np.ndarray] | None = None,
        rate_scales: Mapping[str, float] | None = None,
        first_steps: Mapping[str, int] | None = None,
        average_from: int | None = None,
        ema: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.rate_scales, self.first_steps = dict(rate_scales or {}), dict(first_steps or {})
        self.average_from, self.ema = average_from, ema
        self._pace: list[tuple[float, int]] = []  # scale and first step, by the index of the variable
        self._averages: list[Any] = []  # by the index of the variable
        if not _on_one_device() or self.amsgrad or self.use_ema or self.gradient_accumulation_steps:
            used_rows = None
        self.used_rows = {path: np.unique(rows) for path, rows in (used_rows or {}).items()}
        self._used_values: dict[str, Any] = {}
        self._moments_of: dict[int, tuple[str, int]] = {}  # id -> path and height of the table
        # At 0 Keras would go through all weights to subtract nothing.
        self.weight_decay: Any = getattr(self, "weight_decay", None) or None
        self.no_decay = tuple(no_decay)
        if self.no_decay:
            self.exclude_from_weight_decay(var_names=list(self.no_decay))

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the optimizer, its state apart."""
        own = {"weight_decay": self.weight_decay or 0.0, "no_decay": list(self.no_decay)}
        names = ("rate_scales", "first_steps", "average_from", "ema")
        return {**super().get_config(), **own, **{name: getattr(self, name) for name in names}}

    def build(self, variables: Any) -> None:
        """Make the state for these variables."""
        if self.built:
            return
        super().build(variables)
        self._pace = [
            (self.rate_scales.get(variable.path, 1.0), self.first_steps.get(variable.path, 0))
            for variable in variables
        ]
        if self.average_from is not None:
            self._averages = [
                self.add_variable_from_reference(variable, name="average") for variable in variables
            ]

    def _saved(self) -> list[tuple[Any, Any]]:
        """Return the variables that are saved, each with the table of which it is a moment, or None."""
        scratch = {id(values) for values in self._used_values.values()}
        known = (variable for variable in self.variables if id(variable) not in scratch)
        return [(variable, self._moments_of.get(id(variable))) for variable in known]

    def save_own_variables(self, store: Any) -> None:
        """Save the state, its moments those of all rows: the moments of rows that never came are 0."""
        for index, (variable, table) in enumerate(self._saved()):
            value = ops.convert_to_numpy(variable)
            if table is not None:
                path, height = table
                rows, value = value, np.zeros((height, *value.shape[1:]), dtype=value.dtype)
                value[self.used_rows[path]] = rows
            store[str(index)] = value

    def load_own_variables(self, store: Any) -> None:
        """Load the state that `save_own_variables` saved, whichever rows were used then."""
        saved = self._saved()
        if not self.used_rows or len(store.keys()) != len(saved):
            super().load_own_variables(store)
            return
        for index, (variable, table) in enumerate(saved):
            value = np.asarray(store[str(index)])
            if table is not None:
                rows = self.used_rows[table[0]]
                if np.delete(value, rows, axis=0).any():
                    raise ValueError(
                        f"The saved optimizer has moments of rows of {table[0]!r} that `used_rows` leaves "
                        "out; leave out `used_rows`."
                    )
                value = value[rows]
            variable.assign(value)

    def add_variable_from_reference(
        self, reference_variable: Any, name: Any = None, initializer: Any = "zeros"
    ) -> Any:
        """Add a moment of a variable: of an embedding table, for its used rows."""
        path = reference_variable.path
        if path not in self.used_rows:
            return super().add_variable_from_reference(reference_variable, name, initializer)
        shape = (len(self.used_rows[path]), *reference_variable.shape[1:])

        def add(name: Any) -> Any:
            name = f"{path.replace('/', '_')}_{name}"
            return self.add_variable(shape, initializer, reference_variable.dtype, name=name)

        if path not in self._used_values:  # where the rows are while they are updated
            self._used_values[path] = add("used_rows")
        moment = add(name)
        self._moments_of[id(moment)] = path, reference_variable.shape[0]
        return moment

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables, then the mean of what the steps left."""
        super().apply(grads, trainable_variables)
        if not self._averages:
            return
        count = ops.cast(self.iterations, "float32") - float(self.average_from or 0)
        if keras.backend.backend() == "tensorflow":
            ops.cond(count >= 1, lambda: self._average(count), lambda: None)
        else:  # a branch cannot assign on JAX
            self._average(count)

    def _average(self, count: Any) -> None:
        """Add the weights to the mean of `count` steps, these included."""
        # The weights of an exponential mean add up to 1 from the first step on: as Adam corrects its moments.
        last = ops.maximum(count, 1.0)
        share = 1 / last if self.ema is None else (1 - self.ema) / (1 - ops.power(self.ema, last))
        share = ops.where(count >= 1, share, 0.0)
        for average, variable in zip(self._averages, self._trainable_variables, strict=True):
            values: Any = variable.value
            if variable.path in self.used_rows:
                values = ops.take(values, self.used_rows[variable.path], axis=0)
            average.assign(average.value + ops.cast(share, variable.dtype) * (values - average.value))

    def averaged(self) -> list[np.ndarray] | None:
        """Return the mean of the weights, by variable; None where no step has been averaged yet."""
        if not self._averages or int(ops.convert_to_numpy(self.iterations)) <= int(self.average_from or 0):
            return None
        means = []
        for average, variable in zip(self._averages, self._trainable_variables, strict=True):
            mean = np.array(ops.convert_to_numpy(average))
            if variable.path in self.used_rows:  # the other rows never move
                rows, mean = mean, np.array(ops.convert_to_numpy(variable))
                mean[self.used_rows[variable.path]] = rows
            means.append(mean)
        return means

    def _paced(self, variable: Any, value: Any) -> Any:
        """Return a rate, or what is proportional to it, for one variable."""
        scale, first = self._pace[self._get_variable_index(variable)]
        if scale != 1:
            value = value * scale
        if not first:
            return value
        return ops.where(self.iterations >= first, ops.convert_to_tensor(value), 0.0)  # it may be a variable

    def _apply_weight_decay(self, variables: Any) -> None:
        if self.weight_decay is None:
            return
        if _on_one_device():
            share = self.learning_rate * self.weight_decay
            for variable in variables:
                if self._use_weight_decay(variable):
                    own = self._paced(variable, share)
                    variable.value.assign_sub(variable.value * ops.cast(own, variable.dtype))
            return
        if not (self.rate_scales or self.first_steps):
            super()._apply_weight_decay(variables)
            return
        decay = self.weight_decay
        try:
            for variable in filter(self._use_weight_decay, variables):
                # Keras multiplies by the rate, which has no place for the variable.
                self.weight_decay = self._paced(variable, decay)
                super()._apply_weight_decay([variable])
        finally:
            self.weight_decay = decay

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        if not _on_one_device() or self.amsgrad:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        powers = self._powers()  # once, not once a variable: a third of the nodes of the step's graph
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self._update(gradient, variable, self._paced(variable, learning_rate), powers)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable by its gradient; in a strategy it is TensorFlow's own on one of the devices."""
        learning_rate = self._paced(variable, learning_rate)
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
        else:
            self._update(gradient, variable, learning_rate, self._powers())

    def _powers(self) -> tuple[Any, Any]:
        step = ops.cast(self.iterations + 1, "float32")
        return ops.power(self.beta_1, step), ops.power(self.beta_2, step)

    def _update(self, gradient: Any, variable: Any, rate: Any, powers: tuple[Any, Any]) -> None:
        import tensorflow as tf

        rows = self.used_rows.get(variable.path) if self.used_rows else None
        if rows is None:
            values = variable.value if isinstance(variable, keras.Variable) else variable
            self._adam(tf.convert_to_tensor(gradient), variable, values, rate, powers)
            return
        if not isinstance(gradient, tf.IndexedSlices):
            raise TypeError(
                f"`used_rows` names {variable.path!r}, which is used for more than to look up rows of it: "
                "all of its rows have a gradient. Leave it out."
            )
        place = np.full(variable.shape[0], -1, dtype=np.int32)
        place[rows] = np.arange(len(rows))
        places = tf.gather(tf.constant(place), gradient.indices)
        tf.debugging.assert_non_negative(places, "A batch holds a row that `used_rows` does not name.")
        summed = tf.math.unsorted_segment_sum(gradient.values, places, len(rows))
        values = self._used_values[variable.path].value
        values.assign(tf.gather(variable.value, rows))
        self._adam(summed, variable, values, rate, powers)
        variable.value.scatter_update(tf.IndexedSlices(values, rows))

    def _adam(self, gradient: Any, variable: Any, values: Any, rate: Any, powers: tuple[Any, Any]) -> None:
        """Update `values`, all of `variable` or its used rows."""
        import tensorflow as tf

        index, dtype = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyAdam(
            var=values.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(powers[0], dtype),
            beta2_power=tf.cast(powers[1], dtype),
            lr=tf.cast(rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )


def _on_one_device() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def public_names(config: Any) -> Any:
    """Return a config with the public names of those optimizers that Keras has a copy of on torch."""
    if not isinstance(config, dict):
        return config
    if str(config.get("module")).startswith("keras.src.backend.torch."):
        config = {**config, "module": "keras.optimizers", "registered_name": None}
    return {key: public_names(value) for key, value in config.items()}
