"""Checkpoints between steps: when they are written, how a signal waits for one, and how `fit` goes on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from finetune_eval import _checks
from finetune_eval.training import states, watch
from finetune_eval.training.checkpoints import BestEpoch
from finetune_eval.training.states import State, States

# Between two checkpoints by the clock lie at least this many times the seconds that one of them takes.
_TIMES_ITS_COST = 50


def parse_every(value: Any) -> tuple[int | None, float | None]:
    """Return after how many steps, or seconds, a checkpoint is due, of an argument `checkpoint_every`.

    Raises:
        ValueError, TypeError: It is neither a number of steps, nor a time such as "30s", nor None.
    """
    if value is None:
        return None, None
    if not isinstance(value, str):
        return _checks.positive_int("checkpoint_every", value), None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*", value)
    seconds = float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise ValueError(
            "`checkpoint_every` must be a number of steps such as 500, a time such as '30s' or '10min', or "
            f"None; got {value!r}."
        )
    return None, seconds


class StepCheckpoints(keras.callbacks.Callback):
    """Write a checkpoint when one is due; put it last, so that all other callbacks have seen the step.

    The values are copied between two steps, and a thread writes them.

    Args:
        states: Where they are written; None where another process writes them: this one only stops with it.
        every: As `parse_every` returns it.
        steps: Number of steps in an epoch.
        callbacks: The callbacks whose states are kept.
        best: The callback that keeps the best epoch, or None.
        seconds: How long the training had run before it was resumed.
        show: Called with a sentence when a signal waits; None for silence.
    """

    def __init__(
        self,
        states: States | None,
        every: tuple[int | None, float | None],
        *,
        steps: int,
        callbacks: Sequence[Any],
        best: BestEpoch | None,
        seconds: float = 0.0,
        show: Callable[[str], Any] | None = None,
    ):
        super().__init__()
        self._show = show
        self._states, self._callbacks, self._best, self._steps = states, callbacks, best, steps
        self._every_steps, self._every_seconds = every
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future[float] | None = None
        self._began = time.perf_counter() - seconds
        self._last = time.perf_counter()
        self._since = 0  # steps since the last checkpoint
        self._cost = 0.0  # seconds of the last checkpoint
        self._epoch = 0
        self._signal: Callable[[], Any] | None = None
        self._handlers: dict[int, Any] = {}  # those of the program

    def on_train_begin(self, logs: Any = None) -> None:
        """Find out now whether the states of the callbacks can be written."""
        states.packed(states.of_callbacks(self._callbacks), {})

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Remember the step."""
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write a checkpoint if one is due, or if a signal waits for it, in any of the processes."""
        done = min(batch + 1, self._steps)
        self._since += done - self._first
        if self.model.stop_training:
            return
        stops = self._stops()
        if self._states is not None and (stops or self._due()):
            began = time.perf_counter()
            state = self._state(done, logs or {})
            self._finish()
            self._writing = self._writer.submit(self._write, self._states, state, time.perf_counter() - began)
            self._since, self._last = 0, time.perf_counter()
        if stops:
            self._finish()
            self._stop()

    def _due(self) -> bool:
        if self._every_steps is not None:
            return self._since >= self._every_steps
        if self._every_seconds is None or time.perf_counter() - self._last < self._every_seconds:
            return False
        if self._writing is not None and self._writing.done():
            self._finish()
        return self._writing is None and time.perf_counter() - self._last >= _TIMES_ITS_COST * self._cost

    def _state(self, step: int, logs: dict[str, Any]) -> State:
        best = self._best
        return State(
            self._epoch, step, time.perf_counter() - self._began,
            {name: float(value) for name, value in logs.items()},
            copy.deepcopy(states.of_callbacks(self._callbacks)),  # they go on while this is written
            states.of_model(self.model), *((best.best_epoch, best.weights) if best is not None else ()),
        )  # fmt: skip

    @staticmethod
    def _write(place: States, state: State, seconds: float) -> float:
        """Write a checkpoint; return what it cost: the seconds it held up training, and those of a core."""
        began = time.thread_time()
        place.write(state)
        return seconds + time.thread_time() - began

    def _finish(self) -> None:
        """Wait for the last write."""
        if self._writing is None:
            return
        problem, writing, self._writing = self._writing.exception(), self._writing, None
        if problem is None:
            self._cost = writing.result()
        elif isinstance(problem, OSError):
            warnings.warn(
                f"A checkpoint could not be written: {problem} Training goes on.",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            raise problem

    def close(self) -> None:
        """Wait for the last write, and end the thread."""
        try:
            self._finish()
        finally:
            self._writer.shutdown()

    # --- signals ---------------------------------------------------------------

    @contextlib.contextmanager
    def before_signals(self) -> Iterator[None]:
        """Have Ctrl-C, and SIGTERM where the program handles it, wait for the step to end and be written.

        The second signal does not wait. In other threads than the main one nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self._handlers

        def wait(number: int, frame: Any) -> None:
            if self._signal is not None:
                self.raise_signal()
                return
            self._signal = lambda: before[number](number, frame)
            if watch.several():
                watch.ask_to_stop(number)
            if self._show is not None:
                which = "the next step that all processes do" if watch.several() else "this step"
                self._show(
                    f"The training stops after {which}, which is saved; a second signal stops at once."
                )

        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, wait)
        try:
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
        self._stop()  # where a signal came after the last step

    def _stops(self) -> bool:
        """Whether the training stops after the step that was done."""
        return bool(watch.stops_here()) if watch.several() else self._signal is not None

    def _stop(self) -> None:
        """Do what the program does on the signal that waits, in this process or in another one."""
        number = watch.agreed() if watch.several() else 0
        if not number:
            self.raise_signal()
            return
        self._signal = None
        with watch.stopping():
            self._handlers.get(number, signal.default_int_handler)(number, None)

    def raise_signal(self) -> None:
        """Do what the program does on the signal that waits."""
        waiting, self._signal = self._signal, None
        if waiting is not None:
            waiting()


