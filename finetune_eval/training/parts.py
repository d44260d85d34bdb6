"""The callbacks of one training, and the order they are called in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_eval.models.halves import in_strategy
from finetune_eval.runs import Run
from finetune_eval.training.averages import Averages
from finetune_eval.training.callbacks import ClassificationMetrics, EpochTrace
from finetune_eval.training.checkpoints import BestEpoch, Checkpoint
from finetune_eval.training.divergence import StopOnDivergence
from finetune_eval.training.learning import LearningCheck
from finetune_eval.training.recipe import Recipe
from finetune_eval.training.rows import Data
from finetune_eval.training.states import State, States
from finetune_eval.training.step_checkpoints import Resumed, StepCheckpoints, parse_every
from finetune_eval.training.validation_rows import RowMetrics, WithinNoise


@dataclass(frozen=True)
class Parts:
    """Our callbacks, and those of the user."""

    guard: StopOnDivergence
    counts: ClassificationMetrics
    tracer: EpochTrace
    learned: LearningCheck
    averages: Averages | None
    best: BestEpoch | None
    kept: Checkpoint | None
    steps: StepCheckpoints | None
    more: list[Any]

    @classmethod
    def of(
        cls,
        model: Any,
        recipe: Recipe,
        data: Data,
        more: list[Any],
        *,
        run: Run | None,
        checkpoint_every: int | str | None,
        seconds: float,
        show: Callable[[str], Any] | None,
        distributed: bool = False,
        written: bool = False,
    ) -> Parts:
        """Return the parts of a training that had run for `seconds` before it was resumed.

        `written` says whether there is a run folder, of this process (`run`) or of another one.
        """
        validated = data.validation is not None
        counts = RowMetrics(data.validation, len(model.labels), task=model.task, by_row=not distributed)
        tracer = EpochTrace(
            rows=len(data.x), val_rows=None if data.val_x is None else len(data.val_x),
            path=None if run is None else run.trace, show=show,
            monitor=recipe.monitor if validated else None, mode=recipe.mode, chooses=recipe.keep == "best",
            val_f1_interval=counts.f1_interval,
        )  # fmt: skip
        best = None
        if validated and recipe.keep == "best":
            monitor = recipe.monitor or "val_loss"
            noise = WithinNoise(counts.rows, monitor) if recipe.stop_within_noise else None
            best = BestEpoch(monitor, mode=recipe.mode, patience=recipe.early_stopping, noise=noise)
        guard = StopOnDivergence(data.train, len(model.labels), keep=best is None)
        learned = LearningCheck(counts, model.labels, data.validation, recipe.learning_rate, show)
        kept, steps = None, None
        if run is not None:
            kept = Checkpoint(run.save_best, best)
        if written and not in_strategy():  # what replicas hold is not all in the model
            steps = StepCheckpoints(
                None if run is None else States(run.checkpoint), parse_every(checkpoint_every),
                steps=len(data.train),
                callbacks=_with_state(guard, tracer, learned, best, more), best=best, seconds=seconds,
                show=show,
            )  # fmt: skip
        averages = Averages() if recipe.averaged_from(1) is not None else None
        return cls(guard, counts, tracer, learned, averages, best, kept, steps, more)

    def in_order(self) -> list[Any]:
        """Return the callbacks for `fit`: each sees what those before it put into the model and the logs."""
        own = (self.averages, self.counts, self.guard, self.tracer, self.learned, self.best, self.kept)
        return [each for each in (*own, *self.more, self.steps) if each is not None]

    def resumed(self, model: Any, recipe: Recipe, steps: int, state: State) -> Resumed:
        """Return the callbacks for a `fit` that goes on at a checkpoint."""
        return Resumed(
            self.in_order(), model=model, epochs=recipe.epochs, steps=steps, state=state, best=self.best,
            kept=_with_state(self.guard, self.tracer, self.learned, self.best, self.more),
        )  # fmt: skip

    @property
    def good_epoch(self) -> int:
        """The epoch whose weights `restore_good` puts back, counted from 1."""
        return self.guard.good_epoch if self.best is None else self.best.best_epoch

    def restore_good(self) -> bool:
        """Put the weights of the best epoch back, or of the last whole one; return whether there are any."""
        return self.guard.restore() if self.best is None else self.best.best_epoch > 0

    def close(self) -> None:
        """Wait for what is being written."""
        for writer in (self.kept, self.steps):
            if writer is not None:
                writer.close()


def _with_state(guard: Any, tracer: Any, learned: Any, best: Any, more: list[Any]) -> list[Any]:
    return [each for each in (guard, tracer, learned, best, *more) if each is not None]
