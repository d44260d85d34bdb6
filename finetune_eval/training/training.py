"""One training: begin or go on, fit, keep the best epoch, and leave a run folder that says how."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from finetune_eval import _pairs
from finetune_eval.models import devices, lora
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.layers import LOSSES
from finetune_eval.models.steps import lost, planned, variables_kept
from finetune_eval.runs import Run
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training import optimizers, processes, schedules, strategies
from finetune_eval.training.divergence import is_finite
from finetune_eval.training.environment import environment, source_of, weights_hash
from finetune_eval.training.parts import Parts
from finetune_eval.training.recipe import Recipe
from finetune_eval.training.result import FineTuneResult
from finetune_eval.training.rows import Data, can_be_stored, digest
from finetune_eval.training.sameness import begun, built, check_same, names_of
from finetune_eval.training.seeding import deterministic_operations, seed_dropout
from finetune_eval.training.states import State, States


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
    optimizer: Any = None  # the user's, or None for ours
    named: str | None = None  # the recipe that the settings began with, where it has a name
    distribution: str | None = None
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
            "optimizer": f"AdamW, {schedules.in_words(self.recipe.schedule, self.recipe.warmup)}"
            if self.optimizer is None else optimizers.in_words(self.optimizer),
        }  # fmt: skip

    def begin(self) -> None:
        """Write what is known before the first step; what cannot be written is found out now."""
        model, run = self.model, self.run
        self.manifest = {
            "recipe": self.named,
            "settings": self._settings(),
            "precision": {"asked": self.recipe.precision, "used": self.precision},
            "model": {
                "labels": list(model.labels), "backbone_parameters": int(model.backbone.count_params()),
                "pooling": model.pooling, **source_of(model),
                "weights_hash": None,
            },
            "rows": self.data.record(),
            "environment": {**environment(), "distribution": processes.in_words(self.distribution)},
            "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "status": "running",
        }  # fmt: skip
        answer = model.temperature, model.threshold, model.abstention
        self._reset_answer()
        if run is None or not processes.is_first():
            return
        try:
            run.check_room(sum(weight.numpy().nbytes for weight in model.weights))
            weights = self.manifest["model"]["weights_hash"] = weights_hash(model)
            run.write_manifest(self.manifest)
            if model.takes_text:
                saved = run.save_training_rows(_pairs.one_text(self.data.x), self.data.y, model.labels)
                self.manifest["files"] = {run.train.name: saved}
                run.write_manifest(self.manifest)
            run.begin_checkpoint(model.save)
            adapters = lora.described(model)
            if adapters is not None:  # a saved model has them merged
                run.save_weights(model.get_weights())
            rows = self.data.arrays()
            if stored := can_be_stored(rows):
                run.save_rows(rows)
            self.manifest["resume"] = {
                "rows": digest(rows), "rows_stored": stored, "weights": weights,
                "built": built(model), "adapters": adapters,
                "own_optimizer": self.optimizer is not None,
                "callbacks": names_of(self.callbacks), "calls_apart": self.calls_apart,
                "checkpoint_every": self.checkpoint_every, "distribution": self.distribution, **run.notes,
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
        known = begun(str(self.run.path), manifest)
        if known.get("own_optimizer", False) != (self.optimizer is not None):
            had = "no `optimizer`" if self.optimizer is not None else "an `optimizer` of the caller's"
            raise ValueError(f"The run began with {had}; pass what it was, or another `run_dir`.")
        self._reset_answer()
        check_same(
            manifest, settings=self._settings(), rows=self.data.arrays(), model=self.model,
            callbacks=self.callbacks, distribution=processes.in_words(self.distribution),
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
        if processes.count() > 1:
            processes.check_same(
                rows=digest(self.data.arrays()), settings=str(self._settings()), weights=weights_hash(model)
            )
        written = self.run is not None
        if not processes.is_first():
            self.run = None
        if recipe.strategy == "lora":
            lora.enable(model, recipe.adapter_rank, recipe.seed)
        seconds = 0.0 if self.state is None else self.state.seconds
        parts = Parts.of(
            model, recipe, self.data, self.callbacks, run=self.run, checkpoint_every=self.checkpoint_every,
            seconds=seconds, show=self.show, distributed=self.distribution is not None, written=written,
        )  # fmt: skip
        before = model.get_weights()
        began = time.perf_counter() - seconds
        status = "interrupted"
        try:
            fixed = deterministic_operations(recipe.deterministic)
            spread = devices.spread(model, self.distribution)
            with strategies.only_its_weights(model, recipe), fixed, spread:
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
        total, state = len(train) * recipe.epochs, self.state
        begins = recipe.strategy == "head_then_full" or strategies.columns_are_new(model)
        if begins and state is None:
            strategies.start_head(model, train, recipe.seed)
        optimizer = self.optimizer if self.optimizer is not None else self._own_optimizer(total)
        loss = LOSSES[model.task][recipe.loss]
        model.compile(optimizer=optimizer, loss=loss(label_smoothing=recipe.label_smoothing))
        # Variables made inside the first step would have TensorFlow trace that step a second time.
        optimizer.build(model.trainable_variables)
        model.build_metrics()
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

    def _own_optimizer(self, steps: int) -> Any:
        """Return the AdamW of the settings."""
        model, recipe, train = self.model, self.recipe, self.data.train
        assert recipe.learning_rate is not None
        return optimizers.fine_tuning_optimizer(
            recipe.learning_rate, recipe.weight_decay, steps, schedule=recipe.schedule, warmup=recipe.warmup,
            used_rows=optimizers.used_rows(model, train),
            rate_scales=strategies.rate_scales(model, recipe.layer_decay),
            first_steps=strategies.first_steps(model, recipe, len(train)),
            average_from=recipe.averaged_from(steps), ema=recipe.ema,
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


__all__ = ["Training"]
