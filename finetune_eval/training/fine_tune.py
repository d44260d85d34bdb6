"""fine_tune: check, compile, fit, keep the best epoch, and leave a run folder that says how."""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _text
from finetune_eval.data.ledger import rows_hash
from finetune_eval.data.splits import Rows
from finetune_eval.models import lora
from finetune_eval.models import precision as precisions
from finetune_eval.models.batching import Batches
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.inputs import class_weights, read
from finetune_eval.models.layers import LOSSES
from finetune_eval.models.pipelines import is_pipeline
from finetune_eval.models.steps import lost, planned, variables_kept
from finetune_eval.runs import Run, claimed
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training import schedules, strategies
from finetune_eval.training.averages import Averages
from finetune_eval.training.callbacks import (
    ClassificationMetrics,
    EpochTrace,
    StopOnDivergence,
    usable,
)
from finetune_eval.training.checkpoints import BestEpoch, Checkpoint
from finetune_eval.training.environment import environment, weights_hash
from finetune_eval.training.learning import LearningCheck
from finetune_eval.training.optimizers import fine_tuning_optimizer, used_rows
from finetune_eval.training.recipe import Recipe


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
    schedule: str = "cosine",
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
    strategy: str = "full",
    lora_rank: int | None = None,
    gradient_accumulation: int = 1,
    average_last: float = 0.0,
    ema: float | None = None,
    class_weight: dict[Any, float] | str | None = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    loss: str = "cross_entropy",
    early_stopping: int | None = None,
    monitor: str | None = None,
    calibrate: bool = False,
    threshold_for: str | None = None,
    abstain_for: str | None = None,
    precision: str = "auto",
    seed: int = 0,
    callbacks: Any = None,
    run_dir: str | os.PathLike[str] | Run | None = None,
    verbose: bool = True,
) -> FineTuneResult:
    """Fine-tune a classifier that `build_model` made; its weights change in place.

    Rows are tokenised once, batched by length and shuffled anew in every epoch. With validation data, the
    weights of the best epoch are restored at the end. Frozen layers at the bottom of the model
    (`build_model(freeze=...)`, or the strategy "head") are run without dropout, and once: later epochs cost
    what is above them.

    Args:
        model: From `build_model` or `load_model`.
        x: (n,) strings, or (n, columns) numbers for a backbone that takes numbers.
        y: (n,) class indices or class names, or (n, K) one-hot rows; of a multilabel model (n, K) zeros and
            ones.
        validation_data: `(x, y)` that chooses the best epoch, or `(x, y, weights)` where its rows count by
            their weights. Not the test set: what has chosen cannot judge.
        epochs: How often to go through the rows.
        batch_size: Rows a step. Long texts are computed in parts, so that memory grows little with it.
        learning_rate: The highest rate; None for 1e-4 (under 50 M parameters) or 3e-5, and 1e-2 where the
            head alone is trained.
        schedule: How the rate goes after the warm-up: it falls to 0, "cosine" or "linear", or is "constant".
        warmup: The share of the steps in which the rate rises from 0; 0 for none.
        weight_decay: Decoupled decay, of matrices only: not of biases, normalisations and embeddings.
        layer_decay: What the rate of a layer is multiplied by for each layer above it, the head included;
            1 for the same rate everywhere. The embeddings are the lowest layer.
        strategy: What is trained, in this call: "full", all that is trainable; "head", the head alone;
            "head_then_full", the same as "full" from a head that a logistic regression on the backbone's
            features begins; "gradual", the head alone in the first epoch, and from the top down everything
            by the last; "lora", adapters of the queries and values, and the head (`model.merge_lora`).
        lora_rank: The rank of the adapters of the strategy "lora"; None for 8.
        gradient_accumulation: Number of batches whose gradients make one step. The step is that of one batch
            of all their rows, in less memory; rates and averages count such steps.
        average_last: The share of the steps, the last ones, whose mean weights are what is validated and
            kept; 0 for the weights of the last step.
        ema: The factor of the exponential mean of the weights to keep instead, such as 0.99; None for none.
        class_weight: Weights by class name or index, or "balanced": n / (K * rows of the class).
        sample_weight: (n,) weights; multiplied with the class weights where both are given.
        label_smoothing: Share of each label spread over all classes, in [0, 1).
        loss: "cross_entropy", or "focal", in which rows that are well known count less. The losses of the
            trace are of this kind; `evaluate` tells the cross-entropy.
        early_stopping: Stop after so many epochs without a better one; needs validation data.
        monitor: The metric that chooses the best epoch; None for "val_loss". A validation metric.
        calibrate: Fit the temperature on the validation rows at the end, and ship it with the model.
        threshold_for: Choose a threshold on the validation rows at the end for this goal ("f1",
            "recall>=0.9", ...), and ship it with the model; two classes.
        abstain_for: Likewise, choose below which confidence answers are withheld ("error<=0.05@95%", ...).
        precision: "float32", "bfloat16" (of the matrix products of a BERT's layers, while they are trained),
            or "auto": bfloat16 where the processor has it. Validation rows are judged in float32.
        seed: Of the shuffling and the dropout. The same seed on the same machine gives the same trace.
        callbacks: More Keras callbacks, one or a list; they see `val_f1` and the rest in their logs. A
            callback that sets the learning rate needs `schedule="constant", warmup=0`; BackupAndRestore is
            refused.
        run_dir: A new folder to write the run to (`finetune_eval.runs` says what is in it), or a `Run` that
            is owned already; None writes nothing. While training, the weights of the best epoch so far are
            there too, so that a process that is killed loses none of them.
        verbose: Print the table as the epochs end.

    Returns:
        The model, the trace of its epochs, and the manifest.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which. Nothing was trained.
        FileExistsError: `run_dir` holds a run already; the sentence says what became of it.
        OSError: `run_dir` cannot be written, or its disk has no room. Nothing was trained.
        FloatingPointError: The loss became NaN; the weights are those from before this call.

    Warns:
        RuntimeWarning: The training is done, and something that belongs to it could not be: a file could not
            be written, or what decides not be chosen. The model is returned all the same.

    Example:
        >>> run = fine_tune(model, texts, labels, epochs=3)  # doctest: +SKIP
        >>> print(run.trace)  # doctest: +SKIP
    """
    if not isinstance(model, Classifier):
        raise TypeError(
            f"`model` must come from `build_model`; got {type(model).__name__}. "
            "Wrap any keras.Model that gives features: `build_model(model, labels=[…])`."
        )
    if is_pipeline(x):
        raise TypeError(
            f"`x` must be rows (list, array or Series), with their labels in `y`; got {type(x).__name__}. "
            "Train on a tf.data pipeline with `model.fit`."
        )
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule,
        warmup=warmup, weight_decay=weight_decay, layer_decay=layer_decay, strategy=strategy,
        lora_rank=lora_rank, gradient_accumulation=gradient_accumulation, average_last=average_last, ema=ema,
        class_weight=class_weight, label_smoothing=label_smoothing, loss=loss,
        early_stopping=early_stopping, monitor=monitor, calibrate=calibrate, threshold_for=threshold_for,
        abstain_for=abstain_for, precision=precision, seed=seed,
    )  # fmt: skip
    recipe.check_fit(len(model.labels), validated=validation_data is not None, multilabel=model.multilabel)
    used_precision = precisions.resolve(precision, model.backbone)
    more = usable(callbacks, may_set_rate=not recipe.sets_own_rate)
    _check_dtypes(model)
    strategies.check(model, recipe)
    if recipe.learning_rate is None:
        recipe = dataclasses.replace(recipe, learning_rate=strategies.default_rate(model, recipe))
    with claimed(run_dir) as run:
        data = _read(model, x, y, validation_data, sample_weight, recipe)
        training = _Training(model, recipe, used_precision, data, run, _text.show if verbose else None)
        training.begin()
        training.go(more)
        return FineTuneResult(model, training.trace, training.manifest, None if run is None else run.path)


