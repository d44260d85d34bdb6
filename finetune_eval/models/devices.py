"""Computing the rows of a batch on several devices at the same time, on JAX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

KINDS = ("data_parallel", "model_parallel")

# The devices that a step made now is computed on, a `jax.sharding.Mesh`; None: one device.
_MESH: ContextVar[Any] = ContextVar("mesh", default=None)


class _WholeBatches:
    """Has Keras give every device the whole batch, of which `by_rows` has it compute its share of the rows.

    Keras' own layout gives a device its rows alone, and JAX refuses batches that do not divide by the
    devices. Over several processes, each would have to feed rows of its own, as many as every other.
    """

    def get_data_layout(self: Any, data_shape: Any) -> Any:
        """Return the layout of an array of a batch: the same on all devices."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


class _DataParallel(_WholeBatches, keras.distribution.DataParallel):
    """Every device has all weights."""


class _ModelParallel(_WholeBatches, keras.distribution.ModelParallel):
    """Every device has its part of the large weights."""


def mesh() -> Any:
    """Return the devices that a step made now is computed on; None for one device."""
    return _MESH.get()


def by_rows(run: Callable[[Any], Any], inputs: Any) -> Any:
    """Return `run(inputs)`, (rows, ...), each device of `spread` computing its share of the rows.

    The rows need not divide by the devices: XLA pads a device's share, and masks the padding in every sum.
    All else of a step (the loss, the metrics) sees the rows that there are.
    """
    devices = mesh()
    if devices is None:
        return run(inputs)
    import jax

    if not isinstance(keras.tree.flatten(inputs)[0], jax.core.Tracer):  # a call outside of a compiled step
        return run(inputs)
    spec, constrain = jax.sharding.PartitionSpec, jax.lax.with_sharding_constraint
    apart, together = (jax.sharding.NamedSharding(devices, each) for each in (spec("batch"), spec()))
    outputs = run(keras.tree.map_structure(lambda part: constrain(part, apart), inputs))
    # First apart: the gradient comes back through the same two, and the backward pass too is by rows.
    return constrain(constrain(outputs, apart), together)


def distribution_of(model: Any, kind: str) -> Any:
    """Return the `keras.distribution.Distribution` of a kind over all devices there are.

    Raises:
        ValueError: The model has no layout for it, or its weights do not divide by the devices.
    """
    devices = keras.distribution.list_devices()
    if kind == "data_parallel":
        return _DataParallel(devices=devices, auto_shard_dataset=False)
    name = type(model.backbone).__name__
    if not hasattr(model.backbone, "get_layout_map"):
        raise ValueError(
            f"`distribution` 'model_parallel' needs a KerasHub backbone with `get_layout_map`, such as Gemma "
            f"or Llama; {name} has none. Use 'data_parallel', for which the model has to fit one device."
        )
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    layouts = model.backbone.get_layout_map(mesh)
    distribution = _ModelParallel(layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False)
    for variable in model.variables:
        axes = (layouts[variable.path] or keras.distribution.TensorLayout(())).axes
        parts = [len(devices) if axis == "model" else 1 for axis in axes]
        if any(size % part for size, part in zip(variable.shape, parts, strict=False)):
            raise ValueError(
                f"`distribution` 'model_parallel' divides the weight {variable.path!r} of shape "
                f"{tuple(variable.shape)} among the {len(devices)} devices along {axes}, and it does not "
                "divide; use fewer devices, or 'data_parallel'."
            )
    return distribution


@contextlib.contextmanager
def spread(model: Any, kind: str | None) -> Iterator[None]:
    """Have a model computed by all devices inside the context; after it, its variables are where they were.

    Compile the model inside, and once more after it: optimizer and metrics stay where they are made. Over
    several processes every one of them has to enter, and to do the same inside.

    Args:
        model: A `Classifier`.
        kind: One of `KINDS`; None for the one device that the model is on.
    """
    if kind is None:
        yield
        return
    distribution = distribution_of(model, kind)
    before = {id(variable): variable._layout for variable in model.variables}
    token = _MESH.set(distribution.device_mesh.backend_mesh)
    try:
        for variable in model.variables:
            variable._layout = None  # what the distribution says, not what was before
            _move(variable, distribution.get_variable_layout(variable).backend_layout)
        with distribution.scope():
            yield
    finally:
        _MESH.reset(token)
        for variable in model.variables:
            _move(variable, before.get(id(variable)))


def _move(variable: Any, layout: Any) -> None:
    """Lay a variable out anew; a layout of None is the process' first device."""
    import jax

    variable._layout, value = layout, variable._value
    if value is None or value.is_deleted():  # a step that failed has taken it
        return
    if layout is None:
        try:
            variable._value = jax.numpy.array(np.asarray(value))
        except (ValueError, RuntimeError):
            variable._value = None  # the sum over all processes that gives it has failed: `steps.lost`
    elif jax.process_count() == 1:
        variable._value = jax.device_put(value, layout)
    else:
        host = np.asarray(value)
        variable._value = jax.make_array_from_callback(host.shape, layout, lambda index: host[index])