class Resumed(keras.callbacks.CallbackList):
    """The callbacks of a `fit` that goes on inside an epoch.

    Keras begins every epoch at its first step. Here the steps that were done before are passed over: the
    training function is replaced by one that only takes their batches, and no callback hears of them.

    Args:
        callbacks: The callbacks.
        model: The model that is trained.
        epochs: Number of epochs.
        steps: Number of steps in an epoch.
        state: What is put back before the first step.
        kept: The callbacks whose states are put back.
        best: The callback that keeps the best epoch, or None.
    """

    def __init__(
        self,
        callbacks: list[Any],
        *,
        model: Any,
        epochs: int,
        steps: int,
        state: State,
        kept: Sequence[Any],
        best: BestEpoch | None,
    ):
        self._waits_for: State | None = state
        self._kept, self._best, self._train = kept, best, None
        super().__init__(
            callbacks, add_history=True, add_progbar=False, model=model, verbose=0, epochs=epochs, steps=steps
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put the state back, in the first epoch."""
        super().on_epoch_begin(epoch, logs)
        state = self._waits_for
        if state is None:
            return
        states.put_into(self.model, state.variables)
        states.put_into_callbacks(self._kept, state.callbacks)
        if self._best is not None:
            self._best.weights = state.best
        self._train = self.model.train_function
        self.model.train_function = _passing_over(state.logs, self.model.steps_per_execution)

    def _arrive(self) -> None:
        self._waits_for, self.model.train_function = None, self._train

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Go on with the first step that was not done."""
        if self._waits_for is not None:
            if batch < self._waits_for.step:
                return
            self._arrive()
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell of no step that was done before."""
        if self._waits_for is None:
            super().on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Go on with the end of the epoch, where all of its steps were done."""
        if self._waits_for is not None:
            self._arrive()
        super().on_test_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Go on with the next epoch, where all steps were done and there are no validation rows."""
        if self._waits_for is not None:
            self._arrive()
        super().on_epoch_end(epoch, logs)


def _passing_over(logs: dict[str, float], steps_per_execution: int) -> Callable[..., Any]:
    """Return a training function that takes batches and trains nothing."""

    def take(*arguments: Any) -> Any:
        *state, batches = arguments  # JAX has the function take and return the state
        if not isinstance(batches, list):  # torch is given the batches, not what they come from
            for _ in range(steps_per_execution):
                next(batches, None)
        return (logs, *state) if state else logs

    return take
