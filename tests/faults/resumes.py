"""kill -9 at random moments of a training, which is then resumed and compared with one without a break.

On JAX: KERAS_BACKEND=jax python tests/faults/faults.py resumes
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import conftest as tiny
import kills
from common import Tally

from finetune_eval import TrainingTrace
from finetune_eval.runs import Run

TEXTS, SENTIMENTS = list(tiny.TEXTS) * 4, list(tiny.SENTIMENTS) * 4
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"early_stopping": 2, "epochs": 5},
    "head, averaged, accumulated": {"strategy": "head", "average_last": 0.5, "gradient_accumulation": 2},
    "head then full, calibrated": {"strategy": "head_then_full", "calibrate": True},
    "gradual, exponential mean": {"strategy": "gradual", "ema": 0.9, "validation_data": None},
    "careful": {"recipe": "careful"},
    "LoRA on a BERT with dropout": {"strategy": "lora", "validation_data": (TEXTS[:8], SENTIMENTS[:8])},
    "a BERT built with LoRA's adapters": {"validation_data": (TEXTS[:8], SENTIMENTS[:8])},
}


def train(name: str, folder: Path) -> None:
    """Train by the settings of a name, with a checkpoint after every fifth step."""
    from finetune_eval import build_model, fine_tune

    model, (x, y) = tiny.numeric_classifier(), tiny.numeric_rows(96)
    if "LoRA" in name:
        backbone, preprocessor = tiny.tiny_bert(layers=1, dropout=0.2)
        rank = 2 if "built" in name else None
        model = build_model(backbone, tiny.LABELS, preprocessor=preprocessor, lora_rank=rank, seed=0)
        x, y = TEXTS, SENTIMENTS
    settings = {
        "validation_data": tiny.numeric_rows(80, seed=1),
        "epochs": 3,
        "batch_size": 8,
        **SETTINGS[name],
    }
    fine_tune(model, x, y, learning_rate=0.01, checkpoint_every=5, verbose=False, run_dir=folder, **settings)


def outcome(folder: Path) -> tuple[Any, ...]:
    """Return what a run gave, but for the time it took: the bits of its weights, and its epochs."""
    from finetune_eval import load_model

    trace = TrainingTrace.load(folder / "trace.jsonl")
    model = load_model(folder)
    epochs = [(each.metrics, each.learning_rate, each.observation) for each in trace.epochs]
    return kills.digest(model), model.temperature, epochs, trace.best_epoch


@functools.cache
def whole(name: str) -> tuple[Any, ...]:
    """Return the outcome of the training without a break."""
    with tempfile.TemporaryDirectory() as temporary:
        train(name, Path(temporary) / "run")
        return outcome(Path(temporary) / "run")


def child(name: str, folder: Path) -> Iterator[None]:
    import finetune_eval.models.build
    import finetune_eval.training.fine_tune  # noqa: F401

    yield
    train(name, folder / "run")


def check(name: str, folder: Path, said: list[str]) -> str:
    """Resume what is left, and compare."""
    from finetune_eval import resume

    run = Run(folder / "run")
    if not run.manifest.exists() or "resume" not in run.read_manifest():
        return "" if run.weights is None else "a training that had begun cannot be resumed"
    resume(run.path, verbose=False)
    return "" if outcome(run.path) == whole(name) else "other weights or epochs than without a break"


def resumes(scale: float) -> Iterator[Tally]:
    """Kill trainings of every strategy, and resume them."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    table: dict[str, tuple[Callable, Callable, int]] = {
        f"`fine_tune`, then `resume`: {name}, on {backend}": (
            functools.partial(child, name),
            functools.partial(check, name),
            20,
        )
        for name in SETTINGS
    }
    yield from kills.kills(scale, table)
