"""fine_tune: check, compile, fit, keep the best epoch, and leave a run folder that says how."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks, _text
from finetune_eval.models import lora
from finetune_eval.models import precision as precisions
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.layers import LOSSES
from finetune_eval.models.steps import lost, planned, variables_kept
from finetune_eval.runs import Run, claimed
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training import schedules, strategies
from finetune_eval.training.callbacks import usable
from finetune_eval.training.divergence import is_finite
from finetune_eval.training.environment import environment, source_of, weights_hash
from finetune_eval.training.optimizers import fine_tuning_optimizer, used_rows
from finetune_eval.training.parts import Parts
from finetune_eval.training.recipe import Recipe
from finetune_eval.training.result import FineTuneResult, finished
from finetune_eval.training.rows import Data, can_be_stored, digest, given_rows, read_rows
from finetune_eval.training.sameness import begun, built, can_go_on, check_same, names_of
from finetune_eval.training.seeding import check_deterministic, deterministic_operations, seed_dropout
from finetune_eval.training.states import State, States, build_metrics
from finetune_eval.training.step_checkpoints import parse_every


def fine_tune(
    model: Classifier,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float | None = None,
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
    deterministic: bool = False,
    seed: int = 0,
    callbacks: Any = None,
    run_dir: str | os.PathLike[str] | Run | None = None,
    checkpoint_every: int | str | None = "30s",
    resume: bool = False,
    verbose: bool = True,
) -> FineTuneResult:
    """Fine-tune a classifier that `build_model` made; its weights change in place.

    Rows are tokenised once, batched by length and shuffled anew in every epoch. With validation data, the
    weights of the best epoch are restored at the end. Frozen layers at the bottom of the model
    (`build_model(freeze=...)`, or the strategy "head") are run without dropout, and once: later epochs cost
    what is above them.

    Args:
        model: From `build_model` or `load_model`.
        x: (n,) strings, or (n, columns) numbers for a backbone that takes numbers; or a `tf.data` or
            `PyDataset` pipeline of batches `(x, y)` or `(x, y, weights)`, which is read once and whole.
        y: (n,) class indices or class names, or (n, K) one-hot rows; of a multilabel model (n, K) zeros and
            ones. None for a pipeline.
        validation_data: `(x, y)` that chooses the best epoch, or `(x, y, weights)` where its rows count by
            their weights; or a pipeline. Not the test set: what has chosen cannot judge.
        validation_split: Instead of `validation_data` the share of the rows to hold out for it, drawn by
            `seed`: every class has its share, and rows of the same text stay together.
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
        deterministic: Use operations alone that give the same bits each time, on a GPU too, where they are
            slower; on a CPU the others do so as well.
        seed: Of the shuffling and the dropout. The same seed on the same machine gives the same trace.
        callbacks: More Keras callbacks, one or a list; they see `val_f1` and the rest in their logs. A
            callback that sets the learning rate needs `schedule="constant", warmup=0`; BackupAndRestore is
            refused.
        run_dir: A new folder to write the run to (`finetune_eval.runs` says what is in it), or a `Run` that
            is owned already; None writes nothing. While training, the weights of the best epoch so far are
            there too, so that a process that is killed loses none of them.
        checkpoint_every: How often a run folder gets a checkpoint from which `resume` goes on: a number of
            steps, or a time such as "30s" or "10min", which is stretched where a checkpoint takes more than
            a fiftieth of it; None for none.
        resume: Go on with the run in `run_dir` where one was killed or interrupted there. Everything else has
            to be as it was then. Where there is no run, one begins.
        verbose: Print the table as the epochs end.

    Returns:
        The model, the trace of its epochs, and the manifest.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which. Nothing was trained.
        FileExistsError: `run_dir` holds a run already; the sentence says what became of it.
        OSError: `run_dir` cannot be written, or its disk has no room. Nothing was trained.
        FloatingPointError: The loss became NaN or infinite, or exploded. The sentence says at which step and
            rate, and on which rows; the weights are those of the best epoch so far, without validation rows
            of the last whole one, and from before this call where no epoch had ended.

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
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule,
        warmup=warmup, weight_decay=weight_decay, layer_decay=layer_decay, strategy=strategy,
        lora_rank=lora_rank, gradient_accumulation=gradient_accumulation, average_last=average_last, ema=ema,
        class_weight=class_weight, label_smoothing=label_smoothing, loss=loss,
        early_stopping=early_stopping,
        monitor=monitor, calibrate=calibrate, threshold_for=threshold_for,
        abstain_for=abstain_for, precision=precision,
        deterministic=deterministic, seed=seed,
    )  # fmt: skip
    recipe.check_fit(
        len(model.labels),
        validated=validation_data is not None or validation_split is not None,
        multilabel=model.multilabel,
    )
    if recipe.deterministic:
        check_deterministic()
    used_precision = precisions.resolve(precision, model.backbone)
    parse_every(checkpoint_every)
    if _checks.flag("resume", resume) and run_dir is None:
        raise ValueError("`resume` needs `run_dir`, the folder of the run that goes on.")
    more = usable(callbacks, may_set_rate=not recipe.sets_own_rate)
    strategies.check(model, recipe)
    if recipe.learning_rate is None:
        recipe = dataclasses.replace(recipe, learning_rate=strategies.default_rate(model, recipe))
    with claimed(run_dir, again=resume) as run:
        rows = given_rows(model, x, y, sample_weight, validation_data, validation_split, recipe.seed)
        data = read_rows(model, *rows, recipe)
        if validation_split is not None and data.val_x is not None and verbose:
            held_out, n = len(data.val_x), len(data.x) + len(data.val_x)
            _text.show(f"{held_out:,} of {n:,} rows are held out, by class: they choose the best epoch")
        training = Training(
            model, recipe, used_precision, data, run, _text.show if verbose else None, more,
            checkpoint_every, calls_apart=bool(more),
        )  # fmt: skip
        manifest = run.read_manifest() if resume and run is not None and run.manifest.is_file() else {}
        if (
            run is not None
            and manifest.get("status") == "running"
            and not ("resume" in manifest or run.weights)
        ):
            run.abandon()  # it was killed before it had begun
            manifest = {}
        if run is not None and manifest:
            training.check(manifest)
            if manifest["status"] == "complete":
                return finished(run, manifest, model, training.show)
            training.go_on(manifest)
        else:
            training.begin()
        training.go()
        return training.result()


