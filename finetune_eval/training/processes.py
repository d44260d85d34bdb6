"""Several processes that train one model, on JAX: how they meet, and what the first has for the others."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks, _text
from finetune_eval.models import devices
from finetune_eval.runs import Run
from finetune_eval.training import watch

# JAX would end all processes itself, without a sentence, once one has been silent for so long.
_SILENT_FOR_JAX = 24 * 3600
_AT_A_TIME = 1 << 26  # bytes that the first process sends: a run may have more than 2 GiB
# How launchers tell a process of the others, where JAX does not read it: variables with the address of the
# first process, with the number of processes, and with the place of this one.
_LAUNCHERS = (
    (
        ("KERAS_DISTRIBUTION_JOB_ADDRESSES",), "KERAS_DISTRIBUTION_NUM_PROCESSES",
        "KERAS_DISTRIBUTION_PROCESS_ID",
    ),
    (("COORDINATOR_ADDRESS", "COORDINATOR_PORT"), "NUM_PROCESSES", "PROCESS_ID"),  # Kubeflow's JAXJob
    (("JAX_COORDINATOR_ADDRESS",), "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # mpirun of Open MPI
    (("JAX_COORDINATOR_ADDRESS",), "PMI_SIZE", "PMI_RANK"),  # mpirun of MPICH and Intel MPI
    (("JAX_COORDINATOR_ADDRESS",), "NUM_PROCESSES", "JOB_COMPLETION_INDEX"),  # an indexed Job of Kubernetes
)  # fmt: skip


def initialize_distributed(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> bool:
    """Connect the processes that train one model together; call it in each, before `build_model`.

    Without arguments the launcher's environment variables are read: those of Slurm (`srun`), Open MPI 4
    (`mpirun`) and Kubernetes as `jax.distributed.initialize` reads them, and those of Kubeflow's JAXJob.
    `docs/scaling.md` has the commands.

    Args:
        coordinator_address: "HOST:PORT": the machine of the first process, and a port that is free there.
        num_processes: How many processes there are.
        process_id: Which of them this is, from 0.

    Returns:
        Whether this is the first process, which writes the run folder and prints.

    Raises:
        ValueError: The backend is not JAX, or the processes are not known; the sentence says what to pass.
        RuntimeError: JAX is in use already, or another process did not come.

    Example:
        >>> first = initialize_distributed()  # doctest: +SKIP
        >>> model = build_model()  # doctest: +SKIP
        >>> run = fine_tune(model, x, y, distribution="data_parallel")  # doctest: +SKIP
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes can train one model on JAX only; set KERAS_BACKEND=jax before the program "
            f"starts (it is {keras.backend.backend()!r})."
        )
    import jax

    if num_processes is not None:
        num_processes = _checks.positive_int("num_processes", num_processes)
    if process_id is not None:
        process_id = _checks.positive_int("process_id", process_id, minimum=0)
    address, count, place = _of_launcher(os.environ)
    # It would take SIGTERM, with which schedulers end a job, away from the program.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address or address,
            count if num_processes is None else num_processes,
            place if process_id is None else process_id,
            heartbeat_timeout_seconds=_SILENT_FOR_JAX,
        )
    except ValueError as error:
        raise ValueError(
            f"The processes of this training are not known ({str(error).rstrip('.')}): pass "
            "`coordinator_address='HOST:PORT'` (the machine of the first process, and a free port there), "
            "`num_processes` and `process_id`, or start the program by srun, mpirun or a JAXJob."
        ) from None
    watch.begin()
    return is_first()


def _of_launcher(known: Mapping[str, str]) -> tuple[str | None, int | None, int | None]:
    """Return the address of the first process, the number of processes and the place of this one."""
    for address, count, place in _LAUNCHERS:
        if all(name in known for name in (*address, count, place)):
            where = ":".join(known[name] for name in address).split(",")[0]
            return where, int(known[count]), int(known[place])
    return None, None, None


