"""All that decides the next steps of a training: taken between two steps, written, and put back."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _files
from finetune_eval.runs import read_arrays, write_arrays
from finetune_eval.training.checkpoints import frozen_weights

_FORMAT = 1
_FILES = "step-*.json", "step-*.npz", "best-epoch-*.npz"
_KEPT = 2  # a checkpoint that turns out to be damaged has another before it
# What Keras' own callbacks remember from one epoch to the next.
_KERAS_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_weights", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        "best", "epochs_since_last_save", "_batches_seen_since_last_saving", "_last_batch_seen",
        "_current_epoch",
    ),
}  # fmt: skip
_NOTHING_TO_KEEP = (keras.callbacks.TerminateOnNaN, keras.callbacks.LearningRateScheduler)


@dataclass(frozen=True)
class State:
    """What a training was between two steps.

    Attributes:
        epoch: The epoch, counted from 0.
        step: Number of its steps that were done.
        seconds: How long the training had run.
        logs: The logs of the last step.
        callbacks: Name -> what the callback's `get_state` gave.
        variables: Name -> value: weights that are trained, random states, optimizer and metrics.
        best_epoch: The best epoch so far, counted from 1; 0 before the first, and without validation rows.
        best: Its weights by their place in `model.weights`.
    """

    epoch: int
    step: int
    seconds: float
    logs: dict[str, float]
    callbacks: dict[str, Any]
    variables: dict[str, np.ndarray] = field(repr=False)
    best_epoch: int = 0
    best: dict[int, np.ndarray] = field(default_factory=dict, repr=False)


# --- of the model -----------------------------------------------------------------------------------------


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield each variable that training changes, by a name that another process gives it too."""
    frozen = frozen_weights(model)
    kinds = {"model": model.variables, "optimizer": model.optimizer.variables}
    for kind, variables in {**kinds, "metrics": model.metrics_variables}.items():
        for place, variable in enumerate(variables):
            if id(variable) not in frozen:
                yield f"{kind}_{place}", variable


def of_model(model: Any) -> dict[str, np.ndarray]:
    """Return copies of the values of all variables that training changes."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()  # between two steps Keras holds them outside of the model
    # What `convert_to_numpy` gives is a copy on TensorFlow, elsewhere it may be a view.
    own: Any = np.asarray if keras.backend.backend() == "tensorflow" else np.array
    return {name: own(ops.convert_to_numpy(variable)) for name, variable in _variables(model)}


def put_into(model: Any, values: Mapping[str, np.ndarray]) -> None:
    """Put back what `of_model` returned.

    Raises:
        ValueError: They are values of another model or optimizer.
    """
    known = dict(_variables(model))
    shapes = {name: tuple(variable.shape) for name, variable in known.items()}
    if shapes != {name: value.shape for name, value in values.items()}:
        raise ValueError(
            "The checkpoint does not fit the model: it was written by another version, or for another model."
        )
    for name, variable in known.items():
        variable.assign(values[name])


# --- of the callbacks -------------------------------------------------------------------------------------


def of_callbacks(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Return the states of those callbacks that have one, by class and number."""
    states = {}
    for name, callback in _named(callbacks):
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            states[name] = callback.get_state()
        elif names := _keras_state(callback):
            states[name] = {key: vars(callback)[key] for key in names if key in vars(callback)}
    return states


def put_into_callbacks(callbacks: Sequence[Any], states: Mapping[str, Any]) -> None:
    """Give callbacks the states that `of_callbacks` returned."""
    for name, callback in _named(callbacks):
        if name not in states:
            continue
        if hasattr(callback, "set_state"):
            callback.set_state(states[name])
        else:
            vars(callback).update(states[name])


def without_state(callbacks: Sequence[Any]) -> list[str]:
    """Return the names of the classes of callbacks that begin anew when a run is resumed."""
    return [
        type(callback).__name__
        for callback in callbacks
        if not (hasattr(callback, "get_state") and hasattr(callback, "set_state"))
        and not _keras_state(callback)
        and not isinstance(callback, _NOTHING_TO_KEEP)
    ]


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        seen[name] = seen.get(name, 0) + 1
        yield f"{name} {seen[name]}", callback


def _keras_state(callback: Any) -> tuple[str, ...]:
    return next((names for kind, names in _KERAS_STATE.items() if isinstance(callback, kind)), ())


