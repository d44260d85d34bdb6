"""find_learning_rate: a range test, after which the model is as it was before, to the bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_eval import _checks
from finetune_eval._text import Shown, counted, fill
from finetune_eval.models.batching import Batches
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.layers import LOSSES
from finetune_eval.models.mirrored import check_training, in_scope
from finetune_eval.models.steps import planned, variables_kept
from finetune_eval.training import strategies
from finetune_eval.training.optimizers import fine_tuning_optimizer, used_rows
from finetune_eval.training.recipe import Recipe
from finetune_eval.training.rows import given_rows, read_rows
from finetune_eval.training.seeding import seed_dropout

_SMOOTHING = 0.9  # the share of the mean so far in the next one: about ten steps count
_EXPLODES = 4.0  # times the lowest mean: as the range test of fastai stops
_BELOW = 10.0  # the suggestion is so many times below the rate of the lowest loss
_FELL = 0.02  # a smaller relative fall is called none


@dataclass(frozen=True)
class RateRange(Shown):
    """What `find_learning_rate` saw.

    Attributes:
        rates: The rate of each step, rising.
        losses: The loss of each step's batch, before the step.
        smoothed: The exponential mean of the losses, corrected for its start.
        suggestion: A tenth of the rate at which the mean was lowest; None where it never fell by 2 %.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None

    def __str__(self) -> str:
        steps = (
            f"{counted(len(self.rates), 'step')}, from a rate of {self.rates[0]:.1e} to {self.rates[-1]:.1e}"
        )
        if self.suggestion is None:
            return fill(f"In {steps}, the loss never fell: no rate is suggested.")
        lowest = int(np.argmin(self.smoothed))
        return fill(
            f"In {steps}, the loss fell from {self.smoothed[0]:.3f} to {self.smoothed[lowest]:.3f}, at "
            f"{self.rates[lowest]:.1e}. A tenth of that is suggested: {self.suggestion:.1e}."
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the rates; return the Matplotlib axes.

        Args:
            ax: The axes to draw on; None for those of a new figure.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(layout="constrained").add_subplot()
        ax.plot(self.rates, self.losses, color="0.8", label="loss of a batch")
        ax.plot(self.rates, self.smoothed, color="C0", label="smoothed")
        if self.suggestion is not None:
            ax.axvline(self.suggestion, color="C1", linestyle="--", label=f"suggested: {self.suggestion:.1e}")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        ax.legend()
        return ax


@in_scope
def find_learning_rate(
    model: Classifier,
    x: Any,
    y: Any = None,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    batch_size: int = 16,
    strategy: str = "full",
    class_weight: dict[Any, float] | str | None = None,
    sample_weight: Any = None,
    seed: int = 0,
) -> RateRange:
    """Train a few steps at rising rates, and say at which the loss fell; then put the model back.

    The model has its weights, its optimizer and its random states afterwards, to the bit. One test is one
    draw: a tenth of its rate is a place to begin looking, and no measurement of which rate is best.

    Args:
        model: From `build_model` or `load_model`.
        x: As for `fine_tune`: rows, or a pipeline that is read whole.
        y: Their labels; None for a pipeline.
        lowest: The rate of the first step.
        highest: The rate of the last step; the test ends before it where the loss explodes.
        steps: Number of steps. The rate rises by the same factor in each.
        batch_size: Rows a step.
        strategy: What is trained: "full" or "head", as for `fine_tune`.
        class_weight: As for `fine_tune`.
        sample_weight: As for `fine_tune`.
        seed: Of the shuffling and the dropout.

    Returns:
        The curve, a suggestion, and `plot(ax=)`.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which.

    Example:
        >>> found = find_learning_rate(model, texts, labels)  # doctest: +SKIP
        >>> run = fine_tune(model, texts, labels, learning_rate=found.suggestion)  # doctest: +SKIP

    Reference:
        Smith 2017, "Cyclical Learning Rates for Training Neural Networks", the range test.
    """
    if not isinstance(model, Classifier):
        raise TypeError(f"`model` must come from `build_model`; got {type(model).__name__}.")
    _checks.one_of("strategy", strategy, ("full", "head"))
    _checks.number("highest", highest, above=0)
    _checks.number("lowest", lowest, above=0, below=highest)
    _checks.positive_int("steps", steps, minimum=2)
    recipe = Recipe(batch_size=batch_size, strategy=strategy, class_weight=class_weight, seed=seed)
    recipe.check_fit(len(model.labels), validated=False, multilabel=model.multilabel)
    check_training(model)
    with _put_back(model), strategies.only_its_weights(model, recipe):
        rows = given_rows(model, x, y, sample_weight, None, None, seed)
        train = read_rows(model, *rows, recipe).train
        watch = _Watch(train, lowest, highest, steps)
        if strategies.columns_are_new(model):
            strategies.start_head(model, train, seed)
        optimizer: Any = fine_tuning_optimizer(
            lowest, 0.01, steps, schedule="constant", warmup=0, used_rows=used_rows(model, train)
        )
        model.compile(optimizer=optimizer, loss=LOSSES[model.task]["cross_entropy"]())
        optimizer.build(model.trainable_variables)
        seed_dropout(model, seed)
        epochs = -(-steps // len(train))
        plan = planned(model, train, None, epochs=epochs, precision="float32", calls_apart=True)
        with model.computing(plan), variables_kept(model):
            keras.Model.fit(
                model, train.dataset(), epochs=epochs, verbose=0, shuffle=False, callbacks=[watch]
            )  # fmt: skip
    return watch.found()


class _Watch(keras.callbacks.Callback):
    """Set the rate of each step, and note the loss of its batch."""

    def __init__(self, train: Batches, lowest: float, highest: float, steps: int):
        super().__init__()
        self._train = train
        self._rates = np.geomspace(lowest, highest, steps)
        self._losses: list[float] = []
        self._smoothed: list[float] = []
        self._mean = self._total = 0.0
        self._seen = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras' running loss begins anew."""
        self._total, self._seen = 0.0, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # else Keras holds the rate outside of the optimizer
        self.model.optimizer.learning_rate = float(self._rates[len(self._losses)])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the loss; stop after the last step, or when it explodes."""
        rows = len(self._train.order[batch])
        self._seen += rows
        total = float((logs or {})["loss"]) * self._seen
        loss, self._total = (total - self._total) / rows, total
        self._losses.append(loss)
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        smoothed = self._mean / (1 - _SMOOTHING ** len(self._losses))
        exploded = not math.isfinite(smoothed) or smoothed > _EXPLODES * min(self._smoothed, default=math.inf)
        if exploded:
            self._losses.pop()
        else:
            self._smoothed.append(smoothed)
        self.model.stop_training = exploded or len(self._losses) == len(self._rates)

    def found(self) -> RateRange:
        """Return what was seen."""
        lowest = int(np.argmin(self._smoothed))
        fell = self._smoothed[lowest] < (1 - _FELL) * self._smoothed[0]
        rates = self._rates[: len(self._losses)].tolist()
        return RateRange(
            tuple(rates), tuple(self._losses), tuple(self._smoothed), rates[lowest] / _BELOW if fell else None
        )


@contextlib.contextmanager
def _put_back(model: Any) -> Iterator[None]:
    """Give a model back its weights, random states, optimizer and all that `compile` sets."""
    attributes = dict(vars(model))
    values = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in model.variables]
    try:
        yield
    finally:
        for name in [*vars(model)]:
            if name not in attributes:
                del vars(model)[name]
        vars(model).update(attributes)
        model._graphs.clear()
        for variable, value in values:
            variable.assign(value)


__all__ = ["RateRange", "find_learning_rate"]
