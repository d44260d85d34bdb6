"""How a training step is computed: one `Plan`, and what a traced graph was made from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from finetune_eval.models import frozen, micro_batches
from finetune_eval.models.batching import Batches
from finetune_eval.models.frozen import Cut

# A step of a head alone takes less time than Keras takes to call for it, so 64 are run at a call. To trace
# that loop costs as much as it spares in about 300 steps: it is done where there are 500 or more.
_STEPS_PER_EXECUTION, _WORTH_IT = 64, 500


@dataclass(frozen=True)
class Plan:
    """How the steps of a training are computed. But for rounding, no plan changes what a step does.

    Attributes:
        cut: The model in two, above its frozen layers, whose outputs are computed once; None: in one.
        micro_batches: The number of parts, computed one after the other, of which a batch is made.
        steps_per_execution: Steps that Keras runs at a call.
        precision: What the products of encoder layers are rounded to in training: "float32" or "bfloat16".
    """

    cut: Cut | None = None
    micro_batches: int = 1
    steps_per_execution: int = 1
    precision: str = "float32"


def planned(
    model: Any,
    train: Batches,
    validation: Batches | None,
    *,
    epochs: int,
    precision: str,
    calls_apart: bool,
    parts: int = 1,
    show: Callable[[str], Any] | None = None,
) -> Plan:
    """Return the plan for a training, and compute what the frozen layers give for all of its rows.

    Args:
        model: A `Classifier`.
        train: The training rows; where layers are frozen, replaced by what those layers give for them.
        validation: The validation rows, or None; replaced in the same way.
        epochs: How often the training rows will be gone through.
        precision: "float32" or "bfloat16", as `precision.resolve` gave it.
        calls_apart: Whether a callback has to be called after every step.
        parts: The least number of micro-batches of which a batch is made.
        show: Called with a sentence on what was computed; None for silence.
    """
    where = frozen.cut(model)
    if where is not None:
        began = time.perf_counter()
        rows = sum(frozen.compute(part, where) for part in (train, validation) if part is not None)
        if show is not None and rows:
            show(f"frozen layers: computed once for {rows:,} rows in {time.perf_counter() - began:.1f} s")
    head_alone = train.rows.features.keys() == {"frozen"}  # the outputs of the whole backbone are kept
    at_a_call = keras.backend.backend() != "torch"  # which runs one step at a call, and no more
    many = at_a_call and head_alone and not calls_apart and len(train) * epochs >= _WORTH_IT
    return Plan(
        cut=where,
        micro_batches=max(parts, micro_batches.how_many(model, train)),
        steps_per_execution=_STEPS_PER_EXECUTION if many else 1,
        precision=precision,
    )


def structure(root: Any) -> tuple[Any, ...]:
    """Return what a graph of a layer is made from: of each layer inside, its variables, types and settings.

    A traced graph answers for the structure that it was traced for and for no other: LoRA and quantization
    put other variables into a layer, `rate`, `activation` or `sequence_length` are constants in the graph.
    """
    if not isinstance(root, keras.Layer):  # a preprocessor may be any function
        return ()
    if not root.built:  # KerasHub's preprocessors make layers when they are first called
        root.build(None)
    outermost = root.layers if isinstance(root, keras.Model) else [root]
    return tuple(
        (
            id(layer),
            layer.trainable,
            layer.dtype_policy.name,
            *(id(variable) for variable in (*layer._trainable_variables, *layer._non_trainable_variables)),
            *(
                (name, _constant(value))
                for name, value in vars(layer).items()
                if name[0] != "_" and name != "built"
            ),
        )
        for layer in (inner for outer in outermost for inner in outer._flatten_layers())
    )


def _constant(value: Any) -> Any:
    """Return what can be compared of a layer's attribute: a number, a text or a function; else nothing."""
    if isinstance(value, (bool, int, float, str)):
        return value
    return value if callable(value) and not isinstance(value, keras.Layer) else None


@contextlib.contextmanager
def variables_kept(model: Any) -> Iterator[None]:
    """On JAX, give variables back the values that an error inside the context would lose.

    Keras takes them out of the model while batches run, and puts them back when all went well: a row that is
    refused in the first batch would leave the model without weights.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [*model.variables, *model.metrics_variables, *getattr(model.optimizer, "variables", ())]
    before = [variable.value for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()  # what the last step left, if there was one
        for variable, value in zip(variables, before, strict=True):
            if variable._value is None and not value.is_deleted():
                variable.assign(value)
        raise


def lost(model: Any) -> bool:
    """Whether a weight has no value: on JAX, after an interruption in the middle of a step."""
    if keras.backend.backend() != "jax":
        return False
    return any(weight._value is None or weight._value.is_deleted() for weight in model.weights)