def packed(states: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what `of_callbacks` returned as JSON data; arrays are put into `arrays`.

    Raises:
        TypeError: A state holds something else than numbers, texts, arrays and containers of these.
    """
    return {
        name: pack(value, arrays, f"What `get_state` of the callback {name.split()[0]} returns")
        for name, value in states.items()
    }


def pack(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """Return a value as JSON data that `unpack` rebuilds to the bit; arrays are put into `arrays`.

    Raises:
        TypeError: It is, or holds, an object of another kind; the sentence begins with `where`.
    """
    if (
        value is None
        or isinstance(value, (bool, str))
        or (type(value) in (int, float) and math.isfinite(value))
    ):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {
            "dict": [[pack(key, arrays, where), pack(each, arrays, where)] for key, each in value.items()]
        }
    if isinstance(value, (list, tuple)):
        items = [pack(each, arrays, where) for each in value]
        return items if isinstance(value, list) else {"tuple": items}
    if not isinstance(value, (np.ndarray, np.generic)) and not keras.ops.is_tensor(value):
        raise TypeError(
            f"{where} must hold numbers, texts, arrays, and lists, tuples and dicts of these; it holds "
            f"an object of the type {type(value).__name__}."
        )
    array = np.array(value if isinstance(value, (np.ndarray, np.generic)) else ops.convert_to_numpy(value))
    if array.dtype.hasobject:
        raise TypeError(f"{where} must hold arrays of numbers; it holds one of the dtype {array.dtype}.")
    arrays[name := f"array_{len(arrays)}"] = array
    return {"scalar" if isinstance(value, np.generic) else "array": name}


def unpack(data: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Rebuild what `pack` was given."""
    if isinstance(data, list):
        return [unpack(each, arrays) for each in data]
    if not isinstance(data, dict):
        return data
    (kind, value), *_ = data.items()
    if kind == "dict":
        return {unpack(key, arrays): unpack(each, arrays) for key, each in value}
    if kind == "tuple":
        return tuple(unpack(each, arrays) for each in value)
    if kind == "float":
        return float(value)
    return arrays[value] if kind == "array" else arrays[value][()]


# --- on the disk ------------------------------------------------------------------------------------------


class States:
    """The checkpoints of a run between steps: the last two, and the weights of the best epochs they name.

    A checkpoint is `step-N.npz`, and `step-N.json` that is written after it and holds its SHA-256: without
    the latter the former is none. `best-epoch-N.npz` holds weights that several checkpoints may name.

    Args:
        folder: The folder `checkpoint` of the run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._best: tuple[str, str] = "", ""  # name and SHA-256 of the best weights that were written last

    def write(self, state: State) -> None:
        """Write a checkpoint, and remove those that are no longer needed.

        Raises:
            OSError: The disk is full; the checkpoints before are as they were.
            TypeError: The state of a callback cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        callbacks = packed(state.callbacks, arrays)
        number = 1 + max((_number(path) for path in self.folder.glob("step-*")), default=0)
        sums = dict([self._save(f"step-{number}.npz", {**arrays, **state.variables})])
        if state.best_epoch:
            name = f"best-epoch-{state.best_epoch}.npz"
            if self._best[0] != name:
                self._best = self._save(name, {str(place): value for place, value in state.best.items()})
            sums |= dict([self._best])
        record = {
            "epoch": state.epoch, "step": state.step, "seconds": state.seconds,
            "logs": pack(state.logs, {}, "The logs"), "callbacks": callbacks,
            "best_epoch": state.best_epoch, "sha256": sums,
        }  # fmt: skip
        _files.write_json(self.folder / f"step-{number}.json", record, format=_FORMAT)
        self._remove_old()

    def _save(self, name: str, arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
        """Write a file of arrays; return its name and its SHA-256."""
        _files.write(self.folder / name, lambda file: write_arrays(file, arrays))
        return name, _files.sha256(self.folder / name)

    def _remove_old(self) -> None:
        """Remove what none of the last checkpoints names."""
        records = self._records()
        needed = {path.name for path in records[:_KEPT]}
        for path in records[:_KEPT]:
            try:
                needed |= set(_files.read_json(path, newest_format=_FORMAT)["sha256"])
            except (OSError, ValueError, KeyError):
                return  # a damaged one: which weights it needs is not known
        self._remove_all_but(needed)

    def _remove_all_but(self, needed: set[str]) -> None:
        for pattern in _FILES:
            for path in self.folder.glob(pattern):
                if path.name not in needed:
                    path.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        """Return the records of the checkpoints, the newest first."""
        return sorted(self.folder.glob("step-*.json"), key=_number, reverse=True)

    def newest(self) -> State | None:
        """Return the newest whole checkpoint, and remove those after it; None where there is none.

        Warns:
            RuntimeWarning: A newer one is damaged; the sentence names the file.
        """
        for path in self._records():
            try:
                state = self._read(path)
                self._remove_old()
                return state
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = (
                    str(error) if str(path.parent) in str(error) else f"{str(path)!r} is damaged ({error})."
                )
                warnings.warn(
                    f"{problem} The checkpoint before it is used; where there is none, the run begins anew.",
                    RuntimeWarning,
                    stacklevel=3,
                )
                path.unlink(missing_ok=True)
        self._remove_all_but(set())
        return None

    def _read(self, path: Path) -> State:
        record = _files.read_json(path, newest_format=_FORMAT, checked_from=_FORMAT)
        for name, digest in record["sha256"].items():
            part = self.folder / name
            if not part.is_file() or _files.sha256(part) != digest:
                raise ValueError(f"{str(part)!r} is damaged: it does not fit the checksum in {path.name}.")
        arrays = read_arrays(path.with_suffix(".npz"))
        own = {name for name in arrays if re.match(r"(model|optimizer|metrics)_\d+$", name)}
        best: dict[int, np.ndarray] = {}
        if epoch := record["best_epoch"]:
            found = read_arrays(self.folder / f"best-epoch-{epoch}.npz")
            best = {int(place): value for place, value in found.items()}
        return State(
            record["epoch"], record["step"], float(record["seconds"]), unpack(record["logs"], {}),
            {name: unpack(value, arrays) for name, value in record["callbacks"].items()},
            {name: arrays[name] for name in arrays if name in own}, epoch, best,
        )  # fmt: skip

    def remove(self) -> None:
        """Remove all that only a run that goes on needs."""
        self._remove_all_but(set())
        (self.folder / "rows.npz").unlink(missing_ok=True)


def _number(path: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", path.stem)
    return int(found[1]) if found else 0
