"""fine_tune: check, compile, fit, keep the best epoch, and leave a run folder that says how."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks
from finetune_eval.data.ledger import rows_hash
from finetune_eval.models import frozen, micro_batches
from finetune_eval.models.batching import Batches
from finetune_eval.models.classifier import (
    Classifier,
    CrossEntropy,
    _class_weights,
    _is_pipeline,
    lost,
    variables_kept,
)
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training import precision as precisions
from finetune_eval.training.callbacks import BestEpoch, ClassificationMetrics, EpochTrace, StopOnDivergence
from finetune_eval.training.optimizers import fine_tuning_optimizer
from finetune_eval.training.run import RunFolder, environment

# Small models bear, and need, a higher rate. 1e-4 is what MiniLM (23 M parameters) learned best with in 3
# epochs (docs/performance.md); 3e-5 is in the middle of what Devlin et al. 2019 tried for BERT (110 M and
# up).
_SMALL_MODEL = 50_000_000
_RATE_SMALL, _RATE_LARGE = 1e-4, 3e-5
# A head alone starts from nothing and has nothing to forget: of 1e-3, 3e-3, 1e-2 and 3e-2 this gave MiniLM
# the lowest validation loss in 3 epochs of 1,000 Rotten Tomatoes rows (0.61, 0.55, 0.53, 0.57).
_RATE_HEAD = 1e-2
# Steps of a head alone take less than Keras takes to call for them: so many are run at a call. To trace that
# costs as much as it spares in 300 steps.
_STEPS_A_CALL, _WORTH_IT = 64, 500
_MONITORS = ("val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1")


@dataclass(frozen=True)
class FineTuneResult:
    """What `fine_tune` gives back.

    Attributes:
        model: The model that was passed in, its best epoch's weights restored.
        trace: Every epoch: print it.
        manifest: Settings, seeds, versions, hardware, precision, and hashes of the rows and the weights.
        run_dir: The run folder, or None.
    """

    model: Classifier
    trace: TrainingTrace
    manifest: dict[str, Any] = field(repr=False)
    run_dir: Path | None = None


def fine_tune(
    model: Classifier,
    x: Any,
    y: Any,
    *,
    validation_data: Any = None,
    epochs: int = 3,
    batch_size: int = 16,
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    class_weight: dict[Any, float] | str | None = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    early_stopping: int | None = None,
    monitor: str | None = None,
    calibrate: bool = False,
    threshold_for: str | None = None,
    precision: str = "auto",
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    run_dir: str | Path | None = None,
    verbose: bool = True,
) -> FineTuneResult:
    """Fine-tune a classifier that `build_model` made; its weights change in place.

    Rows are tokenised once, batched by length and shuffled anew in every epoch. The rate rises over the first
    tenth of the steps, then falls to 0. With validation data, the weights of the best epoch are restored at
    the end. Frozen layers at the bottom of the model (`build_model(freeze=...)`) are run without dropout, and
    once: later epochs cost what is above them.

    Args:
        model: From `build_model` or `load_model`.
        x: (n,) strings, or (n, columns) numbers for a backbone that takes numbers.
        y: (n,) class indices or class names, or (n, K) one-hot rows.
        validation_data: `(x, y)` that chooses the best epoch. Not the test set: what has chosen cannot judge.
        epochs: How often to go through the rows.
        batch_size: Rows a step. Long texts are computed in parts, so that memory grows little with it.
        learning_rate: The highest rate; None for 1e-4 (under 50 M parameters) or 3e-5, and 1e-2 where the
            whole backbone is frozen.
        weight_decay: Decoupled decay, of matrices only: not of biases, normalisations and embeddings.
        class_weight: Weights by class name or index, or "balanced": n / (K * rows of the class).
        sample_weight: (n,) weights; multiplied with the class weights where both are given.
        label_smoothing: Share of each label spread over all classes, in [0, 1).
        early_stopping: Stop after so many epochs without a better one; needs validation data.
        monitor: The metric that chooses the best epoch; None for "val_loss". A validation metric.
        calibrate: Fit the temperature on the validation rows at the end, and ship it with the model.
        threshold_for: Choose a threshold on the validation rows at the end for this goal ("f1",
            "recall>=0.9", ...), and ship it with the model; two classes.
        precision: "float32", "bfloat16" (of the matrix products of a BERT's layers, while they are trained),
            or "auto": bfloat16 where the processor has it. Validation rows are judged in float32.
        seed: Of the shuffling and the dropout. The same seed on the same machine gives the same trace.
        callbacks: More Keras callbacks; they see `val_f1` and the rest in their logs.
        run_dir: A new folder to write the run to; None writes nothing.
        verbose: Print the table as the epochs end.

    Returns:
        The model, the trace of its epochs, and the manifest.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which. Nothing was trained.
        FileExistsError: `run_dir` holds a run already.
        FloatingPointError: The loss became NaN; the weights are those from before this call.

    Example:
        >>> run = fine_tune(model, texts, labels, epochs=3)  # doctest: +SKIP
        >>> print(run.trace)  # doctest: +SKIP
    """
    if not isinstance(model, Classifier):
        raise TypeError(
            f"`model` must come from `build_model`; got {type(model).__name__}. "
            "Wrap any keras.Model that gives features: `build_model(model, labels=[…])`."
        )
    if _is_pipeline(x):
        raise TypeError(
            f"`x` must be rows (list, array or Series), with their labels in `y`; got {type(x).__name__}. "
            "Train on a tf.data pipeline with `model.fit`."
        )
    _checks.positive_int("epochs", epochs)
    _checks.positive_int("seed", seed, minimum=0)
    _checks.number("weight_decay", weight_decay, at_least=0, below=1)
    _checks.number("label_smoothing", label_smoothing, at_least=0, below=1)
    parameters = int(model.backbone.count_params())
    if learning_rate is None:
        learning_rate = _RATE_SMALL if parameters < _SMALL_MODEL else _RATE_LARGE
        if not model.backbone.trainable_variables:
            learning_rate = _RATE_HEAD
    _checks.number("learning_rate", learning_rate, above=0, at_most=1)
    if early_stopping is not None:
        _checks.positive_int("early_stopping", early_stopping)
    if validation_data is None and (early_stopping is not None or monitor is not None):
        raise ValueError("`early_stopping` and `monitor` need `validation_data=(x, y)` to measure on.")
    if validation_data is None and (calibrate or threshold_for is not None):
        raise ValueError("`calibrate` and `threshold_for` need `validation_data=(x, y)` to choose on.")
    if threshold_for is not None and len(model.labels) != 2:
        raise ValueError(f"`threshold_for` needs two classes; the model has {len(model.labels)}.")
    if monitor is not None:
        _checks.one_of("monitor", monitor, _MONITORS)
    mode = "min" if (monitor or "val_loss").endswith("loss") else "max"
    used_precision = precisions.resolve(precision, model.backbone)

    _checks.same_length("x", x, "y", y) if y is not None else _checks.label_indices("y", y, model.labels)
    indices = _checks.label_indices("y", y, model.labels)
    weights = _class_weights(class_weight, indices, model.labels, sample_weight)
    train = model.batches(x, indices, weights, batch_size=batch_size, seed=seed)
    validation = None
    if validation_data is not None:
        try:
            val_x, val_y = validation_data
        except (TypeError, ValueError):
            raise TypeError(
                "`validation_data` must be a pair `(x, y)`, such as `dataset.validation`."
            ) from None
        validation = model.batches(val_x, val_y, batch_size=2 * batch_size, name="validation x")

    folder = None if run_dir is None else RunFolder.create(run_dir)
    manifest = {
        "settings": {
            "epochs": epochs, "batch_size": batch_size, "seed": seed,
            "learning_rate": learning_rate, "weight_decay": weight_decay,
            "class_weight": class_weight, "label_smoothing": label_smoothing,
            "early_stopping": early_stopping, "monitor": monitor,
            "optimizer": "AdamW, warm-up 10 %, then cosine decay to 0",
        },
        "precision": {"asked": precision, "used": used_precision},
        "model": {
            "labels": list(model.labels), "backbone_parameters": parameters, "pooling": model.pooling,
            **getattr(model, "source", {}),
        },
        "rows": {
            "train": {"rows": len(train.rows), "hash": rows_hash(x, indices)},
            "validation": None if validation is None else {
                "rows": len(validation.rows), "hash": rows_hash(val_x, validation.y),
            },
        },
        "environment": environment(),
        "status": "running",
    }  # fmt: skip
    if folder is not None:
        folder.write_manifest(manifest)

    model.temperature, model.threshold = 1.0, None  # of the weights that are about to change
    model.compile(
        optimizer=fine_tuning_optimizer(
            learning_rate, weight_decay, steps=len(train) * epochs, used_rows=_used_rows(model, train)
        ),
        loss=CrossEntropy(label_smoothing),
    )
    optimizer: Any = model.optimizer
    # Variables made inside the first step would have TensorFlow trace that step a second time.
    optimizer.build(model.trainable_variables)
    _seed_dropout(model, seed)
    tracer = EpochTrace(
        rows=len(train.rows), val_rows=None if validation is None else len(validation.rows),
        path=None if folder is None else folder.trace, show=print if verbose else None,
        monitor=monitor if validation is not None else None, mode=mode,
    )  # fmt: skip
    guard, counts = StopOnDivergence(), ClassificationMetrics()
    best = (
        None if validation is None else BestEpoch(monitor or "val_loss", mode=mode, patience=early_stopping)
    )
    before = model.get_weights()
    began = time.perf_counter()
    status = "interrupted"
    try:
        with precisions.matmul_precision(used_precision), variables_kept(model):
            _compute_frozen(model, train, validation, show=print if verbose else None)
            model.micro_batches = micro_batches.how_many(model, train)
            head_alone = train.rows.features.keys() == {"frozen"}  # what the whole backbone gave, kept
            if head_alone and not callbacks and len(train) * epochs >= _WORTH_IT:
                model.steps_per_execution = _STEPS_A_CALL
            keras.Model.fit(
                model, train.dataset(), validation_data=None if validation is None else validation.dataset(),
                epochs=epochs, verbose=0, shuffle=False,  # the batches are shuffled already
                callbacks=[counts, guard, tracer, *([best] if best else []), *callbacks],
            )  # fmt: skip
        # The last step's loss was computed before its update: look at what that left.
        finite = all(np.isfinite(weight.numpy()).all() for weight in model.weights)
        status = "complete" if finite and not guard.diverged else "diverged"
    finally:
        counts.on_train_end()  # Keras does not call it when a callback, or a key, interrupts
        # The graphs were made for this precision, and the rate has run down to 0: the next user starts
        # afresh, `evaluate` tells the plain loss without label smoothing, and no optimizer state is saved.
        model.compile()
        model.cut, model._forward, model.micro_batches = None, None, 1
        if status == "diverged":
            model.set_weights(before)
        elif status == "interrupted" and best is not None:
            best.restore()
        cut_short = lost(model)
        if cut_short:
            model.set_weights(before)
        trace = tracer.trace
        model.moved = _moved(model, before)
        manifest |= {
            "status": status,
            "seconds": round(time.perf_counter() - began, 3),
            "best_epoch": trace.best_epoch,
            "moved": dict(model.moved),
        }
        if status == "complete":
            manifest |= _decision(model, calibrate, threshold_for, validation_data)
        if folder is not None:
            if model.takes_text:
                folder.save_training_rows(x, np.asarray(model.labels)[indices])
            if trace.epochs and status != "diverged" and not cut_short:
                folder.save_model(model)
            folder.write_manifest(manifest)
    if status == "diverged":
        raise FloatingPointError(
            f"The loss became NaN in epoch {guard.epoch}: training diverged, and the weights from "
            "before it are restored. "
            f"Lower `learning_rate` (it was {learning_rate:g})."
        )
    return FineTuneResult(model, trace, manifest, None if folder is None else folder.path)


def _compute_frozen(model: Classifier, train: Batches, validation: Batches | None, *, show: Any) -> None:
    """Compute what the frozen layers give for all rows, once, and have the model train the rest."""
    model.cut = frozen.cut(model)
    if model.cut is None:
        return
    began, rows = time.perf_counter(), 0
    for part in (train, validation):
        if part is not None:
            rows += frozen.compute(part, model.cut)
    if show is not None and rows:
        show(f"frozen layers: computed once for {rows:,} rows in {time.perf_counter() - began:.1f} s")


def _used_rows(model: Classifier, train: Batches) -> dict[str, np.ndarray]:
    """Return, for `AdamW`, the tokens in the training rows; nothing where that would spare little."""
    table = getattr(getattr(model.backbone, "token_embedding", None), "embeddings", None)
    tokens = train.rows.features.get("token_ids")
    if tokens is None or not isinstance(table, keras.Variable) or not table.trainable or table.regularizer:
        return {}
    used = np.union1d(tokens, [0])  # batches are padded with 0
    return {table.path: used} if len(used) < table.shape[0] / 2 else {}


def _decision(
    model: Classifier, calibrate: bool, threshold_for: str | None, validation_data: Any
) -> dict[str, Any]:
    """Fit what turns logits into an answer, on the validation rows alone; return it for the manifest."""
    temperature = model.calibrate(*validation_data) if calibrate else None
    threshold = model.choose_threshold(*validation_data, goal=threshold_for) if threshold_for else None
    return {
        "temperature": temperature,
        "threshold": None if threshold is None else dataclasses.asdict(threshold),
    }


def _moved(model: Classifier, before: list[np.ndarray]) -> dict[str, float]:
    """Return |after - before| / |before| over the weights of each layer of the backbone."""
    old = {id(variable): value for variable, value in zip(model.weights, before, strict=True)}
    moved = {}
    for layer in model.backbone.layers:
        squares = np.zeros(2)
        for variable in layer.weights:
            was = old[id(variable)].ravel()
            step = variable.numpy().ravel() - was
            squares += [np.vdot(step, step), np.vdot(was, was)]
        if squares[1] > 0:
            moved[layer.name] = float(np.sqrt(squares[0] / squares[1]))
    return moved


def _seed_dropout(model: Classifier, seed: int) -> None:
    """Start every dropout, and any other layer that draws, at a state that depends on `seed` alone."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    ]
    for index, layer in enumerate(layers):
        layer.seed_generator.state.assign(np.array([seed, index], dtype="uint32"))


__all__ = ["FineTuneResult", "fine_tune"]