def check_distribution(model: Any, kind: str | None) -> None:
    """Raise where a model cannot be trained with `distribution=kind` here.

    Raises:
        ValueError: The backend, the processes or the model do not fit it; the sentence says what does.
    """
    processes = count()
    if kind is None:
        if processes > 1:
            raise ValueError(
                f"{processes} processes are connected, and each would train alone; pass "
                "`distribution='data_parallel'`."
            )
        return
    _checks.one_of("distribution", kind, devices.KINDS)
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"`distribution` {kind!r} works on JAX; set KERAS_BACKEND=jax before the program starts (it is "
            f"{keras.backend.backend()!r}). On TensorFlow, build and train the model inside "
            "`tf.distribute.MirroredStrategy().scope()`."
        )
    for _, number, place in (*_LAUNCHERS, ("", "SLURM_NTASKS", "SLURM_STEP_NODELIST")):
        if processes == 1 and place in os.environ and int(os.environ.get(number, 1)) > 1:
            raise ValueError(
                f"{os.environ[number]} processes were started ({number}), and they are not connected: call "
                "`finetune_eval.initialize_distributed()` in each, before `build_model`."
            )
    if kind == "model_parallel" and processes > 1:
        raise ValueError(
            f"`distribution` 'model_parallel' shares a model among the devices of one process; "
            f"{processes} are connected. Start one process on a machine with several devices."
        )
    devices.distribution_of(model, kind)


def in_words(kind: str | None) -> str | None:
    """Return by what a model is trained, for the manifest; None for one device."""
    if kind is None:
        return None
    import jax

    processes = "1 process" if count() == 1 else f"{count():,} processes"
    return f"{kind}, {_text.counted(jax.device_count(), 'device')} in {processes}"


def count() -> int:
    """Return how many processes are connected; 1 where this one is alone."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes the run folder and prints: the first one, or the only one."""
    if count() == 1:
        return True
    import jax

    return bool(jax.process_index() == 0)


# --- what the first process has for the others ------------------------------------------------------------


def _from_first(data: bytes = b"") -> bytes:
    """Return on every process the bytes that the first one passes."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    def given(values: np.ndarray) -> np.ndarray:
        return np.asarray(broadcast_one_to_all(values))

    whole, rest = given(np.array(divmod(len(data), _AT_A_TIME), np.int32)).tolist()
    parts = []
    for place, size in enumerate([_AT_A_TIME] * whole + [rest] * (rest > 0)):
        start = place * _AT_A_TIME
        own = np.frombuffer(data[start : start + size], np.uint8)
        parts.append(given(own if is_first() else np.zeros(size, np.uint8)).tobytes())
    return b"".join(parts)


def check_same(**values: str) -> None:
    """Raise where a process has other values than the first one; their names tell what to look at.

    Raises:
        ValueError: Training would go on with a mixture of what they have.
    """
    first = json.loads(_from_first(json.dumps(values).encode()))
    names = [name.replace("_", " ") for name, value in values.items() if first[name] != value]
    if names:
        raise ValueError(
            f"Process {watch.place()} has other {' and other '.join(names)} than process 0: every process "
            "must be given the same rows in the same order, the same settings, and the same model."
        )


@contextlib.contextmanager
def of_first(owned: contextlib.AbstractContextManager[Run | None]) -> Iterator[Run | None]:
    """Give the run that the first process owns; the others get a copy of its files that nobody keeps.

    Args:
        owned: As `runs.claimed` gives it, not yet entered; the first process enters it.

    Raises:
        Exception: In every process what `owned` raises in the first one.
    """
    if count() == 1:
        with owned as run:
            yield run
        return
    with contextlib.ExitStack() as held:
        if is_first():
            try:
                run = held.enter_context(owned)
                files = _files_of(run)
            except Exception as error:
                _from_first(json.dumps({"error": [type(error).__name__, str(error)]}).encode())
                raise
            names = None if run is None else [str(file.relative_to(run.path)) for file in files]
            _from_first(json.dumps({"files": names}).encode())
            for file in files:
                _from_first(file.read_bytes())
            yield run
            return
        found = json.loads(_from_first())
        if "error" in found:
            name, sentence = found["error"]
            raise getattr(builtins, name, RuntimeError)(sentence)
        if found["files"] is None:
            yield None
            return
        copy = Run(held.enter_context(tempfile.TemporaryDirectory(prefix="finetune-eval-")))
        for name in found["files"]:
            path = copy.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_from_first())
        yield copy


def _files_of(run: Run | None) -> list[Path]:
    """Return the files that a process needs to go on with a run."""
    files = [] if run is None else [run.manifest, run.trace, run.model, *sorted(run.checkpoint.glob("*"))]
    return [file for file in files if file.is_file()]


__all__ = ["initialize_distributed"]