def _check_dtypes(model: Classifier) -> None:
    """Refuse weights that cannot hold what a step adds to them."""
    narrow = {str(variable.dtype) for variable in model.trainable_variables} & {"float16", "bfloat16"}
    if narrow:
        dtype = narrow.pop()
        raise ValueError(
            f"`model` has {dtype} weights, which lose the small steps of fine-tuning to rounding; build it "
            f"under the dtype policy 'float32' or 'mixed_{dtype}' (`keras.config.set_dtype_policy`)."
        )


# --- the rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """Checked rows: as batches, and as they came."""

    train: Batches
    x: np.ndarray
    y: np.ndarray
    class_weight: Any  # by name, or "balanced"
    validation: Batches | None
    val_x: np.ndarray | None
    val_y: np.ndarray | None
    val_weighted: bool = False

    def record(self) -> dict[str, Any]:
        """Return counts and hashes for the manifest."""
        held_out = None
        if self.val_x is not None:
            held_out = {"rows": len(self.val_x), "hash": rows_hash(self.val_x, self.val_y)}
        return {
            "train": {"rows": len(self.x), "hash": rows_hash(self.x, self.y)},
            "validation": held_out,
        }


def _read(
    model: Classifier, x: Any, y: Any, validation_data: Any, sample_weight: Any, recipe: Recipe
) -> _Data:
    """Check rows and labels, and tokenise the rows."""
    x, y, weights = _rows_of(model, x, y, sample_weight, recipe.class_weight)
    weighting = recipe.class_weight
    if weighting is not None and not isinstance(weighting, str):
        weighting = dict(zip(model.labels, class_weights(weighting, model.labels, y).tolist(), strict=True))
    size = recipe.batch_size * recipe.gradient_accumulation
    train = model.batches(x, y, weights, batch_size=size, seed=recipe.seed)
    if validation_data is None:
        return _Data(train, x, y, weighting, None, None, None)
    parts = tuple(validation_data) if isinstance(validation_data, (tuple, list, Rows)) else ()
    if len(parts) not in (2, 3):
        raise TypeError(
            "`validation_data` must be a pair `(x, y)`, such as `dataset.validation`, or `(x, y, weights)`."
        )
    val_x, val_y, val_weight = _rows_of(model, *parts, name="validation x")
    if val_weight is not None:
        if recipe.chooses:
            raise ValueError(
                "`calibrate`, `threshold_for` and `abstain_for` do not take weights; pass "
                "`validation_data=(x, y)`, or leave them out."
            )
        # Their mean is 1, for Keras divides a weighted loss by the number of rows.
        val_weight = val_weight / val_weight.mean(dtype=np.float64)
    recipe.check_rows(val_y, model.labels)
    size = 2 * recipe.batch_size
    validation = model.batches(val_x, val_y, val_weight, batch_size=size, name="validation x")
    return _Data(train, x, y, weighting, validation, val_x, val_y, val_weight is not None)


