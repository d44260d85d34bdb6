"""A thread in each of several processes that says it lives, and ends it where another one has ended.

A step needs every process: where one is missing, the others would wait in it for ever. What a process says is
a value in the key-value store of JAX's coordination service, which the first process runs.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

# A process says every second that it lives. One that says nothing for so long has died, or its machine has:
# sooner where a sum over all processes has failed besides. One that fails gets time to print its own error.
_EVERY, _SILENT, _SILENT_AND_FAILED, _GRACE = 1.0, 30.0, 10.0, 5.0
_MOST = 2 * _SILENT  # a process that has to stop waits no longer for the others to say how far they are
_KEY = "finetune_eval/process/"
_AFTER = (
    "None can go on alone, so this process ends too. Start all of them again; with a run folder and "
    "`resume=True` the training goes on at its last checkpoint."
)
_started: list[_Watch] = []  # one, once the processes are connected


@dataclass
class _Stop:
    """How the processes agree after which call of `stops_here` all of them stop, where one was told to.

    Each says how many calls it has done, and is held in its next one until all have said so. The last of them
    can be in no call but the one after that, which is where all stop: nobody has to be waited for in a step.
    """

    signal: int = 0  # that this process, or another one, has got
    calls: int = 0  # that this process has done; they are counted no further once it has said so
    said: int | None = None
    last: float | None = None  # the call after which all stop; infinity where another process has gone on
    error: BaseException | None = None  # with which this process stopped, as all do


class _Said(NamedTuple):
    """What a process says."""

    beat: int = 0
    status: str = "alive"
    why: str = ""
    done: int = 0
    signal: int = 0
    calls: int | None = None


class _Watch(threading.Thread):
    """Says that this process lives, and hears of the others."""

    def __init__(self, client: Any, place: int, count: int):
        super().__init__(name="finetune_eval watch", daemon=True)
        self.client, self.place, self.count = client, place, count
        self.status, self.why = "alive", ""
        self.training = 0  # how many contexts of `together` this process is in
        self.done = 0  # how many it has come out of
        self.failed = False  # whether a sum over all processes has failed here
        self.stop, self.lock, self.over = _Stop(), threading.Lock(), threading.Event()
        self._beat = 0
        self._heard = {other: (0, time.monotonic()) for other in range(count) if other != place}

    def run(self) -> None:
        """Say and hear, every second."""
        while not self.over.is_set():
            with contextlib.suppress(Exception):  # the service has gone: `_on_abort` is next
                self.agree()
                self.tell()
                problem = self.problem() if self.training and self.status == "alive" else None
                if problem is not None:
                    time.sleep(_GRACE)
                    if self.training and self.status == "alive":
                        self.end(problem)
            held = self.stop.said is not None and self.stop.last is None
            self.over.wait(_EVERY / 10 if held else _EVERY)

    def agree(self) -> None:
        """Take one step towards the call after which all processes stop, where one was told to."""
        stop, said = self.stop, self.said()
        theirs = [said.get(other, _Said()) for other in self._heard]
        asked = [each.signal for each in theirs if each.signal and each.done == self.done]
        stop.signal = stop.signal or next(iter(asked), 0)
        if not stop.signal or not self.training or stop.last is not None:
            return
        if stop.said is None:
            with self.lock:
                stop.said = stop.calls
        if any(each.done > self.done for each in theirs):
            stop.last = math.inf
        elif all(each.done == self.done and each.calls is not None for each in theirs):
            stop.last = 1 + max(stop.said, *(each.calls or 0 for each in theirs))

    def said(self) -> dict[int, _Said]:
        """Return what each process said last."""
        return {
            int(key.rsplit("/", 1)[1]): _Said(*json.loads(value))
            for key, value in self.client.key_value_dir_get(_KEY)
        }

    def tell(self, status: str | None = None, why: str = "") -> None:
        """Say how this process is."""
        if status is not None:
            self.status, self.why = status, why
        self._beat += 1
        stop = self.stop
        said = _Said(self._beat, self.status, self.why, self.done, stop.signal, stop.said)
        self.client.key_value_set(f"{_KEY}{self.place}", json.dumps(said), allow_overwrite=True)

    def others(self) -> dict[int, tuple[str, str, int]]:
        """Return of each other process its status ("silent": it has died), why it failed, and what it did."""
        said = self.said()
        found, now = {}, time.monotonic()
        for other, (beat, when) in self._heard.items():
            newest, status, why, done, *_ = said.get(other, _Said())
            if newest != beat:
                self._heard[other] = newest, now
            elif status == "alive" and now - when > (_SILENT_AND_FAILED if self.failed else _SILENT):
                status = "silent"
            found[other] = status, why, done
        return found

    def problem(self) -> str | None:
        """Return which other process cannot take part any more in what this one is in, and why."""
        for other, (status, why, done) in self.others().items():
            if status != "alive" and done <= self.done:
                how = {"failed": f"failed ({why})", "ended": "has ended"}.get(
                    status, "is silent: it was killed, or its machine is gone"
                )
                return f"Process {other} of {self.count} (counted from 0) {how}. {_AFTER}"
        return None

    def come_out(self) -> None:
        """Note that this process has done what it was in, together with the others or stopped as all were."""
        if self.training == 1:
            self.stop = _Stop()  # first: what was said is of the contexts that were done then
            self.done += 1

    def end(self, sentence: str) -> None:
        """End this process, whatever its main thread waits for."""
        _print(sentence)
        self.tell("failed", "another process had ended")
        self.wait(2 * _GRACE)
        self.exit()

    def exit(self) -> None:
        """End this process at once: JAX would wait for those that are not there."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.place == 0:  # the service ends with it, and JAX says so at length where a process is left
            time.sleep(2 * _EVERY)
        os._exit(1)

    def wait(self, seconds: float) -> None:
        """Wait until no other process is alive: the service through which they hear of it is in the first."""
        until = time.monotonic() + seconds
        with contextlib.suppress(Exception):
            while time.monotonic() < until and any(
                status == "alive" for status, _, _ in self.others().values()
            ):
                self.tell()
                time.sleep(_EVERY / 4)

    def leave(self) -> None:
        """Wait, at the end of the program, for the others to end: JAX would end all of them meanwhile."""
        if self.status == "alive":
            self.tell("ended")
        self.wait(2 * _GRACE if self.status == "failed" else float("inf"))
        with contextlib.suppress(Exception):
            if self.status == "failed" or any(status != "ended" for status, _, _ in self.others().values()):
                self.exit()
        # A thread that is in a call of JAX when Python ends has C++ end the process with a signal.
        self.over.set()
        self.join(2 * _EVERY)