# --- the training -----------------------------------------------------------------------------------------


@dataclass
class Training:
    """One training: its parts, and what is known of it so far."""

    model: Classifier
    recipe: Recipe
    precision: str
    data: Data
    run: Run | None
    show: Any
    callbacks: list[Any]  # the user's
    checkpoint_every: int | str | None = "30s"
    calls_apart: bool = False  # whether a callback is to be called after every step
    manifest: dict[str, Any] = field(default_factory=dict)
    trace: TrainingTrace = field(default_factory=TrainingTrace)
    state: State | None = None  # where a run that is resumed goes on

    def result(self) -> FineTuneResult:
        """Return what `fine_tune` gives back."""
        return FineTuneResult(
            self.model, self.trace, self.manifest, None if self.run is None else self.run.path
        )

    def _settings(self) -> dict[str, Any]:
        return {
            **self.recipe.record(), "class_weight": self.data.class_weight,
            "optimizer": f"AdamW, {schedules.in_words(self.recipe.schedule, self.recipe.warmup)}",
        }  # fmt: skip

    def begin(self) -> None:
        """Write what is known before the first step; what cannot be written is found out now."""
        model, run = self.model, self.run
        self.manifest = {
            "settings": self._settings(),
            "precision": {"asked": self.recipe.precision, "used": self.precision},
            "model": {
                "labels": list(model.labels), "backbone_parameters": int(model.backbone.count_params()),
                "pooling": model.pooling, **source_of(model),
                "weights_hash": None,
            },
            "rows": self.data.record(),
            "environment": environment(),
            "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "status": "running",
        }  # fmt: skip
        answer = model.temperature, model.threshold, model.abstention
        self._reset_answer()
        if run is None:
            return
        try:
            run.check_room(sum(weight.numpy().nbytes for weight in model.weights))
            weights = self.manifest["model"]["weights_hash"] = weights_hash(model)
            run.write_manifest(self.manifest)
            if model.takes_text:
                saved = run.save_training_rows(self.data.x, self.data.y, model.labels)
                self.manifest["files"] = {run.train.name: saved}
                run.write_manifest(self.manifest)
            run.begin_checkpoint(model.save)
            rows = self.data.arrays()
            if stored := can_be_stored(rows):
                run.save_rows(rows)
            self.manifest["resume"] = {
                "rows": digest(rows), "rows_stored": stored, "weights": weights,
                "built": built(model), "adapters": not can_go_on(model),
                "callbacks": names_of(self.callbacks), "calls_apart": self.calls_apart,
                "checkpoint_every": self.checkpoint_every, **run.notes,
            }  # fmt: skip
            run.write_manifest(self.manifest)
        except BaseException:
            model.temperature, model.threshold, model.abstention = answer
            run.abandon()
            raise

    def _reset_answer(self) -> None:
        """Forget temperature, threshold and abstention: they are of the weights that are about to change."""
        self.model.temperature, self.model.threshold, self.model.abstention = 1.0, None, None
        self.model.compile()  # no state of an optimizer is saved

    def check(self, manifest: dict[str, Any]) -> None:
        """Refuse a run that cannot go on, or is of another training than this one."""
        assert self.run is not None
        begun(str(self.run.path), manifest)
        self._reset_answer()
        check_same(
            manifest, settings=self._settings(), rows=self.data.arrays(), model=self.model,
            callbacks=self.callbacks,
        )  # fmt: skip

    def go_on(self, manifest: dict[str, Any]) -> None:
        """Take up a run that `check` let through where its newest whole checkpoint is."""
        run = self.run
        assert run is not None
        self.state = state = States(run.checkpoint).newest()
        if state is None:
            where = "from its first step"
            run.trace.unlink(missing_ok=True)
        else:
            where = (
                f"in epoch {state.epoch + 1} of {self.recipe.epochs}, after step {state.step} of "
                f"{len(self.data.train)}"
            )
        if (run.checkpoint / "best.npz").is_file():
            run.model.unlink(missing_ok=True)  # of before: the best epoch of a run that goes on is there
        self.calls_apart, self.precision = manifest["resume"]["calls_apart"], manifest["precision"]["used"]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.manifest = {
            **manifest, "status": "running", "resumed": [*manifest.get("resumed", []), now]
        }  # fmt: skip
        run.write_manifest(self.manifest)
        if self.show is not None:
            self.show(f"{str(run.path)!r} goes on {where}.")

    def go(self) -> None:
        """Train, keep the best epoch, write the model, and only then try the rest."""
        model, recipe = self.model, self.recipe
        if recipe.strategy == "lora":
            lora.enable(model, recipe.adapter_rank, recipe.seed)
        seconds = 0.0 if self.state is None else self.state.seconds
        parts = Parts.of(
            model, recipe, self.data, self.callbacks, run=self.run, checkpoint_every=self.checkpoint_every,
            seconds=seconds, show=self.show,
        )  # fmt: skip
        before = model.get_weights()
        began = time.perf_counter() - seconds
        status = "interrupted"
        try:
            fixed = deterministic_operations(recipe.deterministic)
            with strategies.only_its_weights(model, recipe), fixed:
                self._fit(parts)
            if parts.best is not None:
                parts.best.restore()  # last: a callback of the user's may have restored another epoch
            # The last step's loss was computed before its update: look at what that left.
            if not is_finite(model):
                parts.guard.at_the_end()
            status = "diverged" if parts.guard.diverged else "complete"
        except KeyboardInterrupt as stop:
            if self.run is not None:
                stop.add_note(f"`finetune_eval.resume({str(self.run.path)!r})` goes on.")
            raise
        finally:
            restored = self._end(parts, status, before, began)
        if status == "diverged":
            assert recipe.learning_rate is not None
            raise FloatingPointError(parts.guard.sentence(restored, recipe.learning_rate))
        self._decide()

    def _end(self, parts: Parts, status: str, before: list[np.ndarray], began: float) -> str:
        """Leave model and run as a training that ended leaves them; return which weights are in the model."""
        model = self.model
        parts.counts.on_train_end()  # Keras does not call it when a callback, or a key, interrupts
        # The rate has run down to 0: the next user starts afresh, `evaluate` tells the plain loss without
        # label smoothing, and no optimizer state is saved.
        model.compile()
        if status == "interrupted" and parts.best is not None:
            parts.best.restore()
        broken, restored = status == "diverged" or lost(model), "from before it"
        if broken and (lost(model) or not parts.restore_good()):
            model.set_weights(before)
        elif broken:
            restored = f"of epoch {parts.good_epoch}"
        self.trace = parts.tracer.trace
        model.moved = strategies.moved(model, before)
        self.manifest |= {
            "status": status, "epochs": len(self.trace.epochs),
            "seconds": round(time.perf_counter() - began, 3),
            "best_epoch": self.trace.best_epoch, "moved": dict(model.moved),
        }  # fmt: skip
        if parts.learned.sentence is not None:
            self.manifest["did_not_learn"] = parts.learned.sentence
        if status == "complete":
            self.manifest |= {"temperature": None, "threshold": None, "abstention": None}
        try:
            parts.close()
        finally:
            if status == "diverged" and self.run is not None:
                States(self.run.checkpoint).remove()  # it would diverge again
            self._write(model=bool(self.trace.epochs) and not broken, whole=not self.recipe.chooses)
        return restored

    def _fit(self, parts: Parts) -> None:
        """Compile and fit, from the first step or from where a run that is resumed goes on."""
        model, recipe, train, validation = self.model, self.recipe, self.data.train, self.data.validation
        assert recipe.learning_rate is not None
        total, state = len(train) * recipe.epochs, self.state
        if recipe.strategy == "head_then_full" and state is None:
            strategies.start_head(model, train, recipe.seed)
        optimizer: Any = fine_tuning_optimizer(
            recipe.learning_rate, recipe.weight_decay, total, schedule=recipe.schedule, warmup=recipe.warmup,
            used_rows=used_rows(model, train), rate_scales=strategies.rate_scales(model, recipe.layer_decay),
            first_steps=strategies.first_steps(model, recipe, len(train)),
            average_from=recipe.averaged_from(total), ema=recipe.ema,
        )  # fmt: skip
        loss = LOSSES[model.task][recipe.loss]
        model.compile(optimizer=optimizer, loss=loss(label_smoothing=recipe.label_smoothing))
        # Variables made inside the first step would have TensorFlow trace that step a second time.
        optimizer.build(model.trainable_variables)
        build_metrics(model)
        seed_dropout(model, recipe.seed)
        plan = planned(
            model, train, validation, epochs=recipe.epochs, precision=self.precision,
            calls_apart=self.calls_apart, parts=recipe.gradient_accumulation, show=self.show,
        )  # fmt: skip
        callbacks: Any = parts.in_order()
        if state is not None:
            train.begin_at(state.epoch, state.step)
            callbacks = parts.resumed(model, recipe, len(train), state)
        waiting = contextlib.nullcontext() if parts.steps is None else parts.steps.before_signals()
        with model.computing(plan), variables_kept(model), waiting:
            keras.Model.fit(
                model, train.dataset(), validation_data=None if validation is None else validation.dataset(),
                epochs=recipe.epochs, initial_epoch=0 if state is None else state.epoch, verbose=0,
                shuffle=False,  # the batches are shuffled already
                callbacks=callbacks,
            )  # fmt: skip

    def _write(self, *, model: bool, whole: bool = True) -> None:
        """Write the model, then the manifest; a failure is a warning, for the weights are in memory.

        Args:
            model: Whether there is one worth writing.
            whole: Whether nothing is left to do: a run that is killed before is resumed.
        """
        run = self.run
        if run is None:
            return
        done = whole and self.manifest["status"] == "complete"
        undecided = self.manifest["status"] == "complete" and not whole
        try:
            if model:
                run.save_model(self.model.save)
            run.write_manifest({**self.manifest, **({"status": "running"} if undecided else {})})
        except OSError as error:
            kept = " Its checkpoint has the weights of the best epoch." if run.weights is not None else ""
            warnings.warn(
                f"The run could not be written whole: {error} The model in memory is trained: save it "
                f"elsewhere with `model.save(path)`.{kept}",
                RuntimeWarning,
                stacklevel=4,
            )
        else:
            if model and done:
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


__all__ = ["FineTuneResult", "fine_tune"]