def _rows_of(
    model: Classifier, x: Any, y: Any, *weights: Any, name: str = "x"
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return rows, the places of their classes, and their weights."""
    if y is None:
        raise ValueError(
            f"`{name.replace('x', 'y')}` is None; labels are needed: one class index or class name for each "
            "row."
        )
    rows, labels, by_row = read(model, x, y, *weights, name=name)
    if isinstance(rows, dict):
        raise TypeError(
            f"`{name}` must be texts, not tokens; train on a dictionary of tokens with `model.fit`."
        )
    return rows, model.label_indices(labels), by_row


# --- the training -----------------------------------------------------------------------------------------


@dataclass
class _Training:
    """One training: its parts, and what is known of it so far."""

    model: Classifier
    recipe: Recipe
    precision: str
    data: _Data
    run: Run | None
    show: Any
    manifest: dict[str, Any] = field(default_factory=dict)
    trace: TrainingTrace = field(default_factory=TrainingTrace)

    def begin(self) -> None:
        """Write what is known before the first step; what cannot be written is found out now."""
        model, run = self.model, self.run
        self.manifest = {
            "settings": {
                **self.recipe.record(), "class_weight": self.data.class_weight,
                "optimizer": f"AdamW, {schedules.in_words(self.recipe.schedule, self.recipe.warmup)}",
            },
            "precision": {"asked": self.recipe.precision, "used": self.precision},
            "model": {
                "labels": list(model.labels), "backbone_parameters": int(model.backbone.count_params()),
                "pooling": model.pooling, **_source(model),
                "weights_hash": None if run is None else weights_hash(model),
            },
            "rows": self.data.record(),
            "environment": environment(),
            "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "status": "running",
        }  # fmt: skip
        answer = model.temperature, model.threshold, model.abstention
        model.temperature, model.threshold, model.abstention = 1.0, None, None  # of weights that will change
        model.compile()  # no state of an optimizer is saved
        if run is None:
            return
        try:
            run.check_room(sum(weight.numpy().nbytes for weight in model.weights))
            run.write_manifest(self.manifest)
            if model.takes_text:
                saved = run.save_training_rows(self.data.x, self.data.y, model.labels)
                self.manifest["files"] = {run.train.name: saved}
                run.write_manifest(self.manifest)
            run.begin_checkpoint(model.save)
        except BaseException:
            model.temperature, model.threshold, model.abstention = answer
            run.abandon()
            raise

    def go(self, more: list[Any]) -> None:
        """Train, keep the best epoch, write the model, and only then try the rest."""
        model, data, recipe = self.model, self.data, self.recipe
        tracer = EpochTrace(
            rows=len(data.x), val_rows=None if data.val_x is None else len(data.val_x),
            path=None if self.run is None else self.run.trace, show=self.show,
            monitor=recipe.monitor if data.validation is not None else None, mode=recipe.mode,
        )  # fmt: skip
        guard, counts = StopOnDivergence(), ClassificationMetrics(weighted=data.val_weighted)
        best, kept = None, None
        if data.validation is not None:
            best = BestEpoch(recipe.monitor or "val_loss", mode=recipe.mode, patience=recipe.early_stopping)
        if self.run is not None:
            kept = Checkpoint(self.run.save_best, best)
        if recipe.strategy == "lora":
            lora.enable(model, recipe.adapter_rank, recipe.seed)
        assert recipe.learning_rate is not None
        learned = LearningCheck(counts, model.labels, data.validation, recipe.learning_rate, self.show)
        averages = Averages() if recipe.averaged_from(1) is not None else None
        before = model.get_weights()
        began = time.perf_counter()
        status = "interrupted"
        try:
            own = filter(None, (averages, counts, guard, tracer, learned, best, kept))
            with strategies.only_its_weights(model, recipe):
                self._fit([*own, *more], alone=not more)
            if best is not None:
                best.restore()  # last: a callback of the user's may have restored another epoch
            # The last step's loss was computed before its update: look at what that left.
            finite = all(np.isfinite(weight.numpy()).all() for weight in model.weights)
            status = "complete" if finite and not guard.diverged else "diverged"
        finally:
            counts.on_train_end()  # Keras does not call it when a callback, or a key, interrupts
            # The rate has run down to 0: the next user starts afresh, `evaluate` tells the plain loss without
            # label smoothing, and no optimizer state is saved.
            model.compile()
            if status == "interrupted" and best is not None:
                best.restore()
            broken = status == "diverged" or lost(model)
            if broken:
                model.set_weights(before)
            self.trace = tracer.trace
            model.moved = strategies.moved(model, before)
            self.manifest |= {
                "status": status, "epochs": len(self.trace.epochs),
                "seconds": round(time.perf_counter() - began, 3),
                "best_epoch": self.trace.best_epoch, "moved": dict(model.moved),
            }  # fmt: skip
            if learned.sentence is not None:
                self.manifest["did_not_learn"] = learned.sentence
            if kept is not None:
                kept.close()
            if status == "complete":
                self.manifest |= {"temperature": None, "threshold": None, "abstention": None}
            self._write(model=bool(self.trace.epochs) and not broken)
        if status == "diverged":
            raise FloatingPointError(
                f"The loss became NaN in epoch {guard.epoch}: training diverged, and the weights from "
                "before it are restored. "
                f"Lower `learning_rate` (it was {recipe.learning_rate:g})."
            )
        self._decide()

    def _fit(self, callbacks: list[Any], *, alone: bool) -> None:
        """Compile and fit; with `alone`, no callback of the user's wants to see every step."""
        model, recipe, train, validation = self.model, self.recipe, self.data.train, self.data.validation
        assert recipe.learning_rate is not None
        steps = len(train) * recipe.epochs
        if recipe.strategy == "head_then_full":
            strategies.start_head(model, train, recipe.seed)
        optimizer: Any = fine_tuning_optimizer(
            recipe.learning_rate, recipe.weight_decay, steps, schedule=recipe.schedule, warmup=recipe.warmup,
            used_rows=used_rows(model, train), rate_scales=strategies.rate_scales(model, recipe.layer_decay),
            first_steps=strategies.first_steps(model, recipe, len(train)),
            average_from=recipe.averaged_from(steps), ema=recipe.ema,
        )  # fmt: skip
        loss = LOSSES[model.task][recipe.loss]
        model.compile(optimizer=optimizer, loss=loss(label_smoothing=recipe.label_smoothing))
        # Variables made inside the first step would have TensorFlow trace that step a second time.
        optimizer.build(model.trainable_variables)
        _seed_dropout(model, recipe.seed)
        plan = planned(
            model, train, validation, epochs=recipe.epochs, precision=self.precision, calls_apart=not alone,
            parts=recipe.gradient_accumulation, show=self.show,
        )  # fmt: skip
        with model.computing(plan), variables_kept(model):
            keras.Model.fit(
                model, train.dataset(), validation_data=None if validation is None else validation.dataset(),
                epochs=recipe.epochs, verbose=0, shuffle=False,  # the batches are shuffled already
                callbacks=callbacks,
            )  # fmt: skip

    def _write(self, *, model: bool) -> None:
        """Write the model, then the manifest; a failure is a warning, for the weights are in memory."""
        run = self.run
        if run is None:
            return
        try:
            if model:
                run.save_model(self.model.save)
            run.write_manifest(self.manifest)
        except OSError as error:
            kept = " Its checkpoint has the weights of the best epoch." if run.weights is not None else ""
            warnings.warn(
                f"The run could not be written whole: {error} The model in memory is trained: save it "
                f"elsewhere with `model.save(path)`.{kept}",
                RuntimeWarning,
                stacklevel=4,
            )
        else:
            if model:
                run.end_checkpoint()

    def _decide(self) -> None:
        """Fit what turns logits into an answer on the validation rows; write the model once more with it."""
        model, recipe = self.model, self.recipe
        if not recipe.chooses:
            return
        rows = self.data.val_x, self.data.val_y
        try:
            if recipe.calibrate:
                self.manifest["temperature"] = model.calibrate(*rows)
            if recipe.threshold_for is not None:
                chosen = model.choose_threshold(*rows, goal=recipe.threshold_for)
                self.manifest["threshold"] = dataclasses.asdict(chosen)
            if recipe.abstain_for is not None:
                withheld = model.choose_abstention(*rows, goal=recipe.abstain_for)
                self.manifest["abstention"] = dataclasses.asdict(withheld)
        except ValueError as error:
            warnings.warn(
                f"The model is trained, but not all that was asked could be chosen for it: {error}",
                RuntimeWarning,
                stacklevel=4,
            )
        self._write(model=True)


def _source(model: Classifier) -> dict[str, Any]:
    """Return where the backbone came from; of a folder's path no more than its name, for runs are shared."""
    source = dict(getattr(model, "source", {}))
    if os.path.isabs(name := str(source.get("backbone"))):
        source["backbone"] = os.path.basename(name)
    return source


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