def begin() -> None:
    """Begin to say that this process lives, and to hear of the others; once."""
    import jax
    from jax._src import distributed  # JAX has no public name for the client of its service

    if _started or jax.process_count() == 1:
        return
    _started.append(_Watch(distributed.global_state.client, jax.process_index(), jax.process_count()))
    if _started[0].place:  # JAX ends it with SIGABRT when the first one, which runs the service, has died
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))
    atexit.register(_started[0].leave)
    _started[0].start()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    _print(
        f"JAX ended this process, as it does where process 0 of {_started[0].count} (counted from 0) has "
        f"ended. {_AFTER}"
    )
    os._exit(1)


def _print(sentence: str) -> None:
    sys.stdout.flush()
    os.write(2, f"error: {sentence}\n".encode())


def place() -> int:
    """Return which of the processes this is, from 0."""
    return _started[0].place if _started else 0


def _is_of_a_sum(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is of a sum over all processes: JAX has no type for that."""
    return error is not None and (
        re.search(r"\b(Gloo|NCCL|MPI)\b|UNAVAILABLE|DEADLINE_EXCEEDED", str(error)) is not None
        or _is_of_a_sum(error.__cause__ or error.__context__)
    )


# --- stopping together ------------------------------------------------------------------------------------


def several() -> bool:
    """Whether other processes are connected with this one."""
    return bool(_started)


def ask_to_stop(number: int) -> None:
    """Have all processes stop after a step; it waits for no lock, since a signal handler calls it."""
    _started[0].stop.signal = _started[0].stop.signal or number


def stops_here() -> int:
    """Return the signal after which all processes stop now, or 0; every process calls it after each step."""
    own = _started[0]
    with own.lock:
        if own.stop.said is None:
            own.stop.calls += 1
            return 0
    own.stop.calls += 1
    return own.stop.signal if agreed() and own.stop.calls >= (own.stop.last or 0) else 0


def agreed() -> int:
    """Return the signal after which all processes stop, once the step is agreed on; 0 where none stops.

    Raises:
        RuntimeError: The others live, and have not said for a minute how far they are.
    """
    own = _started[0]
    until = time.monotonic() + _MOST
    while own.stop.said is not None and own.stop.last is None:
        if time.monotonic() > until:
            raise RuntimeError(
                "A signal came to stop the training, and the other processes have not answered to it for "
                f"{_MOST:.0f} seconds."
            )
        time.sleep(_EVERY / 50)
    return own.stop.signal if own.stop.last is not None and own.stop.last < math.inf else 0


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Have what is raised inside be no failure of this process: the others raise it, too."""
    try:
        yield
    except BaseException as error:
        _started[0].stop.error = error
        raise
    _started[0].stop.last = math.inf  # the program's own answer to the signal was to go on


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Have this process end, inside the context, where another one ends; and the others where this one fails.

    Without connected processes it does nothing.
    """
    if not _started:
        yield
        return
    own = _started[0]
    own.training += 1
    with contextlib.suppress(Exception):
        own.tell("alive")  # it may have failed before, as all of them did, and go on
    try:
        yield
        own.come_out()
    except BaseException as error:
        if error is own.stop.error:
            own.come_out()
            raise
        if _is_of_a_sum(error):  # another process may have died
            own.failed = True
            own.join(_SILENT_AND_FAILED + 2 * _GRACE)
        with contextlib.suppress(Exception):
            own.tell("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        if own.training == 1:
            own.stop = _Stop()
        own.training -= 1
