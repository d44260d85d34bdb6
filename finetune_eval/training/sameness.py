"""Whether what is at hand is what a run began with: settings, rows, model, callbacks, versions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from finetune_eval import _files, _text
from finetune_eval.training.callbacks import StepProgress
from finetune_eval.training.environment import environment, weights_hash
from finetune_eval.training.rows import digest
from finetune_eval.training.states import without_state


def names_of(callbacks: Sequence[Any]) -> list[str]:
    """Return the classes of the callbacks of a run; those of the command line are no part of it."""
    return [type(callback).__name__ for callback in callbacks if not isinstance(callback, StepProgress)]


def built(model: Any) -> dict[str, Any]:
    """Return, for the manifest, what a training depends on beside the settings and the model's weights."""
    layers = enumerate(model.backbone.layers)
    return {
        "labels": list(model.labels),
        "task": model.task,
        "pooling": model.pooling,
        "dropout": model.dropout,
        "sequence_length": getattr(model.preprocessor, "sequence_length", None),
        "truncation_side": getattr(model.preprocessor, "truncation_side", None),
        "columns": None if model.columns is None else model.columns.config(),
        "frozen layers": [
            place
            for place, layer in layers
            if layer.weights and not (layer.trainable or layer is model._unused)
        ],
    }


def begun(path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run noted for who resumes it.

    Raises:
        ValueError: The run cannot go on; the sentence says why.
    """
    if manifest.get("status") == "diverged":
        raise ValueError(
            f"{path!r} holds a run that diverged: it would diverge again. Train anew, at a lower rate."
        )
    if "resume" not in manifest:
        raise ValueError(
            f"{path!r} holds a run that cannot be resumed: it ended before its first step, or an older "
            "version began it. Remove the folder, and train anew."
        )
    return dict(manifest["resume"])


def check_same(
    manifest: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    rows: Mapping[str, np.ndarray],
    model: Any,
    callbacks: Sequence[Any],
    distribution: str | None,
) -> None:
    """Refuse to go on with another training than the one that began; warn where the bits may differ.

    Raises:
        ValueError: A setting, the rows, the model, the callbacks or the backend are others.
    """
    known = manifest["resume"]
    asked = _files.to_json(settings)
    for name, value in manifest["settings"].items():
        if name in asked and asked[name] != value:
            raise ValueError(
                f"`{name}` was {value!r} when the run began, and is {asked[name]!r} now; pass what it was, "
                "or another `run_dir`."
            )
    backend = manifest["environment"]["backend"]
    if backend != keras.backend.backend():
        raise ValueError(
            f"The run began on the backend {backend!r}; set KERAS_BACKEND={backend} to go on with it."
        )
    if digest(rows) != known["rows"]:
        raise ValueError(
            "`x`, `y`, `validation_data` or `sample_weight` are not those that the run began with; pass the "
            "same, in the same order, or another `run_dir`."
        )
    if weights_hash(model) != known["weights"]:
        raise ValueError(
            "`model` has other weights than the one that the run began with. Build it as it was built then "
            "(the same backbone, labels and seed), or call `finetune_eval.resume(run_dir)`, which loads it."
        )
    now = _files.to_json(built(model))
    for name, value in known.get("built", {}).items():
        if now[name] != value:
            raise ValueError(
                f"`model` had the {name.replace('_', ' ')} {value!r} when the run began, and has "
                f"{now[name]!r} now. Build it as it was built then, or call "
                "`finetune_eval.resume(run_dir)`, which loads it."
            )
    _check_callbacks(known["callbacks"], callbacks)
    differences = _differences(manifest["environment"], {**environment(), "distribution": distribution})
    if differences:
        warnings.warn(
            f"The run began elsewhere: {differences}. Its last bits may be others than without a break.",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_callbacks(before: list[str], callbacks: Sequence[Any]) -> None:
    now = names_of(callbacks)
    if now != before:
        raise ValueError(
            f"`callbacks` had {_listed(before)} when the run began, and {'has' if len(now) < 2 else 'have'} "
            f"{_listed(now)} now; pass callbacks of the same classes, in the same order."
        )
    if anew := without_state([each for each in callbacks if not isinstance(each, StepProgress)]):
        warnings.warn(
            f"{_listed(anew)} in `callbacks` has no `get_state` and `set_state`, and begins anew.",
            RuntimeWarning,
            stacklevel=5,
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what of the versions and the hardware was different, such as "keras 3.14.0, now 3.15.1"."""
    flat = [{**environment, **environment.get("packages", {})} for environment in (before, now)]
    names = [name for name in flat[1] if name != "packages" and flat[0].get(name) != flat[1][name]]
    return (
        _text.listed([f"{name} {flat[0].get(name)}, now {flat[1][name]}" for name in names]) if names else ""
    )
